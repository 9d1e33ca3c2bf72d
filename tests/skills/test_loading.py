"""A directory of skills becomes a package, and what cannot be imported is reported."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from avtomatika_worker.errors import SkillLoadError
from avtomatika_worker.skills.loading import LoadedSkills, load_directory

BLUEPRINT = """
    from avtomatika_worker.skills.blueprint import SkillBlueprint
    bp = SkillBlueprint({name!r})

    @bp.skill
    def {name}(): ...
"""


@pytest.fixture(autouse=True)
def _clean_imports() -> Iterator[None]:
    modules, path = set(sys.modules), list(sys.path)
    yield
    assert sys.path == path
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    importlib.invalidate_caches()


def write(directory: Path, **files: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / f"{name}.py").write_text(dedent(text))
    return directory


def load(directory: Path) -> LoadedSkills:
    def unexpected(problem: SkillLoadError) -> None:
        raise problem

    return load_directory(directory, on_error="stop", on_problem=unexpected)


def skills(loaded: LoadedSkills) -> list[str]:
    return [definition.name for blueprint in loaded.blueprints for definition in blueprint.definitions]


def test_modules_are_loaded_in_the_order_of_their_names(tmp_path: Path) -> None:
    directory = write(tmp_path / "my_skills", b=BLUEPRINT.format(name="second"), a=BLUEPRINT.format(name="first"))
    loaded = load(directory)
    assert skills(loaded) == ["first", "second"]
    assert loaded.modules == ["my_skills", "my_skills.a", "my_skills.b"]


def test_a_directory_that_does_not_exist_holds_nothing(tmp_path: Path) -> None:
    assert load(tmp_path / "nowhere_at_all") == LoadedSkills()
    assert "nowhere_at_all" not in sys.modules


@pytest.mark.parametrize("with_init", [False, True])
@pytest.mark.parametrize("line", ["from ._helper import NAME", "from my_skills._helper import NAME"])
def test_modules_import_each_other(tmp_path: Path, with_init: bool, line: str) -> None:
    directory = write(
        tmp_path / "my_skills",
        _helper="NAME = 'helped'",
        a=f"{line}\nfrom avtomatika_worker.skills.blueprint import SkillBlueprint\nbp = SkillBlueprint(NAME)",
    )
    if with_init:
        write(directory, __init__="")
    assert [blueprint.name for blueprint in load(directory).blueprints] == ["helped"]


def test_helpers_are_not_scanned(tmp_path: Path) -> None:
    directory = write(tmp_path / "my_skills", _helper="raise RuntimeError", a=BLUEPRINT.format(name="first"))
    assert load(directory).modules == ["my_skills", "my_skills.a"]


def test_sub_packages_are_loaded(tmp_path: Path) -> None:
    directory = tmp_path / "my_skills"
    write(directory / "images", __init__="from .thumbs import bp", thumbs=BLUEPRINT.format(name="thumb"))
    assert skills(load(directory)) == ["thumb"]


def test_a_blueprint_seen_in_several_modules_is_taken_once(tmp_path: Path) -> None:
    directory = write(
        tmp_path / "my_skills",
        __init__="from .b import bp",
        a="from .b import bp\nfrom .b import bp as again",
        b=BLUEPRINT.format(name="first"),
    )
    assert skills(load(directory)) == ["first"]


def test_setups_are_taken_where_they_are_defined(tmp_path: Path) -> None:
    directory = write(
        tmp_path / "my_skills",
        a="def setup(worker): return 'set up'",
        b="from .a import setup",
        c="setup = 'no function'",
    )
    (setup,) = load(directory).setups
    assert setup(None) == "set up"


def test_classes_of_skills_can_be_pickled(tmp_path: Path) -> None:
    load(write(tmp_path / "my_skills", a="class Size:\n    width = 3"))
    size = pickle.loads(pickle.dumps(sys.modules["my_skills.a"].Size()))  # noqa: S301
    assert type(size) is sys.modules["my_skills.a"].Size


@pytest.mark.parametrize("name", ["json", "avtomatika_worker", "wave"], ids=["imported", "ours", "not yet imported"])
def test_a_name_that_belongs_to_something_else_is_left_alone(tmp_path: Path, name: str) -> None:
    directory = write(
        tmp_path / name, _helper="NAME = 'own'", a=BLUEPRINT.format(name="first") + "\n    from ._helper import NAME"
    )
    loaded = load(directory)
    assert skills(loaded) == ["first"]
    assert loaded.modules[0] != name
    assert loaded.modules[0].startswith(name)
    assert Path(str(importlib.import_module(name).__file__)).parent != directory


@pytest.mark.parametrize("name", ["my-skills", "1st", "skills.d"])
def test_the_name_of_a_directory_need_not_be_valid_for_a_module(tmp_path: Path, name: str) -> None:
    loaded = load(write(tmp_path / name, a=BLUEPRINT.format(name="first")))
    assert skills(loaded) == ["first"]
    assert loaded.modules[0].isidentifier()


def test_two_directories_of_one_name_do_not_mix(tmp_path: Path) -> None:
    one = load(write(tmp_path / "one" / "my_skills", a=BLUEPRINT.format(name="first")))
    two = load(write(tmp_path / "two" / "my_skills", a=BLUEPRINT.format(name="second")))
    assert (skills(one), skills(two)) == (["first"], ["second"])


def test_a_package_that_is_imported_already_is_not_imported_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write(tmp_path / "my_skills", a=BLUEPRINT.format(name="first"))
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        blueprint = importlib.import_module("my_skills.a").bp
    assert load(directory).blueprints == [blueprint]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("raise RuntimeError('no GPU')", "RuntimeError: no GPU"),
        ("import nothing_of_that_name", "nothing_of_that_name"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
    ],
    ids=["raises", "imports", "syntax", "exits"],
)
def test_a_module_that_cannot_be_imported_stops_the_loading(tmp_path: Path, text: str, named: str) -> None:
    directory = write(tmp_path / "my_skills", a=text, b=BLUEPRINT.format(name="second"))
    with pytest.raises(SkillLoadError, match=named) as caught:
        load(directory)
    assert caught.value.path == str(directory / "a.py")
    assert type(caught.value.__cause__).__name__ in {"RuntimeError", "ModuleNotFoundError", "SyntaxError", "SystemExit"}


def test_with_skip_the_others_are_loaded_and_the_problem_is_reported(tmp_path: Path) -> None:
    directory = write(tmp_path / "my_skills", a="raise RuntimeError('no GPU')", b=BLUEPRINT.format(name="second"))
    problems: list[SkillLoadError] = []
    loaded = load_directory(directory, on_error="skip", on_problem=problems.append)
    assert skills(loaded) == ["second"]
    assert [problem.path for problem in problems] == [str(directory / "a.py")]
    assert isinstance(problems[0].__cause__, RuntimeError)


def test_a_package_that_cannot_be_imported_is_reported_too(tmp_path: Path) -> None:
    directory = write(tmp_path / "my_skills", __init__="raise RuntimeError('no GPU')")
    problems: list[SkillLoadError] = []
    assert load_directory(directory, on_error="skip", on_problem=problems.append) == LoadedSkills()
    assert problems[0].path == str(directory / "__init__.py")
    assert "my_skills" not in sys.modules


# ------------------------------------------------------------------------------------------- inside of a package


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in the import path."""
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        yield tmp_path


