"""Pydantic models that hold a batch, see `batch_columns`. Imported only if there is one."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
import pydantic_core
from pydantic.fields import FieldInfo

from avtomatika_worker.skills.arrays import ArrayType, array_type, is_array
from avtomatika_worker.skills.batch_columns import column
from avtomatika_worker.skills.batch_forms import Columns, Form
from avtomatika_worker.skills.contract import JsonSchema
from avtomatika_worker.skills.type_hints import UnsupportedTypeError
from avtomatika_worker.skills.validation import InvalidValue, Problem, json_path, shorten

_KEPT = ("alias", "validation_alias", "title", "description", "examples", "json_schema_extra")


class _Array:
    """Reads an array, which pydantic does not know."""

    def __init__(self, known: ArrayType) -> None:
        self._known = known

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return pydantic_core.core_schema.no_info_plain_validator_function(self._known.read)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> JsonSchema:
        return self._known.schema


def columns(cls: Any) -> Columns:
    """Return the form of a pydantic model or dataclass. Raises `UnsupportedTypeError`."""
    if getattr(cls, "__pydantic_root_model__", False):
        raise UnsupportedTypeError("")
    found: dict[str, FieldInfo] = getattr(cls, "__pydantic_fields__", None) or cls.model_fields
    taken = {name: each for name, each in found.items() if each.init is not False}
    if not taken:
        raise UnsupportedTypeError("")
    written = {name: _written(name, each) for name, each in taken.items()}
    forms = {name: column(written[name], each.annotation, required=each.is_required()) for name, each in taken.items()}

    def make(**values: Any) -> Any:
        try:
            return cls(**{written[name]: each for name, each in values.items()})
        except pydantic.ValidationError as error:
            # What comes behind the field's name is a place in the batch.
            found = [Problem(json_path(each["loc"][:1]), shorten(each["msg"])) for each in error.errors()]
            raise InvalidValue(found) from error

    return Columns(_model_for_one(cls, taken, forms), forms, make, getattr)


def _written(name: str, known: FieldInfo) -> str:
    alias = known.validation_alias
    if isinstance(alias, pydantic.AliasChoices):
        alias = next((each for each in alias.choices if isinstance(each, str)), alias)
    if alias is not None and not isinstance(alias, str):
        raise UnsupportedTypeError(f"its field {name!r} has an alias that is no name")
    return alias or name


def _model_for_one(cls: Any, fields: dict[str, FieldInfo], forms: dict[str, Form]) -> Any:
    definitions: dict[str, Any] = {}
    for name, known in fields.items():
        one = forms[name].one
        if is_array(one):
            one = Annotated[Any, _Array(array_type(one))]
        kept = {key: value for key in _KEPT if (value := getattr(known, key)) is not None}
        definitions[name] = (one, pydantic.Field(**kept))
    config = getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", None)
    make: Any = pydantic.create_model
    return make(cls.__name__, __config__=config or None, __doc__=cls.__doc__, __module__=cls.__module__, **definitions)
