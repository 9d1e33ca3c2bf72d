"""Arguments filled by name: the value of each, and the type hints that agree with it."""

from __future__ import annotations

import inspect
import typing
from types import NoneType
from typing import Annotated, Any, Final, Literal, get_args, get_origin

import msgspec

from avtomatika_worker.narrowing import is_list
from avtomatika_worker.skills.type_hints import MISSING, members_of, name_of


class _Filling(msgspec.Struct, frozen=True):
    """An argument's value: in words, and as examples of every type that a hint may name."""

    what: str
    samples: tuple[object, ...]


def _function() -> None:
    """Stand in for the functions that arguments get."""


_TEXT: Final = ("",)
_NUMBER: Final = (0.0, 0)
_OBJECT: Final[tuple[object, ...]] = ({},)
_FUNCTION: Final = (_function,)

_FILLINGS: Final = {
    "task_id": _Filling("the task's id, a str", _TEXT),
    "job_id": _Filling("the job's id, a str", _TEXT),
    "priority": _Filling("the task's priority, a float", _NUMBER),
    "deadline": _Filling("the task's deadline, a float (Unix seconds) or None", (*_NUMBER, None)),
    "metadata": _Filling("the task's metadata, a dict", _OBJECT),
    "security": _Filling("the task's security, a dict", _OBJECT),
    "tracing_context": _Filling("the task's tracing context, a dict", _OBJECT),
    **dict.fromkeys(("send_progress", "send_event"), _Filling("a function that sends it", _FUNCTION)),
    **dict.fromkeys(
        ("add_to_hot_cache", "remove_from_hot_cache", "add_to_hot_skills", "remove_from_hot_skills"),
        _Filling("a function that changes the hot cache", _FUNCTION),
    ),
}

INJECTED_NAMES: Final = ("params", *_FILLINGS)
"""The names of arguments filled by name; ``**kwargs`` receives them all."""


def contradiction(name: str, annotation: Any, default: object) -> str | None:
    """Return why an argument called ``name`` cannot have this type hint; without one, its default is used."""
    filling = _FILLINGS.get(name)
    if filling is None:
        return None
    if annotation is MISSING:
        absent = default is inspect.Parameter.empty or default is None
        if absent or _agrees(type(default), filling.samples) or (callable(default) and filling.samples is _FUNCTION):
            return None
        says = f"its default {default!r:.80}"
    elif _agrees(annotation, filling.samples):
        return None
    else:
        says = f"its type hint {name_of(annotation)}"
    return (
        f"the argument {name!r} is filled with {filling.what}, which {says} contradicts: "
        f"give the argument another name, or take a param of that name from `params` (params[{name!r}], or a model)"
    )


def _agrees(annotation: Any, samples: tuple[object, ...]) -> bool:
    """Whether an argument's value may be of this type, with no further constraints."""
    return any(_takes(member, samples) for member in members_of(annotation) if member is not NoneType)


def _takes(annotation: Any, samples: tuple[object, ...]) -> bool:
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return not any(map(_asks_more, more)) and _agrees(inner, samples)
    for stands_for in ("__supertype__", "__value__"):  # a NewType, a `type` statement
        if not isinstance(annotation, type) and hasattr(annotation, stands_for):
            return _agrees(getattr(annotation, stands_for), samples)
    kind = get_origin(annotation) or annotation
    if kind is Literal or typing.is_typeddict(kind):
        return False
    if kind is Any or not isinstance(kind, type):
        return True  # undecidable
    return _is_one(kind, samples)


def _is_one(kind: type, samples: tuple[object, ...]) -> bool:
    if getattr(kind, "_is_protocol", False) and callable(samples[0]):
        return any("__call__" in vars(base) for base in kind.__mro__)
    try:
        return any(isinstance(sample, kind) for sample in samples)
    except TypeError:  # a Protocol that is not checkable at run time
        return False


def _asks_more(part: object) -> bool:
    """Whether a part of an ``Annotated`` constrains the value: nothing checks that here."""
    if isinstance(part, msgspec.Meta):
        return any(getattr(part, name) is not None for name in _CONSTRAINTS)
    constraints = getattr(part, "metadata", None)  # those of pydantic's Field
    if is_list(constraints):
        return bool(constraints)
    return type(part).__module__.partition(".")[0] in {"annotated_types", "pydantic", "pydantic_core"}


_CONSTRAINTS: Final = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length")
