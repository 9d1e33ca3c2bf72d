"""Makes a worker's outbox from its settings."""

from __future__ import annotations

import platformdirs

from avtomatika_worker.config import ResultDurability, Settings
from avtomatika_worker.delivery.outbox import Outbox
from avtomatika_worker.delivery.sqlite_store import SqliteStore
from avtomatika_worker.delivery.store import Store
from avtomatika_worker.world import REAL, World


def make_outbox(settings: Settings, world: World = REAL) -> Outbox:
    """Return the outbox; its store is not open yet."""
    directory = settings.state_dir or platformdirs.user_state_path("avtomatika-worker", appauthor=False)
    off = settings.result_durability is ResultDurability.OFF
    disk = None if off else SqliteStore(directory, settings.worker_id, temporary=settings.worker_id_is_random)
    return Outbox(
        Store(disk, world),
        max_age=settings.result_max_age,
        store_first=settings.result_durability is ResultDurability.ALWAYS,
        world=world,
    )
