"""Decompresses the bodies of answers, only as far as requested."""

from __future__ import annotations

import importlib
import sys
import zlib
from typing import Any, Final

from avtomatika_worker.errors import ConnectionFailedError

zstd: Final[Any] = importlib.import_module("compression.zstd") if sys.version_info >= (3, 14) else None

_GZIP: Final = 16 + zlib.MAX_WBITS  # what makes zlib expect a gzip header
_LARGEST_WINDOW: Final = 23
"""log2 of a zstd frame's largest window: 8 MiB, which the format asks decoders to support."""

_ERRORS: Final = (zlib.error, EOFError, *(() if zstd is None else (zstd.ZstdError,)))

ACCEPTED: Final = "gzip" if zstd is None else "zstd, gzip"
"""The value of ``Accept-Encoding``."""


class Decoder:
    """Reads a compressed body. Raises `ConnectionFailedError` for an encoding that was not asked for."""

    def __init__(self, encoding: str, body: bytes) -> None:
        self._pending = body
        self._zstd = False
        if encoding == "zstd" and zstd is not None:
            self._zstd = True
            options = {zstd.DecompressionParameter.window_log_max: _LARGEST_WINDOW}
            self._stream: Any = zstd.ZstdDecompressor(options=options)
        elif encoding in {"gzip", "x-gzip"}:
            self._stream = zlib.decompressobj(_GZIP)
        else:
            raise ConnectionFailedError(f"the answer has a compression that was not requested: {encoding[:40]!r}")

    def read(self, most: int) -> bytes:
        """Return up to ``most`` more bytes, none at the end. Raises `ConnectionFailedError` for malformed bodies."""
        if self._stream.eof:
            if self._stream.unused_data:
                raise ConnectionFailedError("the answer continues after its compressed body")
            return b""
        try:
            data: bytes = self._stream.decompress(self._pending, most)
        except _ERRORS as error:
            raise ConnectionFailedError(f"the answer cannot be decompressed: {error}") from None
        self._pending = b"" if self._zstd else self._stream.unconsumed_tail
        if not data and not self._stream.eof:
            raise ConnectionFailedError("the answer's compressed body is cut off")
        return data or self.read(most)
