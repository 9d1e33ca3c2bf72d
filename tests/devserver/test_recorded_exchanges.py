"""The embedded orchestrator answers as each published release did: recordings of e2e/record_exchanges.py, replayed.

The clock is that of the recording. Ids of tasks are the embedded orchestrator's own: they are replaced in what the
worker sends, which is then signed again. Texts for people differ, and what is in `DIFFERENT`.
"""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
import pytest

from avtomatika_worker.devserver import PRODUCTION_LIKE, EmbeddedOrchestrator
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.dialects import Dialect, choose
from avtomatika_worker.protocol.signing import Signer
from e2e.record_exchanges import LIMITS, PERIOD, TIMEOUT
from e2e.releases import PROTOCOLS

EXCHANGES = Path(__file__).parents[1] / "data" / "exchanges"
TOKEN = "worker-token"
_TEXTS: Final = {"message", "error", "warning"}
_VOLATILE: Final = {"access_token", "refresh_token", "sig", "timestamp", "next_heartbeat_jitter_ms"}


class Replay:
    """Sends a recording's calls to an orchestrator, and compares the answers."""

    def __init__(self, orchestrator: EmbeddedOrchestrator, session: aiohttp.ClientSession) -> None:
        self.orchestrator = orchestrator
        self.session = session
        self.dialect: Dialect = choose(orchestrator.version).dialect
        self.task_ids: dict[str, str] = {}

    async def step(self, line: dict[str, Any]) -> str | None:
        """Do what a line says; return how the outcome differs."""
        match line["what"]:
            case "job":
                self.orchestrator.submit("echo", line["params"], job_id=line["job_id"])
            case "cancel":
                self.orchestrator.cancel(line["job_id"])
            case "end":
                state = self.orchestrator.jobs[line["job_id"]].state
                return None if state == line["status"] else f"the job is {state}, it was {line['status']}"
            case _:
                return await self._call(line)
        return None

    async def _call(self, line: dict[str, Any]) -> str | None:
        url = self.orchestrator.url + line["path"]
        async with self.session.request(
            line["method"], url, data=io.BytesIO(self._body(line["body"])), headers=line["headers"]
        ) as answer:
            body = (await answer.read()).decode()
            headers = {
                name: answer.headers[name] for name in ("Retry-After", "X-RXON-Version") if name in answer.headers
            }
        if "/tasks/next" in line["path"] and answer.status == line["status"] == 200:
            self.task_ids[orjson.loads(line["reply"])["task_id"]] = orjson.loads(body)["task_id"]
        ours, theirs = (answer.status, headers, self._read(body)), (line["status"], line["reply_headers"], None)
        theirs = (*theirs[:2], self._read(self._with_our_ids(line["reply"])))
        return None if ours == theirs else f"{line['method']} {line['path']} is answered {ours}, it was {theirs}"

    def _body(self, recorded: str | None) -> bytes:
        if recorded is None:
            return b""
        if recorded.startswith("length:"):
            return b"x" * int(recorded.removeprefix("length:"))
        body = self._with_our_ids(recorded)
        return recorded.encode() if body == recorded else self._signed(body)

    def _with_our_ids(self, text: str) -> str:
        for theirs, ours in self.task_ids.items():
            text = text.replace(theirs, ours)
        return text

    def _signed(self, body: str) -> bytes:
        message = orjson.loads(body)
        security = message.pop("security")
        chain = {"bubbling_chain": message.pop("bubbling_chain")} if "bubbling_chain" in message else {}
        security["signature"] = Signer(TOKEN).sign(canonical_bytes(message, self.dialect))
        return orjson.dumps({**message, **chain, "security": security})

    def _read(self, body: str) -> Any:
        """Return what programs read of an answer."""
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError:
            return {"error": True} if body else None
        known = {name: value for name, value in answer.items() if name not in _VOLATILE and value is not None}
        return {name: bool(value) if name in _TEXTS else value for name, value in known.items()}


def lines_of(release: str, name: str) -> Iterator[dict[str, Any]]:
    for line in (EXCHANGES / f"{release}-{name}.jsonl").read_bytes().splitlines():
        yield orjson.loads(line)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session:
        yield session


async def differences(release: str, name: str, session: aiohttp.ClientSession, **options: Any) -> list[str]:
    lines = list(lines_of(release, name))
    now = lines[0]["at"]
    found: list[str] = []
    settings: dict[str, Any] = {"version": PROTOCOLS[release], "token": TOKEN, "poll_time": 0.0, **options}
    async with EmbeddedOrchestrator(PRODUCTION_LIKE, clock=lambda: lines[0]["at"], **settings) as orchestrator:
        replay = Replay(orchestrator, session)
        for number, line in enumerate(lines):
            orchestrator.clock_offset = line["at"] - now
            difference = await replay.step(line)
            if difference is not None and not any(re.search(known, difference) for known in DIFFERENT):
                found.append(f"line {number + 1}: {difference}")
    return found


DIFFERENT: Final = {
    "ttl_refreshed": "a heartbeat of [] is one without content there; no worker means to send that",
}
"""Known differences: part of their text, and why they stay."""


@pytest.mark.parametrize("release", PROTOCOLS)
async def test_calls_are_answered_as_by_the_release(release: str, session: aiohttp.ClientSession) -> None:
    options: dict[str, Any] = {"rate_limits": None, "task_timeout": TIMEOUT, "secret_key": "key"}
    assert await differences(release, "calls", session, **options) == []


@pytest.mark.parametrize("release", PROTOCOLS)
async def test_rates_are_limited_as_by_the_release(release: str, session: aiohttp.ClientSession) -> None:
    limits = dict(LIMITS)
    if PROTOCOLS[release] in {"1.0b7", "1.0b10"}:
        limits["heartbeat"] = limits["result"]  # they have no limit of their own for heartbeats
    assert await differences(release, "limits", session, rate_limits=limits, rate_period=PERIOD) == []
