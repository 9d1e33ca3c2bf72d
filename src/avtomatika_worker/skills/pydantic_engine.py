"""What pydantic makes of types: it describes them, reads their JSON, and writes their values.

Imported only where a type needs it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Final

import pydantic
import pydantic.json_schema
import pydantic_core

from avtomatika_worker.errors import TaskError, UnsendableValueError
from avtomatika_worker.narrowing import is_dict, is_list, is_tuple
from avtomatika_worker.skills.contract import JsonSchema
from avtomatika_worker.skills.jsonable import to_plain
from avtomatika_worker.skills.type_hints import MISSING, for_pydantic
from avtomatika_worker.skills.validation import InvalidValue, Problem, json_path, said, shorten

_MOST: Final = 20
_LOOKED_AT: Final = 1_000
_SERIALIZERS: Final = frozenset({"function-plain", "function-wrap"})
_AS_JSON: Final[dict[str, Any]] = {"mode": "json", "by_alias": True, "warnings": False}
_MISSING_KINDS: Final = frozenset({"missing", "missing_argument", "missing_keyword_only_argument"})
_ROUNDS: Final = 20
"""How deep fields that may be null can stand in each other's place: each round finds those that the last uncovered."""


class PydanticType:
    """A type that pydantic knows. Raises `pydantic.errors.PydanticUserError` for what it does not."""

    def __init__(self, annotation: Any) -> None:
        self._adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(for_pydantic(annotation))

    def schema(self, *, output: bool) -> JsonSchema:
        """Return the JSON Schema of what is read, or of what is written."""
        return self._adapter.json_schema(mode="serialization" if output else "validation", schema_generator=_Schemas)

    def reader(self, nullable: frozenset[str]) -> Callable[[object], Any]:
        """Return what reads JSON. An absent field is null where its name is in ``nullable`` and its type admits it."""

        def read(value: object) -> Any:
            return _Reading(self._adapter, value, nullable).result()

        return read

    def write(self, value: object) -> Any:
        """Return ``value`` as JSON. Raises `UnsendableValueError`."""
        return written(self._adapter.serializer, value)


class _Schemas(pydantic.json_schema.GenerateJsonSchema):
    """Says no more than what is true of what pydantic reads and writes."""

    def ser_schema(self, schema: Any) -> Any:
        """Allow anything where a serializer does not say what it returns: pydantic takes the field's own type."""
        found = super().ser_schema(schema)
        return {} if found is None and schema["type"] in _SERIALIZERS and self.mode == "serialization" else found

    def field_is_present(self, field: Any) -> bool:
        """Leave out of params what a dataclass does not take (``init=False``)."""
        return super().field_is_present(field) and (self.mode == "serialization" or field.get("init", True))


