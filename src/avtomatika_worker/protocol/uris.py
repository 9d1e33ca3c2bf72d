"""Names of objects in stores: ``s3://bucket/key``, and likewise for the other schemes."""

from __future__ import annotations

import re
from typing import Any, Final

FORMAT: Final = "s3-uri"
"""The JSON Schema ``format`` of a text that stays a URI."""

_URI: Final = re.compile(r"(s3|gs|az|file)://([^/]*)/?(.*)", re.DOTALL)


class S3Uri(str):
    """The URI of an object, ``s3://bucket/key``, or of everything under a prefix if it ends in ``/``.

    As a param's type it requests the URI itself: nothing is downloaded. ``gs://``, ``az://`` and ``file://`` have the
    same form. Any other text has an empty ``scheme``.
    """

    __slots__ = ()

    @property
    def scheme(self) -> str:
        """The store's kind: ``s3``, ``gs``, ``az`` or ``file``."""
        return self._part(1)

    @property
    def bucket(self) -> str:
        """The bucket, or the container; empty for ``file``."""
        return self._part(2)

    @property
    def key(self) -> str:
        """The object's name in its bucket, verbatim: nothing in it is percent-encoded."""
        return self._part(3)

    @property
    def is_prefix(self) -> bool:
        """Whether it stands for every object under it."""
        return self.endswith("/")

    def _part(self, group: int) -> str:
        match = _URI.fullmatch(self)
        return match[group] if match else ""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        """Describe the type for pydantic, if installed: a text in, an `S3Uri` out."""
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(cls, core_schema.str_schema())

    @classmethod
    def __get_pydantic_json_schema__(cls, _core_schema: Any, _handler: Any) -> dict[str, Any]:
        """Return the type's JSON Schema for pydantic."""
        return dict(JSON_SCHEMA)


JSON_SCHEMA: Final = {"type": "string", "format": FORMAT}
"""The schema of an `S3Uri`."""


def is_object_uri(value: object) -> bool:
    """Whether ``value`` is a text that names an object, or everything under a prefix."""
    return isinstance(value, str) and _URI.fullmatch(value) is not None


def is_web_url(value: object) -> bool:
    """Whether ``value`` is a text that names a file on the web: ``https://…``."""
    return isinstance(value, str) and value[:8].lower() == "https://"


def for_messages(uri: str) -> str:
    """Return a URI as messages may show it: of a URL, neither the query, which may be a signature, nor a password."""
    scheme, separator, rest = uri.partition("://")
    if not separator or is_object_uri(uri):
        return uri
    return f"{scheme}://{rest.partition('?')[0].partition('#')[0].rpartition('@')[2]}"
