"""Fills a skill's arguments by a plan that is compiled once, at registration."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol, cast, get_args, get_origin

import msgspec

from avtomatika_worker.errors import InvalidInputError, SkillDefinitionError
from avtomatika_worker.narrowing import as_any
from avtomatika_worker.skills import schema
from avtomatika_worker.skills.contract import JsonSchema
from avtomatika_worker.skills.engines import TypeContract
from avtomatika_worker.skills.reserved import INJECTED_NAMES, contradiction
from avtomatika_worker.skills.type_hints import MISSING, UnsupportedTypeError, name_of
from avtomatika_worker.skills.uri_params import mentions
from avtomatika_worker.skills.validation import InvalidValue, describe

if TYPE_CHECKING:
    from avtomatika_worker.skills.model import ModelLoader

_KEYWORD_KINDS: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class BindingSource(Protocol):
    """The task's controls, from which arguments are filled."""

    @property
    def params(self) -> dict[str, Any]:
        """The params at the skill's start."""
        ...

    def injected(self, name: str) -> object:
        """Return the value for an argument called ``name``."""
        ...


Provider = Callable[[Any], object]
"""Takes the task's controls; returns the argument's value."""


class UnresolvedReferenceError(SkillDefinitionError):
    """A type hint that cannot be resolved yet; it may be defined later in the module."""


