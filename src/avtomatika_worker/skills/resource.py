"""Resources: values made once and passed to skills by annotation, such as a model that takes a minute to load."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Container, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NoReturn, get_args, get_origin

import msgspec

from avtomatika_worker.errors import ResourceError, SkillDefinitionError
from avtomatika_worker.skills.binding import Injectables, Provider, type_hints, underlying
from avtomatika_worker.skills.type_hints import MISSING, members_of, name_of, says_nothing

_NO_NEEDS: Final[Mapping[str, Any]] = MappingProxyType({})
_ITERATORS: Final = frozenset({Iterator, Iterable, Generator, AsyncIterator, AsyncGenerator})


@dataclass(frozen=True, slots=True)
class MakerFacts:
    """What the annotations of a function that makes something say. ``kind`` is the type of what it makes."""

    kind: Any
    hints: Mapping[str, Any]
    parameters: Mapping[str, inspect.Parameter]
    yields: bool


@dataclass(frozen=True, slots=True)
class ResourceDefinition:
    """A decorated function. `compile` determines its resource's type."""

    func: Callable[..., Any]
    localns: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """The function's name."""
        return getattr(underlying(self.func), "__name__", type(self.func).__name__)

    @property
    def place(self) -> str:
        """The function's location, for messages."""
        func = underlying(self.func)
        return f"{getattr(func, '__module__', '?')}:{getattr(func, '__qualname__', type(func).__qualname__)}"

    def read(self) -> MakerFacts:
        """Read the annotations. Raises `ResourceError`."""
        try:
            hints = type_hints(self.name, self.func, self.localns)
            parameters = inspect.signature(self.func).parameters
        except SkillDefinitionError as error:
            raise ResourceError(self.name, error.problem) from error
        except (TypeError, ValueError) as error:
            raise ResourceError(self.name, f"its arguments cannot be read: {error}") from error
        func = underlying(self.func)
        yields = inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func)
        return MakerFacts(self._kind(hints.get("return", MISSING), yields=yields), hints, parameters, yields)

    def compile(self) -> Resource:
        """Read what it needs. Raises `ResourceError`."""
        facts = self.read()
        needs: dict[str, Any] = {}
        for name, parameter in facts.parameters.items():
            if parameter.default is parameter.empty:
                if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
                    self._refuse(f"the argument {parameter} cannot be filled: arguments are given by name")
                if name not in facts.hints:
                    self._refuse(f"the argument {name!r} needs a type hint: the type of another resource")
                needs[name] = facts.hints[name]
        return Resource(self, facts.kind, needs)

    def _kind(self, returned: Any, *, yields: bool) -> Any:
        """Return the type by which the resource is requested."""
        if returned is MISSING:
            self._refuse("it needs a return annotation: skills request it by that type")
        makes = get_args(returned)[0] if get_origin(returned) in _ITERATORS else returned
        if yields and makes is returned:
            self._refuse(f"it yields, so it returns an Iterator (AsyncIterator for async def), not {name_of(returned)}")
        if not yields and makes is not returned:
            self._refuse("it returns an iterator: make it yield the resource itself, without contextmanager")
        foreign = get_origin(makes) or makes
        common = says_nothing(makes) or len(members_of(makes)) > 1 or getattr(foreign, "__module__", "") == "builtins"
        if common:
            self._refuse(f"{name_of(makes)} is not a distinct type: use a class, or NewType('Name', {name_of(makes)})")
        return makes

    def _refuse(self, problem: str) -> NoReturn:
        raise ResourceError(self.name, problem)


class Resource(msgspec.Struct, frozen=True):
    """A compiled resource. ``needs`` maps its arguments to the types of other resources."""

    definition: ResourceDefinition
    kind: Any
    needs: dict[str, Any]

    @property
    def name(self) -> str:
        """Its function's name."""
        return self.definition.name


def provider(kind: Any) -> Provider:
    """Return the provider for arguments of a resource's type."""
    return lambda source: source.resource(kind)


class ResourceRegistry:
    """The resources of a worker, by type."""

    def __init__(self, injectables: Injectables) -> None:
        self._injectables = injectables
        self._resources: dict[Any, Resource] = {}

    def add(self, definition: ResourceDefinition) -> None:
        """Register a resource, so that arguments of its type are filled. Raises `ResourceError`."""
        resource = definition.compile()
        taken = self._resources.get(resource.kind)
        if taken is not None and taken.definition is definition:
            return
        if taken is not None:
            both = f"{taken.definition.place} and {definition.place}"
            raise ResourceError(resource.name, f"{name_of(resource.kind)} is made twice, by {both}")
        if self._injectables.key_for(resource.kind) is not None:
            raise ResourceError(resource.name, f"{name_of(resource.kind)} is provided by the worker itself")
        self._resources[resource.kind] = resource
        self._injectables.register(resource.kind, provider(resource.kind))

    def check(self) -> None:
        """Check that all can be made. Raises `ResourceError` for a cycle, or a dependency that nothing makes."""
        self.needed_for(self._resources)

    def needed_for(self, kinds: Iterable[Any], given: Container[Any] = ()) -> tuple[Resource, ...]:
        """Return the resources of these types and their dependencies, in the order of creation.

        Those that are ``given`` need nothing.
        """
        ordered: dict[Any, Resource] = {}
        for kind in kinds:
            if kind in self._resources:
                self._order(kind, ordered, (), given)
        return tuple(ordered.values())

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types, in the order of registration."""
        return tuple(self._resources)

    def _order(self, kind: Any, ordered: dict[Any, Resource], above: tuple[Any, ...], given: Container[Any]) -> None:
        if kind in ordered:
            return
        resource = self._resources[kind]
        if kind in above:
            circle = " → ".join(self._resources[each].name for each in (*above[above.index(kind) :], kind))
            raise ResourceError(resource.name, f"it needs itself: {circle}")
        needs = _NO_NEEDS if kind in given else resource.needs
        for argument, annotation in needs.items():
            needed = self._injectables.key_for(annotation)
            if needed in given and needed not in self._resources:
                continue
            if needed not in self._resources:
                known = ", ".join(map(name_of, self._resources))
                raise ResourceError(
                    resource.name,
                    f"nothing makes its argument {argument!r}, a {name_of(annotation)} (resources are: {known})",
                )
            self._order(needed, ordered, (*above, kind), given)
        ordered[kind] = resource
