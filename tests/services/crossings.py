"""Notes which attributes of the worker's objects more than one thread touches, and how, while a worker runs.

Every class of the worker that is not frozen is instrumented. Threads are known by their names, as in the table of
docs/explanation/threads.md. Variables of modules and closures are not seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import functools
import importlib
import inspect
import logging
import pkgutil
import queue
import re
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Executor, Future
from pathlib import PurePath
from types import MappingProxyType, ModuleType
from typing import Any

import avtomatika_worker

AREAS = (
    *("link", "delivery", "tasks", "monitoring", "transport", "policy", "execution", "files", "checkpoints"),
    *("skills", "supervisor", "link_thread", "threadsafe", "protocol", "steps", "worker", "compat", "observability"),
)
"""What runs in a worker. The embedded orchestrator and the test harness do not."""

LOCKS = ("_lock", "_guard", "_ending")
"""Names of attributes that are the lock of the object that has them."""

ROLES = (
    {"MainThread": "main", "files-egress": "egress", "asyncio": "skill", "command": "skill"}
    | {
        name: name
        for name in (
            "link",
            "store",
            "closing",
            "telemetry",
            "files",
            "health",
            "usage",
            "reading",
            "skill",
            "resource",
        )
    }
    | {name: name for name in ("spawner", "reap")}
)
"""What threads are there for, by the beginnings of their names."""

CONTAINERS = (dict, list, set, deque, bytearray)

_TYPES = (str, bytes, int, float, complex, bool, type(None), tuple, frozenset, range, enum.Enum, re.Pattern, PurePath)
_OBJECTS = (threading.Event, threading.Thread, Future, Executor, queue.SimpleQueue, logging.Logger, type, ModuleType)
_LOCK_TYPES = (type(threading.Lock()), type(threading.RLock()))
_CALLABLES = (functools.partial, asyncio.AbstractEventLoop, MappingProxyType, logging.LoggerAdapter)
HARMLESS = (*_TYPES, *_OBJECTS, *_LOCK_TYPES, *_CALLABLES)
"""Types whose objects may be shared as they are: nothing changes them, or any thread may."""


class Access:
    """What was seen of one attribute of one object."""

    def __init__(self, owner: Any, name: str) -> None:
        self.owner = owner
        self.name = name
        self.readers: set[str] = set()
        self.writers: set[str] = set()
        self.unlocked_readers: set[str] = set()
        self.unlocked_writers: set[str] = set()
        self.overtaken: set[tuple[str, str]] = set()
        """Who has written it after whom else had touched it."""
        self.values: dict[int, tuple[Any, Any]] = {}
        """What it held, by id, and what was in that when a second thread first saw it; None for no container."""
        self.changed_in_place = False

    @property
    def threads(self) -> set[str]:
        """The roles of all threads that touched it."""
        return self.readers | self.writers

    @property
    def is_of_interest(self) -> bool:
        """Whether several threads have touched it, and somebody may have changed it."""
        return len(self.threads) > 1 and (
            bool(self.writers) or not all(_is_harmless(held) for held, _ in self.values.values())
        )

    def hold(self, value: Any, me: str) -> None:
        """Record a value, and whether a container that several threads see has been changed in its place."""
        if isinstance(value, HARMLESS):
            return
        shared = bool(self.threads - {me})
        known = self.values.get(id(value))
        if known is None or (shared and len(self.threads) == 1):
            self.values[id(value)] = value, _content(value)
        elif shared and _content(value) != known[1]:
            self.changed_in_place = True


class Recording:
    """All accesses between the two ends of `recorded`. Its own steps are single ones of the interpreter's."""

    def __init__(self) -> None:
        self.accesses: dict[tuple[int, str], Access] = {}
        self._making = threading.local()

    def crossings(self) -> list[Access]:
        """Return the accesses that are of interest."""
        return [each for each in list(self.accesses.values()) if each.is_of_interest]

    @contextlib.contextmanager
    def making(self, owner: Any) -> Generator[None]:
        """Count no writes to ``owner``: nobody else knows it yet."""
        made = self._making.__dict__.setdefault("made", [])
        made.append(id(owner))
        try:
            yield
        finally:
            made.pop()

    def read(self, owner: Any, name: str, value: Any, *, locked: bool) -> None:
        """Take note that the current thread has read an attribute."""
        access, me = self._of(owner, name), role()
        access.hold(value, me)
        access.readers.add(me)
        if not locked:
            access.unlocked_readers.add(me)

    def written(self, owner: Any, name: str, value: Any, *, locked: bool) -> None:
        """Take note that the current thread has written an attribute."""
        access, me = self._of(owner, name), role()
        access.hold(value, me)
        if id(owner) in self._making.__dict__.get("made", ()):
            return
        access.overtaken.update((me, other) for other in access.threads.copy() if other != me)
        access.writers.add(me)
        if not locked:
            access.unlocked_writers.add(me)

    def _of(self, owner: Any, name: str) -> Access:
        key = id(owner), name  # the access keeps the object, and so its id
        found = self.accesses.get(key)
        return found if found is not None else self.accesses.setdefault(key, Access(owner, name))


