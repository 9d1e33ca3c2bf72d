"""moto's server, as the tests of files have it."""

from files.conftest import s3

__all__ = ["s3"]
