"""What is stored is whole or not there at all; the newest whole version is read, and a damaged one never."""

import asyncio
import contextlib
import os

import msgspec
import pytest

from avtomatika_worker.checkpoints.blobs import BlobGoneError, DirectoryBlobs
from avtomatika_worker.checkpoints.saved_state import written
from avtomatika_worker.checkpoints.sealing import Sealer, key_of
from avtomatika_worker.checkpoints.versions import Facts, Place, TooLargeError, Versions
from avtomatika_worker.files.disk import Disk
from avtomatika_worker.files.workspace import Workspace
from avtomatika_worker.files.workspaces import Workspaces
from avtomatika_worker.world import REAL

KEY = "ab" * 32


class Shelf:
    """A place for checkpoints in a directory, and versions of some in it."""

    def __init__(self, path, sealer=None, **settings):
        self.path = path
        self._workspaces = Workspaces(path / "tasks")
        self._scratch = []
        self._disk = disk = Disk()
        settings = {"most_bytes": 10_000_000, "max_age": 3600.0, **settings}
        self.place = Place(DirectoryBlobs(path / "checkpoints", disk), disk, sealer, **settings)

    def versions(self, key="key"):
        self._scratch.append(Workspace("scratch", self._workspaces))
        return Versions(key, self.place, Facts("w1", "skill", "task-1"), self._scratch[-1])

    def close(self):
        for each in self._scratch:
            each.remove()
        self._workspaces.close()
        self._disk.close()

    async def read(self, key="key"):
        """Return state and files of the newest version, or None."""
        versions = self.versions(key)
        async with contextlib.aclosing(versions.read()) as found:
            async for manifest in found:
                files = {each.name: versions.fetched(each).read_bytes() for each in manifest.files}
                return manifest.content().read(), files
        return None

    def stored(self):
        return sorted(each for each in (self.path / "checkpoints").rglob("*") if each.is_file())

    def part(self, name, number=-1):
        """Return the file of a part, of the newest version or another one."""
        return [each for each in self.stored() if each.name == name][number]


@pytest.fixture
def make_shelf(tmp_path):
    made = []

    def make(key=None, **settings):
        made.append(Shelf(tmp_path, Sealer(key_of(key)) if key else None, **settings))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def shelf(request, make_shelf):
    return make_shelf(request.param)


@pytest.fixture
def files(tmp_path):
    (tmp_path / "a.bin").write_bytes(os.urandom(1_500_000))
    (tmp_path / "empty").touch()
    return {"a.bin": tmp_path / "a.bin", "below/empty": tmp_path / "empty"}


async def test_what_was_written_last_is_read(shelf, files):
    versions = shelf.versions()
    assert await shelf.read() is None
    await versions.write(written({"step": 1}), {})
    await versions.write(written({"step": 2}), files)
    state, found = await shelf.read()
    assert state == {"step": 2}
    assert found == {name: path.read_bytes() for name, path in files.items()}
    await versions.write(written(b"\0bytes"), {})
    assert await shelf.read() == (b"\0bytes", {})


async def test_two_versions_are_kept_and_no_more(shelf):
    versions = shelf.versions()
    for step in range(5):
        await versions.write(written(step), {})
    assert len(shelf.stored()) == 2


async def test_another_task_goes_on_counting(shelf):
    for step in range(12):
        await shelf.versions().write(written(step), {})
        assert (await shelf.read())[0] == step
    assert len(shelf.stored()) == 2


def cut(path):
    path.write_bytes(path.read_bytes()[:-7])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def grow(path):
    path.write_bytes(path.read_bytes() + b"x")


def empty(path):
    path.write_bytes(b"")


def lose(path):
    path.unlink()


