"""Which hand-outs are the same work (RXON.md, Behaviour 12): retries of plain tasks are, branches of a job are not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.protocol.messages import Task
from avtomatika_worker.protocol.replies import Response, decode_task
from avtomatika_worker.protocol.work import is_plain, work_key

HERE = "http://orchestrator:8080"
JOB = "5bd95dc9-271d-4450-9188-14fcf3cb7bf2"
IDS = st.uuids().map(str)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
PARAMS = st.dictionaries(st.text(), SCALARS | st.lists(SCALARS) | st.dictionaries(st.text(), SCALARS), max_size=4)


def task(task_id=JOB, **fields):
    return Task(**{"job_id": JOB, "task_id": task_id, "type": "render", "params": {"frame": 1}, **fields})


def plain(id_, **fields):
    return task(f"task-{id_}", **fields)


@given(IDS, IDS, PARAMS, st.none() | st.integers(1, 9))
def test_a_plain_task_that_comes_again_under_another_id_is_the_same_work(first, second, params, step):
    again = dict(reversed(params.items()))
    one, other = plain(first, params=params, step=step), plain(second, params=again, step=step, priority=3.0)
    assert work_key(HERE, one) == work_key(HERE, other)
    assert work_key(HERE, one).digest == work_key(HERE, other).digest


@given(IDS, IDS, PARAMS)
def test_branches_are_the_same_work_under_the_same_id_only(first, second, params):
    one, other = task(first, params=params), task(second, params=params)
    assert (work_key(HERE, one) == work_key(HERE, other)) is (first == second)
    assert work_key(HERE, one) == work_key(HERE, task(first, params=params, timestamp=7))


@given(st.text(min_size=1).filter(lambda id_: id_ != JOB and not id_.startswith("task-")))
def test_an_id_of_no_known_form_counts_as_a_branch(id_):
    assert not is_plain(task(id_))


@pytest.mark.parametrize(
    "other",
    [
        {"job_id": "another"},
        {"type": "another"},
        {"step": 2},
        {"step": None},
        {"params": {"frame": 2}},
        {"params": {"frame": 1.0}},
        {"params": {"frame": True}},
        {"params": {"frame": 1, "x": None}},
        {"params": None},
    ],
)
def test_a_difference_in_anything_that_identifies_work_makes_it_other_work(other):
    one, two = work_key(HERE, plain("a", step=1)), work_key(HERE, plain("b", **{"step": 1, **other}))
    assert one != two
    assert one.digest != two.digest


def test_orchestrators_share_no_work():
    assert work_key(HERE, task()) != work_key("http://another:8080", task())


@pytest.mark.parametrize("step", [1, 1.0])
def test_a_step_may_come_as_a_float(step):
    assert work_key(HERE, task(step=step)) == work_key(HERE, task(step=1))


@pytest.mark.parametrize(
    "step", [float("inf"), float("-inf"), float("nan"), 10**400], ids=["inf", "-inf", "nan", "huge"]
)
def test_a_step_that_is_not_a_finite_number_counts_as_none(step):
    assert work_key(HERE, task(step=step)) == work_key(HERE, task(step=None))


def test_params_that_only_the_standard_library_can_write_have_a_key_too():
    huge = {"n": 10**40}
    assert work_key(HERE, plain("a", params=huge)) == work_key(HERE, plain("b", params=huge))
    assert work_key(HERE, plain("a", params=huge)) != work_key(HERE, plain("b", params={"n": 10**40 + 1}))


def test_the_order_of_keys_does_not_matter_in_params_that_only_the_standard_library_can_write():
    one, other = {"n": 10**40, "a": 1}, {"a": 1, "n": 10**40}
    assert work_key(HERE, plain("a", params=one)) == work_key(HERE, plain("b", params=other))


def test_params_that_are_nested_too_deeply_for_a_digest_are_never_taken_for_known_work():
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert work_key(HERE, plain("a", params=deep)) != work_key(HERE, plain("b", params=deep))


def test_the_step_is_read_off_the_wire():
    body = json.dumps({"job_id": JOB, "task_id": "task-1", "type": "render", "step": 3}).encode()
    came = decode_task(Response(200, {}, body))
    assert came is not None
    assert work_key(HERE, came).step == 3


def test_the_digest_is_the_same_in_every_process_and_version():
    key = work_key(HERE, plain("a", step=1))
    assert key.digest == "e0f29dcad9c05c3764b51773aa09a0a240da5d641bececf2b472dc207c3c0ec8"
