"""Reading `.env` files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from avtomatika_worker.config import read_env_file
from avtomatika_worker.errors import ConfigError


def read(tmp_path: Path, text: str) -> dict[str, str]:
    file = tmp_path / ".env"
    file.write_text(text, encoding="utf-8")
    return read_env_file(file)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("A = b ", "b"),
        ("export A=b", "b"),
        ("A=", ""),
        ("A=b # comment", "b"),
        ("A=b#c", "b#c"),
        ("A=# comment", ""),
        ("A=x=y", "x=y"),
        (r"A='b # \n c'", r"b # \n c"),
        (r'A="b # \"c\" \\ \n"', 'b # "c" \\ \n'),
        ("A='b' # comment", "b"),
        ('A={"json": [1]}', '{"json": [1]}'),
        ("A=$HOME", "$HOME"),
    ],
)
def test_values(tmp_path: Path, line: str, value: str) -> None:
    assert read(tmp_path, line) == {"A": value}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('A="one\ntwo"', "one\ntwo"),
        ("A='one\n\n  two # no comment\n' # a comment", "one\n\n  two # no comment\n"),
        ('A="{\n  \\"a\\": 1\n}"', '{\n  "a": 1\n}'),
        ('export A="\none\n"', "\none\n"),
        ("A='it is \"quoted\"\nB=2'", 'it is "quoted"\nB=2'),
    ],
)
def test_a_quoted_value_may_go_over_several_lines(tmp_path: Path, text: str, value: str) -> None:
    assert read(tmp_path, f"Z=0\n{text}\nB=1\n") == {"Z": "0", "A": value, "B": "1"}


def test_an_error_after_a_multiline_value_names_its_own_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 4"):
        read(tmp_path, "A='one\ntwo\nthree'\nbroken\n")


def test_comments_blank_lines_and_a_byte_order_mark_are_skipped_and_the_last_value_wins(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff# head\r\n\r\n  # more\nA=1\nB=2\nA=3\n") == {"A": "3", "B": "2"}


def test_every_bad_line_is_named_without_showing_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, 'A=1\nhunter2\nB=\'open\n1C=x\nD="a" b\n')
    assert [problem.split(": ")[0].split(", ")[1] for problem in caught.value.problems] == [
        "line 2",
        "line 3",
        "line 4",
        "line 5",
    ]
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("odd", ["\u2028", "\u0085", "\x0b", "\x0c", "\x1c"])
def test_only_line_breaks_end_a_line(tmp_path: Path, odd: str) -> None:
    assert read(tmp_path, f"A=a{odd}B=b\nC='c{odd}d'\r\nD=d\rE=e") == {
        "A": f"a{odd}B=b",
        "C": f"c{odd}d",
        "D": "d",
        "E": "e",
    }


@pytest.mark.parametrize("line", ["A=secret\0", "A='secret\0'", 'A="\0secret"'])
def test_a_value_that_no_variable_can_hold_is_named_without_being_shown(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match="line 2: a variable cannot hold the character NUL") as caught:
        read(tmp_path, f"B=1\n{line}\n")
    assert "secret" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_and_a_directory_are_refused_rather_than_waited_for_or_skipped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name, why in (("pipe", "it is a pipe"), ("directory", "directory")):
        with pytest.raises(ConfigError, match=f"cannot be read: .*{why}"):
            read_env_file(tmp_path / name)


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_env_file(tmp_path / "missing")
    (tmp_path / "latin").write_bytes(b"A=\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_env_file(tmp_path / "latin")
