"""A skill: the user's function, its contract and the plan that fills its arguments."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from avtomatika_worker.errors import ContractViolationError, SkillDefinitionError, UnsendableValueError
from avtomatika_worker.protocol.canonical import canonical_bytes
from avtomatika_worker.protocol.dialects import NEUTRAL
from avtomatika_worker.skills import schema
from avtomatika_worker.skills.batch import Batch, forms_of, hints_of_one
from avtomatika_worker.skills.batch_forms import BatchForms
from avtomatika_worker.skills.binding import (
    BindingPlan,
    BindingSource,
    Injectables,
    compile_plan,
    local_names,
    type_hints,
    underlying,
    unresolved,
)
from avtomatika_worker.skills.chunks import CHUNK_EVENT, StreamContract, output_of, stream_contract
from avtomatika_worker.skills.contract import JsonSchema, ResultContract, SkillContract
from avtomatika_worker.skills.declaration import Declaration, check_declaration
from avtomatika_worker.skills.jsonable import to_plain
from avtomatika_worker.skills.model import ModelUse, input_schema_of, model_use
from avtomatika_worker.skills.options import DECLARED, metadata_of
from avtomatika_worker.skills.run_options import CANCEL_GRACE, SkillOptions, check_options
from avtomatika_worker.skills.schema import OutputContract
from avtomatika_worker.skills.strays import refusing_strays
from avtomatika_worker.skills.type_hints import MISSING, UnsupportedTypeError, says_nothing
from avtomatika_worker.skills.unknown_params import UnknownParams
from avtomatika_worker.skills.uri_params import PATHS, URIS, Place, mentions, places
from avtomatika_worker.skills.validation import Schema, describe, without_nulls

T = TypeVar("T")

_SYSTEM_EVENT: Final = "progress"


@dataclass(frozen=True, slots=True)
class SkillDefinition:
    """A decorated function. `compile` turns it into a `Skill`."""

    func: Callable[..., Any]
    name: str
    declaration: Declaration
    options: SkillOptions
    localns: dict[str, Any] = field(repr=False)
    model: str | None = None
    """The only model that it runs with, if it is announced for one ..."""
    variant_of: str | None = None
    """... and the skill that takes any."""

    @property
    def place(self) -> str:
        """The function's location, for messages."""
        func = underlying(self.func)
        return f"{getattr(func, '__module__', '?')}:{getattr(func, '__qualname__', type(func).__qualname__)}"

    def compile(self, injectables: Injectables) -> Skill:
        """Infer, check and compile everything. Raises `SkillDefinitionError`."""
        declarations = self.declaration
        given = self._read(schema.explicit_input, declarations.input_schema, "the schema of its input")
        stream = self._read(lambda func: stream_contract(self.name, func, self.localns), self.func, "its chunks")
        hints = type_hints(self.name, self.func, self.localns)
        forms = self._forms(hints, injectables, stream)
        if forms is not None:
            hints = hints_of_one(self.name, hints, forms)
        plan = compile_plan(self.name, self.func, injectables, hints, given)
        uses = model_use(self.name, plan, injectables, self.options, self.model)
        output = self._output(stream, returned := hints.get("return", MISSING))
        events = self._events(stream)
        contract = SkillContract(
            name=self.name,
            type=declarations.type or self.name,
            description=declarations.description if declarations.description is not None else _docstring(self.func),
            version=declarations.version if declarations.version is not None else _module_version(self.func),
            input_schema=input_schema_of(plan, uses),
            output_schema=output.schema if output is not None else None,
            events_schema=events or None,
            output_statuses=tuple(declarations.output_statuses or ()),
            properties=dict(declarations.properties),
        )
        _check_sendable(contract)
        try:
            write = output.write if output is not None else to_plain
            return Skill(
                contract,
                self.func,
                plan,
                self.options,
                write,
                returns_data=self._returns_data(stream, returned),
                stream=stream,
                uses=uses,
                forms=forms,
                variant_of=self.variant_of,
            )
        except ValueError as error:  # a pattern that is invalid in JSON Schema, for instance
            raise SkillDefinitionError(self.name, f"its schemas: {str(error).partition(chr(10))[0][:200]}") from error

    def _forms(
        self, hints: Mapping[str, Any], injectables: Injectables, stream: StreamContract | None
    ) -> BatchForms | None:
        """Return the forms in which a batched function takes the tasks of a batch; None for any other."""
        if self.options.batch is None:
            return None
        if stream is not None:
            text = "a batched skill cannot yield: it returns a list, with an item for each task"
            raise SkillDefinitionError(self.name, text)
        return forms_of(self.name, self.func, hints, injectables)

    def _output(self, stream: StreamContract | None, hint: Any) -> OutputContract | None:
        given = self.declaration.output_schema
        if given is not None:
            return self._read(schema.explicit_output, given, "the schema of its output")
        if stream is not None:
            return self._read(output_of, stream, "its result")
        return None if says_nothing(hint) else self._read(schema.infer_output, hint, "its result")

    def _events(self, stream: StreamContract | None) -> dict[str, JsonSchema]:
        """Return the schemas of its events, that of its chunks among them."""
        events = {
            name: self._read(schema.explicit_event, event, f"the schema of its event {name!r}")
            for name, event in (self.declaration.events or {}).items()
        }
        if stream is None:
            return events
        if CHUNK_EVENT in events:
            text = f"the event {CHUNK_EVENT!r} is declared by what a generator yields: give its own event another name"
            raise SkillDefinitionError(self.name, text)
        return {**events, CHUNK_EVENT: stream.schema}

    def _returns_data(self, stream: StreamContract | None, hint: Any) -> bool:
        """Whether a returned dict is always data: a TypedDict may have a field called status."""
        given = self.declaration.output_schema
        if stream is not None:
            hint = stream.result
        return schema.is_data_type(hint) or (not isinstance(given, Mapping) and schema.is_data_type(given))

    def _read(self, read: Callable[[Any], T], given: Any, what: str) -> T:
        try:
            return read(given)
        except NameError as error:
            raise unresolved(self.name, error) from None
        except UnsupportedTypeError as error:
            raise SkillDefinitionError(self.name, f"{what}: {error}") from error


