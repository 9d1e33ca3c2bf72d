"""Skills that work on several tasks at once: the option `Batch`, and what it makes of a function's type hints.

The function gets lists, one item a task, or what holds as much: see `batch_forms`. The contract is that of one task: so
``params: list[Text]`` announces the schema of ``Text``, and ``-> list[Vector]`` that of ``Vector``.
"""

from __future__ import annotations

import collections.abc
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from avtomatika_worker.errors import ContractViolationError, SkillDefinitionError
from avtomatika_worker.narrowing import as_any
from avtomatika_worker.skills.arrays import with_own_arrays
from avtomatika_worker.skills.batch_columns import form_of
from avtomatika_worker.skills.batch_forms import FORMS, BatchForms, Form, plain_form
from avtomatika_worker.skills.binding import Injectables, bound_names, unresolved
from avtomatika_worker.skills.reserved import INJECTED_NAMES
from avtomatika_worker.skills.type_hints import MISSING, UnsupportedTypeError, members_of, name_of, union_of

_NO_LISTS: Final[tuple[type, ...]] = (str, bytes, bytearray, Mapping, collections.abc.Set)


class WrongItemsError(ContractViolationError):
    """A call for a batch returned no list with an item for each task. Called again, it would do so again."""


@dataclass(frozen=True, slots=True)
class Batch:
    """How tasks of a skill are gathered into one call: ``@worker.skill(batch=Batch(max_size=32))``.

    At most ``max_size`` tasks are in a batch. One that is not full begins at once, unless waiting for the next task
    pays, as measured; nothing waits for longer than ``max_wait`` seconds while the skill is free.

    ``key`` returns what tasks of one batch must have in common, such as ``lambda params: params.model``; ``cost`` what
    a task weighs, such as its number of tokens, of which a batch holds at most ``max_cost``. A task that weighs more is
    alone in its batch. Both get the params of one task: an item of ``params``; an object with the fields of a model
    that holds lists, each one item; or a dict where the params' fields are arguments of their own.

    Raises `SkillDefinitionError`, at the decorator, for values that cannot be.
    """

    max_size: int = 16
    max_wait: float = 0.02
    key: Callable[[Any], Any] | None = None
    cost: Callable[[Any], float] | None = None
    max_cost: float | None = None

    @property
    def slots(self) -> int:
        """How many tasks the worker holds at a time: those of the batch that runs, and those of the next."""
        return 2 * self.max_size

    def without_functions(self) -> Batch:
        """Return it as it goes to another process, where tasks come in batches."""
        return replace(self, key=None, cost=None, max_cost=None)


def check_batch(skill: str, batch: Batch, max_concurrent: int | None, *, prefetch: int = 0) -> None:
    """Raise `SkillDefinitionError` for a batch that cannot be."""
    if problem := _problem_of(batch):
        raise SkillDefinitionError(skill, problem)
    if prefetch:
        text = "a batched skill has the tasks of its next batch here, and their files, as it is: leave prefetch out"
        raise SkillDefinitionError(skill, text)
    if max_concurrent is not None and max_concurrent < batch.max_size:
        text = f"max_concurrent={max_concurrent} would never let its batch of max_size={batch.max_size} be full"
        raise SkillDefinitionError(skill, text)


def _problem_of(batch: Batch) -> str | None:
    if not isinstance(as_any(batch), Batch):
        return f"batch must be a Batch, such as Batch(max_size=16), not {batch!r:.80}"
    if not is_count(batch.max_size):
        return f"the max_size of its batch must be a positive integer, not {batch.max_size!r}"
    if not _is_number(batch.max_wait) or batch.max_wait < 0:
        return f"the max_wait of its batch must be a number of seconds, not {batch.max_wait!r}"
    for name in ("key", "cost"):
        if (func := getattr(batch, name)) is not None and not callable(func):
            return f"the {name} of its batch must be a function of a task's params, not {func!r:.80}"
    if batch.max_cost is not None and (not _is_number(batch.max_cost) or batch.max_cost <= 0):
        return f"the max_cost of its batch must be a positive number, not {batch.max_cost!r}"
    if (batch.cost is None) != (batch.max_cost is None):
        return "cost and max_cost of its batch belong together: give both, or neither"
    return None


