"""What several threads touch is what docs/explanation/threads.md lists, and it is safe in the way that stands there."""

import ast
import asyncio
import contextlib
import functools
import inspect
import random
import re
import tempfile
import textwrap
import threading
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from avtomatika_worker.config import SlotTunerKind
from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault
from certificates import Authority
from services.conftest import make_settings
from services.crossings import ROLES, classes, recorded
from services.threads_app import SKILLS, make_worker

PAGE = Path(__file__).parents[2] / "docs/explanation/threads.md"


@dataclass(frozen=True)
class Row:
    """How an attribute is shared. Threads that hand over stand in the order in which they do."""

    writers: tuple[str, ...]
    readers: tuple[str, ...]
    way: str


@functools.cache
def table():
    """Return the page's table: a row for each class and attribute."""
    found = {}
    for line in PAGE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) != 5 or cells[4].split(":")[0] not in UNSAFE:
            continue
        (owner,) = re.findall(r"`(\w+)`", cells[0])
        row = Row(*(tuple(re.split(r", (?:then )?", each)) for each in cells[2:4]), cells[4].split(":")[0])
        for name in re.findall(r"`(\w+)`", cells[1]):
            assert (owner, name) not in found, f"{owner}.{name} is listed twice"
            found[owner, name] = row
    return found


def allows(named, threads):
    return "any" in named or threads <= set(named)


def problems_of(access, row):
    """Return what the table does not allow, as texts."""
    if row is None:
        yield f"is not in the table: written by {sorted(access.writers)}, read by {sorted(access.readers)}"
        return
    if not allows(row.writers, access.writers):
        yield f"is written by {sorted(access.writers)}, and may be by {row.writers}"
    if not allows((*row.writers, *row.readers), access.readers):
        yield f"is read by {sorted(access.readers)}, and may be by {row.readers}"
    yield from UNSAFE[row.way](access, row)


def unlocked(access, row):
    if access.unlocked_writers:
        yield f"is written without its lock by {sorted(access.unlocked_writers)}"
    if access.unlocked_readers and access.changed_in_place:
        yield f"is read without its lock by {sorted(access.unlocked_readers)}, and changed in its place"


def no_snapshot(access, row):
    if len(access.writers) > 1 or access.changed_in_place:
        yield f"is no snapshot: written by {sorted(access.writers)}, changed in its place: {access.changed_in_place}"


def kept(access, row):
    for writer, other in access.overtaken:
        if writer in row.writers and other in row.writers[row.writers.index(writer) + 1 :]:
            yield f"was handed over to {other}, and {writer} has written it since"


def not_fixed(access, row):
    if access.overtaken or access.changed_in_place:
        yield f"is not fixed: {sorted(access.overtaken)}, changed in its place: {access.changed_in_place}"


def nothing(access, row):
    return ()


UNSAFE = {
    "lock": unlocked,
    "snapshot": no_snapshot,
    "handed over": kept,
    "fixed": not_fixed,
    "either": nothing,
    "queue": nothing,
}
"""The ways in which something can be shared, and what finds that it is not."""


def problems(recording):
    return sorted(
        {
            f"{type(access.owner).__name__}.{access.name} {problem}"
            for access in recording.crossings()
            for problem in problems_of(access, table().get((type(access.owner).__name__, access.name)))
        }
    )


def seen(recording):
    return {(type(access.owner).__name__, access.name) for access in recording.crossings()}


async def probe(path_of_socket):
    """Ask the health server for everything."""
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path_of_socket))) as session:
        for path in ("live", "ready", "health", "metrics"):
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"http://worker/{path}") as answer:
                    await answer.read()


async def keep_busy(orchestrator, chance, look):
    """Submit, cancel, break and look, at random."""
    jobs = []
    for number in range(60):
        jobs.append(orchestrator.submit(chance.choice(SKILLS), {"n": chance.randrange(1, 9)}))
        if chance.random() < 0.4:
            orchestrator.cancel(chance.choice(jobs).job_id)
        if chance.random() < 0.2:
            call = chance.choice(["poll", "heartbeat", "result", "event", "register"])
            orchestrator.inject(Fault(call=call, kind=chance.choice(["reset", "drop_after", "status"])))
        if number % 10 == 0:
            await look()
            with contextlib.suppress(LookupError):  # its WebSocket is on the way
                command = chance.choice(["note", "note_on_loop"])
                await orchestrator.send_command("w1", {"command": command, "params": {"n": number}})
        await asyncio.sleep(chance.random() * 0.02)


