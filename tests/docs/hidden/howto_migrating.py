import re

from avtomatika_worker.config import describe
from avtomatika_worker.testing import WorkerHarness

OFFICIAL = {
    "WORKER_ID": None,
    "ORCHESTRATOR_URL": "http://localhost:8080",
    "LOG_FORMAT": "text",
    "LOG_LEVEL": "INFO",
    "WORKER_PORT": "8083",
    "WORKER_SHUTDOWN_TIMEOUT": "30.0",
    "WORKER_ENABLE_WEBSOCKETS": "false",
    "MULTI_ORCHESTRATOR_MODE": "WATERFALL",
    "WORKER_ENABLE_METRICS": "false",
    "REGISTRATION_RETRY_INITIAL_DELAY": "1.0",
    "REGISTRATION_RETRY_MAX_DELAY": "60.0",
    "TASK_FILES_DIR": "/tmp/payloads",
    "WORKER_SKILLS_DIR": "skills",
}
"""The table of its README."""


async def after(names):
    ours = {row.variable: row.default for row in describe()}
    for variable, default in OFFICIAL.items():
        assert default is None or ours[variable] == default, variable
    worker = names["worker"]
    async with WorkerHarness(worker) as h:
        assert (await h.run("resize", {"width": 1, "height": 2, "url": "u"})).data == {"result": "ok"}
    assert re.fullmatch(r"\w+", names["bp"].definitions[0].name)
