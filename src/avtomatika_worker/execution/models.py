"""Loads the models of a process for tasks that need them, lends them out, and unloads them.

`policy.model_pool` decides; this module acts, on the event loop. Plain loaders run in a thread per model.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import itertools
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, Final

from avtomatika_worker._boundaries import caught
from avtomatika_worker._waiting import in_thread, is_being_cancelled, side_by_side
from avtomatika_worker.errors import ModelLoadError, ResourceError, TaskError
from avtomatika_worker.execution.children import Children
from avtomatika_worker.execution.controls import Controls
from avtomatika_worker.execution.making import Made, OneThread, contained, end_within, make
from avtomatika_worker.execution.outcome import message_of
from avtomatika_worker.observability.logging import restore_logging
from avtomatika_worker.observability.memory import MemoryLedger, MemoryMeter, MemoryReading
from avtomatika_worker.policy.model_pool import Grant, Load, ModelFacts, ModelPool, Phase, Unload
from avtomatika_worker.skills.model import ModelLoader, ModelUse
from avtomatika_worker.world import REAL, World

_log: Final = logging.getLogger("avtomatika_worker.models")

_NOTHING: Final[Mapping[Any, object]] = MappingProxyType({})

_CANCEL_TIMEOUT: Final = 0.1
"""Seconds that an abandoned load gets to end after its cancellation."""

UNLOAD_TIMEOUT: Final = 30.0
"""Seconds that a model gets to unload, as others may be waiting for its memory; then it is abandoned."""

CLOSE_TIMEOUT: Final = 4.0
"""Seconds that all models of a process together get to unload when it ends."""


class InPlace:
    """Runs plain functions in the loop's thread, as a skill process does."""

    async def __call__(self, func: Callable[[], Any]) -> Any:
        """Run ``func`` at once and return its result."""
        return func()

    def close(self) -> None:
        """Do nothing."""


def in_own_thread() -> OneThread:
    """Return a thread for one model."""
    return OneThread("model")


