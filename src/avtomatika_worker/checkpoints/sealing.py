"""Encrypts what is stored, with AES-256-GCM, in chunks: files of any size, none of them whole in memory.

    AVSEAL1\\n · salt (16 bytes) · chunks of 1 MiB, each with its tag of 16 bytes

Each object has a key of its own, derived (HKDF-SHA256) from the configured one and the salt. A chunk's nonce is its
number, and whether it is the last: none can be left out, moved or added. What an object is (its name in the store) is
authenticated with every chunk, so that one cannot take another's place.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator
from typing import IO, Any, Final

from avtomatika_worker._extras import install_hint

SEAL: Final = b"AVSEAL1\n"
_SALT: Final = 16
_TAG: Final = 16
_CHUNK: Final = 1024 * 1024
_KEY: Final = 32
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}")


class DamagedError(Exception):
    """A checkpoint that cannot be used: incomplete, altered, of another version, or sealed with another key."""


class MissingLibraryError(Exception):
    """Nothing here can encrypt."""


def key_of(text: str) -> bytes:
    """Return the 32 bytes of a key that is written as 64 hexadecimal digits or in base64. Raises ValueError."""
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY:
        raise ValueError("must be 32 random bytes, as 64 hexadecimal digits or in base64 (openssl rand -hex 32)")
    return key


class Sealer:
    """Seals with one key. Safe in any thread."""

    def __init__(self, key: bytes) -> None:
        """Raise `MissingLibraryError` if the library is not installed."""
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise MissingLibraryError(f"encryption needs cryptography; {install_hint('encryption')}") from None
        self._key = key
        self._cipher: Any = AESGCM

    def seal(self, source: IO[bytes], target: IO[bytes], name: str) -> None:
        """Copy ``source``, encrypted, as the object ``name``."""
        salt = os.urandom(_SALT)
        cipher = self._cipher(_derived(self._key, salt))
        target.write(SEAL + salt)
        for number, chunk, is_last in _chunks(source, _CHUNK):
            target.write(cipher.encrypt(_nonce(number, is_last=is_last), chunk, name.encode()))

    def unseal(self, source: IO[bytes], target: IO[bytes], name: str) -> None:
        """Copy the object ``name``, decrypted. Raises `DamagedError`; what was written then is worth nothing."""
        from cryptography.exceptions import InvalidTag

        if source.read(len(SEAL)) != SEAL:
            raise DamagedError("it is not encrypted, and CHECKPOINT_KEY is set")
        salt = source.read(_SALT)
        if len(salt) != _SALT:
            raise DamagedError("it is incomplete")
        cipher = self._cipher(_derived(self._key, salt))
        for number, chunk, is_last in _chunks(source, _CHUNK + _TAG):
            try:
                target.write(cipher.decrypt(_nonce(number, is_last=is_last), chunk, name.encode()))
            except InvalidTag:
                raise DamagedError("it was altered, is incomplete, or was encrypted with another key") from None


def _derived(key: bytes, salt: bytes) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(SHA256(), length=_KEY, salt=salt, info=b"avtomatika-worker checkpoint").derive(key)


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([is_last])


def _chunks(source: IO[bytes], size: int) -> Iterator[tuple[int, bytes, bool]]:
    """Yield number, content and whether it is the last; of an empty file, one empty chunk."""
    number, chunk = 0, source.read(size)
    while True:
        following = source.read(size) if len(chunk) == size else b""
        yield number, chunk, not following
        if not following:
            return
        number, chunk = number + 1, following
