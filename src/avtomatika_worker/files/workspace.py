"""The directory of one task, and the operations in it. All of them block: call them in a thread."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path, PurePath
from typing import IO, Any, Final, Literal, Protocol, overload

import msgspec

from avtomatika_worker.errors import UnsafeNameError
from avtomatika_worker.files.names import confined, resolved
from avtomatika_worker.files.ownership import make_directories

Name = str | os.PathLike[str]
"""A name relative to the task's directory, or a path in it."""

Names = list[str]

_UTF_8: Final = "utf-8"
_WRITING: Final = frozenset("wax+")


class Directories(Protocol):
    """Makes and removes directories for tasks. Both block."""

    def make(self, task_id: str) -> Path:
        """Make a directory for a task."""
        ...

    def remove(self, path: Path) -> None:
        """Remove the directory and its content."""
        ...


class Workspace:
    """The directory of one task; it is created when first needed. Every name in it is checked."""

    def __init__(self, task_id: str, workspaces: Directories) -> None:
        self._task_id = task_id
        self._workspaces = workspaces
        self._guard = threading.Lock()
        self._root: Path | None = None

    @property
    def made(self) -> Path | None:
        """The directory, or None before it is needed."""
        return self._root

    def get_root(self) -> Path:
        """Return the directory."""
        with self._guard:
            if self._root is None:
                self._root = self._workspaces.make(self._task_id)
            return self._root

    def remove(self) -> None:
        """Remove the directory and its content."""
        with self._guard:
            root, self._root = self._root, None
        if root is not None:
            self._workspaces.remove(root)

    def confined(self, name: Name) -> Path:
        """Return the path of ``name``. Raises `UnsafeNameError` if it leads elsewhere."""
        return confined(self.get_root(), name)

    def path_to(self, name: Name) -> Path:
        """Return the path of ``name``; its parent directory exists on return."""
        path = self.confined(name)
        make_directories(path.parent)
        return path

    def file(self, name: Name) -> Path:
        """Return the path of an existing file. Raises FileNotFoundError."""
        path = self.confined(name)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {os.fspath(name)!r} in the task's directory")
        return path

    def tree(self, name: Name) -> tuple[Path, dict[str, Path]]:
        """Return a directory and all files below it, by their relative names.

        Raises FileNotFoundError if it does not exist, and `UnsafeNameError` for anything below it that is not a file of
        the task's: a link that leads out, a pipe.
        """
        path = self.confined(name)
        if not path.is_dir():
            raise FileNotFoundError(f"there is no directory {os.fspath(name)!r} in the task's directory")
        found: dict[str, Path] = {}
        for parent, directories, names in os.walk(path):
            links = [each for each in directories if Path(parent, each).is_symlink()]
            for each in (Path(parent, name) for name in (*names, *links)):
                found[each.relative_to(path).as_posix()] = self._regular(each)
        return path, found

    def _regular(self, path: Path) -> Path:
        """Return a file's real path. Links are followed one by one, which is slow; most files are not links."""
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            path = resolved(self.get_root(), path, str(path))
            mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise UnsafeNameError(str(path), "it is not a regular file")
        return path

    def exists(self, name: Name) -> bool:
        """Return whether the file or directory exists."""
        return self.confined(name).exists()

    def list(self, directory: Name, *, recursive: bool) -> Names:
        """Return the names in a directory, sorted, or those of all files below it."""
        path = self.confined(directory)
        if not recursive:
            return sorted(entry.name for entry in path.iterdir())
        return sorted(
            Path(parent, name).relative_to(path).as_posix() for parent, _, names in os.walk(path) for name in names
        )

    def open(self, name: Name, mode: str = "r", encoding: str | None = None) -> IO[Any]:
        """Open a file; for writing, its parent directory is created."""
        path = self.path_to(name) if _WRITING & set(mode) else self.confined(name)
        return path.open(mode, encoding=None if "b" in mode else encoding or _UTF_8)

    @overload
    def read(self, name: Name, mode: Literal["r"] = ..., encoding: str | None = None) -> str: ...

    @overload
    def read(self, name: Name, mode: Literal["rb"], encoding: str | None = None) -> bytes: ...

    def read(self, name: Name, mode: Literal["r", "rb"] = "r", encoding: str | None = None) -> str | bytes:
        """Return a file's content."""
        with self.open(name, mode, encoding) as file:
            content: str | bytes = file.read()
            return content

    def write(self, name: Name, content: str | bytes, mode: str = "w", encoding: str | None = None) -> Path:
        """Write ``content``, a text or bytes, and return the path."""
        kind = "" if isinstance(content, str) else "b"
        with self.open(name, mode.replace("b", "") + kind, encoding) as file:
            file.write(content)
        return self.confined(name)

    def read_json(self, name: Name) -> Any:
        """Return the value in a JSON file."""
        return msgspec.json.decode(self.read(name, "rb"))

    def write_json(self, name: Name, value: Any) -> Path:
        """Write a value as JSON and return the path."""
        return self.write(name, msgspec.json.encode(value, enc_hook=_encode), "wb")


def _encode(value: object) -> Any:
    """Encode a type that msgspec does not know. Raises TypeError for an unknown one."""
    if isinstance(value, PurePath | str):
        return str(value)
    dump = getattr(value, "model_dump", None)  # pydantic
    if callable(dump) and not isinstance(value, type):
        return dump(mode="json", by_alias=True)
    raise TypeError(f"{type(value).__qualname__} is not JSON-able")
