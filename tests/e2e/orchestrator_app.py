"""A published orchestrator with three blueprints; run by its own virtual environment, never imported by the tests.

Reads ``PORT``, ``OVERRIDES`` (a JSON object of names of the engine's configuration and their values) and ``REDIS`` (a
port; without it everything is in memory). Prints READY once it answers. The engine reads the source of the handlers,
so they stand in this file, each on its own.
"""

import asyncio
import json
import logging
import os
from pathlib import Path

from avtomatika import OrchestratorEngine
from avtomatika.config import Config
from avtomatika.storage import MemoryStorage

try:
    from avtomatika import Blueprint
except ImportError:  # older releases
    from avtomatika.blueprint import Blueprint

task = Blueprint(name="task", api_version="v1", api_endpoint="/jobs/task")


@task.handler("start", is_start=True)
async def start(job_id, initial_data, actions):
    actions.dispatch_task(
        task_type=initial_data["skill"],
        params=initial_data.get("params", {}),
        transitions={"success": "finished", "needs_review": "reviewed", "failure": "failed", "cancelled": "cancelled"},
    )


@task.handler("finished", is_end=True)
async def finished(context):
    pass


@task.handler("reviewed", is_end=True)
async def reviewed(context):
    pass


@task.handler("failed", is_end=True)
async def failed(context):
    pass


@task.handler("cancelled", is_end=True)
async def cancelled(context):
    pass


speak = Blueprint(name="speak", api_version="v1", api_endpoint="/jobs/speak")


@speak.handler("start", is_start=True)
async def start_speaking(job_id, initial_data, actions):
    actions.dispatch_task(task_type="speak", params=initial_data, transitions={"success": "finished"})


@speak.handler("finished", is_end=True)
async def spoken(context):
    pass


parallel = Blueprint(name="parallel", api_version="v1", api_endpoint="/jobs/parallel")


@parallel.handler("start", is_start=True)
async def fan_out(job_id, initial_data, actions):
    skill = initial_data["skill"]
    branches = [{"task_type": skill, "type": skill, "params": params} for params in initial_data["params"]["branches"]]
    actions.dispatch_parallel(tasks=branches, aggregate_into="gather")


@parallel.aggregator("gather")
async def gather(aggregation_results, state_history, actions):
    state_history["branches"] = [result.get("data") for result in aggregation_results.values()]
    actions.go_to("finished")


@parallel.handler("finished", is_end=True)
async def parallel_finished(context):
    pass


chain = Blueprint(name="chain", api_version="v1", api_endpoint="/jobs/chain")


@chain.handler("start", is_start=True)
async def first(job_id, initial_data, actions):
    actions.dispatch_task(task_type=initial_data["skill"], params={"i": 1}, transitions={"success": "next"})


@chain.handler("next")
async def following(job_id, initial_data, state_history, actions):
    if state_history["i"] == initial_data["params"]["links"]:
        actions.go_to("finished")
    else:
        actions.dispatch_task(
            task_type=initial_data["skill"], params={"i": state_history["i"] + 1}, transitions={"success": "next"}
        )


@chain.handler("finished", is_end=True)
async def chain_finished(context):
    pass


def configuration():
    config = Config()
    config.CLIENT_TOKEN = "client-token"
    config.GLOBAL_WORKER_TOKEN = "worker-token"
    config.CLIENTS_CONFIG_PATH = str(Path(__file__).with_name("clients.toml"))
    config.API_HOST = "127.0.0.1"
    config.API_PORT = int(os.environ["PORT"])
    config.LOG_LEVEL = "WARNING"
    config.LOG_FORMAT = "text"
    config.RATE_LIMITING_ENABLED = False
    config.WORKER_POLL_TIMEOUT_SECONDS = 3
    config.DETAILED_API_RESPONSES = True  # later releases show progress and errors of a job only then
    for name, value in json.loads(os.environ.get("OVERRIDES", "{}")).items():
        setattr(config, name, value)
    return config


def storage():
    if "REDIS" not in os.environ:
        return MemoryStorage()
    from avtomatika.storage.redis import RedisStorage
    from redis.asyncio import Redis

    return RedisStorage(Redis(port=int(os.environ["REDIS"])))


async def main():
    logging.getLogger("aiohttp.access").setLevel(logging.ERROR)
    engine = OrchestratorEngine(storage(), configuration())
    engine.register_blueprint(task)
    engine.register_blueprint(speak)
    engine.register_blueprint(parallel)
    engine.register_blueprint(chain)
    await engine.start()
    logging.getLogger("avtomatika.ws_manager").setLevel(logging.INFO)  # it logs when a worker's WebSocket is open
    print("READY", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
