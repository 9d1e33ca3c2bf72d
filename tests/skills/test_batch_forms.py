"""The forms of a batch besides lists: models whose fields are lists, and arrays."""

from __future__ import annotations

import base64
import dataclasses
import inspect
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import msgspec
import pydantic
import pytest
from pydantic.dataclasses import dataclass as pydantic_dataclass

from avtomatika_worker import Batch, InvalidInputError, SkillDefinitionError, TaskContext, TransientError
from avtomatika_worker.execution.injection import injectables
from avtomatika_worker.skills.skill import define

T = TypeVar("T")


@dataclasses.dataclass
class Rows(Generic[T]):
    """Texts to work on."""

    text: list[str]
    extra: list[T]

    def __post_init__(self) -> None:
        if "busy" in self.text:
            raise TransientError("busy")
        if "" in self.text:
            raise ValueError("a text is empty")


class Typed(TypedDict):
    text: list[str]
    extra: list[int | None]


class Named(NamedTuple):
    text: list[str]
    extra: list[int | None]


class Struct(msgspec.Struct, rename={"text": "Text"}, forbid_unknown_fields=True):
    text: list[str]
    extra: list[int | None]


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")
    text: list[Annotated[str, pydantic.Field(min_length=1)]] = pydantic.Field(alias="Text", description="What to read")
    extra: Annotated[list[int | None], pydantic.Field(max_length=3)]

    @pydantic.field_validator("extra")
    @classmethod
    def no_thirteen(cls, value: list[int | None]) -> list[int | None]:
        if 13 in value:
            raise ValueError("no thirteen")
        return value


@pydantic_dataclass
class Pydantic:
    text: list[str] = pydantic.Field(alias="Text")
    extra: list[int | None] = pydantic.Field()


def skill_of(hint, *, name="params", returns=list[int]):
    """Return a batched skill with one argument."""

    def func(**_): ...

    parameter = inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    func.__signature__ = inspect.Signature([parameter])
    func.__annotations__ = {name: hint, "return": returns}
    return define(func, batch=Batch()).compile(injectables())


class Early(pydantic.BaseModel):
    text: list[Later]
    extra: list[int]


class Later(pydantic.BaseModel):
    n: int


class Source:
    def __init__(self, params):
        self.params = params


def merged(skill, *params):
    sources = [Source(each) for each in params]
    return skill.merged([skill.arguments(each, skill.convert(each.params)) for each in sources])


Next = Annotated[int, pydantic.AfterValidator(lambda n: n + 1)]


class Converting(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, strict=True)

    text: list[pydantic.Base64Str] = pydantic.Field(alias="Text", min_length=1)
    extra: list[Next]

    @pydantic.field_validator("text")
    @classmethod
    def ended(cls, value: list[str]) -> list[str]:
        return [f"{each}!" for each in value]


@pydantic_dataclass(frozen=True, slots=True)
class ConvertingDataclass:
    extra: list[Next]
    text: list[pydantic.Base64Str] = pydantic.Field(alias="Text")

    @pydantic.field_validator("text")
    @classmethod
    def ended(cls, value: list[str]) -> list[str]:
        return [f"{each}!" for each in value]


@pytest.mark.parametrize("kind", [Converting, ConvertingDataclass], ids=lambda kind: kind.__name__)
def test_an_item_is_converted_once_although_its_model_is_made_twice(kind):
    """Once for its task alone, and once for the batch."""
    first, second = (base64.b64encode(base64.b64encode(each)).decode() for each in (b"a", b"b"))
    value = merged(skill_of(kind), {"Text": first, "extra": 1}, {"Text": second, "extra": 2})["params"]
    assert type(value) is kind
    assert (value.text, value.extra) == (["YQ==!", "Yg==!"], [2, 3])


def fields(value):
    return value if isinstance(value, dict) else {name: getattr(value, name) for name in ("text", "extra")}


@pytest.mark.parametrize(
    ("kind", "written"),
    [
        (Rows[int | None], "text"),
        (Typed, "text"),
        (Named, "text"),
        (Struct, "Text"),
        (Model, "Text"),
        (Pydantic, "Text"),
    ],
    ids=str,
)
def test_a_model_of_lists_announces_one_item_of_each_and_gets_those_of_all_tasks(kind, written):
    skill = skill_of(kind)
    schema = skill.contract.input_schema
    assert schema["properties"][written]["type"] == "string"
    assert schema["properties"]["extra"]["anyOf"] == [{"type": "integer"}, {"type": "null"}]
    assert schema["required"] == [written]
    value = merged(skill, {written: "a", "extra": 1}, {written: "b"})["params"]
    assert isinstance(value, getattr(kind, "__origin__", dict if kind is Typed else kind))
    assert fields(value) == {"text": ["a", "b"], "extra": [1, None]}


def test_what_a_class_declares_about_itself_and_its_items_is_announced():
    assert skill_of(Rows[int]).contract.input_schema["description"] == "Texts to work on."
    schema = skill_of(Model).contract.input_schema
    assert schema["properties"]["Text"]["description"] == "What to read"
    assert schema["properties"]["Text"]["minLength"] == 1
    assert schema["additionalProperties"] is False
    assert skill_of(Struct).contract.input_schema["additionalProperties"] is False


