"""HMAC-SHA256 over canonical bytes (RXON.md, "Signing")."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.protocol.dialects import Dialect

SECURITY_FIELD = "security"
TASK_SIGNATURE_FIELDS = frozenset({"sig", "orchestrator_signature"})
NOTHING: frozenset[str] = frozenset()
_LEFT_OUT = (frozenset({SECURITY_FIELD}), frozenset({SECURITY_FIELD, "_signature"}))


class Signer:
    """Signs with one key. The key never appears in ``repr`` or in an error."""

    __slots__ = ("_keyed",)

    def __init__(self, key: str) -> None:
        # The keyed state is computed once; copying it saves two SHA-256 compressions per message.
        self._keyed = hmac.new(key.encode(), digestmod=hashlib.sha256)

    def sign(self, data: bytes) -> str:
        """Return the hex digest of ``data``."""
        state = self._keyed.copy()
        state.update(data)
        return state.hexdigest()

    def verify(self, data: bytes, signature: object) -> bool:
        """Return, in constant time, whether ``signature`` is the hex digest of ``data``."""
        if not isinstance(signature, str) or not signature.isascii():
            return False
        return hmac.compare_digest(self.sign(data), signature)

    def __repr__(self) -> str:
        return "Signer(***)"


def signed_bytes(message: dict[str, Any], dialect: Dialect, ignored: frozenset[str] = NOTHING) -> bytes:
    """Return the signed bytes of a message: all but ``security`` and the ``ignored`` top-level fields.

    Raises `UnsendableValueError` for a message whose canonical form does not exist.
    """
    left_out = ignored | _LEFT_OUT[dialect.signature_key_dropped]
    return canonical_bytes({key: value for key, value in message.items() if key not in left_out}, dialect)


def verify_message(
    message: dict[str, Any], signer: Signer, dialect: Dialect, ignored: frozenset[str] = NOTHING
) -> bool:
    """Return whether a received message has the right signature in ``security.signature``.

    Raises `UnsendableValueError` for a message whose canonical form does not exist.
    """
    signature = as_object(message.get(SECURITY_FIELD)).get("signature")
    return signer.verify(signed_bytes(message, dialect, ignored), signature)


def verified_task(task: dict[str, Any], signer: Signer, dialect: Dialect) -> bytes | None:
    """Return the bytes of a task signed by its ``sig``, or None if that is wrong.

    Raises `UnsendableValueError` for a task whose canonical form does not exist.
    """
    data = canonical_bytes({key: value for key, value in task.items() if key not in TASK_SIGNATURE_FIELDS}, dialect)
    return data if signer.verify(data, task.get("sig")) else None
