"""Skills for processes: they are imported there by the names that they have here."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import resource as limits
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from avtomatika_worker import Batch, InvalidInputError, PermanentError, SkillBlueprint, TaskContext, TaskFiles

skills = SkillBlueprint("processes")
batched = SkillBlueprint("batches")
log = logging.getLogger("tests.app")


@dataclass
class Numbers:
    """What to add up."""

    numbers: list[int]


@dataclass
class Sum:
    """The outcome."""

    total: int
    pid: int


@skills.skill(executor="process")
def add_up(params: Numbers) -> Sum:
    """Add up."""
    return Sum(sum(params.numbers), os.getpid())


@skills.skill(executor="process")
def handed_on(ctx: TaskContext):
    """Return what a middleware has left."""
    return {"state": repr(ctx.state), "metadata": ctx.metadata}


async def _later() -> dict[str, Any]:
    return {"late": True}


@skills.skill(executor="process", output_statuses=["needs_review"])
def answers(params: dict[str, Any]) -> Any:
    """Return what is asked for, or a value of the kind that is named."""
    kinds: dict[str, Any] = {
        "generator": (each for each in ()),
        "coroutine": _later,
        "error": {"error": PermanentError("never", {"part": 7})},
    }
    made = kinds.get(params.get("kind", ""), params.get("value"))
    return made() if made is _later else made


class Ticket(TypedDict):
    """Data with the field of an envelope."""

    status: str
    title: str


@skills.skill(executor="process")
async def ticket() -> Ticket:
    """Return data that look like an envelope."""
    return {"status": "failure", "title": "x"}


@skills.skill(executor="process")
async def add_up_slowly(params: Numbers, ctx: TaskContext) -> Sum:
    """Add up on an event loop."""
    await ctx.send_progress(0.25, "begun")
    await asyncio.sleep(0)
    return Sum(sum(params.numbers), os.getpid())


@skills.skill(
    executor="process",
    events={"found": {"type": "object", "properties": {"level": {"type": "integer"}}, "required": ["level"]}},
)
def describe(ctx: TaskContext) -> dict[str, Any]:
    """Use everything of the context."""
    ctx.send_progress(0.5, "half")
    answers = [
        bool(ctx.send_event(name, payload)) for name, payload in (("found", {"level": 3}), ("found", {}), ("no", {}))
    ]
    ctx.add_cost("tokens", 12)
    ctx.add_to_hot_cache("model-a")
    context = [ctx.skill, ctx.task_id, ctx.job_id, ctx.worker_id, ctx.priority, ctx.metadata]
    return {"answers": answers, "context": context, "pid": os.getpid()}


@skills.skill(executor="process", cancel_grace=0.2)
def spin(seconds: float = 60.0, *, ctx: TaskContext) -> dict[str, Any]:
    """Hold the GIL, and hear nothing."""
    ctx.send_event("spinning", {"pid": os.getpid()})
    ctypes.PyDLL(None).usleep(ctypes.c_uint(int(seconds * 1e6)))
    return {}


@skills.skill(executor="process", cancel_grace=0.2, timeout=0.3)
def too_slow() -> dict[str, Any]:
    """Take longer than it may."""
    time.sleep(60)
    return {}


@skills.skill(executor="process", cancel_grace=5)
def polite(ctx: TaskContext) -> dict[str, Any]:
    """Stop when it is asked to."""
    ctx.send_event("started", {"pid": os.getpid()})
    while True:
        ctx.raise_if_cancelled()
        time.sleep(0.01)


@skills.skill(executor="process", cancel_grace=5)
async def polite_async(ctx: TaskContext) -> dict[str, Any]:
    """Stop when it is asked to."""
    await ctx.send_event("started", {"pid": os.getpid()})
    await asyncio.sleep(60)
    return {}


@skills.skill(executor="process")
def die(how: str) -> dict[str, Any]:
    """End the process."""
    if how == "exit":
        os._exit(3)
    elif how == "exit_well":
        os._exit(0)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "segfault":
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "sys_exit":
        sys.exit(4)
    return {"pid": os.getpid()}


class Load:
    """Stands for a large array in a local variable."""


loads: list[weakref.ref[Load]] = []


@skills.skill(executor="process")
def fail_with_a_load() -> None:
    """Fail with an error that is part of a cycle, and no collector to find it."""
    gc.disable()
    kept = Load()
    loads.append(weakref.ref(kept))
    error = RuntimeError(str(kept))
    raise error


@skills.skill(executor="process")
async def fail_with_a_load_on_a_loop() -> None:
    """Fail in the same way on an event loop."""
    fail_with_a_load()


@skills.skill(executor="process")
def loads_left() -> dict[str, int]:
    """Return how many there were, and how many are still in memory."""
    return {"were": len(loads), "are": sum(each() is not None for each in loads)}


@skills.skill(executor="process")
def send_what_cannot_be_sent(ctx: TaskContext) -> dict[str, Any]:
    """Send events that no orchestrator takes, one that it does, and progress."""
    nested: list[Any] = []
    for _ in range(500):
        nested = [nested]
    values = {
        "NaN": float("nan"),
        "large": 2**70,
        "surrogate": "caf\udce9",
        "object": object(),
        "nested": nested,
        "good": 1,
    }
    answers = {name: bool(ctx.send_event("value", {"v": value})) for name, value in values.items()}
    answers["progress"] = bool(ctx.send_progress(0.5, "caf\udce9"))
    answers["progress as an event"] = bool(ctx.send_event("progress", {"progress": float("nan")}))
    return answers


@skills.skill(executor="process")
def read(source: Path) -> str:
    """Read a file."""
    return source.read_text("utf-8")


@skills.skill(executor="process")
def eat() -> dict[str, Any]:
    """Run out of memory."""
    used = int(Path("/proc/self/statm").read_text("utf-8").split()[0]) * limits.getpagesize()
    limits.setrlimit(limits.RLIMIT_AS, (used + 64 * 2**20, limits.RLIM_INFINITY))
    return {"eaten": len(bytearray(2**30))}


@skills.skill(executor="process")
def fail(how: str) -> Any:
    """Raise, or return what cannot be sent."""
    log.warning("failing as %s", how, extra={"action": "failing", "level_of_it": 3, "odd": object()})
    if how == "permanent":
        raise PermanentError("broken for good", {"part": 7})
    if how == "input":
        raise InvalidInputError("not this one")
    if how == "any":
        raise ZeroDivisionError("by zero")
    if how == "object":
        return {"deep": [{"thing": object()}]}
    if how == "lambda":
        return lambda: 1
    return {"text": "\ud800"}


@skills.skill(executor="process", max_tasks_per_child=2)
def short_lived() -> dict[str, Any]:
    """Return the process."""
    return {"pid": os.getpid()}


@skills.skill(executor="process")
def with_files(files: TaskFiles) -> dict[str, Any]:
    """Write, read and upload."""
    path = files.sync.write("out/report.txt", f"from {os.getpid()}")
    uri = files.sync.upload_file("out/report.txt", "kept.txt")
    again = files.sync.download_file(uri, "again.txt")
    return {
        "uri": uri,
        "read": again.read_text("utf-8"),
        "path": path,
        "listed": files.sync.list("", recursive=True),
    }


@skills.skill(executor="process")
async def with_files_async(files: TaskFiles, source: Path) -> dict[str, Any]:
    """Read what was brought, and return a file."""
    path = await files.write("copy.txt", source.read_text("utf-8").upper())  # noqa: ASYNC240 - nobody waits here
    try:
        await files.upload_file("missing.txt")
    except FileNotFoundError as error:
        missing = str(error)
    return {"copy": path, "missing": missing}


@skills.skill(executor="process", cancel_grace=0.2)
def with_children(ctx: TaskContext) -> dict[str, Any]:
    """Start a program that runs for long."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    ctx.send_event("child", {"pid": child.pid, "parent": os.getpid()})
    child.wait()
    return {}


