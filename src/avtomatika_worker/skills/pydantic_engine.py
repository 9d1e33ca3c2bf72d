"""Uses pydantic to describe types, read their JSON and write their values.

Imported only if a type needs it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Final

import pydantic
import pydantic.json_schema
import pydantic_core

from avtomatika_worker._boundaries import attempted
from avtomatika_worker.errors import TaskError, UnsendableValueError
from avtomatika_worker.narrowing import is_dict, is_list, is_tuple
from avtomatika_worker.skills.contract import JsonSchema
from avtomatika_worker.skills.core_schemas import ENCODED, with_base64, with_lists
from avtomatika_worker.skills.jsonable import to_plain
from avtomatika_worker.skills.type_hints import MISSING, for_pydantic
from avtomatika_worker.skills.validation import InvalidValue, Problem, json_path, said, shorten

_BASE64: Final = {"type": "string", "contentEncoding": "base64"}
_MOST: Final = 20
_LOOKED_AT: Final = 1_000
_SERIALIZERS: Final = frozenset({"function-plain", "function-wrap"})
_AS_JSON: Final[dict[str, Any]] = {"mode": "json", "by_alias": True, "warnings": False}
_MISSING_KINDS: Final = frozenset({"missing", "missing_argument", "missing_keyword_only_argument"})
_ROUNDS: Final = 20
"""How deeply nullable fields may be nested: each round finds those uncovered by the last."""


class PydanticType:
    """A type known to pydantic. Raises `pydantic.errors.PydanticUserError` for others."""

    def __init__(self, annotation: Any) -> None:
        adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(for_pydantic(annotation))
        self._core: Any = with_base64(adapter.core_schema)
        own, read = adapter.core_schema, with_lists(self._core)
        self._validator: Any = adapter.validator if read is own else pydantic_core.SchemaValidator(read)
        self._serializer: Any = adapter.serializer if self._core is own else pydantic_core.SchemaSerializer(self._core)
        self.reads_more: bool = _reads_more(annotation)
        """Whether fields that its schema does not list may be read."""

    def schema(self, *, output: bool) -> JsonSchema:
        """Return the JSON Schema for reading or for writing."""
        return _Schemas().generate(self._core, mode="serialization" if output else "validation")

    def reader(self, nullable: frozenset[str]) -> Callable[[object], Any]:
        """Return the JSON reader. An absent field is null if its name is in ``nullable`` and its type allows null."""

        def read(value: object) -> Any:
            return _Reading(self._validator, value, nullable).result()

        return read

    def write(self, value: object) -> Any:
        """Return ``value`` as JSON. Raises `UnsendableValueError`."""
        return written(self._serializer, value)


def _reads_more(annotation: Any) -> bool:
    """Whether a type may read other fields than those of its schema: only plain models are known not to."""
    if not (isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)):
        return True
    if any(annotation.model_config.get(each) for each in ("populate_by_name", "validate_by_name")):
        return True
    validators = annotation.__pydantic_decorators__.model_validators.values()
    aliases = (each.validation_alias for each in annotation.model_fields.values())
    return any(each.info.mode != "after" for each in validators) or not all(
        isinstance(each, str | None) for each in aliases
    )


class _Schemas(pydantic.json_schema.GenerateJsonSchema):
    """Claims only what is true of pydantic's reading and writing."""

    def ser_schema(self, schema: Any) -> Any:
        """Allow anything if a serializer does not declare its return type: pydantic would use the field's type."""
        found = super().ser_schema(schema)
        return {} if found is None and schema["type"] in _SERIALIZERS and self.mode == "serialization" else found

    def bytes_schema(self, schema: Any) -> Any:
        """Announce base64 where it is."""
        return dict(_BASE64) if schema.get("metadata") == ENCODED else super().bytes_schema(schema)

    def str_schema(self, schema: Any) -> Any:
        """Announce base64 where it is."""
        return dict(_BASE64) if schema.get("metadata") == ENCODED else super().str_schema(schema)

    def default_schema(self, schema: Any) -> Any:
        """Leave out a default with bytes in it, which would be announced as a text."""
        if schema.get("metadata") == ENCODED:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def field_is_present(self, field: Any) -> bool:
        """Omit from params the fields that a dataclass does not accept (``init=False``)."""
        return super().field_is_present(field) and (self.mode == "serialization" or field.get("init", True))


