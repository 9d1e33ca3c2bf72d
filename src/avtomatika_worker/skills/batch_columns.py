"""Models that hold a batch: each field is a list, or an array, with the values of all tasks.

Of such a class another is made, of the same kind, for one task: each field has the type of one item.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any, get_origin

import msgspec

from avtomatika_worker.skills.batch_forms import Columns, Form, Items, meant, plain_form, refuse_constraints
from avtomatika_worker.skills.records import Record, record_of
from avtomatika_worker.skills.type_hints import UnsupportedTypeError, name_of, typed_dict_for_pydantic


def form_of(hint: Any, *, only_lists: bool = False) -> Form:
    """Return the form of an argument's hint.

    ``only_lists``: it is injected, and so in a list. Raises `UnsupportedTypeError`, which may give a reason, and
    NameError.
    """
    refuse_constraints(hint)
    plain = plain_form(hint)
    if plain is None and not only_lists:
        return _columns(meant(hint))
    if plain is None or (only_lists and not isinstance(plain, Items)):
        raise UnsupportedTypeError("")
    return plain


def _columns(hint: Any) -> Columns:
    cls = get_origin(hint) or hint
    if hasattr(cls, "__pydantic_fields__") or hasattr(cls, "model_fields"):
        from avtomatika_worker.skills import pydantic_columns

        return pydantic_columns.columns(cls)
    record = record_of(hint)
    if record is None or not record.fields:
        raise UnsupportedTypeError("")
    for each in record.fields:
        refuse_constraints(each.type)
    columns = {each.name: column(each.written, each.type, required=each.required) for each in record.fields}
    get = operator.getitem if record.make is dict else getattr
    return Columns(_class_for_one(cls, record, columns), columns, record.make, get)


def column(name: str, hint: Any, *, required: bool) -> Form:
    """Return the form of a model's field. Raises `UnsupportedTypeError`."""
    form = plain_form(hint)
    if form is None:
        raise UnsupportedTypeError(f"its field {name!r} is no list but {name_of(hint)}")
    if not required:
        text = f"its field {name!r} has a default, and lists have none: let items be optional instead, list[… | None]"
        raise UnsupportedTypeError(text)
    return form


def _class_for_one(cls: Any, record: Record, columns: Mapping[str, Form]) -> Any:
    items = {each.name: (each.written, columns[each.name].one) for each in record.fields}
    made: Any
    if record.make is dict:
        made = typed_dict_for_pydantic(record.name, dict(items.values()))
    elif issubclass(cls, msgspec.Struct):
        fields = [(name, one, msgspec.field(name=written)) for name, (written, one) in items.items()]
        made = msgspec.defstruct(
            record.name, fields, kw_only=True, module=record.module, forbid_unknown_fields=record.closed
        )
    else:
        made = dataclasses.make_dataclass(record.name, [(name, one) for name, (_, one) in items.items()], kw_only=True)
        made.__module__ = record.module
    made.__doc__ = record.doc
    return made
