"""TLS material for HTTP and WebSocket: PEM files, verification always on, TLS 1.2 at least."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of PEM files. ``ca`` is trusted besides the system's; ``cert`` and ``key`` identify the worker (mTLS)."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def ca_pem(self) -> bytes | None:
        """Read the CA's certificates."""
        return self.ca.read_bytes() if self.ca else None

    def identity_pem(self) -> bytes | None:
        """Read certificate and key as one PEM text."""
        if self.cert is None or self.key is None:
            return None
        return self.cert.read_bytes() + b"\n" + self.key.read_bytes()

    def ssl_context(self) -> ssl.SSLContext:
        """Make a context for the WebSocket."""
        context = ssl.create_default_context(cafile=str(self.ca) if self.ca else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is not None and self.key is not None:
            context.load_cert_chain(self.cert, self.key)
        return context
