"""``worker doctor`` as a process, against an embedded orchestrator on good and on bad days."""

import asyncio
import json
import os
import socket
import sys

import pytest

from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault

APP = """
from avtomatika_worker import Worker
worker = Worker()

@worker.skill
async def echo(params: dict):
    return params
"""


@pytest.fixture
def doctor(tmp_path, unused_port):
    (tmp_path / "app.py").write_text(APP, "utf-8")

    async def run(*arguments, **environment):
        """Return exit code and what was printed."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "avtomatika_worker.cli", "doctor", *arguments),
            cwd=tmp_path,
            env={
                "PATH": "",
                "COLUMNS": "80",
                "PYTHONUTF8": "1",
                "WORKER_ID": "w1",
                "WORKER_TOKEN": "dev-token",
                "WORKER_PORT": str(unused_port),
                "XDG_STATE_HOME": str(tmp_path),
                "TASK_FILES_DIR": str(tmp_path / "files"),
                **environment,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert err == b"", err.decode()
        return process.returncode, out.decode()

    return run


@pytest.fixture
def unused_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
async def orchestrator():
    async with EmbeddedOrchestrator() as started:
        yield started


def findings(printed, section="Orchestrator"):
    found = json.loads(printed)["findings"]
    return [(each["severity"], each["text"], each["advice"]) for each in found if each["section"].startswith(section)]


async def test_all_is_well_and_the_probe_leaves_no_worker_that_takes_tasks(doctor, orchestrator):
    code, printed = await doctor(
        "--app", "app:worker", ORCHESTRATOR_URL=orchestrator.url, WORKER_ENABLE_WEBSOCKETS="true"
    )
    assert code == 0, printed
    lines = printed.splitlines()
    assert [line for line in lines if len(line) > 80] == []
    for expected in (
        "1 can be run: echo",
        "token and signature are accepted",
        "the clocks agree",
        "it speaks protocol 1.0b17",
        "the WebSocket opens: cancellation arrives at once",
        "heartbeats are accepted",
    ):
        assert expected in printed
    assert lines[-1] == "Everything is fine."
    (worker,) = orchestrator.workers.values()
    assert worker.worker_id.startswith("doctor-")
    assert (worker.status, dict(worker.skills), worker.connected) == ("offline", {}, False)
    assert not orchestrator.problems


async def test_the_limit_of_polls_is_pointed_out_unless_it_is_known_to_be_off(doctor, orchestrator):
    code, printed = await doctor("--json", ORCHESTRATOR_URL=orchestrator.url)
    (note,) = [each for each in findings(printed) if "limit on polls" in each[1]]
    assert (code, note[0]) == (0, "note")
    assert "less than one task per second" in note[2]
    assert not [each for each in orchestrator.requests if each.call == "poll"]
    _, printed = await doctor("--json", ORCHESTRATOR_URL=orchestrator.url, ORCHESTRATOR_RATE_LIMIT="off")
    assert "limit on polls" not in printed


async def test_a_wrong_token_is_distinguished_from_a_wrong_signature(doctor, orchestrator):
    code, printed = await doctor("--json", ORCHESTRATOR_URL=orchestrator.url, WORKER_TOKEN="wrong")
    assert code == 2
    (severity, text, advice) = findings(printed)[-1]
    assert (severity, advice) == ("error", "set WORKER_TOKEN to the orchestrator's")
    assert text.startswith("the token is refused")
    orchestrator.inject(Fault("register", "status", status=403))
    code, printed = await doctor("--json", ORCHESTRATOR_URL=orchestrator.url)
    assert code == 2
    assert findings(printed)[-1][1].startswith("the token is accepted, the signature is not")
    code, printed = await doctor("--json", ORCHESTRATOR_URL=orchestrator.url, WORKER_TOKEN="")
    assert findings(printed)[-1][1].startswith("a worker without a token is refused")


async def test_a_fallback_that_is_taken_instead_of_the_token_is_a_warning(doctor, orchestrator):
    given = {"ORCHESTRATOR_URL": orchestrator.url, "WORKER_TOKEN": "old", "WORKER_TOKEN_FALLBACK": "dev-token"}
    code, printed = await doctor("--json", **given)
    assert code == 1
    assert ("warning", "set WORKER_TOKEN to the fallback") in [(each[0], each[2]) for each in findings(printed)]
    code, printed = await doctor("--json", **(given | {"WORKER_TOKEN_FALLBACK": "wrong, too".replace(" ", "-")}))
    assert code == 2
    assert findings(printed)[-1][1].startswith("the token is refused")


@pytest.mark.parametrize(
    ("host", "severity"),
    [("10.255.255.1", "note"), ("[fd00::1]", "note"), ("[2606:4700::1111:0]", "warning"), ("9.9.9.8", "warning")],
)
async def test_an_orchestrator_called_in_clear_over_a_network_is_reported(doctor, host, severity):
    # An individual token is WORKER_ID's alone: without --own-id nobody is called.
    _, printed = await doctor("--json", ORCHESTRATOR_URL=f"http://{host}:8080", WORKER_INDIVIDUAL_TOKEN="mine")
    (found, text, advice) = findings(printed)[0]
    assert (found, text[:25], "https" in advice) == (severity, "the connection has no TLS", True)


async def test_a_key_for_tasks_that_the_orchestrator_never_signs_is_an_error(doctor):
    async with EmbeddedOrchestrator(version="1.0b13") as old:
        code, printed = await doctor("--json", ORCHESTRATOR_URL=old.url, ORCHESTRATOR_SECRET_KEY="k")
        assert code == 2
        assert "every task is refused" in printed
        code, _ = await doctor(
            "--json", ORCHESTRATOR_URL=old.url, ORCHESTRATOR_SECRET_KEY="k", REQUIRE_TASK_SIGNATURE="false"
        )
        assert code == 0


async def test_a_clock_that_is_off_is_a_warning_and_reckoned_with(doctor, orchestrator):
    orchestrator.clock_offset = 300
    code, printed = await doctor("--json", ORCHESTRATOR_URL=orchestrator.url)
    assert code == 1
    (clock,) = [each for each in findings(printed) if "clock" in each[1]]
    assert clock[0] == "warning"
    assert "s behind the orchestrator's; the first registration after each start is refused" in clock[1]
    assert "token and signature are accepted" in findings(printed)[0][1]


@pytest.mark.parametrize(
    ("fault", "severity", "text", "code"),
    [
        (Fault("register", "status", status=404), "error", "there is no orchestrator at this URL", 2),
        (Fault("register", "status", status=302), "error", "it answers with a redirect", 2),
        (Fault("register", "status", status=400), "error", "the registration is refused", 2),
        (Fault("register", "html", status=502), "error", "it answers but does not work", 2),
        (Fault("register", "body", body=b"<html>"), "error", "the answer is not the answer to a registration", 2),
        (Fault("register", "status", status=429, retry_after=7), "warning", "refuses calls, for 7 s", 1),
        (Fault("heartbeat", "status", status=429), "warning", "a heartbeat is not accepted: HTTP 429", 1),
        (Fault("heartbeat", "status", status=500), "error", "a heartbeat is not accepted: HTTP 500", 2),
        (Fault("ws", "status", status=400), "note", "no WebSocket: HTTP 400", 0),
    ],
    ids=lambda value: f"{value.call}-{value.status}" if isinstance(value, Fault) else "",
)
async def test_what_an_orchestrator_does_is_reported_with_what_to_do(doctor, orchestrator, fault, severity, text, code):
    orchestrator.inject(fault)
    returned, printed = await doctor("--json", ORCHESTRATOR_URL=orchestrator.url)
    assert returned == code, printed
    (found,) = [each for each in findings(printed) if text in each[1]]
    assert found[0] == severity
    assert found[2], "it does not say what to do"


async def test_one_of_several_orchestrators_that_is_out_of_reach_is_named(doctor, orchestrator, unused_port):
    config = [{"url": orchestrator.url}, {"url": f"http://127.0.0.1:{unused_port}"}]
    code, printed = await doctor("--json", ORCHESTRATORS_CONFIG=json.dumps(config))
    assert code == 2
    assert findings(printed, f"Orchestrator {orchestrator.url}")[0][0] == "ok"
    ((severity, text, advice),) = findings(printed, f"Orchestrator http://127.0.0.1:{unused_port}")
    assert severity == "error"
    assert text.startswith("cannot be reached")
    assert "ORCHESTRATOR_URL" in advice


async def test_an_individual_token_is_not_tried_without_being_asked_for(doctor):
    tokens = {"w1": "mine"}
    async with EmbeddedOrchestrator(individual_tokens=tokens) as orchestrator:
        code, printed = await doctor("--json", ORCHESTRATOR_URL=orchestrator.url, WORKER_INDIVIDUAL_TOKEN="mine")
        assert (code, orchestrator.workers) == (0, {})
        assert "--own-id" in findings(printed)[0][2]
        code, printed = await doctor(
            "--own-id", "--json", ORCHESTRATOR_URL=orchestrator.url, WORKER_INDIVIDUAL_TOKEN="mine"
        )
        assert (code, list(orchestrator.workers)) == (0, ["w1"])


async def test_what_is_wrong_with_this_machine_is_found_all_at_once(doctor, orchestrator, tmp_path):
    (tmp_path / "file").write_text("", "utf-8")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code, printed = await doctor(
            "--json",
            ORCHESTRATOR_URL=orchestrator.url,
            WORKER_HEALTH_HOST="127.0.0.1",
            WORKER_PORT=str(server.getsockname()[1]),
            WORKER_STATE_DIR=str(tmp_path / "file" / "below"),
            WORKER_ID="",
            MAX_CONCURENT_TASKS="5",
        )
    assert code == 2
    machine = findings(printed, "This machine")
    assert [each[0] for each in machine] == ["error", "error", "ok"]
    assert "address already in use" in machine[0][1]
    assert "WORKER_STATE_DIR" in machine[1][2]
    configuration = " ".join(each[1] for each in findings(printed, "Configuration"))
    assert "did you mean MAX_CONCURRENT_TASKS?" in configuration
    assert "WORKER_ID is not set" in configuration


async def test_wrong_settings_and_a_wrong_app_are_findings_too(doctor):
    code, printed = await doctor("--json", "--app", "app:wroker", WORKER_PORT="-1")
    assert code == 2
    assert findings(printed, "Configuration")[0][1].startswith("WORKER_PORT='-1'")
    assert "it has a Worker called worker" in findings(printed, "Skills")[0][1]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize(("variable", "name"), [("TASK_FILES_DIR", "files"), ("WORKER_STATE_DIR", "state")])
@pytest.mark.parametrize("fault", ["under another user's control", "writable by others"])
async def test_a_directory_that_is_not_this_users_alone_is_found(doctor, tmp_path, variable, name, fault):
    directory = tmp_path / name
    directory.mkdir()
    if fault == "under another user's control":
        os.chown(directory, 54321, 54321)
    else:
        directory.chmod(0o777)
    nowhere = {"ORCHESTRATOR_URL": "http://127.0.0.1:9"}
    code, out = await doctor("--json", **{variable: str(directory)}, **nowhere)
    assert code != 0
    refused = [each for each in json.loads(out)["findings"] if "is refused" in each["text"]]
    assert [(fault in each["text"], variable in (each["advice"] or "")) for each in refused] == [(True, True)]
    assert list(directory.iterdir()) == []


async def test_skills_that_expect_more_time_than_they_have_are_named(doctor, orchestrator, tmp_path):
    app = APP.replace("@worker.skill", "@worker.skill(expected_seconds=5400)")
    (tmp_path / "app.py").write_text(app, "utf-8")
    url = {"ORCHESTRATOR_URL": orchestrator.url}
    code, printed = await doctor("--app", "app:worker", "--json", **url)
    assert code == 1
    text = "skill echo is expected to take 5400 s, and orchestrators give a task up after 1200 s"
    advice = "docs/howto/long-tasks.md says what to set"
    assert ("warning", f"{text} (ORCHESTRATOR_TASK_LIMIT)", advice) in findings(printed, "Skills")
    code, printed = await doctor("--app", "app:worker", "--json", ORCHESTRATOR_TASK_LIMIT="7200", **url)
    assert code == 0, printed
