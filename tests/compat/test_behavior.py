"""What code written for the official SDK does here: commands, hot skills, events, older middlewares, files."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from avtomatika_worker import (
    ConfigError,
    Handler,
    InvalidInputError,
    ObservabilityManager,
    OrchestratorClient,
    ResourcesUsage,
    Succeeded,
    TaskContext,
    TaskFiles,
    Worker,
    WorkerCommand,
)
from avtomatika_worker.protocol.messages import Command
from avtomatika_worker.testing import EmbeddedOrchestrator, WorkerHarness
from compat.support import running

# ---------------------------------------------------------------------------------------------------- commands


@pytest.mark.parametrize("kind", ["async def", "def"])
async def test_a_command_reaches_its_handler_with_all_its_fields(kind: str) -> None:
    worker, came = Worker(), asyncio.get_running_loop().create_future()
    loop = asyncio.get_running_loop()

    def take(command: WorkerCommand) -> None:
        loop.call_soon_threadsafe(came.set_result, command)

    async def take_async(command: WorkerCommand) -> None:
        take(command)

    worker.on_command("reload")(take if kind == "def" else take_async)
    sent = {"command": "reload", "params": {"a": 1}, "task_id": "t", "job_id": "j", "metadata": {"m": 1}}
    async with running(worker) as orchestrator:
        await orchestrator.wait_for(lambda: orchestrator.workers["w1"].connected)
        await orchestrator.send_command("w1", sent)
        command = await asyncio.wait_for(came, 10)
    assert (command.command, command.params, command.task_id) == ("reload", {"a": 1}, "t")
    assert (command.job_id, command.metadata) == ("j", {"m": 1})
    assert command == sent
    assert command["params"] == {"a": 1}


def test_a_missing_field_of_a_command_is_none_or_its_default() -> None:
    command = WorkerCommand(Command(command="reload"))
    assert (command.params, command["params"], command.get("params", {})) == (None, None, {})
    assert command == {"command": "reload"}
    with pytest.raises(AttributeError, match="a command has command, task_id"):
        command.parameters  # noqa: B018
    with pytest.raises(KeyError):
        command["parameters"]


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize(
    "error", [SystemExit(1), asyncio.CancelledError(), StopIteration()], ids=["exit", "cancelled", "stop"]
)
async def test_a_handler_that_fails_is_logged_and_ends_nothing(
    caplog: pytest.LogCaptureFixture, error: BaseException, is_async: bool
) -> None:
    worker, came = Worker(), asyncio.Event()

    async def bad(command: WorkerCommand) -> None:
        raise error

    def bad_in_thread(command: WorkerCommand) -> None:
        raise error

    worker.on_command("bad")(bad if is_async else bad_in_thread)

    @worker.on_command("good")
    async def good(command: WorkerCommand) -> None:
        came.set()

    async with running(worker) as orchestrator:
        await orchestrator.wait_for(lambda: orchestrator.workers["w1"].connected)
        await orchestrator.send_command("w1", {"command": "bad"})
        await orchestrator.send_command("w1", {"command": "good"})
        await asyncio.wait_for(came.wait(), 10)
    assert "the handler of command 'bad' failed" in caplog.text


def test_a_handler_is_refused_for_a_name_that_is_taken_or_the_workers_own() -> None:
    worker = Worker()
    worker.on_command("a")(print)
    for name in ("a", "cancel_task", ""):
        with pytest.raises(ConfigError, match="on_command"):
            worker.on_command(name)


async def test_handlers_without_websockets_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()
    worker.on_command("a")(print)
    async with running(worker, WORKER_ENABLE_WEBSOCKETS="false"):
        pass
    assert "WORKER_ENABLE_WEBSOCKETS=true" in caplog.text


# ---------------------------------------------------------------------------------------------------- hot, events


async def test_a_skill_that_is_added_to_the_hot_ones_is_announced_hot() -> None:
    worker = Worker()

    @worker.skill
    async def resize(params: dict[str, Any]) -> None: ...

    worker.add_to_hot_skills("resize")
    async with running(worker) as orchestrator:
        await orchestrator.wait_for(lambda: hot(orchestrator) == ["resize"])
        worker.remove_from_hot_skills("resize")
        assert worker.get_hot_skills_state() == set()
        await orchestrator.wait_for(lambda: hot(orchestrator) == [])


def hot(orchestrator: EmbeddedOrchestrator) -> list[str] | None:
    """Return the hot skills of the newest heartbeat."""
    beats = [call.json for call in orchestrator.requests if call.call == "heartbeat"]
    return (beats[-1].get("hot_skills") or []) if beats else None


async def test_an_event_of_the_workers_own_arrives() -> None:
    worker = Worker()

    @worker.skill
    async def wait(ctx: TaskContext) -> None:
        await asyncio.sleep(60)

    async with running(worker) as orchestrator:
        job = orchestrator.submit("wait")
        await orchestrator.wait_for(lambda: job.task_id)
        event = {"event_type": "alert", "payload": {"level": 3}, "target_job_id": job.job_id}
        assert await worker.emit_event(event)
        await orchestrator.wait_for(lambda: job.events)
        assert (job.events[0]["event_type"], job.events[0]["payload"]) == ("alert", {"level": 3})
        orchestrator.cancel(job.job_id)


async def test_an_event_of_the_workers_own_goes_to_all_orchestrators() -> None:
    worker = Worker()
    async with EmbeddedOrchestrator() as second:
        listed = [{"url": second.url, "token": second.token, "priority": 2}]
        config = worker.config

        async with EmbeddedOrchestrator() as first:
            config.ORCHESTRATORS = [{"url": first.url, "token": first.token}, *listed]
            environ = {"WORKER_ID": "w1", "WORKER_RESULT_DURABILITY": "off", "HEARTBEAT_INTERVAL": "0.1"}
            main = asyncio.create_task(worker.main(worker.load_settings(environ), health_check=False))
            both = (first, second)
            for each in both:  # a heartbeat comes once the worker knows that it is registered
                await each.wait_for(lambda each=each: any(call.call == "heartbeat" for call in each.requests))
            worker.emit_event({"event_type": "alert", "payload": {"n": 1}})
            for each in both:
                await each.wait_for(lambda each=each: any(call.call == "event" for call in each.requests))
            await worker.shutdown()
            await main


async def test_an_event_that_is_too_long_is_logged_and_those_behind_it_arrive(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()

    @worker.skill
    async def wait(ctx: TaskContext) -> None:
        await asyncio.sleep(60)

    async with running(worker, MAX_RESULT_BYTES="2000") as orchestrator:
        job = orchestrator.submit("wait")
        await orchestrator.wait_for(lambda: job.task_id)
        for given in ({"payload": {"a": "x" * 3000}}, {"metadata": {"a": "x" * 3000}}, {"payload": {"a": 1}}):
            worker.emit_event({"event_type": "alert", "target_job_id": job.job_id, **given})
        await orchestrator.wait_for(lambda: job.events)
        assert [event["payload"] for event in job.events] == [{"a": 1}]
        orchestrator.cancel(job.job_id)
    assert [record.levelname for record in caplog.records if getattr(record, "action", "") == "event_blocked"] == [
        "ERROR",
        "ERROR",
    ]


@pytest.mark.parametrize(
    "event",
    [
        {},
        "alert",
        None,
        {"event_type": "a", "payload": [1]},
        {"event_type": "a", "payload": {"n": float("nan")}},
        {"event_type": "a", "payload": {"n": 2**64}},
        {"event_type": "a", "priority": "high"},
        {"event_type": "a", "metadata": 5},
        {"event_type": "a", "trace_context": {"traceparent": 5}},
        {"event_type": "a", "target_job_id": 5},
        {"event_type": 5},
    ],
    ids=str,
)
def test_an_invalid_event_is_refused(event: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="event"):
        Worker().emit_event(event)


async def test_an_event_may_be_sent_by_a_task_of_its_own() -> None:
    worker = Worker()

    @worker.skill
    async def send(send_event: Any, send_progress: Any, task_id: str, job_id: str) -> dict[str, Any]:
        sending = [asyncio.create_task(send_event("a", {"n": 1})), asyncio.ensure_future(send_event("a", {"n": 2}))]
        assert await asyncio.gather(*sending) == [True, True]
        await send_progress(task_id, job_id, 0.5, "half")
        return {"status": "success"}

    async with WorkerHarness(worker) as harness:
        result = await harness.run("send", {})
    assert [event.payload["n"] for event in result.events if event.type == "a"] == [1, 2]


async def test_an_event_carries_what_is_given_with_it() -> None:
    worker = Worker()

    @worker.skill
    async def send(send_event: Any, send_progress: Any) -> list[bool]:
        given: list[dict[str, Any]] = [
            {"priority": 5, "metadata": {"m": 1}, "origin_worker_id": "holon-7", "security": {"identity_chain": ["a"]}},
            {"priority": "high"},
            {"priority": float("nan")},
            {"metadata": [1]},
            {"metadata": {"m": {3j}}},
            {"origin_worker_id": "not an id"},
            {"security": {"identity_chain": "a"}},
        ]
        return [await send_event("alert", {"n": 1}, **each) for each in given]

    async with running(worker) as orchestrator:
        job = await orchestrator.submit("send").done(10)
        (event,) = [call.json for call in orchestrator.requests if call.call == "event"]
    assert job.result == {"result": [True, *[False] * 6]}
    assert (event["priority"], event["metadata"], event["origin_worker_id"]) == (5, {"m": 1}, "holon-7")
    assert event["security"]["identity_chain"] == ["a"]
    assert (event["worker_id"], event["security"]["signer_id"]) == ("w1", "w1")


async def test_an_event_takes_its_arguments_by_position_and_from_a_process_too() -> None:
    from compat.process_skills import worker

    async with running(worker) as orchestrator:
        jobs = [await orchestrator.submit(skill).done(30) for skill in ("in_process", "in_thread")]
        events = [call.json for call in orchestrator.requests if call.call == "event"]
    assert [job.error for job in jobs] == [None, None]
    assert len(events) == 2
    for event in events:
        assert (event["priority"], event["metadata"], event["origin_worker_id"]) == (2, {"m": 1}, "holon-7")


async def test_a_usage_checker_may_return_the_official_object() -> None:
    worker = Worker()
    worker.set_usage_checker(lambda: ResourcesUsage(12.5, 3.0))  # type: ignore[arg-type, return-value]
    async with running(worker, HEARTBEAT_INTERVAL="0.2") as orchestrator:
        calls = orchestrator.requests
        await orchestrator.wait_for(
            lambda: any(
                call.call == "heartbeat" and (call.json.get("usage") or {}).get("cpu_load_percent") == 12.5
                for call in calls
            )
        )


async def test_the_managers_methods_do_nothing_while_telemetry_is_off() -> None:
    worker = Worker()

    @worker.skill
    async def look(observability: ObservabilityManager) -> list[Any]:
        with observability.start_task_span("a", "t", "j") as span, observability.start_s3_span("put", "s3://b/k"):
            observability.set_span_status_error(span, "no span")
        observability.record_s3_op("put", "ok")
        observability.record_task_finished("a", "success", 0.1)
        return [span, observability.has_otel]

    assert (await run(worker, "look")).data == {"result": [None, False]}


# ---------------------------------------------------------------------------------------------------- middlewares


async def run(worker: Worker, skill: str, params: dict[str, Any] | None = None) -> Any:
    async with WorkerHarness(worker) as harness:
        return await harness.run(skill, params or {})


def worker_with(*middlewares: Any) -> Worker:
    worker = Worker()
    for each in middlewares:
        worker.add_middleware(each)

    @worker.skill
    async def double(params: dict[str, Any], factor: int = 2) -> Any:
        if "n" not in params:
            raise KeyError("n")
        return {"status": "success", "data": {"n": params["n"] * factor}}

    return worker


async def test_an_older_middleware_gets_a_dict_the_raw_value_and_may_give_arguments() -> None:
    seen: list[Any] = []

    async def older(context: dict[str, Any], next: Any) -> Any:
        seen.extend(context[key] for key in ("skill_name", "params", "handler_kwargs"))
        assert {"task_id", "job_id"} <= context.keys()
        context["handler_kwargs"]["factor"] = 5
        result = await next()
        seen.append(result)
        return result

    result = await run(worker_with(older), "double", {"n": 2})
    assert result.data == {"n": 10}
    assert seen == ["double", {"n": 2}, {"params": {"n": 2}, "factor": 5}, {"status": "success", "data": {"n": 10}}]


async def test_what_is_not_in_the_context_of_an_older_middleware_is_named() -> None:
    async def older(context: dict[str, Any], next: Any) -> Any:
        assert context.get("s3_manager") is None
        return context["s3_manager"]

    result = await run(worker_with(older), "double", {"n": 2})
    assert "'s3_manager'" in result.error.message
    assert "TaskFiles" in result.error.message


async def test_an_older_middleware_gets_the_skills_exceptions_and_may_replace_its_result() -> None:
    async def older(context: dict[str, Any], next: Any) -> Any:
        try:
            return await next()
        except KeyError as error:
            return {"status": "success", "data": {"missing": error.args[0]}}

    assert (await run(worker_with(older), "double")).data == {"missing": "n"}


async def test_an_exception_that_passes_an_older_middleware_fails_the_task_as_without_it() -> None:
    async def older(context: dict[str, Any], next: Any) -> Any:
        return await next()

    with_it, without = await run(worker_with(older), "double"), await run(worker_with(), "double")
    assert with_it.error.code == without.error.code
    assert with_it.error.message == without.error.message


async def test_the_older_form_is_known_by_its_call_alone() -> None:
    async def any_names(a: Any, b: Any) -> Any:
        result = await b()
        result["data"]["first"] = a["skill_name"]
        return result

    async def the_newer_names(ctx: Any, call_next: Any) -> Any:
        result = await call_next()
        result["data"]["second"] = ctx["params"]["n"]
        return result

    async def other_frameworks_names(context: Any, handler: Any) -> Any:
        result = await handler()
        return {**result, "data": {**result["data"], "third": True}}

    result = await run(worker_with(any_names, the_newer_names, other_frameworks_names), "double", {"n": 1})
    assert result.data == {"n": 2, "first": "double", "second": 1, "third": True}


async def test_our_form_stays_what_it_is_under_any_names() -> None:
    async def ours(a: Any, b: Any) -> Any:
        assert a.skill == "double"
        return await b(a)

    async def ours_by_name(ctx: Any, call_next: Any) -> Any:
        ctx.params = {**ctx.params, "n": 5}
        outcome = await call_next(ctx)
        assert isinstance(outcome, Succeeded)
        return outcome

    async def ours_by_hint(a: Any, b: Handler) -> Any:
        assert isinstance(a, TaskContext)
        return await b(a)

    for middlewares, n in [((ours,), 2), ((ours, ours_by_name, ours_by_hint), 10)]:
        assert (await run(worker_with(*middlewares), "double", {"n": 1})).data == {"n": n}


async def test_both_forms_may_stand_around_each_other() -> None:
    order: list[str] = []

    async def older(context: dict[str, Any], next: Any) -> Any:
        order.append("older")
        result = await next()
        order.append(result["data"]["n"])
        return result

    async def ours(ctx: TaskContext, call_next: Any) -> Any:
        order.append("ours")
        return await call_next(ctx)

    async def inner(context: dict[str, Any], next: Any) -> Any:
        result = await next()
        return {**result, "data": {"n": 100}}

    assert (await run(worker_with(older, ours, inner), "double", {"n": 1})).data == {"n": 100}
    assert order == ["older", "ours", 100]


async def test_an_older_middleware_may_try_again_and_see_what_never_came_to_the_skill() -> None:
    attempts: list[str] = []

    async def older(context: dict[str, Any], next: Any) -> Any:
        for _ in range(2):
            try:
                return await next()
            except InvalidInputError as error:
                attempts.append(error.code)
        return {"status": "failure", "error": {"code": "PERMANENT_ERROR", "message": "twice"}}

    worker = worker_with(older)

    @worker.skill
    async def typed(n: int) -> int:
        return n

    result = await run(worker, "typed", {"n": "x"})
    assert (result.error.code, result.error.message) == ("PERMANENT_ERROR", "twice")
    assert attempts == ["INVALID_INPUT_ERROR"] * 2


# ---------------------------------------------------------------------------------------------------- files


async def test_paths_are_strings_with_the_methods_of_pathlib() -> None:
    worker = Worker()

    @worker.skill
    async def look(files: TaskFiles) -> dict[str, Any]:
        root, path = await files.get_root(), await files.path_to(filename="sub/a.txt")
        assert isinstance(path, str)
        assert files.get_root_sync() == root
        assert files.path_to_sync(filename="sub/a.txt") == path
        await files.write(filename="sub/a.txt", data="hello", mode="w")
        assert (path.name, path.suffix, path.read_bytes(), path.parent) == ("a.txt", ".txt", b"hello", root / "sub")
        assert path.startswith(root)
        assert isinstance(root / "b", str)
        assert (root / "sub" / "a.txt").read_text() == "hello"
        assert await files.exists(filename="sub/a.txt")
        stored = await files.write_json("b.json", data={"n": 1})
        uploaded = await files.upload_file("sub/a.txt")
        assert (uploaded.size, uploaded.uri) == (5, str(uploaded))
        assert uploaded.metadata is None or isinstance(uploaded.metadata, dict)
        again = await files.download_file(uploaded.uri, "c.txt", verify_meta=uploaded)
        assert stored is not None
        return {"names": sorted(await files.list()), "text": again.read_text(), "uri": uploaded, "path": path}

    async with WorkerHarness(worker) as harness:
        result = await harness.run("look", {})
    assert result.status == "success", result.error
    assert result.data["names"] == ["b.json", "c.txt", "sub"]
    assert result.data["text"] == "hello"
    assert result.data["uri"].endswith("a.txt")


async def test_a_download_that_is_not_what_it_should_be_fails() -> None:
    worker = Worker()

    @worker.skill
    async def look(files: TaskFiles) -> None:
        await files.write("a.txt", "hello")
        uri = await files.upload_file("a.txt")
        await files.download_file(uri, "b.txt", verify_meta={"size": 4})

    async with WorkerHarness(worker) as harness:
        result = await harness.run("look", {})
    assert result.error.code == "INTEGRITY_MISMATCH_ERROR"


async def test_a_path_in_a_result_without_a_store_stays_a_text() -> None:
    worker = Worker()

    @worker.skill
    async def write(files: TaskFiles) -> dict[str, Any]:
        return {"path": await files.write("a.txt", "x"), "json": await files.write_json("b.json", [])}

    async with running(worker) as orchestrator:
        job = await orchestrator.submit("write").done(10)
    assert job.error is None
    assert job.result is not None
    assert job.result["path"].endswith("/a.txt")
    assert "json" not in job.result or job.result["json"] is None


# ---------------------------------------------------------------------------------------------------- the rest


def calling() -> Worker:
    worker = Worker()

    @worker.skill
    async def outer(params: dict[str, Any], client: OrchestratorClient) -> dict[str, Any]:
        return {"inner": await client.call_skill("inner", {"n": 2})}

    @worker.skill
    async def inner(n: int) -> int:
        return n + 1

    return worker


async def test_a_skill_calls_another_through_the_orchestrator() -> None:
    async with running(calling()) as orchestrator:
        job = await orchestrator.submit("outer").done(10)
    assert job.result is not None, job.error
    assert job.result["inner"]["data"] == {"result": 3}


async def test_an_orchestrator_without_the_route_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    from avtomatika_worker.testing import Fault

    async with running(calling()) as orchestrator:
        orchestrator.inject(Fault("any", "status", status=404, when=lambda call: call.call == "skill_call"))
        job = await orchestrator.submit("outer").done(10)
    assert job.error is not None
    assert job.error["code"] == "DEPENDENCY_ERROR"
    assert "has no route /skills/call" in job.error["message"]


@pytest.mark.parametrize("asked_for", [True, False])
async def test_a_taken_port_stops_the_start_only_where_it_was_asked_for(
    asked_for: bool, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker()
    async with EmbeddedOrchestrator() as orchestrator:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            environ = {
                "WORKER_ID": "w1",
                "ORCHESTRATOR_URL": orchestrator.url,
                "WORKER_TOKEN": orchestrator.token or "",
                "WORKER_HEALTH_HOST": "127.0.0.1",
                "WORKER_PORT": str(port),
            }
            settings = worker.load_settings(environ)
            assert settings.port_is_asked_for
            if asked_for:
                with pytest.raises(ConfigError, match=str(port)):
                    await worker.main(settings)
                return
            import dataclasses

            main = asyncio.create_task(worker.main(dataclasses.replace(settings, port_is_asked_for=False)))
            await orchestrator.wait_for_worker("w1")
            await worker.shutdown()
            await main
    assert "there is no health server" in caplog.text
    assert not worker.load_settings({}).port_is_asked_for


MAIN = """
import asyncio
from avtomatika_worker import Worker
async def main():
    workers = [Worker(worker_id=worker_id) for worker_id in {worker_ids}]
    await asyncio.gather(*(each.main(health_check=False) for each in workers))
