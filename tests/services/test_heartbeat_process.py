"""``WORKER_HEARTBEAT_PROCESS``: a worker whose threads cannot run keeps its lease, and answers its probes."""

import asyncio
import itertools
import json
import os
import signal
import sys

import psutil
import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault, JobState
from certificates import Authority
from services.held import held_worker, runs, until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="not on Windows")

QUICK = {"poll_time": 1.0}


async def test_held_gil_costs_no_heartbeat_and_no_probe(tmp_path):
    async with EmbeddedOrchestrator(**QUICK) as orchestrator, held_worker(orchestrator, tmp_path) as worker:
        await worker.standby()
        job = orchestrator.submit("hold")
        await worker.held()
        answers = []
        while len(worker.beats(stood_in=True)) < 10:
            answers.append((await worker.get("/live"))[0])
            assert job.state is JobState.RUNNING
            await asyncio.sleep(0.05)
        status, body = await worker.get("/ready")
        assert status == 503
        assert "held up" in json.loads(body)["reason"]
        details = json.loads((await worker.get("/health"))[1])
        assert (details["live"], details["ready"], details["worker_id"]) == (True, False, "w1")
        assert details["held_up_seconds"] > 1
        assert set(answers) == {200}
        assert all(beat.json["current_tasks"] == [job.job_id] for beat in worker.beats()[-4:])
        worker.release()
        await job.done()
        assert job.result == {"held": True}
        async with asyncio.timeout(10):
            while (await worker.get("/ready"))[0] != 200:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        own = len(worker.beats(stood_in=False))
        await until(lambda: len(worker.beats(stood_in=False)) > own + 1)  # its own go on
        times = [beat.time for beat in worker.beats()]
        assert (
            max(b - a for a, b in itertools.pairwise(times)) < 4
        )  # the interval is 0.5 s, the GIL was held for much longer
        assert orchestrator.workers["w1"].registered_count == 1
        assert not orchestrator.problems  # each signature and nonce was good
        assert "the worker was held up for" in worker.process.output()
        assert "running skills: hold" in worker.process.output()


async def test_without_the_setting_there_is_no_process_and_held_gil_costs_the_heartbeats(tmp_path):
    off = {"WORKER_HEARTBEAT_PROCESS": "false"}
    async with EmbeddedOrchestrator(**QUICK) as orchestrator, held_worker(orchestrator, tmp_path, **off) as worker:
        assert not worker.children()
        await until(worker.beats)
        job = orchestrator.submit("hold")
        await orchestrator.wait_for(lambda: job.state is JobState.RUNNING)
        await until(lambda: orchestrator.now() - worker.beats()[-1].time > 2.5)
        worker.release()
        await job.done()
        seen = len(worker.beats())
        await until(lambda: len(worker.beats()) > seen)
        gaps = [b.time - a.time for a, b in itertools.pairwise(worker.beats())]
        assert max(gaps) > 2.5
        assert not worker.beats(stood_in=True)
        assert not worker.children()


async def test_a_worker_that_runs_sends_its_heartbeats_itself(tmp_path):
    async with EmbeddedOrchestrator(**QUICK) as orchestrator, held_worker(orchestrator, tmp_path) as worker:
        await worker.standby()
        await until(lambda: len(worker.beats(stood_in=False)) >= 6)
        assert len(worker.beats(stood_in=True)) <= 1  # a machine that is loaded may hold a worker up, too