def role() -> str:
    """Return what the current thread is there for."""
    name = threading.current_thread().name
    return next((found for prefix, found in ROLES.items() if name.startswith(prefix)), name)


@contextlib.contextmanager
def recorded(*more: type[Any]) -> Generator[Recording]:
    """Instrument every class of the worker, and ``more``, until the block ends."""
    recording = Recording()
    with contextlib.ExitStack() as undo:
        for each in (*classes().values(), *more):
            undo.callback(_instrument(each, recording))
        yield recording


def classes() -> dict[str, type[Any]]:
    """Return the classes of the worker whose objects can change, by name."""
    names = [module.name for module in pkgutil.walk_packages(avtomatika_worker.__path__, "avtomatika_worker.")]
    modules = [name for name in names if name.split(".")[1] in AREAS and not name.endswith("_program")]
    found = [(name, each) for name in modules for each in vars(importlib.import_module(name)).values()]
    return {
        each.__name__: each
        for name, each in found
        if inspect.isclass(each) and each.__module__ == name and _can_change(each)
    }


def _can_change(kind: type[Any]) -> bool:
    if dataclasses.is_dataclass(kind):
        return not kind.__dataclass_params__.frozen
    # A logger has locks of its own, and other tests have made ours what all of this process are.
    is_other = issubclass(kind, (tuple, enum.Enum, BaseException, logging.Logger))
    is_other = is_other or hasattr(kind, "__struct_fields__")
    return not is_other and not getattr(kind, "_is_protocol", False)


def _is_harmless(value: Any) -> bool:
    kind = type(value)
    if kind.__module__.startswith("avtomatika_worker"):  # instrumented, or frozen
        return _can_change(kind) or not hasattr(kind, "__struct_config__") or kind.__struct_config__.frozen
    return callable(value)


def _content(value: Any) -> Any:
    """Return what is in a container; None where that is none."""
    if not isinstance(value, CONTAINERS):
        return None
    try:
        return [(id(key), id(each)) for key, each in value.items()] if isinstance(value, dict) else [*map(id, value)]
    except RuntimeError:  # it changes at this moment
        return "changing"


def _is_locked(owner: Any, read: Callable[[Any, str], Any]) -> bool:
    for name in LOCKS:
        with contextlib.suppress(AttributeError):
            lock = read(owner, name)
            if lock._is_owned() if hasattr(lock, "_is_owned") else lock.locked():  # noqa: SLF001
                return True
    return False


def _instrument(kind: type[Any], recording: Recording) -> Callable[[], None]:
    names = ("__init__", "__getattribute__", "__setattr__")
    own = {name: vars(kind)[name] for name in names if name in vars(kind)}
    init, read, write = kind.__init__, kind.__getattribute__, kind.__setattr__

    def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
        with recording.making(self):
            init(self, *args, **kwargs)

    def get(self: Any, name: str) -> Any:
        value = read(self, name)
        if not name.startswith("__") and _is_data(type(self), name):
            recording.read(self, name, value, locked=_is_locked(self, read))
        return value

    def put(self: Any, name: str, value: Any) -> None:
        write(self, name, value)
        if _is_data(type(self), name):
            recording.written(self, name, value, locked=_is_locked(self, read))

    def undo() -> None:
        for name in names:
            delattr(kind, name)
        for name, value in own.items():
            setattr(kind, name, value)

    for name, function in zip(names, (initialize, get, put), strict=True):
        setattr(kind, name, function)
    return undo


@functools.cache
def _is_data(kind: type[Any], name: str) -> bool:
    found = next((vars(each)[name] for each in kind.__mro__ if name in vars(each)), None)
    return found is None or inspect.ismemberdescriptor(found) or isinstance(found, functools.cached_property)
