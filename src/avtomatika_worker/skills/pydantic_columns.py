"""Pydantic models that hold a batch, see `batch_columns`. Imported only if there is one."""

from __future__ import annotations

import dataclasses
from copy import copy
from typing import Any

import pydantic
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.dataclasses import rebuild_dataclass
from pydantic.fields import FieldInfo

from avtomatika_worker.skills.arrays import for_pydantic_with_arrays
from avtomatika_worker.skills.batch_columns import column
from avtomatika_worker.skills.batch_forms import Columns, Form
from avtomatika_worker.skills.type_hints import UnsupportedTypeError
from avtomatika_worker.skills.validation import InvalidValue, Problem, json_path, shorten

_KEPT = ("alias", "validation_alias", "title", "description", "examples", "json_schema_extra")


def columns(cls: Any) -> Columns:
    """Return the form of a pydantic model or dataclass. Raises `UnsupportedTypeError`, NameError."""
    if getattr(cls, "__pydantic_root_model__", False):
        raise UnsupportedTypeError("")
    if not getattr(cls, "__pydantic_complete__", True):  # it refers to classes that came after it
        cls.model_rebuild() if hasattr(cls, "model_rebuild") else rebuild_dataclass(cls)
    found: dict[str, FieldInfo] = getattr(cls, "__pydantic_fields__", None) or cls.model_fields
    taken = {name: each for name, each in found.items() if each.init is not False}
    if not taken:
        raise UnsupportedTypeError("")
    stored = {each.name for each in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else found.keys()
    for name in found.keys() - stored:
        raise UnsupportedTypeError(f"its field {name!r} is an InitVar")
    written = {name: _written(name, each) for name, each in taken.items()}
    forms = {name: column(written[name], each.annotation, required=each.is_required()) for name, each in taken.items()}
    merged = _model_for_many(cls, taken)

    def make(**values: Any) -> Any:
        try:
            made = merged(**{written[name]: each for name, each in values.items()})
        except pydantic.ValidationError as error:
            # What comes behind the field's name is a place in the batch.
            found = [Problem(json_path(each["loc"][:1]), shorten(each["msg"])) for each in error.errors()]
            raise InvalidValue(found) from error
        object.__setattr__(made, "__class__", cls)  # it has the same fields; others compare classes
        return made

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
        kept = {key: value for key in _KEPT if (value := getattr(known, key)) is not None}
        definitions[name] = (for_pydantic_with_arrays(forms[name].one), pydantic.Field(**kept))
    config = getattr(cls, "model_config", None) or getattr(cls, "__pydantic_config__", None)
    make: Any = pydantic.create_model
    return make(cls.__name__, __config__=config or None, __doc__=cls.__doc__, __module__=cls.__module__, **definitions)


def _model_for_many(cls: Any, fields: dict[str, FieldInfo]) -> Any:
    """Return the class with the same validators that takes items as they are: each was converted for its own task.

    Converting is not always harmless the second time: a ``Base64Str`` would be decoded twice.
    """
    definitions = {name: (Any, copy(known)) for name, known in fields.items()}
    if hasattr(cls, "model_fields"):
        make: Any = pydantic.create_model
        return make(cls.__name__, __base__=cls, __doc__=cls.__doc__, __module__=cls.__module__, **definitions)
    namespace: dict[str, Any] = {name: known for name, (_, known) in definitions.items()}
    namespace |= {"__annotations__": dict.fromkeys(definitions, Any), "__module__": cls.__module__}
    namespace |= {"__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    frozen, slots = cls.__dataclass_params__.frozen, "__slots__" in vars(cls)
    wrap: Any = pydantic_dataclass(frozen=frozen, slots=slots, config=cls.__pydantic_config__)
    return wrap(type(cls.__name__, (cls,), namespace))
