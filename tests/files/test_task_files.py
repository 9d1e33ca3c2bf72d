"""A task's own directory: what skills do with their files."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import stat
from pathlib import Path

import pytest

from avtomatika_worker import DependencyMissingError, UnsafeNameError
from files.conftest import FilesOfTasks


async def test_what_is_written_is_read_as_text_and_as_bytes(offline: FilesOfTasks) -> None:
    files = offline.task()
    path = await files.write("notes/a.txt", "é\n")
    assert path == await files.path_to("notes/a.txt")
    assert await files.read("notes/a.txt") == "é\n"
    assert await files.read("notes/a.txt", "rb") == "é\n".encode()
    await files.write("notes/a.txt", "ü", "a")
    await files.write("raw", b"\0\xff")
    assert await files.read(path) == "é\nü"
    assert await files.read("raw", "rb") == b"\0\xff"


async def test_json_takes_models_and_gives_plain_values(offline: FilesOfTasks) -> None:
    @dataclasses.dataclass
    class Box:
        name: str
        where: Path

    files = offline.task()
    await files.write_json("box.json", {"boxes": [Box("é", Path("/x"))]})
    assert await files.read_json("box.json") == {"boxes": [{"name": "é", "where": "/x"}]}


async def test_names_are_listed_and_looked_for(offline: FilesOfTasks) -> None:
    files = offline.task()
    assert await files.list() == []
    for name in ("b/two", "b/c/three", "a"):
        await files.write(name, "")
    assert await files.list() == ["a", "b"]
    assert await files.list("b") == ["c", "two"]
    assert await files.list(recursive=True) == ["a", "b/c/three", "b/two"]
    assert (await files.exists("b/two"), await files.exists("b"), await files.exists("x")) == (True, True, False)


async def test_an_open_file_is_read_and_written_piece_by_piece(offline: FilesOfTasks) -> None:
    files = offline.task()
    async with files.open("new/log", "w") as file:
        assert await file.write("one\ntwo\n") == 8
        await file.flush()
    async with files.open("new/log") as file:
        assert [line async for line in file] == ["one\n", "two\n"]
        assert await file.seek(4) == 4
        assert (await file.read(2), await file.readline(), await file.read()) == ("tw", "o\n", "")
    async with files.open("new/log", "a") as file:
        await file.writelines(["three\n", "four\n"])
        assert await file.tell() == 19
        assert await file.truncate(14) == 14
    async with files.open("new/log") as file:
        assert await file.readlines() == ["one\n", "two\n", "three\n"]
    with pytest.raises(ValueError, match="not open"):
        await file.read()


async def test_threads_have_the_same_methods_without_await(offline: FilesOfTasks) -> None:
    files = offline.task()

    def work() -> list[object]:
        sync = files.sync
        sync.write("a", "text")
        sync.write_json("d/b.json", [1])
        with sync.open("a", "a") as file:
            file.write("!")
        with pytest.raises(DependencyMissingError):
            sync.upload_file("a")
        return [sync.read("a"), sync.read("a", "rb"), sync.read_json("d/b.json"), sync.list(), sync.exists("x")]

    assert await asyncio.to_thread(work) == ["text!", b"text!", [1], ["a", "d"], False]
    assert files.sync.path_to("a") == files.sync.get_root() / "a"


async def test_a_transfer_for_threads_refuses_to_block_the_loop(offline: FilesOfTasks) -> None:
    files = offline.task()
    await files.write("a", "")
    with pytest.raises(RuntimeError, match="await"):
        files.sync.upload_file("a")


async def test_the_directory_is_private_lazy_and_removed(offline: FilesOfTasks, tmp_path: Path) -> None:
    files = offline.task()
    assert not (tmp_path / "payloads").exists()
    root = await files.get_root()
    assert [stat.S_IMODE(each.stat().st_mode) for each in (root, root.parent, root.parent.parent)] == [0o700] * 3
    locked = await files.write("deep/er/file", "x")
    locked.chmod(0o400)
    locked.parent.chmod(0o500)
    await offline.remove()
    assert not root.exists()


async def test_tasks_of_the_same_id_have_directories_of_their_own(offline: FilesOfTasks) -> None:
    one, other = offline.task("same"), offline.task("same")
    await one.write("a", "one")
    await other.write("a", "other")
    assert await one.read("a") == "one"


async def test_leftovers_of_a_crash_are_removed_and_living_ones_are_not(offline: FilesOfTasks, tmp_path: Path) -> None:
    living = await offline.task().get_root()
    crashed = tmp_path / "payloads" / "run-crashed"
    (crashed / "task-1").mkdir(parents=True)
    (crashed / "task-1" / "big").write_text("x")
    crashed.with_name("run-crashed.lock").touch()
    await offline.files.clean_up()
    assert living.exists()
    assert [path.name for path in (tmp_path / "payloads").glob("*crashed*")] == []


async def test_a_directory_that_others_may_change_is_refused(offline: FilesOfTasks, tmp_path: Path) -> None:
    (tmp_path / "payloads").mkdir()
    (tmp_path / "payloads").chmod(0o777)
    with pytest.raises(Exception, match=r"TASK_FILES_DIR=.*writable by others"):
        await offline.task().get_root()


async def test_a_pipe_cannot_be_uploaded(offline: FilesOfTasks) -> None:
    files = offline.task()
    os.mkfifo(await files.path_to("d/pipe"))
    with pytest.raises(FileNotFoundError):
        await files.upload_file("d/pipe")
    with pytest.raises(UnsafeNameError, match="not a regular file"):
        await files.upload_dir("d")
