"""Holds the files of tasks under test: a directory instead of an object store."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from avtomatika_worker.files.offload import name_of, replaced, texts
from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.protocol.uris import S3Uri
from avtomatika_worker.skills.strays import paths_in

_SCHEME: Final = "file://"


class Storage:
    """A directory that lasts as long as it is referenced: results can be examined after the worker has ended."""

    def __init__(self, root: Path | None = None) -> None:
        """Use the caller's directory, or make one."""
        if root is None:
            root = Path(tempfile.mkdtemp(prefix="avtomatika-test-"))
            # Not TemporaryDirectory: that warns if left to the garbage collector, which is intended here.
            weakref.finalize(self, shutil.rmtree, root, ignore_errors=True)
        self.root: Path = root.resolve()

    def put(self, name: str, content: str | bytes | Path) -> S3Uri:
        """Store a task's file in a directory of its own and return its URI.

        Raises ValueError for a name that is not a file's.
        """
        if name in {"", ".."} or Path(name).name != name:
            raise ValueError(f"{name!r} is not the name of a file: it must have no directories")
        path = self.root / "in" / uuid.uuid4().hex / name
        path.parent.mkdir(parents=True)
        if isinstance(content, Path):
            copy = shutil.copytree if content.is_dir() else shutil.copyfile
            copy(content, path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return S3Uri(f"{_SCHEME}{path.as_posix()}{'/' if path.is_dir() else ''}")

    def with_uris(self, value: object, plain: dict[str, Any]) -> dict[str, Any]:
        """Return ``plain``, made from ``value``, with each `Path` in the latter stored and replaced by its URI.

        Raises OSError if copying fails.
        """
        named = (path for path in map(Path, paths_in(value)) if path.name)
        files = {str(path): path for path in named if os.path.exists(path)}  # noqa: PTH110 - Path's raises for some
        if not files:
            return plain
        uris = {text: str(self.put(path.name, path)) for text, path in files.items()}
        wanted = {place: uris[text] for place, text in texts(plain) if text in uris}
        return as_object(replaced(plain, wanted))

    def files_in(self, data: Mapping[str, Any]) -> dict[str, Path]:
        """Return the stored files and directories that ``data`` names, by where it names them."""
        start = f"{_SCHEME}{self.root.as_posix()}/"
        found = {name_of(place): text for place, text in texts(data) if text.startswith(start)}
        return {name: Path(text.removeprefix(_SCHEME)) for name, text in found.items()}
