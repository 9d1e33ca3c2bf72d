"""The worker of ``worker demo``. It works with any orchestrator:

worker run --app avtomatika_worker.demo_app.app:worker
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from avtomatika_worker import (
    DependencyMissingError,
    InvalidInputError,
    PermanentError,
    S3Uri,
    TaskContext,
    TaskFiles,
    Worker,
)
from avtomatika_worker._extras import install_hint
from avtomatika_worker.demo_app.invoice import as_money, totals
from avtomatika_worker.demo_app.primes import PrimeCount, count_primes
from avtomatika_worker.demo_app.text import WordStats, measure

worker: Worker = Worker(worker_type="demo")


# ---------------------------------------------------------------------------------------------------- thumbnail


@dataclass(frozen=True, slots=True)
class ThumbnailParams:
    """The picture (a path or ``s3://…``), the thumbnail's maximum width in pixels, and the directory for it.

    Without a directory, the thumbnail goes where the files of results go: to the S3 store.
    """

    source: str
    out_dir: str | None = None
    width: Annotated[int, Meta(ge=16, le=1024)] = 320


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """The written file, and its colors as ``#rrggbb``; the palette begins with the most frequent."""

    path: Path
    width: int
    height: int
    bytes: int
    average_color: str
    palette: list[str]


@worker.skill(category="pictures")
def thumbnail(params: ThumbnailParams, files: TaskFiles | None = None) -> Thumbnail:
    """Make a thumbnail of a picture and find its main colors."""
    try:
        from avtomatika_worker.demo_app import pictures
    except ImportError as error:
        hint = f"thumbnails need Pillow; {install_hint('demo')}"
        raise DependencyMissingError(hint, {"package": "pillow"}) from error
    source = _existing_file("source", params.source, files)
    try:
        small = pictures.shrink(source, params.width)
    except pictures.NotAPictureError as error:
        raise PermanentError(str(error)) from error
    out_dir = _out_dir(params, files)
    path = pictures.save(small, out_dir, f"{pictures.safe_name(source.stem)}-{small.width}")
    return Thumbnail(
        path=path,
        width=small.width,
        height=small.height,
        bytes=path.stat().st_size,
        average_color=pictures.average_color(small),
        palette=pictures.dominant_colors(small, 5),
    )


def _out_dir(params: ThumbnailParams, files: TaskFiles | None) -> Path:
    if params.out_dir is not None:
        return Path(params.out_dir)
    if files is None:
        raise InvalidInputError("params.out_dir: is required without a worker", {"path": "$.out_dir"})
    return files.sync.path_to("thumbnails")


# ---------------------------------------------------------------------------------------------------- word_stats


@dataclass(frozen=True, slots=True)
class WordStatsParams:
    """Either the text itself or the path of a UTF-8 file, and how many of its most frequent words to report."""

    text: str | None = None
    path: str | None = None
    top: Annotated[int, Meta(ge=0, le=100)] = 5


@worker.skill(category="text")
def word_stats(params: WordStatsParams, files: TaskFiles | None = None) -> WordStats:
    """Count the words and sentences of a text."""
    return measure(_text(params, files), params.top)


def _text(params: WordStatsParams, files: TaskFiles | None) -> str:
    if (params.text is None) == (params.path is None):
        raise InvalidInputError("params: give either text or path", {"path": "$"})
    if params.path is None:
        return params.text or ""
    try:
        return _existing_file("path", params.path, files).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PermanentError(f"{params.path} is not UTF-8 text: {error}") from error


def _existing_file(field: str, path: str, files: TaskFiles | None) -> Path:
    if files is not None and S3Uri(path).scheme:
        return files.sync.download_file(path)
    if not Path(path).is_file():
        raise InvalidInputError(f"params.{field}: there is no file {path}", {"path": f"$.{field}"})
    return Path(path)


# ---------------------------------------------------------------------------------------------------- primes


@dataclass(frozen=True, slots=True)
class Milestone:
    """The number of primes up to a power of ten."""

    limit: int
    primes: int


@worker.skill(events={"milestone": Milestone}, category="numbers")
async def primes(limit: Annotated[int, Meta(ge=1, le=10_000_000_000)], ctx: TaskContext) -> PrimeCount:
    """Count the primes up to a limit and find the largest gap between neighbors."""
    known, milestone = PrimeCount(0, 0, 0, 0, 0), 1_000_000
    for known in count_primes(limit):
        await ctx.send_progress(known.limit / limit, f"{known.count:,} primes so far")
        if known.limit == milestone:
            await ctx.send_event("milestone", Milestone(milestone, known.count))
            milestone *= 10
        await asyncio.sleep(0)  # lets other tasks run, and a cancellation arrive
    return known


# ---------------------------------------------------------------------------------------------------- invoice_total


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One line of an invoice; the unit price is in cents."""

    description: Annotated[str, Meta(min_length=1, max_length=200)]
    quantity: Annotated[int, Meta(ge=1, le=1_000_000)]
    unit_price: Annotated[int, Meta(ge=0, le=100_000_000)]


@dataclass(frozen=True, slots=True)
class Invoice:
    """Net prices, and the tax on them in percent."""

    lines: Annotated[list[InvoiceLine], Meta(min_length=1, max_length=1000)]
    vat_percent: Annotated[float, Meta(ge=0, le=100)] = 0.0
    currency: Literal["EUR", "USD", "GBP", "CHF"] = "EUR"


@dataclass(frozen=True, slots=True)
class InvoiceTotal:
    """Amounts in cents, and the total in the form that people write."""

    net: int
    tax: int
    gross: int
    to_pay: str


@worker.skill(category="numbers")
def invoice_total(params: Invoice) -> InvoiceTotal:
    """Add up an invoice and its tax."""
    net, tax, gross = totals(((line.quantity, line.unit_price) for line in params.lines), params.vat_percent)
    return InvoiceTotal(net, tax, gross, as_money(gross, params.currency))
