"""A path in the params is a file of the task, or it is refused: no task opens another file of the worker's machine."""

import os
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Annotated, Any, NamedTuple, Optional, TypedDict

import msgspec
import pydantic
import pytest

from avtomatika_worker import S3Uri, TaskFiles, Worker
from avtomatika_worker.skills.uri_params import PATHS, places
from avtomatika_worker.testing import WorkerHarness

MACHINES = [
    "/etc/passwd",
    "//etc/passwd",
    "/",
    "../secret",
    "a/../../secret",
    "a/..",
    "~/secret",
    "~root/secret",
    "C:\\secret",
    "c:secret",
    "\\\\host\\share\\secret",
    "\\secret",
    "a\\..\\..\\secret",
    "file:/etc/passwd",
    "FILE:///etc/passwd",
    "http://example.com/a",
    "S3://bucket/a",
    "/proc/self/environ",
    "a\0b",
    "a//b",
    "./a",
]


@dataclass
class Inner:
    file: Path


@dataclass
class Data:
    source: Path | None = None
    inner: Inner | None = None
    many: list[Path] = field(default_factory=list)
    by_name: dict[str, Path] = field(default_factory=dict)
    nodes: list["Data"] = field(default_factory=list)


class Struct(msgspec.Struct):
    source: Path
    pair: tuple[int, Path] | None = None
    rest: set[Path] = set()


class Typed(TypedDict):
    source: Path


class Named(NamedTuple):
    source: Path


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True, str_strip_whitespace=True)
    source: Path | None = None
    existing: pydantic.FilePath | None = None
    directory: pydantic.DirectoryPath | None = None
    new: pydantic.NewPath | None = None
    pure: PurePath | None = None
    like: os.PathLike[str] | None = None
    either: str | Path = ""
    aliased: Path | None = pydantic.Field(None, alias="otherName")
    choice: Path | None = pydantic.Field(None, validation_alias=pydantic.AliasChoices("first", "second"))
    annotated: Annotated[Path, pydantic.Field(description="a file")] | None = None
    inner: Inner | None = None
    keys: dict[Path, int] = {}


class Loud(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True, str_to_lower=True)
    file: Path = pydantic.Field(alias="theFile", validation_alias=pydantic.AliasChoices("theFile", "source"))


@pytest.fixture
def worker():
    worker = Worker(worker_type="test")
    seen: list[object] = []
    worker.seen = seen

    @worker.skill
    async def plain(source: Path, other: Optional[Path] = None):  # noqa: UP045 - users write it so
        seen.append(source)

    @worker.skill
    def many(sources: list[Path], by_name: dict[str, Path] | None = None):
        seen.append(sources)

    @worker.skill
    def data(params: Data):
        seen.append(params)

    @worker.skill
    def struct(params: Struct):
        seen.append(params)

    @worker.skill
    def typed(params: Typed):
        seen.append(params)

    @worker.skill
    def named(params: Named):
        seen.append(params)

    @worker.skill
    def model(params: Model):
        seen.append(params)

    @worker.skill
    def loud(params: Loud):
        seen.append(params)

    @worker.skill(input_schema={"type": "object", "properties": {"source": {"type": "string"}}})
    def written(source: Path):
        seen.append(source)

    return worker


async def refused(worker, skill, params, where):
    async with WorkerHarness(worker) as h:
        result = await h.run(skill, params)
    assert worker.seen == []
    assert result.error is not None
    assert result.error.code == "INVALID_INPUT_ERROR"
    assert f"params.{where}: " in result.error.message
    return result.error


@pytest.mark.parametrize("text", MACHINES, ids=ascii)
async def test_a_path_of_the_machine_is_refused_before_the_skill_runs(worker, text):
    error = await refused(worker, "plain", {"source": text}, "source")
    assert "is not a file of this task: " in error.message
    assert error.details["param"] == "source"


@pytest.mark.parametrize(
    ("skill", "params", "where"),
    [
        ("plain", {"source": "a", "other": "/etc/passwd"}, "other"),
        ("many", {"sources": ["a", "/etc/passwd"]}, "sources[1]"),
        ("many", {"sources": [], "by_name": {"x": "/etc/passwd"}}, "by_name.x"),
        ("data", {"source": "/etc/passwd"}, "source"),
        ("data", {"inner": {"file": "/etc/passwd"}}, "inner.file"),
        ("data", {"many": ["/etc/passwd"]}, "many[0]"),
        ("data", {"by_name": {"x": "/etc/passwd"}}, "by_name.x"),
        ("data", {"nodes": [{"nodes": [{"inner": {"file": "/etc/passwd"}}]}]}, "nodes[0].nodes[0].inner.file"),
        ("struct", {"source": "/etc/passwd"}, "source"),
        ("struct", {"source": "a", "pair": [1, "/etc/passwd"]}, "pair[1]"),
        ("struct", {"source": "a", "rest": ["/etc/passwd"]}, "rest[0]"),
        ("typed", {"source": "/etc/passwd"}, "source"),
        ("named", {"source": "/etc/passwd"}, "source"),
        ("written", {"source": "/etc/passwd"}, "source"),
        *(
            ("model", {name: "/etc/passwd"}, name)
            for name in ("source", "existing", "pure", "like", "either", "otherName", "first", "annotated")
        ),
        ("model", {"source": "  /etc/passwd/../x"}, "source"),
        ("model", {"directory": "/etc"}, "directory"),
        ("model", {"new": "/etc/new"}, "new"),
        ("model", {"inner": {"file": "/etc/passwd"}}, "inner.file"),
        ("model", {"keys": {"/etc/passwd": 1}}, "keys"),
        # By names that the schema does not have:
        ("model", {"aliased": "/etc/passwd"}, "aliased"),
        ("model", {"second": "/etc/passwd"}, "second"),
        ("model", {"second": "/etc//passwd"}, "second"),
        ("model", {"second": "  /etc/passwd"}, "second"),
        ("loud", {"source": "/ETC/PASSWD"}, "source"),
    ],
)
async def test_wherever_the_types_have_a_path_it_is_checked(worker, skill, params, where):
    await refused(worker, skill, params, where)


