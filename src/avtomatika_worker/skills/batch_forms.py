"""The forms in which a batched function takes the values of its tasks: lists, models of lists, and NumPy arrays."""

from __future__ import annotations

import collections.abc
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Protocol, get_args, get_origin

from avtomatika_worker._boundaries import caught
from avtomatika_worker.errors import TaskError
from avtomatika_worker.narrowing import as_any, copy_of_json
from avtomatika_worker.skills.arrays import is_array, without_first_axis
from avtomatika_worker.skills.type_hints import MISSING, UnsupportedTypeError, is_constraint, stands_for
from avtomatika_worker.skills.validation import InvalidValue, Problem, said

FORMS: Final = "list[…], a model whose fields are all lists, or a NumPy array"
"""What may be written, for messages."""

_LISTS: Final = frozenset({list, collections.abc.Sequence})


class Form(Protocol):
    """How the values of several tasks become one."""

    @property
    def one(self) -> Any:
        """The type hint of one task's value."""
        ...

    def key(self, value: Any) -> Hashable:
        """Return what the values of a batch must have in common."""
        ...

    def gathered(self, values: Sequence[Any]) -> Any:
        """Return the values of several tasks as the function takes them."""
        ...


@dataclass(frozen=True, slots=True)
class Items:
    """A list with an item for each task."""

    one: Any

    def key(self, value: Any) -> Hashable:  # noqa: ARG002 - as the others have it
        """Return nothing: any values may be in one list."""
        return None

    def gathered(self, values: Sequence[Any]) -> list[Any]:
        """Return the list."""
        return list(values)


@dataclass(frozen=True, slots=True)
class Stacked:
    """A NumPy array whose first axis is the batch."""

    one: Any

    def key(self, value: Any) -> Hashable:
        """Return the shape: only arrays of one shape can be stacked."""
        shape: tuple[int, ...] = value.shape
        return shape

    def gathered(self, values: Sequence[Any]) -> Any:
        """Return the arrays stacked."""
        return as_any(sys.modules["numpy"]).stack(values)


@dataclass(frozen=True, slots=True)
class Columns:
    """A model each field of which holds the values of all tasks."""

    one: Any
    columns: Mapping[str, Form]
    """By the names that the constructor and the attributes have."""
    make: Callable[..., Any]
    get: Callable[[Any, str], Any]

    def key(self, value: Any) -> Hashable:
        """Return what the fields must have in common."""
        return tuple(form.key(self.get(value, name)) for name, form in self.columns.items())

    def gathered(self, values: Sequence[Any]) -> Any:
        """Return the model. Raises what its constructor does."""
        return self.make(
            **{name: form.gathered([self.get(each, name) for each in values]) for name, form in self.columns.items()}
        )


@dataclass(frozen=True, slots=True)
class BatchForms:
    """The forms of a function's arguments by name. Those that are not among them are the same for all tasks."""

    by_name: Mapping[str, Form] = field(default_factory=dict[str, Form])

    @property
    def _special(self) -> Mapping[str, Form]:
        """Of those, the ones whose values do not fit each other as they come."""
        return {name: form for name, form in self.by_name.items() if not isinstance(form, Items)}

    def key(self, params: Any) -> Hashable:
        """Return what converted params of one batch must have in common: the shapes of arrays."""
        return tuple(form.key(_value(params, name)) for name, form in self._special.items())

    def checked(self, convert: Callable[[object], Any]) -> Callable[[object], Any]:
        """Return ``convert`` that also refuses what the models refuse in a batch of one. Raises `InvalidValue`.

        It converts twice: a constructor may change the items that it is given.
        """
        special = self._special
        if not special:
            return convert

        def check_and_convert(params: object) -> Any:
            converted = convert(copy_of_json(params))
            for name, form in special.items():
                _check(form, _value(converted, name), "$" if name == "params" else f"$.{name}")
            return convert(params)

        return check_and_convert

    def merged(self, arguments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the arguments of a call for several tasks, from those of each. Raises what a constructor does."""
        return {
            name: self.by_name[name].gathered([each[name] for each in arguments]) if name in self.by_name else value
            for name, value in arguments[0].items()
        }


def _value(params: Any, name: str) -> Any:
    return params if name == "params" else params[name]


def _check(form: Form, value: Any, path: str) -> None:
    with caught(Exception) as failed:  # a user's constructor may raise anything
        form.gathered([value])
    match failed.error:
        case None:
            return
        case TaskError():  # the user decides how the task ends
            raise failed.error
        case InvalidValue(problems=problems):
            found = [Problem(f"{path}{each.path[1:]}", each.problem) for each in problems]
        case error:
            found = [Problem(path, said(error))]
    raise InvalidValue(found) from failed.error


def plain_form(hint: Any) -> Items | Stacked | None:
    """Return the form of a list's or an array's hint; None for any other. Raises `UnsupportedTypeError`."""
    hint = meant(hint)
    if is_array(hint):
        return Stacked(without_first_axis(hint))
    if hint is list or hint is collections.abc.Sequence:
        return Items(dict[str, Any])
    items = get_args(hint)
    return Items(items[0]) if get_origin(hint) in _LISTS and len(items) == 1 else None


def refuse_constraints(hint: Any) -> None:
    """Raise `UnsupportedTypeError` for constraints of the list itself: nothing would check them."""
    if get_origin(hint) is Annotated and any(map(is_constraint, hint.__metadata__)):
        raise UnsupportedTypeError("its constraint is one of the items: write list[Annotated[…]]")


def meant(hint: Any) -> Any:
    """Return the type behind an ``Annotated``, a NewType or a ``type`` statement."""
    if get_origin(hint) is Annotated:
        return meant(get_args(hint)[0])
    below = () if hint is MISSING else stands_for(hint)
    return meant(below[0]) if below else hint
