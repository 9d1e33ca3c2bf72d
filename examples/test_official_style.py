"""The skills of the worker in the official style, as they run in production."""

import pytest

from official_style import worker


@pytest.fixture
async def h(worker_harness):
    return await worker_harness(worker)


async def test_a_greeting_is_counted_by_the_middleware_and_stamped(h):
    result = await h.run("greet", {"name": "Ann"})
    assert result.data == {"text": "Hello, Ann!", "stamp": "greet", "words": 2}
    assert result.progress[-1] == (0.5, "half way")


async def test_nobody_to_greet_needs_a_review(h):
    result = await h.run("greet", {})
    assert (result.status, result.data) == ("needs_review", {"reason": "no name"})


async def test_a_text_is_summarized_through_a_file(h):
    result = await h.run("summarize", {"text": "One. Two."})
    assert result.data == {"text": "One", "size": 9, "names": ["notes"], "stamp": "summarize", "words": 1}


async def test_a_refusal_is_a_failure_and_a_stop_a_cancellation(h):
    refused = await h.run("refuse", {"why": "late"})
    assert (refused.error.code, refused.error.message) == ("PERMANENT_ERROR", "refused: late")
    assert (await h.run("stop", {})).status == "cancelled"
