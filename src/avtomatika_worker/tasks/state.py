"""Publishes the worker's state: status, tasks, skills that can start. Runs on the main loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from avtomatika_worker import threadsafe
from avtomatika_worker.execution.outcome import bounded_text
from avtomatika_worker.policy.heartbeat import WorkerState
from avtomatika_worker.policy.model_pool import ModelFacts, Phase
from avtomatika_worker.policy.slots import Slots
from avtomatika_worker.protocol.messages import WorkerStatus
from avtomatika_worker.tasks.limits import ConcurrencyLimiter
from avtomatika_worker.world import REAL, World

PUBLISH_AFTER: Final = 0.03
"""Seconds for which changes are combined. Together with the heartbeat's own delay, they are reported within 0.1 s."""

WITHDRAW_AFTER: Final = 1.0
"""Seconds for which a skill must lack room before that is reported. New room is reported immediately.

Every change costs a heartbeat, and those are limited; the list of skills in polls is always exact.
"""

ASK_AGAIN: Final = 1.0
"""Seconds between two calls of a capacity checker, whose answers can change at any time."""


class HotCache:
    """The names of what is loaded. Skills may change it from any thread; ``changed`` is called in that thread."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self.changed: Callable[[], None] = changed
        self._lock = threading.Lock()
        self._names: frozenset[str] = frozenset()
        self._models: tuple[ModelFacts, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The announced names: those given by skills, and the loaded models."""
        return self._names.union(each.name for each in self.loaded) if self._models else self._names

    @property
    def given(self) -> frozenset[str]:
        """The names given by skills."""
        return self._names

    @property
    def models(self) -> tuple[ModelFacts, ...]:
        """The models that take up memory in this process."""
        return self._models

    @property
    def loaded(self) -> Iterable[ModelFacts]:
        """The models that tasks could use at once and whose names can be announced."""
        return (each for each in self._models if each.phase is Phase.LOADED and bounded_text(each.name) == each.name)

    def show_models(self, models: tuple[ModelFacts, ...]) -> None:
        """Announce the loaded models."""
        if models != self._models:
            self._models = models
            self.changed()

    def add(self, name: str) -> None:
        """Announce ``name`` as hot."""
        with self._lock:
            self._names |= {name}
        self.changed()

    def remove(self, name: str) -> None:
        """Withdraw the announcement of ``name``."""
        with self._lock:
            self._names -= {name}
        self.changed()


@dataclass(frozen=True, slots=True)
class Catalogued:
    """The worker's skills, and what each depends on to be hot."""

    skills: tuple[str, ...]
    dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    models: Mapping[str, tuple[str, str | None]] = field(default_factory=dict[str, tuple[str, str | None]])
    """By skill: the loader whose models it uses in this process, and the model if it uses only one."""


