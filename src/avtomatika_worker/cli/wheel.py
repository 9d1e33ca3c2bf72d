"""Builds a wheel of the installed package, for a new project to install: no index has it."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final

from avtomatika_worker.cli.worker_app import UsageProblem

PACKAGES: Final = ("avtomatika_worker", "avtomatika_worker_pytest")
_METADATA: Final = ("METADATA", "WHEEL", "entry_points.txt")


class InstalledPackage:
    """This package as it is installed: from a wheel, from a clone, or editable."""

    def __init__(self) -> None:
        try:
            self._distribution: Distribution = distribution("avtomatika-worker")
        except PackageNotFoundError:
            raise UsageProblem(
                "avtomatika-worker runs from source here, so a new project could not install it; "
                "install it first, from a clone or a wheel"
            ) from None

    @property
    def wheel_name(self) -> str:
        return f"{self._stem}-py3-none-any.whl"

    def write_wheel(self, file: IO[bytes]) -> None:
        """Write the wheel. The same package always gives the same bytes."""
        record: list[str] = []
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in self._files():
                digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                record.append(f"{name},sha256={digest},{len(content)}\n")
                archive.writestr(_entry(name), content)
            name = f"{self._stem}.dist-info/RECORD"
            archive.writestr(_entry(name), "".join([*record, f"{name},,\n"]))

    @property
    def _stem(self) -> str:
        return f"avtomatika_worker-{self._distribution.version}"

    def _files(self) -> Iterator[tuple[str, bytes]]:
        for package in PACKAGES:
            found = find_spec(package)  # not imported: the plugin needs pytest
            for directory in (found and found.submodule_search_locations) or ():
                yield from _below(Path(directory), package)
        info = f"{self._stem}.dist-info"
        for name in _METADATA:
            text = self._distribution.read_text(name)
            if text is not None:
                yield f"{info}/{name}", text.encode()
        for path in self._distribution.files or ():
            if path.parts[:2] == (info, "licenses"):
                yield path.as_posix(), path.read_binary()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o100644 << 16
    return entry


def _below(directory: Path, path: str) -> Iterator[tuple[str, bytes]]:
    for each in sorted(directory.iterdir(), key=lambda found: found.name):
        if each.is_file():
            yield f"{path}/{each.name}", each.read_bytes()
        elif each.name != "__pycache__":
            yield from _below(each, f"{path}/{each.name}")
