"""The hosts that issue cloud credentials, for when obstore looks for credentials itself."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from avtomatika_worker.files.egress_route import Authority

_MACHINE: Final = "http://169.254.169.254"
"""The metadata service of the machine, on all three clouds."""

_HOSTS: Final = {
    "s3": (_MACHINE, "http://169.254.170.2"),
    "gs": (
        _MACHINE,
        "http://metadata.google.internal",
        "https://accounts.google.com",
        "https://oauth2.googleapis.com",
        "https://sts.googleapis.com",
        "https://iamcredentials.googleapis.com",
    ),
    "az": (_MACHINE, "https://login.microsoftonline.com"),
}

_VARIABLES: Final = {
    "s3": (
        "AWS_METADATA_ENDPOINT",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_ENDPOINT_URL_STS",
        "AWS_STS_ENDPOINT",
    ),
    "gs": ("GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP"),
    "az": (
        "AZURE_AUTHORITY_HOST",
        "AZURE_STORAGE_AUTHORITY_HOST",
        "AZURE_MSI_ENDPOINT",
        "AZURE_IDENTITY_ENDPOINT",
        "IDENTITY_ENDPOINT",
        "MSI_ENDPOINT",
        "AZURE_FABRIC_TOKEN_SERVICE_URL",
    ),
}
"""The variables from which obstore takes other addresses: URLs, or hosts with or without a port."""


def credential_hosts(scheme: str, region: str) -> frozenset[Authority]:
    """Return the hosts that may be asked for credentials for a kind of store."""
    named = (os.environ.get(variable) for variable in _VARIABLES[scheme])
    urls: Iterable[str] = (*_HOSTS[scheme], *(each for each in named if each))
    if scheme == "s3":
        urls = (*urls, f"https://sts.{region}.amazonaws.com")
    return frozenset(each for url in urls if (each := _authority(url)) is not None)


def _authority(url: str) -> Authority | None:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None
    return (parts.hostname, port) if parts.hostname else None
