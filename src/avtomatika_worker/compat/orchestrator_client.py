"""`OrchestratorClient`: lets a skill have the orchestrator run another skill, and wait for what it returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from avtomatika_worker.errors import DependencyError, RejectedError, TransientError, TransportError
from avtomatika_worker.link.link import Link
from avtomatika_worker.narrowing import is_dict
from avtomatika_worker.protocol.codec import SKILL_CALL_PATH, Request
from avtomatika_worker.protocol.replies import DECODE_ERRORS, raise_for_status

_TIMEOUT: Final = 300.0


class OrchestratorClient:
    """Calls other skills: annotate a skill's argument with this class to get it.

    No orchestrator released so far, up to 1.0b30, has the route that this needs; the embedded one does.
    """

    def __init__(self, links: Callable[[], Sequence[Link]]) -> None:
        self._links = links

    async def call_skill(self, skill_name: str, params: dict[str, Any]) -> dict[str, Any]:
        """Have the orchestrator run a skill with ``params``, and return its answer.

        Raises `DependencyError` if the orchestrator has no such route or refuses, `TransientError` if it cannot be
        reached, and RuntimeError if the worker is not running.
        """
        links = self._links()
        if not links:
            raise RuntimeError("the worker is not running: there is no orchestrator to call a skill at")
        link = next((each for each in links if each.ready.is_open), links[0])
        body = msgspec.json.encode({"skill_name": skill_name, "params": params})
        try:
            response = await link.ask(lambda: Request("POST", SKILL_CALL_PATH, body), timeout=_TIMEOUT)
            raise_for_status(response)
            answer: object = msgspec.json.decode(response.body)
        except RejectedError as error:
            raise _refused(link, skill_name, error) from error
        except TransportError as error:
            raise TransientError(f"skill {skill_name!r} cannot be called: {error}", {"skill": skill_name}) from error
        except DECODE_ERRORS as error:
            raise DependencyError(f"the answer to a call of skill {skill_name!r} is not JSON: {error}") from error
        return answer if is_dict(answer) else {"result": answer}


def _refused(link: Link, skill: str, error: RejectedError) -> DependencyError | TransientError:
    details = {"skill": skill, "status": error.status}
    if error.status == 404:
        return DependencyError(
            f"skill {skill!r} cannot be called: {link.label} has no route {SKILL_CALL_PATH}; no release up to 1.0b30 "
            "has it. Dispatch the skill from the blueprint as a separate task",
            details,
        )
    kind = TransientError if error.retryable else DependencyError
    return kind(f"skill {skill!r} cannot be called: {error}", details)
