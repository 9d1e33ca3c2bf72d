"""A place for Unix sockets, whose paths may be no longer than about a hundred bytes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

_SHORT: Final = Path("/tmp")  # noqa: S108 - the directory in it is 0700

_LONGEST: Final = 80
"""Bytes of a directory's path that leave room for a name: macOS allows 104 bytes for both, Linux 108."""


def socket_directory() -> tempfile.TemporaryDirectory[str]:
    """Make a private directory for sockets: in ``/tmp`` where the path of the usual place is too long for one.

    Raises OSError.
    """
    directory = tempfile.TemporaryDirectory(prefix="worker-")
    if len(os.fsencode(directory.name)) <= _LONGEST or not _SHORT.is_dir():
        return directory
    directory.cleanup()
    return tempfile.TemporaryDirectory(prefix="worker-", dir=_SHORT)
