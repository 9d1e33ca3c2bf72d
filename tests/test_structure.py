"""``scripts/check_structure.py`` finds what is over the budget, and nothing else: tried on made-up packages."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from script_modules import load_script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("check_structure")


def problems(script: ModuleType, root: Path, sources: dict[str, str]) -> list[str]:
    for name, text in sources.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [f"{each.where}: {each.problem}" for each in script.check(root)]


def test_a_package_within_the_budget_has_no_findings(script: ModuleType, tmp_path: Path):
    sources = {"__init__.py": "", "a/__init__.py": "", "a/one.py": "def f():\n" + "    x = 1\n" * 59, "b/two.py": ""}
    assert problems(script, tmp_path, sources) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = 1\n" * 401, "one.py: 401 lines (at most 400)"),
        ("def f():\n" + "    x = 1\n" * 60, "one.py:1: f has 61 lines (at most 60)"),
        ("async def f():\n" + "    x = 1\n" * 60, "one.py:1: f has 61 lines (at most 60)"),
        ("def f(x):\n" + "    if x: pass\n" * 13, "one.py:1: f has 13 branches (at most 12)"),
        (f"def f(x):\n    return {' or '.join('x' * 14)}\n", "one.py:1: f has 13 branches (at most 12)"),
    ],
)
def test_what_is_too_long_or_branches_too_often_is_found(script: ModuleType, tmp_path: Path, text: str, problem: str):
    assert problems(script, tmp_path, {"one.py": text}) == [problem]


def test_branches_of_an_inner_function_are_its_own(script: ModuleType, tmp_path: Path):
    inner = "    def g(x):\n" + "        if x: pass\n" * 7
    assert problems(script, tmp_path, {"one.py": "def f(x):\n" + "    if x: pass\n" * 7 + inner}) == []


@pytest.mark.parametrize("call", ["cast(int, x)", "typing.cast(int, x)"])
def test_casts_are_counted(script: ModuleType, tmp_path: Path, call: str):
    assert problems(script, tmp_path, {"one.py": f"{call}\n" * 39}) == []
    assert [each.partition(": ")[2] for each in problems(script, tmp_path, {"one.py": f"{call}\n" * 40})] == [
        "40 casts (fewer than 40)"
    ]


BROAD = [
    "try: f()\nexcept Exception:  # why\n    pass\n",
    "try: f()\nexcept BaseException as error:  # why\n    print(error)\n",
    "try: f()\nexcept:  # why\n    pass\n",
    "try: f()\nexcept (Exception, SystemExit):  # why\n    pass\n",
    "with contextlib.suppress(Exception):  # why\n    f()\n",
    "with suppress(BaseException):  # why\n    f()\n",
    "class C:\n    def __exit__(self, *_) -> bool:  # why\n        return True\n",
]


@pytest.mark.parametrize("text", BROAD)
def test_what_ends_any_error_is_counted_and_says_why(script: ModuleType, tmp_path: Path, text: str):
    assert problems(script, tmp_path, {"one.py": text * 24}) == []
    [many] = problems(script, tmp_path, {"one.py": text * 25})
    assert many.endswith(": 25 broad excepts (fewer than 25)")
    [silent] = problems(script, tmp_path, {"one.py": text.replace("  # why", "")})
    assert silent.endswith(": a broad except without its reason")


@pytest.mark.parametrize(
    "text",
    [
        "try: f()\nexcept Exception:\n    clean_up()\n    raise\n",
        "try: f()\nexcept Exception as error:\n    raise OtherError from error\n",
        "try: f()\nexcept (ValueError, OSError):\n    pass\n",
        "with suppress(ValueError):\n    f()\n",
        "class C:\n    def __exit__(self, *_) -> None:\n        pass\n",
    ],
)
def test_what_raises_again_or_names_its_errors_is_not(script: ModuleType, tmp_path: Path, text: str):
    assert problems(script, tmp_path, {"one.py": text * 30}) == []


def test_a_module_name_stands_once(script: ModuleType, tmp_path: Path):
    sources = {"a/__init__.py": "", "b/__init__.py": "", "a/same.py": "", "b/same.py": ""}
    assert problems(script, tmp_path, sources) == ["a/same.py, b/same.py: the module name 'same' stands 2 times"]


def test_the_official_sdks_module_paths_may_repeat_a_name(script: ModuleType, tmp_path: Path):
    sources = {"logging.py": "", "a/__init__.py": "", "a/logging.py": ""}
    assert problems(script, tmp_path, sources) == []
    assert problems(script, tmp_path, {"b/logging.py": ""}) == [
        "a/logging.py, b/logging.py: the module name 'logging' stands 2 times"
    ]
