"""Object locations: URIs, checked and parsed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from avtomatika_worker.errors import DependencyMissingError, InvalidInputError, UnsafeNameError
from avtomatika_worker.files.names import check_key
from avtomatika_worker.protocol.uris import S3Uri, for_messages

_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
FILE: Final = "file"


class Location(msgspec.Struct, frozen=True):
    """An object, or everything under a prefix. ``key`` has no outer slashes; for ``file``, relative to the root."""

    uri: str
    scheme: str
    bucket: str
    key: str
    is_prefix: bool

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    def below(self, relative: str) -> Location:
        """Return the object with this name under the prefix. Raises `UnsafeNameError`."""
        uri = self.uri + relative
        check_key(relative, uri)
        return msgspec.structs.replace(
            self, uri=uri, key=f"{self.key}/{relative}" if self.key else relative, is_prefix=False
        )


def locate(uri: str, file_root: Path | None) -> Location:
    """Parse a URI. ``file_root``: a resolved path, the only directory that ``file://`` may name.

    Raises `InvalidInputError` for any other URI, `UnsafeNameError` for a key that could lead elsewhere, and
    `DependencyMissingError` for ``file://`` without a root.
    """
    parsed = S3Uri(uri)
    key = parsed.key.removesuffix("/") if parsed.is_prefix else parsed.key
    if parsed.scheme == FILE:
        key = _below_root(parsed, key, file_root)
    elif not parsed.scheme or _BUCKET.fullmatch(parsed.bucket) is None:
        shown = for_messages(uri)
        raise InvalidInputError(f"{shown!r:.300} is not an object's URI, such as s3://bucket/key", {"uri": shown[:300]})
    if key:
        check_key(key, uri)
    elif not parsed.is_prefix:
        raise InvalidInputError(f"{uri!r:.300} names no object", {"uri": uri[:300]})
    return Location(uri, parsed.scheme, parsed.bucket, key, parsed.is_prefix)


def _below_root(uri: S3Uri, key: str, root: Path | None) -> str:
    if root is None:
        raise DependencyMissingError(f"{uri:.300}: this worker accepts no file:// (WORKER_FILE_STORE_ROOT is not set)")
    if uri.bucket:
        raise UnsafeNameError(uri, "file:// with a host")
    path, prefix = f"/{key}", f"{root.as_posix().rstrip('/')}/"
    if not f"{path}/".startswith(prefix):
        raise UnsafeNameError(uri, "it is not inside WORKER_FILE_STORE_ROOT")
    return path[len(prefix) :]