class Injectables:
    """The values that arguments can be filled with by annotation."""

    def __init__(self) -> None:
        self._providers: dict[Any, Provider] = {}
        self.models: dict[Any, ModelLoader] = {}
        """The loaders of those types that are models, loaded by name."""
        self._of_task: set[Any] = set()

    def register(self, tp: Any, provider: Provider, *, of_task: bool = False, model: ModelLoader | None = None) -> None:
        """Fill arguments annotated with ``tp`` with the result of ``provider``.

        ``of_task``: each task has its own. ``model``: its loader, if it is a model.
        """
        self._providers[tp] = provider
        if of_task:
            self._of_task.add(tp)
        if model is not None:
            self.models[tp] = model

    def is_of_task(self, annotation: Any) -> bool:
        """Whether what an annotation asks for is another one for each task."""
        return self.key_for(annotation) in self._of_task

    def is_shared(self, annotation: Any) -> bool:
        """Whether what an annotation asks for is the same for all tasks, as a resource is."""
        return self.provider_for(annotation) is not None and not self.is_of_task(annotation)

    def key_for(self, annotation: Any) -> Any:
        """Return the type requested by an annotation: itself, ``Annotated[type, …]`` or ``type | None``; or None."""
        if get_origin(annotation) is Annotated:
            return self.key_for(get_args(annotation)[0])
        members = [m for m in get_args(annotation) if m is not type(None)]
        if len(members) == 1 and type(None) in get_args(annotation):
            return self.key_for(members[0])
        try:
            return annotation if annotation in self._providers else None
        except TypeError:  # unhashable
            return None

    def provider_for(self, annotation: Any) -> Provider | None:
        """Return the provider for an annotation."""
        return self._providers.get(self.key_for(annotation))

    def copy(self) -> Injectables:
        """Return a separate registry with the same providers."""
        copied = Injectables()
        copied._providers.update(self._providers)
        copied.models.update(self.models)
        copied._of_task.update(self._of_task)
        return copied

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the types."""
        return tuple(map(name_of, self._providers))

    def __len__(self) -> int:
        return len(self._providers)


class BindingPlan(msgspec.Struct, frozen=True):
    """Fills the arguments of one skill."""

    positional: tuple[tuple[str, Provider | None, Any], ...]
    """Positional-only arguments: name, provider (None: a field of the input, or ``params``) and default."""
    keywords: tuple[tuple[str, Provider], ...]
    rest: tuple[str, ...]
    input: TypeContract | None
    """The contract of the input, or None if nothing is known about it."""
    injects: frozenset[Any]
    """The types by which arguments are filled."""
    untyped: bool
    """Whether the params arrive as they were sent: no type hint says what is in them."""
    spread: bool
    """Whether the input's fields are separate arguments."""
    takes_params: bool

    def schemas_with(self, formats: frozenset[str]) -> tuple[JsonSchema, ...]:
        """Return the input's schemas for texts of one of these formats."""
        schemas = (self.input.schema, self.input.inferred) if self.input is not None else ()
        return tuple(each for each in schemas if each is not None and mentions(each, formats))

    def closed_schemas(self) -> tuple[JsonSchema, ...]:
        """Return the input's schemas if what they do not list is ignored; none if it may be read."""
        if self.untyped or self.input is None or self.input.reads_more:
            return ()
        return tuple(each for each in (self.input.schema, self.input.inferred) if each is not None)

    def convert(self, params: dict[str, Any]) -> Any:
        """Return the params as the skill gets them, those of one with separate arguments as a dict.

        Raises `InvalidInputError` that names every invalid field.
        """
        try:
            return self.input.convert(params) if self.input is not None else params
        except InvalidValue as error:
            raise invalid_input(error) from None

    def fill(self, source: BindingSource, converted: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments; ``converted`` are the params that `convert` returned."""
        kwargs = {name: provide(source) for name, provide in self.keywords}
        if self.spread:
            kwargs.update(converted)
        elif self.takes_params:
            kwargs["params"] = converted
        args = [provide(source) if provide else kwargs.pop(name, default) for name, provide, default in self.positional]
        for name in self.rest:
            kwargs[name] = converted if name == "params" and not self.spread else source.injected(name)
        return args, kwargs


def invalid_input(error: InvalidValue) -> InvalidInputError:
    """Return the task's failure for invalid input."""
    first = error.problems[0]
    return InvalidInputError(
        f"invalid input: {describe(error.problems, 'params')}",
        {
            "path": first.path,
            "problem": first.problem,
            "errors": [{"path": each.path, "problem": each.problem} for each in error.problems],
        },
    )


def compile_plan(
    skill: str, func: Callable[..., Any], injectables: Injectables, hints: dict[str, Any], given: TypeContract | None
) -> BindingPlan:
    """Compile the plan for ``func`` with these hints; ``given`` is the contract of its input if the user wrote one.

    Raises `SkillDefinitionError` that names an argument that cannot be filled, or `UnresolvedReferenceError` for hints
    that cannot be resolved yet.
    """
    bound_before = bound_names(func)
    parameters = {name: each for name, each in _parameters(skill, func).items() if name not in bound_before}
    annotations = {name: hints.get(name, MISSING) for name in parameters}
    arguments = _Arguments(skill, injectables, takes_params="params" in parameters)
    for name, parameter in parameters.items():
        arguments.add(name, parameter, annotations[name])
    inferred = _inferred(skill, func, annotations.get("params", MISSING), arguments.own)
    contract = _combined(inferred, given) if given is not None else inferred
    bound = arguments.bound | ({"params"} & parameters.keys()) | bound_before
    return BindingPlan(
        positional=tuple(arguments.positional),
        keywords=tuple(arguments.keywords),
        rest=tuple(name for name in INJECTED_NAMES if name not in bound) if arguments.rest else (),
        input=contract,
        injects=frozenset(map(injectables.key_for, annotations.values())) - {None},
        untyped=contract is None or (contract is not inferred and contract.inferred is None),
        spread=bool(arguments.own),
        takes_params=arguments.takes_params,
    )


class _Arguments:
    """The arguments of a skill, sorted by what fills them: what is injected, or the params' fields (``own``).

    ``rest``: the skill takes any keywords. Raises `SkillDefinitionError` for an argument that cannot be filled.
    """

    def __init__(self, skill: str, injectables: Injectables, *, takes_params: bool) -> None:
        self.takes_params = takes_params
        self.positional: list[tuple[str, Provider | None, Any]] = []
        self.keywords: list[tuple[str, Provider]] = []
        self.own: dict[str, tuple[Any, Any]] = {}
        self.rest = False
        self._skill = skill
        self._injectables = injectables

    @property
    def bound(self) -> set[str]:
        """The names filled from anything but the params' fields."""
        return {name for name, _ in self.keywords} | {name for name, _, _ in self.positional}

    def add(self, name: str, parameter: inspect.Parameter, annotation: Any) -> None:
        """Sort in one argument; `MISSING` stands for no annotation."""
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise SkillDefinitionError(self._skill, f"*{name} cannot be filled: name the arguments")
        if parameter.kind is parameter.VAR_KEYWORD:
            self.rest = True
            return
        provider = self._provider(name, parameter, annotation)
        if parameter.kind is parameter.POSITIONAL_ONLY:
            self.positional.append((name, provider, parameter.default))
        elif provider is not None:
            self.keywords.append((name, provider))
        if name != "params" and provider is None:
            self._add_own(name, parameter, annotation)

    def _provider(self, name: str, parameter: inspect.Parameter, annotation: Any) -> Provider | None:
        provider = self._injectables.provider_for(annotation)
        if provider is None:
            provider = _by_name(name)
            if problem := contradiction(name, annotation, parameter.default):
                raise SkillDefinitionError(self._skill, problem)
        return None if name == "params" else provider

    def _add_own(self, name: str, parameter: inspect.Parameter, annotation: Any) -> None:
        required = parameter.default is parameter.empty
        if not self.takes_params and not (annotation is MISSING and required):
            self.own[name] = (
                Any if annotation is MISSING else annotation,
                MISSING if required else parameter.default,
            )
        elif required:
            text = _nobody_fills(name, self._injectables, takes_params=self.takes_params)
            raise SkillDefinitionError(self._skill, text)


def type_hints(skill: str, func: Callable[..., Any], localns: dict[str, Any]) -> dict[str, Any]:
    """Return the hints of a function or callable object, resolved. Raises `UnresolvedReferenceError`."""
    *_, target = wrapped(func)
    try:
        return typing.get_type_hints(target, localns=localns, include_extras=True)
    except NameError as error:
        raise unresolved(skill, error) from None
    except (TypeError, AttributeError, SyntaxError) as error:
        raise SkillDefinitionError(skill, f"its type hints cannot be read: {error}") from error


def unresolved(skill: str, error: NameError) -> UnresolvedReferenceError:
    """Return the error for a type hint that cannot be resolved (yet)."""
    hint = "define or import it where the skill is, and not only under TYPE_CHECKING"
    what = f"the type hint {error.name!r} cannot be resolved: {hint}" if error.name else str(error)
    return UnresolvedReferenceError(skill, what)


def underlying(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function called by a `functools.partial`."""
    while isinstance(func, functools.partial):
        func = func.func
    return func


_PARTIALS: Final = (functools.partial, functools.partialmethod)


def wrapped(func: Any) -> Iterator[Any]:
    """Yield ``func`` and, from the outside in, what it calls if it is a partial, a wrapper or a callable object."""
    while func is not None:
        yield func
        if isinstance(as_any(func), _PARTIALS):
            func = func.func
        elif hasattr(func, "__wrapped__"):
            func = func.__wrapped__
        elif inspect.isroutine(func):
            return
        else:
            func = inspect.getattr_static(cast("Any", type(func)), "__call__", None)


def bound_names(func: Callable[..., Any]) -> frozenset[str]:
    """Return the arguments that partials have bound by keyword: nothing else may fill or see them."""
    names: set[str] = set()
    for each in wrapped(func):
        if isinstance(as_any(each), _PARTIALS):
            names.update(each.keywords)
    return frozenset(names)


def local_names(func: Callable[..., Any]) -> dict[str, Any]:
    """Return the names in scope of a nested function, for hints that refer to local classes."""
    parent = getattr(underlying(func), "__qualname__", "").rpartition(".<locals>.")[0].rpartition(".")[2]
    frame = inspect.currentframe() if parent else None
    while frame is not None:
        if frame.f_code.co_name == parent:
            return dict(frame.f_locals)
        frame = frame.f_back
    return {}


def _parameters(skill: str, func: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    try:
        return dict(inspect.signature(func).parameters)
    except (TypeError, ValueError) as error:
        raise SkillDefinitionError(skill, f"its arguments cannot be read: {error}") from error


def _by_name(name: str) -> Provider | None:
    if name not in INJECTED_NAMES:
        return None
    return lambda source: cast("BindingSource", source).injected(name)


def _inferred(
    skill: str, func: Callable[..., Any], params: Any, own: dict[str, tuple[Any, Any]]
) -> TypeContract | None:
    try:
        return schema.infer_fields(getattr(func, "__name__", skill), own) if own else schema.infer_input(params)
    except NameError as error:
        raise unresolved(skill, error) from None
    except UnsupportedTypeError as error:
        hint = "if it is a resource, register it before the skill"
        raise SkillDefinitionError(skill, f"its input: {error} ({hint})") from error


def _combined(inferred: TypeContract | None, given: TypeContract) -> TypeContract:
    """Return the contract of a user's schema, with the conversion to the type hints."""
    check, convert = given.convert, inferred.convert if inferred is not None else None

    def check_and_convert(value: object) -> Any:
        check(value)
        return convert(value) if convert is not None else value  # untyped params stay as sent

    return TypeContract(
        given.schema,
        check_and_convert,
        inferred.schema if inferred is not None else None,
        reads_more=inferred is None or inferred.reads_more,
    )


def _nobody_fills(name: str, injectables: Injectables, *, takes_params: bool) -> str:
    by_type = ", ".join(injectables.names)
    hint = f"arguments are filled by name ({', '.join(INJECTED_NAMES)}) or by annotation ({by_type})"
    if takes_params:
        return f"the argument {name!r} cannot be filled: {hint}; give it a default, or make it a field of params"
    return f"the argument {name!r} cannot be filled: with a type hint it is a field of the input; without one, {hint}"
