"""Assembles what a worker needs for its tasks' files."""

from __future__ import annotations

import asyncio
from pathlib import Path

from avtomatika_worker.files.cache import BlobCache
from avtomatika_worker.files.disk import Disk
from avtomatika_worker.files.observer import Observer
from avtomatika_worker.files.permit import DEFAULT_BYTES, DEFAULT_OBJECTS, Permit
from avtomatika_worker.files.progress import NOTICE_AFTER, Notify
from avtomatika_worker.files.store_settings import StoreSettings
from avtomatika_worker.files.stores import Stores
from avtomatika_worker.files.task_files import FileOperations
from avtomatika_worker.files.transfers import Transfers
from avtomatika_worker.files.workspace import Workspace
from avtomatika_worker.files.workspaces import Workspaces


class Files:
    """Makes tasks' files. ``cache_dir``: where downloads are cached, at most ``cache_limit`` bytes of them.

    ``otherwise`` replaces ``directory`` if that is another user's.
    ``most_bytes`` and ``most_objects`` limit one task's downloads.
    """

    def __init__(
        self,
        directory: Path,
        stores: StoreSettings,
        *,
        otherwise: Path | None = None,
        cache_dir: Path | None = None,
        cache_limit: int = 0,
        notice_after: float = NOTICE_AFTER,
        observer: Observer | None = None,
        most_bytes: int = DEFAULT_BYTES,
        most_objects: int = DEFAULT_OBJECTS,
    ) -> None:
        self._most = (most_bytes, most_objects)
        watching = observer or Observer()
        self._disk = Disk()
        self._workspaces = Workspaces(directory, otherwise)
        cache = BlobCache(cache_dir, cache_limit, self._disk) if cache_dir is not None else None
        self._stores = Stores(stores, self._disk, watching)
        self._transfers = Transfers(self._stores, self._disk, watching, cache, notice_after=notice_after)

    def for_task(
        self, job_id: str, task_id: str, notify: Notify, loop: asyncio.AbstractEventLoop | None = None
    ) -> FileOperations:
        """Return the files of a task. Nothing is created on disk before they are used.

        ``loop`` runs the transfers that threads request; without one they cannot request any.
        """
        workspace = Workspace(task_id, self._workspaces)
        permit = Permit(job_id, *self._most)
        parts = (workspace, self._disk, self._transfers, permit)
        return FileOperations(*parts, job_id=job_id, task_id=task_id, notify=notify, loop=loop)

    async def clean_up(self) -> None:
        """Remove the leftovers of crashed workers."""
        await self._disk.run(self._workspaces.clean_up)

    def close(self) -> None:
        """Release everything."""
        self._stores.close()
        self._workspaces.close()
        self._disk.close()
