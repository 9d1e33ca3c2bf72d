"""What the commands write fits into a terminal of 80 columns."""

import re
import subprocess
import sys

import pytest

from avtomatika_worker.cli import SECTIONS

COLUMNS = 80


def lines(*arguments, cwd):
    done = subprocess.run(
        [sys.executable, "-m", "avtomatika_worker.cli", *arguments],
        cwd=cwd,
        env={"PATH": "", "COLUMNS": str(COLUMNS), "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    return [line.rstrip() for line in done.stdout.splitlines()]


@pytest.mark.parametrize("command", [(), *((name,) for names in SECTIONS.values() for name in names)])
def test_help_fits_and_no_summary_is_cut_off(tmp_path, command):
    written = lines(*command, "--help", cwd=tmp_path)
    assert [line for line in written if len(line) > COLUMNS or re.search(r"\w\.\.\.$", line)] == []


def test_the_demo_reports_each_task_on_a_separate_line(tmp_path):
    written = lines("demo", cwd=tmp_path)
    assert [line for line in written if len(line) > COLUMNS] == []
    assert written[-1].startswith("Next: worker init")
    outcomes = written[written.index("Results") :]
    done = [line for line in outcomes if re.search(r"\d\.\d\d s  (finished|failed, as it should)$", line)]
    assert len(done) == 8, "\n".join(written)