@skills.skill(executor="process")
def leaves_a_thread(said: str, ctx: TaskContext) -> dict[str, Any]:
    """Let a thread go on after the end."""

    def go_on() -> None:
        time.sleep(0.05)
        ctx.send_progress(0.9, "late")
        Path(said).touch()

    threading.Thread(target=go_on).start()
    return {"pid": os.getpid()}


class Database:
    """What a model needs."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal

    def write(self, line: str) -> None:
        """Append a line."""
        with self.journal.open("a") as file:
            file.write(f"{line} {os.getpid()}\n")


class Model:
    """What takes long to load."""

    def __init__(self, database: Database, name: str = "real") -> None:
        self.database = database
        self.name = name


class Unpicklable(Model):
    """One that cannot be sent to a process."""

    def __reduce__(self) -> Any:
        raise TypeError("a lock cannot be pickled")


with_resources = SkillBlueprint("with resources")


@with_resources.skill(executor="process")
def predict(model: Model) -> dict[str, Any]:
    """Use the model of this process."""
    return {"model": model.name, "pid": os.getpid(), "id": id(model)}


@with_resources.skill(executor="process")
async def predict_async(model: Model, ctx: TaskContext) -> dict[str, Any]:
    """Use the model of this process."""
    return {"model": ctx.resource(Model).name, "same": model is ctx.resource(Model), "id": id(model)}


@with_resources.resource
def load_model(database: Database) -> Iterator[Model]:
    """Load it."""
    database.write("model made")
    yield Model(database)
    database.write("model closed")


@with_resources.resource
async def connect() -> AsyncIterator[Database]:
    """Connect."""
    database = Database(Path(os.environ["TEST_JOURNAL"]))
    database.write("database made")
    yield database
    await asyncio.sleep(0)
    database.write("database closed")


class Absent:
    """What cannot be made."""


broken_resource = SkillBlueprint("broken")


@broken_resource.resource
def no_model() -> Absent:
    """Fail to load."""
    raise FileNotFoundError("weights.bin is not there")


@broken_resource.skill(executor="process")
def needs_absent(absent: Absent) -> None:
    """Need it."""


class Stubborn:
    """What does not let go."""


never_closed = SkillBlueprint("never closed")


@never_closed.resource
def hold_on() -> Iterator[Stubborn]:
    """Hang while it is closed."""
    yield Stubborn()
    Path(os.environ["TEST_JOURNAL"]).write_text(f"closing {os.getpid()}", "utf-8")
    time.sleep(60)


@never_closed.skill(executor="process")
def uses_stubborn(stubborn: Stubborn) -> None:
    """Need it."""


class Voice:
    """A model that knows which process it was loaded in."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pid = os.getpid()


