"""Answers on the fleet's port for the fleet and its members. Called in threads of its health server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from avtomatika_worker._version import __version__
from avtomatika_worker.fleet.health_client import ask, ask_all
from avtomatika_worker.fleet.member_process import Process
from avtomatika_worker.fleet.members import Member, MemberState
from avtomatika_worker.monitoring.health import Health

_OK: Final = 200
Body = Mapping[str, Any]


class FleetHealth:
    """Queries every member for each answer."""

    def __init__(self, members: Sequence[Member], stopping: Callable[[], bool]) -> None:
        self._members = members
        self._stopping = stopping

    def __call__(self) -> Health:
        """Return the fleet's health: not live if any member's main loop is blocked, ready if any member is."""
        bodies = self._bodies()
        return Health(
            not_live=next((problem for member, body in bodies.items() if (problem := _not_live(member, body))), None),
            not_ready=self._not_ready(bodies),
            details={
                "version": __version__,
                "workers": len(self._members),
                "restarts": sum(member.restarted for member in self._members),
                "processes": [_described(member, body) for member, body in bodies.items()],
            },
        )

    def scrape(self) -> tuple[bytes, str]:
        """Return the metrics of all members on one page, and its content type."""
        from avtomatika_worker.fleet.merging import merge  # its dependencies are there only with metrics

        pages = {
            member.name: answer[1].decode()
            for member, answer in self._asked("/metrics").items()
            if answer is not None and answer[0] == _OK
        }
        states = Counter(member.state for member in self._members)
        return merge(
            pages,
            {state.value: states[state] for state in MemberState},
            {member.name: member.restarted for member in self._members if member.worker_id is not None},
        )

    def _not_ready(self, bodies: Mapping[Member, Body | None]) -> str | None:
        if self._stopping():
            return "shutting down"
        if any(body is not None and body.get("ready") for body in bodies.values()):
            return None
        reasons = (f" ({member.name}: {body['not_ready']})" for member, body in bodies.items() if body is not None)
        return "no process is ready" + next(reasons, "")

    def _bodies(self) -> dict[Member, Body | None]:
        return {
            member: None if answer is None else msgspec.json.decode(answer[1], type=dict[str, Any])
            for member, answer in self._asked("/health").items()
        }

    def _asked(self, path: str) -> dict[Member, tuple[int, bytes] | None]:
        listening = {
            member: member.process.socket_path
            for member in self._members
            if member.process and _listens(member.process)
        }
        answers = dict(zip(listening, ask_all(list(listening.values()), path), strict=True))
        return {member: answers.get(member) for member in self._members}


def is_ready(process: Process) -> bool:
    """Whether a member is registered with an orchestrator. Blocks."""
    answer = ask(process.socket_path, "/ready")
    return answer is not None and answer[0] == _OK


def _listens(process: Process) -> bool:
    return process.runs and process.socket_path.exists()


def _not_live(member: Member, body: Body | None) -> str | None:
    """Return what is wrong with a member that should be working; one starting or ending may be silent."""
    if body is not None:
        return f"{member.name}: {body['not_live']}" if body.get("not_live") else None
    silent = member.state is MemberState.RUNNING and member.process is not None and _listens(member.process)
    return f"{member.name} does not answer" if silent else None


def _described(member: Member, body: Body | None) -> dict[str, Any]:
    process, uptime = member.process, member.uptime
    return {
        "number": member.number,
        "worker_id": member.worker_id,
        "state": member.state.value,
        "pid": process.pid if process is not None and uptime is not None else None,
        "uptime_seconds": None if uptime is None else round(uptime, 1),
        "restarts": member.restarted,
        "last_exit": member.last_exit,
        "health": body,
    }
