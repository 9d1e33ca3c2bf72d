"""Time and chance are handed in: every part of a worker has those that it was given."""

import functools
import random
import time
import types

import pytest

from avtomatika_worker import Worker
from avtomatika_worker.config import ResultDurability
from avtomatika_worker.link.credentials import make_nonces
from avtomatika_worker.observability.telemetry import OFF
from avtomatika_worker.worker.assembly import assemble
from avtomatika_worker.worker.make_tasks import Policies
from avtomatika_worker.world import REAL, World
from services.conftest import make_settings

CLOCKS = {time.monotonic, time.time, time.perf_counter, REAL.monotonic, REAL.steady, REAL.wall}


def another_world():
    return World(lambda: 1.0, lambda: 2.0, lambda: 3.0, random.Random(1))


def parts_of(thing):
    """Return what an object holds: neither its class nor what functions find in their modules."""
    match thing:
        case types.MethodType():
            return [thing.__self__]
        case types.FunctionType():
            return [cell.cell_contents for cell in thing.__closure__ or ()]
        case functools.partial():
            return [thing.func, *thing.args, *thing.keywords.values()]
        case dict() | types.MappingProxyType():
            return [*thing.keys(), *thing.values()]
        case list() | tuple() | set() | frozenset():
            return [*thing]
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    return [*vars(thing).values()] if hasattr(thing, "__dict__") else [getattr(thing, name, None) for name in slots]


def foreign_times(root, world):
    """Return the ways, from ``root`` on, to clocks and chance that are not ``world``'s."""
    found, seen, waiting = [], set(), [(root, type(root).__name__)]
    while waiting:
        thing, way = waiting.pop()
        if id(thing) in seen or isinstance(thing, type | types.ModuleType | str | bytes | int | float):
            continue
        seen.add(id(thing))
        if (isinstance(thing, World) and thing is not world) or any(thing is each for each in CLOCKS):
            found.append(way)
        elif thing is not world and (
            type(thing).__module__.startswith(("avtomatika_worker", "builtins", "functools", "types", "collections"))
        ):
            waiting += [(each, f"{way} > {type(each).__name__}") for each in parts_of(thing)]
    return found


@pytest.mark.parametrize("telemetry", [False, True], ids=["without metrics", "with metrics"])
async def test_every_part_of_a_worker_has_the_time_and_the_chance_that_it_was_handed(tmp_path, telemetry):
    worker, world = Worker(), another_world()

    @worker.skill
    def echo(text: str) -> dict:
        return {"text": text}

    environment = {"ORCHESTRATOR_URL": "http://127.0.0.1:1", "WORKER_TOKEN": "t", "SLOT_TUNER": "resource"}
    options = {"enable_metrics": telemetry, "enable_websockets": True, "lease_lost_after": 60.0, "state_dir": tmp_path}
    options |= {"result_durability": ResultDurability.ALWAYS}
    settings = make_settings(worker, environment, options)
    plan = worker._provide("w1", {}, world)  # noqa: SLF001
    supervisor = assemble(settings, worker.skills, [], Policies(), plan, health_check=True, world=world)
    assert foreign_times(supervisor, world) == []


def test_a_forgotten_clock_is_found():
    class Part:
        def __init__(self, world=REAL):
            self._monotonic = world.monotonic

    Part.__module__ = "avtomatika_worker.part"
    assert foreign_times([Part(another_world())], another_world()) == []
    assert foreign_times([Part()], another_world()) == ["list > Part > builtin_function_or_method"]
    assert foreign_times(lambda whole=OFF: whole, another_world()) == []


def test_the_same_chance_makes_the_same_ids():
    def ids(world):
        nonce = make_nonces(world)
        return [world.uuid(), world.token(9), nonce(), nonce()]

    assert ids(another_world()) == ids(another_world())
    assert len({*ids(REAL), *ids(REAL)}) == 8
