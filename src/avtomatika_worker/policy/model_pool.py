"""Decides which models a pool loads, keeps and unloads, and which task may use one when.

Whoever owns a `ModelPool` reports what has happened, and does what `next_actions` returns. Time is an argument.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

MOST_PASSES: Final = 8
"""Tasks that may use loaded models before an earlier task that waits for room for its own."""

_MOST_SIZES: Final = 1000
"""Names whose sizes are remembered: names come with tasks, so there may be any number of them."""


class Phase(enum.StrEnum):
    """Where a model is between its loading and its unloading. One that is not here has none."""

    LOADING = "loading"
    LOADED = "loaded"
    UNLOADING = "unloading"


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What a pool may hold: models, bytes; ``keep_alive`` is how long one stays without being used, in seconds."""

    max_loaded: int | None = None
    memory: int | None = None
    keep_alive: float | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """Load a model, then report `ModelPool.loaded` or `ModelPool.failed`."""

    name: str


@dataclass(frozen=True, slots=True)
class Unload:
    """Unload a model, then report `ModelPool.unloaded`."""

    name: str


@dataclass(frozen=True, slots=True)
class Grant:
    """Let the task with this ticket use its model until `ModelPool.give_back`."""

    ticket: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model that takes up room, for people and metrics. ``loader``: its function's name; ``size``: in bytes."""

    loader: str
    name: str
    phase: Phase
    users: int
    size: int


Action = Load | Unload | Grant


@dataclass(slots=True)
class Entry:
    """A model that takes up room. ``size`` is in bytes; ``last_used`` is when its last task ended."""

    name: str
    phase: Phase
    size: int
    last_used: float = 0.0
    users: set[int] = field(default_factory=set[int])

    @property
    def idle(self) -> bool:
        """Whether it is loaded, and no task uses it."""
        return self.phase is Phase.LOADED and not self.users


@dataclass(slots=True)
class _Room:
    """Models and bytes that are free: now, and once what is being unloaded is gone. None is no limit."""

    now: list[int | None]
    soon: list[int | None]

    def take(self, needs: tuple[int, int], *, alone_now: bool, alone_soon: bool) -> bool | None:
        """Reserve room. True: it is free now; False: it will be; None: it will not, and nothing is reserved.

        What is alone always fits.
        """
        fits_now, fits_soon = alone_now or _fits(self.now, needs), alone_soon or _fits(self.soon, needs)
        if not fits_soon:
            return None
        self.soon = [None if free is None else free - need for free, need in zip(self.soon, needs, strict=True)]
        self.now = [
            None if free is None or soon is None else min(free - need if fits_now else free, soon)
            for free, soon, need in zip(self.now, self.soon, needs, strict=True)
        ]
        return fits_now


def _fits(free: list[int | None], needs: tuple[int, int]) -> bool:
    return all(room is None or room >= need for room, need in zip(free, needs, strict=True))


