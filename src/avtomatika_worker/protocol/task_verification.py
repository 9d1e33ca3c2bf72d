"""Checks first of all whether a task may run: its signature, policy and nesting (RXON.md, "Signing")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from avtomatika_worker.errors import MalformedMessageError, UnsendableValueError, UntrustedTaskError
from avtomatika_worker.narrowing import is_dict, is_list
from avtomatika_worker.protocol import dialects
from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.protocol.dialects import Dialect
from avtomatika_worker.protocol.messages import Task
from avtomatika_worker.protocol.replies import DECODE_ERRORS, Response, decode_task, raise_for_status, salvage_ids
from avtomatika_worker.protocol.signing import Signer, verified_task

UNSIGNED: Final = "unsigned"
BAD_SIGNATURE: Final = "bad_signature"
NOT_ALLOWED: Final = "not_allowed"

_REFUSALS: Final = {
    UNSIGNED: "it is not signed",
    BAD_SIGNATURE: "its signature is not the orchestrator's (check ORCHESTRATOR_SECRET_KEY)",
}

DEFAULT_NESTING: Final = 100

_CONTAINERS: Final = frozenset({dict, list})


class TaskGuard:
    """Reads one orchestrator's answers to polls.

    ``secret_key`` is the key it signs tasks with; with None, signatures are not checked. ``signature_required``:
    whether an unsigned task is refused too. ``max_nesting`` is how deeply a task's values may be nested. The key never
    appears in ``repr`` or in an error.
    """

    __slots__ = ("_max_nesting", "_required", "_signer")

    def __init__(
        self, secret_key: str | None = None, *, signature_required: bool = True, max_nesting: int = DEFAULT_NESTING
    ) -> None:
        self._signer = Signer(secret_key) if secret_key else None
        self._required = signature_required
        self._max_nesting = max_nesting

    @property
    def wants_signatures(self) -> bool:
        """Whether a task without a signature is refused."""
        return self._signer is not None and self._required

    def admit(self, response: Response, dialect: Dialect) -> Task | None:
        """Return the task of an answer, or None if there was none.

        Raises `UntrustedTaskError` for a task that must not run, and otherwise as `decode_task` does. ``dialect`` is
        the link's; an answer that announces another version is checked in that version's, and refused if that has no
        signatures.
        """
        if self._signer is not None and response.status != 204:
            raise_for_status(response)
            response = Response(response.status, response.headers, self._trusted(response, self._signer, dialect))
        task = decode_task(response)
        if task is None:
            return None
        self._check_nesting(task, response.body)
        if task.policy:
            _check_policy(task, task.policy)
        return task

    def _trusted(self, response: Response, signer: Signer, link_dialect: Dialect) -> bytes:
        """Return the bytes to decode the task from: exactly the signed ones.

        The canonical form leaves out anything that could be added on the way (null members, another form of a number, a
        duplicate key), so the received bytes are not used again.
        """
        dialect = dialects.choose(response.version or link_dialect.version).dialect
        try:
            raw: object = msgspec.json.decode(response.body)
            fields = as_object(raw)
            signed = fields.get("sig") is not None
            verified = verified_task(fields, signer, dialect) if signed and dialect.signed_tasks else None
        except (*DECODE_ERRORS, UnsendableValueError):
            raise _untrusted(response, BAD_SIGNATURE, "its signature cannot be checked: it is malformed") from None
        if verified is not None:
            return verified
        if not signed and not self._required:
            return response.body
        reason = BAD_SIGNATURE if signed else UNSIGNED
        too_old = "" if dialect.signed_tasks else f"; orchestrators of protocol {dialect.version} do not sign tasks"
        raise _untrusted(response, reason, _REFUSALS[reason] + too_old)

    def _check_nesting(self, task: Task, body: bytes) -> None:
        # Counting brackets is fast, and nearly always enough.
        if body.count(b"{") + body.count(b"[") <= self._max_nesting:
            return
        fields = [task.params, task.metadata, task.params_metadata, task.tracing_context, task.security, task.policy]
        if _is_deeper([each for each in fields if each], self._max_nesting):
            text = f"not a task: nested deeper than {self._max_nesting} levels (MAX_TASK_NESTING)"
            raise MalformedMessageError(text, job_id=task.job_id, task_id=task.task_id)


def _check_policy(task: Task, policy: Mapping[str, Any]) -> None:
    """Check the task against its own policy, which may list the allowed skills."""
    allowed: object = policy.get("allowed_skills")
    if allowed is None:
        return
    names = allowed if is_list(allowed) else []
    if task.type not in names:
        text = f"its policy does not allow the skill {task.type!r:.140}"
        raise UntrustedTaskError(NOT_ALLOWED, text, job_id=task.job_id, task_id=task.task_id)


def _is_deeper(values: list[Any], levels: int) -> bool:
    """Whether containers are nested more than ``levels`` deep; ``values`` are the first level."""
    for _ in range(levels):
        values = [child for value in values for child in _children(value) if type(child) in _CONTAINERS]
        if not values:
            return False
    return True


def _children(container: Any) -> Iterable[Any]:
    return container.values() if is_dict(container) else container


def _untrusted(response: Response, reason: str, text: str) -> UntrustedTaskError:
    job_id, task_id = salvage_ids(response.body)
    return UntrustedTaskError(reason, text, job_id=job_id, task_id=task_id)
