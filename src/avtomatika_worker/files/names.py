"""Checks names from outside before anything is read or written under them."""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath
from typing import Final

from avtomatika_worker.errors import UnsafeNameError
from avtomatika_worker.protocol.uris import for_messages

_LONGEST: Final = 200
"""The most bytes in one part of a name: file systems allow 255, and temporary names are longer than final ones."""

_DEEPEST: Final = 100


def check_part(part: str, name: str) -> str:
    """Return ``part`` of ``name`` if it can be a file name. Raises `UnsafeNameError`."""
    if part in {"", ".", ".."}:
        raise UnsafeNameError(name, f"it has a part {part!r}")
    if any(ord(character) < 32 or ord(character) == 127 for character in part):
        raise UnsafeNameError(name, "it has a control character")
    if os.sep != "/" and (os.sep in part or ":" in part):  # Windows
        raise UnsafeNameError(name, f"{part!r} is itself a path on this system")
    try:
        long = len(part.encode()) > _LONGEST
    except UnicodeEncodeError:
        raise UnsafeNameError(name, "it is not Unicode") from None
    if long:
        raise UnsafeNameError(name, f"a part of it is longer than {_LONGEST} bytes")
    return part


def check_key(key: str, name: str) -> tuple[str, ...]:
    """Return the parts of an object's key, or of a relative path. Raises `UnsafeNameError` that quotes ``name``."""
    parts = tuple(key.split("/"))
    if len(parts) > _DEEPEST:
        raise UnsafeNameError(name, f"it is deeper than {_DEEPEST} directories")
    return tuple(check_part(part, name) for part in parts)


def check_given(text: str) -> None:
    """Refuse a text for a task's file that is neither a URI nor a name relative to the task's directory.

    Texts that another system would read as an absolute path, or as the parent directory, are refused too. Raises
    `UnsafeNameError`.
    """
    windows = PureWindowsPath(text)
    if "://" in text or text.lower().startswith("file:"):
        raise UnsafeNameError(
            for_messages(text), "it is a URI of an unsupported kind (use s3://, gs://, az://, file:// or https://)"
        )
    if text.startswith("/") or windows.drive or windows.root:
        raise UnsafeNameError(text, "it is a path on a machine")
    if text.startswith("~"):
        raise UnsafeNameError(text, "it is a path in a user's home")
    if ".." in windows.parts:
        raise UnsafeNameError(text, "it has a part '..'")


def confined(root: Path, name: str | os.PathLike[str]) -> Path:
    """Return the path of ``name`` below ``root``, symbolic links followed.

    ``root`` is a resolved path; ``name`` is relative to it, or absolute and inside it. The file need not exist. Raises
    `UnsafeNameError` for anything that is, or leads, elsewhere. Blocks on the disk.
    """
    text = _text(name)
    relative = _relative_to(root, text)
    if relative in {"", "."}:
        return root
    parts = check_key(relative.removesuffix("/"), text)
    return resolved(root, root.joinpath(*parts), text)


def resolved(root: Path, path: Path, name: str) -> Path:
    """Return ``path`` with symbolic links followed. Raises `UnsafeNameError` if that leads out of ``root``."""
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:  # a link to itself; a name too long
        raise UnsafeNameError(name, f"it cannot be followed: {error.__class__.__name__}") from None
    if target != root and root not in target.parents:
        raise UnsafeNameError(name, "it leads out of its directory")
    return target


def _text(name: str | os.PathLike[str]) -> str:
    text = os.fspath(name)
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users' calls are not checked
        raise UnsafeNameError(repr(text), "it is not a text")
    return text


def _relative_to(root: Path, text: str) -> str:
    """Strip the root from a name that begins with it: a path from `TaskFiles.path_to` is a name too."""
    if not Path(text).is_absolute() and not text.startswith("/"):
        return text
    prefix = f"{root}{os.sep}"
    if text == str(root):
        return ""
    if not text.startswith(prefix):
        raise UnsafeNameError(text, "it is an absolute path")
    return text[len(prefix) :]
