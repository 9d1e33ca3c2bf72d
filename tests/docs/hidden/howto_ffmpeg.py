"""A program that stands for FFmpeg: it reports progress, writes its last argument, and fails for what is no video."""

import os
import stat
from pathlib import Path

from avtomatika_worker.testing import WorkerHarness

FFMPEG = """#!/bin/sh
for last; do :; done
case "$*" in *broken*) echo "Invalid data" >&2; exit 1;; *endless*) echo out_time_us=0; exec sleep 60;; esac
echo out_time_us=5000000
echo video > "$last"
"""


def before():
    program = Path("bin/ffmpeg")
    program.parent.mkdir()
    program.write_text(FFMPEG)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    store = Path("store").resolve()
    store.mkdir()
    for name in ("good.mp4", "broken.mp4", "endless.mp4"):
        (store / name).write_text("…")
    return {"_store": store, "_files": Path("files").resolve(), "_programs": program.parent.resolve()}


async def after(names):
    path, results = os.environ["PATH"], names["_store"]
    os.environ["PATH"] = f"{names['_programs']}:{path}"
    settings = {"file_store_root": results, "task_files_dir": names["_files"]}
    try:
        async with WorkerHarness(names["worker"], settings=settings) as h:
            done = await h.run("transcode", {"source": f"file://{results}/good.mp4", "seconds": 10})
            assert done.error is None, done.error
            assert done.data["video"].startswith("file://")
            assert done.progress[-1].fraction == 0.5
            failed = await h.run("transcode", {"source": f"file://{results}/broken.mp4"})
            assert failed.error.code == "INVALID_INPUT_ERROR"
            assert "Invalid data" in failed.error.message
            late = await h.run("transcode", {"source": f"file://{results}/endless.mp4", "seconds": 1}, deadline_in=0.5)
            assert late.error.code == "TIMEOUT_ERROR"
    finally:
        os.environ["PATH"] = path
    names["check"]("sh")
