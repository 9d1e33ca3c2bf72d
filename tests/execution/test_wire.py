"""Messages between the worker and its processes: whole whatever pieces they come in, and errors keep what they say."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker import (
    Cancelled,
    CancelReason,
    Failed,
    InvalidInputError,
    PermanentError,
    S3Uri,
    Succeeded,
    UnsafeNameError,
)
from avtomatika_worker.execution.processes.parent_channel import ParentChannel
from avtomatika_worker.execution.processes.wire import (
    HEAD,
    decode,
    decode_outcome,
    encode,
    encode_outcome,
    error_from,
    error_parts,
)

MESSAGES = st.lists(st.tuples(st.sampled_from(["say", "log"]), st.text(), st.integers(-(2**63), 2**64 - 1)), max_size=5)


@given(MESSAGES, st.lists(st.integers(1, 40), min_size=1))
async def test_messages_arrive_whole_and_in_order_in_whatever_pieces(messages, sizes):
    taken = []
    channel = ParentChannel(taken.append, lambda: None)
    stream = b"".join(encode(*each) for each in messages)
    turn = 0
    while stream:
        size = sizes[turn % len(sizes)]
        channel.data_received(stream[:size])
        stream, turn = stream[size:], turn + 1
    assert taken == [list(each) for each in messages]


@pytest.mark.parametrize(
    "outcome",
    [
        Succeeded({"a": [1, 2.5, None, "x"]}, "done", {"m": 1}, {"tokens": 3}),
        Failed("PERMANENT_ERROR", "no", {"part": 7}, {"some": "data"}, expected=False),
        Cancelled(CancelReason.REQUESTED, "asked"),
    ],
)
def test_outcomes_arrive_as_they_were(outcome):
    verb, task, kind, parts, spent = decode(encode_outcome(7, outcome, spent=True)[HEAD.size :])
    assert (verb, task, spent) == ("done", 7, True)
    assert decode_outcome(kind, parts) == outcome


@pytest.mark.parametrize(
    "error",
    [
        PermanentError("no", {"part": 7}),
        InvalidInputError("not this"),
        UnsafeNameError("../x", "it leads out"),
        FileNotFoundError("there is no file"),
        FileNotFoundError(errno.ENOENT, "No such file", "a.txt"),
        ValueError("wrong"),
    ],
)
def test_errors_keep_their_types_and_what_they_say(error):
    (parts,) = decode(encode(error_parts(error))[HEAD.size :])
    back = error_from(parts)
    assert (type(back), str(back)) == (type(error), str(error))
    assert getattr(back, "details", None) == getattr(error, "details", None)


def test_other_errors_become_internal_ones_with_their_names():
    assert error_from(error_parts(RuntimeError("odd"))).message == "RuntimeError: odd"


def test_texts_and_numbers_of_derived_types_travel_as_plain_ones():
    class Ratio(float):
        """As NumPy's float64 is."""

    assert decode(encode("x", S3Uri("s3://b/k"), Ratio(0.5))[HEAD.size :]) == ["x", "s3://b/k", 0.5]