class ModelPool:
    """The models of one loader, and the tasks that use them or wait for one.

    A model in use is never unloaded. Those least recently used go first, when there is no room for another; a task for
    which no room can be made waits, and at most `MOST_PASSES` that came later go before it.
    """

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._entries: dict[str, Entry] = {}
        self._waiting: dict[int, str] = {}
        self._using: dict[int, str] = {}
        self._sizes: dict[str, int] = {}
        self._first: int | None = None
        """The oldest ticket that waits for a model which is not here, ..."""
        self._passes = 0
        """... and how many later ones were granted meanwhile."""

    # ------------------------------------------------------------------------------------------ what happens

    def ask(self, ticket: int, name: str) -> None:
        """Note that a task wants a model. Tickets grow."""
        self._waiting[ticket] = name

    def give_back(self, ticket: int, now: float) -> None:
        """Note that a task has ended, or waits no longer."""
        self._waiting.pop(ticket, None)
        name = self._using.pop(ticket, None)
        if name is not None:
            entry = self._entries[name]
            entry.users.discard(ticket)
            entry.last_used = now

    def loaded(self, name: str, size: int, now: float) -> None:
        """Note that a model is loaded; ``size``: the bytes by which memory has grown.

        Of several measurements of a model the largest counts: memory that was freed before is used without growing.
        """
        entry = self._entries[name]
        entry.size = max(size, self._sizes.pop(name, 0))
        entry.phase, entry.last_used = Phase.LOADED, now
        self._sizes[name] = entry.size
        if len(self._sizes) > _MOST_SIZES:
            del self._sizes[next(iter(self._sizes))]

    def failed(self, name: str) -> tuple[int, ...]:
        """Note that a model cannot be loaded; return the tickets that waited for it, and wait no longer."""
        del self._entries[name]
        tickets = tuple(ticket for ticket, wanted in self._waiting.items() if wanted == name)
        for ticket in tickets:
            del self._waiting[ticket]
        return tickets

    def unloaded(self, name: str) -> None:
        """Note that a model is gone."""
        del self._entries[name]

    # ------------------------------------------------------------------------------------------ what to do

    def next_actions(self, now: float) -> list[Action]:
        """Return what to do now. Called after everything that has happened, and at `expires_at`."""
        actions: list[Action] = [*self._grants(), *self._loads(), *self._overdue(now)]
        return actions

    def unload_all(self) -> list[Unload]:
        """Return the models to unload when the pool is closed: those that no task uses."""
        return [self._unload(entry) for entry in list(self._entries.values()) if entry.idle]

    def expires_at(self) -> float | None:
        """Return when the next idle model is to be unloaded, or None."""
        idle = [each.last_used for each in self._entries.values() if each.idle]
        return min(idle) + self._limits.keep_alive if idle and self._limits.keep_alive is not None else None

    def phase(self, name: str) -> Phase | None:
        """Return where a model is."""
        entry = self._entries.get(name)
        return None if entry is None else entry.phase

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The models that take up room."""
        return tuple(self._entries.values())

    # ------------------------------------------------------------------------------------------ inside

    def _grants(self) -> Iterator[Grant]:
        first = next((ticket for ticket, name in self._waiting.items() if name not in self._entries), None)
        if first != self._first:
            self._first, self._passes = first, 0
        for ticket, name in list(self._waiting.items()):
            entry = self._entries.get(name)
            if entry is None or entry.phase is not Phase.LOADED:
                continue
            if first is not None and ticket > first:
                if self._passes >= MOST_PASSES:
                    return
                self._passes += 1
            del self._waiting[ticket]
            self._using[ticket] = name
            entry.users.add(ticket)
            yield Grant(ticket)

    def _loads(self) -> Iterator[Action]:
        """Make room for the models that tasks wait for, the oldest task first, and load those that have it."""
        room, seen = self._room(), set[str]()
        for name in list(self._waiting.values()):
            if name in self._entries or name in seen:  # it is here, on its way, or on its way out
                continue
            seen.add(name)
            needs = (1, self._sizes.get(name, 0))
            while (fits := self._take(room, needs)) is None and (oldest := self._least_recent()) is not None:
                yield self._unload(oldest)
                self._add(room.soon, oldest, +1)
            if fits is None:
                return
            if fits:
                self._entries[name] = Entry(name, Phase.LOADING, needs[1])
                yield Load(name)

    def _take(self, room: _Room, needs: tuple[int, int]) -> bool | None:
        stays = any(each.phase is not Phase.UNLOADING for each in self._entries.values())
        return room.take(needs, alone_now=not self._entries, alone_soon=not stays)

    def _overdue(self, now: float) -> Iterator[Action]:
        """Unload what has not been used for long, and what is over the memory now that it is measured."""
        keep_alive, memory = self._limits.keep_alive, self._limits.memory
        for entry in list(self._entries.values()):
            if keep_alive is not None and entry.idle and now >= entry.last_used + keep_alive:
                yield self._unload(entry)
        while memory is not None and (oldest := self._least_recent()) is not None:
            staying = [each for each in self._entries.values() if each.phase is not Phase.UNLOADING]
            if len(staying) < 2 or sum(each.size for each in staying) <= memory:
                return
            yield self._unload(oldest)

    def _room(self) -> _Room:
        limits = self._limits
        total: list[int | None] = [limits.max_loaded, limits.memory]
        room = _Room(list(total), list(total))
        for entry in self._entries.values():
            self._add(room.now, entry, -1)
            if entry.phase is not Phase.UNLOADING:
                self._add(room.soon, entry, -1)
        return room

    @staticmethod
    def _add(free: list[int | None], entry: Entry, sign: int) -> None:
        for place, amount in enumerate((1, entry.size)):
            before = free[place]
            if before is not None:
                free[place] = before + sign * amount

    def _least_recent(self) -> Entry | None:
        return min(
            (each for each in self._entries.values() if each.idle), key=lambda each: each.last_used, default=None
        )

    @staticmethod
    def _unload(entry: Entry) -> Unload:
        entry.phase = Phase.UNLOADING
        return Unload(entry.name)
