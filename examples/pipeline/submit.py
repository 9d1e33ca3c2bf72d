"""Submits texts, waits, and prints the report: python submit.py FILE …, with ORCHESTRATOR_URL and CLIENT_TOKEN."""

import json
import os
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

URL = os.environ.get("ORCHESTRATOR_URL", "http://127.0.0.1:8080")
TOKEN = os.environ.get("CLIENT_TOKEN", "client-token")
ENDED = {"finished", "rejected", "failed", "cancelled", "error", "quarantined"}


def call(path: str, body: object = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"X-Client-Token": TOKEN, "Content-Type": "application/json"}
    request = urllib.request.Request(f"{URL}/api/v1/jobs/{path}", data, headers)  # noqa: S310 - the URL is yours
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        reply: dict[str, Any] = json.load(answer)
    return reply


def main() -> int:
    texts = [Path(name).read_text("utf-8") for name in sys.argv[1:]]
    job_id = call("report", {"initial_data": {"texts": texts, "top": 3}})["job_id"]
    job, pause = call(job_id), 0.1
    while not {job["status"], job.get("current_state")} & ENDED:
        # An orchestrator answers 100 calls a minute. Your program would rather give a webhook_url, and be called.
        time.sleep(pause)
        job, pause = call(job_id), min(pause * 1.5, 2.0)
    found = job.get("state_history") or {}
    print(job.get("current_state"), json.dumps({name: found.get(name) for name in ("words", "most_frequent")}))
    return 0 if job["status"] == "finished" else 1


if __name__ == "__main__":
    sys.exit(main())