asyncio.run(main())
print("ended in order", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("worker_ids", [["w1"], ["w1", "w2"]])
async def test_sigterm_shuts_down_a_program_that_runs_main_itself(worker_ids: list[str]) -> None:
    async with EmbeddedOrchestrator() as orchestrator:
        environ = {
            "PATH": "",
            "WORKER_TOKEN": orchestrator.token or "",
            "WORKER_RESULT_DURABILITY": "off",
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", MAIN.replace("{worker_ids}", repr(worker_ids))),
            env={**environ, "ORCHESTRATOR_URL": orchestrator.url, "WORKER_TOKEN": orchestrator.token or ""},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            for worker_id in worker_ids:
                await orchestrator.wait_for_worker(worker_id)
            process.terminate()
            output, _ = await asyncio.wait_for(process.communicate(), 30)
        finally:
            if process.returncode is None:
                process.kill()
    assert (process.returncode, output) == (0, b"ended in order\n")


async def test_a_handler_of_the_programs_own_stays_and_none_is_left_behind() -> None:
    def own(*_: Any) -> None: ...

    for handler in (own, signal.SIG_DFL):
        before = signal.signal(signal.SIGTERM, handler)
        try:
            async with running(Worker()):
                assert (signal.getsignal(signal.SIGTERM) is own) == (handler is own)
            assert signal.getsignal(signal.SIGTERM) is handler
        finally:
            signal.signal(signal.SIGTERM, before)


async def test_signatures_are_asked_for_without_a_key(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        async with running(Worker(), REQUIRE_TASK_SIGNATURE="true"):
            pass
    assert "nothing is checked" in caplog.text
    assert "ORCHESTRATOR_SECRET_KEY" in caplog.text


async def test_python_and_gpus_are_announced_as_requirements_are_written() -> None:
    worker = Worker()
    async with running(worker, GPU_MODEL="T4", GPU_VRAM_GB="16") as orchestrator:
        message = next(call.json for call in orchestrator.requests if call.call == "register")
    assert message["installed_software"]["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    (device,) = message["resources"]["devices"]
    assert (device["id"], device["properties"]["memory_gb"]) == ("0", 16)


async def test_skills_of_a_directory_are_loaded_awaited_or_not(tmp_path: Path) -> None:
    (tmp_path / "greeting.py").write_text(
        "from avtomatika_worker import SkillBlueprint\n"
        "bp = SkillBlueprint()\n"
        "@bp.skill('greet')\n"
        "async def greet(params: dict): return {'status': 'success'}\n"
    )
    worker = Worker()
    await worker.load_skills(str(tmp_path))
    assert worker.skills.names() == ("greet",)
    with pytest.raises(ConfigError, match="no directory"):
        worker.load_skills(tmp_path / "missing")
