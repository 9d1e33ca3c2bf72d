"""Which devices the next process gets, when processes share them: a part of one, or several whole ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

ONE: Final = 10_000
"""The parts of a device. Shares are counted in them, rounded down: three thirds are at most one."""

LEAST: Final = 0.01
"""The smallest share of a device."""

MOST: Final = 1_000
"""More devices than any machine has."""

Taken = tuple[float, tuple[int, ...]]
"""How much a process was given (``gpus``), and of which devices."""

_ROUNDING: Final = 1e-6


class DeviceShares:
    """The devices, and what of each is taken. They are known by their position.

    ``combinable`` says of each whether a process can use it beside others. With ``pack``, parts of a device go where
    others are already, which keeps devices whole for those who need whole ones; else where the most is left.
    """

    __slots__ = ("_combinable", "_free", "_pack")

    def __init__(self, combinable: Sequence[bool], *, pack: bool = False) -> None:
        self._combinable = tuple(combinable)
        self._free = [ONE] * len(self._combinable)
        self._pack = pack

    @property
    def free(self) -> tuple[float, ...]:
        """What is left of each device, from 0 to 1."""
        return tuple(each / ONE for each in self._free)

    def take(self, gpus: float) -> tuple[int, ...] | None:
        """Take ``gpus`` devices, or a part of one, and return which; None while there is no room."""
        number, each = _split(gpus)
        fitting = [device for device in self._candidates(number) if self._free[device] >= each]
        if len(fitting) < number:
            return None
        chosen = tuple(sorted(fitting, key=self._order)[:number])
        for device in chosen:
            self._free[device] -= each
        return chosen

    def give_back(self, gpus: float, devices: Sequence[int]) -> None:
        """Return what `take` gave. Raises RuntimeError for more than was taken."""
        _, each = _split(gpus)
        for device in devices:
            if self._free[device] + each > ONE:
                raise RuntimeError(f"device {device} is given back, and was not taken")
            self._free[device] += each

    def reclaim(self, gpus: float, leaving: Iterable[Taken], idle: Sequence[Taken]) -> list[int]:
        """Return which of the ``idle`` have to end, by position, so that ``gpus`` fit as soon as possible.

        ``leaving`` are ending already. Those that are first in ``idle`` end before others.
        """
        number, need = _split(gpus)
        coming = _with(self._free, leaving)
        in_the_end = _with(coming, idle)
        nearest = sorted(self._candidates(number), key=lambda each: (-min(in_the_end[each], need), -coming[each], each))
        wanted = nearest[:number]
        chosen: list[int] = []
        for position, (share, devices) in enumerate(idle):
            if any(device in wanted and coming[device] < need for device in devices):
                chosen.append(position)
                coming = _with(coming, [(share, devices)])
        return chosen

    def _candidates(self, number: int) -> list[int]:
        return [device for device, combinable in enumerate(self._combinable) if combinable or number == 1]

    def _order(self, device: int) -> tuple[int, int]:
        return (self._free[device] if self._pack else -self._free[device]), device


def fits(wanted: Iterable[float], combinable: Sequence[bool]) -> bool:
    """Whether the devices have room for all of these at the same time."""
    shares = DeviceShares(combinable, pack=True)
    return all(shares.take(each) is not None for each in sorted(wanted, reverse=True))


def most_at_once(gpus: float, combinable: Sequence[bool]) -> int:
    """Return how many processes with ``gpus`` each the devices have room for."""
    shares, count = DeviceShares(combinable), 0
    while shares.take(gpus) is not None:
        count += 1
    return count


def _split(gpus: float) -> tuple[int, int]:
    """Return on how many devices it is, and how many parts of each it takes."""
    return (1, int(gpus * ONE + _ROUNDING)) if gpus < 1 else (int(gpus), ONE)


def _with(free: Sequence[int], given_back: Iterable[Taken]) -> list[int]:
    total = [*free]
    for gpus, devices in given_back:
        for device in devices:
            total[device] += _split(gpus)[1]
    return total
