"""Files of tasks under test: in as paths or texts, out as paths, with no server."""

import gc
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import BaseModel

from avtomatika_worker import TaskFiles, Worker
from avtomatika_worker.testing import WorkerHarness


@dataclass
class Shout:
    source: Path
    name: str = "loud.txt"


class ShoutModel(BaseModel):
    source: Path


@pytest.fixture
def worker():
    worker = Worker(worker_type="test")

    @worker.skill
    async def shout(params: Shout, files: TaskFiles):
        text = await files.read(params.source)
        return {"loud": await files.write(params.name, text.upper()), "from": params.source.name}

    @worker.skill
    def shout_all(sources: Path, files: TaskFiles):
        pages = [
            {"page": files.sync.write(f"out/{path.name}", path.read_text("utf-8").upper())}
            for path in sorted(sources.iterdir())
        ]
        return {"pages": pages, "all": files.sync.path_to("out"), "count": len(pages)}

    return worker


@pytest.fixture
def quiet(tmp_path):
    path = tmp_path / "quiet é.txt"
    path.write_text("hello", "utf-8")
    return path


@pytest.mark.parametrize("params", [lambda path: {"source": path}, Shout, lambda path: ShoutModel(source=path)])
async def test_a_path_in_the_params_is_a_file_that_the_task_gets(worker, quiet, params):
    async with WorkerHarness(worker) as h:
        result = await h.run("shout", params(quiet))
    assert result.data["from"] == quiet.name
    assert result.file("loud").read_text("utf-8") == "HELLO"
    assert result.files == {"loud": result.file("loud")}
    assert quiet.read_text("utf-8") == "hello"


@pytest.mark.parametrize("content", ["hé", "hé".encode()])
async def test_a_file_can_be_made_of_what_is_in_it(worker, content):
    async with WorkerHarness(worker) as h:
        result = await h.run("shout", {"source": h.store("a.txt", content), "name": "below/b.txt"})
    assert result.data["from"] == "a.txt"
    assert result.file("loud").name == "b.txt"
    assert result.file("loud").read_text("utf-8") == "HÉ"


async def test_directories_go_in_and_come_out_and_files_are_found_where_the_data_name_them(worker, tmp_path):
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text(name, "utf-8")
    async with WorkerHarness(worker) as h:
        result = await h.run("shout_all", {"sources": h.store("texts", tmp_path)})
    assert result.data["count"] == 2
    assert sorted(result.files) == ["all", "pages[0].page", "pages[1].page"]
    assert result.file("pages[1].page").read_text("utf-8") == "TWO.TXT"
    assert sorted(path.name for path in result.file("all").iterdir()) == ["one.txt", "two.txt"]
    with pytest.raises(LookupError, match=r"no file at 'page'; files: all, pages\[0\]\.page, pages\[1\]\.page"):
        result.file("page")


async def test_files_are_there_as_long_as_a_result_is_and_then_nothing_is_left(worker, quiet):
    async with WorkerHarness(worker) as h:
        result = await h.run("shout", {"source": quiet})
    path = result.file("loud")
    del h
    gc.collect()
    assert path.exists()
    del result
    gc.collect()
    assert not path.exists()
    assert [each for each in path.parents if each.name.startswith("avtomatika-test-") and each.exists()] == []


async def test_a_directory_of_the_tests_own_is_not_removed(worker, quiet, tmp_path):
    async with WorkerHarness(worker, settings={"file_store_root": tmp_path / "store"}) as h:
        result = await h.run("shout", {"source": quiet})
    assert result.file("loud").is_relative_to(tmp_path / "store")


async def test_a_worker_without_a_store_can_be_tested_too(worker):
    async with WorkerHarness(worker, settings={"file_store_root": None}) as h:
        result = await h.run("shout", {"source": h.store("a.txt", "a")})
    assert result.error.code == "DEPENDENCY_MISSING_ERROR"
    assert "WORKER_FILE_STORE_ROOT is not set" in result.error.message


async def test_a_text_that_is_not_a_file_name_is_reported(worker):
    async with WorkerHarness(worker) as h:
        for name in ("", "a/b", "/etc/passwd", ".."):
            with pytest.raises(ValueError, match="is not the name of a file"):
                h.store(name, "")
    with pytest.raises(RuntimeError, match="is not running"):
        h.store("a", "")
