"""A program that stands for FFmpeg: it tells progress, writes its last argument, and fails for what is no video."""

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


async def after(names):
    program = Path("bin/ffmpeg")
    program.parent.mkdir()
    program.write_text(FFMPEG)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{program.parent.resolve()}:{before}"
    results = Path("store").resolve()
    results.mkdir()
    settings = {"file_store_root": results, "task_files_dir": Path("files").resolve()}
    try:
        async with WorkerHarness(names["worker"], settings=settings) as h:
            for name in ("good.mp4", "broken.mp4", "endless.mp4"):
                (results / name).write_text("…")
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
        os.environ["PATH"] = before
    names["check"]("sh")
