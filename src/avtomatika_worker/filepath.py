"""`FilePath`: a path that is a text, as ``open`` and most libraries take it, and has pathlib's ways."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:

    class FilePath(str, Path):  # type: ignore[misc]  # pyright: ignore
        """A path of the task's, a ``str`` that has the methods of ``pathlib.Path``."""

else:

    class FilePath(str):
        """A path of the task's, a ``str`` that has the methods of ``pathlib.Path``.

        Where both have one of the same name (``replace``, ``index``, …), it is that of ``str``.
        """

        __slots__ = ()

        def __fspath__(self) -> str:
            return str(self)

        def __truediv__(self, other: str | os.PathLike[str]) -> FilePath:
            return FilePath(Path(self) / other)

        def __rtruediv__(self, other: str | os.PathLike[str]) -> FilePath:
            return FilePath(other / Path(self))

        def __getattr__(self, name: str) -> Any:
            found = getattr(Path(str(self)), name)
            if not callable(found):
                return as_file_path(found)

            def method(*args: Any, **kwargs: Any) -> Any:
                return as_file_path(found(*args, **kwargs))

            return method

        def __dir__(self) -> list[str]:
            return sorted({*super().__dir__(), *dir(Path)})


def as_file_path(value: Any) -> Any:
    """Return a `FilePath` for a path; any other value as it is."""
    return FilePath(value) if isinstance(value, Path) else value
