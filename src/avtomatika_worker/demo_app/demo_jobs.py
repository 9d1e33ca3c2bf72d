"""The jobs that ``worker demo`` sends to its worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

DATA = Path(__file__).resolve().parent / "data"
"""The pictures and the text shipped with the project."""

PRIMES_UP_TO = 1_000_000_000
"""Three to five seconds of work on an ordinary machine."""

PICTURES = {
    "dusk.jpg": "Mountains at dusk",
    "julia.jpg": "A Julia set",
    "ribbons.jpg": "Ribbons in a flow",
    "window.jpg": "A stained-glass window",
}


@dataclass(frozen=True, slots=True)
class DemoJob:
    """A task to submit, its title, and its expected end."""

    skill: str
    params: dict[str, Any]
    title: str
    expect: Literal["success", "failure"] = "success"


def demo_jobs(output_dir: Path, pictures: str | None = None) -> list[DemoJob]:
    """Return the demo's jobs; thumbnails are written to ``output_dir``, which need not exist yet.

    ``pictures``: the URI prefix of the pictures if they are in a store; then thumbnails go there too.
    """
    local = {"out_dir": str(output_dir.resolve())} if pictures is None else {}
    source = f"{DATA}/" if pictures is None else pictures
    return [
        DemoJob("primes", {"limit": PRIMES_UP_TO}, f"Primes up to {PRIMES_UP_TO:,}"),
        *(
            DemoJob("thumbnail", {"source": f"{source}{file}", "width": 320, **local}, title)
            for file, title in PICTURES.items()
        ),
        DemoJob("word_stats", {"path": str(DATA / "letter.txt"), "top": 5}, "A letter from a task"),
        DemoJob("invoice_total", _invoice(quantity=12), "An invoice"),
        DemoJob("invoice_total", _invoice(quantity=0), "An invoice with a mistake", expect="failure"),
    ]


def _invoice(*, quantity: int) -> dict[str, Any]:
    """Return the params of an invoice whose second line has this quantity; at least 1 is allowed."""
    lines = [
        {"description": "Frame, oak, 60 × 40 cm", "quantity": 4, "unit_price": 4950},
        {"description": "Print on cotton paper", "quantity": quantity, "unit_price": 1825},
        {"description": "Delivery", "quantity": 1, "unit_price": 790},
    ]
    return {"lines": lines, "vat_percent": 7.7, "currency": "CHF"}
