"""Finds the user's worker and its settings; an error becomes one line with a hint, and exit code 2."""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import inspect
import os
import sys
import tomllib
import traceback
from collections.abc import Generator
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NoReturn

import click

from avtomatika_worker._boundaries import attempted
from avtomatika_worker.cli.terminal import echo
from avtomatika_worker.config import Settings, read_env_file, read_setting, unknown_variables
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.execution.processes.imports import modules_in
from avtomatika_worker.narrowing import is_dict
from avtomatika_worker.protocol.coerce import as_object
from avtomatika_worker.worker import Worker
from avtomatika_worker.worker.program import EXIT_USAGE, USAGE_ERRORS, explain

USUAL: Final = ("app.main:worker", "main:worker", "worker:worker")
"""Where the Worker is if nothing names it: the first of these in the working directory."""

_MAIN_HINT: Final = 'put calls such as worker.run() under: if __name__ == "__main__"'

_LOADED_LATE: Final = (
    "aiohttp",
    "avtomatika_worker.observability.otel",
    "ctypes",
    "encodings.idna",
    "jsonschema_rs",
    "obstore.exceptions",
    "obstore.store",
    "traceback",
    "uvloop",
)
"""The modules that ours import only when needed: libraries, and their own imports."""


class UsageProblem(click.ClickException):
    """An error that the user can correct. Written as ``worker: …``; exit code 2."""

    exit_code = EXIT_USAGE

    def show(self, file: Any = None) -> None:
        """Write the line."""
        echo(f"worker: {self.message}", err=True, file=file)


class _Explained(UsageProblem):
    """An error found by the package itself, written by `explain`."""

    def __init__(self, error: Exception) -> None:
        super().__init__("; ".join(error.problems) if isinstance(error, ConfigError) else str(error))
        self._error = error

    def show(self, file: Any = None) -> None:  # noqa: ARG002 - as click calls it
        """Write a line for each problem."""
        explain(self._error)


@contextlib.contextmanager
def usage_errors() -> Generator[None]:
    """Turn an error in a configuration, a skill or a resource into a `UsageProblem`: exit code 2."""
    try:
        yield
    except USAGE_ERRORS as error:
        raise _Explained(error) from error


class AppNotFoundError(UsageProblem):
    """Nothing names a Worker, and there is none under the usual names."""


def load_app(path: str | None) -> Worker:
    """Import the worker that ``path`` (``module:attribute``) names, after reading the .env file.

    Without a path, ``WORKER_APP`` names it, then ``app`` under ``[tool.avtomatika-worker]`` in pyproject.toml; else
    it is the first Worker of `USUAL`.
    """
    read_dotenv()
    if path is not None:
        return _load("--app", path)
    if (named := read_setting(os.environ, "app")) is not None:
        return _load("WORKER_APP", named)
    if (named := app_in_pyproject(Path("pyproject.toml"))) is not None:
        return _load("pyproject.toml, app", named)
    return _first_of_usual()


