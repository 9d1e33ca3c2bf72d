"""JSON Schemas at work: compiled once, and their complaints as paths and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import jsonschema_rs

from avtomatika_worker.skills.contract import JsonSchema

_MOST: Final = 20
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a value, and where: ``path`` is a JSON path such as ``$.sizes[2].width``."""

    path: str
    problem: str

    def text(self, root: str) -> str:
        """Write it for people, with ``root`` in place of the ``$``."""
        return f"{root}{self.path[1:]}: {self.problem}"


class InvalidValue(ValueError):  # noqa: N818 - the base of InvalidInputError and ContractViolationError, not shown to users
    """A value that does not fit; ``problems`` says where and why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.text("$") for problem in problems))


class Schema:
    """A compiled JSON Schema (Draft 2020-12 unless it says otherwise)."""

    __slots__ = ("_validator", "json")

    def __init__(self, json: JsonSchema) -> None:
        """Compile. Raises ValueError for what is no JSON Schema."""
        self.json = json
        self._validator = jsonschema_rs.validator_for(json)

    def problems(self, value: object) -> tuple[Problem, ...]:
        """Return what is wrong with ``value``, at most 20 complaints."""
        if self._validator.is_valid(value):
            return ()
        return tuple(
            Problem(json_path(error.instance_path), shorten(error.message))
            for error in islice(self._validator.iter_errors(value), _MOST)
        )

    def check(self, value: object) -> None:
        """Raise `InvalidValue` when ``value`` does not fit."""
        if problems := self.problems(value):
            raise InvalidValue(problems)


def json_path(parts: Sequence[Any]) -> str:
    """Write a JSON path."""
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)


def shorten(text: str) -> str:
    """Cut a text that repeats a user's huge value."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"


def describe(problems: Sequence[Problem], root: str) -> str:
    """Write all problems in one line."""
    return "; ".join(problem.text(root) for problem in problems)
