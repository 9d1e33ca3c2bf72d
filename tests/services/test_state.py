"""``ctx.state``: what middlewares and a skill leave for each other."""

from avtomatika_worker import Succeeded, TaskContext, Worker
from avtomatika_worker.testing import WorkerHarness


async def test_state_goes_from_the_middlewares_to_the_skill_and_back_and_no_further():
    worker = Worker(worker_type="test")
    seen = []

    @worker.add_middleware
    async def outer(ctx, call_next):
        assert not vars(ctx.state)  # a task's own, whatever others left in theirs
        ctx.state.user = {"name": ctx.params["user"]}
        outcome = await call_next(ctx)
        seen.append((type(outcome), ctx.state.rows))
        return outcome

    @worker.add_middleware
    async def inner(ctx, call_next):
        ctx.state.user["seen"] = True
        return await call_next(ctx)

    @worker.skill
    def count(user: str, ctx: TaskContext):
        ctx.state.rows = len(user)
        return {"user": ctx.state.user, "shown": repr(ctx.state)}

    async with WorkerHarness(worker) as h:
        for name in ("Ada", "Linus"):
            result = await h.run("count", {"user": name})
            assert result.data == {"user": {"name": name, "seen": True}, "shown": "TaskState(user, rows)"}
    assert seen == [(Succeeded, 3), (Succeeded, 5)]


async def test_reading_a_state_that_was_never_set_is_an_error_that_says_who_should_set_it():
    worker = Worker(worker_type="test")

    @worker.skill
    async def read(ctx: TaskContext):
        assert getattr(ctx.state, "user", "nobody") == "nobody"
        return ctx.state.user

    async with WorkerHarness(worker) as h:
        result = await h.run("read")
    assert "ctx.state has no 'user': a middleware sets it before call_next" in result.error.message
