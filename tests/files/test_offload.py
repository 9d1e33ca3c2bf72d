"""Files through a real worker: URIs in params become files, files in results become URIs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pydantic
import pytest

from avtomatika_worker import Failed, Outcome, S3Uri, Succeeded, TaskContext, TaskFiles, Worker
from avtomatika_worker.devserver import EmbeddedOrchestrator, JobRecord
from avtomatika_worker.files.service import Files
from files.conftest import ACCESS_KEY, SECRET_KEY, Bucket, store_settings, worker_settings
from files.proxy import Stall, fault_proxy
from services.assembled import make_supervisor, supervised
from services.conftest import running


@pytest.fixture
def run(worker: Worker, orchestrator: EmbeddedOrchestrator, bucket: Bucket, tmp_path: Path) -> Callable[..., Any]:
    """Run a task of the worker to its end and return the job."""

    async def run(
        skill: str,
        params: dict[str, Any],
        *,
        settings: Mapping[str, Any] | None = None,
        others: Mapping[str, Any] = {},
        **submitted: Any,
    ) -> JobRecord:
        chosen = (
            worker_settings(bucket, tmp_path, **others)
            if settings is None
            else {"task_files_dir": tmp_path / "payloads", **settings}
        )
        async with running(worker, orchestrator, **chosen):
            job = orchestrator.submit(skill, params, **submitted)
            await orchestrator.wait_for(lambda: job.state.final, timeout=20)
        left = list((tmp_path / "payloads").glob("*")) if (tmp_path / "payloads").exists() else []
        assert left == [], "the task's files are gone, and so is the run's directory"
        return job

    return run


UNTYPED = {"untyped_files": True}


def error(job: JobRecord) -> dict[str, Any]:
    assert job.error is not None, job.describe()
    return job.error


def etag(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()  # noqa: S324 - what S3 makes of an object in one part


async def test_objects_anywhere_in_untyped_params_are_local_files_where_the_setting_says_so(
    worker: Worker, bucket: Bucket, run: Any
) -> None:
    @worker.skill
    def gather(params: dict[str, Any]) -> dict[str, Any]:
        paths = [params["one"], params["deep"]["list"][0], params["deep"]["list"][1]]
        return {
            "texts": [Path(path).read_text() for path in paths],
            "names": [Path(path).name for path in paths],
            "shared": paths[0] == paths[2],
            "other": params["other"],
        }

    one, two = bucket.put("a/same.txt", b"one"), bucket.put("b/same.txt", b"two")
    job = await run("gather", {"one": one, "deep": {"list": [two, one]}, "other": "not s3://x/y"}, others=UNTYPED)
    assert job.result == {
        "texts": ["one", "two", "one"],
        "names": ["same.txt"] * 3,
        "shared": True,
        "other": "not s3://x/y",
    }


@dataclass
class DataclassParams:
    picture: Path
    source: S3Uri
    width: Annotated[int, msgspec.Meta(ge=1)] = 1


class ModelParams(pydantic.BaseModel):
    picture: Annotated[Path, pydantic.Field(description="a picture")]
    source: S3Uri = pydantic.Field(alias="fromWhere")
    more: list[S3Uri] = []


async def test_a_path_in_a_dataclass_is_a_path_and_a_uri_stays_one(worker: Worker, bucket: Bucket, run: Any) -> None:
    @worker.skill
    def look(params: DataclassParams) -> dict[str, Any]:
        assert isinstance(params.picture, Path)
        assert isinstance(params.source, S3Uri)
        return {"text": params.picture.read_text(), "key": params.source.key, "uri": params.source}

    uri = bucket.put("a/b.txt", b"x")
    job = await run("look", {"picture": uri, "source": uri})
    assert job.result == {"text": "x", "key": "a/b.txt", "uri": uri}
    assert look.__name__ in worker.skills.names()
    schema = worker.skills.contracts()[0].input_schema
    assert schema is not None
    assert schema["properties"]["source"] == {"type": "string", "format": "s3-uri"}


async def test_a_path_in_a_pydantic_model_is_a_path_and_a_uri_stays_one(
    worker: Worker, bucket: Bucket, run: Any
) -> None:
    @worker.skill
    def look(params: ModelParams) -> dict[str, Any]:
        return {"text": params.picture.read_text(), "uris": [params.source, *params.more], "s": params.source.scheme}

    uri = bucket.put("a/b.txt", b"x")
    job = await run("look", {"picture": uri, "fromWhere": uri, "more": [uri]})
    assert job.result == {"text": "x", "uris": [uri, uri], "s": "s3"}


async def test_typed_arguments_and_optional_uris_work_as_well(worker: Worker, bucket: Bucket, run: Any) -> None:
    @worker.skill
    def look(picture: Path, source: S3Uri | None = None, by_name: dict[str, S3Uri] | None = None) -> dict[str, Any]:
        return {"text": picture.read_text(), "source": source, "by_name": by_name}

    uri = bucket.put("a/b.txt", b"x")
    job = await run("look", {"picture": uri, "source": uri, "by_name": {"k": uri}})
    assert job.result == {"text": "x", "source": uri, "by_name": {"k": uri}}


async def test_a_schema_of_ones_own_can_ask_for_uris(worker: Worker, bucket: Bucket, run: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"bare": {"$ref": "#/$defs/u"}, "file": {"type": "string", "format": "path"}},
        "$defs": {"u": {"type": "string", "format": "s3-uri"}},
    }

    @worker.skill(input_schema=schema)
    def look(params: dict[str, Any]) -> dict[str, Any]:
        return {"bare": params["bare"], "text": Path(params["file"]).read_text()}

    uri = bucket.put("a", b"x")
    assert (await run("look", {"bare": uri, "file": uri})).result == {"bare": uri, "text": "x"}


async def test_a_prefix_is_a_directory_with_its_tree(worker: Worker, bucket: Bucket, run: Any) -> None:
    for key in ("set/a.txt", "set/sub/b.txt", "set/sub/deep/c.txt", "settle/no.txt", "set/sub/", "set/"):
        bucket.put(key, b"" if key.endswith("/") else key.encode())

    @worker.skill
    async def tree(where: Path, files: TaskFiles) -> dict[str, Any]:
        names = await files.list(where, recursive=True)
        return {"name": where.name, "files": {name: await files.read(where / name) for name in names}}

    job = await run("tree", {"where": bucket.uri("set/")}, others={"file_sources": (bucket.uri("set/"),)})
    expected = {name: f"set/{name}" for name in ("a.txt", "sub/b.txt", "sub/deep/c.txt")}
    assert job.result == {"name": "set", "files": expected}


async def test_files_in_results_are_uploaded_and_described(worker: Worker, bucket: Bucket, run: Any) -> None:
    @worker.skill
    async def make(files: TaskFiles) -> dict[str, Any]:
        one = await files.write("one.txt", "1")
        await files.write("d/x.txt", "x")
        await files.write("d/e/y.txt", "yy")
        return {"one": one, "list": [{"again": one}], "dir": await files.path_to("d"), "text": "d/x.txt"}

    job = await run("make", {})
    base = bucket.uri(f"{job.job_id}/{job.task_id}")
    assert job.result == {
        "one": f"{base}/one.txt",
        "list": [{"again": f"{base}/one.txt"}],
        "dir": f"{base}/d/",
        "text": "d/x.txt",
    }
    one = {"uri": f"{base}/one.txt", "size": 1, "etag": etag(b"1")}
    assert job.data_metadata == {
        "one": one,
        "list[0].again": one,
        "dir": {"uri": f"{base}/d/", "size": 3},
    }
    assert bucket.server.get(f"{base}/d/e/y.txt") == b"yy"


async def test_what_a_skill_uploads_itself_is_described_too(worker: Worker, bucket: Bucket, run: Any) -> None:
    @worker.skill
    def make(files: TaskFiles) -> dict[str, Any]:
        files.sync.write("a.bin", b"\0\1")
        return {"own": files.sync.upload_file("a.bin", "named/b.bin"), "there": files.sync.upload_dir("", TARGET)}

    TARGET = bucket.uri("elsewhere")
    job = await run("make", {})
    base = bucket.uri(f"{job.job_id}/{job.task_id}")
    assert job.result == {"own": f"{base}/named/b.bin", "there": f"{TARGET}/"}
    assert set(job.data_metadata) == {"own", "there"}
    assert bucket.get("elsewhere/a.bin") == b"\0\1"


async def test_a_skill_downloads_on_its_own(worker: Worker, bucket: Bucket, run: Any) -> None:
    @worker.skill
    async def own(source: S3Uri, files: TaskFiles) -> dict[str, Any]:
        one = await files.download_file(source)
        two = await files.download_file(source, "sub/own.txt")
        return {"names": [one.name, two.name], "text": await files.read("sub/own.txt")}

    job = await run("own", {"source": bucket.put("a.txt", b"text")})
    assert job.result == {"names": ["a.txt", "own.txt"], "text": "text"}


# ---------------------------------------------------------------------------------------------------- what goes wrong


@pytest.fixture
def reader(worker: Worker) -> Worker:
    @worker.skill
    def read(file: Path) -> dict[str, Any]:
        return {"text": file.read_text()}

    return worker


@pytest.mark.parametrize("wrong", [{"size": 4}, {"etag": "0" * 32}, {"etag": '"x"', "size": 3}])
async def test_metadata_that_contradicts_the_object_fails_the_job(
    reader: Worker, bucket: Bucket, run: Any, wrong: dict[str, Any]
) -> None:
    uri = bucket.put("a.txt", b"abc")
    job = await run("read", {"file": uri}, params_metadata={"file": {"uri": uri, **wrong}})
    assert error(job)["code"] == "INTEGRITY_MISMATCH_ERROR"
    assert "params.file" in error(job)["message"]


@pytest.mark.parametrize("quote", ["", '"'])
async def test_metadata_that_matches_or_is_of_another_object_does_not_fail_the_job(
    reader: Worker, bucket: Bucket, run: Any, quote: str
) -> None:
    uri = bucket.put("a.txt", b"abc")
    right = {"uri": uri, "size": 3, "etag": f"{quote}{etag(b'abc')}{quote}"}
    other = {"file": {"uri": "s3://other/x", "size": 9}, "any": right, "odd": None}
    assert (await run("read", {"file": uri}, params_metadata=other)).result == {"text": "abc"}


async def test_a_missing_object_is_invalid_input(reader: Worker, bucket: Bucket, run: Any) -> None:
    job = await run("read", {"file": bucket.uri("missing")})
    assert error(job)["code"] == "INVALID_INPUT_ERROR"
    assert bucket.uri("missing") in error(job)["message"]


async def test_a_prefix_without_objects_is_invalid_input(reader: Worker, bucket: Bucket, run: Any) -> None:
    assert error(await run("read", {"file": bucket.uri("missing/")}))["code"] == "INVALID_INPUT_ERROR"


@pytest.mark.parametrize("uri", ["s3://bucket/key", "file:///etc/hostname"])
async def test_a_worker_without_a_store_says_what_is_missing(reader: Worker, run: Any, uri: str) -> None:
    job = await run("read", {"file": uri}, settings={})
    assert error(job)["code"] == "DEPENDENCY_MISSING_ERROR"
    assert "S3_ENDPOINT_URL" in error(job)["message"] or "WORKER_FILE_STORE_ROOT" in error(job)["message"]


async def test_a_result_with_a_file_and_no_place_for_it_is_a_failure(worker: Worker, run: Any) -> None:
    @worker.skill
    async def make(files: TaskFiles) -> dict[str, Any]:
        return {"file": Path(await files.write("a", "x"))}

    job = await run("make", {}, settings={})
    assert (error(job)["code"], job.result) == ("DEPENDENCY_MISSING_ERROR", None)
    assert "S3_DEFAULT_BUCKET" in error(job)["message"]


async def test_a_result_that_names_no_file_is_a_failure(worker: Worker, run: Any) -> None:
    @worker.skill
    async def forget(files: TaskFiles) -> dict[str, Any]:
        return {"deep": [await files.path_to("never-written")]}

    job = await run("forget", {})
    assert error(job)["code"] == "PERMANENT_ERROR"
    assert "data.deep[0]" in error(job)["message"]


async def test_a_result_whose_file_leads_out_is_a_security_error(worker: Worker, run: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")

    @worker.skill
    def leak(files: TaskFiles) -> dict[str, Any]:
        link = files.sync.get_root() / "link"
        link.symlink_to(tmp_path / "secret")
        return {"file": link}

    job = await run("leak", {})
    assert error(job)["code"] == "SECURITY_ERROR"


async def test_a_failure_keeps_its_reason_when_its_files_cannot_be_stored(worker: Worker, run: Any) -> None:
    @worker.skill
    async def fail(files: TaskFiles) -> dict[str, Any]:
        path = await files.write("log", "x")
        return {"status": "failure", "error": {"code": "PERMANENT_ERROR", "message": "why"}, "data": {"log": path}}

    stored = await run("fail", {})
    assert (error(stored)["code"], error(stored)["message"]) == ("PERMANENT_ERROR", "why")
    assert stored.results_received[-1].message["data"]["log"].startswith("s3://")


async def test_the_extra_that_is_missing_is_named(reader: Worker, bucket: Bucket, run: Any) -> None:
    import sys

    blocked = {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == "obstore"}
    sys.modules["obstore"] = None  # type: ignore[assignment]
    try:
        job = await run("read", {"file": bucket.put("a", b"x")})
    finally:
        del sys.modules["obstore"]
        sys.modules.update(blocked)
    assert error(job)["code"] == "DEPENDENCY_MISSING_ERROR"
    assert 'install the extra [s3]: pip install "obstore' in error(job)["message"]


# ---------------------------------------------------------------------------------------------------- around it


async def test_middlewares_see_uris_on_both_sides(worker: Worker, bucket: Bucket, run: Any) -> None:
    seen: list[object] = []

    async def look(ctx: TaskContext, call_next: Callable[[TaskContext], Any]) -> Outcome:
        seen.append(ctx.params["file"])
        outcome: Outcome = await call_next(ctx)
        assert isinstance(outcome, Succeeded)
        seen.append(outcome.data["file"])
        return outcome

    @worker.skill
    def copy(file: Path, ctx: TaskContext) -> dict[str, Any]:
        return {"file": ctx.files.sync.write("copy", file.read_bytes())}

    worker.add_middleware(look)
    uri = bucket.put("a", b"x")
    job = await run("copy", {"file": uri})
    assert seen == [uri, bucket.uri(f"{job.job_id}/{job.task_id}/copy")]


async def test_a_middleware_refuses_a_task_before_anything_is_downloaded(
    reader: Worker, bucket: Bucket, run: Any
) -> None:
    async def refuse(ctx: TaskContext, call_next: Callable[[TaskContext], Any]) -> Outcome:
        return Failed("PERMANENT_ERROR", "not today")

    reader.add_middleware(refuse)
    job = await run("read", {"file": "s3://no-such-bucket/x"})
    assert error(job)["message"] == "not today"


async def test_files_in_a_store_root_serve_development(
    worker: Worker, orchestrator: EmbeddedOrchestrator, run: Any, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    (root / "in").mkdir(parents=True)
    (root / "in" / "a.txt").write_text("abc")

    @worker.skill
    async def copy(source: Path, files: TaskFiles) -> dict[str, Any]:
        return {"file": await files.write("out.txt", (await files.read(source)).upper())}

    job = await run("copy", {"source": f"file://{root}/in/a.txt"}, settings={"file_store_root": root})
    assert job.result == {"file": f"file://{root}/{job.job_id}/{job.task_id}/out.txt"}
    assert (root / job.job_id / job.task_id / "out.txt").read_text() == "ABC"


async def test_the_announced_hash_is_that_of_the_configuration(
    worker: Worker, orchestrator: EmbeddedOrchestrator, bucket: Bucket, tmp_path: Path
) -> None:
    async with running(worker, orchestrator, **worker_settings(bucket, tmp_path)):
        registration = next(call.json for call in orchestrator.requests if call.call == "register")
    text = f"{bucket.server.url}|{ACCESS_KEY}|{bucket.name}"
    assert registration["capabilities"]["s3_config_hash"] == hashlib.sha256(text.encode()).hexdigest()[:16]


async def test_secrets_are_nowhere(
    reader: Worker,
    bucket: Bucket,
    orchestrator: EmbeddedOrchestrator,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    files = Files(tmp_path / "payloads", store_settings("http://127.0.0.1:1", bucket.name))
    settings = {**worker_settings(bucket, tmp_path), "s3_endpoint_url": "http://127.0.0.1:1"}
    supervisor, _ = make_supervisor(reader, orchestrator, files=files, **settings)
    async with supervised(supervisor, orchestrator):
        job = await orchestrator.submit("read", {"file": bucket.uri("x")}).done()
    assert error(job)["code"] == "TRANSIENT_ERROR"
    visible = repr(job) + caplog.text
    assert SECRET_KEY not in visible
    assert ACCESS_KEY not in visible


async def test_a_long_transfer_shows_as_progress(
    worker: Worker, bucket: Bucket, orchestrator: EmbeddedOrchestrator, tmp_path: Path
) -> None:
    @worker.skill
    def read(source: Path) -> dict[str, int]:
        return {"size": source.stat().st_size}

    uri = bucket.put("big", bytes(30 * 1024 * 1024))
    files = Files(tmp_path / "payloads", store_settings(bucket.server.url, bucket.name), notice_after=0.0)
    supervisor, _ = make_supervisor(worker, orchestrator, files=files, progress_interval=0.0)
    async with supervised(supervisor, orchestrator):
        job = await orchestrator.submit("read", {"source": uri}).done()
    assert job.result == {"size": 30 * 1024 * 1024}
    assert job.progress.message.startswith(f"download of {uri}: ")
    assert job.progress.fraction == 0.0


async def test_shutdown_waits_for_a_limited_time(
    worker: Worker, orchestrator: EmbeddedOrchestrator, bucket: Bucket, tmp_path: Path
) -> None:
    @worker.skill
    async def make(files: TaskFiles) -> dict[str, Any]:
        return {"file": await files.write("a", "x")}

    async with fault_proxy(bucket.server.url) as proxy:
        proxy.some(Stall(), 100, lambda request: request.method == "PUT")
        settings = {**worker_settings(bucket, tmp_path), "s3_endpoint_url": proxy.url, "shutdown_timeout": 0.2}
        async with running(worker, orchestrator, **settings):
            job = orchestrator.submit("make", {})
            await orchestrator.wait_for(lambda: proxy.faults > 0)
            await worker.shutdown()
    message = job.results_received[-1].message
    assert (message["status"], message["error"]["code"]) == ("failure", "TRANSIENT_ERROR")
    assert not message.get("data")
    assert list((tmp_path / "payloads").glob("*")) == []


async def test_shutdown_waits_for_an_upload(
    worker: Worker, orchestrator: EmbeddedOrchestrator, bucket: Bucket, tmp_path: Path
) -> None:
    done = asyncio.Event()

    @worker.skill
    async def make(files: TaskFiles) -> dict[str, Any]:
        path = await files.write("big", bytes(30 * 1024 * 1024))
        done.set()
        return {"file": path}

    async with running(worker, orchestrator, **worker_settings(bucket, tmp_path)):
        job = orchestrator.submit("make", {})
        await done.wait()
        await worker.shutdown()
    assert job.result == {"file": bucket.uri(f"{job.job_id}/{job.task_id}/big")}
    assert job.data_metadata["file"]["size"] == 30 * 1024 * 1024
