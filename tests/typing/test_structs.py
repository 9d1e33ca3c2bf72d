"""``scripts/mypy_structs.py`` finds what dataclasses and structs do not share, and nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from needs import needs

pytestmark = needs("mypy")

ROOT = Path(__file__).parents[2]

SAMPLE = """
import dataclasses
from dataclasses import dataclass, field, fields as names, replace
from typing import Any, Generic, TypeVar
import msgspec

class Plain(msgspec.Struct, frozen=True):
    number: int = 1
    numbers: list[int] = msgspec.field(default_factory=list)
    others: list[int] = field(default_factory=list)  # a field of a struct

class Derived(Plain, frozen=True):
    more: int = dataclasses.field(default=1)  # a field of a struct

@dataclass
class Record:
    number: int = 1
    numbers: list[int] = field(default_factory=list)
    others: list[int] = msgspec.field(default_factory=list)  # a field of a dataclass

T = TypeVar("T", bound=Plain)
Either = TypeVar("Either", Plain, Record)

class Box(msgspec.Struct, Generic[T]):
    inside: T

def right(record: Record, plain: Plain, anything: Any) -> None:
    replace(record, number=2)
    replace(anything, number=2)
    names(Record)
    dataclasses.asdict(record)
    dataclasses.is_dataclass(record)
    msgspec.structs.replace(plain, number=2)
    msgspec.structs.fields(Plain)

def wrong(plain: Plain, either: Plain | Record, perhaps: Derived | None, box: Box[Any], class_: type[Plain]) -> None:
    replace(plain, number=2)  # dataclasses.replace
    dataclasses.replace(either, number=2)  # dataclasses.replace
    replace(obj=plain) if perhaps is None else replace(perhaps)  # dataclasses.replace
    replace(box, inside=plain)  # dataclasses.replace
    replace(box.inside)
    names(Plain)  # dataclasses.fields
    names(class_)  # dataclasses.fields
    dataclasses.asdict(plain)  # dataclasses.asdict
    dataclasses.astuple(plain)  # dataclasses.astuple
    dataclasses.is_dataclass(plain)  # dataclasses.is_dataclass

def of_a_bound(plain: T) -> T:
    return replace(plain, number=2)  # dataclasses.replace

def of_either(either: Either) -> Either:
    return replace(either, number=2)  # dataclasses.replace
"""


@pytest.fixture(scope="module")
def complaints(tmp_path_factory) -> dict[int, str]:
    """What mypy says of the sample with this project's plugins, at which lines."""
    directory = tmp_path_factory.mktemp("structs")
    (directory / "sample.py").write_text(SAMPLE, "utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary"]
    done = subprocess.run(
        [*command, "--cache-dir", str(directory / "cache"), str(directory / "sample.py")],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return {int(line.split(":")[1]): line.partition(" error: ")[2] for line in done.stdout.splitlines()}


def test_each_use_of_a_function_for_the_other_kind_is_found(complaints):
    lines = enumerate(SAMPLE.splitlines(), start=1)
    expected = {number: line.partition("  # ")[2] for number, line in lines if "  # " in line}
    assert {number: said for number, said in complaints.items() if not said.startswith(expected.get(number, "?"))} == {}
    assert complaints.keys() == expected.keys()
