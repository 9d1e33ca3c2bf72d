"""What the commands write fits into a terminal of 80 columns."""

import io
import re
import subprocess
import sys

import pytest
from rich.live import Live
from rich.table import Table
from rich.text import Text

from avtomatika_worker.cli import SECTIONS, terminal

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
    assert re.findall(r"^.* $", done.stdout, re.MULTILINE) == []
    return done.stdout.splitlines()


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


ERASES = "a\x1b[2Jb"


def table(*cells):
    made = Table(box=None)
    made.add_row(*cells)
    return made


@pytest.mark.parametrize("shown", [ERASES, Text(ERASES), table(Text(ERASES), "c")])
def test_no_text_controls_the_terminal_printed_or_live(shown):
    written = io.StringIO()
    console = terminal.console(file=written, force_terminal=True, width=COLUMNS)
    console.print(shown)
    with Live(Text("first"), console=console, auto_refresh=False) as live:
        live.update(shown, refresh=True)
    assert "\x1b[2J" not in written.getvalue()
    assert written.getvalue().count("a\\x1b") >= 2


def test_only_the_blanks_that_fill_up_a_table_are_left_out_of_a_file():
    written = io.StringIO()
    console = terminal.console(file=written, width=COLUMNS)
    console.print(table("a", "a longer cell"), table("b", ""))
    console.print(Text("a word and "), end="")
    console.print(Text("two blanks  \n"))
    assert written.getvalue().splitlines()[-2:] == ["a word and two blanks  ", ""]
    assert [line for line in written.getvalue().splitlines()[:-2] if line.endswith(" ")] == []
