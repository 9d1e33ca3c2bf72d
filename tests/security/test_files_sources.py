"""What tasks may read from stores: the rule on its own, and through a worker that an attacker submits jobs to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker import TaskError, TaskFiles, Worker
from avtomatika_worker.config import load_settings
from avtomatika_worker.errors import ConfigError, SourceRefusedError
from avtomatika_worker.files.location import locate
from avtomatika_worker.files.sources import OWN, Sources
from avtomatika_worker.testing import WorkerHarness

ROOT = Path("/srv/files")


def sources(*listed: str, results: str | None = "s3://payloads/") -> Sources:
    places = [locate(each, ROOT) for each in listed]
    return Sources(places or None, locate(results, ROOT) if results is not None else None)


def refused(rule: Sources, uri: str, job_id: str = "job-b") -> bool:
    try:
        rule.check(locate(uri, ROOT), job_id)
    except TaskError:
        return True
    return False


@pytest.mark.parametrize(
    "uri",
    [
        "s3://payloads/",
        "s3://payloads/job-a/task-1/report.txt",
        "s3://payloads/job-a/task-1/",
        "s3://payloads/job-b2/task-1/report.txt",
        "s3://payloads/JOB-B/task-1/report.txt",
        "s3://payloads/jobs/job-a/input.bin",
        "s3://payloads/x/%2e%2e",
        "s3://payloads/job-b/%2e%2e%2fjob-a/x",
        "s3://payloads/job-b/%252e%252e/x",
        "s3://payloads/job-b/..\\job-a",
        "s3://payloads2/in/a.txt",
        "s3://Payloads/in/a.txt",
        "gs://payloads/in/a.txt",
        "az://payloads/in/a.txt",
        "file:///srv/files/in/a.txt",
    ],
)
def test_without_a_list_neither_the_root_nor_other_jobs_results_nor_other_stores_are_read(uri: str) -> None:
    assert refused(sources(), uri)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://payloads/a.txt",
        "s3://payloads/in/a.txt",
        "s3://payloads/in/",
        "s3://payloads/job-b/task-0/deep/er/report.txt",
        "s3://payloads/job-b/task-0/",
        "s3://payloads/jobs/job-b/input.bin",
    ],
)
def test_without_a_list_inputs_and_results_of_the_tasks_own_job_are_read(uri: str) -> None:
    assert not refused(sources(), uri)


def test_a_list_replaces_the_default_and_is_matched_by_whole_segments() -> None:
    rule = sources("s3://payloads/in/", "s3://models/llama", "file:///srv/files/shared/")
    for uri in (
        "s3://payloads/in/deep/er/a.txt",
        "s3://models/llama",
        "s3://models/llama/w.bin",
        "file:///srv/files/shared/x",
    ):
        assert not refused(rule, uri)
    for uri in ("s3://payloads/a.txt", "s3://payloads/inside/a", "s3://models/llama2", "file:///srv/files/x"):
        assert refused(rule, uri)
    assert not refused(rule, "s3://payloads/job-b/task-1/x"), "the job's own results need no entry"


def test_without_a_place_for_results_and_without_a_list_nothing_is_read() -> None:
    assert refused(sources(results=None), "s3://any/a.txt")


segments = st.sampled_from(["job-a", "job-b", "in", "a", "%2e%2e", "%2E.", "%2f", "t", "jobs", "x%5c.."])


@given(st.lists(segments, min_size=1, max_size=6), st.booleans())
def test_no_key_of_another_jobs_directory_is_ever_allowed(parts: list[str], is_prefix: bool) -> None:
    uri = f"s3://payloads/{'/'.join(parts)}{'/' if is_prefix else ''}"
    if len(parts) >= 3 and parts[0] != "job-b" and parts[:2] != ["jobs", "job-b"]:
        assert refused(sources(), uri)


@pytest.mark.parametrize("name", [OWN, OWN.upper(), OWN.title(), f"{OWN}.", f"{OWN} ", OWN.replace("k", "\u212a")])
@pytest.mark.parametrize("place", ["s3://payloads/", "s3://models/other-worker/", "file:///srv/files/"])
def test_no_checkpoint_is_reached_by_a_name_that_some_file_system_takes_for_the_same(name: str, place: str) -> None:
    rule = sources("s3://payloads/", "s3://models/", "file:///srv/files/")
    assert not refused(rule, f"{place}other/key")
    assert refused(rule, f"{place}{name}/key")
    assert refused(rule, f"{place}{name}/")


@pytest.mark.parametrize("uri", ["s3://payloads/jobs/job-b/input.bin", "s3://payloads/jobs/job-b/"])
def test_a_job_that_is_called_like_the_directory_of_all_jobs_owns_none_of_theirs(uri: str) -> None:
    assert refused(sources(), uri, "jobs")


@pytest.mark.parametrize(
    "text",
    ["payloads", "s3://", "s3://b/../c", "s3://b//c", "s3://b/%2e%2e/", "file://host/x", "http://x/y", "gs:///k"],
)
def test_an_invalid_source_keeps_the_worker_from_starting_and_is_named(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings({"WORKER_FILE_SOURCES": f"s3://good/ {text}"})
    assert "WORKER_FILE_SOURCES" in str(caught.value)
    assert repr(text) in str(caught.value)


# ---------------------------------------------------------------------------------------------------- through a worker


@pytest.fixture
def worker() -> Worker:
    worker = Worker(worker_type="test")

    @worker.skill
    def echo(params: dict[str, Any]) -> dict[str, Any]:
        return {"got": params}

    @worker.skill
    def typed(to: str, amounts: list[Any]) -> dict[str, Any]:
        return {"to": to, "amounts": amounts}

    @worker.skill
    async def size(source: Path, files: TaskFiles) -> dict[str, int]:
        return {"size": len(await files.list(source)) if source.is_dir() else len(await files.read(source))}  # noqa: ASYNC240

    @worker.skill
    async def fetch(uri: str, files: TaskFiles) -> dict[str, str]:
        return {"text": await files.read(await files.download_file(uri))}

    @worker.skill
    async def publish(target: str, files: TaskFiles) -> dict[str, str]:
        await files.write("a.txt", "overwritten")
        return {"uri": await files.upload_file("a.txt", target)}

    @worker.skill
    async def as_text(files: TaskFiles) -> dict[str, Any]:
        path = await files.write("a.txt", "a")
        return {"text": str(path), "none": None}

    return worker


@pytest.fixture
def store(tmp_path: Path) -> Path:
    other = tmp_path / "store" / "job-of-tenant-a" / "task-1"
    other.mkdir(parents=True)
    (other / "report.txt").write_text("TENANT-A SECRET")
    (tmp_path / "store" / "in").mkdir()
    (tmp_path / "store" / "in" / "a.txt").write_text("mine")
    return tmp_path / "store"


def harness(worker: Worker, store: Path, **settings: Any) -> WorkerHarness:
    chosen = {"file_store_root": store, "file_sources": None, "task_files_dir": store.parent / "files", **settings}
    return WorkerHarness(worker, settings=chosen)


def holding(directory: Path, text: str) -> list[str]:
    found = [each for each in directory.rglob("*") if each.is_file()]
    return [each.name for each in found if text in each.read_text()]


async def test_texts_that_look_like_uris_stay_texts_where_the_types_do_not_ask_for_files(
    worker: Worker, store: Path
) -> None:
    uri = f"file://{store}/in/a.txt"
    async with harness(worker, store) as h:
        assert (await h.run("echo", {"x": uri, "deep": [uri]})).data == {"got": {"x": uri, "deep": [uri]}}
        assert (await h.run("typed", {"to": uri, "amounts": [uri]})).data == {"to": uri, "amounts": [uri]}
    assert not holding(store.parent / "files", ""), "nothing was fetched"


@pytest.mark.parametrize("untyped", [False, True])
@pytest.mark.parametrize(
    "below", ["", "job-of-tenant-a/", "job-of-tenant-a/task-1/", "job-of-tenant-a/task-1/report.txt"]
)
async def test_a_client_reads_no_other_clients_results(worker: Worker, store: Path, below: str, untyped: bool) -> None:
    uri = f"file://{store}/{below}"
    async with harness(worker, store, untyped_files=untyped) as h:
        by_type = await h.run("size", {"source": uri})
        by_skill = await h.run("fetch", {"uri": uri})
        echoed = await h.run("echo", {"x": uri})
    assert by_type.error is not None
    assert (by_type.error.code, by_type.error.details["param"]) == ("INVALID_INPUT_ERROR", "source")
    assert "WORKER_FILE_SOURCES" in by_type.error.message
    assert by_skill.error is not None
    assert by_skill.error.code == "SECURITY_ERROR"
    if untyped:
        assert echoed.error is not None
        assert echoed.error.code == "INVALID_INPUT_ERROR"
    else:
        assert echoed.data == {"got": {"x": uri}}
    assert holding(store, "SECRET") == ["report.txt"], "no copy was made"


async def test_a_client_writes_into_no_other_clients_results(worker: Worker, store: Path) -> None:
    async with harness(worker, store) as h:
        result = await h.run("publish", {"target": f"file://{store}/job-of-tenant-a/task-1/report.txt"})
    assert result.error is not None
    assert result.error.code == "SECURITY_ERROR"
    assert (store / "job-of-tenant-a" / "task-1" / "report.txt").read_text() == "TENANT-A SECRET"


@pytest.mark.parametrize("uri", ["gs://bucket/key", "az://container/key"])
async def test_a_kind_of_store_that_is_not_listed_is_never_reached_for(worker: Worker, store: Path, uri: str) -> None:
    async with harness(worker, store) as h:
        result = await h.run("size", {"source": uri})
    assert result.error is not None
    assert (result.error.code, result.error.details["uri"]) == ("INVALID_INPUT_ERROR", uri)


async def test_the_path_of_a_file_that_is_returned_as_a_text_stays_a_text_and_the_log_says_so(
    worker: Worker, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with harness(worker, store) as h:
        result = await h.run("as_text")
    assert result.data["text"].endswith("/a.txt")
    assert not result.data["text"].startswith("file://")
    assert any(getattr(each, "action", "") == "file_left_as_text" for each in caplog.records)
    async with harness(worker, store, untyped_files=True) as h:
        assert (await h.run("as_text")).data["text"].startswith("file://")


# ---------------------------------------------------------------------------------------------------- how much


@pytest.mark.parametrize(
    ("setting", "value", "variable"),
    [
        ("task_files_max_bytes", 3, "WORKER_TASK_FILES_MAX_BYTES"),
        ("task_files_max_objects", 1, "WORKER_TASK_FILES_MAX_OBJECTS"),
    ],
)
async def test_what_a_task_downloads_is_bounded_before_it_is_fetched(
    worker: Worker, store: Path, setting: str, value: int, variable: str
) -> None:
    (store / "in" / "b.txt").write_text("more")
    async with harness(worker, store, **{setting: value}) as h:
        result = await h.run("size", {"source": f"file://{store}/in/"})
    assert result.error is not None
    assert result.error.code == "INVALID_INPUT_ERROR"
    assert (result.error.details["limit"], result.error.details["setting"]) == (value, variable)
    assert variable in result.error.message


def test_refusals_are_security_errors() -> None:
    with pytest.raises(SourceRefusedError) as caught:
        sources().check(locate("s3://payloads/", None), "job-b")
    assert caught.value.code == "SECURITY_ERROR"
