"""How arguments are filled: by name, by annotation, from the input; and what nobody can fill."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import inspect
import numbers
import uuid
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType, Protocol, TypedDict

import annotated_types as at
import msgspec
import pydantic
import pytest

from avtomatika_worker.errors import InvalidInputError, SkillDefinitionError
from avtomatika_worker.skills.binding import Injectables, UnresolvedReferenceError
from avtomatika_worker.skills.reserved import INJECTED_NAMES
from avtomatika_worker.skills.skill import Skill, define


class Files:
    """Something to inject by annotation."""


class Source:
    """A task, as far as binding is concerned."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params

    def injected(self, name: str) -> object:
        return self.params if name == "params" else f"the {name}"


class Size(pydantic.BaseModel):
    width: int
    height: int = 100


@dataclasses.dataclass
class Area:
    width: int
    height: int = 100


class Point(NamedTuple):
    x: int
    y: int = 0


FILES = Files()


def skill(func: Callable[..., Any], **options: Any) -> Skill:
    injectables = Injectables()
    injectables.register(Files, lambda source: FILES)
    return define(func, **options).compile(injectables)


def call(func: Callable[..., Any], params: dict[str, Any] | None = None, **options: Any) -> Any:
    made = skill(func, **options)
    args, kwargs = made.fill(Source(params or {}), made.convert(params or {}))
    return func(*args, **kwargs)


def refusal(func: Callable[..., Any], params: dict[str, Any], **options: Any) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        skill(func, **options).convert(params)
    return caught.value


def definition_error(func: Callable[..., Any], **options: Any) -> str:
    with pytest.raises(SkillDefinitionError) as caught:
        skill(func, **options)
    return str(caught.value)


def test_params_with_a_type_are_converted() -> None:
    def model(params: Size) -> object:
        return params

    def data(params: Area) -> object:
        return params

    def point(params: Point) -> object:
        return params

    assert call(model, {"width": 1}) == Size(width=1)
    assert call(data, {"width": 1}) == Area(1)
    assert call(point, {"x": 1}) == Point(1)


def test_params_without_a_type_are_what_was_sent() -> None:
    raw = {"anything": [1]}

    def untyped(params):  # type: ignore[no-untyped-def]
        return params

    def plain(params: dict[str, Any]) -> object:
        return params

    assert call(untyped, raw) is raw
    assert call(plain, raw) is raw


def test_typed_arguments_are_the_input() -> None:
    def resize(width: int, height: int = 100, *, exact: bool = False) -> object:
        return width, height, exact

    assert call(resize, {"width": 1}) == (1, 100, False)
    assert call(resize, {"width": 1, "exact": True, "unknown": 5}) == (1, 100, True)


def test_an_untyped_argument_with_a_default_takes_anything() -> None:
    def greet(name="you"):  # type: ignore[no-untyped-def]
        return name

    assert call(greet) == "you"
    assert call(greet, {"name": ["a"]}) == ["a"]


def test_every_injected_name_is_filled() -> None:
    source = ", ".join(f"{name}=None" for name in INJECTED_NAMES)
    namespace: dict[str, Any] = {"__name__": __name__}
    exec(f"def everything({source}): return locals()", namespace)  # noqa: S102 - one argument for each name
    filled = call(namespace["everything"], {"a": 1})
    assert filled.pop("params") == {"a": 1}
    assert filled == {name: f"the {name}" for name in INJECTED_NAMES if name != "params"}


def test_injected_arguments_are_not_input() -> None:
    def resize(width: int, task_id: str, priority: float = 0.0) -> object:
        return width, task_id, priority

    assert call(resize, {"width": 1, "task_id": "forged"}) == (1, "the task_id", "the priority")
    properties = (skill(resize).contract.input_schema or {})["properties"]
    assert properties.keys() == {"width"}


@pytest.mark.parametrize("annotation", [Files, Files | None, Annotated[Files, "hot"]], ids=str)
def test_arguments_are_filled_by_annotation(annotation: Any) -> None:
    def convert(width: int, metadata, **rest):  # type: ignore[no-untyped-def]
        return metadata, width

    convert.__annotations__["metadata"] = annotation  # it goes before the name
    assert call(convert, {"width": 1}) == (FILES, 1)


def test_extra_keywords_receive_every_name_that_is_not_bound() -> None:
    def all_of_it(params: Size, task_id: str, **rest: Any) -> dict[str, Any]:
        return rest

    rest = call(all_of_it, {"width": 1})
    assert rest == {name: f"the {name}" for name in INJECTED_NAMES if name not in {"params", "task_id"}}