class _Reading:
    """One value that is read."""

    def __init__(self, adapter: pydantic.TypeAdapter[Any], value: object, nullable: frozenset[str]) -> None:
        self._adapter = adapter
        self._value = value
        self._nullable = nullable
        self._filled: set[str] = set()

    def result(self) -> Any:
        """Return the object. Raises `InvalidValue`, `TaskError`."""
        found: Sequence[Any] = ()
        for _ in range(_ROUNDS):
            try:
                return self._adapter.validate_json(pydantic_core.to_json(self._value, inf_nan_mode="constants"))
            except pydantic.ValidationError as error:
                found = error.errors(include_url=False, include_context=False, include_input=False)
            except TaskError:  # the user's own word on how the task ends
                raise
            except Exception as error:  # the user's validators may raise anything
                raise InvalidValue([Problem("$", said(error))]) from error
            if not self._take_back(found) and not self._fill(found):
                break
        problems = {self._problem(each): None for each in found if not self._is_own(each)}
        raise InvalidValue(list(problems)[:_MOST])

    def _fill(self, found: Sequence[Any]) -> bool:
        """Put a null where a field that may be null is missing; return whether there was one."""
        before = len(self._filled)
        for each in found:
            name = each["loc"][-1] if each["loc"] else None
            if each["type"] not in _MISSING_KINDS or name not in self._nullable:
                continue
            path = self._path(each["loc"])
            if (text := json_path([*path, name])) not in self._filled:
                self._filled.add(text)
                self._value = _with(self._value, path, {name: None})
        return len(self._filled) > before

    def _take_back(self, found: Sequence[Any]) -> bool:
        """Take nulls out that one member of a union needs and another, which all else fits, forbids."""
        for location in {each["loc"][:-1] for each in found if self._is_own(each)}:
            own = [each for each in found if each["loc"][: len(location)] == location]
            if all(map(self._is_own, own)):
                self._value = _with(
                    self._value, self._path(location), dict.fromkeys((e["loc"][-1] for e in own), MISSING)
                )
                return True
        return False

    def _is_own(self, each: Any) -> bool:
        """Whether it complains of a null that was put there."""
        return each["type"] == "extra_forbidden" and json_path(self._path(each["loc"])) in self._filled

    def _problem(self, each: Any) -> Problem:
        path = self._path(each["loc"])
        if each["type"] in _MISSING_KINDS:
            path.append(each["loc"][-1])
        text = json_path(path)
        return Problem(text, "is required" if text in self._filled else shorten(each["msg"]))

    def _path(self, location: Sequence[int | str]) -> list[int | str]:
        """Leave out of a location what is no part of the data: the names of unions' members and of functions."""
        value, path = self._value, list[int | str]()
        for part in location:
            item = _item(value, part)
            if item is not MISSING:
                value = item
                path.append(part)
        return path


def _item(value: Any, part: int | str) -> Any:
    if isinstance(value, str):
        return MISSING
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return MISSING


def _with(value: Any, path: Sequence[int | str], fields: dict[str, Any]) -> Any:
    """Return a copy of ``value`` in which the object at ``path`` has other fields; `MISSING` takes one out."""
    if path:
        copied = copy.copy(value)
        copied[path[0]] = _with(value[path[0]], path[1:], fields)
        return copied
    if not is_dict(value):  # a NamedTuple's array: what is missing there is missing
        return value
    return {name: each for name, each in {**value, **fields}.items() if each is not MISSING}


# ------------------------------------------------------------------------------------------------------ writing


def written(serializer: Any, value: object) -> Any:
    """Return ``value`` as its serializer writes it. Raises `UnsendableValueError`, with the path of what it cannot."""
    try:
        return serializer.to_python(value, fallback=to_plain, **_AS_JSON)
    except Exception as error:  # the user's serializers and properties may raise anything
        path = _culprit(serializer, value)
        problem = error.problem if isinstance(error, UnsendableValueError) else f"it cannot be written: {said(error)}"
        raise UnsendableValueError(json_path(path), problem) from error


def _culprit(serializer: Any, value: object) -> list[Any]:
    """Return the way to the part of ``value`` that cannot be written."""
    path: list[Any] = []
    parts = _parts(value)
    while parts and not _fails(serializer, value, path, include=frozenset()):  # else it is not the parts' fault
        part = next((each for each in parts if _fails(serializer, value, [*path, each])), None)
        if part is None:
            break
        path.append(part)
        parts = _parts(parts[part])
    return path


def _fails(serializer: Any, value: object, path: Sequence[Any], include: Any = True) -> bool:
    for part in reversed(path):
        include = {part: include}
    try:
        serializer.to_python(value, include=include, fallback=to_plain, **_AS_JSON)
    except Exception:  # noqa: BLE001 - the user's serializers and properties may raise anything
        return True
    return False


def _parts(value: object) -> dict[Any, object]:
    """Return what ``value`` consists of; nothing where it is too much to look at each."""
    kind: Any = type(value)
    parts: dict[Any, object] = {}
    if is_dict(value):
        parts.update(value)
    elif is_list(value) or is_tuple(value):
        parts.update(enumerate(value))
    else:
        fields = getattr(kind, "__pydantic_fields__", None) or getattr(kind, "__dataclass_fields__", {})
        names = [*fields, *getattr(kind, "__pydantic_computed_fields__", {})]
        parts.update({name: vars(value).get(name) if hasattr(value, "__dict__") else None for name in names})
    return parts if len(parts) <= _LOOKED_AT else {}
