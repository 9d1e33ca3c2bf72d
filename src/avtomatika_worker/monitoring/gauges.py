"""Connects the worker's gauges, which are read whenever metrics are collected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import psutil

from avtomatika_worker import threadsafe
from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.link.link import Link
from avtomatika_worker.monitoring.usage import UsageMonitor
from avtomatika_worker.monitoring.watchdog import Pulse
from avtomatika_worker.observability import metrics
from avtomatika_worker.observability.metrics import Metric, Reading, Recorder
from avtomatika_worker.policy.heartbeat import WorkerState
from avtomatika_worker.policy.link_state import LinkState
from avtomatika_worker.protocol.messages import ResourcesUsage
from avtomatika_worker.tasks.poller import Poller

_GIB: Final = 2**30
_FromUsage = Callable[[ResourcesUsage], Iterable[Reading]]


def watch_slots(recorder: Recorder, state_watch: threadsafe.Watch[WorkerState], poller: Poller) -> None:
    """Let ``recorder`` read the slots, and the polls holding some."""

    def slots() -> Iterable[Reading]:
        state = state_watch.value
        free = max(0, state.slots_usable - state.slots_polling - state.slots_running)
        return [
            (free, ("free",)),
            (state.slots_polling, ("polling",)),
            (state.slots_running, ("running",)),
            (state.slots_total - free - state.slots_polling - state.slots_running, ("held_back",)),
        ]

    recorder.watch(metrics.SLOTS, slots)
    recorder.watch(metrics.POLLS_IN_FLIGHT, lambda: [(polls, (link.label,)) for link, polls in poller.in_flight])


def watch_models(recorder: Recorder, state_watch: threadsafe.Watch[WorkerState]) -> None:
    """Let ``recorder`` read the models of the worker's own process."""

    def models() -> Iterable[Reading]:
        states = Counter((each.loader, each.phase.value) for each in state_watch.value.models)
        return [(number, labels) for labels, number in states.items()]

    def memory() -> Iterable[Reading]:
        sizes = Counter[str]()
        for each in state_watch.value.models:
            sizes[each.loader] += each.size
        return [(size, (loader,)) for loader, size in sizes.items()]

    recorder.watch(metrics.MODELS, models)
    recorder.watch(metrics.MODEL_MEMORY, memory)


def watch_links(recorder: Recorder, links: Sequence[Link], outbox: Outbox) -> None:
    """Let ``recorder`` read the links, and the messages waiting for each."""
    recorder.watch(
        metrics.LINK_UP, lambda: [(float(link.state is LinkState.REGISTERED), (link.label,)) for link in links]
    )
    recorder.watch(metrics.OUTBOX_DEPTH, lambda: [(outbox.backlog(link), (link.label,)) for link in links])
    recorder.watch(metrics.OUTBOX_AGE, lambda: [(outbox.oldest, ())])


def watch_machine(recorder: Recorder, usage: UsageMonitor, pulse: Pulse) -> None:
    """Let ``recorder`` read the load of the machine, of this process and of its main loop."""

    def watch(metric: Metric, read: _FromUsage) -> None:
        def readings() -> Iterable[Reading]:
            latest = usage.latest  # read once: another thread measures
            return () if latest is None else read(latest)

        recorder.watch(metric, readings)

    watch(metrics.HOST_CPU, lambda latest: [(latest.cpu_load_percent, ())])
    watch(metrics.HOST_MEMORY, lambda latest: [(latest.ram_used_gb * _GIB, ())])
    watch(
        metrics.GPU_LOAD, lambda latest: [(each.load_percent, (each.unit_id,)) for each in latest.devices_usage or ()]
    )
    process = psutil.Process()
    recorder.watch(metrics.PROCESS_MEMORY, lambda: [(process.memory_info().rss, ())])
    recorder.watch(metrics.LOOP_LAG, lambda: [(pulse.silence, ())])
