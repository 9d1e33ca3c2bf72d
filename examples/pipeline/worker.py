"""The workers of the pipeline. Start as many as you like: each takes what no other has taken."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from avtomatika_worker import TaskContext, Worker

worker = Worker(max_concurrent_tasks=4)


@dataclass
class Counts:
    counts: dict[str, int]


@worker.skill
def count_words(text: str) -> Counts:
    """Count the words of a text."""
    return Counts(dict(Counter(re.findall(r"\w+", text.lower()))))


# A status of one's own is announced, and the blueprint says which way it leads.
@worker.skill(output_statuses=["too_short"])
def write_report(
    counts: list[dict[str, int]], top: Annotated[int, Meta(ge=1)] = 10, *, ctx: TaskContext
) -> dict[str, Any]:
    """Add up what was counted, and say which words are the most frequent."""
    total: Counter[str] = Counter()
    for number, each in enumerate(counts, start=1):
        total.update(each)
        ctx.send_progress(number / len(counts), f"{number} of {len(counts)} texts")
    ordered = sorted(total, key=lambda word: (-total[word], word))
    data = {"words": total.total(), "most_frequent": ordered[:top]}
    return {"status": "success" if len(ordered) >= top else "too_short", "data": data}


if __name__ == "__main__":
    worker.run()
