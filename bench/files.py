"""Throughput of files against plain obstore in the same run, and peak memory: ``python -m bench.files``.

Both sides talk to a small S3 server in memory, in a process of its own; each measurement is a process as well, so that
its peak memory is its own. The fastest of ``--rounds`` counts: on a shared machine the others measure the neighbors.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from aiohttp import web

BUCKET = "bench"
MIB = 1024 * 1024
SMALL_SIZE = 10_000
AT_ONCE = 32
"""Small objects in flight; `TaskFiles` has as many by default."""


# ------------------------------------------------------------------------------------------------------ the server


class MemoryS3:
    """As much of S3 as both sides use. Objects are kept as the parts they came in, so that nothing is copied."""

    def __init__(self) -> None:
        self._objects: dict[str, list[bytes]] = {}
        self._uploads: dict[str, dict[int, bytes]] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        key = request.match_info["key"]
        answers: dict[str, Callable[[web.Request, str], Awaitable[web.StreamResponse]]] = {
            "PUT": self._put, "POST": self._post, "GET": self._get, "HEAD": self._get
        }  # fmt: skip
        return await answers[request.method](request, key)

    async def _put(self, request: web.Request, key: str) -> web.Response:
        content = await request.read()
        if "partNumber" in request.query:
            self._uploads[request.query["uploadId"]][int(request.query["partNumber"])] = content
        else:
            self._objects[key] = [content]
        return web.Response(headers={"ETag": f'"{len(content)}"'})

    async def _post(self, request: web.Request, key: str) -> web.Response:
        if "uploads" in request.query:
            upload = str(len(self._uploads))
            self._uploads[upload] = {}
            name, body = "InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>"
        else:
            parts = self._uploads.pop(request.query["uploadId"])
            self._objects[key] = [parts[number] for number in sorted(parts)]
            name, body = "CompleteMultipartUploadResult", f'<ETag>"{len(parts)}"</ETag>'
        await request.read()
        text = f"<{name}><Bucket>{BUCKET}</Bucket><Key>{escape(key)}</Key>{body}</{name}>"
        return web.Response(text=text, content_type="application/xml")

    async def _get(self, request: web.Request, key: str) -> web.StreamResponse:
        if not key:
            return self._list(request)
        if key not in self._objects:
            return web.Response(status=404, text="<Error><Code>NoSuchKey</Code></Error>")
        parts = self._objects[key]
        size = sum(map(len, parts))
        wanted = request.http_range
        start, stop = wanted.start or 0, min(wanted.stop or size, size)
        headers = {"ETag": f'"{size}"', "Content-Length": str(stop - start), "Last-Modified": _NOW}
        if "Range" in request.headers:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        answer = web.StreamResponse(status=206 if "Range" in request.headers else 200, headers=headers)
        await answer.prepare(request)
        at = 0
        for part in parts if request.method == "GET" else ():
            if at < stop and at + len(part) > start:
                await answer.write(memoryview(part)[max(0, start - at) : stop - at])
            at += len(part)
        return answer

    def _list(self, request: web.Request) -> web.Response:
        prefix = request.query.get("prefix", "")
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00Z</LastModified>"
            f'<ETag>"{sum(map(len, parts))}"</ETag><Size>{sum(map(len, parts))}</Size></Contents>'
            for key, parts in self._objects.items()
            if key.startswith(prefix)
        )
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        return web.Response(text=text, content_type="application/xml")


_NOW = "Thu, 01 Jan 2026 00:00:00 GMT"


def serve(announce: Any) -> None:
    """Run the server; its port goes to ``announce``."""

    async def main() -> None:
        app = web.Application(client_max_size=2**40)
        app.router.add_route("*", f"/{BUCKET}{{slash:/?}}{{key:.*}}", MemoryS3().handle)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        announce.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


# ------------------------------------------------------------------------------------------------- what is measured


async def plain(url: str, directory: Path, count: int, up: bool) -> float:
    """Move the files with obstore as its documentation shows; return how long it took."""
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        BUCKET, endpoint=url, access_key_id="a", secret_access_key="b", region="x", client_options={"allow_http": True}
    )
    turns = asyncio.Semaphore(AT_ONCE)

    async def send(path: Path) -> None:
        async with turns:
            await obstore.put_async(store, f"plain/{path.name}", path)

    async def fetch(name: str) -> None:
        async with turns:
            answer = await obstore.get_async(store, f"plain/{name}")
            with (directory / f"got-{name}").open("wb") as file:
                async for chunk in answer.stream(min_chunk_size=8 * MIB):
                    file.write(chunk)

    began = time.perf_counter()
    if up:
        await asyncio.gather(*(send(directory / name) for name in _names(count)))
    else:
        await asyncio.gather(*(fetch(name) for name in _names(count)))
    return time.perf_counter() - began


async def ours(url: str, directory: Path, count: int, up: bool) -> float:
    """Move them as a skill would, with `TaskFiles`."""
    from avtomatika_worker.errors import InvalidInputError
    from avtomatika_worker.files.service import Files
    from avtomatika_worker.files.store_settings import StoreSettings

    stores = StoreSettings(endpoint_url=url, access_key="a", secret_key="b", default_bucket=BUCKET)
    files = Files(directory / "payloads", stores)
    task = files.for_task("job", "task", lambda _: None)
    if up:
        root = await task.get_root()
        for name in _names(count):
            (root / name).hardlink_to(directory / name)
    with contextlib.suppress(InvalidInputError):  # loads obstore and makes the client, as `plain` has done by now
        await task.download_file(f"s3://{BUCKET}/missing")
    began = time.perf_counter()
    if count == 1:
        await (task.upload_file("0", f"s3://{BUCKET}/ours/0") if up else task.download_file(f"s3://{BUCKET}/ours/0"))
    else:
        await (task.upload_dir("", f"s3://{BUCKET}/ours/") if up else task.download_file(f"s3://{BUCKET}/ours/"))
    took = time.perf_counter() - began
    await task.remove()
    files.close()
    return took


def _names(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def measure(side: str, url: str, directory: str, count: int, up: bool) -> None:
    """Measure one thing in this process and print it."""
    func = {"plain": plain, "ours": ours}[side]
    took = asyncio.run(func(url, Path(directory), count, up))
    print(json.dumps({"seconds": took, "peak_mib": _peak_mib()}))
    if side == "plain":
        time.sleep(0.1)  # obstore's threads: one that is busy when the interpreter ends aborts the process


def _peak_mib() -> float:
    """Return the peak of this process alone: what getrusage returns begins with that of the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


