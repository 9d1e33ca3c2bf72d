"""What the HTTP library's native side is told: how its thread is scheduled, and how much memory it takes at once."""

import json
import os
import subprocess
import sys

import pytest

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="scheduling policies are Linux's")

OPEN = """
import json, os
from pathlib import Path
from avtomatika_worker.transport.http import HttpTransport

HttpTransport("http://127.0.0.1:1", user_agent="test").open()
print(json.dumps([
    [(each / "comm").read_text().strip(), os.sched_getscheduler(int(each.name))]
    for each in Path("/proc/self/task").iterdir()
]))
"""


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def policies(code: str) -> dict[str, int]:
    found = dict(json.loads(run(code).stdout))
    library = found.pop("pyreqwest")
    return {"library": library, "rest": max(found.values())}


@linux_only
def test_the_librarys_thread_lets_the_event_loop_finish_its_turn():
    assert policies(OPEN) == {"library": os.SCHED_BATCH, "rest": os.SCHED_OTHER}


@linux_only
def test_a_policy_that_somebody_else_has_chosen_stays():
    idle = "import os; os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))"
    assert policies(idle + OPEN) == {"library": os.SCHED_IDLE, "rest": os.SCHED_IDLE}


def test_the_librarys_allocator_takes_no_more_than_it_needs():
    told = run("import avtomatika_worker", MIMALLOC_VERBOSE="1").stderr
    assert "option 'arena_eager_commit': 0" in told


def test_the_allocators_setting_is_left_to_whoever_sets_it_and_not_left_behind():
    assert (
        "option 'arena_eager_commit': 1"
        in run("import avtomatika_worker", MIMALLOC_VERBOSE="1", MIMALLOC_ARENA_EAGER_COMMIT="1").stderr
    )
    code = "import os, avtomatika_worker; print([name for name in os.environ if 'MIMALLOC' in name])"
    assert run(code).stdout.strip() == "[]"
