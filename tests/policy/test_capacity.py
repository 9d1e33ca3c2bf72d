"""How many tasks of a skill, and of a type, may run at once."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtomatika_worker.policy.capacity import Capacity, Limits

TYPES = {"draw": "gpu", "paint": "gpu"}


def capacity(**limits):
    return Capacity(Limits(types=TYPES, **limits))


def test_a_skill_without_a_limit_always_has_room():
    free = capacity(by_skill={"draw": 1})
    for _ in range(100):
        free.take("read")
    assert free.has_room("read")


def test_a_limit_of_a_skill_is_its_own():
    one = capacity(by_skill={"draw": 2})
    one.take("draw")
    assert one.has_room("draw")
    one.take("draw")
    assert not one.has_room("draw")
    assert one.has_room("paint")
    with pytest.raises(RuntimeError, match="no room for another task of skill 'draw'"):
        one.take("draw")
    one.give_back("draw")
    assert one.has_room("draw")


def test_a_limit_of_a_type_is_shared_by_its_skills():
    shared = capacity(by_type={"gpu": 2})
    shared.take("draw")
    assert shared.has_room("paint")
    shared.take("paint")
    assert not shared.has_room("draw")
    assert not shared.has_room("paint")
    assert shared.has_room("read")
    shared.give_back("draw")
    assert shared.has_room("paint")


def test_a_skill_without_a_type_is_a_type_of_its_own():
    own = capacity(by_type={"read": 1})
    own.take("read")
    assert not own.has_room("read")
    own.give_back("read")
    assert own.has_room("read")


def test_both_limits_hold():
    both = capacity(by_skill={"draw": 1}, by_type={"gpu": 2})
    both.take("draw")
    assert not both.has_room("draw")
    assert both.has_room("paint")
    both.take("paint")
    assert not both.has_room("paint")


def test_skills_may_share_the_limit_of_another():
    shared = capacity(by_skill={"draw": 2}, counted_as={"sketch": "draw"})
    shared.take("sketch")
    assert shared.has_room("draw")
    shared.take("draw")
    assert not shared.has_room("sketch")
    shared.give_back("sketch")
    assert shared.has_room("draw")


def test_each_request_that_may_bring_a_task_takes_room_once():
    two = capacity(by_skill={"draw": 2}, counted_as={"sketch": "draw"})
    assert two.has_room("draw", [["draw", "sketch"]]), "a request brings one task, however many skills it names"
    assert not two.has_room("draw", [["sketch"], ["draw"]])
    assert two.has_room("draw", [["read"], ["read"], ["draw"]])
    two.take("draw")
    assert not two.has_room("draw", [["draw"]])
    of_type = capacity(by_type={"gpu": 2})
    assert of_type.has_room("draw", [["draw", "paint"], ["read"]])
    assert not of_type.has_room("draw", [["paint"], ["draw"]])
    of_type.take("paint")
    assert not of_type.has_room("draw", [["paint"]])


@pytest.mark.parametrize("known", ["draw", "read"])
def test_what_does_not_run_cannot_end(known):
    ended = capacity(by_skill={"draw": 2})
    ended.take(known)
    ended.give_back(known)
    with pytest.raises(RuntimeError, match=f"no task of skill '{known}' is running"):
        ended.give_back(known)


@pytest.mark.parametrize(
    ("limits", "places"),
    [
        ({}, 1 + 3),
        ({"by_skill": {"draw": 2}}, 2 + 3),
        ({"by_type": {"gpu": 4}}, 4 + 3),
        ({"by_skill": {"draw": 2}, "by_type": {"gpu": 4}}, 2 + 3),
        ({"by_skill": {"draw": 5}, "by_type": {"gpu": 4}}, 4 + 3),
    ],
    ids=str,
)
def test_tasks_that_come_ahead_have_places_beside_those_that_may_run(limits, places):
    here = Limits(types=TYPES, ahead={"draw": 3}, counted_as={"sketch": "draw"}, **limits).places
    assert (here.by_skill, here.by_type, here.counted_as) == ({"draw": places}, {}, {"sketch": "draw"})


def test_the_limit_of_a_type_that_is_a_skills_own_name_counts_for_its_places():
    here = Limits(by_type={"read": 4}, ahead={"read": 3}).places
    assert here.by_skill == {"read": 4 + 3}


def test_each_request_for_a_skill_without_a_type_takes_room_of_its_own_type():
    own = capacity(by_type={"read": 1})
    assert own.has_room("read", [["draw"]])
    assert not own.has_room("read", [["draw", "read"]])


def test_skills_that_are_not_batched_share_their_places_and_batched_ones_take_none():
    here = Capacity(Limits(batched=frozenset({"embed", "rank"}), others=2))
    for skill in ("embed", "rank", "embed", "draw"):
        here.take(skill)
    assert here.has_room("read")
    assert here.has_room("read", [["embed", "rank"]]), "it brings no task of the others"
    assert not here.has_room("read", [["embed", "draw"]])
    assert here.has_room("embed", [["draw"], ["draw"]])
    here.take("read")
    assert not here.has_room("draw")
    assert here.has_room("embed")
    here.give_back("embed")
    assert not here.has_room("draw")
    here.give_back("draw")
    here.give_back("read")
    here.take("read")
    here.take("read")
    assert not here.has_room("draw")


def test_limits_are_truthy_if_there_are_any():
    assert not Limits(types=TYPES, ahead={"draw": 1})
    assert Limits(by_skill={"draw": 1})
    assert Limits(by_type={"gpu": 1})
    assert Limits(gpus={"draw": 0.5})


@given(st.lists(st.tuples(st.booleans(), st.sampled_from(["draw", "paint", "read"]))))
def test_what_runs_never_exceeds_its_limits_and_room_is_never_lost(steps):
    limits = {"by_skill": {"draw": 1, "read": 2}, "by_type": {"gpu": 2}}
    counted, running = capacity(**limits), Counter()
    for take, skill in steps:
        if take and counted.has_room(skill):
            counted.take(skill)
            running[skill] += 1
        elif not take and running[skill]:
            counted.give_back(skill)
            running[skill] -= 1
        assert running["draw"] <= 1
        assert running["draw"] + running["paint"] <= 2
        assert counted.has_room("read") == (running["read"] < 2)
        assert counted.has_room("paint") == (running["draw"] + running["paint"] < 2)


def test_no_more_tasks_run_than_devices_have_room_for_those_of_all_skills_together():
    two = capacity(gpus={"draw": 0.5, "paint": 1}, devices=(True, True))
    two.take("draw")
    two.take("paint")
    assert not two.has_room("paint")
    assert two.has_room("draw")
    assert two.has_room("read"), "it takes no device"
    two.take("draw")
    assert not two.has_room("draw")
    two.give_back("paint")
    assert two.has_room("paint")


def test_each_request_may_bring_the_task_that_takes_the_most_devices():
    one = capacity(gpus={"draw": 0.5, "paint": 1}, devices=(True,))
    assert one.has_room("draw", [["draw", "read"]])
    assert not one.has_room("paint", [["draw", "read"]])
    assert not one.has_room("draw", [["draw", "paint"]])
    assert one.has_room("paint", [["read"]])


def test_a_request_for_no_skill_brings_no_task():
    one = capacity(gpus={"draw": 1}, devices=(True,))
    assert one.has_room("draw", [[]])


def test_a_skill_uses_devices_if_it_has_a_share_of_them():
    one = capacity(gpus={"draw": 0.5}, devices=(True,))
    assert one.uses_devices("draw")
    assert not one.uses_devices("read")


def test_a_skill_lacks_devices_only_where_nothing_else_keeps_its_tasks_from_running():
    one = capacity(by_skill={"draw": 1, "paint": 2, "read": 1}, gpus={"draw": 0.5, "paint": 0.5}, devices=(True,))
    assert [one.lacks_devices(skill) for skill in ("draw", "paint", "read")] == [False, False, False]
    one.take("draw")
    one.take("paint")
    assert one.lacks_devices("paint")
    assert not one.lacks_devices("draw"), "its own limit is reached"
    assert not one.lacks_devices("read"), "it takes none"
    one.give_back("draw")
    assert not one.lacks_devices("paint")
