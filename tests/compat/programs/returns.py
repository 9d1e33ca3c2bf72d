"""What skills return and raise, and which arguments they have."""

from dataclasses import dataclass
from typing import Any

from avtomatika_worker import ObservabilityManager, TaskFiles, Worker
from avtomatika_worker.types import ParamValidationError

worker = Worker("returns", 20, {"slow": 2})

RETURNED: dict[str, Any] = {
    "nothing": None,
    "empty": {},
    "envelope": {"status": "success", "data": {"a": 1, "nested": {"b": [1, 2.5, None]}}},
    "data_only": {"data": {"a": 1}},
    "no_data": {"status": "success"},
    "extra_keys": {"status": "success", "a": 1},
    "message": {"status": "success", "data": {"a": 1}, "message": "dropped"},
    "failed": {"status": "failure", "error": {"code": "PERMANENT_ERROR", "message": "no"}},
    "failed_with_more": {"status": "failure", "error": {"code": "INVALID_INPUT_ERROR", "message": "no"}, "details": 1},
    "failed_as_text": {"status": "failure", "error": "no"},
    "failed_for_nothing": {"status": "failure"},
    "cancelled": {"status": "cancelled", "message": "enough"},
    "plain": {"a": 1},
    "an_error_alone": {"error": "no"},
}


def returning(value: Any) -> Any:
    async def skill(params: dict[str, Any]) -> Any:
        return value

    return skill


for name, value in RETURNED.items():
    worker.skill(name)(returning(value))


@worker.skill("own_status", output_statuses=["needs_review"])
async def own_status(params: dict[str, Any]) -> dict[str, Any]:
    return {"status": "needs_review", "data": {"why": params["why"]}}


@worker.skill("value_error")
async def value_error(params: dict[str, Any]) -> None:
    raise ValueError("a bug")


@worker.skill("runtime_error")
async def runtime_error(params: dict[str, Any]) -> None:
    raise RuntimeError("a bug")


@worker.skill("wrong_params")
async def wrong_params(params: dict[str, Any]) -> None:
    raise ParamValidationError("wrong")


@dataclass
class Size:
    width: int
    height: int = 2

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError("too small")


@worker.skill("sized", type="slow")
async def sized(params: Size, **kwargs: Any) -> dict[str, Any]:
    given = sorted(set(kwargs) - {"add_to_hot_cache", "remove_from_hot_cache"})
    return {"status": "success", "data": {"area": params.width * params.height, "given": given}}


@worker.skill("in_a_thread")
def in_a_thread(params: dict[str, Any], task_id: str, job_id: str, priority: float) -> dict[str, Any]:
    return {"status": "success", "data": {"texts": [type(task_id).__name__, type(job_id).__name__], "at": priority}}


@worker.skill("reports")
async def reports(params: dict[str, Any], send_progress: Any, send_event: Any, task_id: str, job_id: str) -> Any:
    await send_progress(task_id, job_id, 0.25, "a quarter")
    await send_event("alert", {"level": 1}, priority=2, metadata={"m": 1})
    await send_progress(task_id, job_id, 0.75)
    return {"status": "success", "data": {"sent": True}}


@worker.skill("traced")
async def traced(params: dict[str, Any], obs: ObservabilityManager) -> dict[str, Any]:
    with obs.start_task_span("inner", "t", "j") as span, obs.start_s3_span("get", "s3://b/k"):
        obs.set_span_status_error(span, "none")
    obs.record_s3_op("get", "ok")
    obs.record_task_finished("inner", "success", 0.1)
    return {"status": "success", "data": {"on": obs.has_otel}}


@worker.skill("files")
async def files(params: dict[str, Any], files: TaskFiles) -> dict[str, Any]:
    await files.write("a.txt", "one")
    await files.write("a.txt", " two", "a")
    await files.write("sub/b.bin", b"three", "wb")
    async with files.open("c.txt", "w") as file:
        await file.write("four\nfive\n")
    async with files.open("c.txt") as file:
        lines = [line async for line in file]
    with open(files.path_to_sync("a.txt"), encoding="utf-8") as opened:  # noqa: ASYNC230, PTH123 - as people write it
        text = opened.read()
    return {
        "status": "success",
        "data": {
            "text": text,
            "same": text == await files.read("a.txt"),
            "bytes": (await files.read("sub/b.bin", "rb")).decode(),
            "lines": lines,
            "names": sorted(await files.list()),
            "exist": [await files.exists("a.txt"), await files.exists("none")],
            "root": await files.get_root() == files.get_root_sync(),
        },
    }


@worker.skill("hot")
async def hot(params: dict[str, Any], add_to_hot_skills: Any, remove_from_hot_skills: Any) -> dict[str, Any]:
    add_to_hot_skills("model-a")
    add_to_hot_skills("model-b")
    remove_from_hot_skills("model-b")
    return {"status": "success", "data": {"hot": sorted(worker.get_hot_skills_state())}}


if __name__ == "__main__":
    worker.run()