class _Pool:
    """The models of one loader."""

    def __init__(self, loader: ModelLoader, owner: ModelPools) -> None:
        self.loader = loader
        self._owner = owner
        self._policy = ModelPool(loader.options.limits)
        self._tickets = itertools.count()
        self._places: dict[int, asyncio.Future[None]] = {}
        self._loaded: dict[str, tuple[Made, OneThread | InPlace]] = {}
        self._loads = set[asyncio.Task[None]]()
        self._timer: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def lease(self, name: str) -> AsyncGenerator[Any]:
        """Hold a model, loading it if necessary. Raises `ModelLoadError`, or the `TaskError` that its loader raised."""
        ticket, place = next(self._tickets), asyncio.get_running_loop().create_future()
        self._places[ticket] = place
        self._policy.ask(ticket, name)
        self.act()
        try:
            await place
            yield self._loaded[name][0].value
        finally:
            if self._places.pop(ticket, None) is not None and self._policy.phase(name) is Phase.LOADING:
                text = "a task stopped waiting for model %r, which is still being loaded"
                _log.warning(text, name, extra={"action": "model_wait_ended", **self._named(name)})
            if place.done() and not place.cancelled():
                place.exception()  # retrieve it, even if the task was cancelled before it could
            self._policy.give_back(ticket, self._owner.now())
            self.act()

    def act(self) -> None:
        """Carry out whatever the policy wants now."""
        if self._owner.closed:
            return
        while actions := self._policy.next_actions(self._owner.now()):
            for action in actions:
                match action:
                    case Grant(ticket):
                        self._settle(ticket)
                    case Load(name):
                        task = self._owner.start(self._load(name), f"load model {name!r:.100}")
                        self._loads.add(task)
                        task.add_done_callback(self._loads.discard)
                    case Unload(name):
                        self.unload(name)
        self._set_timer()
        self._owner.changed()

    def _settle(self, ticket: int, error: Exception | None = None) -> None:
        place = self._places.pop(ticket, None)
        if place is None or place.done():  # its task was just cancelled
            return
        if error is None:
            place.set_result(None)
        else:
            place.set_exception(error)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        at = self._policy.expires_at()
        left = None if at is None else max(0.0, at - self._owner.now())
        self._timer = None if left is None else asyncio.get_running_loop().call_later(left, self.act)

    def is_loaded(self, name: str) -> bool:
        """Whether a task could use a model without waiting."""
        return self._policy.phase(name) is Phase.LOADED

    def facts(self) -> Iterable[ModelFacts]:
        """Yield the facts of each model that takes up memory."""
        for each in self._policy.entries:
            yield ModelFacts(self.loader.name, each.name, each.phase, len(each.users), each.size)

    def close(self) -> None:
        """Start unloading the models that no task uses, and abandon those that are being loaded."""
        for task in self._loads:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
        for action in self._policy.unload_all():
            self.unload(action.name)
        for each in self._policy.entries:
            if each.users:
                text = "model %r is not unloaded: a task that has not ended is using it"
                _log.warning(text, each.name, extra={"action": "model_left", **self._named(each.name)})

    # ------------------------------------------------------------------------------------------ loading

    async def _load(self, name: str) -> None:
        owner, run, began = self._owner, self._owner.make_runner(), self._owner.now()
        mark = owner.ledger.begin(owner.read_memory())
        with caught() as failed:
            made = await make(self.loader.name, self.loader.func, (name,), {}, run, owner.children)
            self._loaded[name] = made, run
        size = max(0, owner.ledger.end(mark, owner.read_memory()))
        restore_logging()
        if failed.error is None:
            self._policy.loaded(name, size, owner.now())
            extra = {"action": "model_loaded", **self._figures(name, began, size)}
            _log.info("model %r loaded in %.3f s, %d bytes", name, extra["seconds"], size, extra=extra)
        else:
            run.close()
            if is_being_cancelled():  # the pool is being closed
                self._policy.failed(name)
                raise failed.error
            self._failed(name, failed.error)
        self.act()

    def _failed(self, name: str, error: BaseException) -> None:
        """Fail the tasks that are waiting for a model; the next task that needs it tries again."""
        reason = (error.__cause__ or error) if isinstance(error, ResourceError) else error
        for ticket in self._policy.failed(name):
            self._settle(ticket, reason if isinstance(reason, TaskError) else self._explained(name, reason))
        text = "model %r cannot be loaded by %s: %s: %s"
        args = name, self.loader.name, type(reason).__name__, message_of(reason)
        _log.error(text, *args, exc_info=reason, extra={"action": "model_load_failed", **self._named(name)})

    def _explained(self, name: str, reason: BaseException) -> ModelLoadError:
        problem = (
            reason.problem if isinstance(reason, ResourceError) else f"{type(reason).__name__}: {message_of(reason)}"
        )
        error = ModelLoadError(self.loader.name, name, problem)
        error.__cause__ = reason
        return error

    # ------------------------------------------------------------------------------------------ unloading

    def unload(self, name: str) -> None:
        """Start unloading a model."""
        self._owner.start(self._unload(name), f"unload model {name!r:.100}")

    async def _unload(self, name: str) -> None:
        owner, began = self._owner, self._owner.now()
        made, run = self._loaded.pop(name)
        mark = owner.ledger.begin(owner.read_memory())
        end = made.end
        if end is None and self.loader.options.unload is not None:
            end = partial(self._begin_hook, self.loader.options.unload, made.value, run)
        del made
        if end is not None:
            seconds = CLOSE_TIMEOUT - _CANCEL_TIMEOUT if owner.closed else UNLOAD_TIMEOUT
            await end_within(seconds, end, partial(self._complain, name))
        del end
        run.close()
        if not owner.closed:
            gc.collect()  # models are full of cycles; it holds the GIL, so running it in a thread would not help
        self._policy.unloaded(name)
        size = max(0, -owner.ledger.end(mark, owner.read_memory()))
        extra = {"action": "model_unloaded", **self._figures(name, began, size)}
        _log.info("model %r unloaded in %.3f s, %d bytes", name, extra["seconds"], size, extra=extra)
        self.act()

    def _begin_hook(self, hook: Callable[[Any], Any], value: Any, run: OneThread | InPlace) -> asyncio.Task[bool]:
        return self._owner.children.start(_call_hook(hook, value, run), name=f"unload by {self.loader.name}")

    # ------------------------------------------------------------------------------------------ the log

    def _named(self, name: str) -> dict[str, str]:
        return {"model": name, "loader": self.loader.name}

    def _figures(self, name: str, began: float, size: int) -> dict[str, object]:
        return {**self._named(name), "seconds": round(self._owner.now() - began, 3), "bytes": size}

    def _complain(self, name: str, problem: str, error: BaseException | None) -> None:
        extra = {"action": "model_unload_failed", **self._named(name)}
        _log.error("model %r %s", name, problem, exc_info=error, extra=extra)


