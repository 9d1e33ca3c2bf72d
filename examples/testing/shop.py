"""The worker that the examples test."""

import asyncio
import csv
from dataclasses import dataclass
from pathlib import Path

from avtomatika_worker import InvalidInputError, TaskContext, TaskFiles, Worker

worker = Worker(worker_type="shop")


@dataclass
class Order:
    article: str
    pieces: int = 1


@dataclass
class Price:
    cents: int


@worker.skill(events={"discount": {"type": "object"}})
async def price(params: Order, ctx: TaskContext) -> Price:
    """Return what an order costs."""
    if params.article not in PRICES:
        raise InvalidInputError(f"there is no article {params.article!r}", {"article": params.article})
    cents = PRICES[params.article] * params.pieces
    if params.pieces >= 10:
        cents -= cents // 10
        await ctx.send_event("discount", {"percent": 10})
    return Price(cents)


@worker.skill
async def pack(pieces: int, ctx: TaskContext):
    """Pack one piece after the other."""
    for packed in range(1, pieces + 1):
        ctx.send_progress(packed / pieces, f"{packed} packed")
        await asyncio.sleep(0.01)


@worker.skill
def receipt(orders: Path, files: TaskFiles):
    """Write what each line of a CSV file (article, pieces) costs, and the sum."""
    with orders.open(encoding="utf-8") as file:
        costs = [(article, PRICES[article] * int(pieces)) for article, pieces in csv.reader(file)]
    total = sum(cents for _, cents in costs)
    lines = [f"{name:<12}{cents / 100:8.2f}\n" for name, cents in [*costs, ("total", total)]]
    return {"cents": total, "receipt": files.sync.write("receipt.txt", "".join(lines))}


PRICES = {"tea": 450, "cup": 1200}
