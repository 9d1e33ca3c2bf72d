"""Remembers keys for a short time, up to a limit; each step takes constant time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable


class Recent:
    """Keys remembered for ``seconds`` each, at most the newest ``most`` of them."""

    __slots__ = ("_most", "_seconds", "_until")

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds = seconds
        self._most = most
        self._until: OrderedDict[Hashable, float] = OrderedDict()  # the oldest first

    def __len__(self) -> int:
        return len(self._until)

    def remember(self, keys: Iterable[Hashable], now: float) -> None:
        """Remember ``keys`` from ``now`` on, in monotonic seconds."""
        for key in keys:
            self._until[key] = now + self._seconds
            self._until.move_to_end(key)
            if len(self._until) > self._most:
                self._until.popitem(last=False)
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)

    def knows(self, key: Hashable, now: float) -> bool:
        """Return whether ``key`` is still remembered."""
        return self._until.get(key, now) > now

    def take(self, keys: Iterable[Hashable], now: float) -> bool:
        """Forget ``keys``; return whether any of them was still remembered."""
        until = [self._until.pop(key, 0.0) for key in keys]
        return any(each > now for each in until)
