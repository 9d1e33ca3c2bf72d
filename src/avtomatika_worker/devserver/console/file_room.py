"""The console's files: uploads for params, and files that results name."""

from __future__ import annotations

import asyncio
import contextlib
import mimetypes
import uuid
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web

from avtomatika_worker.devserver.client_api import ClientError

_LARGEST: Final = 2 * 2**30
_CHUNK: Final = 2**20
_PREFIX: Final = "file://"
_SHOWN: Final = frozenset(
    {"image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/svg+xml", "image/bmp", "text/plain"}
)
_HEADERS: Final = {
    # A task's file (an SVG, a page) opened on its own must not be able to do what the console can.
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class FileRoom:
    """The directory for uploaded and displayed files: the one that the worker's ``file://`` URIs may name.

    ``as_uris``: whether the worker can fetch ``file://`` URIs; if not, it gets uploads as paths.
    """

    def __init__(self, root: Path, *, as_uris: bool) -> None:
        self._root = root
        self._as_uris = as_uris

    async def take(self, request: web.Request) -> dict[str, Any]:
        """Store a request's body under the ``name`` in its query; return how params may refer to it.

        Raises `ClientError`.
        """
        name = _safe_name(request.query.get("name", ""))
        path = await asyncio.to_thread(self._place, name)
        try:
            size = await _receive(request, path)
        except BaseException:
            await asyncio.to_thread(path.unlink, missing_ok=True)
            raise
        uri = f"{_PREFIX}{path.as_posix()}"
        return {"name": name, "size": size, "uri": uri, "value": uri if self._as_uris else str(path)}

    def _place(self, name: str) -> Path:
        directory = self._root.resolve() / "console-uploads" / uuid.uuid4().hex[:12]
        directory.mkdir(mode=0o700, parents=True)
        return directory / name

    async def show(self, uri: str, *, download: bool) -> web.StreamResponse:
        """Answer with the file that a URI or path names. Raises `ClientError`."""
        path = await asyncio.to_thread(self._find, uri)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        response = web.FileResponse(path, headers=_HEADERS)
        response.content_type = kind if kind in _SHOWN else "application/octet-stream"
        if download or kind not in _SHOWN:
            response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(path.name)}"
        return response

    def _find(self, uri: str) -> Path:
        root = self._root.resolve()
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # not a path: it has a NUL, or a loop of links
            path = Path(uri.removeprefix(_PREFIX)).resolve()
            if path.is_relative_to(root) and path.is_file():
                return path
        raise ClientError(404, "no such file among those that tasks were given or have stored here")


async def _receive(request: web.Request, path: Path) -> int:
    size = 0
    file = await asyncio.to_thread(path.open, "xb")
    try:
        async for chunk in request.content.iter_chunked(_CHUNK):
            size += len(chunk)
            if size > _LARGEST:
                raise ClientError(413, f"the file is larger than {_LARGEST // 2**30} GiB")
            await asyncio.to_thread(file.write, chunk)
    finally:
        await asyncio.to_thread(file.close)
    return size


def _safe_name(text: str) -> str:
    """Return the last part of a name without characters that file systems reject."""
    name = text.replace("\\", "/").rpartition("/")[2]
    name = "".join(character for character in name if character.isprintable() and character not in '<>:"|?*')
    name = name.strip(" .")[-100:].strip(" .")
    return name or "file"