def forms_of(skill: str, func: Callable[..., Any], hints: Mapping[str, Any], injectables: Injectables) -> BatchForms:
    """Return the forms of the function's arguments but for those that are the same for all tasks.

    Raises `SkillDefinitionError` for an argument that has none.
    """
    found: dict[str, Form] = {}
    bound = bound_names(func)
    for name, parameter in inspect.signature(func).parameters.items():
        hint = hints.get(name, MISSING)
        if name not in bound and not injectables.is_shared(hint):
            found[name] = _form_of(skill, parameter, hint, injectables)
    if not found:
        text = "a batched skill needs an argument with an item for each task, such as params: list[Params]"
        raise SkillDefinitionError(skill, text)
    return BatchForms(found)


def hints_of_one(skill: str, hints: Mapping[str, Any], forms: BatchForms) -> dict[str, Any]:
    """Return the type hints that the function would have if it were called for one task.

    Raises `SkillDefinitionError` for a result that has no item for each task.
    """
    found = {**hints, **{name: form.one for name, form in forms.by_name.items()}}
    if "return" in hints:
        found["return"] = _result_of_one(skill, hints["return"])
    return found


def _form_of(skill: str, parameter: inspect.Parameter, hint: Any, injectables: Injectables) -> Form:
    name = parameter.name
    if parameter.kind in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL, parameter.POSITIONAL_ONLY}:
        raise SkillDefinitionError(skill, f"a batched skill cannot have the argument {parameter}: name its arguments")
    if parameter.default is not parameter.empty:
        where = (
            "give it in a model instead, as in params: list[Model]" if name not in INJECTED_NAMES else "leave it out"
        )
        text = f"the argument {name!r} of a batched skill is a list, for which there is no default: {where}"
        raise SkillDefinitionError(skill, text)
    injected = (name in INJECTED_NAMES and name != "params") or injectables.is_of_task(hint)
    try:
        return form_of(hint, only_lists=injected)
    except NameError as error:
        raise unresolved(skill, error) from None
    except UnsupportedTypeError as error:
        reason = f" ({error})" if str(error) else ""
        shown = "no type hint" if hint is MISSING else f"the type hint {name_of(hint)}{reason}"
        text = f"the argument {name!r} of a batched skill gets a list with an item for each task, and has {shown}"
        raise SkillDefinitionError(skill, f"{text}: write {'list[…]' if injected else FORMS}") from error


def _result_of_one(skill: str, hint: Any) -> Any:
    try:
        form = None if hint is Any else plain_form(hint)
    except UnsupportedTypeError as error:
        raise SkillDefinitionError(skill, f"its result: {error}") from error
    if form is None and hint is not Any:
        text = f"a batched skill returns a list with an item for each task, not {name_of(hint)}: write -> list[…]"
        raise SkillDefinitionError(skill, f"{text}, or a NumPy array")
    item: Any = Any if form is None else form.one
    members: tuple[Any, ...] = tuple(
        each for each in members_of(item) if not (isinstance(each, type) and issubclass(as_any(each), BaseException))
    )
    return union_of(members) if members else Any


def items_of(skill: str, value: object, count: int) -> list[Any]:
    """Return what a call returned, an item a task. Raises `WrongItemsError` where that is not so.

    The function may use its arrays for the next batch: before these items are sent, that may run.
    """
    given = as_any(value)
    items = _listed(given) if hasattr(given, "__len__") and not _holds_others(given) else None
    if items is None:
        text = f"the batched skill {skill} returned {type(value).__name__}, not a list with an item for each task"
        raise WrongItemsError(text, {"batch": count})
    if len(items) != count:
        text = f"the batched skill {skill} returned {len(items)} items for a batch of {count} tasks"
        raise WrongItemsError(text, {"batch": count, "items": len(items)})
    return [with_own_arrays(each) for each in items]


def _holds_others(given: object) -> bool:
    """Whether a collection gives something else than items in an order: texts, keys, or the columns of a table."""
    return isinstance(given, _NO_LISTS) or hasattr(type(given), "columns")


def _listed(given: Any) -> list[Any] | None:
    """Return a collection as a list; None for an array or a tensor without axes, which only looks like one."""
    try:
        return list(given)
    except TypeError:
        return None


def is_count(value: object, *, least: int = 1) -> bool:
    """Whether a value is an integer of at least ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
