"""The worker that the examples test."""

import asyncio
from dataclasses import dataclass

from avtomatika_worker import InvalidInputError, TaskContext, Worker

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
    """Tell what an order costs."""
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


PRICES = {"tea": 450, "cup": 1200}
