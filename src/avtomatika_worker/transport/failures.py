"""Describes failed connections for people. Decides by types and codes, never by the text of an error."""

from __future__ import annotations

import os
import socket
import ssl


def describe(error: Exception) -> str:
    """Return why a connection could not be established, or ended."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or str(error)).lower().replace('_', ' ')}"
    if isinstance(error, ssl.CertificateError):
        return f"certificate verify failed: {error}"
    if isinstance(error, socket.gaierror):
        return f"name lookup failed: {error.strerror or error}"
    if isinstance(error, UnicodeError):  # an invalid host name
        return f"name lookup failed: {error}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # not the error's text, which differs between event loops
    return str(error) or type(error).__name__
