"""A worker as one writes it for the official SDK: a config object, a command, files, a middleware of the older form.

It runs on both: on the official `avtomatika-worker` 1.0b20 and on this one. The tests run it on both side by side.
"""

from typing import Any

from avtomatika_worker import TaskFiles, Worker, WorkerConfig

config = WorkerConfig()
config.ENABLE_WEBSOCKETS = True
config.HEARTBEAT_INTERVAL = 5
config.INSTALLED_SOFTWARE["example"] = "1.0"

worker = Worker("text-worker", 4, config=config)
greeting = {"text": "Hello"}


@worker.on_command("set_greeting")
async def set_greeting(command: Any) -> None:
    greeting["text"] = command.params["text"]


async def count_words(context: dict[str, Any], next: Any) -> Any:  # noqa: A002 - the usual name
    context["handler_kwargs"]["stamp"] = context["skill_name"]
    result = await next()
    if isinstance(result, dict) and "text" in result.get("data", {}):
        result["data"]["words"] = len(result["data"]["text"].split())
    return result


worker.add_middleware(count_words)


@worker.skill("greet", version="1.0.0", output_statuses=["needs_review"])
async def greet(
    params: dict[str, Any], stamp: str = "", send_progress: Any = None, task_id: str = "", job_id: str = ""
) -> dict[str, Any]:
    if not params.get("name"):
        return {"status": "needs_review", "data": {"reason": "no name"}}
    await send_progress(task_id, job_id, 0.5, "half way")
    return {"status": "success", "data": {"text": f"{greeting['text']}, {params['name']}!", "stamp": stamp}}


@worker.skill("summarize")
async def summarize(params: dict[str, Any], files: TaskFiles, stamp: str = "") -> dict[str, Any]:
    path = await files.path_to("notes/input.txt")
    await files.write("notes/input.txt", params["text"])
    async with files.open("notes/input.txt") as file:
        first = (await file.read()).split(".")[0]
    with open(path, encoding="utf-8") as file:  # noqa: ASYNC230, PTH123 - a path is a text
        size = len(file.read())
    names = await files.list()
    return {"status": "success", "data": {"text": first, "size": size, "names": names, "stamp": stamp}}


@worker.skill("refuse")
async def refuse(params: dict[str, Any], **_: Any) -> dict[str, Any]:
    return {"status": "failure", "error": {"code": "PERMANENT_ERROR", "message": f"refused: {params['why']}"}}


@worker.skill("stop")
async def stop(**_: Any) -> dict[str, Any]:
    return {"status": "cancelled", "message": "not today"}


if __name__ == "__main__":
    worker.run()