class _Reading:
    """Reads one value."""

    def __init__(self, validator: Any, value: object, nullable: frozenset[str]) -> None:
        self._validator = validator
        self._value = value
        self._nullable = nullable
        self._filled: set[str] = set()

    def result(self) -> Any:
        """Return the object. Raises `InvalidValue`, `TaskError`."""
        found: Sequence[Any] = ()
        for _ in range(_ROUNDS):
            try:
                return self._validator.validate_json(pydantic_core.to_json(self._value, inf_nan_mode="constants"))
            except pydantic.ValidationError as error:
                found = error.errors(include_url=False, include_context=False, include_input=False)
            except TaskError:  # the user decides how the task ends
                raise
            except Exception as error:  # a user's validators may raise anything
                raise InvalidValue([Problem("$", said(error))]) from error
            if not self._take_back(found) and not self._fill(found):
                break
        problems = {self._problem(each): None for each in found if not self._is_own(each)}
        raise InvalidValue(list(problems)[:_MOST])

    def _fill(self, found: Sequence[Any]) -> bool:
        """Insert null for missing nullable fields; return whether there were any."""
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
        """Remove nulls that one member of a union needs but another, which otherwise matches, forbids."""
        for location in {each["loc"][:-1] for each in found if self._is_own(each)}:
            own = [each for each in found if each["loc"][: len(location)] == location]
            if all(map(self._is_own, own)):
                self._value = _with(
                    self._value, self._path(location), dict.fromkeys((e["loc"][-1] for e in own), MISSING)
                )
                return True
        return False

    def _is_own(self, each: Any) -> bool:
        """Whether the error is about an inserted null."""
        return each["type"] == "extra_forbidden" and json_path(self._path(each["loc"])) in self._filled

    def _problem(self, each: Any) -> Problem:
        path = self._path(each["loc"])
        if each["type"] in _MISSING_KINDS:
            path.append(each["loc"][-1])
        text = json_path(path)
        return Problem(text, "is required" if text in self._filled else shorten(each["msg"]))

    def _path(self, location: Sequence[int | str]) -> list[int | str]:
        """Remove the parts of a location that are not data: names of union members and functions."""
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
    """Return a copy of ``value`` with other fields in the object at ``path``; `MISSING` removes one."""
    if path:
        copied = copy.copy(value)
        copied[path[0]] = _with(value[path[0]], path[1:], fields)
        return copied
    if not is_dict(value):  # a NamedTuple's array: missing items stay missing
        return value
    return {name: each for name, each in {**value, **fields}.items() if each is not MISSING}


# ------------------------------------------------------------------------------------------------------ writing


def written(serializer: Any, value: object) -> Any:
    """Return ``value`` as its serializer writes it. Raises `UnsendableValueError` with the path of the problem."""
    try:
        return serializer.to_python(value, fallback=to_plain, **_AS_JSON)
    except Exception as error:  # a user's serializers and properties may raise anything
        path = _culprit(serializer, value)
        problem = error.problem if isinstance(error, UnsendableValueError) else f"it cannot be written: {said(error)}"
        raise UnsendableValueError(json_path(path), problem) from error


def _culprit(serializer: Any, value: object) -> list[Any]:
    """Return the path to the part of ``value`` that cannot be written."""
    path: list[Any] = []
    parts = _parts(value)
    while parts and not _fails(serializer, value, path, include=frozenset()):  # otherwise no part is at fault
        part = next((each for each in parts if _fails(serializer, value, [*path, each])), None)
        if part is None:
            break
        path.append(part)
        parts = _parts(parts[part])
    return path


def _fails(serializer: Any, value: object, path: Sequence[Any], include: Any = True) -> bool:
    for part in reversed(path):
        include = {part: include}

    def write() -> bool:
        serializer.to_python(value, include=include, fallback=to_plain, **_AS_JSON)
        return False

    return attempted(write, lambda _: True)  # the user's serializers and properties may raise anything


def _parts(value: object) -> dict[Any, object]:
    """Return the parts of ``value``, or nothing if there are too many to check each."""
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
