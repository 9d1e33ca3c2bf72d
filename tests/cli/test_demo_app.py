"""The skills of `worker demo`, as the plain functions they are, and the jobs that are sent to them."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from avtomatika_worker import DependencyMissingError, InvalidInputError, PermanentError, TaskContext, demo_app
from avtomatika_worker.demo_app import app
from avtomatika_worker.demo_app.demo_jobs import DATA, DemoJob, demo_jobs
from avtomatika_worker.demo_app.primes import PrimeCount, count_primes
from avtomatika_worker.demo_app.text import measure, sentences, words
from avtomatika_worker.execution.context import controls_of
from avtomatika_worker.execution.controls import Controls
from avtomatika_worker.files.service import Files
from avtomatika_worker.files.store_settings import StoreSettings
from avtomatika_worker.protocol.messages import Task

# ---------------------------------------------------------------------------------------------------- thumbnail


def shrink(source: Path, tmp_path: Path, width: int = 320) -> app.Thumbnail:
    return app.thumbnail(app.ThumbnailParams(source=str(source), width=width, out_dir=str(tmp_path / "out")))


def picture(path: Path, size: tuple[int, int], colour: Any, mode: str = "RGB", **options: Any) -> Path:
    Image.new(mode, size, colour).save(path, **options)
    return path


@pytest.mark.parametrize("source", sorted(DATA.glob("*.jpg")), ids=lambda path: path.stem)
def test_a_shipped_picture_becomes_a_thumbnail_that_can_be_opened(source: Path, tmp_path: Path) -> None:
    made = shrink(source, tmp_path)
    with Image.open(made.path) as image:
        assert image.size == (made.width, made.height) == (320, 213)
        assert image.format == "JPEG"
    assert made.bytes == Path(made.path).stat().st_size
    assert len(set(made.palette)) == 5


def test_colors_are_those_of_the_picture(tmp_path: Path) -> None:
    image = Image.new("RGB", (400, 100), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 300, 100))
    image.save(tmp_path / "flag.png")
    made = shrink(tmp_path / "flag.png", tmp_path, width=400)
    assert made.palette == ["#ff0000", "#0000ff"]
    assert made.average_color in {"#bf0040", "#bf003f", "#c0003f", "#c00040"}


def test_transparency_is_kept_and_counts_in_no_average(tmp_path: Path) -> None:
    image = Image.new("RGBA", (200, 200), (0, 0, 0, 0))
    image.paste((0, 128, 0, 255), (0, 0, 100, 200))
    image.save(tmp_path / "half.png")
    made = shrink(tmp_path / "half.png", tmp_path, width=100)
    assert made.average_color == "#008000"
    with Image.open(made.path) as small:
        assert (small.format, small.size) == ("PNG", (100, 100))
        assert small.getpixel((90, 50))[3] == 0  # type: ignore[index]


def test_a_photo_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    source = picture(tmp_path / "photo.jpg", (600, 300), "navy", exif=exif)
    assert (shrink(source, tmp_path, 100).width, shrink(source, tmp_path, 100).height) == (100, 200)


def test_a_small_picture_is_not_enlarged(tmp_path: Path) -> None:
    made = shrink(picture(tmp_path / "icon.png", (40, 30), "white"), tmp_path)
    assert (made.width, made.height) == (40, 30)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "LA"])
def test_every_kind_of_picture_is_taken(mode: str, tmp_path: Path) -> None:
    source = picture(tmp_path / "any.tif", (64, 32), 0 if mode != "LA" else (0, 255), mode=mode)
    assert shrink(source, tmp_path, 32).height == 16


@pytest.mark.parametrize(("stem", "expected"), [(" . ", "picture-16"), ("a b;c", "a_b_c-16"), ("été 山", "été_山-16")])
def test_the_file_name_is_safe_and_inside_of_the_directory(stem: str, expected: str, tmp_path: Path) -> None:
    source = picture(tmp_path / f"{stem}.png", (16, 16), "white")
    made = Path(shrink(source, tmp_path, 16).path)
    assert made.parent == tmp_path / "out"
    assert made.stem == expected


def test_a_long_file_name_is_cut(tmp_path: Path) -> None:
    source = picture(tmp_path / f"{'山' * 80}.png", (16, 16), "white")
    assert Path(shrink(source, tmp_path, 16).path).is_file()


def test_a_missing_picture_is_invalid_input_that_names_the_field(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"params\.source: there is no file") as caught:
        shrink(tmp_path / "nothing.jpg", tmp_path)
    assert caught.value.details["path"] == "$.source"


def test_a_file_that_is_not_a_picture_is_a_permanent_failure(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "half.jpg").write_bytes((DATA / "dusk.jpg").read_bytes()[:9000])
    for name in ("text.jpg", "half.jpg"):
        with pytest.raises(PermanentError, match=f"{name} cannot be read as a picture"):
            shrink(tmp_path / name, tmp_path)
    assert not (tmp_path / "out").exists()


def test_without_pillow_the_failure_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, f"{demo_app.__name__}.pictures", raising=False)
    monkeypatch.delattr(demo_app, "pictures", raising=False)
    with pytest.raises(DependencyMissingError, match=r'install the extra \[demo\]: pip install "pillow'):
        shrink(DATA / "dusk.jpg", tmp_path)


# ---------------------------------------------------------------------------------------------------- word_stats


def test_words_and_sentences_are_counted() -> None:
    stats = measure("The cat sat. The cat didn't run! Did the dog?", top=2)
    assert (stats.words, stats.unique_words, stats.sentences) == (10, 7, 3)
    assert [(top.word, top.count) for top in stats.top_words] == [("cat", 2), ("sat", 1)]
    assert (stats.longest_sentence, stats.longest_sentence_words) == ("The cat didn't run!", 4)


def test_reading_time_follows_the_number_of_words() -> None:
    assert measure("word " * 460).reading_seconds == 120


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L’été, c'est «beau»", ["L’été", "c'est", "beau"]),
        ("e-mail - 'quoted' -x can't'", ["e-mail", "quoted", "x", "can't"]),
        ("pi is 3.14, at 12:30, 1,000 times.", ["pi", "is", "3.14", "at", "12:30", "1,000", "times"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("می\u200cخواهم بروم", ["می\u200cخواهم", "بروم"]),
        ("один, два…три", ["один", "два", "три"]),
        ("😀 — … ''", []),
    ],
)
def test_words_of_many_languages(text: str, expected: list[str]) -> None:
    assert list(words(text)) == expected


@pytest.mark.parametrize(
    "spellings", ["Straße STRASSE", "e\u0301te\u0301 été", "don’t Don't", "co\u00adoperate cooperate", "ΟΔΟΣ οδος"]
)
def test_spellings_of_one_word_are_one_word(spellings: str) -> None:
    assert measure(spellings).unique_words == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Who met J. R. Smith at 3.14 p.m. today. Yes.", ["Dr. Who met J. R. Smith at 3.14 p.m. today.", "Yes."]),
        ("“Really?” she asked. Was it I. No!", ["“Really?” she asked.", "Was it I.", "No!"]),
        ("A title\n\nThe text\ngoes on.", ["A title", "The text goes on."]),
        ("日本語です。次の文。", ["日本語です。", "次の文。"]),
        ("हिन्दी है। दूसरा।", ["हिन्दी है।", "दूसरा।"]),
        ("... !!! One. ?", ["One."]),
        ("", []),
    ],
)
def test_sentences_of_many_kinds(text: str, expected: list[str]) -> None:
    assert list(sentences(text)) == expected


@given(st.text())
def test_any_text_can_be_measured(text: str) -> None:
    stats = measure(text)
    assert stats.unique_words <= stats.words
    assert stats.longest_sentence_words <= stats.words
    assert stats.sentences <= stats.words


def test_text_and_file_give_the_same(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("\ufeffÉté. Été.", encoding="utf-8")
    from_file = app.word_stats(app.WordStatsParams(path=str(tmp_path / "text.txt")))
    assert from_file == app.word_stats(app.WordStatsParams(text="Été. Été."))


@pytest.mark.parametrize("params", [{}, {"text": "a", "path": "b"}, {"path": "no/such/file.txt"}, {"path": "."}])
def test_input_without_one_text_is_invalid(params: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"^params"):
        app.word_stats(app.WordStatsParams(**params))


def test_a_file_that_is_not_text_is_a_permanent_failure() -> None:
    with pytest.raises(PermanentError, match="not UTF-8 text"):
        app.word_stats(app.WordStatsParams(path=str(DATA / "dusk.jpg")))


# ---------------------------------------------------------------------------------------------------- primes

KNOWN = [
    # π(10ⁿ), the largest prime below, the maximal gap and the prime before it (OEIS A006880, A002386, A005250)
    PrimeCount(100, 25, 97, 8, 89),
    PrimeCount(1_000, 168, 997, 20, 887),
    PrimeCount(1_000_000, 78_498, 999_983, 114, 492_113),
    PrimeCount(10_000_000, 664_579, 9_999_991, 154, 4_652_353),
    PrimeCount(100_000_000, 5_761_455, 99_999_989, 220, 47_326_693),
]


@pytest.mark.parametrize("expected", KNOWN, ids=lambda known: str(known.limit))
def test_prime_counts_are_the_known_ones(expected: PrimeCount) -> None:
    *_, last = count_primes(expected.limit)
    assert last == expected


@given(st.integers(0, 2000), st.integers(1, 300).map(lambda half: 2 * half))
def test_primes_are_those_of_trial_division_in_segments_of_any_size(limit: int, segment: int) -> None:
    primes = [n for n in range(2, limit + 1) if all(n % d for d in range(2, math.isqrt(n) + 1))]
    gaps = [(b - a, -a) for a, b in itertools.pairwise(primes)]
    gap, after = max(gaps, default=(0, 0))
    *_, last = count_primes(limit, segment)
    assert last == PrimeCount(limit, len(primes), primes[-1] if primes else 0, gap, -after)


class Recorder:
    """Where a task's events go here."""

    def __init__(self) -> None:
        self.progressed: list[tuple[float, str]] = []
        self.events: list[tuple[str, dict[str, Any]]] = []

    def progress(self, progress: float, message: str) -> None:
        self.progressed.append((progress, message))

    def event(self, event_type: str, payload: dict[str, Any], facts: Any) -> None:
        self.events.append((event_type, payload))

    def room(self) -> Any:
        yield from ()

    def add(self, name: str) -> None: ...

    def remove(self, name: str) -> None: ...

    def context(self, skill: str, params: dict[str, Any]) -> TaskContext:
        def check(
            _skill: str, event_type: str, payload: object, _facts: object
        ) -> tuple[dict[str, Any] | None, str | None]:
            plain = {name: getattr(payload, name) for name in payload.__dataclass_fields__}  # type: ignore[attr-defined]
            found = app.worker.skills.get(skill)
            assert found is not None
            problem = found.event_problem(event_type, plain, strict=True)
            return (None, problem) if problem else (plain, None)

        task = Task(job_id="j-1", task_id="t-1", type=skill, params=params)
        files = Files(Path("never-used"), StoreSettings())
        return Controls(
            task,
            "w-1",
            sink=self,
            check_event=check,
            hot=self,
            files=lambda _: files.for_task("j-1", "t-1", lambda _: None),
        ).ctx


