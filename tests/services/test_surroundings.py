"""What stands around a task: middleware, the hot cache, skills from a directory, the health server."""

import asyncio

import aiohttp

from avtomatika_worker import Failed, Succeeded, Worker
from avtomatika_worker.devserver import JobState
from services.conftest import listening, make_settings, running


async def test_middlewares_run_around_every_task_the_first_outermost(orchestrator, worker):
    order = []

    def named(name):
        async def middleware(ctx, call_next):
            order.append(f"{name} before {ctx.skill}")
            outcome = await call_next(ctx)
            order.append(f"{name} after {type(outcome).__name__}")
            return outcome

        return middleware

    @worker.skill
    async def fail(params: dict):
        raise ValueError("failures are outcomes, not exceptions")

    worker.add_middleware(named("outer"))
    worker.add_middleware(named("inner"))
    async with running(worker, orchestrator):
        job = await orchestrator.submit("fail", {}).done()
        assert job.attempts > 1
    assert order[:4] == ["outer before fail", "inner before fail", "inner after Failed", "outer after Failed"]


async def test_a_middleware_may_answer_itself_and_one_that_raises_fails_only_its_task(orchestrator, worker):
    @worker.skill
    async def echo(params: dict):
        return params

    @worker.add_middleware
    async def gate(ctx, call_next):
        if ctx.params.get("raise"):
            raise RuntimeError("broken middleware")
        if ctx.params.get("refuse"):
            return Failed("PERMANENT_ERROR", "not today")
        return Succeeded({"gate": True}) if ctx.params.get("short") else await call_next(ctx)

    async with running(worker, orchestrator):
        assert (await orchestrator.submit("echo", {"refuse": 1}).done()).error["message"] == "not today"
        assert (await orchestrator.submit("echo", {"raise": 1}).done()).error["code"] == "TRANSIENT_ERROR"
        assert (await orchestrator.submit("echo", {"short": 1}).done()).result == {"gate": True}
        assert (await orchestrator.submit("echo", {"x": 1}).done()).result == {"x": 1}


async def test_a_skill_is_hot_while_all_it_depends_on_is_loaded(orchestrator):
    worker = Worker(skill_dependencies={"predict": ["model-a"]})

    @worker.skill
    async def predict(load: bool, add_to_hot_cache, remove_from_hot_skills):
        (add_to_hot_cache if load else remove_from_hot_skills)("model-a")

    def hot():
        calls = [call.json for call in orchestrator.requests if call.call == "heartbeat"]
        return calls[-1].get("hot_skills") if calls else None

    async with running(worker, orchestrator):
        await orchestrator.submit("predict", {"load": True}).done()
        await orchestrator.wait_for(lambda: hot() == ["predict"])
        await orchestrator.submit("predict", {"load": False}).done()
        await orchestrator.wait_for(lambda: hot() == [])


async def test_skills_of_a_directory_and_its_setup_are_taken(orchestrator, tmp_path):
    directory = tmp_path / "dir_skills"
    directory.mkdir()
    (directory / "one.py").write_text(
        "from avtomatika_worker import SkillBlueprint\nbp = SkillBlueprint()\n"
        "@bp.skill(price=2)\nasync def one(params: dict):\n    return {'n': 1}\n"
        "def setup(worker):\n    @worker.skill\n    async def two(params: dict):\n        return {'n': 2}\n",
        "utf-8",
    )
    async with running(Worker(), orchestrator, skills_dir=directory):
        assert (await orchestrator.submit("one", {}).done()).result == {"n": 1}
        assert (await orchestrator.submit("two", {}).done()).result == {"n": 2}


async def test_health_reports_ready_only_with_a_registered_link(orchestrator, worker, unused_tcp_port):
    environment = {"WORKER_ID": "w1", "ORCHESTRATOR_URL": orchestrator.url, "WORKER_TOKEN": orchestrator.token}
    settings = make_settings(worker, environment, {"port": unused_tcp_port, "health_host": "127.0.0.1"})
    main = asyncio.create_task(worker.main(settings))
    await orchestrator.wait_for_worker("w1")
    base = f"http://127.0.0.1:{unused_tcp_port}"
    async with aiohttp.ClientSession() as client:
        await listening(unused_tcp_port)
        while (await client.get(base + "/ready")).status != 200:  # noqa: ASYNC110 - the registration's answer is on its way
            await asyncio.sleep(0.01)
        async with client.get(base + "/health") as probe:
            facts = await probe.json()
        assert (facts["live"], facts["ready"], facts["links"][0]["state"]) == (True, True, "registered")
        assert facts["links"][0]["orchestrator"] == f"127.0.0.1:{orchestrator.port}"
        assert "://" not in str(facts)
        for path in ("/live", "/ready"):
            async with client.get(base + path) as probe:
                assert probe.status == 200
    await worker.shutdown()
    await main


async def test_an_unregistered_skill_is_a_missing_dependency(orchestrator, worker):
    @worker.skill
    async def echo(params: dict):
        return params

    async with running(worker, orchestrator):
        body = b'{"job_id":"j-x","task_id":"t-x","type":"unknown","params":{}}'
        from avtomatika_worker.devserver import Fault

        orchestrator.inject(Fault(call="poll", kind="body", body=body))

        def answered():
            return [c.json for c in orchestrator.requests if c.call == "result" and c.json["task_id"] == "t-x"]

        results = await orchestrator.wait_for(answered)
        assert results[0]["error"]["code"] == "DEPENDENCY_MISSING_ERROR"
        assert "echo" in results[0]["error"]["message"]
        assert (await orchestrator.submit("echo", {}).done()).state is JobState.FINISHED
