"""Hostile names: nothing is ever read or written outside of where it belongs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avtomatika_worker import TaskError, TaskFiles, UnsafeNameError
from avtomatika_worker.files.location import locate
from avtomatika_worker.files.service import Files
from avtomatika_worker.files.store_settings import StoreSettings
from files.conftest import Bucket, FilesOfTasks, store_settings

SECRET = "do not read"

parts = st.sampled_from(
    ["..", ".", "", "a", "link", "out", "loop", "~", "a\0b", "\n", "\\..", "C:", "%2e%2e", "..%2f", "\ud800", "x" * 300]
)
awkward = st.one_of(
    st.lists(parts, max_size=6).map("/".join),
    st.text(max_size=20),
    st.lists(parts, max_size=4).map(lambda each: "/" + "/".join(each)),
)
hostile = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])


@contextlib.contextmanager
def surroundings() -> Iterator[tuple[Path, Files]]:
    """Provide a directory with a secret and a store beside the directory for tasks."""
    with tempfile.TemporaryDirectory() as text:
        base = Path(text).resolve()
        for name in ("outside", "store"):
            (base / name).mkdir()
            (base / name / "secret").write_text(SECRET)
        (base / "store" / "link").symlink_to(base / "outside")
        files = Files(base / "payloads", StoreSettings(file_root=base / "store", attempts=1))
        before = _outside(base)
        try:
            yield base, files
            assert _outside(base) == before, "something outside was changed"
        finally:
            files.close()


def _outside(base: Path) -> list[tuple[str, float]]:
    found = [base, *(path for path in base.rglob("*") if path.relative_to(base).parts[0] == "outside")]
    return [(str(path), path.lstat().st_mtime_ns if path != base else 0) for path in sorted(found)]


def _inside(base: Path, root: Path) -> bool:
    """Whether all that is new is the task's directory."""
    return {path.name for path in base.iterdir()} <= {"outside", "store", "payloads"} and base in root.parents


@hostile
@given(awkward)
def test_no_name_leads_out_of_a_tasks_directory(name: str) -> None:
    async def use(base: Path, files: Files) -> None:
        operations = files.for_task("job", "task", lambda _: None)
        task = TaskFiles(operations)
        root = await task.get_root()
        (root / "link").symlink_to(base / "outside")
        (root / "loop").symlink_to(root / "loop")
        (root / "a").mkdir()
        (root / "out").symlink_to(base / "outside" / "secret")
        for call in (
            task.path_to(name),
            task.write(name, "x"),
            task.read(name),
            task.list(name, recursive=True),
            task.exists(name),
            task.upload_file(name),
            task.upload_dir(name),
            task.download_file(f"file://{base}/store/secret", name),
            task.download_file(f"file://{base}/{name}"),
        ):
            with contextlib.suppress(TaskError, OSError):
                found = await call
                assert found != SECRET
                if isinstance(found, Path):
                    assert root in (found, *found.resolve().parents)
        assert _inside(base, root)
        await operations.remove()

    with surroundings() as (base, files):
        asyncio.run(use(base, files))


@hostile
@given(awkward, awkward)
def test_no_id_leads_out(task_id: str, job_id: str) -> None:
    async def use(base: Path, files: Files) -> None:
        operations = files.for_task(job_id, task_id, lambda _: None)
        task = TaskFiles(operations)
        try:
            root = await task.get_root()
        except UnsafeNameError as error:
            assert error.name == task_id  # noqa: PT017
            return
        assert Path(root).parent.parent == base / "payloads"
        await task.write("a", "x")
        try:
            uri = await task.upload_file("a")
        except UnsafeNameError as error:
            assert job_id in error.name  # noqa: PT017
        else:
            assert uri.startswith(f"file://{base}/store/{job_id}/{task_id}/")
            assert (base / "store" / job_id / task_id / "a").read_text() == "x"
        await operations.remove()

    with surroundings() as (base, files):
        asyncio.run(use(base, files))


@hostile
@given(st.sampled_from(["s3://b/", "s3://b", "gs://b/x/", "file:///root/", "file://", "az://"]), awkward)
def test_a_key_is_refused_or_stays_below_its_bucket(front: str, rest: str) -> None:
    try:
        location = locate(front + rest, Path("/root"))
    except TaskError as error:
        assert error.code in {"INVALID_INPUT_ERROR", "SECURITY_ERROR"}  # noqa: PT017
        return
    parts = location.key.split("/") if location.key else []
    assert not {"", ".", ".."} & set(parts)
    path = Path(os.path.normpath(f"/root/{location.key}"))
    assert Path("/root") in (path, *path.parents)
    assert location.uri == front + rest


@hostile
@given(awkward)
def test_what_a_store_lists_is_refused_or_stays_below(name: str) -> None:
    location = locate("s3://bucket/prefix/", None)
    try:
        below = location.below(name)
    except UnsafeNameError as error:
        assert error.name == f"s3://bucket/prefix/{name}"  # noqa: PT017
        return
    path = Path(os.path.normpath(f"/root/{name}"))
    assert Path("/root") in path.parents
    assert below.key == f"prefix/{name}"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("../x", "'..'"),
        ("/etc/passwd", "absolute"),
        ("a/../../x", "'..'"),
        ("a\0b", "control"),
        ("", "part"),
        ("x" * 300, "longer"),
    ],
)
async def test_the_error_names_the_name_and_what_is_wrong(offline: FilesOfTasks, name: str, problem: str) -> None:
    files = offline.task()
    with pytest.raises((UnsafeNameError, IsADirectoryError)) as caught:
        await files.write(name, "x")
    if name:
        assert isinstance(caught.value, UnsafeNameError)
        assert caught.value.name == name
        assert problem in caught.value.problem


async def test_links_that_lead_out_are_refused_in_trees_too(offline: FilesOfTasks, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    for target in ("outside", "outside/file"):
        files = offline.task()
        root = await files.get_root()
        (tmp_path / "outside" / "file").write_text(SECRET)
        await files.path_to("tree/x")
        (root / "tree" / "link").symlink_to(tmp_path / target)
        with pytest.raises(UnsafeNameError, match="leads out"):
            await files.upload_dir("tree")


async def test_a_download_goes_through_no_link_that_leads_out(
    make_files: Callable[..., FilesOfTasks], bucket: Bucket, tmp_path: Path
) -> None:
    bucket.put("tree/sub/deep/a", b"x")
    (tmp_path / "outside").mkdir()
    task = make_files(store_settings(bucket.server.url, bucket.name, sources=(bucket.uri("tree/"),))).task()
    await task.path_to("d/x")
    (await task.get_root() / "d" / "sub").symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafeNameError, match="leads out"):
        await task.download_file(bucket.uri("tree/"), "d")
    assert list((tmp_path / "outside").iterdir()) == []


async def test_a_listing_with_a_key_that_leads_out_is_refused(files: FilesOfTasks, bucket: Bucket) -> None:
    bucket.put("tree/ok", b"x")
    bucket.put("tree/../../up", b"x")
    task = files.task()
    with pytest.raises(UnsafeNameError) as caught:
        await task.download_file(bucket.uri("tree/"))
    assert bucket.uri("tree/") in str(caught.value)
    assert await task.list(recursive=True) == []


async def test_a_file_that_is_also_a_directory_is_refused(files: FilesOfTasks, bucket: Bucket) -> None:
    bucket.put("tree/a", b"x")
    bucket.put("tree/a/b", b"x")
    with pytest.raises(UnsafeNameError, match="a file and a directory"):
        await files.task().download_file(bucket.uri("tree/"))
