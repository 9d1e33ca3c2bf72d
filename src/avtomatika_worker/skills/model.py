"""Models: loaded by name when a task asks for one, shared, and unloaded when others need the room."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from avtomatika_worker.errors import ResourceError, SkillDefinitionError
from avtomatika_worker.narrowing import is_dict
from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.skills.binding import BindingPlan, Injectables, invalid_input
from avtomatika_worker.skills.contract import JsonSchema
from avtomatika_worker.skills.engines import TypeContract
from avtomatika_worker.skills.model_options import ModelOptions
from avtomatika_worker.skills.resource import ResourceDefinition
from avtomatika_worker.skills.run_options import SkillOptions
from avtomatika_worker.skills.type_hints import MISSING, name_of
from avtomatika_worker.skills.validation import InvalidValue, Problem

_POSITIONAL: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_LONGEST_NAME: Final = 1000


@dataclass(frozen=True, slots=True)
class ModelDefinition:
    """A decorated loader. ``made`` is its function, as that of a resource."""

    made: ResourceDefinition
    options: ModelOptions

    @property
    def name(self) -> str:
        """The loader's name."""
        return self.made.name

    def compile(self) -> ModelLoader:
        """Read the annotations. Raises `ResourceError`."""
        facts = self.made.read()
        takes = [each for each in facts.parameters.values() if each.default is each.empty or each.kind in _POSITIONAL]
        required = [each for each in takes if each.default is each.empty]
        if not takes or takes[0].kind not in _POSITIONAL or required[1:]:
            raise ResourceError(self.name, "a loader of models takes one argument, the model's name: (name: str)")
        hint = facts.hints.get(takes[0].name, MISSING)
        if hint not in (MISSING, str):
            text = f"its argument {takes[0].name!r} is the model's name, a str, not a {name_of(hint)}"
            raise ResourceError(self.name, text)
        if facts.yields and self.options.unload is not None:
            raise ResourceError(self.name, "what follows its yield unloads the model: leave out unload=")
        return ModelLoader(self, facts.kind)


@dataclass(frozen=True, slots=True)
class ModelLoader:
    """A compiled loader. ``kind`` is the type by which skills request a model."""

    definition: ModelDefinition
    kind: Any

    @property
    def name(self) -> str:
        """Its function's name."""
        return self.definition.name

    @property
    def func(self) -> Callable[..., Any]:
        """The function itself."""
        return self.definition.made.func

    @property
    def options(self) -> ModelOptions:
        """What the decorator was given."""
        return self.definition.options


