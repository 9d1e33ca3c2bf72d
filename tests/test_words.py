"""``scripts/check_words.py`` finds the words to replace, and nothing else: tried on made-up projects."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from script_modules import SCRIPTS, load_script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("check_words")


@pytest.mark.parametrize(
    "text",
    [
        "It tells how far it is.",
        "def test_a_fault_is_told_once():",
        "told = 1",
        "class _Told:",
        "TELL_TIMEOUT = 3",
        "made Anew",
        "it is mended",
        "waits for ever",
        "def wait_for_ever():",
        "what came of the task",
        "what comes of it",
        "as it says",
        "It shall end.",
    ],
)
def test_a_word_is_found_with_its_line_and_what_to_write_instead(script: ModuleType, tmp_path: Path, text: str):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text(f"# fine\n{text}\n")
    (found,) = script.check(tmp_path)
    assert str(found).startswith("src/a.py:2: ")
    assert ": write " in str(found)


@pytest.mark.parametrize(
    "text",
    [
        "size = file.tell()",
        "for every task",
        "while_forever = 1",
        "shallow",
        "recommend",
        "a tally",
        "intelligent",
        "untold",
    ],
)
def test_other_words_are_not(script: ModuleType, tmp_path: Path, text: str):
    (tmp_path / "README.md").write_text(text)
    assert script.check(tmp_path) == []


def test_what_was_released_stays_as_it_was(script: ModuleType, tmp_path: Path):
    (tmp_path / "CHANGELOG.md").write_text("## [Unreleased]\n- tell\n\n## [1.0]\n- told\n")
    assert [each.where for each in script.check(tmp_path)] == ["CHANGELOG.md:2"]


def test_what_people_do_not_write_is_not_read(script: ModuleType, tmp_path: Path):
    (tmp_path / "tests" / "data").mkdir(parents=True)
    (tmp_path / "tests" / "data" / "recorded.json").write_text('"tell"')
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "picture.png").write_bytes(b"tell\xff")
    assert script.check(tmp_path) == []


def test_this_project_has_none(script: ModuleType):
    assert list(map(str, script.check(SCRIPTS.parent))) == []
