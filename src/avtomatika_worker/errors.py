"""Every error of the package, on one page.

    WorkerError
    ├── ConfigError                   unusable settings (all problems at once)
    ├── SkillDefinitionError          a skill that cannot be registered
    ├── SkillLoadError                a module of the skills directory that cannot be imported
    ├── ResourceError                 a resource that cannot be registered, or made
    ├── ModelLoadError                a model that cannot be loaded; its task fails
    ├── ProcessStartError             a skill process that does not start
    ├── TaskError                     raised by a skill; the failure of a task
    │   ├── TransientError              TRANSIENT_ERROR             the orchestrator retries
    │   │   └── ObjectChangedError        an object that was replaced while it was read
    │   ├── ResourceExhaustedError      RESOURCE_EXHAUSTED_ERROR    retries
    │   ├── TaskTimeoutError            TIMEOUT_ERROR               retries
    │   ├── InternalError               INTERNAL_ERROR              retries
    │   ├── DependencyMissingError      DEPENDENCY_MISSING_ERROR    retries (elsewhere)
    │   ├── PermanentError              PERMANENT_ERROR             quarantined
    │   ├── SecurityError               SECURITY_ERROR              quarantined
    │   │   └── UnsafeNameError           a file name that leads out of its directory
    │   ├── DependencyError             DEPENDENCY_ERROR            quarantined
    │   ├── ContractViolationError      CONTRACT_VIOLATION_ERROR    quarantined
    │   ├── InvalidInputError           INVALID_INPUT_ERROR         the job fails
    │   └── IntegrityMismatchError      INTEGRITY_MISMATCH_ERROR    the job fails
    ├── StoreError                    results cannot be kept on disk
    ├── ProtocolError
    │   ├── UnsendableValueError      a value that no orchestrator of this dialect can digest (ours)
    │   ├── MalformedMessageError     bytes that are not the expected message (theirs)
    │   └── UntrustedTaskError        a task that must not run: forged, unsigned, or not allowed by its policy
    └── TransportError                a call without a usable answer
        ├── ConnectionFailedError       no connection, or it ended in the middle
        ├── CallTimedOutError           no answer in time
        ├── AnswerTooLongError          an answer longer than MAX_RESPONSE_BYTES
        └── RejectedError               an answer with an HTTP status other than 2xx

No code depends on the words of a message: facts are attributes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final


class WorkerError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigError(WorkerError):
    """Unusable settings.

    ``problems`` holds one sentence each, in the order of the settings' table; nothing has been started.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        super().__init__("; ".join(self.problems))


class SkillDefinitionError(WorkerError):
    """A skill that cannot be registered; the message names the skill and the problem."""

    def __init__(self, skill: str, problem: str) -> None:
        self.skill = skill
        self.problem = problem
        super().__init__(f"skill {skill!r}: {problem}")


class SkillLoadError(WorkerError):
    """A module in the skills directory that cannot be imported; ``__cause__`` is the original exception."""

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}")


class ResourceError(WorkerError):
    """A resource that cannot be registered or made; ``__cause__`` is its function's exception, if any."""

    def __init__(self, resource: str, problem: str) -> None:
        self.resource = resource
        self.problem = problem
        super().__init__(f"resource {resource!r}: {problem}")


class ModelLoadError(WorkerError):
    """A model that cannot be loaded; ``__cause__`` is what its loader raised. The task fails with TRANSIENT_ERROR."""

    def __init__(self, loader: str, model: str, problem: str) -> None:
        self.loader = loader
        self.model = model
        self.problem = problem
        super().__init__(f"model {model!r:.200} cannot be loaded by {loader}: {problem}")


class ProcessStartError(WorkerError):
    """A skill process that ended, or sent an unexpected message, before it was ready."""


class TaskError(WorkerError):
    """A failure with a code of the protocol (RXON.md, "Error codes").

    Raise a subclass in a skill to choose what the orchestrator does: retry, fail the job or quarantine it.
    ``details`` must be JSON-able; it reaches the orchestrator with the code and the message.
    """

    code: ClassVar[str] = "TRANSIENT_ERROR"
    retryable: ClassVar[bool] = True

    def __init__(self, message: str = "", details: Mapping[str, Any] | None = None) -> None:
        self.message = message
        self.details: dict[str, Any] = dict(details or {})
        super().__init__(message)


class TransientError(TaskError):
    """A temporary failure: the orchestrator retries the task (three times by default)."""

    code = "TRANSIENT_ERROR"


class ObjectChangedError(TransientError):
    """An object in a store was replaced while it was read: the task must start over."""


class ResourceExhaustedError(TaskError):
    """Out of memory, disk or quota: the orchestrator retries the task."""

    code = "RESOURCE_EXHAUSTED_ERROR"


class TaskTimeoutError(TaskError):
    """The task exceeded its time limit: the orchestrator retries it."""

    code = "TIMEOUT_ERROR"


class InternalError(TaskError):
    """The worker failed, not the skill: the orchestrator retries the task."""

    code = "INTERNAL_ERROR"


class DependencyMissingError(TaskError):
    """Something the task needs is not installed here: the orchestrator retries the task."""

    code = "DEPENDENCY_MISSING_ERROR"


class PermanentError(TaskError):
    """Retrying cannot help: the orchestrator quarantines the job at once."""

    code = "PERMANENT_ERROR"
    retryable = False


