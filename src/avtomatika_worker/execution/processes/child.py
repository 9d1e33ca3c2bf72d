"""The program of a skill process: imports the user's code, creates the resources, and runs one task after another.

The main thread runs skills; another thread reads messages from the worker, so a cancellation arrives while a skill
runs. The process does not outlive the worker: it ends when the connection does, and on Linux the kernel also sees to
that.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import faulthandler
import functools
import inspect
import logging
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Coroutine, Generator, Sequence
from types import FrameType
from typing import Any, Final

from avtomatika_worker._atexit import exit_at_once
from avtomatika_worker._boundaries import caught
from avtomatika_worker._forks import in_forked_children
from avtomatika_worker._waiting import side_by_side
from avtomatika_worker.errors import ProcessStartError, ResourceError, SkillDefinitionError, WorkerError
from avtomatika_worker.execution.containment import contained_loop, ends_if_forked, owned_by, run_to_end
from avtomatika_worker.execution.context import TaskCancelledError
from avtomatika_worker.execution.controls import Controls
from avtomatika_worker.execution.envelope import from_value
from avtomatika_worker.execution.frames import release_frames
from avtomatika_worker.execution.injection import injectables
from avtomatika_worker.execution.models import InPlace, ModelPools
from avtomatika_worker.execution.outcome import CancelReason, Failed, Outcome, from_exception
from avtomatika_worker.execution.processes.broken_device import breaks_device
from avtomatika_worker.execution.processes.child_connection import ChildConnection
from avtomatika_worker.execution.processes.imports import import_package, prepare_imports
from avtomatika_worker.execution.processes.job import Job
from avtomatika_worker.execution.processes.log_forwarding import forward_logs
from avtomatika_worker.execution.processes.wire import Message, encode_failure, encode_outcome
from avtomatika_worker.execution.processes.worker_proxy import WorkerProxy
from avtomatika_worker.execution.resources import Resources
from avtomatika_worker.execution.shortage import wants_smaller_batches
from avtomatika_worker.execution.streams import StreamRun
from avtomatika_worker.execution.task_boundary import TaskBoundary
from avtomatika_worker.narrowing import is_async_iterator, is_iterator
from avtomatika_worker.observability.log_context import bind_log_context, log_context
from avtomatika_worker.observability.logging import restore_logging
from avtomatika_worker.skills.batch import WrongItemsError, items_of
from avtomatika_worker.skills.model import ModelDefinition, ModelRegistry
from avtomatika_worker.skills.resource import ResourceDefinition, ResourceRegistry, provider
from avtomatika_worker.skills.skill import Skill, SkillDefinition
from avtomatika_worker.skills.strays import paths_in

_log: Final = logging.getLogger("avtomatika_worker.processes")

_STARTUP_ERRORS: Final = (SkillDefinitionError, ResourceError, ProcessStartError)


def main() -> None:
    """Run until the worker asks the process to end, or is gone."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM):  # service managers signal every process; the worker decides
        signal.signal(number, _stay)
    in_forked_children(_restore_signals)
    faulthandler.enable()
    os.set_inheritable(descriptor, False)
    connection = ChildConnection(socket.socket(fileno=descriptor))
    setup = connection.receive()
    if setup is None:
        return
    sys.argv[1:] = []
    child = Child(connection, setup[1])
    threading.Thread(target=child.listen, name="worker", daemon=True).start()
    code = child.run()
    # Python's own exit would first wait for every thread that a skill left behind. The worker limits the time for this.
    atexit._run_exitfuncs()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - what Python calls
    exit_at_once(code)


