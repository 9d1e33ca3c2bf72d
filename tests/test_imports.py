"""What importing the package loads, and what waits until somebody needs it."""

import subprocess
import sys

PLAIN = """
import sys
from typing import Any
from avtomatika_worker import Worker

worker = Worker(worker_type="cpu")

@worker.skill
async def echo(params: dict[str, Any]) -> dict[str, Any]:
    return params
"""
TYPED = (
    PLAIN
    + """
@worker.skill
async def double(number: int) -> int:
    return 2 * number
"""
)


def loaded(code: str) -> set[str]:
    show = "\nworker.skills  # makes what is registered ready\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code + show], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_schema_validator_is_imported_with_the_first_schema():
    assert "jsonschema_rs" not in loaded(PLAIN)
    assert "jsonschema_rs" in loaded(TYPED)


def test_libraries_that_only_some_workers_use_are_imported_on_demand():
    assert not loaded(PLAIN) & {"aiohttp", "obstore", "opentelemetry", "pydantic", "jsonschema_rs", "rich"}
