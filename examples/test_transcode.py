import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from transcode import worker

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def clip(path: Path, seconds: int, size: str = "320x180") -> Path:
    source = ["-f", "lavfi", "-i", f"testsrc=duration={seconds}:size={size}:rate=25"]
    subprocess.run(["ffmpeg", "-v", "error", *source, "-c:v", "mpeg4", path], check=True)  # noqa: S603, S607
    return path


async def test_a_video_is_transcoded_and_its_progress_reported(tmp_path, worker_harness):
    h = await worker_harness(worker)
    result = await h.run("transcode", {"source": clip(tmp_path / "clip.mp4", 2), "height": 120})
    assert result.data["seconds"] == pytest.approx(2, abs=0.1)
    assert result.progress[-1].fraction == pytest.approx(1, abs=0.1)
    video = result.file("video")
    assert video.name == "clip-120.mp4"
    assert video.read_bytes()[4:8] == b"ftyp"


async def test_ffmpeg_ends_with_the_task(tmp_path, worker_harness):
    h = await worker_harness(worker)
    task = h.submit("transcode", {"source": clip(tmp_path / "long.mp4", 60), "codec": "vp9", "height": 2160})
    await task.wait_for_progress()
    task.cancel()
    assert (await task.result()).status == "cancelled"
    assert not any("long-2160.webm" in " ".join(each.cmdline()) for each in psutil.Process().children(recursive=True))


@pytest.mark.parametrize("content", [b"no video", b""])
async def test_what_is_no_video_is_not_tried_again(worker_harness, content):
    h = await worker_harness(worker)
    result = await h.run("transcode", {"source": h.store("clip.mp4", content)})
    assert result.error.code == "INVALID_INPUT_ERROR"


async def test_a_playlist_cannot_name_urls(worker_harness):
    h = await worker_harness(worker)
    playlist = "#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n"
    result = await h.run("transcode", {"source": h.store("list.m3u8", playlist)})
    assert result.error.code == "INVALID_INPUT_ERROR"


async def test_a_machine_without_ffmpeg_says_so(worker_harness, monkeypatch):
    h = await worker_harness(worker)
    monkeypatch.setenv("PATH", "")
    result = await h.run("transcode", {"source": h.store("clip.mp4", b"")})
    assert result.error.code == "DEPENDENCY_MISSING_ERROR"