@pytest.fixture
def directory():
    """A directory whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="w") as made:
        yield Path(made)


def settings_for(directory, **more):
    return {
        "heartbeat_interval": 0.1,
        "shutdown_timeout": 0.3,
        "max_concurrent_tasks": 8,
        "enable_metrics": True,
        "heartbeat_process": True,
        "slot_tuner": SlotTunerKind.RESOURCE,
        "lease_lost_after": 1.0,
        "health_host": f"unix:{directory / 'health'}",
        "state_dir": directory / "state",
        "task_files_dir": directory / "files",
        **more,
    }


async def run_busily(recording, directory, seed, orchestrator, **more):
    worker = make_worker()
    async with orchestrator:
        environment = {"WORKER_ID": "w1", "ORCHESTRATOR_URL": orchestrator.url, "WORKER_TOKEN": orchestrator.token}
        main = asyncio.create_task(worker.main(make_settings(worker, environment, settings_for(directory, **more))))
        up = asyncio.create_task(orchestrator.wait_for_worker("w1", timeout=20))
        await asyncio.wait({up, main}, return_when=asyncio.FIRST_COMPLETED)
        await keep_busy(orchestrator, random.Random(seed), functools.partial(probe, directory / "health"))
        await asyncio.to_thread(worker.announce_draining)  # as the link thread does on a notice, and that of signals
        worker.request_shutdown()
        await main


@pytest.mark.parametrize("durability", ["always", "on_failure"])
@pytest.mark.parametrize("seed", range(2))
async def test_no_thread_touches_what_the_table_does_not_list(directory, seed, durability):
    with recorded() as recording:
        orchestrator = EmbeddedOrchestrator(poll_time=0.5)
        await run_busily(recording, directory, seed, orchestrator, result_durability=durability)
    assert problems(recording) == []
    assert {("Link", "_state"), ("Watch", "_value"), ("Outbox", "_lanes"), ("Arrivals", "_waiting")} <= seen(recording)


async def test_no_thread_touches_what_the_table_does_not_list_while_tokens_are_renewed(directory):
    authority = Authority()
    files = authority.client_files(directory, "w1")
    tls = {"tls_ca_path": files.ca, "tls_cert_path": files.cert, "tls_key_path": files.key, "tls_reload_interval": 0.05}
    with recorded() as recording:
        orchestrator = EmbeddedOrchestrator(
            poll_time=0.2, version="1.0b7", token_lifetime=0.5, tls=authority.server(clients=authority)
        )
        await run_busily(recording, directory, 0, orchestrator, **tls)
    assert problems(recording) == []


# ----------------------------------------------------------------------------------------------- the check itself


def source_of(kind):
    """Return the source of a class; nothing for one without: from Python 3.13 on, those of `Generic` and C."""
    try:
        return textwrap.dedent(inspect.getsource(kind))
    except (OSError, TypeError):
        return ""


def test_the_table_lists_only_what_exists():
    known, gone = classes(), []
    for (owner, name), row in table().items():
        nodes = [*ast.walk(ast.parse("".join(map(source_of, known[owner].__mro__[:-1]))))]
        attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        fields = {ast.unparse(node.target) for node in nodes if isinstance(node, ast.AnnAssign)}
        if name not in attributes | fields:
            gone.append(f"{owner}.{name}")
        assert {*row.writers, *row.readers} <= {*ROLES.values(), "any"}, f"{owner}.{name}: no such thread"
    assert gone == []


class Planted:
    """Something that two threads touch."""

    def __init__(self):
        self._lock = threading.Lock()
        self.value = 0
        self.items = [1]


def in_link_thread(do):
    thread = threading.Thread(target=do, name="link")
    thread.start()
    thread.join()


def written(it):
    it.value += 1


def grown(it):
    it.items.append(2)
    assert it.items


def grown_with_lock(it):
    with it._lock:  # noqa: SLF001
        grown(it)


def written_with_lock(it):
    with it._lock:  # noqa: SLF001
        written(it)


BOTH = ("main", "link")


@pytest.mark.parametrize(
    ("there", "then_here", "row", "problem"),
    [
        (written, written, None, "is not in the table"),
        (written, written, Row(("main",), BOTH, "either"), "is written by"),
        (written, written, Row(BOTH, BOTH, "either"), None),
        (written, written, Row(BOTH, BOTH, "lock"), "without its lock"),
        (written_with_lock, written_with_lock, Row(BOTH, BOTH, "lock"), None),
        (written, written, Row(BOTH, BOTH, "snapshot"), "no snapshot"),
        (written, lambda it: it.value, Row(("link",), BOTH, "snapshot"), None),
        (lambda it: it.value, written, Row(("main",), ("main",), "snapshot"), "is read by"),
        (written, written, Row(("main", "link"), BOTH, "handed over"), "was handed over"),
        (written, written, Row(("link", "main"), BOTH, "handed over"), None),
        (lambda it: it.value, written, Row(BOTH, BOTH, "fixed"), "is not fixed"),
        (grown, grown, None, "is not in the table"),
        (grown, grown, Row(BOTH, BOTH, "lock"), "changed in its place"),
        (grown_with_lock, grown_with_lock, Row(BOTH, BOTH, "lock"), None),
        (grown, grown, Row(BOTH, BOTH, "fixed"), "is not fixed"),
        (grown, grown, Row(("link",), BOTH, "snapshot"), "no snapshot"),
    ],
)
def test_the_check_finds_what_is_not_safe(there, then_here, row, problem):
    with recorded(Planted) as recording:
        planted = Planted()
        in_link_thread(lambda: there(planted))
        then_here(planted)
    (access,) = [each for each in recording.crossings() if isinstance(each.owner, Planted)]
    found = [*problems_of(access, row)]
    assert (problem is None) == (found == []), found
    assert problem is None or problem in found[0]


def test_attributes_of_one_thread_and_constant_ones_are_ignored():
    with recorded(Planted) as recording:
        planted = Planted()
        written(planted)
        grown(planted)
        assert isinstance(planted._lock, object)  # noqa: SLF001
        in_link_thread(lambda: planted._lock)  # noqa: SLF001
    assert recording.crossings() == []
