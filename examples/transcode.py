"""Transcoding with FFmpeg: progress while it works, and it ends when the task is cancelled. Needs ffmpeg in PATH."""

import asyncio
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from avtomatika_worker import DependencyMissingError, InvalidInputError, TaskContext, TaskFiles, Worker

worker = Worker(worker_type="video")

CODECS = {
    "h264": (".mp4", ["-c:v", "libx264", "-preset", "fast", "-crf", "23", "-c:a", "aac", "-movflags", "+faststart"]),
    "vp9": (".webm", ["-c:v", "libvpx-vp9", "-crf", "32", "-b:v", "0", "-row-mt", "1", "-c:a", "libopus"]),
}


@dataclass
class Video:
    video: Path
    seconds: float
    bytes: int


@worker.skill(category="video", max_concurrent=1, timeout=4 * 3600)  # FFmpeg has use for every core by itself
async def transcode(
    source: Path,
    codec: Literal["h264", "vp9"] = "h264",
    height: Annotated[int, Meta(ge=120, le=2160, multiple_of=2)] = 720,
    *,
    ctx: TaskContext,
    files: TaskFiles,
) -> Video:
    """Make another video of a video."""
    seconds = await duration(source)
    suffix, options = CODECS[codec]
    target = await files.path_to(f"{source.stem}-{height}{suffix}")

    def report(line: str) -> None:  # FFmpeg writes its progress as lines of key=value
        key, _, value = line.partition("=")
        if key == "out_time_us" and value.isdigit():  # "N/A" before the first frame
            done = int(value) / 1e6
            ctx.send_progress(min(done / seconds, 1.0), f"{done:.1f} of {seconds:.1f} s")

    scale = ("-vf", f"scale=-2:{height}")
    await run("ffmpeg", "-i", source, *scale, *options, "-progress", "pipe:1", target, on_line=report)
    return Video(target, seconds, target.stat().st_size)


async def duration(source: Path) -> float:
    """Return the length in seconds. Raises InvalidInputError for what is no video, or has no length."""
    lines: list[str] = []
    entries = ("-select_streams", "v", "-show_entries", "stream=codec_type:format=duration", "-of", "csv=p=0")
    await run("ffprobe", *entries, source, on_line=lines.append)
    with suppress(ValueError, IndexError):
        if lines[0].startswith("video") and (seconds := float(lines[-1])) > 0:
            return seconds
    raise InvalidInputError(f"{source.name} is no video with a length")


async def run(program: str, *arguments: str | Path, on_line: Callable[[str], object]) -> None:
    """Run a program and hand on each line that it writes. It does not outlive this call, which may be cancelled."""
    # Files of strangers: only local files are opened, so that a playlist in one cannot name URLs.
    options = ["-v", "error", "-protocol_whitelist", "file,pipe"]
    options += ["-nostdin", "-y"] if program == "ffmpeg" else []
    try:
        process = await asyncio.create_subprocess_exec(
            program, *options, *map(str, arguments), stdin=DEVNULL, stdout=PIPE, stderr=PIPE
        )
    except FileNotFoundError as error:  # the orchestrator tries another worker
        raise DependencyMissingError(f"{program} is not installed here", {"package": "ffmpeg"}) from error
    assert process.stdout is not None
    assert process.stderr is not None
    errors = asyncio.create_task(process.stderr.read())  # beside stdout: a full pipe would stop the program
    try:
        async for line in process.stdout:
            on_line(line.decode(errors="replace").strip())
        problem = (await errors).decode(errors="replace").strip()
        if await process.wait() != 0:
            raise InvalidInputError(f"{program}: {problem[-500:]}")
    finally:
        errors.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()


if __name__ == "__main__":
    worker.run()
