"""The official SDK's names of settings: which of ours each one sets, and what to use instead of the rest."""

from __future__ import annotations

from typing import Final

FIELDS: Final = {
    "WORKER_ID": "worker_id",
    "WORKER_TYPE": "worker_type",
    "WORKER_PORT": "port",
    "ORCHESTRATORS": "orchestrators_config",
    "WORKER_TOKEN": "individual_token",  # a value set in the program takes precedence over both variables
    "TLS_CA_PATH": "tls_ca_path",
    "TLS_CERT_PATH": "tls_cert_path",
    "TLS_KEY_PATH": "tls_key_path",
    "REQUIRE_TASK_SIGNATURE": "require_task_signature",
    "SECRET_KEY": "orchestrator_secret_key",
    "COST_PER_SKILL": "cost_per_skill",
    "MAX_CONCURRENT_TASKS": "max_concurrent_tasks",
    "INSTALLED_SOFTWARE": "installed_software",
    "INSTALLED_ARTIFACTS": "installed_artifacts",
    "TASK_FILES_DIR": "task_files_dir",
    "S3_ENDPOINT_URL": "s3_endpoint_url",
    "S3_ACCESS_KEY": "s3_access_key",
    "S3_SECRET_KEY": "s3_secret_key",
    "S3_DEFAULT_BUCKET": "s3_default_bucket",
    "S3_REGION": "s3_region",
    "HEARTBEAT_INTERVAL": "heartbeat_interval",
    "RESULT_RETRY_INITIAL_DELAY": "result_retry_initial_delay",
    "REGISTRATION_RETRY_INITIAL_DELAY": "registration_retry_initial_delay",
    "REGISTRATION_RETRY_MAX_DELAY": "registration_retry_max_delay",
    "RATE_LIMIT_BACKOFF_FLOOR": "rate_limit_wait",
    "TASK_POLL_TIMEOUT": "task_poll_timeout",
    "SHUTDOWN_TIMEOUT": "shutdown_timeout",
    "ENABLE_WEBSOCKETS": "enable_websockets",
    "MULTI_ORCHESTRATOR_MODE": "multi_orchestrator_mode",
    "WORKER_SKILLS_DIR": "skills_dir",
    "STRICT_EVENT_VALIDATION": "strict_event_validation",
    "WORKER_ENABLE_METRICS": "enable_metrics",
    "WORKER_BLOB_CACHE_DIR": "blob_cache_dir",
    "EXTRA_CAPABILITIES": "extra_capabilities",
}
"""Attributes of ``WorkerConfig``, and the settings field that each one sets."""

RESOURCES: Final = {"cpu_cores": "cpu_cores", "ram_gb": "ram_gb", "devices": "worker_devices"}
"""The keys of ``WorkerConfig.RESOURCES``, likewise."""

_POLLS: Final = "the orchestrator holds polls (TASK_POLL_TIMEOUT), and delays after errors are computed"
_TELEMETRY: Final = "every heartbeat reports the load (HEARTBEAT_INTERVAL)"
_HEARTBEATS: Final = "changes within a few hundredths of a second are combined, and orchestrators' limits are respected"
_DETECTED: Final = "it is detected automatically"

MEANINGLESS: Final = {
    "HOSTNAME": _DETECTED,
    "IP_ADDRESS": _DETECTED,
    "RESULT_MAX_RETRIES": "results are retried until accepted, for up to RESULT_MAX_AGE seconds",
    "HEARTBEAT_COOLDOWN": _HEARTBEATS,
    "HEARTBEAT_DEBOUNCE_DELAY": _HEARTBEATS,
    "TASK_POLL_ERROR_DELAY": _POLLS,
    "POLL_BACKOFF_INITIAL": _POLLS,
    "POLL_BACKOFF_MAX": _POLLS,
    "POLL_BACKOFF_FACTOR": _POLLS,
    "IDLE_POLL_DELAY": _POLLS,
    "WORKER_TELEMETRY_DEADBAND": _TELEMETRY,
    "WORKER_TELEMETRY_FORCE_INTERVAL": _TELEMETRY,
}
"""Attributes that have no counterpart, and what replaces them."""

MEANINGLESS_DEFAULTS: Final[dict[str, float]] = {
    "RESULT_MAX_RETRIES": 5,
    "HEARTBEAT_COOLDOWN": 2.0,
    "HEARTBEAT_DEBOUNCE_DELAY": 0.1,
    "TASK_POLL_ERROR_DELAY": 5.0,
    "POLL_BACKOFF_INITIAL": 1.0,
    "POLL_BACKOFF_MAX": 60.0,
    "POLL_BACKOFF_FACTOR": 2.0,
    "IDLE_POLL_DELAY": 0.5,
    "WORKER_TELEMETRY_DEADBAND": 5.0,
    "WORKER_TELEMETRY_FORCE_INTERVAL": 60.0,
}
"""What a program reads from those it has not set: the official SDK's defaults."""

MEANINGLESS_VARIABLES: Final = {
    "WORKER_HEARTBEAT_COOLDOWN" if name == "HEARTBEAT_COOLDOWN" else name: advice
    for name, advice in MEANINGLESS.items()
    if advice != _DETECTED  # HOSTNAME is in every environment
}
"""Environment variables that have no counterpart, and what replaces them."""

ALIASES: Final = {"SECRET_KEY": "ORCHESTRATOR_SECRET_KEY", "RATE_LIMIT_BACKOFF_FLOOR": "RATE_LIMIT_WAIT"}
"""Variables used for one of ours if that is not set itself."""
