"""The official SDK's ``avtomatika_worker.s3``, whose classes are internal there: an import of one says what to use."""

from __future__ import annotations

_INSTEAD = (
    "skills move files with TaskFiles: an argument `files: TaskFiles` has `await files.download_file(uri, name)` and "
    "`await files.upload_file(name)`; stores are set by S3_ENDPOINT_URL, S3_ACCESS_KEY, S3_SECRET_KEY and "
    "S3_DEFAULT_BUCKET (docs/files.md)"
)


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)
    raise ImportError(f"there is no avtomatika_worker.s3.{name}: {_INSTEAD}")