def link(path):
    elsewhere = path.with_name(f"{path.name}-elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


@pytest.mark.parametrize("harm", [cut, flip, grow, empty, lose, link])
@pytest.mark.parametrize("part", ["head", "0"])
async def test_a_damaged_version_is_ignored_and_the_one_before_it_is_used(shelf, files, caplog, harm, part):
    versions = shelf.versions()
    await versions.write(written("good"), files)
    await versions.write(written("damaged"), files)
    harm(shelf.part(part))
    state, found = await shelf.read()
    assert state == "good"
    assert found["a.bin"] == files["a.bin"].read_bytes()
    assert ("cannot be used" in caplog.text) is (harm is not lose or part != "head")


async def test_if_all_versions_are_damaged_none_is_used(shelf):
    await shelf.versions().write(written("damaged"), {})
    flip(shelf.part("head"))
    assert await shelf.read() is None
    await shelf.versions().write(written("new"), {})
    assert await shelf.read() == ("new", {})


async def test_one_object_cannot_take_another_s_place(shelf, files):
    await shelf.versions("one").write(written("one"), files)
    await shelf.versions("two").write(written("two"), files)
    [one] = [each for each in shelf.stored() if each.name == "head" and "one" in each.parts]
    [two] = [each for each in shelf.stored() if each.name == "head" and "two" in each.parts]
    two.write_bytes(one.read_bytes())
    expected = None if shelf.place.sealer is not None else "one"
    found = await shelf.read("two")
    assert (found and found[0]) == expected


async def test_a_version_that_was_not_completed_does_not_count_and_is_removed_later(shelf, files):
    versions = shelf.versions()
    await versions.write(written("whole"), files)

    class FullDiskError(OSError):
        pass

    whole = shelf.place.blobs.put

    async def fails(name, source):
        if name.endswith("head"):
            raise FullDiskError(28, "No space left on device")
        await whole(name, source)

    shelf.place.blobs.put = fails
    for each in (versions, shelf.versions()):
        with pytest.raises(FullDiskError):
            await each.write(written("half"), files)
        assert (await shelf.read())[0] == "whole"
    del shelf.place.blobs.put
    await shelf.versions().write(written("next"), {})
    assert (await shelf.read())[0] == "next"
    assert sum(each.name == "head" for each in shelf.stored()) == 2
    assert {each.parent for each in shelf.stored()} == {each.parent for each in shelf.stored() if each.name == "head"}


async def test_a_kill_at_any_moment_of_a_write_leaves_the_old_or_the_new_version(shelf, files):
    """Each state of the directory between two steps of a write is read."""
    await shelf.versions().write(written("old"), files)
    put, seen = shelf.place.blobs.put, []

    async def put_and_look(name, source):
        seen.append((await shelf.read())[0])
        await put(name, source)
        seen.append((await shelf.read())[0])

    shelf.place.blobs.put = put_and_look
    await shelf.versions().write(written("new"), files)
    assert seen == ["old"] * 5 + ["new"]


@pytest.mark.parametrize(("size", "count"), [(2000, 1), (10, 1001)])
async def test_what_is_too_large_is_not_stored(make_shelf, tmp_path, size, count):
    shelf = make_shelf(most_bytes=1024)
    if count > 1:
        shelf.place = msgspec.structs.replace(shelf.place, most_bytes=10**9)
    path = tmp_path / "large"
    path.write_bytes(bytes(size))
    with pytest.raises(TooLargeError):
        await shelf.versions().write(written(None), {f"file-{number}": path for number in range(count)})
    assert shelf.stored() == []


async def test_a_larger_one_that_another_worker_has_stored_is_not_loaded(make_shelf, files, caplog):
    await make_shelf().versions().write(written("large"), files)
    assert await make_shelf(most_bytes=1024).read() is None
    assert "CHECKPOINT_MAX_BYTES" in caplog.text


async def test_what_is_too_old_is_not_read(make_shelf):
    shelf = make_shelf(max_age=60.0)
    await shelf.versions().write(written("old"), {})
    os.utime(shelf.part("head"), (REAL.wall() - 61, REAL.wall() - 61))
    assert await shelf.read() is None


@pytest.mark.parametrize("key", [None, "cd" * 32], ids=["no key", "another key"])
async def test_without_the_key_nothing_of_an_encrypted_one_is_read(make_shelf, files, caplog, key):
    await make_shelf(KEY).versions().write(written({"secret": "Minerva"}), files)
    stored = b"".join(path.read_bytes() for path in make_shelf().stored())
    assert b"Minerva" not in stored
    assert b"a.bin" not in stored
    assert files["a.bin"].read_bytes()[:64] not in stored
    assert await make_shelf(key).read() is None
    assert "CHECKPOINT_KEY is not set" in caplog.text or "another key" in caplog.text


async def test_with_a_key_what_is_not_encrypted_is_not_believed(make_shelf, caplog):
    await make_shelf().versions().write(written("planted"), {})
    assert await make_shelf(KEY).read() is None
    assert "is not encrypted" in caplog.text


async def test_blobs_are_for_this_user_only(make_shelf, files):
    shelf = make_shelf()
    await shelf.versions().write(written("mine"), files)
    for path in [*shelf.stored(), *(each.parent for each in shelf.stored())]:
        assert path.stat().st_mode & 0o077 == 0


async def test_a_planted_link_is_not_followed(make_shelf, tmp_path):
    shelf = make_shelf()
    await shelf.versions().write(written("mine"), {})
    head = shelf.part("head")
    head.rename(tmp_path / "elsewhere")
    head.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        await shelf.place.blobs.get(str(head.relative_to(tmp_path / "checkpoints")), tmp_path / "target")


async def test_a_missing_blob_is_reported(make_shelf, tmp_path):
    shelf = make_shelf()
    with pytest.raises(BlobGoneError):
        await shelf.place.blobs.get("key/version/head", tmp_path / "target")
    await shelf.place.blobs.remove(["key/version/head"])


async def test_two_workers_that_write_and_remove_at_the_same_time_leave_something_whole_or_nothing(make_shelf, files):
    shelf = make_shelf()

    async def write(name):
        versions = shelf.versions()
        for number in range(8):
            await versions.write(written(f"{name}-{number}"), {})

    await asyncio.gather(write("one"), write("two"))
    assert (await shelf.read())[0] in {"one-7", "two-7"}
