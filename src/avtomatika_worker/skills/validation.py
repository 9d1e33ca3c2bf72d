"""Compiles JSON Schemas once, and reports their errors as paths and sentences.

The validator is loaded with the first schema: it takes 4 MiB, and a skill that accepts anything needs none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NoReturn

import msgspec

from avtomatika_worker.narrowing import is_dict, is_list
from avtomatika_worker.skills.contract import JsonSchema

if TYPE_CHECKING:
    import jsonschema_rs

_MOST: Final = 20
_LONGEST: Final = 200


class Problem(msgspec.Struct, frozen=True):
    """A problem with a value, and its location: ``path`` is a JSON path such as ``$.sizes[2].width``."""

    path: str
    problem: str

    def text(self, root: str) -> str:
        """Return the problem for people, with ``root`` instead of the ``$``."""
        return f"{root}{self.path[1:]}: {self.problem}"


class InvalidValue(ValueError):  # noqa: N818 - the base of InvalidInputError and ContractViolationError, not shown to users
    """An invalid value; ``problems`` says where and why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("; ".join(problem.text("$") for problem in problems))


class Schema:
    """A compiled JSON Schema (Draft 2020-12 unless it says otherwise)."""

    __slots__ = ("_validator", "json")

    def __init__(self, json: JsonSchema) -> None:
        """Compile a schema. Raises ValueError if it is not a JSON Schema, or refers outside itself."""
        import jsonschema_rs

        self.json: JsonSchema = json
        self._validator = jsonschema_rs.validator_for(json, retriever=_refuse)

    def problems(self, value: object) -> tuple[Problem, ...]:
        """Return what is wrong with ``value``: at most 20 problems."""
        try:
            if self._validator.is_valid(value):
                return ()
            found = (problem for error in self._validator.iter_errors(value) for problem in _problems_of(error))
            return tuple(islice(found, _MOST))
        except ValueError as error:  # nested too deeply, or invalid Unicode: the validator cannot read it
            return (Problem("$", f"cannot be checked: {shorten(str(error))}"),)

    def check(self, value: object) -> None:
        """Raise `InvalidValue` if ``value`` is invalid."""
        if problems := self.problems(value):
            raise InvalidValue(problems)


def _refuse(uri: str) -> NoReturn:
    """Keep the validator away from the network and from files: schemas are self-contained."""
    raise ValueError(f"{uri} is outside the schema")


def _problems_of(error: jsonschema_rs.ValidationError) -> Iterator[Problem]:
    """Report each problem in its own place: a missing field's path is the field's, not its parent's."""
    from jsonschema_rs import ValidationErrorKind as kinds  # noqa: N813 - only its members are used here

    kind, path = error.kind, list(error.instance_path)
    if isinstance(kind, kinds.Required):
        yield Problem(json_path([*path, kind.property]), "is required")
    elif isinstance(kind, kinds.Type):
        yield Problem(json_path(path), f"expected {' or '.join(kind.types)}, got {_json_type(error.instance)}")
    elif isinstance(kind, kinds.AdditionalProperties):
        yield from (Problem(json_path([*path, name]), "is not a known field") for name in kind.unexpected)
    else:
        yield Problem(json_path(path), shorten(error.message))


def _json_type(value: object) -> str:
    if value is None:
        return "null"
    names: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object"}
    return names.get(type(value), "array")


def json_path(parts: Sequence[Any]) -> str:
    """Write a JSON path."""
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{shorten(str(part))}" for part in parts)


def without_nulls(value: Any) -> Any:
    """Return ``value`` without the nulls in its objects: the wire has none."""
    if is_dict(value):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    if is_list(value):
        return [without_nulls(each) for each in value]
    return value


def shorten(text: str) -> str:
    """Shorten a text that repeats a user's huge value."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"


def describe(problems: Sequence[Problem], root: str) -> str:
    """Return all problems in one line."""
    return "; ".join(problem.text(root) for problem in problems)


def said(error: BaseException) -> str:
    """Return the text of a user's exception."""
    text = str(error)
    if isinstance(error, ValueError) and text:
        return shorten(text)
    return shorten(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def integral(value: Any) -> Any:
    """Return ``value`` with integers for numbers without a fraction: JSON Schema counts those as integers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if is_list(value):
        changed = [integral(each) for each in value]
        return changed if any(new is not old for new, old in zip(changed, value, strict=True)) else value
    if is_dict(value):
        replaced = {key: integral(each) for key, each in value.items()}
        return replaced if any(replaced[key] is not value[key] for key in value) else value
    return value