async def _call_hook(hook: Callable[[Any], Any], value: Any, run: OneThread | InPlace) -> bool:
    try:
        returned = await run(partial(hook, value))
        if inspect.isawaitable(returned):  # created in the thread, awaited on the loop
            await returned
    except (SystemExit, KeyboardInterrupt) as error:  # leaving the task, it would end the event loop
        raise contained(error) from error
    return True


class ModelPools:
    """The models of one process, by type. ``given`` are used instead of loading any model of their types."""

    def __init__(
        self,
        loaders: Iterable[ModelLoader] = (),
        given: Mapping[Any, object] = _NOTHING,
        *,
        make_runner: Callable[[], OneThread | InPlace] = in_own_thread,
        read_memory: Callable[[], MemoryReading] | None = None,
        world: World = REAL,
    ) -> None:
        self.now: Callable[[], float] = world.monotonic
        self.make_runner: Callable[[], OneThread | InPlace] = make_runner
        self.read_memory: Callable[[], MemoryReading] = read_memory or MemoryMeter()
        self.ledger: MemoryLedger = MemoryLedger()
        self.children: Children = Children()
        self.closed: bool = False
        self.count: Callable[[str, str], None] = lambda _loader, _outcome: None
        self.publish: Callable[[tuple[ModelFacts, ...]], None] = lambda _facts: None
        self._given = given
        self._pools = {each.kind: _Pool(each, self) for each in loaders if each.kind not in given}
        self._context = contextvars.Context()

    @asynccontextmanager
    async def lend(self, use: ModelUse, name: str, tasks: Sequence[Controls]) -> AsyncGenerator[None]:
        """Let tasks have the model that they name, loaded if need be. It is held once for all of them.

        Raises `ModelLoadError`, or the `TaskError` of its loader.
        """
        kind = use.loader.kind
        if kind in self._given:
            for each in tasks:
                each.models[kind] = self._given[kind]
            yield
            return
        pool = self._pools[kind]
        state = "warm" if pool.is_loaded(name) else "cold"
        for _ in tasks:
            self.count(pool.loader.name, state)
        async with pool.lease(name) as model:
            for each in tasks:
                each.models[kind] = model
            del model
            try:
                yield
            finally:
                for each in tasks:
                    each.models.clear()

    async def open(self) -> None:
        """Load the models to warm up, concurrently. Raises `ResourceError`."""
        self._context = contextvars.copy_context()  # not a task's, whose ids would appear in the log
        if self._pools:
            await in_thread(self.read_memory)  # the first call looks for GPUs
        try:
            await side_by_side(
                *(partial(_warm, pool, name) for pool in self._pools.values() for name in pool.loader.options.warm_up)
            )
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Unload every model that no task uses, and abandon loads in progress, within `CLOSE_TIMEOUT` seconds."""
        for pool in self._pools.values():
            pool.close()
        self.closed = True
        if not await self.children.wait(CLOSE_TIMEOUT):
            text = "models were not unloaded within %g s and are abandoned"
            _log.error(text, CLOSE_TIMEOUT, extra={"action": "models_left"})
            await self.children.cancel(_CANCEL_TIMEOUT)

    def start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start loading or unloading a model."""
        return self.children.start_alone(work, name=name, context=self._context.copy())

    def changed(self) -> None:
        """Publish what is loaded."""
        self.publish(self.facts)

    @property
    def facts(self) -> tuple[ModelFacts, ...]:
        """The models that take up memory."""
        return tuple(each for pool in self._pools.values() for each in pool.facts())


async def _warm(pool: _Pool, name: str) -> None:
    try:
        async with pool.lease(name):
            pass
    except (ModelLoadError, TaskError) as error:
        raise ResourceError(pool.loader.name, f"cannot warm up {name!r}: {error}") from error
