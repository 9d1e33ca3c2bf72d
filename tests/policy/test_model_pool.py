"""Which models a pool loads, keeps and unloads: never one in use, never more than there is room for."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from avtomatika_worker.policy.model_pool import (
    MOST_PASSES,
    Grant,
    Load,
    ModelPool,
    Phase,
    PoolLimits,
    Unload,
)

NAMES = st.sampled_from("abcde")
SIZES = {"a": 1, "b": 2, "c": 3, "d": 5, "e": 20, "medium": 4}


def step(pool, now=0.0):
    """Do what the pool says until it says no more; loading and unloading take no time. Returns the actions."""
    done = []
    while actions := pool.next_actions(now):
        done += actions
        for action in actions:
            if isinstance(action, Load):
                pool.loaded(action.name, SIZES.get(action.name, 1), now)
            elif isinstance(action, Unload):
                pool.unloaded(action.name)
    return done


def names(actions, kind):
    return [each.name for each in actions if isinstance(each, kind)]


def test_the_model_used_least_recently_goes_first():
    pool = ModelPool(PoolLimits(max_loaded=2))
    for ticket, name in enumerate("aba"):
        pool.ask(ticket, name)
        step(pool, ticket)
        pool.give_back(ticket, ticket)
    pool.ask(3, "c")
    assert names(step(pool, 3), Unload) == ["b"]
    assert [each.name for each in pool.entries] == ["a", "c"]


def test_a_task_waits_while_all_models_are_in_use():
    pool = ModelPool(PoolLimits(max_loaded=1))
    pool.ask(0, "a")
    pool.ask(1, "b")
    assert step(pool) == [Load("a"), Grant(0)]
    pool.give_back(0, 1.0)
    assert step(pool, 1.0) == [Unload("a"), Load("b"), Grant(1)]


def test_different_models_load_side_by_side_and_the_same_once():
    pool = ModelPool(PoolLimits())
    for ticket, name in enumerate("aabb"):
        pool.ask(ticket, name)
    assert pool.next_actions(0.0) == [Load("a"), Load("b")]
    assert pool.next_actions(0.0) == []
    pool.loaded("b", 1, 0.0)
    assert pool.next_actions(0.0) == [Grant(2), Grant(3)]


def test_tasks_that_come_later_pass_one_that_waits_for_room_only_so_often():
    pool = ModelPool(PoolLimits(max_loaded=1))
    pool.ask(0, "a")
    step(pool)
    pool.ask(1, "b")
    for ticket in range(2, 40):
        pool.ask(ticket, "a")
    granted = [each.ticket for each in step(pool) if isinstance(each, Grant)]
    assert granted == list(range(2, 2 + MOST_PASSES))
    for ticket in [0, *granted]:
        pool.give_back(ticket, 1.0)
    assert step(pool, 1.0) == [Unload("a"), Load("b"), Grant(1)]


def test_a_failed_load_frees_its_room_and_the_next_task_tries_again():
    pool = ModelPool(PoolLimits(max_loaded=1))
    pool.ask(0, "a")
    pool.ask(1, "a")
    assert pool.next_actions(0.0) == [Load("a")]
    assert pool.failed("a") == (0, 1)
    assert pool.next_actions(0.0) == []
    pool.ask(2, "a")
    assert pool.next_actions(0.0) == [Load("a")]


def test_a_task_that_waits_no_longer_leaves_the_load_to_the_others():
    pool = ModelPool(PoolLimits(max_loaded=1))
    pool.ask(0, "a")
    pool.ask(1, "a")
    assert pool.next_actions(0.0) == [Load("a")]
    pool.give_back(0, 0.0)
    pool.loaded("a", 1, 0.0)
    assert pool.next_actions(0.0) == [Grant(1)]


def test_what_is_over_the_memory_once_it_is_measured_makes_others_go():
    pool = ModelPool(PoolLimits(memory=6))
    for ticket, name in enumerate("abd"):
        pool.ask(ticket, name)
        unloaded = names(step(pool, ticket), Unload)
        pool.give_back(ticket, ticket)
    assert unloaded == ["a", "b"]
    pool.ask(3, "c")  # of unknown size: it is loaded first, then measured
    actions = step(pool, 4)
    assert actions == [Load("c"), Grant(3), Unload("d")]
    pool.give_back(3, 4)
    pool.ask(4, "d")  # its size is known by now
    assert step(pool, 5) == [Unload("c"), Load("d"), Grant(4)]


def test_what_is_too_large_for_the_memory_is_loaded_alone():
    pool = ModelPool(PoolLimits(memory=6))
    for ticket, name in enumerate("aea"):
        pool.ask(ticket, name)
        step(pool, ticket)
        pool.give_back(ticket, ticket)
    assert [each.name for each in pool.entries] == ["a"]
    pool.ask(3, "e")
    assert step(pool, 3) == [Unload("a"), Load("e"), Grant(3)]
    assert step(pool, 4) == []


def test_an_unused_model_is_unloaded_after_its_time():
    pool = ModelPool(PoolLimits(keep_alive=10.0))
    pool.ask(0, "a")
    step(pool, 0.0)
    assert pool.expires_at() is None
    pool.give_back(0, 5.0)
    assert pool.expires_at() == 15.0
    assert step(pool, 14.9) == []
    assert step(pool, 15.0) == [Unload("a")]


def test_what_is_in_use_when_the_pool_is_closed_stays():
    pool = ModelPool(PoolLimits(max_loaded=2))
    for ticket, name in enumerate("ab"):
        pool.ask(ticket, name)
    step(pool)
    pool.give_back(1, 1.0)
    assert pool.unload_all() == [Unload("b")]
    pool.unloaded("b")
    pool.give_back(0, 2.0)
    assert [(each.name, each.idle) for each in pool.entries] == [("a", True)]


def test_a_model_is_nowhere_until_it_is_loaded_and_after_it_is_gone():
    pool = ModelPool(PoolLimits(max_loaded=1))
    assert pool.phase("a") is None
    pool.ask(0, "a")
    assert pool.next_actions(0.0) == [Load("a")]
    assert pool.phase("a") is Phase.LOADING
    pool.loaded("a", 1, 0.0)
    assert pool.phase("a") is Phase.LOADED
    assert pool.phase("b") is None
    pool.give_back(0, 0.0)
    assert pool.unload_all() == [Unload("a")]
    assert pool.phase("a") is Phase.UNLOADING
    pool.unloaded("a")
    assert pool.phase("a") is None


def test_a_model_that_takes_no_memory_counts_none():
    pool = ModelPool(PoolLimits())
    pool.ask(0, "a")
    pool.next_actions(0.0)
    pool.loaded("a", 0, 0.0)
    assert [each.size for each in pool.entries] == [0]


@pytest.mark.parametrize(("others", "actions"), [(998, []), (999, [Load("large")])])
def test_the_size_of_a_model_is_known_until_a_thousand_others_were_loaded(others, actions):
    pool = ModelPool(PoolLimits(memory=10, keep_alive=0.0))
    for ticket, name in enumerate(["large", *map(str, range(others))]):
        pool.ask(ticket, name)
        pool.next_actions(0.0)
        pool.loaded(name, 8 if name == "large" else 1, 0.0)
        pool.next_actions(0.0)
        pool.give_back(ticket, 0.0)
        pool.next_actions(0.0)
        pool.unloaded(name)
    pool.ask(-2, "medium")  # the last of the others
    step(pool, 0.0)
    pool.ask(-1, "large")
    assert pool.next_actions(0.0) == actions


def idle_pool(limits, *models):
    """Return a pool with these models, loaded one after the other, and no tasks; tickets from 10 on are free."""
    pool = ModelPool(limits)
    for ticket, name in enumerate(models):
        pool.ask(ticket, name)
        step(pool, ticket)
        pool.give_back(ticket, ticket)
    return pool


def test_the_room_of_a_load_is_taken_for_those_that_follow():
    pool = idle_pool(PoolLimits(max_loaded=2), "old")
    pool.ask(10, "a")
    pool.ask(11, "b")
    assert pool.next_actions(10.0) == [Load("a"), Unload("old")]


def test_an_unloaded_model_makes_room_for_one():
    pool = idle_pool(PoolLimits(max_loaded=2), "old", "new")
    pool.ask(10, "a")
    pool.ask(11, "b")
    assert pool.next_actions(10.0) == [Unload("old"), Unload("new")]


def test_the_room_of_a_model_that_still_unloads_is_not_free_yet():
    pool = idle_pool(PoolLimits(max_loaded=2), "old", "new")
    assert pool.unload_all() == [Unload("old"), Unload("new")]
    pool.unloaded("old")
    pool.ask(10, "a")
    pool.ask(11, "b")
    assert pool.next_actions(10.0) == [Load("a")]
    pool.unloaded("new")
    assert pool.next_actions(10.0) == [Load("b")]


def test_a_small_model_uses_what_is_free_while_a_large_one_waits_for_an_unloading():
    pool = idle_pool(PoolLimits(memory=10), "d", "c", "e")  # 5, 3, 20: the last one is alone
    pool.unload_all()
    pool.unloaded("e")
    pool.ask(10, "six")
    pool.next_actions(10.0)
    pool.loaded("six", 6, 10.0)
    pool.next_actions(10.0)
    pool.give_back(10, 10.0)
    pool.unload_all()
    pool.ask(11, "d")
    pool.ask(12, "c")
    assert pool.next_actions(11.0) == [Load("c")], "4 are free, and 2 more than the large one needs will be"
    pool.unloaded("six")
    assert pool.next_actions(11.0) == [Load("d")]


def test_two_tasks_that_wait_for_one_model_need_room_once():
    pool = idle_pool(PoolLimits(max_loaded=2), "old", "new")
    pool.ask(10, "a")
    pool.ask(11, "a")
    assert pool.next_actions(10.0) == [Unload("old")]
    assert pool.next_actions(10.0) == []


def test_a_model_of_unknown_size_is_loaded_beside_what_fills_the_memory():
    pool = idle_pool(PoolLimits(memory=5), "d")
    pool.ask(10, "c")
    assert pool.next_actions(10.0) == [Load("c")]


def test_models_that_fill_the_memory_exactly_stay():
    pool = idle_pool(PoolLimits(memory=6), "medium", "b")
    assert step(pool, 10.0) == []
    assert [each.name for each in pool.entries] == ["medium", "b"]


def test_of_several_measurements_of_a_model_the_largest_counts():
    pool = idle_pool(PoolLimits(), "d")
    pool.unload_all()
    pool.unloaded("d")
    pool.ask(10, "d")
    pool.next_actions(10.0)
    pool.loaded("d", 0, 10.0)
    assert [each.size for each in pool.entries] == [5]


def test_each_task_that_waits_for_room_is_passed_by_as_many():
    pool = ModelPool(PoolLimits(max_loaded=1))
    for ticket, name in enumerate(["a", "b", *"a" * MOST_PASSES, "a"]):
        pool.ask(ticket, name)
        step(pool)
    blocked = MOST_PASSES + 2
    pool.give_back(1, 1.0)  # it waits no longer
    pool.ask(blocked + 1, "c")
    assert step(pool, 1.0) == [Grant(blocked)], "nobody waits for room before it"
    pool.ask(blocked + 2, "a")
    assert step(pool, 1.0) == [Grant(blocked + 2)]


class Pool(RuleBasedStateMachine):
    """Any sequence of what can happen to a pool."""

    @initialize(most=st.none() | st.integers(1, 3), memory=st.none() | st.integers(1, 8), keep=st.none() | st.just(3.0))
    def make(self, most, memory, keep):
        self.most, self.memory = most, memory
        self.pool = ModelPool(PoolLimits(most, memory, keep))
        self.now, self.next_ticket = 0.0, 0
        self.waiting, self.using = {}, {}
        self.loading, self.unloading = set(), set()
        self.passed = {}

    def act(self):
        for _ in range(10):
            actions = self.pool.next_actions(self.now)
            if not actions:
                return
            for action in actions:
                self.take(action)
        raise AssertionError("it never comes to an end")

    def take(self, action):
        if isinstance(action, Load):
            assert action.name not in self.loading | self.unloading
            assert action.name not in self.using.values()
            self.loading.add(action.name)
        elif isinstance(action, Unload):
            assert action.name not in self.using.values(), "unloaded in use"
            assert action.name not in self.loading | self.unloading
            self.unloading.add(action.name)
        else:
            name = self.waiting.pop(action.ticket)
            assert name not in self.loading | self.unloading
            self.using[action.ticket] = name

    @rule(name=NAMES)
    def ask(self, name):
        self.pool.ask(self.next_ticket, name)
        self.waiting[self.next_ticket] = name
        self.next_ticket += 1
        self.act()

    @rule(data=st.data())
    def give_back(self, data):
        if everybody := [*self.waiting, *self.using]:
            ticket = data.draw(st.sampled_from(everybody))
            self.waiting.pop(ticket, None)
            self.using.pop(ticket, None)
            self.pool.give_back(ticket, self.now)
            self.act()

    @rule(data=st.data())
    def load_ends(self, data):
        if self.loading:
            name = data.draw(st.sampled_from(sorted(self.loading)))
            self.loading.discard(name)
            if data.draw(st.booleans()):
                self.pool.loaded(name, SIZES[name], self.now)
            else:
                failed = self.pool.failed(name)
                assert sorted(failed) == sorted(each for each, wanted in self.waiting.items() if wanted == name)
                for ticket in failed:
                    del self.waiting[ticket]
            self.act()

    @rule(data=st.data())
    def unload_ends(self, data):
        if self.unloading:
            name = data.draw(st.sampled_from(sorted(self.unloading)))
            self.unloading.discard(name)
            self.pool.unloaded(name)
            self.act()

    @rule(seconds=st.sampled_from([1.0, 3.0]))
    def time_goes_on(self, seconds):
        self.now += seconds
        self.act()

    @invariant()
    def holds(self):
        entries = {each.name: each for each in self.pool.entries}
        assert {name for name, each in entries.items() if each.phase is Phase.LOADING} == self.loading
        assert {name for name, each in entries.items() if each.phase is Phase.UNLOADING} == self.unloading
        for ticket, name in self.using.items():
            assert entries[name].phase is Phase.LOADED
            assert ticket in entries[name].users
        if self.most is not None:
            assert len(entries) <= self.most
        if self.memory is not None:
            idle = [each for each in entries.values() if each.idle]
            staying = [each for each in entries.values() if each.phase is not Phase.UNLOADING]
            assert len(staying) <= 1 or not idle or sum(each.size for each in staying) <= self.memory
        if (expires := self.pool.expires_at()) is not None:
            assert expires > self.now

    @invariant()
    def nobody_waits_for_nothing(self):
        """Whoever waits does so for a load, an unloading, or a task that uses a model."""
        assert not self.waiting or self.loading or self.unloading or self.using

    def teardown(self):
        """When loads end and tasks give back what they have, everybody is served."""
        for _ in range(500):
            for ticket in list(self.using):
                del self.using[ticket]
                self.pool.give_back(ticket, self.now)
            for name in list(self.loading):
                self.loading.discard(name)
                self.pool.loaded(name, SIZES[name], self.now)
            for name in list(self.unloading):
                self.unloading.discard(name)
                self.pool.unloaded(name)
            self.act()
            if not self.waiting:
                return
        raise AssertionError(f"{self.waiting} wait without end")


TestAnySequence = Pool.TestCase
TestAnySequence.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
