"""Whether a task may run: its signature, its policy, its bounds (RXON.md, "Signing"). Checked before anything else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, cast

import msgspec

from avtomatika_worker.errors import MalformedMessageError, UnsendableValueError, UntrustedTaskError
from avtomatika_worker.protocol import dialects
from avtomatika_worker.protocol.dialects import Dialect
from avtomatika_worker.protocol.messages import Task
from avtomatika_worker.protocol.replies import DECODE_ERRORS, Response, decode_task, raise_for_status, salvage_ids
from avtomatika_worker.protocol.signing import Signer, verify_task

UNSIGNED: Final = "unsigned"
BAD_SIGNATURE: Final = "bad_signature"
NOT_ALLOWED: Final = "not_allowed"

DEFAULT_NESTING: Final = 100

_CONTAINERS: Final = frozenset({dict, list})


class TaskGuard:
    """Reads the answers to polls of one orchestrator.

    ``secret_key`` is what it signs tasks with; None means that signatures are not looked at. ``signature_required``:
    whether a task without a signature is refused, too. ``max_nesting`` is how deep a task's values may be nested.
    The key never appears in ``repr``, nor in an error.
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
        """Return the task of an answer, None when there was none.

        Raises `UntrustedTaskError` for a task that must not run, else what `decode_task` raises. ``dialect`` is the
        link's; an answer that announces another version is checked in that one's.
        """
        if self._signer is None:
            task = decode_task(response)
        else:
            raise_for_status(response)
            if response.status == 204:
                return None
            task = self._verified(response, self._signer, _signing_dialect(response, dialect))
        if task is None:
            return None
        self._check_nesting(task, response.body)
        _check_policy(task)
        return task

    def _verified(self, response: Response, signer: Signer, dialect: Dialect) -> Task | None:
        """Return the task after its signature was checked. It is made of the very values that were signed."""
        try:
            raw: Any = msgspec.json.decode(response.body)
            signed = isinstance(raw, dict) and cast("dict[str, Any]", raw).get("sig") is not None
            right = signed and verify_task(cast("dict[str, Any]", raw), signer, dialect)
        except (*DECODE_ERRORS, UnsendableValueError):
            raise _untrusted(response, BAD_SIGNATURE, "its signature cannot be checked: it is malformed") from None
        if signed and not right:
            text = "its signature is not the orchestrator's (is ORCHESTRATOR_SECRET_KEY the very key over there?)"
            raise _untrusted(response, BAD_SIGNATURE, text)
        if not signed and self._required:
            text = "it is not signed"
            if not dialect.signed_tasks:
                text += f"; orchestrators of protocol {dialect.version} sign none"
            raise _untrusted(response, UNSIGNED, text)
        try:
            return msgspec.convert(raw, Task)
        except DECODE_ERRORS as error:
            job_id, task_id = salvage_ids(response.body)
            raise MalformedMessageError(f"not a task: {error}", job_id=job_id, task_id=task_id) from None

    def _check_nesting(self, task: Task, body: bytes) -> None:
        # Counting brackets is quick, and nearly always enough.
        if body.count(b"{") + body.count(b"[") <= self._max_nesting:
            return
        fields = [task.params, task.metadata, task.params_metadata, task.tracing_context, task.security, task.policy]
        if _is_deeper([each for each in fields if each], self._max_nesting):
            text = f"not a task: nested deeper than {self._max_nesting} levels (MAX_TASK_NESTING)"
            raise MalformedMessageError(text, job_id=task.job_id, task_id=task.task_id)


def _check_policy(task: Task) -> None:
    """Hold the task against its own policy: it may name the only skills that may run."""
    allowed: object = (task.policy or {}).get("allowed_skills")
    if allowed is None:
        return
    names = cast("list[object]", allowed) if isinstance(allowed, list) else []
    if task.type not in names:
        text = f"its policy does not allow the skill {task.type!r:.140}"
        raise UntrustedTaskError(NOT_ALLOWED, text, job_id=task.job_id, task_id=task.task_id)


def _is_deeper(values: list[Any], levels: int) -> bool:
    """Whether containers stand more than ``levels`` deep in one another; ``values`` are the first level."""
    for _ in range(levels):
        values = [child for value in values for child in _children(value) if type(child) in _CONTAINERS]
        if not values:
            return False
    return True


def _children(container: Any) -> Iterable[Any]:
    return cast("dict[str, Any]", container).values() if isinstance(container, dict) else container


def _signing_dialect(response: Response, dialect: Dialect) -> Dialect:
    """Return the dialect that a signature is checked in."""
    version = response.version
    return dialect if version is None or version == dialect.version else dialects.choose(version).dialect


def _untrusted(response: Response, reason: str, text: str) -> UntrustedTaskError:
    job_id, task_id = salvage_ids(response.body)
    return UntrustedTaskError(reason, text, job_id=job_id, task_id=task_id)