class StatePublisher:
    """Publishes the worker's state shortly after it has changed."""

    def __init__(
        self,
        slots: Slots,
        catalogued: Catalogued,
        limiter: ConcurrencyLimiter,
        state_watch: threadsafe.Watch[WorkerState],
        hot: HotCache | None = None,
        world: World = REAL,
    ) -> None:
        self._monotonic = world.monotonic
        self.hot: HotCache = hot or HotCache()
        self.hot.changed = self._changed_anywhere
        self._slots = slots
        self._catalogued = catalogued
        self._limiter = limiter
        self._state_watch = state_watch
        self._lock = threading.Lock()
        self._draining = False
        self._full_since: dict[str, float] = {}
        self._jobs: Callable[[], Iterable[str]] = tuple
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_due = asyncio.Event()
        self._on_change: list[Callable[[], None]] = []

    async def run(self, jobs: Callable[[], Iterable[str]]) -> None:
        """Publish until cancelled. ``jobs`` returns the ids of the jobs with running tasks.

        Raises what a callback of `on_change` raises.
        """
        self._jobs = jobs
        self._loop = asyncio.get_running_loop()
        try:
            while True:
                self._publish()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ASK_AGAIN if self._limiter.asks else None):
                        await self._is_due.wait()
                await asyncio.sleep(PUBLISH_AFTER)
        finally:
            self._loop = None  # changes from here on are not published

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after every publication."""
        self._on_change.append(callback)

    def drain(self) -> None:
        """Publish the status "draining" from now on."""
        self.announce_draining()
        self._publish()

    def announce_draining(self) -> None:
        """Publish the status "draining" from now on. May be called from any thread, while the main loop is blocked."""
        with self._lock:
            self._draining = True
            self._state_watch.publish(_draining(self._state_watch.value))

    def changed(self) -> None:
        """Publish soon, together with other changes until then."""
        self._is_due.set()

    @property
    def skills(self) -> tuple[str, ...]:
        """All skills of the worker."""
        return self._catalogued.skills

    @property
    def startable_skills(self) -> tuple[str, ...]:
        """The skills for which another task could start now."""
        return self._limiter.available(self._catalogued.skills)

    @property
    def has_limits(self) -> bool:
        """Whether any of the skills has limits."""
        return self._limiter.has_limits

    def startable_beyond(self, asked: Sequence[Collection[str]], skills: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of ``skills`` for which another task could start on top of those that polls have asked for.

        ``asked`` has the skills of each poll.
        """
        return self._limiter.beyond(asked, skills)

    @property
    def published(self) -> WorkerState:
        """The last published state. May be read from any thread."""
        return self._state_watch.value

    @property
    def hot_skills(self) -> tuple[str, ...]:
        """The skills that are in the hot cache, whose dependencies all are, or whose model is loaded.

        A skill that uses various models is hot while any is loaded: orchestrators know skills, not their params.
        """
        given, hot = self.hot.given, self.hot.names
        if not hot:  # a shortcut for most workers, as this is evaluated for every poll
            return ()
        loaded = {(each.loader, name) for each in self.hot.loaded for name in (each.name, None)}
        needs, models = self._catalogued.dependencies, self._catalogued.models
        return tuple(
            name
            for name in self._catalogued.skills
            if name in given
            or (hot.issuperset(needs[name]) if needs.get(name) else name in models and models[name] in loaded)
        )

    def state(self) -> WorkerState:
        """Return the state to publish now."""
        return WorkerState(
            # Never "busy": 1.0b21 and 1.0b30 quarantine at once what is submitted while no worker is idle (observed),
            # and queue for an idle one however many tasks it runs. It asks for no more than it has slots for.
            status=WorkerStatus.DRAINING if self._draining else WorkerStatus.IDLE,
            running_jobs=tuple(sorted(set(self._jobs()))),  # job ids, not task ids: RXON.md, Behaviour 3
            # None while draining: a break makes the worker register again, and from its registration to its next
            # heartbeat an orchestrator takes it for idle.
            available_skills=() if self._draining else self._announced_skills(),
            hot_skills=self.hot_skills,
            hot_cache=tuple(sorted(self.hot.names)),
            slots_total=self._slots.total,
            slots_usable=self._slots.usable,
            slots_running=self._slots.running,
            slots_polling=self._slots.polling,
            models=self.hot.models,
        )

    def _announced_skills(self) -> tuple[str, ...]:
        """Return the skills to announce: those with room, and those that have lacked it only briefly."""
        startable = self.startable_skills
        if len(startable) == len(self._catalogued.skills):
            self._full_since.clear()
            return startable
        now = self._monotonic()
        full = set(self._catalogued.skills).difference(startable)
        self._full_since = {skill: self._full_since.get(skill, now) for skill in full}
        withdrawn = {skill for skill, since in self._full_since.items() if now - since >= WITHDRAW_AFTER}
        if self._loop is not None and withdrawn != full:
            self._loop.call_later(WITHDRAW_AFTER, self.changed)
        return tuple(skill for skill in self._catalogued.skills if skill not in withdrawn)

    def _changed_anywhere(self) -> None:
        if (loop := self._loop) is not None:  # read once: another thread may reset it
            threadsafe.CallQueue(loop).put(self.changed)

    def _publish(self) -> None:
        self._is_due.clear()
        state = self.state()  # outside the lock: it calls the user's checker, and `announce_draining` must not wait
        with self._lock:  # otherwise an older state could follow that of `announce_draining`
            self._state_watch.publish(_draining(state) if self._draining else state)
        for callback in self._on_change:
            callback()


def _draining(state: WorkerState) -> WorkerState:
    return msgspec.structs.replace(state, status=WorkerStatus.DRAINING, available_skills=())
