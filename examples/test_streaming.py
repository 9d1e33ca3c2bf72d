import pytest

from parrot import serving
from streaming import worker

pytestmark = pytest.mark.usefixtures("model")


@pytest.fixture
async def model(monkeypatch):
    async with serving() as url:
        monkeypatch.setenv("MODEL_URL", url)
        yield


async def test_the_tokens_are_yielded_and_all_of_them_the_result(worker_harness):
    h = await worker_harness(worker)
    assert "".join([token async for token in h.stream("complete", {"prompt": "to be or not"})]) == "to be or not "
    result = await h.run("complete", {"prompt": "to be or not"})
    assert result.data == {"text": "to be or not ", "tokens": 4}
    assert result.costs["tokens"] == 4


async def test_tokens_come_while_the_model_speaks_and_it_can_be_stopped(worker_harness):
    h = await worker_harness(worker)
    task = h.submit("complete", {"prompt": "la " * 2000, "max_tokens": 2000})
    await task.wait_for_event("chunk")
    task.cancel()
    assert (await task.result()).status == "cancelled"
    assert sum(len(event.payload["data"].split()) for event in task.events) < 2000


async def test_a_model_that_is_busy_is_tried_again_and_one_that_is_gone_too(worker_harness, monkeypatch):
    h = await worker_harness(worker)
    assert (await h.run("complete", {"prompt": "busy"})).error.code == "TRANSIENT_ERROR"
    monkeypatch.setenv("MODEL_URL", "http://127.0.0.1:9/v1")
    assert (await h.run("complete", {"prompt": "hello"})).error.code == "TRANSIENT_ERROR"


async def test_a_model_that_is_not_there_is_not(worker_harness, monkeypatch):
    h = await worker_harness(worker)
    async with serving() as url:
        monkeypatch.setenv("MODEL_URL", url.removesuffix("/v1"))
        assert (await h.run("complete", {"prompt": "hello"})).error.code == "PERMANENT_ERROR"
