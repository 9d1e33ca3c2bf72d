"""Image processing: thumbnails and contact sheets. Needs Pillow.

Pictures come as paths or URIs (s3://…) and go back as files: with a store configured, results hold URIs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta
from PIL import Image, ImageOps, UnidentifiedImageError

from avtomatika_worker import InvalidInputError, TaskContext, TaskFiles, Worker

worker = Worker(worker_type="pictures")

Width = Annotated[int, Meta(ge=16, le=4096, description="In pixels; a picture is never enlarged.")]


@dataclass
class Thumbnail:
    picture: Path
    width: int
    height: int


# Plain `def`: Pillow computes without giving way, so this runs in a thread and not on the event loop.
@worker.skill(category="pictures")
def thumbnail(source: Path, width: Width = 320, *, files: TaskFiles) -> Thumbnail:
    """Make a picture smaller, upright and without its metadata."""
    small = shrunk(source, (width, 10 * width))
    path = files.sync.path_to(f"{source.stem}-{small.width}.jpg")
    small.save(path, quality=85, optimize=True, progressive=True)
    return Thumbnail(path, small.width, small.height)


@worker.skill(category="pictures", max_concurrent=2)  # a sheet needs memory: two at a time, whatever the slots
def contact_sheet(
    sources: Annotated[list[Path], Meta(min_length=1, max_length=200)],
    columns: Annotated[int, Meta(ge=1, le=20)] = 4,
    cell: Width = 160,
    *,
    files: TaskFiles,
    ctx: TaskContext,
) -> Thumbnail:
    """Put many pictures on one sheet."""
    columns = min(columns, len(sources))
    rows = -(-len(sources) // columns)
    sheet = Image.new("RGB", (columns * cell, rows * cell), "white")
    for number, source in enumerate(sources):
        ctx.raise_if_cancelled()  # a thread cannot be stopped from outside: it has to look
        small = shrunk(source, (cell, cell))
        left, top = number % columns * cell, number // columns * cell
        sheet.paste(small, (left + (cell - small.width) // 2, top + (cell - small.height) // 2))
        ctx.send_progress((number + 1) / len(sources), source.name)
    path = files.sync.path_to("sheet.jpg")
    sheet.save(path, quality=85)
    return Thumbnail(path, sheet.width, sheet.height)


def shrunk(source: Path, size: tuple[int, int]) -> Image.Image:
    """Return the picture in a size that fits. Raises InvalidInputError for what is no picture: no retry helps."""
    with bad_pictures_are_the_callers(source), Image.open(source) as opened:
        opened.draft("RGB", size)  # JPEG: decodes no more pixels than are needed
        image = ImageOps.exif_transpose(opened).convert("RGB")
    image.thumbnail(size, Image.Resampling.LANCZOS)
    return image


@contextmanager
def bad_pictures_are_the_callers(source: Path) -> Iterator[None]:
    try:
        yield
    # Pillow has no one error for broken files: a bomb, truncated data and a bad chunk are three kinds.
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise InvalidInputError(f"{source.name} cannot be read as a picture: {error}") from error


if __name__ == "__main__":
    worker.run()
