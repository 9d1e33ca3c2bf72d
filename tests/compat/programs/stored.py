"""Files of results in an object store."""

from pathlib import PurePosixPath
from typing import Any

from avtomatika_worker import TaskFiles, Worker

worker = Worker("stored")


@worker.skill("upload")
async def upload(params: dict[str, Any], files: TaskFiles) -> dict[str, Any]:
    await files.write("out.txt", "hello")
    meta = await files.upload_file("out.txt")
    facts = {"size": meta.size, "etag": meta.etag, "metadata": meta.metadata, "name": PurePosixPath(meta.uri).name}
    return {"status": "success", "data": facts}


@worker.skill("upload_dir")
async def upload_dir(params: dict[str, Any], files: TaskFiles) -> dict[str, Any]:
    await files.write("d/a.txt", "a")
    await files.write("d/b/c.txt", "c")
    meta = await files.upload_dir("d")
    return {"status": "success", "data": {"size": meta.size, "name": PurePosixPath(meta.uri).name}}


@worker.skill("upload_json")
async def upload_json(params: dict[str, Any], files: TaskFiles) -> dict[str, Any]:
    meta: Any = await files.write_json("out.json", {"a": [1, "я"]})
    return {
        "status": "success",
        "data": {"name": PurePosixPath(meta.uri).name, "read": await files.read_json("out.json")},
    }


@worker.skill("path_in_result")
async def path_in_result(params: dict[str, Any], files: TaskFiles) -> dict[str, Any]:
    await files.write("out.txt", "hello")
    path = await files.path_to("out.txt")
    return {"status": "success", "data": {"file": path, "more": [path]}}


@worker.skill("metadata_in_result")
async def metadata_in_result(params: dict[str, Any], files: TaskFiles) -> dict[str, Any]:
    await files.write("out.txt", "hello")
    return {"status": "success", "data": {"file": await files.upload_file("out.txt")}}


@worker.skill("uri_in_params")
async def uri_in_params(params: dict[str, Any]) -> dict[str, Any]:
    return {"status": "success", "data": {"stays": params["source"].startswith("s3://")}}


if __name__ == "__main__":
    worker.run()