voices_unloaded: list[str] = []


def unload_voice(voice: Voice) -> None:
    """Note it."""
    voices_unloaded.append(voice.name)


@skills.model(unload=unload_voice, warm_up=["warm"])
def load_voice(name: str) -> Voice:
    """Load, or fail."""
    if name == "broken":
        raise OSError("no such voice")
    return Voice(name)


@skills.skill(executor="process", model_from="voice")
def sing(text: str, voice: str, model: Voice) -> dict[str, Any]:
    """Say who sings, where, and who has left."""
    return {"by": model.name, "same": model.pid == os.getpid(), "unloaded": list(voices_unloaded), "asked": voice}


@skills.skill(executor="process", model_from="voice")
async def hum(voice: str, model: Voice) -> AsyncIterator[str]:
    """Stream."""
    for part in model.name:
        yield part


@batched.skill(executor="process", batch=Batch(max_size=8, key=lambda params: params.numbers[0] < 0))
def add_up_many(params: list[Numbers], ctxs: list[TaskContext]) -> list[Sum | Exception]:
    """Add up for several tasks. Special numbers: 13 is a bad task, 666 kills the process, 32 together do not fit."""
    for each, ctx in zip(params, ctxs, strict=True):
        ctx.send_event("size", {"batch": len(params)})
        ctx.add_cost("numbers", len(each.numbers))
    first = [each.numbers[0] for each in params]
    while -1 in first and not any(ctx.cancelled for ctx in ctxs):
        time.sleep(0.005)
    if 13 in first:
        raise InvalidInputError("thirteen")
    if 666 in first:
        os.kill(os.getpid(), signal.SIGABRT)
    if sum(first) >= 32 and len(first) > 1:
        raise MemoryError
    return [PermanentError("seven") if each == 7 else Sum(each, os.getpid()) for each in first]


@batched.skill(executor="process", batch=Batch(max_size=4))
async def miscount(params: list[Numbers]) -> list[int]:
    """Return an item too many."""
    return [len(each.numbers) for each in params] + [0]


batched.model(warm_up=["warm"])(load_voice)


@batched.skill(executor="process", model_from="voice", batch=Batch(max_size=4))
def sing_together(text: list[str], voice: list[str], model: Voice) -> list[dict[str, Any]]:
    """Say who sings how many texts, and where."""
    assert set(voice) == {model.name}
    return [{"by": model.name, "same": model.pid == os.getpid(), "texts": len(text)} for _ in text]


class Column(TypedDict):
    """Rows to add up, and what to add."""

    rows: list[list[int]]
    more: list[int]


@batched.skill(executor="process", batch=Batch(max_size=4))
def add_columns(params: Column) -> list[int]:
    """Add up each row."""
    return [sum(row) + more for row, more in zip(params["rows"], params["more"], strict=True)]