def test_extra_keywords_alone_receive_the_params_too() -> None:
    def all_of_it(**rest: Any) -> dict[str, Any]:
        return rest

    assert call(all_of_it, {"a": 1}).keys() == set(INJECTED_NAMES)
    assert call(all_of_it, {"a": 1})["params"] == {"a": 1}


def test_positional_only_arguments_are_filled() -> None:
    def resize(task_id: str, width: int, height: int = 5, /, exact: bool = False, **rest: Any) -> object:
        return task_id, width, height, exact, "task_id" in rest

    def typed(params: Size, files: Files, /) -> object:
        return params, files

    assert call(resize, {"width": 1}) == ("the task_id", 1, 5, False, False)
    assert call(resize, {"width": 1, "height": 2, "exact": True}) == ("the task_id", 1, 2, True, False)
    assert call(typed, {"width": 1}) == (Size(width=1), FILES)


class Tool:
    def method(self, width: int) -> int:
        return width

    @classmethod
    def of_class(cls, width: int) -> int:
        return width

    def __call__(self, width: int) -> int:
        return width


def wrapped(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    "func",
    [
        Tool().method,
        Tool.of_class,
        Tool(),
        functools.partial(Tool().method),
        functools.partial(functools.partial(Tool())),
        wrapped(Tool().method),
        functools.partial(lambda unit, width: width, "px"),
    ],
    ids=["method", "classmethod", "object", "partial", "nested partial", "wrapped", "partial lambda"],
)
def test_everything_callable_can_be_a_skill(func: Callable[..., Any]) -> None:
    if isinstance(func, functools.partial) and func.args:
        func.func.__annotations__["width"] = int
    assert call(func, {"width": 3}, name="tool") == 3
    assert refusal(func, {"width": "x"}, name="tool").details["path"] == "$.width"


# ------------------------------------------------------------------------------------------------------ wrong input


def test_wrong_input_names_the_path_and_every_problem() -> None:
    def resize(width: int, height: int) -> None: ...

    error = refusal(resize, {"width": "x"})
    assert error.code == "INVALID_INPUT_ERROR"
    assert "params.width: expected integer, got string" in error.message
    assert "params.height: is required" in error.message
    assert {each["path"] for each in error.details["errors"]} == {"$.width", "$.height"}
    assert error.details["errors"][0] == {"path": error.details["path"], "problem": error.details["problem"]}


def test_a_given_schema_comes_before_the_conversion() -> None:
    limits = {"type": "object", "properties": {"width": {"maximum": 10}}}

    def resize(width: int) -> int:
        return width

    assert call(resize, {"width": 10}, input_schema=limits) == 10
    assert refusal(resize, {"width": 11}, input_schema=limits).details["path"] == "$.width"
    assert refusal(resize, {"width": "x"}, input_schema=limits).details["path"] == "$.width"
    assert skill(resize, input_schema=limits).contract.input_schema == limits


def test_a_given_model_checks_but_leaves_untyped_params_as_they_were_sent() -> None:
    def resize(params: dict[str, Any]) -> object:
        return params

    assert call(resize, {"width": 1}, input_schema=Size) == {"width": 1}
    assert refusal(resize, {"width": "x"}, input_schema=Size).details["path"] == "$.width"


def test_a_skill_without_arguments_still_checks_its_given_schema() -> None:
    def tick() -> str:
        return "tock"

    assert call(tick, {"width": 1}, input_schema=Size) == "tock"
    assert refusal(tick, {}, input_schema=Size).details["path"] == "$.width"


def test_a_models_own_validation_counts() -> None:
    @dataclasses.dataclass
    class Even:
        width: int

        def __post_init__(self) -> None:
            if self.width % 2:
                raise ValueError("must be even")

    def resize(params):  # type: ignore[no-untyped-def]
        return params

    resize.__annotations__["params"] = Even
    assert "must be even" in refusal(resize, {"width": 1}).message


# ------------------------------------------------------------------------------------------------------ wrong functions


def test_an_argument_that_cannot_be_filled_is_named_with_those_that_can() -> None:
    def resize(width):  # type: ignore[no-untyped-def]
        return width

    def beside(params: Size, gpu: str) -> None: ...

    for func, argument in ((resize, "width"), (beside, "gpu")):
        message = definition_error(func)
        assert repr(func.__name__) in message
        assert repr(argument) in message
        assert "send_progress" in message
        assert "Files" in message
    assert "cannot be filled: with a type hint it is a field" in definition_error(resize)


