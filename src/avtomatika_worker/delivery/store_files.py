"""Checks a store's files before SQLite opens them. Foreign files, and logs that SQLite would drop, are set aside."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_log: Final = logging.getLogger("avtomatika_worker.outbox")

_WAL: Final = "-wal"
_SUFFIXES: Final = ("", _WAL, "-shm", "-journal")
_WAL_MAGIC: Final = frozenset({b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"})
_WAL_HEAD: Final = 32


class UnusableFileError(Exception):
    """The file at the store's path is not one of our stores."""


def check_files(path: Path) -> None:
    """Check the files of the store at ``path``, and make them private.

    Raises `UnusableFileError` for files that somebody else may have made or changed. If only the log is invalid, that
    is set aside.
    """
    for each in (Path(f"{path}{suffix}") for suffix in _SUFFIXES):
        try:
            status = each.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(status.st_mode):
            raise UnusableFileError(f"{each.name} is not a regular file")
        if sys.platform == "win32":
            continue
        if status.st_uid != os.geteuid():
            raise UnusableFileError(f"{each.name} belongs to another user")
        if status.st_nlink > 1:
            raise UnusableFileError(f"{each.name} has other hard links")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UnusableFileError(f"others may write to {each.name}")
        if stat.S_IMODE(status.st_mode) != 0o600:
            each.chmod(0o600)
    _check_log(path)


def _check_log(path: Path) -> None:
    """Set aside a write-ahead log that SQLite would drop silently, with the results that may be in it."""
    log = Path(f"{path}{_WAL}")
    if not _size_of(log):
        return
    if not _size_of(path):
        set_aside(path, UnusableFileError("the file it belongs to is gone"), (_WAL, "-shm"))
    elif not _is_log(log):
        set_aside(path, UnusableFileError("it is not an SQLite log"), (_WAL, "-shm"))


def set_aside(path: Path, error: Exception, suffixes: Sequence[str] = _SUFFIXES) -> None:
    """Rename the files of the store at ``path``, or those with ``suffixes``, and log the ``error``. Raises OSError."""
    aside = path.with_name(f"{path.name}.corrupt-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}")
    for suffix in suffixes:
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").replace(f"{aside}{suffix}")
    _log.error(
        "%s%s cannot be used (%s): set aside as %s%s; the results in it are not sent",
        path,
        suffixes[0],
        error,
        aside.name,
        suffixes[0],
        extra={"action": "store_corrupt"},
    )


def _is_log(path: Path) -> bool:
    """Return whether a file starts like a write-ahead log, or is too short to hold anything."""
    with path.open("rb") as file:
        head = file.read(_WAL_HEAD)
    return len(head) < _WAL_HEAD or head[:4] in _WAL_MAGIC


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
