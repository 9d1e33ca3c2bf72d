"""The pytest plugin, in a project of its own: pytest is run as its author would run it."""

import subprocess
import sys

import pytest

from own_pytest import PLAIN

WORKER = """
from avtomatika_worker import Worker

def make():
    worker = Worker()

    @worker.skill
    async def double(number: int):
        return {"number": number * 2}

    return worker
"""
USED = """
import pytest
from my_worker import make

@pytest.mark.asyncio
async def test_a_skill(worker_harness):
    h = await worker_harness(make(), settings={"max_concurrent_tasks": 1})
    assert (await h.run("double", {"number": 4})).data == {"number": 8}

@pytest.mark.asyncio
async def test_an_orchestrator(worker_harness, orchestrator):
    first, second = await worker_harness(make(), orchestrator=orchestrator), await worker_harness(make())
    assert first.orchestrator is orchestrator
    assert (await second.run("double", {"number": 1})).ok
    assert (await first.run("double", {"number": 1})).ok
"""
UNUSED = """
import sys

def test_nothing_is_imported():
    assert [name for name in sys.modules if name.split(".")[0] == "avtomatika_worker"] == []
"""
OWN = """
import pytest

@pytest.fixture
def orchestrator():
    return "mine"

def test_a_fixture_of_ones_own_wins(orchestrator):
    assert orchestrator == "mine"
"""
WITHOUT = """
def test_it_says_what_is_missing(worker_harness): ...
"""


@pytest.fixture
def run_pytest(tmp_path):
    def run(text, *arguments):
        if "no:asyncio" not in arguments:
            arguments = ("-o", "asyncio_default_fixture_loop_scope=function", *arguments)
        (tmp_path / "my_worker.py").write_text(WORKER, "utf-8")
        (tmp_path / "test_it.py").write_text(text, "utf-8")
        options = ("-q", "-W", "error", "-p", "no:randomly", *PLAIN)
        return subprocess.run(
            [sys.executable, "-m", "pytest", *options, *arguments],
            cwd=tmp_path,
            env={"PATH": "", "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_the_fixtures_start_and_stop_workers_and_orchestrators(run_pytest, mode):
    done = run_pytest(USED, "-o", f"asyncio_mode={mode}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_unused_it_imports_nothing(run_pytest):
    done = run_pytest(UNUSED)
    assert done.returncode == 0, done.stdout + done.stderr


def test_fixtures_of_the_same_name_in_a_project_win(run_pytest):
    done = run_pytest(OWN)
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_pytest_asyncio_it_says_what_is_missing(run_pytest):
    done = run_pytest(WITHOUT, "-p", "no:asyncio")
    assert done.returncode == 1
    assert "the fixture worker_harness needs pytest-asyncio" in done.stdout


@pytest.mark.parametrize(
    ("tests", "fixtures"), [("session", "function"), ("module", "function"), ("function", "session")]
)
def test_where_tests_have_another_loop_than_fixtures_both_settings_are_named(run_pytest, tests, fixtures):
    scopes = ("-o", f"asyncio_default_test_loop_scope={tests}", "-o", f"asyncio_default_fixture_loop_scope={fixtures}")
    done = run_pytest(USED, "-o", "asyncio_mode=auto", *scopes)
    assert done.returncode == 1
    assert "2 errors" in done.stdout
    assert f"asyncio_default_fixture_loop_scope={fixtures}" in done.stdout
    assert f"asyncio_default_test_loop_scope={tests}" in done.stdout


@pytest.mark.parametrize("scope", ["function", "module", "session"])
def test_where_tests_and_fixtures_share_a_loop_they_work(run_pytest, scope):
    scopes = ("-o", f"asyncio_default_test_loop_scope={scope}", "-o", f"asyncio_default_fixture_loop_scope={scope}")
    done = run_pytest(USED, "-o", "asyncio_mode=auto", *scopes)
    assert "2 passed" in done.stdout, done.stdout


def test_a_mark_that_gives_a_test_another_loop_is_named(run_pytest):
    text = f'import pytest\npytestmark = pytest.mark.asyncio(loop_scope="session")\n{USED}'
    done = run_pytest(text.replace("@pytest.mark.asyncio\n", ""), "-o", "asyncio_mode=strict")
    assert 'mark asyncio(loop_scope="session")' in done.stdout


def test_anyios_mark_works_in_strict_mode_and_is_refused_in_auto_mode(run_pytest):
    text = (
        "import pytest\npytestmark = pytest.mark.anyio\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n" + USED
    )
    text = text.replace("@pytest.mark.asyncio\n", "")
    assert "2 passed" in run_pytest(text, "-o", "asyncio_mode=strict").stdout
    assert "set asyncio_mode=strict" in run_pytest(text, "-o", "asyncio_mode=auto").stdout
