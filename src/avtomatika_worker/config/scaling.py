"""The settings for a worker's processes, slots and time limits. A part of ``Settings``."""

# ruff: noqa: RUF009 - `setting` returns a field, as `dataclasses.field` does

from __future__ import annotations

from dataclasses import dataclass

from avtomatika_worker.config import kinds
from avtomatika_worker.config.choices import SlotTunerKind
from avtomatika_worker.config.declaring import setting


@dataclass(frozen=True, kw_only=True)  # two bases with slots cannot be joined
class ScalingSettings:
    """The processes, how many slots of each are used, and how long tasks may take."""

    processes: int | kinds.PerDevice = setting(
        "WORKER_PROCESSES",
        kinds.processes(),
        "Number of worker processes that `worker run` keeps running; with 2 or more, their ids are `WORKER_ID-1`,"
        " `-2`, … and each has `MAX_CONCURRENT_TASKS` slots. `gpu`: one on each GPU, `WORKER_ID-gpu0`, …; `gpu:2`: two."
        " Same as `--workers`.",
        default=1,
    )
    heartbeat_process: bool = setting(
        "WORKER_HEARTBEAT_PROCESS",
        kinds.boolean(),
        "Whether a small separate process (about 23 MiB) sends heartbeats and answers health checks while code that"
        " holds the GIL stops all of the worker's threads, for at most `WORKER_LOOP_BLOCKED_LIMIT`.",
        default=False,
    )
    slot_tuner: SlotTunerKind = setting(
        "WORKER_SLOT_TUNER",
        kinds.choice(SlotTunerKind),
        "Whether to use fewer slots while more than 80 % of the memory, 90 % of the CPUs or 95 % of a GPU's memory are"
        " in use: `resource` or `off`.",
        default=SlotTunerKind.OFF,
    )
    orchestrator_task_limit: float = setting(
        "ORCHESTRATOR_TASK_LIMIT",
        kinds.number(above=0),
        "Time that orchestrators give a task in all: their `WORKER_TIMEOUT_SECONDS`, times one more than their"
        " `JOB_MAX_RETRIES`. They do not report it; skills that expect to take longer are warned about.",
        default=1200.0,
        unit="s",
    )
    orchestrator_rate_limit: str | None = setting(
        "ORCHESTRATOR_RATE_LIMIT",
        kinds.call_limit(),
        "The orchestrator's own limit, its `RATE_LIMIT_LIMIT`: calls of a kind a minute, or `calls/seconds`; `off` for"
        " none. Chunks of streams and progress are coalesced to stay within it; events and results wait when it is used"
        " up.",
        default=None,
        unset="learnt from refusals; until then, chunks and progress stay within `100/60`",
    )
