"""What generators yield arrives as it is, whatever its class, the skill's own files, or what there is to close."""

import enum
from collections.abc import AsyncIterator, Iterator

import pytest

from avtomatika_worker import TaskContext, Worker
from avtomatika_worker.testing import WorkerHarness


class Word(str, enum.Enum):  # noqa: UP042 - str() of a StrEnum's member is its value
    YES = "yes "


class Loud(str):
    def __str__(self):
        return self.upper()


class Odd(bytes):
    def __bytes__(self):
        return b"odd"


class Three:
    """An iterator of either kind, with no method to close it."""

    close = "not a method"

    def __init__(self):
        self.left = 3

    def __iter__(self):
        return self

    def __aiter__(self):
        return self

    def aclose(self):
        return None

    def __next__(self):
        if not self.left:
            raise StopIteration
        self.left -= 1
        return "x"

    async def __anext__(self):
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None


@pytest.fixture
def worker():
    return Worker(worker_type="test")


async def test_a_subclass_of_text_or_bytes_is_sent_as_what_it_is(worker):
    @worker.skill
    async def text() -> AsyncIterator[str]:
        yield Word.YES
        yield Loud("no")

    @worker.skill
    def data() -> Iterator[bytes]:
        yield Odd(b"even")
        yield memoryview(b"f-o-u-r")[::2]

    async with WorkerHarness(worker) as h:
        assert [chunk async for chunk in h.stream("text")] in (["yes ", "no"], ["yes no"])
        assert (await h.run("text")).data == {"result": "yes no"}
        assert (await h.run("data")).file("result").read_bytes() == b"evenfour"


async def test_an_iterator_that_cannot_be_closed_is_a_stream_like_any_other(worker):
    @worker.skill
    def sync() -> Iterator[str]:
        return Three()

    @worker.skill
    def later() -> AsyncIterator[str]:
        return Three()

    async with WorkerHarness(worker) as h:
        for skill in ("sync", "later"):
            assert (await h.run(skill)).data == {"result": "xxx"}


async def test_bytes_are_collected_beside_the_skill_s_own_files(worker):
    @worker.skill
    def blocking(ctx: TaskContext) -> Iterator[bytes]:
        ctx.files.sync.write("stream.bin", b"mine")
        ctx.files.sync.write("stream-1.bin", b"mine, too")
        yield b"yielded"
        assert ctx.files.sync.read("stream.bin", "rb") == b"mine"

    @worker.skill
    async def awaiting(ctx: TaskContext) -> AsyncIterator[bytes]:
        await ctx.files.write("stream.bin", b"mine")
        yield b"yielded"

    async with WorkerHarness(worker) as h:
        for skill in ("blocking", "awaiting"):
            assert (await h.run(skill)).file("result").read_bytes() == b"yielded"


async def test_a_skill_that_writes_where_its_bytes_are_collected_is_stopped(worker):
    @worker.skill
    def meddles(ctx: TaskContext) -> Iterator[bytes]:
        yield bytes(2**20)
        yield b"more"
        ctx.files.sync.write("stream.bin", b"mine")
        yield b"the rest"

    async with WorkerHarness(worker) as h:
        result = await h.run("meddles")
    assert result.error is not None
    assert result.error.code == "PERMANENT_ERROR"
    assert "stream.bin" in result.error.message