@pytest.mark.parametrize("with_init", [True, False], ids=["package", "namespace"])
def test_in_a_package_modules_have_their_real_names_and_relative_imports_work(root: Path, with_init: bool) -> None:
    write(root / "my_project", models="NAME = 'helped'")
    directory = write(
        root / "my_project" / "skills",
        a="from ..models import NAME\nfrom avtomatika_worker import SkillBlueprint\nbp = SkillBlueprint(NAME)",
    )
    if with_init:
        write(root / "my_project", __init__="")
    loaded = load(directory)
    assert loaded.modules == ["my_project.skills", "my_project.skills.a"]
    assert loaded.blueprints == [importlib.import_module("my_project.skills.a").bp]
    assert loaded.made is None


def test_a_module_that_the_program_imports_itself_is_loaded_once(root: Path) -> None:
    write(root / "my_project", __init__="")
    directory = write(root / "my_project" / "skills", a=BLUEPRINT.format(name="first"))
    imported = importlib.import_module("my_project.skills.a")
    assert load(directory).blueprints == [imported.bp]
    assert [name for name, each in sys.modules.items() if getattr(each, "__file__", None) == imported.__file__] == [
        "my_project.skills.a"
    ]


def test_a_package_that_cannot_be_imported_names_its_own_init(root: Path) -> None:
    write(root / "my_project", __init__="raise RuntimeError('no GPU')")
    directory = write(root / "my_project" / "skills", a=BLUEPRINT.format(name="first"))
    with pytest.raises(SkillLoadError, match="no GPU") as caught:
        load(directory)
    assert caught.value.path == str(root / "my_project" / "__init__.py")


def test_a_package_of_that_name_elsewhere_is_not_mistaken_for_the_directory(tmp_path: Path) -> None:
    directory = write(tmp_path / "json" / "tool", a=BLUEPRINT.format(name="first"))
    loaded = load(directory)
    assert skills(loaded) == ["first"]
    assert not loaded.modules[0].startswith("json")


def test_modules_of_one_name_in_nested_directories_are_both_loaded(root: Path) -> None:
    for each in ("images", "texts"):
        write(
            root / "my_project" / "skills" / each,
            __init__="from .convert import bp",
            convert=BLUEPRINT.format(name=each),
        )
    write(root / "my_project", __init__="")
    assert skills(load(root / "my_project" / "skills")) == ["images", "texts"]
