"""An orchestrator with a blueprint of several steps. Its jobs are in Redis, and go on when it is started again.

Not of this package: `pip install "avtomatika[redis,telemetry]==1.0b30"`, in an environment of its own. Variables:
API_PORT, REDIS_HOST, REDIS_PORT, CLIENT_TOKEN, GLOBAL_WORKER_TOKEN.
"""

import os
from pathlib import Path

from avtomatika import Blueprint, OrchestratorEngine, RedisStorage
from avtomatika.config import Config
from redis.asyncio import Redis

report = Blueprint(name="report", api_version="v1", api_endpoint="/jobs/report")


# Handlers say what is next; the work is the workers'. One task for each text: whatever worker is free takes it.
# (The parallel tasks come first for a reason: 1.0b30 holds what they return against the output schema of the last
# task before them, and thinks less of a worker whose data do not fit that.)
@report.handler("start", is_start=True)
async def start(initial_data, actions):
    texts = initial_data["texts"]
    tasks = [{"task_type": "count_words", "type": "count_words", "params": {"text": text}} for text in texts]
    actions.dispatch_parallel(tasks=tasks, aggregate_into="merge")


@report.aggregator("merge")
async def merge(aggregation_results, state_history, actions):
    state_history["counts"] = [result["data"]["counts"] for result in aggregation_results.values()]
    actions.go_to("write")


# What is in `state_history`, and all that a task has returned, is handed to the arguments of that name.
@report.handler("write")
async def write(counts, initial_data, actions):
    actions.dispatch_task(
        task_type="write_report",
        params={"counts": counts, "top": initial_data.get("top", 3)},
        transitions={"success": "finished", "too_short": "rejected", "failure": "failed", "cancelled": "failed"},
    )


@report.handler("finished", is_end=True)
async def finished(context):
    pass


@report.handler("rejected", is_end=True)
async def rejected(context):
    pass


@report.handler("failed", is_end=True)
async def failed(context):
    pass


def main():
    config = Config()  # reads the environment
    config.API_HOST = "127.0.0.1"
    config.CLIENTS_CONFIG_PATH = str(Path(__file__).with_name("clients.toml"))
    config.DETAILED_API_RESPONSES = True  # clients see what was returned, not only a status
    # A poll waits inside of Redis, for 30 s and on a connection of its own. With redis-py's defaults (5 s, 100) it is
    # given up, and the task that ends it is lost.
    limits = {"socket_timeout": 60, "max_connections": 10_000}
    redis = Redis(host=config.REDIS_HOST or "127.0.0.1", port=config.REDIS_PORT, db=config.REDIS_DB, **limits)
    engine = OrchestratorEngine(RedisStorage(redis), config)
    engine.register_blueprint(report)
    engine.run()


if __name__ == "__main__":
    os.environ.setdefault("LOG_FORMAT", "text")
    main()