class SecurityError(TaskError):
    """The task must not run: the orchestrator quarantines the job at once."""

    code = "SECURITY_ERROR"
    retryable = False


class UnsafeNameError(SecurityError):
    """A file's or object's name that leads out of its proper place; nothing was read or written.

    ``name`` is the name as given, ``problem`` says what is wrong with it.
    """

    def __init__(self, name: str, problem: str) -> None:
        self.name = name
        self.problem = problem
        super().__init__(f"unsafe name {name!r:.300}: {problem}", {"name": name[:300], "problem": problem})


class SourceRefusedError(UnsafeNameError):
    """An object that this worker's tasks may not read or write: see ``WORKER_FILE_SOURCES``."""


class DependencyError(TaskError):
    """Something the task depends on is permanently broken: the orchestrator quarantines the job at once."""

    code = "DEPENDENCY_ERROR"
    retryable = False


class ContractViolationError(TaskError):
    """A result that violates the skill's contract: quarantined at once, and the worker's reputation drops."""

    code = "CONTRACT_VIOLATION_ERROR"
    retryable = False


class InvalidInputError(TaskError):
    """The params are wrong: the job fails without a retry."""

    code = "INVALID_INPUT_ERROR"
    retryable = False


class IntegrityMismatchError(TaskError):
    """A file does not match its metadata: the job fails without a retry."""

    code = "INTEGRITY_MISMATCH_ERROR"
    retryable = False


class StoreError(WorkerError):
    """Results cannot be kept on disk; the message names the file or directory and the problem."""


class ProtocolError(WorkerError):
    """Base of the errors of messages."""


class UnsendableValueError(ProtocolError):
    """A value that an orchestrator of this dialect always answers with 500 (RXON.md, "Signing").

    ``path`` is its place in the message, as a JSON path (``$.data.scores[3]``); ``problem`` says what is wrong.
    """

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        self.problem = problem
        super().__init__(f"{path}: {problem}")


class MalformedMessageError(ProtocolError):
    """Bytes from an orchestrator that are not the expected message.

    ``job_id`` and ``task_id`` are set if at least they could be read: the task can then be answered with a failure.
    """

    def __init__(self, message: str, *, job_id: str | None = None, task_id: str | None = None) -> None:
        self.job_id = job_id
        self.task_id = task_id
        super().__init__(message)


class UntrustedTaskError(ProtocolError):
    """A task that must not run. Nothing of it was used except the ids for an answer.

    ``reason`` is one of a few words, for metrics: ``unsigned``, ``bad_signature``, ``not_allowed``. ``job_id`` and
    ``task_id`` are the task's own claims, None if missing.
    """

    def __init__(self, reason: str, message: str, *, job_id: str | None = None, task_id: str | None = None) -> None:
        self.reason = reason
        self.job_id = job_id
        self.task_id = task_id
        super().__init__(message)


class TransportError(WorkerError):
    """A call without a usable answer.

    ``retryable``: the same call may succeed later. ``maybe_processed``: the other side may have acted on it anyway, so
    a retry may be answered as a duplicate. ``retry_after``: the least seconds to wait, if the answer gave them.
    ``status``: the HTTP status, if there was one.
    """

    retryable: bool = True
    maybe_processed: bool = False
    retry_after: float | None = None
    status: int | None = None


class ConnectionFailedError(TransportError):
    """No connection, a connection that ended during the call, or an answer that is not HTTP.

    ``maybe_processed`` is false if nothing was sent because there was no connection.
    """

    def __init__(self, message: str = "", *, maybe_processed: bool = True) -> None:
        self.maybe_processed: bool = maybe_processed
        super().__init__(message)


class CallTimedOutError(TransportError):
    """No answer within the call's time limit."""

    maybe_processed = True


class AnswerTooLongError(TransportError):
    """An answer that is not read: over ``MAX_RESPONSE_BYTES`` decompressed, or with more than a million values."""

    maybe_processed = True


_ABOUT_THE_MESSAGE: Final = frozenset({400, 413})
"""Statuses of permanent refusals: the message is malformed or too large (1.0b21, 1.0b30: tried)."""


class RejectedError(TransportError):
    """An answer with an HTTP status other than 2xx. ``detail`` is its shortened text, for people only.

    ``from_orchestrator``: it announced the protocol version, as every answer of an orchestrator to a message does;
    proxies, captive portals and starting servers do not. Only such an answer can be final (not ``retryable``).
    """

    def __init__(
        self, status: int, detail: str = "", *, retry_after: float | None = None, from_orchestrator: bool = False
    ) -> None:
        self.status: int = status  # pyright: ignore[reportIncompatibleVariableOverride] - here it is never None
        self.detail = detail
        self.retry_after = retry_after
        self.from_orchestrator = from_orchestrator
        self.retryable: bool = not (from_orchestrator and status in _ABOUT_THE_MESSAGE)
        self.maybe_processed: bool = status >= 500
        super().__init__(f"HTTP {status}" + (f": {detail}" if detail else ""))

    @property
    def unauthorized(self) -> bool:
        """Whether the token, the signature or the timestamp was refused."""
        return self.status in {401, 403}

    @property
    def rate_limited(self) -> bool:
        """Whether the orchestrator asked to slow down."""
        return self.status == 429


TASK_ERRORS: Mapping[str, type[TaskError]] = {error.code: error for error in TaskError.__subclasses__()}
"""Wire code → the exception for it."""
