"""TLS material for HTTP and WebSocket: PEM files, verification always on, TLS 1.2 at least."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path

import msgspec


class TlsFiles(msgspec.Struct, frozen=True):
    """Paths of PEM files. ``ca`` is trusted besides the system's; ``cert`` and ``key`` identify the worker (mTLS)."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def fingerprint(self) -> tuple[bytes | None, ...]:
        """Return a value that changes with the files' contents. A file that cannot be read counts as absent."""
        return tuple(_digest(path) for path in (self.ca, self.cert, self.key))

    def problems(self) -> list[str]:
        """Return what is wrong with the files: some HTTP libraries silently ignore a CA that holds no certificate."""
        found: list[str] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the system's authorities, which take 50 ms to load
        if self.ca is not None:
            try:
                context.load_verify_locations(self.ca)
            except OSError as error:
                found.append(f"TLS_CA_PATH={self.ca}: must be certificates in PEM form{_why(error)}")
        if self.cert is not None and self.key is not None:
            try:
                self._load_identity(context)
            except (OSError, ValueError) as error:
                what = f"TLS_CERT_PATH={self.cert}, TLS_KEY_PATH={self.key}"
                found.append(f"{what}: must be a certificate and its key, not encrypted, in PEM form{_why(error)}")
        return found

    def ssl_context(self) -> ssl.SSLContext:
        """Make a context for new connections. Raises OSError or ValueError for files that cannot be used."""
        context = ssl.create_default_context()
        if self.ca is not None:
            context.load_verify_locations(self.ca)
        elif not _has_authorities(context):
            raise ValueError("the system trusts no authority: install ca-certificates, or set TLS_CA_PATH")
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._load_identity(context)
        return context

    def _load_identity(self, context: ssl.SSLContext) -> None:
        if self.cert is not None and self.key is not None:
            context.load_cert_chain(self.cert, self.key, password=_no_password)


def _has_authorities(context: ssl.SSLContext) -> bool:
    """Return whether the system trusts any authority: small containers may come without."""
    directory = ssl.get_default_verify_paths().capath or ""  # read when needed: the context does not know it yet
    return bool(context.cert_store_stats()["x509_ca"]) or (bool(directory) and any(Path(directory).iterdir()))


def _digest(path: Path | None) -> bytes | None:
    try:
        return hashlib.sha256(path.read_bytes()).digest() if path else None
    except OSError:
        return None


def _no_password() -> str:
    """Refuse to enter a password, which OpenSSL would otherwise ask for at the terminal."""
    raise ValueError("the key is encrypted")


def _why(error: Exception) -> str:
    reason = getattr(error, "reason", None) or (str(error) if isinstance(error, ValueError) else None)
    return f" ({str(reason).lower().replace('_', ' ')})" if reason else ""
