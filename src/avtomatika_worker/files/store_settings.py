"""The settings of `Stores`: how object stores are reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from avtomatika_worker.files.location import FILE
from avtomatika_worker.files.upstream import ProxyFor, no_proxy
from avtomatika_worker.policy.backoff import BackoffPolicy

PART_SIZE: Final = 8 * 1024 * 1024
"""Bytes in each part of a larger object; S3 accepts none below 5 MiB."""

CONCURRENCY: Final = 8
"""Parts in flight at the same time, for all tasks together."""

ATTEMPTS: Final = 5
"""How often a request that fails in a transient way is sent."""

RETRIES: Final = BackoffPolicy(initial=0.5, maximum=15.0)
"""The delays between these attempts."""

_RETRY_TIMEOUT: Final = timedelta(minutes=3)


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How stores are reached. Without keys, the store's own credential chain is used (environment, web identity, role).

    ``sources``: what tasks may read, None for the default (see `Sources`). ``hosts``, ``private_hosts``: see
    `WebHosts`. ``proxy_for``: the proxy of the environment.
    No setting changes ``part_size``, ``concurrency``, ``attempts`` and ``backoff``; tests do.
    """

    endpoint_url: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    region: str = "us-east-1"
    default_bucket: str | None = None
    file_root: Path | None = None
    sources: tuple[str, ...] | None = None
    hosts: tuple[str, ...] = ()
    private_hosts: tuple[str, ...] = ()
    ca_path: Path | None = None
    proxy_for: ProxyFor = no_proxy
    part_size: int = PART_SIZE
    concurrency: int = CONCURRENCY
    attempts: int = ATTEMPTS
    backoff: BackoffPolicy = RETRIES

    @property
    def has_s3(self) -> bool:
        """Whether any setting configures an S3 store."""
        return any((self.endpoint_url, self.access_key, self.default_bucket))

    @property
    def results_uri(self) -> str | None:
        """The prefix under which results go, or None. Blocks on the disk if there is a root."""
        bucket, root = self.default_bucket, self.file_root
        if bucket is not None:
            return f"{bucket.rstrip('/')}/" if "://" in bucket else f"s3://{bucket.rstrip('/')}/"
        return None if root is None else f"{FILE}://{root.resolve().as_posix().rstrip('/')}/"


def retry_config(settings: StoreSettings) -> dict[str, Any]:
    """Return obstore's retry settings for uploads in parts."""
    backoff = settings.backoff
    return {
        "max_retries": settings.attempts - 1,
        "retry_timeout": _RETRY_TIMEOUT,
        "backoff": {
            "init_backoff": timedelta(seconds=backoff.initial),
            "max_backoff": timedelta(seconds=backoff.maximum),
            "base": 2,
        },
    }
