"""Tracebacks in the log: the user's frames are all there, the package's are folded."""

import asyncio
import gc
import weakref
from collections.abc import Mapping

import pytest

from avtomatika_worker.demo_app.invoice import totals
from avtomatika_worker.errors import PermanentError, SkillLoadError
from avtomatika_worker.execution import runners
from avtomatika_worker.execution.outcome import from_exception
from avtomatika_worker.execution.tracebacks import folded_traceback
from avtomatika_worker.skills import jsonable as plain
from avtomatika_worker.skills.loading import load_directory

MARK = "of avtomatika_worker]"


def by_the_package(func):
    """Call ``func`` as the package calls a plain def skill."""
    return runners._call(func, [], {})  # noqa: SLF001 - a frame of the package is what this is about


def caught(func):
    with pytest.raises(BaseException) as info:
        by_the_package(func)
    return info.value.with_traceback(info.value.__traceback__.tb_next)  # without the test's own


def raising(error):
    def fails():
        raise error

    return fails


def test_what_led_to_the_users_code_is_left_out():
    def fails():
        raise ValueError("no")

    text = folded_traceback(caught(fails))
    assert text.count("  File ") == 2  # `by_the_package` and `fails`: both stand in this file
    assert "runners.py" not in text
    assert text.endswith("ValueError: no")


def test_frames_of_the_package_below_the_users_are_counted():
    class Odd(Mapping):  # type: ignore[type-arg]
        def __getitem__(self, key):
            raise ZeroDivisionError("odd")

        def __iter__(self):
            return iter("a")

        def __len__(self):
            return 1

    def fails():
        plain.to_plain([Odd()])

    text = folded_traceback(caught(fails))
    assert "in fails" in text
    assert "in __getitem__" in text
    assert "plain.py" not in text
    assert MARK in text


def test_a_chain_and_a_group_are_folded_in_each_part():
    def cause():
        raise KeyError("cause")

    def fails():
        try:
            by_the_package(cause)
        except KeyError as error:
            raise ExceptionGroup("two", [caught(cause), ValueError("plain")]) from error

    text = folded_traceback(caught(fails))
    assert "runners.py" not in text
    assert "direct cause" in text
    assert text.count("in cause") == 2
    assert "ValueError: plain" in text


def test_frames_of_the_demo_count_as_a_users():
    text = folded_traceback(caught(lambda: totals([(1, None)], 0)))
    assert "invoice.py" in text


def test_a_fault_of_the_package_alone_keeps_its_frames():
    with pytest.raises(TypeError) as info:
        by_the_package(None)
    ours = info.value.with_traceback(info.value.__traceback__.tb_next.tb_next)  # without those of this file
    assert "runners.py" in folded_traceback(ours)


def test_what_a_failure_is_made_of_holds_no_frame():
    class Model:
        pass

    def fails():
        model = Model()
        seen.append(weakref.ref(model))
        raise ValueError("no")

    seen = []
    gc.disable()
    try:
        try:
            by_the_package(fails)
        except ValueError as error:
            failed = from_exception(error)
        assert "in fails" in failed.traceback
        assert seen[0]() is None
    finally:
        gc.enable()


def test_only_what_was_not_foreseen_has_a_traceback():
    async def expected():
        raise PermanentError("never")

    with pytest.raises(PermanentError) as info:
        asyncio.run(expected())
    assert from_exception(info.value).traceback == ""


class UnreadableError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class NotedError(Exception):
    @property
    def __notes__(self):
        raise RuntimeError("no notes")


class ForeignError(PermanentError):
    """A class of a user's that does not call our __init__."""

    def __init__(self, *args):
        Exception.__init__(self, *args)


def test_errors_that_misbehave_are_reported_all_the_same():
    assert from_exception(UnreadableError()).message == "UnreadableError: (its __str__ raised RuntimeError)"
    assert from_exception(caught(raising(NotedError("x")))).message == "NotedError: x"
    assert from_exception(ForeignError("why")).message == "why"
    assert from_exception(PermanentError(ValueError("inner"))).message == "inner"


@pytest.mark.parametrize(
    "text", ["raise ValueError('no')", "import nothing_like_this", "from ._broken_too import x", "def ("]
)
def test_a_module_that_cannot_be_imported_shows_its_own_lines_alone(tmp_path, text):
    directory = tmp_path / f"skills_{len(text)}"
    directory.mkdir()
    (directory / "broken.py").write_text(text)
    (directory / "_broken_too.py").write_text("x = 1 +")
    with pytest.raises(SkillLoadError) as info:
        load_directory(directory, on_error="stop", on_problem=lambda _: None)
    shown = folded_traceback(info.value.__cause__)
    assert "importlib" not in shown
    assert "loading.py" not in shown
    assert "broken.py" in shown
