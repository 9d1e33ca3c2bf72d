"""Directories that another user of the machine has planted where a worker puts the files of its tasks."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from avtomatika_worker import TaskFiles
from avtomatika_worker.config import load_settings
from avtomatika_worker.delivery.sqlite_store import SqliteStore
from avtomatika_worker.errors import InternalError, StoreError
from avtomatika_worker.files.workspaces import Workspaces
from avtomatika_worker.worker.file_settings import make_files

OTHER = 54321
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


def of_another_user(*paths: Path) -> None:
    for path in paths:
        os.chown(path, OTHER, OTHER, follow_symlinks=False)


def plant(base: Path) -> list[Path]:
    """Make what looks like the leftover of a worker that has crashed."""
    run, lock = base / "run-planted", base / "run-planted.lock"
    run.mkdir(parents=True)
    (run / "precious").write_text("precious")
    lock.touch()
    return [run, run / "precious", lock]


def test_clean_up_leaves_a_directory_of_another_user_alone(tmp_path: Path) -> None:
    base = tmp_path / "payloads"
    planted = plant(base)
    of_another_user(base)
    Workspaces(base).clean_up()
    assert all(each.exists() for each in planted)


def test_clean_up_follows_no_link_of_another_user_to_a_directory_of_ours(tmp_path: Path) -> None:
    planted = plant(tmp_path / "ours")
    base = tmp_path / "payloads"
    base.symlink_to(tmp_path / "ours")
    of_another_user(base)
    Workspaces(base).clean_up()
    assert all(each.exists() for each in planted)
    with pytest.raises(InternalError, match="another user"):
        Workspaces(base).make("t")
    assert sorted(each.name for each in (tmp_path / "ours").iterdir()) == ["run-planted", "run-planted.lock"]


def test_clean_up_below_a_directory_of_another_user_does_nothing(tmp_path: Path) -> None:
    planted = plant(tmp_path / "theirs" / "payloads")
    of_another_user(tmp_path / "theirs")
    Workspaces(tmp_path / "theirs" / "payloads").clean_up()
    assert all(each.exists() for each in planted)


@pytest.mark.parametrize("whose", ["directory", "lock"])
def test_in_a_shared_directory_only_what_is_ours_is_cleaned_up(tmp_path: Path, whose: str) -> None:
    base = tmp_path / "shared"
    run, _, lock = planted = plant(base)
    base.chmod(0o1777)
    of_another_user(run if whose == "directory" else lock)
    Workspaces(base).clean_up()
    assert all(each.exists() for each in planted)


def test_what_is_ours_is_still_cleaned_up_through_a_link_of_ours(tmp_path: Path) -> None:
    planted = plant(tmp_path / "ours")
    (tmp_path / "payloads").symlink_to(tmp_path / "ours")
    Workspaces(tmp_path / "payloads").clean_up()
    assert not any(each.exists() for each in planted)


def test_the_place_of_another_user_is_replaced_by_one_of_ours_where_there_is_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = tmp_path / "payloads"
    base.mkdir(mode=0o777)
    of_another_user(base)
    with pytest.raises(InternalError, match="TASK_FILES_DIR"):
        Workspaces(base).make("t")
    spaces = Workspaces(base, tmp_path / "runtime" / "payloads")
    made = spaces.make("t")
    assert made.parent.parent == tmp_path / "runtime" / "payloads"
    assert made.parent.stat().st_mode & 0o777 == 0o700
    assert list(base.iterdir()) == []
    assert [each.action for each in caplog.records if hasattr(each, "action")] == ["task_files_elsewhere"]
    spaces.remove(made)
    spaces.close()


async def test_only_the_default_has_a_place_to_go_to(tmp_path: Path) -> None:
    base = tmp_path / "chosen"
    base.mkdir()
    of_another_user(base)
    files = make_files(load_settings({"TASK_FILES_DIR": str(base)}))
    task = TaskFiles(files.for_task("j", "t", lambda _: None, asyncio.get_running_loop()))
    with pytest.raises(InternalError, match="under another user's control"):
        await task.write("a", "x")
    files.close()


def test_a_directory_on_the_way_that_is_replaced_gets_no_files(tmp_path: Path) -> None:
    """Its owner allows others to rename what is in it: only what is reached through a descriptor is safe."""
    spaces = Workspaces(tmp_path / "shared" / "payloads")
    first = spaces.make("t1")
    (first / "ours").touch()
    (tmp_path / "shared" / "payloads").rename(tmp_path / "shared" / "moved")
    planted = tmp_path / "shared" / "payloads" / first.parent.name
    (planted / first.name).mkdir(parents=True)
    (planted / first.name / "precious").touch()
    spaces.remove(first)
    assert (planted / first.name / "precious").exists()
    assert not (tmp_path / "shared" / "moved" / first.parent.name / first.name).exists(), "ours is removed where it is"
    second = spaces.make("t2")
    assert second.parent != planted, "the path of the old run leads to theirs now"
    assert list(planted.iterdir()) == [planted / first.name]
    spaces.remove(second)
    spaces.close()


@pytest.mark.parametrize("shared", [False, True])
def test_results_are_not_kept_in_a_directory_where_others_can_replace_them(tmp_path: Path, shared: bool) -> None:
    directory = tmp_path / "state"
    directory.mkdir()
    if shared:
        directory.chmod(0o777)
    else:
        of_another_user(directory)
    with pytest.raises(StoreError, match="writable by others" if shared else "another user"):
        SqliteStore(directory, "w1").open()
    assert list(directory.iterdir()) == []