class ModelRegistry:
    """The loaders of a worker."""

    def __init__(self, injectables: Injectables) -> None:
        self._injectables = injectables
        self._loaders: dict[Any, ModelLoader] = {}

    def add(self, definition: ModelDefinition) -> None:
        """Register a loader, so that arguments of its models' type are filled. Raises `ResourceError`."""
        loader = definition.compile()
        for other in self._loaders.values():
            both = f"{other.definition.made.place} and {definition.made.place}"
            if other.definition == definition:
                return
            if other.kind == loader.kind:
                raise ResourceError(loader.name, f"{name_of(loader.kind)} is made twice, by {both}")
            if other.name == loader.name:
                raise ResourceError(loader.name, f"the name is taken twice, by {both}")
        if self._injectables.key_for(loader.kind) is not None:
            raise ResourceError(loader.name, f"{name_of(loader.kind)} is a resource, or provided by the worker itself")
        self._loaders[loader.kind] = loader
        self._injectables.register(loader.kind, lambda source: source.model(loader.kind), model=loader)

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types, in the order of registration."""
        return tuple(self._loaders)

    @property
    def loaders(self) -> tuple[ModelLoader, ...]:
        """All loaders, in the order of registration."""
        return tuple(self._loaders.values())


@dataclass(frozen=True, slots=True)
class ModelUse:
    """The model that a skill uses: which loader's, and the param that names it.

    ``default`` is the name where the param is absent; ``fixed`` the only one that a skill of one model runs with.
    """

    loader: ModelLoader
    param: str
    default: Any
    fixed: str | None = None

    def with_name(self, params: dict[str, Any]) -> dict[str, Any]:
        """Return the params of a task, with the name that the skill is announced for."""
        return params if self.fixed is None or self.param in params else {**params, self.param: self.fixed}

    def name_in(self, params: dict[str, Any]) -> str:
        """Return the name of the model that a task asks for. Raises `InvalidInputError`."""
        name = params.get(self.param, self.default)
        known = (self.fixed,) if self.fixed is not None else self.loader.options.names
        problem = None
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
            problem = f"must name a model, a text of 1 to {_LONGEST_NAME} characters"
        elif known is not None and name not in known:
            problem = f"must be one of {', '.join(map(repr, known))}, not {name!r:.80}"
        if problem is not None:
            raise invalid_input(InvalidValue([Problem(f"$.{self.param}", problem)]))
        assert isinstance(name, str)  # noqa: S101 - anything else is a problem
        return name


def model_use(
    skill: str, plan: BindingPlan, known: Injectables, options: SkillOptions, fixed: str | None
) -> ModelUse | None:
    """Return the model that a skill uses, or None. Raises `SkillDefinitionError`."""
    loaders, param = known.models, options.model_from
    used = [loaders[kind] for kind in plan.injects if kind in loaders]
    if not used and param is None:
        return None
    if not used:
        names = ", ".join(map(name_of, loaders)) or "none is registered"
        text = f"model_from={param!r}, but no argument has the type of a model (those are: {names})"
        raise SkillDefinitionError(skill, text)
    kinds = ", ".join(sorted(name_of(each.kind) for each in used))
    if len(used) > 1:
        text = f"it takes several models ({kinds}): tasks that wait for each other's would never end; let it take one"
        raise SkillDefinitionError(skill, text)
    if param is None:
        text = f"its argument of type {kinds} needs model_from='…': the param that names the model"
        raise SkillDefinitionError(skill, text)
    fields = fields_of(plan.input)
    if fields is not None and param not in fields:
        raise SkillDefinitionError(skill, f"model_from={param!r}: its input has no such field ({', '.join(fields)})")
    if options.in_process and used[0].options.announced:
        text = "announce='per_model' is not for executor='process': its processes have models of their own"
        raise SkillDefinitionError(skill, text)
    default = as_object((fields or {}).get(param)).get("default")
    return ModelUse(used[0], param, default, fixed)


def input_schema_of(plan: BindingPlan, uses: ModelUse | None) -> JsonSchema | None:
    """Return the schema that a skill is announced with, or None if nothing is known about its input."""
    if plan.input is None or uses is None or uses.fixed is None:
        return None if plan.input is None else plan.input.schema
    return schema_of_one(plan.input.schema, uses.param, uses.fixed)


def fields_of(contract: TypeContract | None) -> dict[str, Any] | None:
    """Return the schemas of an input's fields by name; None when nothing says which there are."""
    properties = None if contract is None else _top(contract.schema).get("properties")
    return properties if is_dict(properties) else None


def schema_of_one(schema: JsonSchema, param: str, name: str) -> JsonSchema:
    """Return the input's schema of a skill that runs with one model: the param may be left out."""
    top = _top(schema)
    field = {"type": "string", "enum": [name], "default": name}
    changed = {**top, "properties": {**as_object(top.get("properties")), param: field}}
    changed["required"] = [each for each in top.get("required") or () if each != param]
    if not changed["required"]:
        del changed["required"]
    return {**{key: value for key, value in schema.items() if key not in {"$ref", "required"}}, **changed}


def _top(schema: JsonSchema) -> JsonSchema:
    """Return the schema itself, or that in its definitions which it refers to."""
    reference = schema.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/$defs/"):
        return schema
    return as_object(as_object(schema.get("$defs")).get(reference.removeprefix("#/$defs/")))
