"""The settings for trust: keys besides the token, TLS, limits."""

# ruff: noqa: RUF009 - `_setting` returns a field, as `dataclasses.field` does

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avtomatika_worker.config import kinds
from avtomatika_worker.config.declaring import setting as _setting


@dataclass(frozen=True, kw_only=True)  # two bases with slots cannot be joined
class SecuritySettings:
    """Whom the worker trusts, and how much it accepts."""

    token_fallback: str | None = _setting(
        "WORKER_TOKEN_FALLBACK",
        kinds.token(),
        "Token to try when the first one is refused, so that tokens can be changed without downtime.",
        default=None,
        secret=True,
    )
    orchestrator_secret_key: str | None = _setting(
        "ORCHESTRATOR_SECRET_KEY",
        kinds.text(),
        "Key that the orchestrator signs tasks with; if set, every task's signature is checked before it runs.",
        default=None,
        secret=True,
        unset="none: task signatures are not checked",
    )
    require_task_signature: bool | None = _setting(
        "REQUIRE_TASK_SIGNATURE",
        kinds.boolean(),
        "Refuse unsigned tasks; with false they are accepted, and anyone who can alter a task can strip its signature.",
        default=None,
        unset="true if a key is set",
    )
    tls_ca_path: Path | None = _setting(
        "TLS_CA_PATH", kinds.readable_file(), "PEM file of a CA to trust in addition to the system's.", default=None
    )
    tls_cert_path: Path | None = _setting(
        "TLS_CERT_PATH",
        kinds.readable_file(),
        "PEM file of the worker's certificate (mTLS); its common name must be the worker's id.",
        default=None,
    )
    tls_key_path: Path | None = _setting(
        "TLS_KEY_PATH", kinds.readable_file(), "PEM file of that certificate's key.", default=None
    )
    tls_reload_interval: float = _setting(
        "TLS_RELOAD_INTERVAL",
        kinds.number(above=0),
        "Time between checks of the TLS files; new connections use the new files.",
        default=10.0,
        unit="s",
    )
    max_response_bytes: int = _setting(
        "MAX_RESPONSE_BYTES",
        kinds.integer(least=1024),
        "Longest answer read from an orchestrator, after decompression; at most twice as much of long answers is in"
        " memory at the same time.",
        default=8 * 1024 * 1024,
        unit="bytes",
    )
    max_task_nesting: int = _setting(
        "MAX_TASK_NESTING",
        kinds.integer(least=1, most=500),
        "How deeply a task's values may be nested; a deeper task is answered with INVALID_INPUT_ERROR.",
        default=100,
    )
    max_result_bytes: int = _setting(
        "MAX_RESULT_BYTES",
        kinds.integer(least=1024),
        "Size limit for a result's data and an event's payload, as JSON; orchestrators refuse messages over 1 MiB."
        " Larger data goes to the object store if there is one and the skill's output schema allows a URI in its"
        " place; otherwise the task fails. A larger event is not sent.",
        default=1024 * 1024 - 64 * 1024,
        unit="bytes",
    )
    file_sources: tuple[str, ...] | None = _setting(
        "WORKER_FILE_SOURCES",
        kinds.object_uris(),
        "Buckets and prefixes that tasks may read, as URIs separated by spaces: `s3://payloads/in/ s3://models/`."
        " Anything else a task names is refused, as is every kind of store not in the list.",
        default=None,
        unset="the location of results, but neither its root nor the results of other jobs",
    )
    file_hosts: tuple[str, ...] = _setting(
        "WORKER_FILE_HOSTS",
        kinds.hosts(),
        "Web hosts that tasks may fetch files from over HTTPS, as `host` or `host:port`, separated by spaces. Only at"
        " public addresses.",
        default=(),
        unset="tasks fetch nothing from the web",
    )
    file_private_hosts: tuple[str, ...] = _setting(
        "WORKER_FILE_PRIVATE_HOSTS",
        kinds.hosts(),
        "Such hosts that may be at private addresses, too; they need not be in `WORKER_FILE_HOSTS`.",
        default=(),
    )
    untyped_files: bool = _setting(
        "WORKER_UNTYPED_FILES",
        kinds.boolean(),
        "For skills with untyped `params: dict`, as in the official SDK: download every URI in their params, and upload"
        " every path in their results. The same read permissions apply.",
        default=False,
    )
    task_files_max_bytes: int = _setting(
        "WORKER_TASK_FILES_MAX_BYTES",
        kinds.integer(least=1),
        "Bytes that one task may download.",
        default=10 * 1024**3,
        unit="bytes",
    )
    task_files_max_objects: int = _setting(
        "WORKER_TASK_FILES_MAX_OBJECTS",
        kinds.integer(least=1),
        "Objects that one task may download, including those under prefixes.",
        default=10_000,
    )
    max_event_rate: float = _setting(
        "MAX_EVENT_RATE",
        kinds.number(above=0),
        "Most events per second sent to an orchestrator; further ones wait and, eventually, so does the skill.",
        default=100.0,
        unit="1/s",
    )
    max_skills: int = _setting(
        "MAX_SKILLS",
        kinds.integer(least=1),
        "Most skills a worker may have; with more, it does not start.",
        default=256,
    )