def test_an_argument_of_another_name_is_a_field_that_holds_the_object():
    skill = skill_of(Typed, name="query")
    assert skill.contract.input_schema["properties"].keys() == {"query"}
    value = merged(skill, {"query": {"text": "a"}}, {"query": {"text": "b"}})
    assert value == {"query": {"text": ["a", "b"], "extra": [None, None]}}


@pytest.mark.parametrize(
    ("kind", "params", "problem"),
    [
        (Rows[int], {"text": "", "extra": 1}, "params: a text is empty"),
        (Rows[int], {"text": ["a"], "extra": 1}, "params.text: expected string, got array"),
        (Model, {"Text": "", "extra": 1}, "params.Text: String should have at least 1 character"),
        (Model, {"Text": "a", "extra": 13}, "params.extra: Value error, no thirteen"),
        (Model, {"Text": "a", "more": 1}, "params.more: Extra inputs are not permitted"),
        (Struct, {"Text": "a", "more": 1}, "params.more: is not a known field"),
    ],
    ids=str,
)
def test_params_that_a_models_constructor_refuses_fail_their_task(kind, params, problem):
    with pytest.raises(InvalidInputError) as caught:
        skill_of(kind).convert(params)
    assert str(caught.value) == f"invalid input: {problem}"


def test_a_model_may_refer_to_one_that_comes_after_it():
    value = merged(skill_of(Early), {"text": {"n": 1}, "extra": 1}, {"text": {"n": 2}, "extra": 2})["params"]
    assert value == Early(text=[Later(n=1), Later(n=2)], extra=[1, 2])


def test_a_constructor_may_decide_the_outcome_of_a_batched_task():
    with pytest.raises(TransientError, match="busy"):
        skill_of(Rows[int]).convert({"text": "busy", "extra": 1})


def test_key_and_cost_get_an_object_with_one_item_of_each():
    assert skill_of(Rows[int]).convert({"text": "a", "extra": 1}).text == "a"
    assert skill_of(Model).convert({"Text": "a", "extra": 1}).text == "a"
    assert skill_of(Typed).convert({"text": "a", "extra": 1})["text"] == "a"


# ---------------------------------------------------------------------------------------------- refused


@dataclasses.dataclass
class Mixed:
    text: list[str]
    temperature: float


@dataclasses.dataclass
class Defaulted:
    text: list[str] = dataclasses.field(default_factory=list)


class DefaultedModel(pydantic.BaseModel):
    text: list[str] = []


class Partial(TypedDict, total=False):
    text: list[str]


@dataclasses.dataclass
class Limited:
    text: Annotated[list[str], msgspec.Meta(max_length=3)]


@pydantic_dataclass
class WithInitVar:
    text: list[str]
    scale: dataclasses.InitVar[list[int]]


class Empty(pydantic.BaseModel):
    pass


class Root(pydantic.RootModel[list[int]]):
    pass


class Path(pydantic.BaseModel):
    text: list[str] = pydantic.Field(validation_alias=pydantic.AliasPath("a", 0))


ALL = "write list[…], a model whose fields are all lists, or a NumPy array"


@pytest.mark.parametrize(
    ("hint", "problem"),
    [
        (Mixed, f"the type hint Mixed (its field 'temperature' is no list but float): {ALL}"),
        (Defaulted, "the type hint Defaulted (its field 'text' has a default, and lists have none"),
        (DefaultedModel, "(its field 'text' has a default, and lists have none: let items be optional instead, list["),
        (Partial, "the type hint Partial (its field 'text' has a default"),
        (Path, "the type hint Path (its field 'text' has an alias that is no name)"),
        (Limited, "(its constraint is one of the items: write list[Annotated[…]])"),
        (Annotated[list[Typed], pydantic.Field(max_length=3)], "(its constraint is one of the items"),
        (Annotated[list[Typed], pydantic.AfterValidator(list)], "(its constraint is one of the items"),
        (WithInitVar, "the type hint WithInitVar (its field 'scale' is an InitVar)"),
        (Empty, f"the type hint Empty: {ALL}"),
        (Root, f"the type hint Root: {ALL}"),
        (dict[str, list[int]], f"the type hint dict: {ALL}"),
        (tuple[int, ...], f"the type hint tuple: {ALL}"),
        (Typed | None, f"Typed | None: {ALL}"),
        (Any, f"the type hint Any: {ALL}"),
    ],
    ids=str,
)
def test_an_unsupported_form_is_refused_with_the_supported_ones(hint, problem):
    with pytest.raises(SkillDefinitionError) as caught:
        skill_of(hint)
    assert "the argument 'params' of a batched skill" in str(caught.value)
    assert problem in str(caught.value)


def test_a_description_of_a_list_is_not_a_constraint():
    for said in (msgspec.Meta(description="Texts"), pydantic.Field(description="Texts"), "texts"):
        assert skill_of(Annotated[list[Typed], said]).contract.input_schema["properties"].keys() == {"text", "extra"}