async def test_the_primes_skill_reports_its_progress_and_its_milestones() -> None:
    recorder = Recorder()
    result = await app.primes(10_000_000, recorder.context("primes", {}))
    assert result == KNOWN[3]
    fractions = [progress for progress, _ in recorder.progressed]
    assert fractions == [step / 10 for step in range(1, 11)]
    assert recorder.progressed[-1][1] == "664,579 primes so far"
    assert recorder.events == [
        ("milestone", {"limit": 1_000_000, "primes": 78_498}),
        ("milestone", {"limit": 10_000_000, "primes": 664_579}),
    ]


# ---------------------------------------------------------------------------------------------------- invoice_total


def invoice(vat_percent: float, *lines: tuple[int, int]) -> app.InvoiceTotal:
    items = [app.InvoiceLine("something", quantity, price) for quantity, price in lines]
    return app.invoice_total(app.Invoice(items, vat_percent, "USD"))


def test_an_invoice_is_added_up() -> None:
    assert invoice(20, (3, 1999), (1, 123_456)) == app.InvoiceTotal(129_453, 25_891, 155_344, "1,553.44 USD")


@pytest.mark.parametrize(
    ("net", "vat", "tax"), [(50, 7.0, 4), (500, 7.7, 39), (500, 7.5, 38), (1, 19.0, 0), (0, 9.0, 0)]
)
def test_half_a_cent_of_tax_rounds_up(net: int, vat: float, tax: int) -> None:
    assert invoice(vat, (1, net)).tax == tax


# ---------------------------------------------------------------------------------------------------- jobs


def bind(job: DemoJob) -> None:
    """Do with a job's params what a worker does before it runs the skill."""
    skill = app.worker.skills.get(job.skill)
    assert skill is not None
    skill.fill(controls_of(Recorder().context(job.skill, job.params)), skill.convert(job.params))


def test_the_demo_sends_valid_input_but_for_the_one_job_that_must_fail(tmp_path: Path) -> None:
    jobs = demo_jobs(tmp_path)
    for job in jobs:
        if job.expect == "success":
            bind(job)
    [wrong] = [job for job in jobs if job.expect == "failure"]
    with pytest.raises(InvalidInputError, match=r"params\.lines\[1\]\.quantity"):
        bind(wrong)


def test_the_demo_uses_every_skill_and_every_shipped_file(tmp_path: Path) -> None:
    jobs = demo_jobs(tmp_path)
    assert {job.skill for job in jobs} == set(app.worker.skills.names())
    used = {Path(str(value)).name for job in jobs for value in job.params.values()}
    assert {file.name for file in DATA.iterdir()} <= used


def test_shipped_data_stay_small() -> None:
    assert sum(file.stat().st_size for file in DATA.iterdir()) < 700_000