async def test_the_process_ends_with_a_worker_that_is_killed_while_it_is_held_up(tmp_path):
    async with EmbeddedOrchestrator(**QUICK) as orchestrator, held_worker(orchestrator, tmp_path) as worker:
        standby = await worker.standby()
        orchestrator.submit("hold")
        await worker.held()
        worker.process.kill()
        await until(lambda: not runs(standby), timeout=5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_process_that_is_killed_or_hangs_is_replaced_and_the_worker_goes_on_meanwhile(tmp_path, number):
    async with EmbeddedOrchestrator(**QUICK) as orchestrator, held_worker(orchestrator, tmp_path) as worker:
        standby = await worker.standby()
        os.kill(standby, number)
        seen = len(worker.beats(stood_in=False))
        another = await worker.standby(besides=[standby])
        await until(lambda: not runs(standby))
        await until(lambda: len(worker.beats(stood_in=False)) > seen)
        assert "the heartbeat process" in worker.process.output()
        orchestrator.submit("hold")
        await worker.held()
        await until(lambda: worker.beats(stood_in=True))
        assert worker.children() == [another]


async def test_signals_for_the_whole_group_end_the_worker_in_order_and_the_process_last(tmp_path):
    async with EmbeddedOrchestrator(**QUICK) as orchestrator, held_worker(orchestrator, tmp_path) as worker:
        standby = await worker.standby()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(standby, number)  # as a service manager does
        job = orchestrator.submit("hold")
        await worker.held()
        await until(lambda: worker.beats(stood_in=True))
        os.killpg(worker.process.pid, signal.SIGINT)  # as a terminal does
        worker.release()
        await job.done()
        assert await asyncio.to_thread(worker.process.wait, 20.0) == 0
        await until(lambda: not runs(standby), timeout=5)
        assert job.state is JobState.FINISHED
        assert worker.beats()[-1].json["status"] == "offline"


async def test_a_cancellation_in_the_answer_to_one_of_its_heartbeats_reaches_the_task(tmp_path):
    async with EmbeddedOrchestrator(**QUICK) as orchestrator, held_worker(orchestrator, tmp_path) as worker:
        await worker.standby()
        job = orchestrator.submit("hold_and_wait")
        await worker.held()
        answer = json.dumps({"status": "ok", "cancel_task_ids": [job.job_id]}).encode()
        orchestrator.inject(fault := Fault("heartbeat", "body", body=answer))
        await until(lambda: fault.used)
        met = [each for each in worker.beats(stood_in=True) if each.fault]
        assert len(met) == 1  # and no other orchestrator
        worker.release()
        await job.done()
        assert job.state is JobState.CANCELLED


async def test_an_orchestrator_that_breaks_off_meanwhile_is_registered_at_again(tmp_path):
    async with EmbeddedOrchestrator(**QUICK) as orchestrator, held_worker(orchestrator, tmp_path) as worker:
        await worker.standby()
        job = orchestrator.submit("hold")
        await worker.held()
        orchestrator.inject(fault := Fault("heartbeat", "drop_before"))
        await until(lambda: fault.used)
        worker.release()
        await job.done()
        await orchestrator.wait_for(lambda: orchestrator.workers["w1"].registered_count == 2)
        await until(lambda: "(in the heartbeat process)" in worker.process.output())  # it is read by a thread


async def test_an_access_token_that_expires_meanwhile_is_renewed_and_the_worker_uses_the_new_one(tmp_path):
    tokens = {"issue_tokens": True, "token_lifetime": 3.0}
    async with EmbeddedOrchestrator(**QUICK, **tokens) as orchestrator, held_worker(orchestrator, tmp_path) as worker:
        await worker.standby()
        job = orchestrator.submit("hold")
        await worker.held()
        await until(lambda: any(each.status == 403 for each in worker.beats(stood_in=True)))
        accepted = [each for each in worker.beats(stood_in=True) if each.status == 200]
        await until(lambda: len([each for each in worker.beats(stood_in=True) if each.status == 200]) > len(accepted))
        worker.release()
        await job.done()
        assert job.state is JobState.FINISHED
        renewals = len(
            [each for each in orchestrator.requests if each.path.endswith("/refresh") and each.status == 200]
        )
        own = len(worker.beats(stood_in=False))
        await until(lambda: len(worker.beats(stood_in=False)) > own + 2)
        assert renewals >= 1  # a heartbeat of the worker's own that is refused with 403 makes it register again, too
        assert not orchestrator.problems


async def test_a_worker_that_is_held_up_for_too_long_counts_as_dead_until_it_is_back(tmp_path):
    limit = {"WORKER_LOOP_BLOCKED_LIMIT": "5"}
    async with EmbeddedOrchestrator(**QUICK) as orchestrator, held_worker(orchestrator, tmp_path, **limit) as worker:
        await worker.standby()
        job = orchestrator.submit("hold")
        await worker.held()
        assert (await worker.get("/live"))[0] == 200
        async with asyncio.timeout(10):
            while (await worker.get("/live"))[0] == 200:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        assert job.state is JobState.RUNNING
        assert "held up" in json.loads((await worker.get("/live"))[1])["reason"]
        sent = len(worker.beats(stood_in=True))
        for _ in range(30):  # three intervals
            assert job.state is JobState.RUNNING
            assert len(worker.beats(stood_in=True)) <= sent + 1
            await asyncio.sleep(0.05)
        worker.release()
        await job.done()
        async with asyncio.timeout(10):
            while (await worker.get("/live"))[0] != 200:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)


