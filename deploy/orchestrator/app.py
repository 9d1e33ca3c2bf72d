"""An Avtomatika orchestrator on Redis for trying workers out: its configuration is the engine's environment variables.

Any skill can be called: ``POST /api/v1/jobs/run`` with ``{"initial_data": {"skill": …, "params": …}}``. Several of
these on one Redis are one system, as long as each has an ``INSTANCE_ID`` of its own. Prints READY once it answers.

The engine reads the source of the handlers, so each stands on its own.
"""

import asyncio
import logging
import os
import signal
import sys
import time

from avtomatika import Blueprint, OrchestratorEngine
from avtomatika.config import Config
from avtomatika.storage.redis import RedisStorage
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError

# A job whose engine died while it handled it is taken over by another engine after this time (ms).
TAKE_OVER_AFTER = int(os.environ.get("TAKE_OVER_AFTER_MS", "10000"))
STOP_TIMEOUT = 2.0
MAX_CONNECTIONS = 9_000  # to Redis, which takes 10,000 by default
MONOTONIC_BELOW = 1e9  # seconds: the wall clock has been beyond since 2001

run = Blueprint(name="run", api_version="v1", api_endpoint="/jobs/run")


@run.handler("start", is_start=True)
async def start(initial_data, actions):
    actions.dispatch_task(
        task_type=initial_data["skill"],
        params=initial_data.get("params", {}),
        dispatch_strategy="round_robin",
        transitions={"success": "finished", "failure": "failed", "cancelled": "failed"},
    )


@run.handler("finished", is_end=True)
async def finished(context):
    pass


@run.handler("failed", is_end=True)
async def failed(context):
    pass


class Storage(RedisStorage):
    """Fixes what makes 1.0b30 on Redis fail jobs whose workers did everything right (docs/deployment.md)."""

    async def add_job_to_watch(self, job_id, timeout_at):
        # Deadlines of tasks that were handed out are by the monotonic clock, and looked at by the wall clock: every
        # task that runs while the watcher looks counts as timed out. Here all deadlines are by the wall clock.
        if timeout_at < MONOTONIC_BELOW:
            timeout_at += time.time() - time.monotonic()
        await super().add_job_to_watch(job_id, timeout_at)

    async def find_worker_token(self, worker_id):
        # For a worker without a token of its own every message looks through all keys of Redis (of jobs, of nonces) for
        # patterns of ids that have one. Here no pattern has.
        return await self.get_worker_token(worker_id)

    async def dequeue_task_for_worker(self, worker_id, timeout):
        # Workers steal from each other's queues, and the engine that queued a stolen task then writes down whom it had
        # queued it for: the thief's result is ignored (worker_mismatch). Here each worker has its own queue only.
        try:
            popped = await self._redis.bzpopmax([f"orchestrator:task_queue:{worker_id}"], timeout=timeout)
        except RedisError as error:
            logging.getLogger(__name__).warning("no task for %s: %s", worker_id, error)
            return None
        return self._unpack(popped[1]) if popped else None


class Engine(OrchestratorEngine):
    """Gives a task that was lost on its way to a worker out again, as it does with one that was lost with its worker.

    An engine that dies between taking a task from its queue and answering the worker's poll takes the task along.
    """

    async def handle_job_timeout(self, job_state):
        lost = job_state.get("status") == "waiting_for_worker" and job_state.get("task_picked_up_at") is None
        if lost and not (job_state.get("dispatch_deadline") or job_state.get("result_deadline")):
            task_id = job_state.get("current_task_id") or job_state["id"]
            await self.handle_task_failure(job_state, task_id, "The task reached no worker.")
        else:
            await super().handle_job_timeout(job_state)


def storage_of(config):
    # Every command is tried again through a short break, such as a restart of Redis.
    redis = Redis(
        host=config.REDIS_HOST or "127.0.0.1",
        port=config.REDIS_PORT,
        db=config.REDIS_DB,
        # Every poll that waits holds a connection; without one (redis-py 8: beyond 100) it is answered with 500.
        max_connections=MAX_CONNECTIONS,
        # Longer than a poll waits in Redis for a task: one that gives up before (redis-py 8: after 5 s) leaves its wait
        # behind there, and the task that ends it is lost.
        socket_timeout=config.WORKER_POLL_TIMEOUT_SECONDS + 10,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), 8),
    )
    return Storage(redis, min_idle_time_ms=TAKE_OVER_AFTER)


def set_up_logs():
    access = logging.getLogger("aiohttp.access")
    access.propagate = False
    if path := os.environ.get("ACCESS_LOG"):
        handler = logging.FileHandler(path)
        handler.setFormatter(logging.Formatter("%(created).3f %(message)s"))
        access.addHandler(handler)
    else:
        access.setLevel(logging.WARNING)
    logging.getLogger("redis").setLevel(logging.WARNING)


async def main():
    set_up_logs()
    config = Config()
    engine = Engine(storage_of(config), config)
    engine.register_blueprint(run)
    await engine.start()
    print(f"READY {config.INSTANCE_ID} on {config.API_HOST}:{config.API_PORT}", flush=True)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()
    # Some of the engine's loops swallow their cancellation and go on; whoever waits for them waits indefinitely.
    await asyncio.wait([asyncio.ensure_future(engine.stop())], timeout=STOP_TIMEOUT)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
