"""The targets of `fuzz/` take whatever was found by longer runs, and changes of their seeds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS, Target, by_name, corpus

QUICK = [each for each in TARGETS if each.name != "worker"]


@st.composite
def changed(draw, target: Target):
    """A seed with some bytes replaced, left out or repeated."""
    data = draw(st.sampled_from(list(corpus(target))))
    for _ in range(draw(st.integers(0, 3))):
        at, to = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        piece = draw(st.binary(max_size=8) | st.sampled_from([b"null", b"-1", b"1e999", b"\xff", b"\0", b"[" * 2000]))
        data = data[:at] + piece + data[draw(st.sampled_from([at, to])) :]
    return data


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_what_was_found_once_is_taken(target):
    for data in corpus(target):
        target.run(data)


@pytest.mark.parametrize("target", QUICK, ids=lambda target: target.name)
@given(data=st.data())
@settings(max_examples=100)
def test_changed_seeds_are_taken(target, data):
    target.run(data.draw(changed(target)))


@given(changed(by_name("worker")))
@settings(max_examples=15)
def test_a_worker_runs_the_next_task_after_any_bytes(data):
    by_name("worker").run(data)