async def test_each_process_of_a_fleet_has_one_and_the_fleet_stays_alive(tmp_path):
    async with (
        EmbeddedOrchestrator(**QUICK) as orchestrator,
        held_worker(orchestrator, tmp_path, "--workers", "2") as worker,
    ):
        await orchestrator.wait_for_worker("w1-1", timeout=40)
        await orchestrator.wait_for_worker("w1-2", timeout=40)
        await until(lambda: len(worker.children()) == 2)
        job = orchestrator.submit("hold")
        await until(lambda: worker.beats(stood_in=True))
        for _ in range(5):
            assert (await worker.get("/live"))[0] == 200
        assert job.state is JobState.RUNNING
        (held,) = {each.json["worker_id"] for each in worker.beats(stood_in=True)}
        members = json.loads((await worker.get("/health"))[1])["processes"]
        assert [each["worker_id"] for each in members if not each["health"]["ready"]] == [held]


async def test_it_shows_the_workers_certificate_and_checks_the_servers(tmp_path):
    authority = Authority()
    files = authority.client_files(tmp_path, "w1")
    paths = {"TLS_CA_PATH": str(files.ca), "TLS_CERT_PATH": str(files.cert), "TLS_KEY_PATH": str(files.key)}
    server = authority.server(clients=authority)
    async with (
        EmbeddedOrchestrator(**QUICK, tls=server) as orchestrator,
        held_worker(orchestrator, tmp_path, **paths) as worker,
    ):
        await worker.standby()
        job = orchestrator.submit("hold")
        await worker.held()
        await until(lambda: len(worker.beats(stood_in=True)) >= 2)
        Authority().renew(server)  # somebody else's certificate
        refused = len(worker.beats(stood_in=True))
        for _ in range(30):  # three intervals
            assert len(worker.beats(stood_in=True)) <= refused + 1
            await asyncio.sleep(0.05)
        worker.release()
        await job.done()
        assert len(worker.beats(stood_in=True)) <= refused + 1
        await until(lambda: "CERTIFICATE_VERIFY_FAILED" in worker.process.output())
        authority.renew(server)


async def test_no_secret_is_in_its_arguments_or_environment_and_it_is_small(tmp_path):
    async with EmbeddedOrchestrator(**QUICK) as orchestrator, held_worker(orchestrator, tmp_path) as worker:
        standby = psutil.Process(await worker.standby())
        assert orchestrator.token not in " ".join(standby.cmdline())
        assert orchestrator.token not in " ".join(standby.environ().values())
        await until(lambda: worker.beats())
        assert standby.memory_info().rss < psutil.Process(worker.process.pid).memory_info().rss / 1.5
        assert orchestrator.token not in worker.process.output()
