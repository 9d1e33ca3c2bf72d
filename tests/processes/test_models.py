"""Models of skills in processes: each process has its own, and announces none."""

from avtomatika_worker.testing import WorkerHarness


async def test_a_process_has_models_of_its_own(worker, app, tmp_path):
    async with WorkerHarness(worker, settings={"max_concurrent_tasks": 1, "skill_processes": 1}) as h:
        for name, gone in (("warm", []), ("a", ["warm"]), ("a", ["warm"]), ("b", ["warm", "a"])):
            result = await h.run("sing", {"text": "la", "voice": name})
            assert result.data == {"by": name, "same": True, "unloaded": gone, "asked": name}
        assert h.models == ()
        result = await h.run("sing", {"text": "la", "voice": "broken"})
        assert result.error.message == (
            "ModelLoadError: model 'broken' cannot be loaded by load_voice: OSError: no such voice"
        )
        assert (await h.run("sing", {"text": "la", "voice": "c"})).data["by"] == "c"
        assert (await h.run("hum", {"voice": "abc"})).data == {"result": "abc"}


async def test_a_model_given_by_a_test_is_used_in_processes_too(worker, app):
    async with WorkerHarness(worker, resources={app.Voice: app.Voice("fake")}) as h:
        assert (await h.run("sing", {"text": "la", "voice": "a"})).data["by"] == "fake"
