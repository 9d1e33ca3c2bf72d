"""Faults put into a copy of the worker, one by one: what the simulator is worth is how many of them it finds.

Each is one that this project once had, or that is easily made. ``python -m simulation --mutants``, in ``tests``.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "avtomatika_worker"


@dataclass(frozen=True)
class Mutant:
    """A fault: in one file, a text in place of another that stands there once."""

    what: str
    file: str
    old: str
    new: str


_AFTER_A_POLL = """\
                if not poll.lent:
                    self._tasks.release_slot()
                self._wake.set()"""

MUTANTS = (
    Mutant(
        "a break of contact leads to no registration",
        "link/link.py",
        "self._step(LinkEvent.CONTACT_BROKEN)",
        "pass",
    ),
    Mutant(
        "a poll that fails keeps its slot",
        "tasks/poller.py",
        _AFTER_A_POLL,
        "                self._wake.set()",
    ),
    Mutant(
        "a poll that fails gives its slot back twice",
        "tasks/poller.py",
        _AFTER_A_POLL,
        "                if not poll.lent:\n                    self._tasks.release_slot()\n"
        "                    self._tasks.release_slot()\n                self._wake.set()",
    ),
    Mutant(
        "a task's slot is not given back",
        "tasks/runner.py",
        "            running.has_slot = False\n            self._free()",
        "            running.has_slot = False",
    ),
    Mutant(
        "what is on disk is not taken over",
        "delivery/outbox.py",
        "        self._wait_in_lane(delivery)\n        return True",
        "        return True",
    ),
    Mutant(
        "a result is taken off the disk before it is delivered",
        "delivery/outbox.py",
        "                delay = await attempt(delivery, self._store, self.works)",
        "                self._store.forget(delivery.row)\n"
        "                delay = await attempt(delivery, self._store, self.works)",
    ),
    Mutant(
        "what is delivered stays on disk",
        "delivery/outbox.py",
        "            if delivery.row is not None:\n                self._store.forget(delivery.row)",
        "            pass",
    ),
    Mutant(
        "a result that fails is not tried again",
        "delivery/outbox.py",
        "                self._new_lanes.append(delivery.lane)",
        "                pass",
    ),
    Mutant(
        "who waits is not woken by what is published",
        "threadsafe.py",
        "        waiting, self._waiting = self._waiting, set()\n        return waiting",
        "        return set()",
    ),
    Mutant(
        "a message is signed once, and sent again as it is",
        "link/credentials.py",
        'return lambda: f"{prefix}{next(numbers):x}"',
        "return lambda: prefix",
    ),
    Mutant(
        "heartbeats list task ids",
        "tasks/running.py",
        "return (running.task.job_id for running in self._tasks)",
        "return (running.task.task_id for running in self._tasks)",
    ),
    Mutant(
        "a registration follows the offline heartbeat",
        "link/heartbeats.py",
        "            self._contact.cancel()",
        "            pass",
    ),
    Mutant(
        "polls are dropped before the orchestrator answers them",
        "link/link.py",
        "POLL_MARGIN: Final = 90.0",
        "POLL_MARGIN: Final = -20.0",
    ),
    Mutant(
        "a task's result does not wait for its events",
        "tasks/runner.py",
        "free=free, before=close, older_ids=ids",
        "free=free, older_ids=ids",
    ),
    Mutant(
        "cancellations over the WebSocket and with heartbeats are ignored",
        "link/cancellations.py",
        "self._to_main.put(self._take)",
        "pass",
    ),
    Mutant(
        "messages are stamped with the machine's clock",
        "link/clock.py",
        "        return self._steady() + self._ahead",
        "        return self._wall()",
    ),
    Mutant(
        "an orchestrator's failure counts as its refusal",
        "delivery/attempt.py",
        "        if error.retryable:\n            return _failed(delivery, error)\n",
        "",
    ),
    Mutant(
        "after a 429 no result goes out any more",
        "link/call_budgets.py",
        "return max(0.0, self._held_until - now, self.must_wait(now))",
        "return 60.0 if self._held_until else 0.0",
    ),
    Mutant(
        "a task that comes again runs again",
        "tasks/runner.py",
        "        elif self._is_underway(link, task):",
        "        elif False and self._is_underway(link, task):",
    ),
    Mutant(
        "contact that is back goes unnoticed by the poller",
        "tasks/poller.py",
        "            source.contact_is_back(self._monotonic())\n            self._wake.set()",
        "            source.contact_is_back(self._monotonic())",
    ),
    Mutant(
        "an access token is not renewed before it expires",
        "link/credentials.py",
        "return None if due is None else max(0.0, due - self._world.monotonic())",
        "return None",
    ),
    Mutant(
        "heartbeats stop after one that was refused",
        "policy/heartbeat.py",
        "        self._not_before = self.next_regular = now + delay",
        "        self._not_before = self.next_regular = now + 1e6",
    ),
    Mutant(
        "a full disk stops deliveries",
        "delivery/store.py",
        "        except StoreError as error:\n            self._failed(error)\n            return None",
        "        except StoreError as error:\n            self._failed(error)\n            raise",
    ),
)


def hunt(seeds, only=""):
    """Run seeds on each mutant, and print which are found; return how many are not."""
    missed = 0
    for mutant in MUTANTS:
        if only not in mutant.what:
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as directory:
            found = _first_failure(mutant, Path(directory), seeds)
        missed += found is None
        verdict = "NOT FOUND" if found is None else found
        print(f"{mutant.what}: {verdict} ({time.monotonic() - began:.0f} s)", flush=True)
    return missed


def _first_failure(mutant, directory, seeds):
    copy = directory / SOURCE.name
    shutil.copytree(SOURCE, copy)
    path = copy / mutant.file
    text = path.read_text("utf-8")
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.file} holds {text.count(mutant.old)} times: {mutant.old}")
    path.write_text(text.replace(mutant.old, mutant.new), "utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "simulation", "--seeds", str(seeds), "--no-shrink"],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": str(directory)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    if ended.returncode == 0:
        return None
    lines = [line for line in ended.stdout.splitlines() if line.strip()]
    return "; ".join(line.strip() for line in lines[:2])[:200] or ended.stderr.splitlines()[-1]