def app_in_pyproject(file: Path) -> str | None:
    """Return ``app`` under ``[tool.avtomatika-worker]``, or None. Exits with code 2 if it cannot be read."""
    try:
        whole = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageProblem(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # not TOML, or not UTF-8; or nested thousands of times
        raise UsageProblem(f"{file}: not valid TOML: {error}") from error
    table = as_object(whole.get("tool")).get("avtomatika-worker", {})
    if not is_dict(table):
        raise UsageProblem(f"{file}: [tool.avtomatika-worker]: it should be a table with one key, app")
    if unknown := sorted(table.keys() - {"app"}):
        raise UsageProblem(f"{file}: [tool.avtomatika-worker]: unknown key {unknown[0]!r}; it may have one key, app")
    app = table.get("app")
    if not isinstance(app, str | None):
        raise UsageProblem(f"{file}: [tool.avtomatika-worker]: app should be a string such as 'app.main:worker'")
    return app


def _first_of_usual() -> Worker:
    """Return the first worker under a usual name. A file of such a name is imported; if that fails, it is reported."""
    tried: list[str] = []
    for path in USUAL:
        module_name, _, attribute = path.partition(":")
        file = Path(*module_name.split("."))
        places = (file.with_suffix(".py"), file / "__init__.py")
        if not any(each.is_file() for each in places):
            tried.append(f"{path} (there is no {places[0]})")
            continue
        module = _import(module_name, "without --app")
        with _users_code("without --app", f"reading {attribute}"):
            found = getattr(module, attribute, None)
        if isinstance(found, Worker):
            return found
        tried.append(f"{path} ({_no_worker(module_name, attribute, module)})")
    raise AppNotFoundError(
        "there is no --app, no WORKER_APP, and no app under [tool.avtomatika-worker] in pyproject.toml; tried "
        f"{', '.join(tried)}; give --app module:attribute, or run this from the project's directory"
    )


def _load(source: str, path: str) -> Worker:
    """Import the worker that ``path`` names; messages begin with ``source``, where the path comes from."""
    module_name, colon, attribute = path.partition(":")
    where = f"{source} {path!r}"
    if not (colon and all(module_name.split(".")) and all(attribute.split("."))):
        raise UsageProblem(f"{where}: write it as module:attribute, such as app.main:worker")
    found: Any = _import(module_name, source)
    for part in attribute.split("."):
        with _users_code(where, f"reading {part}"):  # it may be a property, or the module have a __getattr__
            if not hasattr(found, part):
                raise UsageProblem(f"{where}: {_no_worker(module_name, part, found)}")
            found = getattr(found, part)
    if not isinstance(found, Worker) and callable(found):
        found = _call(where, found)
    if not isinstance(found, Worker):
        raise UsageProblem(f"{where}: {attribute} is of type {type(found).__name__}, not a Worker")
    return found


def load_settings(worker: Worker, **overrides: str) -> Settings:
    """Return the worker's settings from the environment and ``overrides``. Exits with code 2 if one is wrong."""
    for message in unknown_variables(os.environ):
        echo(f"worker: {message}", err=True)
    try:
        return worker.load_settings({**os.environ, **overrides})
    except ConfigError as error:
        _exit(error)


def load_skills(worker: Worker, settings: Settings) -> None:
    """Load and check every skill. Exits with code 2 if one is wrong."""
    try:
        worker.load_skills(settings)
    except USAGE_ERRORS as error:
        _exit(error)


def read_dotenv() -> None:
    """Read the .env file of the working directory; variables already in the environment win."""
    path = Path(".env")
    if path.exists() and not (path / "pyvenv.cfg").exists():  # some name their virtual environment so
        try:
            variables = read_env_file(path)
        except ConfigError as error:
            _exit(error)
        for name, value in variables.items():
            os.environ.setdefault(name, value)


def _exit(error: Exception) -> NoReturn:
    raise _Explained(error) from error


def _import(name: str, source: str) -> ModuleType:
    try:
        here = str(Path.cwd())
    except FileNotFoundError as error:
        raise UsageProblem(f"{source}: the working directory does not exist anymore; change to another one") from error
    if here not in sys.path:
        _load_our_own(here)
        sys.path.insert(0, here)
    with _users_code(source, f"importing {name}", exit_hint=_MAIN_HINT):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
                raise
            if (Path.cwd() / name).is_file():
                module = name.removesuffix(".py").replace("/", ".")
                raise UsageProblem(f"{source}: {name!r} is a file; write the module's name: {module}") from error
            hint = f"run this from the directory that holds {name.split('.')[0]}.py or the package, or set PYTHONPATH"
            raise UsageProblem(f"{source}: there is no module {error.name!r} in {here} ({hint})") from error


@contextlib.contextmanager
def _users_code(source: str, doing: str, *, exit_hint: str = "it must not exit") -> Generator[None]:
    """Turn whatever the user's code raises into a `UsageProblem`: exit code 2, which nothing takes for an end in order.

    Ctrl+C stays what it is.
    """
    try:
        yield
    except (UsageProblem, KeyboardInterrupt):
        raise
    except SystemExit as error:
        raise UsageProblem(f"{source}: {doing} ended the process, exit code {error.code or 0} ({exit_hint})") from error
    except BaseException as error:
        raise _broken(source, doing, error) from error


def _load_our_own(directory: str) -> None:
    """Load the worker's late imports now if a module in the user's directory has the name of a library's.

    With the directory first in the import path, an ``aiohttp.py`` there would be taken for the library.
    """
    if not any(_belongs_to_a_library(name, file) for name, file in modules_in(directory)):
        return
    for name in _LOADED_LATE:
        with contextlib.suppress(ImportError):  # of an extra that is not installed
            importlib.import_module(name)


def _belongs_to_a_library(name: str, file: str) -> bool:
    if name in sys.stdlib_module_names:
        return True
    spec = importlib.machinery.PathFinder.find_spec(name)
    return spec is not None and spec.origin is not None and os.path.realpath(spec.origin) != os.path.realpath(file)


def _broken(source: str, doing: str, error: BaseException) -> UsageProblem:
    """Report where the user's code fails, with the frames of the traceback that are its own."""
    if isinstance(error, USAGE_ERRORS):
        return UsageProblem(f"{source}: {doing.removeprefix('importing ')}: {error}")
    theirs = error.__traceback__
    while theirs is not None and _is_ours(theirs.tb_frame.f_code.co_filename):
        theirs = theirs.tb_next
    traceback.print_exception(type(error), error, theirs)
    own = [frame for frame in traceback.extract_tb(theirs) if not _is_ours(frame.filename)]
    # The last frame in the user's directory: a mistake that a library notices was made there.
    own = [frame for frame in own if Path(frame.filename).is_relative_to(Path.cwd())] or own
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    text = attempted(lambda: str(error), lambda _: "")  # its __str__ is the user's, too
    named = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return UsageProblem(f"{source}: {doing} failed: {named}{where}")


def _is_ours(file: str) -> bool:
    return file in {__file__, importlib.__file__} or file.startswith("<frozen importlib")


def _no_worker(module: str, attribute: str, found: Any) -> str:
    if hasattr(found, attribute):
        return f"{attribute} is of type {type(getattr(found, attribute)).__name__}, not a Worker"
    members: dict[str, object] = getattr(found, "__dict__", {})
    workers = [name for name, value in members.items() if isinstance(value, Worker)]
    hint = f"; it has a Worker called {' and '.join(workers)}" if workers else "; it has no Worker at its top level"
    return f"{module} has no attribute {attribute!r}{hint}"


def _call(where: str, factory: Any) -> Any:
    if inspect.iscoroutinefunction(factory):
        raise UsageProblem(f"{where}: this is an async def function; use a plain def that returns a Worker")
    with _users_code(where, "calling it"):
        return factory()
