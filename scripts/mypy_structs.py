"""Let mypy refuse the functions of ``dataclasses`` for msgspec's structs, and fields of one kind in the other.

Structs look like dataclasses to type checkers (``typing.dataclass_transform``), so all of this passes them, and fails
when it runs: ``dataclasses.replace`` and ``fields`` raise a TypeError for a struct, ``is_dataclass`` says no, and
a field's description of the other module becomes the default value itself. ``[tool.mypy]`` of ``pyproject.toml``
names this plugin.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from mypy.checker import TypeChecker
from mypy.nodes import TypeInfo
from mypy.plugin import FunctionContext, Plugin
from mypy.types import CallableType, Instance, TupleType, Type, TypeType, TypeVarType, UnionType, get_proper_type

_OF_DATACLASSES: Final = ("replace", "fields", "asdict", "astuple", "is_dataclass")
"""Functions whose first argument is a dataclass, or an object of one."""


def is_struct(type_: Type) -> bool:
    """Return whether some value of a type is a struct, or a class of structs."""
    match get_proper_type(type_):
        case UnionType() as union:
            return any(map(is_struct, union.items))
        case TypeVarType() as variable:
            return any(map(is_struct, variable.values or [variable.upper_bound]))
        case TypeType() as class_:
            return is_struct(class_.item)
        case CallableType() as called:
            return called.is_type_obj() and is_struct(called.ret_type)
        case TupleType() as named:
            return is_struct(named.partial_fallback)
        case Instance() as instance:
            return _derives_from_struct(instance.type)
        case _:
            return False


def _derives_from_struct(class_: TypeInfo) -> bool:
    return class_.has_base("msgspec.Struct")


def _refuse_a_struct(name: str, context: FunctionContext) -> Type:
    if context.arg_types and any(map(is_struct, context.arg_types[0])):
        context.api.fail(f"dataclasses.{name} does not take structs of msgspec: see msgspec.structs", context.context)
    return context.default_return_type


def _refuse_in_the_other_kind(struct_field: bool, context: FunctionContext) -> Type:
    class_ = context.api.scope.active_class() if isinstance(context.api, TypeChecker) else None
    # To mypy, structs are dataclasses as well.
    if class_ is not None and "dataclass" in class_.metadata and _derives_from_struct(class_) is not struct_field:
        kind, module = ("dataclass", "dataclasses") if struct_field else ("struct", "msgspec")
        context.api.fail(f"a field of a {kind} is described by {module}.field", context.context)
    return context.default_return_type


class StructPlugin(Plugin):
    """Looks at the calls that mean one thing for dataclasses and another for structs."""

    def get_function_hook(self, fullname: str) -> Callable[[FunctionContext], Type] | None:
        """Return what looks at the calls of a function."""
        module, _, name = fullname.rpartition(".")
        package = module.partition(".")[0]
        if name == "field" and package in {"dataclasses", "msgspec"}:
            return partial(_refuse_in_the_other_kind, package == "msgspec")
        if module == "dataclasses" and name in _OF_DATACLASSES:
            return partial(_refuse_a_struct, name)
        return None


def plugin(_version: str) -> type[Plugin]:
    """Return the plugin: mypy calls this."""
    return StructPlugin
