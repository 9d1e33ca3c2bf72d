"""What a message says when the packages of an extra are missing: something to type that installs those."""

import re
import tomllib
from pathlib import Path

import pytest

from avtomatika_worker._extras import install_hint

PYPROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))
EXTRAS = PYPROJECT["project"]["optional-dependencies"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[;]", each)[0] for each in requirements}


@pytest.mark.parametrize("extra", ["s3", "pydantic", "metrics", "otlp-grpc", "gpu", "demo", "encryption"])
def test_the_packages_of_the_extra_are_named_and_nothing_else(extra):
    before, _, command = install_hint(extra).partition(": pip install ")
    assert before == f"install the extra [{extra}]"
    packages = re.findall(r'"([^"]+)"', command)
    assert names(packages) == names(EXTRAS[extra])
    assert all(re.search(r"[<>]", each) for each in packages), packages
    assert "avtomatika" not in command


def test_an_extra_that_is_not_declared_is_named_all_the_same():
    assert install_hint("nothing") == "install the extra [nothing]"
