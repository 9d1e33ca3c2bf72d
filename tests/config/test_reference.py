"""The table of variables in the documentation."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from avtomatika_worker.config import SettingDoc, describe, load_settings

ROOT = Path(__file__).parent.parent.parent


def test_the_page_is_what_the_fields_say() -> None:
    script = ROOT / "scripts" / "generate_docs.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_variable_is_described_once() -> None:
    rows = describe()
    assert len({row.variable for row in rows}) == len(rows)
    assert all(row.description.endswith(".") for row in rows)


@pytest.mark.parametrize(
    "row", [row for row in describe() if row.default and not row.in_words], ids=lambda row: row.variable
)
def test_a_documented_default_can_be_set_and_changes_nothing(row: SettingDoc) -> None:
    environ = {row.variable: row.default}
    assert load_settings(environ, worker_id="w") == load_settings({}, worker_id="w")
