"""Middlewares of the older form, ``async (context, next)``: ``await next()`` returns what the skill returned."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, Never, TypeAlias, cast, get_origin

from avtomatika_worker.errors import TaskError, UnsendableValueError
from avtomatika_worker.execution.context import TaskContext
from avtomatika_worker.execution.envelope import OUTCOMES, from_value
from avtomatika_worker.execution.middleware import Handler, Middleware, named_part
from avtomatika_worker.execution.outcome import Cancelled, Failed, Outcome
from avtomatika_worker.execution.watched_call import SkillCall, watched
from avtomatika_worker.skills.jsonable import to_plain

OlderMiddleware: TypeAlias = Callable[[dict[str, Any], Callable[[], Awaitable[Any]]], Awaitable[Any]]

_HINTS: Final = (TaskContext, Handler)
_HINT_TEXTS: Final = ("TaskContext", "Handler")


def adapted(middleware: Any) -> Middleware:
    """Return a middleware in our form that does what ``middleware`` does, whichever form that has.

    The newer form is recognized by its type hints, the older one by a parameter called ``next`` or a context annotated
    as a dict. Otherwise its first call decides: the older form calls its second argument without arguments.
    """
    parameters = _parameters(middleware)
    if _is_newer(parameters):
        return cast("Middleware", middleware)
    older = _is_older(parameters)

    async def adapter(ctx: TaskContext, call_next: Handler) -> Outcome:
        around = watched.get()
        run = _Run(ctx, call_next, around, older=older)
        try:
            returned = await middleware(run.context, run)
        except BaseException as error:
            if around is not None and run.older:
                around.end(error=error)
            raise
        if around is not None and run.older:
            around.end(returned)
        return run.outcome_of(returned)

    named = named_part(middleware)
    adapter.__module__, adapter.__qualname__ = named.__module__, named.__qualname__
    return adapter


def _parameters(middleware: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(middleware).parameters.values())
    except (TypeError, ValueError):
        return []


def _is_newer(parameters: list[inspect.Parameter]) -> bool:
    hints = [each.annotation for each in parameters[:2]]
    return any(hint in _HINT_TEXTS if isinstance(hint, str) else hint in _HINTS for hint in hints)


def _is_older(parameters: list[inspect.Parameter]) -> bool:
    if len(parameters) < 2:
        return False
    hint = parameters[0].annotation
    text = hint.partition("[")[0] if isinstance(hint, str) else ""
    is_dict = text in {"dict", "Dict", "Mapping"} or (get_origin(hint) or hint) in {dict, Mapping, MutableMapping}
    return parameters[1].name == "next" or is_dict


class Context(dict[str, Any]):
    """The task for a middleware of the older form: a dict that also has everything that `TaskContext` has.

    Its keys are ``task_id``, ``job_id``, ``skill_name``, ``params``, ``observability`` and ``handler_kwargs``. Whatever
    the latter holds besides ``params`` is passed to the skill's function as additional keyword arguments.
    """

    __slots__ = ("_ctx",)

    def __init__(self, ctx: TaskContext, extra: Mapping[str, Any]) -> None:
        super().__init__(
            task_id=ctx.task_id,
            job_id=ctx.job_id,
            skill_name=ctx.skill,
            params=ctx.params,
            handler_kwargs={"params": ctx.params, **extra},
            observability=ctx.observability,
        )
        object.__setattr__(self, "_ctx", ctx)

    def __missing__(self, key: str) -> Never:
        hint = (
            "files are in TaskFiles, an argument of the skill"
            if key == "s3_manager"
            else f"its keys are {', '.join(self)}"
        )
        raise KeyError(f"the context has no {key!r}: {hint}")

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_ctx"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "_ctx"), name, value)

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


class _Run:
    """One run of a middleware, and its ``next``: called without arguments in the older form, else with the context."""

    def __init__(self, ctx: TaskContext, call_next: Handler, around: SkillCall | None, *, older: bool) -> None:
        """``around`` is the call that a middleware further out is observing."""
        self.context = Context(ctx, around.extra if around is not None else {})
        self.older = older
        self._ctx = ctx
        self._call_next = call_next
        self._outcome: Outcome | None = None
        self._raw: object = None
        self._before: object = None

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Continue. Without arguments, return the skill's raw value, or raise what it raised."""
        if args or kwargs:
            ctx = args[0] if args else next(iter(kwargs.values()))
            return await self._call_next(self._ctx if ctx is self.context else ctx)
        self.older = True
        kept = self.context["handler_kwargs"]
        self._ctx.params = self._params(kept)
        call = SkillCall({name: value for name, value in kept.items() if name != "params"})
        token = watched.set(call)
        try:
            self._outcome = await self._call_next(self._ctx)
        finally:
            watched.reset(token)
        if call.error is not None:
            raise call.error
        ended = call.value if call.ended else self._outcome
        self._raw = _value_of(ended) if isinstance(ended, OUTCOMES) else ended
        self._before = _snapshot(self._raw)
        return self._raw

    def _params(self, kept: Mapping[str, Any]) -> dict[str, Any]:
        """Return the params as the middleware left them: it may have replaced them in either place."""
        given, inner = self.context.get("params"), kept.get("params")
        changed = inner if inner is not self._ctx.params else given
        return cast("dict[str, Any]", changed if isinstance(changed, dict) else self._ctx.params)

    def outcome_of(self, returned: object) -> Outcome:
        """Return the outcome for what the middleware returned."""
        if not self.older or isinstance(returned, OUTCOMES):
            return cast("Outcome", returned)
        if self._outcome is not None and returned is self._raw and _snapshot(returned) == self._before:
            return self._outcome
        if isinstance(returned, Mapping):
            return cast("Outcome", returned)  # `compose` interprets it, with the skill's contract
        return from_value(returned)


def _snapshot(value: object) -> object:
    """Return a copy, to detect changes in place; a value that JSON cannot represent counts as unchanged."""
    try:
        return to_plain(value)
    except UnsendableValueError:
        return None


def _value_of(outcome: Outcome) -> object:
    """Return the data of a task that ended before it reached its skill. Raises the error that it failed with."""
    if isinstance(outcome, Cancelled):
        raise asyncio.CancelledError(outcome.message)
    if isinstance(outcome, Failed):
        kind = next((each for each in TaskError.__subclasses__() if each.code == outcome.code), TaskError)
        error = kind(outcome.message, outcome.details)
        if error.code != outcome.code:
            setattr(error, "code", outcome.code)  # noqa: B010 - on this instance only
        raise error
    return outcome.data


__all__ = ["Context", "OlderMiddleware", "adapted"]