async def test_a_deep_one_is_found_too(worker):
    params: dict[str, Any] = {"source": "/etc/passwd"}
    for _ in range(12):
        params = {"nodes": [params]}
    await refused(worker, "data", params, "nodes[0]" + ".nodes[0]" * 11 + ".source")


async def test_a_relative_name_is_one_in_the_tasks_directory(worker):
    @worker.skill
    async def where(source: Path, names: list[Path], files: TaskFiles) -> dict[str, Any]:
        root = await files.get_root()
        return {"source": str(source.relative_to(root)), "names": [str(each.relative_to(root)) for each in names]}

    async with WorkerHarness(worker) as h:
        result = await h.run("where", {"source": "a/b.txt", "names": ["é .txt", "..a", ""]})
    assert result.data == {"source": "a/b.txt", "names": ["é .txt", "..a", "."]}


async def test_a_default_may_be_any_path(worker):
    @worker.skill
    def words(source: Path = Path(__file__)) -> dict[str, str]:
        return {"name": source.name}

    async with WorkerHarness(worker) as h:
        assert (await h.run("words")).data == {"name": Path(__file__).name}


@pytest.mark.parametrize(
    "uri", ["file:///etc/passwd", "file:///ROOT/../secret", "file://host/etc/passwd", "file:///ROOT/link"]
)
async def test_a_uri_of_a_file_outside_of_the_store_is_refused(worker, tmp_path, uri):
    root = tmp_path / "store"
    root.mkdir()
    (tmp_path / "secret").write_text("secret")
    (root / "link").symlink_to(tmp_path / "secret")
    async with WorkerHarness(worker, settings={"file_store_root": root}) as h:
        result = await h.run("plain", {"source": uri.replace("/ROOT", str(root))})
    assert worker.seen == []
    assert result.error is not None
    assert (result.error.code, result.error.details["param"]) == ("INVALID_INPUT_ERROR", "source")
    assert "params.source: " in result.error.message


async def test_uris_are_still_files_and_bare_ones_still_uris(worker):
    @worker.skill
    def both(source: Path, uri: S3Uri, text: str) -> dict[str, Any]:
        return {"read": source.read_text(), "uri": uri, "text": text}

    async with WorkerHarness(worker) as h:
        uri = h.store("a.txt", "hello")
        result = await h.run("both", {"source": uri, "uri": uri, "text": "/etc/passwd"})
    assert result.ok
    assert result.data == {"read": "hello", "uri": uri, "text": "/etc/passwd"}


async def test_a_directory_is_given_to_a_task_under_test_as_a_file_is(worker, tmp_path):
    @worker.skill
    def names(where: Path) -> list[str]:
        return sorted(each.name for each in where.iterdir())

    (tmp_path / "one").write_text("1")
    async with WorkerHarness(worker) as h:
        assert (await h.run("names", {"where": tmp_path})).data == {"result": ["one"]}


def test_references_are_followed_wherever_they_lead():
    schema = {
        "type": "object",
        "properties": {
            "a": {"$ref": "#/definitions/file"},
            "b": {"$ref": "#/properties/a"},
            "c": {"anyOf": [{"type": "integer"}, {"$ref": "#/properties/list/items/0"}]},
            "d": {"if": {"type": "string"}, "then": {"format": "path"}},
            "e": {"allOf": [{"$ref": "#"}]},
            "f": {"$ref": "https://example.com/schema"},
            "list": {"items": [{"format": "path"}]},
        },
        "patternProperties": {"^x": {"format": "file-path"}},
        "definitions": {"file": {"type": "string", "format": "directory-path"}},
    }
    value = {"a": "1", "b": "2", "c": "3", "d": "4", "e": {"a": "5"}, "f": "6", "xyz": "7"}
    found = places(schema, value, PATHS)
    assert {("a",), ("b",), ("c",), ("d",), ("e", "a"), ("xyz",)} <= found
