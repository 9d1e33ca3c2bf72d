"""Every asyncio task has a parent that waits for it, at any moment of a worker's life."""

import ast
import asyncio
import contextlib
import random
from pathlib import Path

import pytest

import avtomatika_worker
from avtomatika_worker import TaskContext
from avtomatika_worker.devserver import EmbeddedOrchestrator, Fault
from services.conftest import running
from services.orphans import from_here_on, orphans, tasks_of_the_worker


@pytest.fixture(autouse=True)
def only_what_is_new():
    with from_here_on():
        yield


async def no_orphan(seen):
    """Look once. A task that another thread has just made may not be in its group yet: then look again."""
    found = orphans()
    seen.update(task.get_coro().__qualname__ for task in tasks_of_the_worker())
    for _ in range(20):
        if not found:
            return
        await asyncio.sleep(0.005)
        found &= orphans()
    raise AssertionError(f"nobody waits for {found}")


@pytest.fixture
def busy(worker):
    """A worker with skills of all kinds of tasks: they end, fail, send events, are cancelled, never end."""

    @worker.skill(events={"step": {"type": "object"}})
    async def report(n: int, ctx: TaskContext):
        for i in range(n):
            ctx.send_event("step", {"i": i})
            ctx.send_progress(i / n, "on the way")
            await asyncio.sleep(0.01)

    @worker.skill
    def compute(n: int):
        return {"sum": sum(range(n))}

    @worker.skill
    async def fail():
        raise ValueError("a skill fails")

    @worker.skill
    async def forever():
        await asyncio.Event().wait()

    return worker


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("forced", [False, True])
async def test_no_task_is_an_orphan_while_tasks_run_links_break_and_the_worker_shuts_down(busy, seed, forced):
    chance, seen = random.Random(seed), set()
    async with EmbeddedOrchestrator(poll_time=0.5) as orchestrator, contextlib.AsyncExitStack() as stack:
        settings = {"heartbeat_interval": 0.1, "shutdown_timeout": 0.3, "max_concurrent_tasks": 8}
        main = await stack.enter_async_context(running(busy, orchestrator, **settings))
        jobs = []
        for _ in range(40):
            skill = chance.choice(["report", "compute", "fail", "forever"])
            params = {"n": chance.randrange(1, 9)} if skill in {"report", "compute"} else {}
            jobs.append(orchestrator.submit(skill, params))
            if chance.random() < 0.3:
                orchestrator.cancel(chance.choice(jobs).job_id)
            if chance.random() < 0.2:
                call = chance.choice(["poll", "heartbeat", "result", "event", "register"])
                orchestrator.inject(Fault(call=call, kind=chance.choice(["reset", "drop_after", "status"])))
            await asyncio.sleep(chance.random() * 0.02)
            await no_orphan(seen)
        busy.request_shutdown()
        if forced:
            busy.request_shutdown()
        while not main.done():
            await no_orphan(seen)
            await asyncio.sleep(chance.random() * 0.02)
        await main
    assert {"Supervisor._live", "LinkThread._serve", "ReusedTasks._run", "Execution._until_stopped"} <= seen
    until = asyncio.get_running_loop().time() + 20
    while left := tasks_of_the_worker():  # what was cut short ends soon after
        assert asyncio.get_running_loop().time() < until, [each.get_stack() for each in left]
        await asyncio.sleep(0.02)


async def test_the_check_finds_an_orphan(busy):
    async with EmbeddedOrchestrator() as orchestrator, running(busy, orchestrator):
        lost = asyncio.get_running_loop().create_task(busy.check_for_cancellation("none"))
        assert orphans() == {lost}
        await lost


# ---------------------------------------------------------------------------------------------------- the source

SOURCE = Path(avtomatika_worker.__file__).parent

ALLOWED = {
    "supervisor.py": "the root of the main loop's tasks",
    "execution/containment.py": "the root of a loop that runs to its end",
    "execution/children.py": "an owner, that waits for what it has started",
    "transport/pool.py": "awaited at once: it only has a context of its own",
    "transport/tcp.py": "the race of addresses, which waits for all that it has begun",
    "files/relay.py": "a connection of the proxy, in a thread of its own, cancels it when it is lost",
    "monitoring/stand_in.py": "a process of its own; what is accepted there is kept until it has connected",
}
"""Files that call ``create_task`` of something else than a group, and why."""


def groups_in(tree):
    """Return the names and attributes that are task groups in a module."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.withitem(context_expr=context, optional_vars=ast.Name(id=name)) if is_group(context, found):
                found.add(name)
            case ast.arg(arg=name, annotation=ast.expr() as annotation) if "TaskGroup" in ast.unparse(annotation):
                found.add(name)
            case ast.AnnAssign(target=target, annotation=annotation) if "TaskGroup" in ast.unparse(annotation):
                found.add(ast.unparse(target))
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and is_group(node.value, found):
            found.update(map(ast.unparse, node.targets))
    for node in ast.walk(tree):
        match node:
            case ast.withitem(context_expr=context, optional_vars=ast.Name(id=name)) if is_group(context, found):
                found.add(name)
    return found


def is_group(node, known):
    return "TaskGroup()" in ast.unparse(node) or ast.unparse(node) in known


def bare_tasks(text):
    """Return the lines on which ``create_task`` is called on what is no group."""
    tree = ast.parse(text)
    groups = groups_in(tree)
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "create_task"
        and ast.unparse(node.func.value) not in {*groups, "asyncio"}  # the latter is ruff's
    ]


def test_tasks_are_made_by_groups():
    found = {
        path.relative_to(SOURCE).as_posix(): lines
        for path in SOURCE.rglob("*.py")
        if (lines := bare_tasks(path.read_text(encoding="utf-8")))
    }
    assert found.keys() <= ALLOWED.keys(), found


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("asyncio.get_running_loop().create_task(f())", True),
        ("loop.create_task(f())", True),
        ("self._loop.create_task(f())", True),
        ("async def g():\n  async with asyncio.TaskGroup() as group:\n    group.create_task(f())", False),
        ("def g(group: asyncio.TaskGroup):\n  group.create_task(f())", False),
        ("self._group = asyncio.TaskGroup()\nself._group.create_task(f())", False),
    ],
)
def test_a_task_without_a_group_is_found(text, bare):
    assert bool(bare_tasks(text)) is bare
