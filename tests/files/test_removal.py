"""What a skill leaves in its directory is removed, or stays; no outcome and no start depends on it."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from avtomatika_worker.files.removal import remove_tree
from avtomatika_worker.files.workspaces import Workspaces

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="needs capabilities, mounts or /proc")

_PR_CAPBSET_DROP = 24
_OVERRIDE_CAPABILITIES = (0, 1, 2, 3)  # CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER


def as_ordinary_user(program: str, *arguments: Path) -> str:
    """Run a program that modes of files hold for, root's, too; return what it prints."""

    def drop() -> None:
        if sys.platform == "linux":
            for capability in _OVERRIDE_CAPABILITIES:
                ctypes.CDLL(None).prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)

    command = [sys.executable, "-c", program, *map(str, arguments)]
    ran = subprocess.run(command, preexec_fn=drop, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


_REMOVE = "import sys, pathlib; from avtomatika_worker.files.removal import remove_tree"


@pytest.mark.parametrize("mode", [0o000, 0o100, 0o200, 0o300, 0o400, 0o500, 0o555, 0o600])
@linux_only
def test_a_directory_of_any_mode_is_removed(tmp_path: Path, mode: int) -> None:
    tree = tmp_path / "task"
    inner = tree / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    for directory in (inner, inner.parent, tree):
        directory.chmod(mode)
    printed = as_ordinary_user(f"{_REMOVE}; print(remove_tree(pathlib.Path(sys.argv[1])))", tree)
    assert (printed, tree.exists()) == ("None", False)


def _deep(tree: Path) -> None:
    """Make a tree that is deeper than the recursion limit, the longest path and the open files allow."""
    descriptor = os.open(tree, os.O_RDONLY)
    for _ in range(3_000):
        os.mkdir("d", dir_fd=descriptor)
        deeper = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = deeper
    os.close(descriptor)


def _not_utf_8(tree: Path) -> None:
    (tree / os.fsdecode(b"\xff\xfe")).mkdir()
    (tree / os.fsdecode(b"\xff\xfe") / os.fsdecode(b"\xed\xa0\x80")).touch()


def _special(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(tree)  # a socket's path is short
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)


def _links(tree: Path) -> None:
    (tree / "to_root").symlink_to("/")
    (tree / "dangling").symlink_to("nowhere")
    (tree / "loop").symlink_to("loop")


@pytest.mark.skipif(sys.platform == "win32", reason="no such files there")
@pytest.mark.parametrize("fill", [_deep, _not_utf_8, _special, _links])
def test_a_directory_with_any_content_is_removed(tmp_path: Path, fill: Callable[[Path], None]) -> None:
    tree = tmp_path / "task"
    tree.mkdir()
    fill(tree)
    assert remove_tree(tree) is None
    assert not tree.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_no_link_is_followed(tmp_path: Path) -> None:
    others = tmp_path / "others"
    others.mkdir(mode=0o500)
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "link").symlink_to(others)
    (tmp_path / "task_link").symlink_to(others)
    assert remove_tree(tmp_path / "task") is None
    assert remove_tree(tmp_path / "task_link") is not None
    assert others.stat().st_mode & 0o777 == 0o500


def _remove_beside(tree: Path) -> OSError | None:
    (tree / "locked").mkdir()
    (tree / "locked" / "file").touch()
    (tree / "other").touch()
    problem = remove_tree(tree)
    assert not (tree / "other").exists()
    return problem


@linux_only
def test_a_mount_point_is_left_alone_and_the_rest_removed(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "task" / "mounted"
    source.mkdir()
    (source / "precious").touch()
    target.mkdir(parents=True)
    if subprocess.run(["mount", "--bind", source, target], check=False, capture_output=True).returncode:
        pytest.skip("this user may not mount")
    try:
        assert isinstance(_remove_beside(tmp_path / "task"), OSError)
        assert (source / "precious").exists()
    finally:
        subprocess.run(["umount", target], check=True)


@linux_only
def test_an_immutable_file_stays_and_the_rest_is_removed(tmp_path: Path) -> None:
    tree = tmp_path / "task"
    tree.mkdir()
    (tree / "immutable").touch()
    command = ["chattr", "+i", tree / "immutable"]
    if shutil.which("chattr") is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this file system, or this user, has no immutable files")
    try:
        assert isinstance(_remove_beside(tree), OSError)
    finally:
        subprocess.run(["chattr", "-i", tree / "immutable"], check=True)


@linux_only
def test_too_many_open_files_are_a_problem_and_no_crash(tmp_path: Path) -> None:
    tree = tmp_path / "task"
    (tree / "a" / "b" / "c" / "d").mkdir(parents=True)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(tmp_path, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        assert isinstance(remove_tree(tree), OSError)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert remove_tree(tree) is None


@linux_only
def test_what_a_killed_worker_left_locked_never_stops_a_start(tmp_path: Path) -> None:
    killed = "import os, sys, pathlib; from avtomatika_worker.files.workspaces import Workspaces"
    killed += "; path = Workspaces(pathlib.Path(sys.argv[1])).make('t'); (path / 'd').mkdir()"
    killed += "; (path / 'd').chmod(0); path.chmod(0); path.parent.chmod(0); os._exit(0)"
    as_ordinary_user(killed, tmp_path / "files")
    assert any((tmp_path / "files").glob("run-*"))
    start = "import sys, pathlib; from avtomatika_worker.files.workspaces import Workspaces"
    as_ordinary_user(f"{start}; Workspaces(pathlib.Path(sys.argv[1])).clean_up()", tmp_path / "files")
    assert list((tmp_path / "files").iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no FIFOs and few links there")
def test_planted_locks_are_left_alone(tmp_path: Path) -> None:
    base, others = tmp_path / "files", tmp_path / "others"
    base.mkdir(mode=0o700)
    others.mkdir()
    (others / "precious").touch()
    os.mkfifo(base / "run-fifo.lock")
    (base / "run-link.lock").symlink_to(others / "precious")
    (base / "run-out.lock").touch()
    (base / "run-out").symlink_to(others)
    (base / "run-directory.lock").mkdir()
    Workspaces(base).clean_up()
    assert (others / "precious").exists()


@pytest.mark.parametrize("gone", ["run", "base"])
def test_a_directory_that_disappears_is_made_again(tmp_path: Path, gone: str, caplog: pytest.LogCaptureFixture) -> None:
    workspaces = Workspaces(tmp_path / "files")
    first = workspaces.make("t1")
    assert remove_tree(first.parent if gone == "run" else tmp_path / "files") is None
    second = workspaces.make("t2")
    assert second.is_dir()
    assert [getattr(record, "action", None) for record in caplog.records] == ["workspaces_replaced"]
    workspaces.remove(second)
    workspaces.close()
    assert list((tmp_path / "files").iterdir()) == []
