"""All settings in one frozen object; the documentation's table of variables is generated from its fields."""

# ruff: noqa: RUF009 - `_setting` returns a field, as `dataclasses.field` does

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from avtomatika_worker.config import kinds, structured
from avtomatika_worker.config.choices import LogFormat, LogLevel, ResultDurability, SkillsOnError
from avtomatika_worker.config.declaring import SPEC as _SPEC
from avtomatika_worker.config.declaring import Setting
from avtomatika_worker.config.declaring import nothing as _nothing
from avtomatika_worker.config.declaring import setting as _setting
from avtomatika_worker.config.resumption import ResumptionSettings
from avtomatika_worker.config.scaling import ScalingSettings
from avtomatika_worker.config.security import SecuritySettings
from avtomatika_worker.config.structured import OrchestratorSettings
from avtomatika_worker.policy.rotation import Mode as MultiOrchestratorMode
from avtomatika_worker.protocol.messages import HardwareDevice, InstalledArtifact

EXTRA_PREFIX: Final = "WORKER_EXTRA_"
DEFAULT_TASK_FILES_DIR: Final = Path("/tmp/payloads")  # noqa: S108 - the documented one; its owner is checked
DEFAULT_ORCHESTRATOR_URL: Final = "http://localhost:8080"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(ScalingSettings, SecuritySettings, ResumptionSettings):
    """A worker's settings, made by ``load_settings``. Times are in seconds.

    Its ``repr`` shows no secrets.
    """

    worker_id: str = _setting(
        "WORKER_ID", kinds.identifier(), "Unique identifier of this worker instance.", unset="random UUID"
    )
    worker_type: str = _setting(
        "WORKER_TYPE", kinds.text(), "Type under which the worker registers.", default="generic-worker"
    )
    app: str | None = _setting(
        "WORKER_APP",
        kinds.text(),
        "Where the command `worker` finds the Worker without `--app`, as `module:attribute`.",
        default=None,
        unset="`app.main:worker`, `main:worker` or `worker:worker`",
    )
    token: str | None = _setting(
        "WORKER_TOKEN",
        kinds.token(),
        "Token shared with the orchestrator; it authenticates the worker and signs its messages.",
        default=None,
        secret=True,
        unset="none: messages are not signed",
    )
    individual_token: str | None = _setting(
        "WORKER_INDIVIDUAL_TOKEN",
        kinds.token(),
        "Token for this worker alone; overrides `WORKER_TOKEN`.",
        default=None,
        secret=True,
    )
    orchestrator_url: str = _setting(
        "ORCHESTRATOR_URL",
        kinds.url(),
        "Address of the orchestrator; it may have a path prefix.",
        default=DEFAULT_ORCHESTRATOR_URL,
    )
    orchestrators_config: tuple[OrchestratorSettings, ...] = _setting(
        "ORCHESTRATORS_CONFIG",
        structured.orchestrators(),
        "JSON list of orchestrators, objects with `url`, `priority` (10; lower is polled first), `weight` (1), `token`,"
        " `token_fallback`, `secret_key` and `rate_limit`; replaces `ORCHESTRATOR_URL`.",
        default=(),
        secret=True,
    )
    multi_orchestrator_mode: MultiOrchestratorMode = _setting(
        "MULTI_ORCHESTRATOR_MODE",
        kinds.choice(MultiOrchestratorMode),
        "How polls are distributed over several orchestrators: `WATERFALL`, `ROUND_ROBIN` or `FAILOVER`.",
        default=MultiOrchestratorMode.WATERFALL,
    )
    max_concurrent_tasks: int = _setting(
        "MAX_CONCURRENT_TASKS",
        kinds.integer(least=1),
        "Number of tasks that may run at the same time, besides those of batched skills.",
        default=10,
    )
    skill_threads: int | None = _setting(
        "WORKER_SKILL_THREADS",
        kinds.integer(least=1),
        "Threads for plain `def` skills.",
        default=None,
        unset="as many as `MAX_CONCURRENT_TASKS`, and one for each batched skill",
    )
    skill_processes: int | None = _setting(
        "WORKER_SKILL_PROCESSES",
        kinds.integer(least=1),
        'Most skill processes (`executor="process"`), those with `gpus` not counted; further tasks wait for'
        " one in their slots.",
        default=None,
        unset="as many as `MAX_CONCURRENT_TASKS`",
    )
    heartbeat_interval: float = _setting(
        "HEARTBEAT_INTERVAL", kinds.number(above=0), "Time between heartbeats.", default=15.0, unit="s"
    )
    task_poll_timeout: float = _setting(
        "TASK_POLL_TIMEOUT",
        kinds.number(above=0),
        "How long an orchestrator is expected to hold a poll without a task.",
        default=30.0,
        unit="s",
    )
    registration_retry_initial_delay: float = _setting(
        "REGISTRATION_RETRY_INITIAL_DELAY",
        kinds.number(above=0),
        "Delay before the first retry of registration; it doubles with every failure.",
        default=1.0,
        unit="s",
    )
    registration_retry_max_delay: float = _setting(
        "REGISTRATION_RETRY_MAX_DELAY",
        kinds.number(above=0),
        "Longest delay between attempts to register, which continue indefinitely.",
        default=60.0,
        unit="s",
    )
    result_retry_initial_delay: float = _setting(
        "RESULT_RETRY_INITIAL_DELAY",
        kinds.number(above=0),
        "Delay before the first retry of sending a result; it doubles with every failure.",
        default=1.0,
        unit="s",
    )
    result_retry_max_delay: float = _setting(
        "RESULT_RETRY_MAX_DELAY",
        kinds.number(above=0),
        "Longest delay between attempts to send a result.",
        default=60.0,
        unit="s",
    )
    rate_limit_wait: float = _setting(
        "RATE_LIMIT_WAIT",
        kinds.number(above=0),
        "Pause after a 429 that does not say how long to wait; the orchestrator's default window is a minute.",
        default=61.0,
        unit="s",
    )
    result_max_age: float = _setting(
        "RESULT_MAX_AGE",
        kinds.number(above=0),
        "Age at which an undelivered result is given up; until then it is retried.",
        default=86400.0,
        unit="s",
    )
    log_format: LogFormat = _setting(
        "LOG_FORMAT", kinds.choice(LogFormat), "Form of the log: `text` or `json`.", default=LogFormat.TEXT
    )
    log_level: LogLevel = _setting(
        "LOG_LEVEL",
        kinds.choice(LogLevel),
        "Lowest level that is logged: `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`.",
        default=LogLevel.INFO,
    )
    port: int = _setting(
        "WORKER_PORT", kinds.port(), "Port of the health server; 0 lets the system choose one.", default=8083
    )
    health_host: str = _setting(
        "WORKER_HEALTH_HOST",
        kinds.listening_host(),
        "Address the health server listens on.",
        default="0.0.0.0",  # noqa: S104 - Kubernetes probes come from outside of the container
    )
    shutdown_timeout: float = _setting(
        "WORKER_SHUTDOWN_TIMEOUT",
        kinds.number(least=0),
        "Most time that running tasks get to finish when the worker shuts down.",
        default=30.0,
        unit="s",
    )
    enable_websockets: bool = _setting(
        "WORKER_ENABLE_WEBSOCKETS",
        kinds.boolean(),
        "Receive commands, such as cancellations, at once over a WebSocket.",
        default=False,
    )
    enable_metrics: bool = _setting(
        "WORKER_ENABLE_METRICS", kinds.boolean(), "Collect OpenTelemetry metrics and traces.", default=False
    )
    strict_event_validation: bool = _setting(
        "STRICT_EVENT_VALIDATION",
        kinds.boolean(),
        "Block events that a skill has not declared, if it declares any.",
        default=True,
    )
    progress_interval: float = _setting(
        "WORKER_PROGRESS_INTERVAL",
        kinds.number(least=0),
        "Least time between progress messages of a task; the newest wins, and the last is always sent.",
        default=1.0,
        unit="s",
    )
    task_files_dir: Path = _setting(
        "TASK_FILES_DIR",
        kinds.path(),
        "Directory for tasks' temporary files. The default is used if this user owns it; if it belongs to another user,"
        " a directory in this user's runtime directory (`XDG_RUNTIME_DIR`) is used instead.",
        default=DEFAULT_TASK_FILES_DIR,
    )
    skills_dir: Path = _setting(
        "WORKER_SKILLS_DIR", kinds.path(), "Directory whose modules are loaded as skills.", default=Path("skills")
    )
    skills_on_error: SkillsOnError = _setting(
        "WORKER_SKILLS_ON_ERROR",
        kinds.choice(SkillsOnError),
        "What a skill module that cannot be imported does to startup: `stop` or `skip`.",
        default=SkillsOnError.STOP,
    )
    cost_per_skill: Mapping[str, float] = _setting(
        "COST_PER_SKILL", structured.costs(), "JSON object of skill names and prices.", default=_nothing
    )
    installed_software: Mapping[str, str] = _setting(
        "INSTALLED_SOFTWARE",
        structured.software(),
        "JSON object of software names and versions to announce.",
        default=_nothing,
    )
    installed_artifacts: tuple[InstalledArtifact, ...] = _setting(
        "INSTALLED_ARTIFACTS",
        structured.artifacts(),
        "JSON list of artifacts (models, data sets) to announce, objects with `name`, `version`, `type` and"
        " `properties`.",
        default=(),
    )
    cpu_cores: int | None = _setting(
        "CPU_CORES", kinds.integer(least=1), "Number of CPU cores to announce.", default=None, unset="detected"
    )
    ram_gb: float | None = _setting(
        "RAM_GB", kinds.number(above=0), "Memory to announce.", default=None, unit="GiB", unset="detected"
    )
    gpu_model: str | None = _setting("GPU_MODEL", kinds.text(), "Model of a GPU to announce.", default=None)
    gpu_vram_gb: float | None = _setting(
        "GPU_VRAM_GB", kinds.number(above=0), "Memory of that GPU.", default=None, unit="GiB"
    )
    worker_devices: tuple[HardwareDevice, ...] = _setting(
        "WORKER_DEVICES",
        structured.devices(),
        "JSON list of devices to announce, objects with `type`, `model`, `id` and `properties`; overrides"
        " `GPU_MODEL` and `GPU_VRAM_GB`.",
        default=(),
    )
    s3_endpoint_url: str | None = _setting(
        "S3_ENDPOINT_URL", kinds.url(), "Address of an S3-compatible store.", default=None
    )
    s3_access_key: str | None = _setting(
        "S3_ACCESS_KEY",
        kinds.text(),
        "Access key of the S3 store.",
        default=None,
        secret=True,
        unset="the store's own credential chain (role, …)",
    )
    s3_secret_key: str | None = _setting(
        "S3_SECRET_KEY", kinds.text(), "Secret key of the S3 store.", default=None, secret=True
    )
    s3_region: str = _setting("S3_REGION", kinds.text(), "Region of the S3 store.", default="us-east-1")
    s3_default_bucket: str | None = _setting(
        "S3_DEFAULT_BUCKET",
        kinds.text(),
        "Bucket for the files of results; also `gs://name`, `az://name`.",
        default=None,
    )
    file_store_root: Path | None = _setting(
        "WORKER_FILE_STORE_ROOT",
        kinds.path(),
        "Directory that `file://` URIs may name, for development; nothing outside it is read or written. Without"
        " `S3_DEFAULT_BUCKET`, files of results go there.",
        default=None,
        unset="`file://` is refused",
    )
    blob_cache_dir: Path | None = _setting(
        "WORKER_BLOB_CACHE_DIR",
        kinds.path(),
        "Directory where downloaded objects are cached for later tasks; several workers may share it.",
        default=None,
        unset="nothing is kept",
    )
    blob_cache_max_bytes: int = _setting(
        "WORKER_BLOB_CACHE_MAX_BYTES",
        kinds.integer(least=1),
        "Size of that directory; the least recently used objects go first.",
        default=10 * 1024**3,
        unit="bytes",
    )
    state_dir: Path | None = _setting(
        "WORKER_STATE_DIR",
        kinds.path(),
        "Directory for results that could not be delivered yet, which survive a restart under the same `WORKER_ID`,"
        " and for checkpoints, unless `S3_DEFAULT_BUCKET` is set.",
        default=None,
        unset="the user's state directory, such as `~/.local/state/avtomatika-worker`",
    )
    result_durability: ResultDurability = _setting(
        "WORKER_RESULT_DURABILITY",
        kinds.choice(ResultDurability),
        "When a result is written to `WORKER_STATE_DIR`: `on_failure` (its first delivery failed), `always` (before its"
        " first delivery) or `off` (never: a crash loses it).",
        default=ResultDurability.ON_FAILURE,
    )
    loop_blocked_limit: float = _setting(
        "WORKER_LOOP_BLOCKED_LIMIT",
        kinds.number(above=0),
        "How long a skill may block the event loop or, with `WORKER_HEARTBEAT_PROCESS`, the whole worker before"
        " `/live` answers 503.",
        default=60.0,
        unit="s",
    )
    lease_lost_after: float | None = _setting(
        "WORKER_LEASE_LOST_AFTER",
        kinds.number(above=0),
        "How long an orchestrator may be unreachable before its running tasks are stopped: by then it may have given"
        " them to other workers.",
        default=None,
        unit="s",
        unset="never: they finish, and their results are delivered once it is back",
    )
    extra_capabilities: Mapping[str, Any] = field(default_factory=_nothing)
    worker_id_is_random: bool = field(default=False, compare=False)
    port_is_asked_for: bool = field(default=False, compare=False)

    @property
    def effective_token(self) -> str | None:
        """The worker's token: its individual one if set, otherwise the shared one."""
        return self.individual_token or self.token

    @property
    def orchestrators(self) -> tuple[OrchestratorSettings, ...]:
        """The orchestrators to work for, by priority; at least one. Missing tokens are filled in."""
        configured = self.orchestrators_config or (OrchestratorSettings(url=self.orchestrator_url),)
        ordered = sorted(configured, key=lambda orchestrator: orchestrator.priority)
        return tuple(
            replace(
                each,
                token=each.token or self.effective_token,
                # The worker's fallback belongs to the worker's token, not to an orchestrator's own.
                token_fallback=each.token_fallback or (None if each.token else self.token_fallback),
                secret_key=each.secret_key or self.orchestrator_secret_key,
                rate_limit=each.rate_limit or self.orchestrator_rate_limit,
            )
            for each in ordered
        )

    @property
    def devices(self) -> tuple[HardwareDevice, ...]:
        """The devices to announce."""
        if self.worker_devices or (self.gpu_model is None and self.gpu_vram_gb is None):
            return self.worker_devices
        memory = self.gpu_vram_gb
        # Requirements are matched by either name: the official SDK announces the second.
        properties = {} if memory is None else {"vram_gb": memory, "memory_gb": memory}
        return (HardwareDevice(type="gpu", id="0", model=self.gpu_model, properties=properties),)


@cache
def setting_fields() -> Mapping[str, tuple[Field[Any], Setting]]:
    """Return field name → the field and its ``Setting``, in the order of the table: inherited ones come last."""
    last = {each.name for base in Settings.__bases__ for each in fields(base)}
    ordered = sorted(fields(Settings), key=lambda each: each.name in last)
    return {each.name: (each, each.metadata[_SPEC]) for each in ordered if _SPEC in each.metadata}
