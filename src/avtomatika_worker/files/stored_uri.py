"""What an upload returns: the object's URI, which knows what is stored there."""

from __future__ import annotations

from typing import Any

from avtomatika_worker.protocol.messages import FileMetadata
from avtomatika_worker.protocol.uris import S3Uri


class StoredUri(S3Uri):
    """The URI of what was uploaded, with what is known of it: ``size`` in bytes, ``etag`` and ``metadata``."""

    size: int
    etag: str | None
    metadata: dict[str, Any] | None

    def __new__(cls, stored: FileMetadata) -> StoredUri:
        """Make the URI of what is stored."""
        made = super().__new__(cls, stored.uri)
        made.size, made.etag, made.metadata = stored.size, stored.etag, stored.metadata
        return made

    @property
    def uri(self) -> str:
        """The URI as a plain text."""
        return str(self)

    def fields(self) -> dict[str, Any]:
        """Return all that is known, as `FileMetadata` has it."""
        return {"uri": self.uri, "size": self.size, "etag": self.etag, "metadata": self.metadata}

    def __reduce__(self) -> tuple[type[StoredUri], tuple[FileMetadata]]:
        return StoredUri, (FileMetadata(**self.fields()),)
