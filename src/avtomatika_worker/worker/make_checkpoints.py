"""Makes a worker's checkpoints from its settings."""

from __future__ import annotations

import platformdirs

from avtomatika_worker.checkpoints.blobs import Blobs, DirectoryBlobs
from avtomatika_worker.checkpoints.checkpoint_service import Checkpoints
from avtomatika_worker.checkpoints.keeper import StartTask
from avtomatika_worker.checkpoints.object_blobs import ObjectBlobs
from avtomatika_worker.checkpoints.sealing import MissingLibraryError, Sealer, key_of
from avtomatika_worker.checkpoints.versions import Place
from avtomatika_worker.config import Settings
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.files.service import Files
from avtomatika_worker.world import REAL, World


def make_checkpoints(settings: Settings, files: Files, start: StartTask, world: World = REAL) -> Checkpoints:
    """Return the checkpoints; nothing is made yet. Called on the main loop. Raises `ConfigError`."""
    place = Place(
        _blobs(settings, files, world),
        files.disk,
        _sealer(settings),
        settings.checkpoint_max_bytes,
        settings.checkpoint_max_age,
        world,
    )
    return Checkpoints(place, files, settings.worker_id, interval=settings.checkpoint_interval, start=start)


def _blobs(settings: Settings, files: Files, world: World) -> Blobs:
    if settings.s3_default_bucket is not None:
        return ObjectBlobs(files.own_objects)
    directory = settings.state_dir or platformdirs.user_state_path("avtomatika-worker", appauthor=False)
    return DirectoryBlobs(directory / "checkpoints", files.disk, world)


def _sealer(settings: Settings) -> Sealer | None:
    if settings.checkpoint_key is None:
        return None
    try:
        return Sealer(key_of(settings.checkpoint_key))
    except MissingLibraryError as error:
        raise ConfigError([f"CHECKPOINT_KEY is set, but {error}"]) from None
