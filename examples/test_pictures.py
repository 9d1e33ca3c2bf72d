from pathlib import Path

from PIL import Image

from avtomatika_worker.testing import WorkerHarness
from pictures import worker


def picture(path: Path, size: tuple[int, int] = (800, 400), color: str = "teal") -> Path:
    Image.new("RGB", size, color).save(path)
    return path


async def test_a_thumbnail_keeps_its_proportions(tmp_path: Path):
    async with WorkerHarness(worker) as h:
        result = await h.run("thumbnail", {"source": picture(tmp_path / "sea.png"), "width": 100})
    assert (result.data["width"], result.data["height"]) == (100, 50)
    with Image.open(result.file("picture")) as small:
        assert small.size == (100, 50)
        assert small.format == "JPEG"


async def test_a_sheet_reports_its_progress(tmp_path: Path):
    sources = [picture(tmp_path / f"{number}.png", color="red") for number in range(5)]
    async with WorkerHarness(worker) as h:
        result = await h.run("contact_sheet", {"sources": sources, "columns": 3, "cell": 40})
    assert result.progress[-1].fraction == 1
    with Image.open(result.file("picture")) as sheet:
        assert sheet.size == (120, 80)
        assert sheet.getpixel((20, 20))[0] > 240
        assert sheet.getpixel((100, 60)) == (255, 255, 255)  # the sixth cell stays empty


async def test_what_is_no_picture_is_not_tried_again():
    async with WorkerHarness(worker) as h:
        result = await h.run("thumbnail", {"source": h.store("letter.txt", "Dear all")})
    assert result.error.code == "INVALID_INPUT_ERROR"
    assert "letter.txt" in result.error.message
