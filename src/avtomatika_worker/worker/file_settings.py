"""Converts settings for stores and files into the form that `files` expects."""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from avtomatika_worker.config import Settings
from avtomatika_worker.config.settings import DEFAULT_TASK_FILES_DIR
from avtomatika_worker.files.ownership import check_private
from avtomatika_worker.files.service import Files
from avtomatika_worker.files.store_settings import StoreSettings
from avtomatika_worker.monitoring.storage_metrics import StorageMetrics
from avtomatika_worker.observability.telemetry import OFF, Telemetry
from avtomatika_worker.transport.proxies import proxy_for
from avtomatika_worker.world import REAL, World


def store_settings(settings: Settings) -> StoreSettings:
    """Return the settings of object stores."""
    return StoreSettings(
        endpoint_url=settings.s3_endpoint_url,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key,
        region=settings.s3_region,
        default_bucket=settings.s3_default_bucket,
        file_root=settings.file_store_root,
        sources=settings.file_sources,
        hosts=settings.file_hosts,
        private_hosts=settings.file_private_hosts,
        ca_path=settings.tls_ca_path,
        proxy_for=proxy_for,
    )


def with_own_files(settings: Settings, root: Path | None) -> Settings:
    """Return settings for development, where all files are one's own.

    ``root`` is the store of files when there is no other, and tasks may read all of it and of the place for results,
    besides what is listed.
    """
    settings = replace(settings, file_store_root=settings.file_store_root or root)
    store = store_settings(settings)
    wide = settings.file_sources if settings.file_sources is not None else (store.results_uri,)
    here = replace(store, default_bucket=None).results_uri
    return replace(settings, file_sources=tuple(dict.fromkeys(each for each in (*wide, here) if each is not None)))


def task_files_directory(settings: Settings) -> Path:
    """Return the directory for tasks' files, replacing a default owned by another user. Blocks; creates nothing."""
    if settings.task_files_dir == DEFAULT_TASK_FILES_DIR:
        try:
            check_private(settings.task_files_dir)
        except PermissionError:
            return _own_directory()
    return settings.task_files_dir


def make_files(settings: Settings, telemetry: Telemetry = OFF, world: World = REAL) -> Files:
    """Return the factory of tasks' files."""
    return Files(
        settings.task_files_dir,
        store_settings(settings),
        otherwise=_own_directory() if settings.task_files_dir == DEFAULT_TASK_FILES_DIR else None,
        cache_dir=settings.blob_cache_dir,
        cache_limit=settings.blob_cache_max_bytes,
        most_bytes=settings.task_files_max_bytes,
        most_objects=settings.task_files_max_objects,
        observer=StorageMetrics(telemetry, world) if telemetry is not OFF else None,
    )


def _own_directory() -> Path:
    """Return a directory of this user's for files: anything planted there by another user is refused anyway."""
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    if runtime.is_absolute():
        return runtime / "avtomatika-worker" / "payloads"
    user = "" if sys.platform == "win32" else f"-{os.geteuid()}"  # there, temporary files are every user's own
    return Path(tempfile.gettempdir()) / f"avtomatika-worker{user}" / "payloads"