def test_an_argument_beside_params_may_have_a_default() -> None:
    def resize(params: Size, factor: int = 2) -> object:
        return params.width * factor

    assert call(resize, {"width": 3, "factor": 9}) == 6


def test_star_arguments_are_refused() -> None:
    def resize(*sizes: int) -> None: ...

    assert "*sizes" in definition_error(resize)


def test_a_type_without_a_schema_is_refused() -> None:
    def resize(image: Files | int) -> None: ...

    message = definition_error(resize)
    assert "resize" in message
    assert "Files" in message


@pytest.mark.parametrize("source", ["width: 'not python('", "width: 'functools.nothing'"])
def test_hints_that_are_not_types_are_refused(source: str) -> None:
    namespace: dict[str, Any] = {"__name__": __name__, "functools": functools}
    exec(f"def resize({source}): ...", namespace)  # noqa: S102
    assert "type hints cannot be read" in definition_error(namespace["resize"])


def test_a_reference_that_cannot_be_resolved_yet_is_an_error_of_its_own() -> None:
    def resize(params: NotThere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(UnresolvedReferenceError, match="NotThere"):
        skill(resize)


def test_a_model_with_an_open_reference_is_unresolved_too() -> None:
    class Open(pydantic.BaseModel):
        later: NotThere  # type: ignore[name-defined]  # noqa: F821

    def resize(params: Open) -> None: ...

    def make() -> Open:
        raise NotImplementedError

    def event() -> None: ...

    for func, options in ((resize, {}), (make, {}), (event, {"events": {"e": Open}}), (event, {"input_schema": Open})):
        with pytest.raises(UnresolvedReferenceError, match=r"NotThere|Open"):
            skill(func, **options)


def test_classes_of_the_enclosing_function_are_found() -> None:
    @dataclasses.dataclass
    class Local:
        width: Annotated[int, at.Gt(0)]

    def resize(params: Local) -> Local:
        return params

    assert call(resize, {"width": 2}) == Local(2)


# ------------------------------------------------------------------------------------------------------ injectables


def test_the_latest_provider_counts() -> None:
    injectables = Injectables()
    injectables.register(Files, lambda source: 1)
    injectables.register(Files, lambda source: 2)
    provider = injectables.provider_for(Files)
    assert provider is not None
    assert provider(Source({})) == 2
    assert injectables.names == ("Files",)


@pytest.mark.parametrize("annotation", [int, Files | int, list[Files], Annotated[int, []], "Files"], ids=str)
def test_other_annotations_have_no_provider(annotation: Any) -> None:
    injectables = Injectables()
    injectables.register(Files, lambda source: FILES)
    assert injectables.provider_for(annotation) is None


def test_a_copy_does_not_change_its_original() -> None:
    original = Injectables()
    copy = original.copy()
    copy.register(Files, lambda source: FILES)
    assert original.provider_for(Files) is None
    assert copy.provider_for(Files) is not None


def with_hint(name: str, annotation: Any) -> Callable[..., Any]:
    def func(**rest: Any) -> object:
        return rest

    kind = inspect.Parameter.KEYWORD_ONLY
    func.__signature__ = inspect.Signature([inspect.Parameter(name, kind, annotation=annotation)])  # type: ignore[attr-defined]
    func.__annotations__ = {name: annotation}
    return func


class Rank(enum.IntEnum):
    LOW = 1


class Labels(TypedDict):
    team: str


class Sends(Protocol):
    def __call__(self, progress: float, message: str = "") -> object: ...


JobId = NewType("JobId", str)


@pytest.mark.parametrize(
    ("name", "annotation"),
    [
        ("priority", str),
        ("priority", Literal["low", "high"]),
        ("priority", Rank),
        ("priority", bool),
        ("priority", Decimal),
        ("priority", Annotated[int, msgspec.Meta(ge=1)]),
        ("priority", pydantic.PositiveInt),
        ("deadline", str),
        ("deadline", datetime.datetime),
        ("deadline", datetime.datetime | None),
        ("metadata", Size),
        ("metadata", Area),
        ("metadata", Labels),
        ("metadata", Labels | None),
        ("metadata", list[str]),
        ("security", str),
        ("tracing_context", str),
        ("task_id", int),
        ("task_id", uuid.UUID),
        ("job_id", bytes),
        ("send_progress", bool),
        ("send_event", str),
        ("add_to_hot_cache", list[str]),
        ("remove_from_hot_skills", set),
    ],
    ids=str,
)
def test_a_hint_that_contradicts_what_a_name_is_filled_with_is_refused(name: str, annotation: Any) -> None:
    message = definition_error(with_hint(name, annotation))
    assert f"the argument {name!r} is filled with" in message
    assert "another name" in message
    assert f"params[{name!r}]" in message


@pytest.mark.parametrize(
    ("name", "annotation"),
    [
        ("priority", float),
        ("priority", int),
        ("priority", float | None),
        ("priority", Annotated[float, "higher is more urgent"]),
        ("priority", Annotated[float, msgspec.Meta(description="higher is more urgent")]),
        ("priority", numbers.Real),
        ("priority", Any),
        ("deadline", float | None),
        ("deadline", int),
        ("metadata", dict),
        ("metadata", dict[str, str]),
        ("metadata", Mapping[str, Any] | None),
        ("security", object),
        ("task_id", str),
        ("task_id", str | None),
        ("job_id", JobId),
        ("send_progress", Callable[..., Any]),
        ("send_event", Callable),
        ("send_progress", Sends),
        ("add_to_hot_cache", Callable[[str], None] | None),
    ],
    ids=str,
)
def test_a_hint_that_agrees_is_taken(name: str, annotation: Any) -> None:
    assert call(with_hint(name, annotation), {}) == {name: f"the {name}"}


def test_without_a_hint_the_default_stands_for_one() -> None:
    def skewed(priority="high"):  # type: ignore[no-untyped-def]
        return priority

    def fine(priority=0, metadata=None, send_progress=print, deadline=None):  # type: ignore[no-untyped-def]
        return priority

    assert "its default 'high' contradicts" in definition_error(skewed)
    assert call(fine, {}) == "the priority"


def test_a_positional_only_argument_with_a_contradicting_hint_is_refused() -> None:
    def func(priority: str, /) -> str:
        return priority

    assert "its type hint str contradicts" in definition_error(func)


# ------------------------------------------------------------------------------------------------------ partials


def search(term: str, /, unit: str = "px", *, api_key: str, files: Files, **rest: Any) -> object:
    return term, unit, api_key, files, rest


class Searching:
    def search(self, term: str, *, api_key: str) -> object:
        return term, api_key

    bound = functools.partialmethod(search, api_key="S3CRET")
    __call__ = functools.partialmethod(search, api_key="S3CRET")


def decorated(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs)

    return wrapper


_KEYED = functools.partial(lambda term, *, api_key: (term, api_key), api_key="S3CRET")
_KEYED.func.__annotations__["term"] = str


@pytest.mark.parametrize(
    "func",
    [
        _KEYED,
        functools.partial(_KEYED),
        decorated(_KEYED),
        functools.partial(decorated(_KEYED)),
        Searching().bound,
        Searching(),
    ],
    ids=["partial", "partial of it", "decorated", "partial of a decorated", "partialmethod", "callable object"],
)
def test_arguments_bound_by_a_partial_are_not_params(func: Callable[..., Any]) -> None:
    assert call(func, {"term": "x", "api_key": "the caller's"}, name="search") == ("x", "S3CRET")
    contract = skill(func, name="search").contract
    assert (contract.input_schema or {})["properties"].keys() == {"term"}
    assert "S3CRET" not in str(contract)


def test_arguments_bound_by_a_partial_are_not_injected() -> None:
    mine = Files()
    func = functools.partial(search, "x", api_key="k", files=mine, task_id="own")
    term, unit, api_key, files, rest = call(func, {"unit": "em", "files": 1, "task_id": "forged"}, name="search")
    assert (term, unit, api_key, files) == ("x", "em", "k", mine)
    assert rest.pop("task_id") == "own"
    assert rest.keys() == set(INJECTED_NAMES) - {"task_id"}
    assert Files not in skill(func, name="search").injects
    assert (skill(func, name="search").contract.input_schema or {})["properties"].keys() == {"unit"}


def test_params_bound_by_a_partial_come_from_nowhere_else() -> None:
    def resize(params: Size, width: int) -> object:
        return params, width

    bound = Size(width=5)
    assert call(functools.partial(resize, params=bound), {"width": 1}, name="resize") == (bound, 1)