# ------------------------------------------------------------------------------------------------------ the report


def _best(side: str, url: str, directory: Path, count: int, up: bool, rounds: int) -> dict[str, float]:
    found = []
    for _ in range(rounds):
        what = (side, url, str(directory), str(count), str(int(up)))
        command = (sys.executable, "-m", "bench.files", "--measure", *what)
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found.append(json.loads(output))
        for path in directory.glob("got-*"):
            path.unlink()
    return {"seconds": min(f["seconds"] for f in found), "peak_mib": max(f["peak_mib"] for f in found)}


def _compare(url: str, title: str, count: int, size: int, rounds: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as text:
        directory = Path(text)
        for name in _names(count):
            with (directory / name).open("wb") as file:
                for at in range(0, size, MIB):
                    file.write(bytes(min(MIB, size - at)))
        rows = []
        for up in (True, False):
            sides = {side: _best(side, url, directory, count, up, rounds) for side in ("plain", "ours")}
            rows.append({
                "what": f"{title} {'up' if up else 'down'}",
                "amount": count * size / MIB if count == 1 else count,
                "unit": "MiB/s" if count == 1 else "objects/s",
                **sides,
            })  # fmt: skip
        shutil.rmtree(directory / "payloads", ignore_errors=True)
    return rows


def main() -> None:
    """Measure and print a table, or JSON with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="size of the large file in MiB (1024)")
    parser.add_argument("--count", type=int, default=2000, help="number of small files (2000)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each kind (3)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        side, url, directory, count, up = arguments.measure
        measure(side, url, directory, int(count), up == "1")
        return
    receive, announce = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(announce,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{receive.recv()}"
    rows = _compare(url, "one large file", 1, arguments.size * MIB, arguments.rounds)
    rows += _compare(url, "small files", arguments.count, SMALL_SIZE, arguments.rounds)
    server.terminate()
    print(json.dumps(rows, indent=2)) if arguments.json else _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    print(f"{'':22}{'plain obstore':>22}{'TaskFiles':>20}{'ratio':>8}{'peak memory (plain, ours)':>28}")
    for row in rows:
        rates = [row["amount"] / row[side]["seconds"] for side in ("plain", "ours")]
        shown = f"{rates[0]:12,.0f} {row['unit']:>9}{rates[1]:10,.0f} {row['unit']:>9}{rates[1] / rates[0]:8.2f}"
        print(f"{row['what']:22}{shown}{row['plain']['peak_mib']:16,.0f} and {row['ours']['peak_mib']:,.0f} MiB")


if __name__ == "__main__":
    main()
