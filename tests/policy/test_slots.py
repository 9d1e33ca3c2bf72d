"""Slots: what is reserved before a poll, and what some of them being held back changes."""

import pytest

from avtomatika_worker.policy.slots import Slots


def counts(slots):
    return slots.free, slots.polling, slots.running, slots.held_back


def test_a_slot_goes_from_free_through_polling_and_running_back_to_free():
    slots = Slots(2)
    assert counts(slots) == (2, 0, 0, 0)
    slots.reserve()
    assert counts(slots) == (1, 1, 0, 0)
    slots.start()
    assert counts(slots) == (1, 0, 1, 0)
    slots.reserve()
    slots.release()
    assert counts(slots) == (1, 0, 1, 0)
    slots.finish()
    assert counts(slots) == (2, 0, 0, 0)


def test_an_impossible_transition_of_a_slot_is_refused_by_name_and_changes_nothing():
    slots = Slots(1)
    for step, problem in [("start", "no poll"), ("release", "no poll"), ("finish", "no running slot")]:
        with pytest.raises(RuntimeError, match=f"^{problem}"):
            getattr(slots, step)()
        assert counts(slots) == (1, 0, 0, 0)
    slots.reserve()
    with pytest.raises(RuntimeError, match=r"^no free slot to reserve$"):
        slots.reserve()
    assert counts(slots) == (0, 1, 0, 0)


def test_slots_that_are_held_back_are_not_taken_and_running_tasks_go_on():
    slots = Slots(3)
    for _ in range(2):
        slots.reserve()
        slots.start()
    slots.limit(2)
    assert (counts(slots), slots.overbooked, slots.idle) == ((0, 0, 2, 1), False, False)
    slots.limit(1)
    assert (counts(slots), slots.overbooked, slots.idle) == ((0, 0, 2, 1), True, False)
    slots.finish()
    assert (counts(slots), slots.overbooked, slots.idle) == ((0, 0, 1, 2), False, False)
    slots.finish()
    assert (counts(slots), slots.overbooked, slots.idle) == ((1, 0, 0, 2), False, True)
    slots.limit(3)
    assert (counts(slots), slots.usable) == ((3, 0, 0, 0), 3)


def test_a_poll_in_flight_leaves_a_worker_idle_and_counts_as_taken():
    slots = Slots(2)
    slots.reserve()
    slots.reserve()
    assert slots.idle
    slots.limit(1)
    assert slots.overbooked


@pytest.mark.parametrize("usable", [0, -1, 3])
def test_usable_slots_are_from_one_to_all(usable):
    with pytest.raises(ValueError, match=f"^from 1 to 2 slots can be usable, not {usable}$"):
        Slots(2).limit(usable)


def test_a_worker_has_a_slot():
    assert Slots(1).total == 1
    with pytest.raises(ValueError, match=r"^a worker needs at least one slot, not 0$"):
        Slots(0)