class Skill:
    """A skill that is ready to run."""

    __slots__ = (
        "_events",
        "_output",
        "_plan",
        "_with_paths",
        "_with_uris",
        "contract",
        "family",
        "forms",
        "func",
        "is_async",
        "options",
        "results",
        "stream",
        "unknown_params",
        "uses",
        "write",
    )

    def __init__(
        self,
        contract: SkillContract,
        func: Callable[..., Any],
        plan: BindingPlan,
        options: SkillOptions,
        write: Callable[[object], Any] = to_plain,
        *,
        returns_data: bool = False,
        stream: StreamContract | None = None,
        uses: ModelUse | None = None,
        forms: BatchForms | None = None,
        variant_of: str | None = None,
    ) -> None:
        """``write`` turns the data that ``func`` returns into JSON. It raises `UnsendableValueError`.

        ``stream``: what ``func`` yields, if it does. ``uses``: the model that it takes, if it does. ``forms``: how it
        takes the tasks of a batch, if it is batched. ``variant_of``: the skill of which it is the one for a model.
        """
        self.contract: SkillContract = contract
        self.func: Callable[..., Any] = func
        self.options: SkillOptions = options
        self.is_async: bool = is_async(func)
        self.results: ResultContract = ResultContract(contract.name, contract.output_statuses, returns_data)
        self.write: Callable[[object], Any] = write
        self.stream: StreamContract | None = stream
        self.uses: ModelUse | None = uses
        self.forms: BatchForms = forms or BatchForms()
        self.family: str = variant_of or contract.name
        self.unknown_params: UnknownParams = UnknownParams(plan.closed_schemas(), [uses.param] if uses else [])
        if plan.input is not None and forms is not None:
            plan = _converted_by(plan, forms.checked(plan.input.convert))
        self._plan = plan
        self._with_uris = plan.schemas_with(URIS)
        self._with_paths = plan.schemas_with(PATHS)
        if plan.input is not None and self._with_paths:
            self._plan = _converted_by(plan, refusing_strays(plan.input.convert, self._with_paths))
        self._output = Schema(contract.output_schema) if contract.output_schema else None
        events = contract.events_schema or {}
        self._events = {name: Schema(json) for name, json in events.items() if stream is None or name != CHUNK_EVENT}

    @property
    def injects(self) -> frozenset[Any]:
        """The types by which its arguments are filled."""
        return self._plan.injects

    def convert(self, params: dict[str, Any]) -> Any:
        """Return a task's params as the skill takes them. Raises `InvalidInputError`."""
        return self._plan.convert(params)

    def fill(self, source: BindingSource, converted: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return the arguments for a task, given what `convert` returned."""
        return self._plan.fill(source, converted)

    def arguments(self, source: BindingSource, converted: Any) -> dict[str, Any]:
        """Return the arguments of a batched skill for one task, from its params as `convert` returned them."""
        return self._plan.fill(source, converted)[1]

    def merged(self, arguments: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the arguments of a call for several tasks."""
        return self.forms.merged(arguments)

    def bare_places(self, params: dict[str, Any]) -> frozenset[Place]:
        """Return where in the params the skill wants the URI itself, not the file."""
        return frozenset(place for schema in self._with_uris for place in places(schema, params, URIS))

    @property
    def wants_paths(self) -> bool:
        """Whether there may be params where it wants a file."""
        return bool(self._with_paths)

    def path_places(self, params: dict[str, Any]) -> frozenset[Place]:
        """Return where in the params the skill wants a file, a `Path`."""
        return frozenset(place for schema in self._with_paths for place in places(schema, params, PATHS))

    def result_places(self, data: dict[str, Any]) -> frozenset[Place]:
        """Return where in a result's data the output schema marks a text as a file."""
        schema = self.contract.output_schema
        return places(schema, data, PATHS) if schema is not None and mentions(schema, PATHS) else frozenset()

    @property
    def untyped(self) -> bool:
        """Whether no type hint says what is in its params."""
        return self._plan.untyped

    def check_output(self, data: dict[str, Any], *, as_sent: bool = False) -> None:
        """Raise `ContractViolationError` if the data, as sent, violates the output schema.

        ``as_sent``: nulls in objects have already been removed.
        """
        if self._output is None:
            return
        problems = self._output.problems(data if as_sent else without_nulls(data))
        if problems:
            _check_numbers(data)
            raise ContractViolationError(
                f"the result violates the output schema: {describe(problems, 'data')}",
                {"errors": [{"path": each.path, "problem": each.problem} for each in problems]},
            )

    def allows_output(self, data: dict[str, Any]) -> bool:
        """Whether the data satisfies the output schema."""
        return self._output is None or not self._output.problems(data)

    def event_problem(self, name: str, payload: dict[str, Any], strict: bool) -> str | None:
        """Return why an event may not be sent, or None if it may."""
        if name == _SYSTEM_EVENT:
            return None
        if self.stream is not None and name == CHUNK_EVENT:
            return "a generator sends its chunks by yielding them"
        declared = self._events.get(name)
        if declared is not None:
            problems = declared.problems(without_nulls(payload))
            return f"it violates its schema: {describe(problems, 'payload')}" if problems else None
        if self._events and strict:
            return f"it is not declared (declared: {', '.join(sorted(self._events))})"
        return None

    def __repr__(self) -> str:
        return f"Skill({self.contract.name!r})"


def _converted_by(plan: BindingPlan, convert: Callable[[object], Any]) -> BindingPlan:
    """Return a plan whose input is converted otherwise."""
    assert plan.input is not None  # noqa: S101 - the callers have checked
    return msgspec.structs.replace(plan, input=msgspec.structs.replace(plan.input, convert=convert))


def define(
    func: Callable[..., Any],
    name: str | None = None,
    *,
    timeout: float | None = None,
    max_concurrent: int | None = None,
    executor: str | None = None,
    max_tasks_per_child: int | None = None,
    cancel_grace: float = CANCEL_GRACE,
    expected_seconds: float | None = None,
    on_stale: str = "stop",
    prefetch: int = 0,
    model_from: str | None = None,
    batch: Batch | None = None,
    gpus: float | None = None,
    events: Mapping[str, Any] | None = None,
    events_schema: Mapping[str, Any] | None = None,
    **declarations: Any,
) -> SkillDefinition:
    """Make a definition from the decorator's arguments. Raises `SkillDefinitionError` for obvious mistakes."""
    if not callable(func):
        raise SkillDefinitionError(str(name or func), "the decorator belongs on a function")
    if inspect.isclass(func):
        text = "a class cannot be a skill: decorate a function, or register a bound method"
        raise SkillDefinitionError(name or func.__name__, text)
    inner = underlying(func)
    skill = name if name is not None else getattr(inner, "__name__", type(inner).__name__)
    known = {key: declarations.pop(key, None) for key in DECLARED}
    check_declaration(skill, {**known, "events": events, "events_schema": events_schema})
    most = 1 if prefetch and max_concurrent is None else max_concurrent
    options = SkillOptions(
        timeout,
        most,
        executor,
        cancel_grace,
        max_tasks_per_child,
        expected_seconds,
        on_stale,
        prefetch,
        model_from,
        batch,
        gpus,
    )
    check_options(skill, options, awaits=is_async(func))
    declaration = Declaration(events=events or events_schema, properties=metadata_of(skill, declarations), **known)
    return SkillDefinition(func, skill, declaration, options, local_names(func))


def is_async(func: Callable[..., Any]) -> bool:
    """Whether calling ``func`` makes a coroutine or an async generator."""
    func = underlying(func)
    return any(
        inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each)
        for each in (func, getattr(func, "__call__", None))  # noqa: B004
    )