@pytest.mark.parametrize(("name", "hint"), [("ctx", TaskContext), ("task_id", Typed)])
def test_injected_arguments_of_a_batch_must_be_lists(name, hint):
    with pytest.raises(SkillDefinitionError, match=rf"argument '{name}' of a batched skill .* write list\[…\]$"):
        skill_of(hint, name=name)


def test_a_list_of_models_is_a_list_whatever_the_models_hold():
    skill = skill_of(list[Typed])
    assert skill.contract.input_schema["properties"]["text"]["type"] == "array"
    assert merged(skill, {"text": ["a"], "extra": []})["params"] == [{"text": ["a"], "extra": []}]


# ---------------------------------------------------------------------------------------------- arrays


def test_arrays_are_stacked_along_a_new_first_axis_and_divide_batches_by_shape():
    np = pytest.importorskip("numpy")
    skill = skill_of(np.typing.NDArray[np.float32], name="image", returns=np.typing.NDArray[np.float32])
    assert skill.contract.input_schema["properties"]["image"]["type"] == ["array", "number"]
    stacked = merged(skill, {"image": [[1, 2]]}, {"image": [[3, 4]]})["image"]
    assert (stacked.dtype.name, stacked.tolist()) == ("float32", [[[1, 2]], [[3, 4]]])
    same, also, other = (skill.convert({"image": each}) for each in ([1, 2], [3, 4], [5]))
    assert skill.forms.key(same) == skill.forms.key(also) != skill.forms.key(other)


def test_the_axes_of_an_array_are_one_less_for_a_task():
    np = pytest.importorskip("numpy")
    grid = np.ndarray[tuple[int, int, Literal[3]], np.dtype[np.uint8]]
    skill = skill_of(grid, name="pixels", returns=np.ndarray[tuple[int], np.dtype[np.float64]])
    schema = skill.contract.input_schema["properties"]["pixels"]
    assert (schema["items"]["maxItems"], schema["items"]["items"]["type"]) == (3, "integer")
    assert skill.contract.output_schema["properties"]["result"] == {"type": "number"}
    value = merged(skill, {"pixels": [[1, 2, 3]]}, {"pixels": [[4, 5, 6]]})["pixels"]
    assert value.shape == (2, 1, 3)


def test_models_may_hold_arrays():
    np = pytest.importorskip("numpy")
    array = np.typing.NDArray[np.float64]

    class Image(pydantic.BaseModel, arbitrary_types_allowed=True):
        pixels: np.ndarray
        label: list[str]

    plain = dataclasses.make_dataclass("Plain", [("pixels", array), ("label", list[str])])
    for kind in (Image, plain):
        skill = skill_of(kind)
        value = merged(skill, {"pixels": [1, 2], "label": "a"}, {"pixels": [3, 4], "label": "b"})["params"]
        assert (value.pixels.tolist(), value.label) == ([[1, 2], [3, 4]], ["a", "b"])
        one, other = (skill.convert({"pixels": each, "label": "a"}) for each in ([1], [1, 2]))
        assert skill.forms.key(one) != skill.forms.key(other)
        with pytest.raises(InvalidInputError, match="of equal lengths"):
            skill.convert({"pixels": [[1], [1, 2]], "label": "a"})


def test_arrays_may_be_mixed_with_types_of_pydantic():
    np = pytest.importorskip("numpy")
    array = np.typing.NDArray[np.float64]

    class Meta(pydantic.BaseModel):
        label: str

    def func(image, crops, meta): ...

    func.__annotations__ = {"image": array, "crops": list[list[array] | None], "meta": list[Meta], "return": list[int]}
    skill = define(func, batch=Batch()).compile(injectables())
    assert skill.contract.input_schema["properties"]["image"]["type"] == ["array", "number"]
    value = merged(skill, {"image": [1], "crops": [[1], [2, 3]], "meta": {"label": "a"}})
    assert (value["image"].tolist(), value["meta"]) == ([[1]], [Meta(label="a")])
    assert [each.tolist() for each in value["crops"][0]] == [[1], [2, 3]]
    with pytest.raises(InvalidInputError, match=r"params\.image: .*a number is out of the range|Expected `float`"):
        skill.convert({"image": ["x"], "crops": None, "meta": {"label": "a"}})


def test_an_array_that_cannot_be_a_batch_is_refused_with_the_reason():
    np = pytest.importorskip("numpy")
    fixed = np.ndarray[tuple[Literal[4], int], np.dtype[np.float64]]
    for hint, problem in [
        (fixed, "is the batch, whose size differs: write int"),
        (np.ndarray[tuple[()], np.dtype[np.float64]], "has no axis"),
        (np.typing.NDArray[np.str_], "are no numbers that JSON has"),
    ]:
        with pytest.raises(SkillDefinitionError) as caught:
            skill_of(hint, name="image")
        assert problem in str(caught.value)
        with pytest.raises(SkillDefinitionError, match="its result"):
            skill_of(list[int], name="n", returns=hint)
    with pytest.raises(SkillDefinitionError, match="params are always an object"):
        skill_of(np.typing.NDArray[np.float64])
