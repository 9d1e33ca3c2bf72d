"""The outbox of a worker, from its settings."""

from __future__ import annotations

import platformdirs

from avtomatika_worker.config import ResultDurability, Settings
from avtomatika_worker.services.keeping import Keeper
from avtomatika_worker.services.outbox import Outbox
from avtomatika_worker.services.store import Store


def make_outbox(settings: Settings) -> Outbox:
    """Return the outbox; its store is not open yet."""
    directory = settings.state_dir or platformdirs.user_state_path("avtomatika-worker", appauthor=False)
    off = settings.result_durability is ResultDurability.OFF
    return Outbox(
        Keeper(None if off else Store(directory, settings.worker_id, temporary=settings.worker_id_is_random)),
        max_age=settings.result_max_age,
        store_first=settings.result_durability is ResultDurability.ALWAYS,
    )