class Child:
    """What runs in the process."""

    def __init__(self, connection: ChildConnection, setup: dict[str, Any]) -> None:
        self._connection = connection
        self._setup = setup
        self._remote = WorkerProxy(connection)
        self._runner = asyncio.Runner(loop_factory=functools.partial(contained_loop, asyncio.new_event_loop))
        self._loop = self._runner.get_loop()
        self._inbox: asyncio.Queue[Job | None] = asyncio.Queue()
        self._injectables = injectables()
        self._skills: dict[str, Skill] = {}
        self._models = ModelPools()
        self._newest: Job | None = None
        """Used by the listening thread only: the worker sends a task once the previous one has ended."""

    def run(self) -> int:
        """Prepare, run tasks until asked to end, close everything; return the exit code."""
        forward_logs(self._connection, self._setup["log_levels"], self._setup["worker_id"])
        bind_log_context(worker_id=self._setup["worker_id"])
        with self._runner as runner:
            try:
                resources = self._prepare()
                restore_logging()
                runner.run(resources.open())
                runner.run(self._models.open())
            except _STARTUP_ERRORS as error:
                self._complain(error)
                return 1
            self._connection.send("ready")
            # The loop keeps running between tasks, so that background tasks of resources make progress.
            while (job := runner.run(self._next_task())) is not None:
                if self._skills[job.skill].options.batch is None:
                    self._run_task(job, runner, resources)
                else:
                    self._run_batch(job, runner, resources)
            runner.run(side_by_side(self._models.close, resources.close))
        return 0

    # -------------------------------------------------------------------------------------------------- getting ready

    async def _next_task(self) -> Job | None:
        return await self._inbox.get()

    def _prepare(self) -> Resources:
        """Import everything. Raises one of `_STARTUP_ERRORS` if the process cannot do its work."""
        setup = self._setup
        try:
            prepare_imports(setup["path"], setup["shadowed"], setup["main"])
            for name, directory in setup["packages"].items():
                import_package(name, directory)
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            _log.exception("the program cannot be imported", extra={"action": "skill_process_import_failed"})
            raise ProcessStartError(f"the program cannot be imported: {type(error).__name__}: {error}") from error
        registry, models = ResourceRegistry(self._injectables), ModelRegistry(self._injectables)
        for name, pickled in setup["resources"].items():
            definition = self._unpickled("resource", name, pickled)
            assert isinstance(definition, ResourceDefinition)  # noqa: S101
            registry.add(definition)
        for name, pickled in setup["models"].items():
            model = self._unpickled("model", name, pickled)
            assert isinstance(model, ModelDefinition)  # noqa: S101
            models.add(model)
        given = self._unpickled("resource", "given by the test", setup["given"])
        for kind in given:
            if kind not in models.kinds:
                self._injectables.register(kind, provider(kind))
        for name, pickled in setup["skills"].items():
            definition = self._unpickled("skill", name, pickled)
            assert isinstance(definition, SkillDefinition)  # noqa: S101
            self._skills[name] = definition.compile(self._injectables)
        self._check_environ(setup["environ"])
        self._models = ModelPools(models.loaders, given, make_runner=InPlace)
        return Resources(registry.needed_for(registry.kinds, given), self._injectables, given=given)

    def _check_environ(self, given: dict[str, str]) -> None:
        """Raise `ProcessStartError` if the program has changed which devices this process sees."""
        for name, value in given.items():
            if (now := os.environ.get(name)) != value:
                text = f"importing the program sets {name} to {now!r}, and this process was given {value!r}"
                raise ProcessStartError(f"{text}: set it before the worker starts, or leave it to gpus")

    def _unpickled(self, kind: str, name: str, pickled: bytes) -> Any:
        try:
            return pickle.loads(pickled)  # noqa: S301 - the worker's own
        except WorkerError:
            raise
        except (Exception, SystemExit) as error:  # importing the user's module may raise anything
            _log.exception("%s %s cannot be imported", kind, name, extra={"action": "skill_process_import_failed"})
            problem = f"cannot be imported in a skill process: {type(error).__name__}: {error}"
            raise (SkillDefinitionError if kind == "skill" else ResourceError)(name, problem) from error

    def _complain(self, error: WorkerError) -> None:
        match error:
            case SkillDefinitionError():
                self._connection.send("failed", "skill", error.skill, error.problem)
            case ResourceError():
                if error.__cause__ is not None:
                    _log.error(
                        "resource %s cannot be created",
                        error.resource,
                        exc_info=error.__cause__,
                        extra={"action": "resource_failed"},
                    )
                self._connection.send("failed", "resource", error.resource, error.problem)
            case _:
                self._connection.send("failed", "process", "", str(error))

    # -------------------------------------------------------------------------------------------------- tasks

    def _run_task(self, job: Job, runner: asyncio.Runner, resources: Resources) -> None:
        skill = self._skills[job.skill]
        ((number, controls),) = self._controls(job, skill, resources).items()
        task = controls.task
        with log_context(task_id=task.task_id, job_id=task.job_id):
            outcome, spent = self._outcome(job, skill, controls, runner)
            self._answer(number, outcome, spent=spent)

    def _controls(self, job: Job, skill: Skill, resources: Resources) -> dict[int, Controls]:
        worker_id, loop = self._setup["worker_id"], self._loop if skill.is_async else None
        return {
            number: self._remote.controls(
                number, each.facts, worker_id, resources.values, each.cancelling, each.preempting(loop)
            )
            for number, each in job.tasks.items()
        }

    def _answer(self, number: int, outcome: Outcome | None, *, spent: bool = False) -> None:
        if outcome is None:
            self._connection.send("cancelled", number)
        else:
            self._connection.write(encode_outcome(number, outcome, spent=spent))

    def _run_batch(self, job: Job, runner: asyncio.Runner, resources: Resources) -> None:
        """Run a batch: report an outcome for each of its tasks, or that the call failed."""
        skill = self._skills[job.skill]
        batch = self._controls(job, skill, resources)
        items: dict[int, Outcome | None] = dict.fromkeys(batch)
        spent, has_model = False, False
        lent = self._model_of(job, skill, list(batch.values()))
        with caught() as failed, ends_if_forked(), owned_by(job), lent:  # whatever a skill raises ends this batch only
            has_model = True
            items = self._items(job, skill, batch, runner)
        restore_logging()
        error = failed.error
        if isinstance(error, WrongItemsError) or (isinstance(error, Exception) and not has_model):
            failure, spent = _ended_by(error)
            items = dict.fromkeys(batch, failure)
        elif error is not None and not isinstance(error, asyncio.CancelledError | TaskCancelledError):
            failure, spent = _ended_by(error)
            short = wants_smaller_batches(error)
            self._connection.write(encode_failure(min(batch), failure, short=short, spent=spent))
            return
        elif error is not None:
            release_frames(error)
        for number, outcome in items.items():
            self._answer(number, outcome, spent=spent)

    def _items(
        self, job: Job, skill: Skill, batch: dict[int, Controls], runner: asyncio.Runner
    ) -> dict[int, Outcome | None]:
        """Call a skill for a batch, and return the outcome of each task."""
        bound = [skill.arguments(each, skill.convert(each.params)) for each in batch.values()]
        first = next(iter(batch.values()))
        value = self._called(job, skill, first, runner, skill.func(**skill.merged(bound)))
        found: dict[int, Outcome | None] = {}
        for number, item in zip(batch, items_of(skill.family, value, len(batch)), strict=True):
            with TaskBoundary() as boundary:
                found[number] = self._read(number, skill, item)
            if number not in found:
                found[number] = boundary.failure
        return found

    def _read(self, number: int, skill: Skill, value: object) -> Outcome:
        """Return the outcome for what a skill returned for a task. Raises `ContractViolationError`."""
        if isinstance(value, BaseException):
            return from_exception(value)
        if paths := list(map(str, paths_in(value))):
            self._remote.notify(number, "returned", paths)
        return from_value(value, skill.results, skill.write)

    def _outcome(
        self, job: Job, skill: Skill, controls: Controls, runner: asyncio.Runner
    ) -> tuple[Outcome | None, bool]:
        """Run a skill; return its outcome, None if it was cancelled, and whether the process must be replaced."""
        try:
            converted = skill.convert(controls.params)
            with ends_if_forked(), owned_by(controls), self._model_of(job, skill, [controls]):
                args, kwargs = skill.fill(controls, converted)
                controls.ctx.raise_if_cancelled()
                value = self._called(job, skill, controls, runner, skill.func(*args, **kwargs))
            return self._read(min(job.tasks), skill, value), False
        except (asyncio.CancelledError, TaskCancelledError) as error:
            release_frames(error)
            return None, False
        except BaseException as error:  # noqa: BLE001 - whatever a skill raises, even sys.exit(), ends only this task
            return _ended_by(error)
        finally:
            restore_logging()

    @contextlib.contextmanager
    def _model_of(self, job: Job, skill: Skill, tasks: Sequence[Controls]) -> Generator[None]:
        """Let tasks have their model, if they use one."""
        if skill.uses is None:
            yield
            return
        stack, name = contextlib.AsyncExitStack(), skill.uses.name_in(tasks[0].params)
        entering = job.run(stack.enter_async_context(self._models.lend(skill.uses, name, tasks)))
        run_to_end(self._loop, entering, contextvars.copy_context())
        try:
            yield
        finally:
            run_to_end(self._loop, stack.aclose(), contextvars.copy_context())

    @staticmethod
    def _called(job: Job, skill: Skill, controls: Controls, runner: asyncio.Runner, value: Any) -> Any:
        """Return a call's final result: ``value`` may be a coroutine, a generator, or a coroutine that returns one."""

        def run(work: Coroutine[Any, Any, Any]) -> Any:
            # The runner's own context dates from its start and belongs to no task.
            return run_to_end(runner.get_loop(), job.run(work), contextvars.copy_context())

        if inspect.iscoroutine(value):
            value = run(value)
        if skill.stream is None:
            return value
        stream = StreamRun(skill.stream, controls)
        if is_async_iterator(value):
            return run(stream.drive(value))
        return stream.drive_in_thread(value) if is_iterator(value) else value

    # -------------------------------------------------------------------------------------------------- the worker

    def listen(self) -> None:
        """Receive messages from the worker, in a thread of its own. The process ends when the worker does.

        It also ends if this thread fails: nothing else would receive the next task, or a cancellation.
        """
        with caught() as kept:
            while (message := self._connection.receive()) is not None:
                self._take(message)
        if kept.error is not None:
            _log.critical(
                "a skill process cannot process a message from the worker and ends; this is a bug in the worker: %r",
                kept.error,
                exc_info=kept.error,
                extra={"action": "skill_process_fault"},
            )
        os.killpg(0, signal.SIGKILL)  # including everything that skills have started

    def _take(self, message: Message) -> None:
        verb, *arguments = message
        if verb == "task":
            self._newest = Job(arguments[0], arguments[1])
            self._put(self._newest)
        elif verb == "cancel":
            if self._newest is not None and arguments[0] in self._newest.tasks:
                self._newest.cancel(arguments[0], CancelReason(arguments[1]))
        elif verb == "preempt":
            if self._newest is not None and arguments[0] in self._newest.tasks:
                self._newest.tasks[arguments[0]].preempt()
        elif verb == "answer":
            self._remote.answered(arguments[0], arguments[2], good=arguments[1])
        else:
            self._put(None)

    def _put(self, job: Job | None) -> None:
        self._loop.call_soon_threadsafe(self._inbox.put_nowait, job)


def _ended_by(error: BaseException) -> tuple[Failed, bool]:
    """Return the failure for an exception, and whether the process must be replaced."""
    broken = breaks_device(error)
    if broken:
        _log.error(
            "the device is unusable after an error in a skill; replacing this process",
            extra={"action": "device_broken"},
        )
    return from_exception(error), broken or isinstance(error, MemoryError)


def _restore_signals() -> None:
    """In a child that a skill forked, restore the default handling of signals."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is _stay:
            signal.signal(number, usual)


def _stay(_number: int, _frame: FrameType | None) -> None:
    """Do nothing. Unlike an ignored signal, a handler is reset to the default in programs that skills start."""


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the worker ends, even while a skill holds the GIL."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
