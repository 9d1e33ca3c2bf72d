"""Batches as models of lists and as arrays, in a whole worker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from avtomatika_worker import Batch, InvalidInputError, Worker
from avtomatika_worker.testing import WorkerHarness


@dataclass
class Query:
    text: list[str]
    lang: list[str | None]


async def run_together(worker, skill, params):
    """Run tasks at the same time; return their results."""
    async with WorkerHarness(worker) as h:
        return await h.run_many(skill, params)


async def test_a_batch_is_one_model_whose_fields_are_lists():
    worker, seen = Worker(worker_type="test"), []

    @worker.skill(batch=Batch(max_size=4, key=lambda query: query.lang))
    async def shout(params: Query) -> list[str | Exception]:
        seen.append(params)
        return [text.upper() if text != "no" else InvalidInputError("no") for text in params.text]

    texts = [("a", "en"), ("b", None), ("no", "en"), ("c", "en"), (["d"], "en")]
    results = await run_together(worker, "shout", [{"text": text, "lang": lang} for text, lang in texts])
    assert [each.data["result"] if each.ok else each.error.message for each in results] == [
        "A",
        "B",
        "no",
        "C",
        "invalid input: params.text: expected string, got array",
    ]
    assert all(type(each) is Query and len(each.text) == len(each.lang) for each in seen)
    assert all(len(set(each.lang)) == 1 for each in seen)


async def test_a_validator_that_refuses_a_whole_batch_only_divides_it():
    worker, sizes = Worker(worker_type="test"), []

    @dataclass
    class Few:
        n: list[int]

        def __post_init__(self) -> None:
            if len(self.n) > 2:
                raise ValueError("too many at once")

    @worker.skill(batch=Batch(max_size=8))
    async def count(params: Few) -> list[int]:
        sizes.append(len(params.n))
        await asyncio.sleep(0)
        return params.n

    results = await run_together(worker, "count", [{"n": n} for n in range(9)])
    assert [each.data["result"] for each in results] == list(range(9))
    assert max(sizes) <= 2


async def test_arrays_are_stacked_and_those_of_other_shapes_are_other_batches():
    np = pytest.importorskip("numpy")
    worker, shapes = Worker(worker_type="test"), []

    def total(image, weight):
        shapes.append((image.shape, weight.shape, image.dtype.name))
        return image.reshape(len(image), -1).sum(axis=1) * weight

    array = np.typing.NDArray[np.float32]
    total.__annotations__ = {"image": array, "weight": array, "return": array}
    worker.skill(batch=Batch(max_size=8))(total)
    images = [[[1, 2], [3, 4]], [1, 2, 3], [[5, 6], [7, 8]], [4, 5, 6], "none"]
    results = await run_together(worker, "total", [{"image": each, "weight": 2} for each in images])
    assert [each.data["result"] if each.ok else each.error.code for each in results] == [
        20,
        12,
        52,
        30,
        "INVALID_INPUT_ERROR",
    ]
    assert all(image[1:] in {(2, 2), (3,)} and weight == image[:1] for image, weight, _ in shapes)
    assert sum(image[0] for image, _, _ in shapes) == 4


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda np, n: n[:-1], "the batched skill wrong returned 2 items for a batch of 3 tasks"),
        (lambda np, n: np.array(5.0), "the batched skill wrong returned ndarray, not a list with an item for each"),
        (lambda np, n: np.float32(5), "the batched skill wrong returned float32, not a list with an item for each"),
    ],
    ids=["short", "no axis", "number"],
)
async def test_an_array_of_another_length_fails_all_tasks_and_says_so(returned, message):
    np = pytest.importorskip("numpy")
    worker = Worker(worker_type="test")
    held = asyncio.Event()

    async def wrong(n):
        if len(n) == 1:
            await held.wait()
            return n
        return returned(np, n)

    wrong.__annotations__ = {"n": np.typing.NDArray[np.float64], "return": np.typing.NDArray[np.float64]}
    arrived = asyncio.Semaphore(0)
    worker.skill(batch=Batch(max_size=8, key=lambda _params: arrived.release()))(wrong)
    async with WorkerHarness(worker) as h:
        first = h.submit("wrong", {"n": 0})
        await arrived.acquire()
        tasks = [h.submit("wrong", {"n": n}) for n in range(3)]
        for _ in tasks:
            await arrived.acquire()
        held.set()
        assert (await first.result()).data == {"result": 0}
        results = [await each.result() for each in tasks]
    assert {each.error.code for each in results} == {"CONTRACT_VIOLATION_ERROR"}
    assert all(message in each.error.message for each in results)


async def test_a_skill_without_batches_takes_arrays_too():
    np = pytest.importorskip("numpy")
    worker = Worker(worker_type="test")

    def double(x):
        return x * 2

    double.__annotations__ = {"x": np.typing.NDArray[np.int32], "return": np.typing.NDArray[np.int32]}
    worker.skill(double)
    async with WorkerHarness(worker) as h:
        assert (await h.run("double", {"x": [[1, 2], [3, 4]]})).data == {"result": [[2, 4], [6, 8]]}
        bad = await h.run("double", {"x": [[1, 2], [3]]})
    assert bad.error.message == (
        "invalid input: params.x: its lists must be of equal lengths, and have 1 and 2 (axis 1)"
    )


@dataclass
class Counted:
    """Its constructor changes an item."""

    entry: list[dict[str, Any]]

    def __post_init__(self) -> None:
        for each in self.entry:
            each["made"] = each.get("made", 0) + 1


@pytest.mark.parametrize("form", [list[dict], Counted])
async def test_a_call_that_is_made_again_gets_params_that_none_before_has_changed(form):
    worker, held, arrived = Worker(worker_type="test"), asyncio.Event(), asyncio.Semaphore(0)
    sizes = []

    async def change(params):
        entries = params.entry if form is Counted else [each["entry"] for each in params]
        await held.wait()
        sizes.append(len(entries))
        for each in entries:
            each["n"] += 1
            each["inside"].append(each.get("made", 1))
        if any(each["n"] == 101 for each in entries):
            raise InvalidInputError("a hundred")
        return [(each["n"], each["inside"]) for each in entries]

    change.__annotations__ = {"params": form, "return": list[Any]}
    worker.skill(batch=Batch(max_size=8, key=lambda _params: arrived.release()))(change)
    async with WorkerHarness(worker) as h:
        tasks = [h.submit("change", {"entry": {"n": 0, "inside": []}})]
        await arrived.acquire()
        for n in (1, 100, 3):
            tasks.append(h.submit("change", {"entry": {"n": n, "inside": []}}))
            await arrived.acquire()
        held.set()
        results = [await each.result() for each in tasks]
    assert sizes[:2] == [1, 3]
    assert [each.data.get("result") for each in results] == [[1, [1]], [2, [1]], None, [4, [1]]]
    assert results[2].error.message == "a hundred"


@pytest.mark.parametrize(
    ("kept", "data"),
    [
        (lambda out: out, lambda n: {"result": [n]}),
        (list, lambda n: {"result": [n]}),
        (lambda out: [{"rows": [row]} for row in out], lambda n: {"rows": [[n]]}),
    ],
    ids=["array", "list", "dicts"],
)
async def test_a_function_may_write_its_results_into_the_same_array_each_time(kept, data):
    np = pytest.importorskip("numpy")
    worker, held, arrived = Worker(worker_type="test"), asyncio.Event(), asyncio.Semaphore(0)
    out = np.zeros((8, 1))

    @worker.skill(batch=Batch(max_size=8, key=lambda _params: arrived.release()))
    async def echo(n: list[float]) -> list[Any]:
        await held.wait()
        if len(n) > 2:
            raise MemoryError  # then the parts follow each other at once
        out[: len(n), 0] = n
        return kept(out[: len(n)])

    async with WorkerHarness(worker) as h:
        tasks = []
        for n in range(8):
            tasks.append(h.submit("echo", {"n": n}))
            await arrived.acquire()
        held.set()
        results = [(await each.result()).data for each in tasks]
    assert results == [data(n) for n in range(8)]