def _check_numbers(data: dict[str, Any]) -> None:
    """Raise `ContractViolationError` for values outside JSON: a schema's validator treats NaN as null."""
    try:
        canonical_bytes({"data": data}, NEUTRAL)
    except UnsendableValueError as error:
        text = f"the result cannot be sent: {error.path}: {error.problem}"
        raise ContractViolationError(text, {"path": error.path}) from None


def _check_sendable(contract: SkillContract) -> None:
    """Refuse what no orchestrator can digest: a worker announcing it would never be registered."""
    declarations = {
        "the schema of its input": contract.input_schema,
        "the schema of its output": contract.output_schema,
        "the schemas of its events": contract.events_schema and dict(contract.events_schema),
        "its metadata": dict(contract.properties),
        "its texts": [contract.description, contract.version, *contract.output_statuses],
    }
    for what, value in declarations.items():
        try:
            canonical_bytes({"supported_skills": [{"of": value}]}, NEUTRAL)  # as deep as in a registration
        except UnsendableValueError as error:
            path = error.path.replace("$.supported_skills[0].of", "$")
            raise SkillDefinitionError(contract.name, f"{what} cannot be sent: {path}: {error.problem}") from error


def _docstring(func: Callable[..., Any]) -> str | None:
    """Return the first paragraph of the docstring, in one line."""
    func = underlying(func)
    text = inspect.getdoc(func) if inspect.isroutine(func) else inspect.getdoc(type(func))
    return " ".join(text.split("\n\n")[0].split()) if text else None


def _module_version(func: Callable[..., Any]) -> str | None:
    version = getattr(sys.modules.get(getattr(underlying(func), "__module__", "")), "__version__", None)
    return version if isinstance(version, str) else None
