"""How many skill processes there may be, and which devices each of them sees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from avtomatika_worker.observability.devices import Accelerator, environ_for
from avtomatika_worker.policy.device_shares import DeviceShares, Taken


@dataclass(frozen=True, slots=True)
class Holding:
    """What a process has while it lives: ``gpus`` devices, or a share of one; 0 for none of its own."""

    gpus: float = 0
    devices: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict[str, str])


class ProcessRoom:
    """At most ``size`` processes without devices of their own, and on ``devices`` those that are given some.

    ``mixed``: processes want different numbers or shares of devices.
    """

    def __init__(self, size: int, devices: Sequence[Accelerator] = (), *, mixed: bool = False) -> None:
        self._left = size
        self._devices = tuple(devices)
        self._shares = DeviceShares([each.combinable for each in self._devices], pack=mixed)

    def take(self, gpus: float) -> Holding | None:
        """Return what one more process gets; None while there is no room for it."""
        if not gpus:
            if self._left < 1:
                return None
            self._left -= 1
            return Holding()
        taken = self._shares.take(gpus)
        if taken is None:
            return None
        devices = [self._devices[each] for each in taken]
        return Holding(gpus, taken, tuple(each.label for each in devices), environ_for(devices))

    def give_back(self, holding: Holding) -> None:
        """Give what a process had to others: it is gone."""
        if holding.gpus:
            self._shares.give_back(holding.gpus, holding.devices)
        else:
            self._left += 1

    def reclaim(self, gpus: float, leaving: Iterable[Holding], idle: Iterable[Holding]) -> list[int]:
        """Return which of the ``idle`` have to end, by position, to make room for ``gpus``."""
        return self._shares.reclaim(gpus, map(_taken, leaving), [_taken(each) for each in idle])


def _taken(holding: Holding) -> Taken:
    return holding.gpus, holding.devices
