"""The commands in a project's directory that is not as tidy as ours: processes, and what they print."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from importlib.machinery import BuiltinImporter, PathFinder
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

APP = """
    from avtomatika_worker import Worker
    worker = Worker(worker_type="t")

    @worker.skill(executor=EXECUTOR)
    def answer() -> int:
        return 42
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and descriptors of POSIX")


@pytest.fixture
def project(tmp_path):
    """Write modules into the test's directory; ``__`` in a name is a directory."""

    def write(**modules):
        for name, text in modules.items():
            path = tmp_path / (name.replace("__", "/") + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), "utf-8")
        return tmp_path

    return write


def worker(*arguments):
    """Return the command as it is installed: the script's directory is first in Python's path, not the project's."""
    return [str(Path(sys.executable).parent / "worker"), *arguments]


def finished(command, directory, **environment):
    environment = {"PATH": os.environ["PATH"], "PYTHONUTF8": "1", **environment}
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@contextmanager
def running(command, directory, until, **environment):
    """Run a command for as long as the block lasts; yields what it has printed when a line held ``until``."""
    lines = []
    with subprocess.Popen(
        command,
        cwd=directory,
        env={"PATH": os.environ["PATH"], "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            for line in process.stdout:
                lines.append(line)
                if until in line:
                    break
            assert until in "".join(lines[-1:]), "".join(lines)
            yield process, lines
            process.terminate()
            lines += process.stdout.readlines()
        finally:
            process.kill()


# ------------------------------------------------------------------------------------------- names of libraries

NOT_OURS = {"antigravity", "this", "sitecustomize", "usercustomize"}
"""What is imported at Python's start, or opens a browser."""
LIBRARIES = sorted(
    name
    for name in {*sys.stdlib_module_names, *packages_distributions()} - NOT_OURS
    if name.isidentifier() and (found := PathFinder.find_spec(name) or BuiltinImporter.find_spec(name))
    # Python itself prefers a module to a namespace package, wherever it is.
    if found.loader is not None and not name.startswith(("avtomatika_worker", "__"))
)
SHADOWS = dict.fromkeys((*LIBRARIES, "aiohttp____init__"), 'raise RuntimeError("this is not the library")\n')


@pytest.mark.parametrize("executor", ["None", "'process'"])
def test_call_works_beside_modules_that_are_called_like_libraries(project, executor):
    directory = project(main=APP.replace("EXECUTOR", executor), **SHADOWS)
    ended = finished(worker("call", "--app", "main:worker", "answer", "--json"), directory)
    assert json.loads(ended.stdout)["data"] == {"result": 42}, ended.stderr


@pytest.mark.parametrize(
    "options",
    [
        ("dev", "--port", "0"),
        ("dev", "--port", "0", "--reload"),
        ("run", "--no-health-check"),
        ("run", "--no-health-check", "--workers", "2"),
    ],
    ids=" ".join,
)
def test_workers_start_beside_modules_that_are_called_like_libraries(project, options):
    directory = project(main=APP.replace("EXECUTOR", "'process'"), **SHADOWS)
    until = "Stop with" if options[0] == "dev" else "registration with"
    verb, *more = options
    with running(worker(verb, "--app", "main:worker", *more), directory, until, ORCHESTRATOR_URL="http://127.0.0.1:1"):
        pass


def test_a_skill_process_imports_what_the_worker_imports(project):
    app = APP.replace("EXECUTOR", "'process'").replace("return 42", "return [calendar.__file__, code.WHERE]")
    app = app.replace("-> int", "-> list[str]").replace("from avto", "import calendar, code\n    from avto", 1)
    directory = project(main=app, calendar="", code="WHERE = 'here'")
    ended = finished(worker("call", "--app", "main:worker", "answer", "--json"), directory)
    calendar, code = json.loads(ended.stdout)["data"]["result"]
    assert not calendar.startswith(str(directory)), "the worker has loaded the standard library's before"
    assert code == "here"


# ------------------------------------------------------------------------------------------- two of one

PROGRAM = {
    "app____init__": "",
    "app__main": """
        from avtomatika_worker import Worker
        worker = Worker(worker_type="t")
        import app.tasks
        if __name__ == "__main__":
            worker.run()
    """,
    "app__tasks": """
        from app.main import worker
        @worker.skill
        def hello() -> str: return "hi"
    """,
}


@pytest.mark.parametrize("arguments", [("-m", "app.main"), ("app/main.py",)], ids=" ".join)
def test_a_program_whose_skills_went_to_a_second_worker_says_so(project, arguments):
    directory = project(**PROGRAM)
    ended = finished([sys.executable, *arguments], directory, PYTHONPATH=".", ORCHESTRATOR_URL="http://127.0.0.1:1")
    assert ended.returncode == 2
    assert f"{directory}/app/main.py was imported twice, as __main__" in ended.stderr
    assert "as app.main" in ended.stderr
    assert "hello" in ended.stderr
    assert "worker run --app app.main:worker" in ended.stderr


def test_an_app_that_is_found_under_two_names_says_so(project):
    directory = project(**PROGRAM)
    environment = {"PYTHONPATH": str(directory), "ORCHESTRATOR_URL": "http://127.0.0.1:1"}
    ended = finished(worker("run", "--app", "main:worker"), directory / "app", **environment)
    assert ended.returncode == 2
    assert "as main and as app.main" in ended.stderr


def test_a_blueprint_that_is_included_and_found_counts_once(project):
    directory = project(
        skills__text="""
            from avtomatika_worker import SkillBlueprint
            bp = SkillBlueprint()
            @bp.skill
            def text() -> int: return 1
        """,
        main="""
            from avtomatika_worker import Worker
            from skills.text import bp
            worker = Worker(worker_type="t")
            worker.include_blueprint(bp)
        """,
    )
    ended = finished(worker("skills", "--app", "main:worker", "--json"), directory)
    assert [each["name"] for each in json.loads(ended.stdout)["skills"]] == ["text"]


# ------------------------------------------------------------------------------------------- logging

LOGGING = {
    "dictConfig": 'logging.config.dictConfig({"version": 1, "root": {"level": "INFO"}})',
    "fileConfig": "logging.config.fileConfig('logging.ini')",
    "basicConfig": "logging.basicConfig(format='MINE %(message)s')",
    "no handlers": "logging.getLogger().handlers.clear()",
}
INI = """[loggers]
keys=root
[handlers]
keys=console
[formatters]
keys=mine
[formatter_mine]
format=MINE %(message)s
[logger_root]
level=WARNING
handlers=console
[handler_console]
class=StreamHandler
formatter=mine
args=(sys.stderr,)
"""


@pytest.mark.parametrize("where", ["import", "setup"])
@pytest.mark.parametrize("how", LOGGING)
def test_the_workers_lines_are_there_once_whatever_the_app_does_to_logging(project, how, where):
    configure = f"import logging, logging.config\n{LOGGING[how]}\n"
    directory = project(
        main=("" if where == "setup" else configure) + textwrap.dedent(APP.replace("EXECUTOR", "None")),
        skills__text="def setup(worker):\n" + textwrap.indent(configure if where == "setup" else "pass", "    "),
    )
    (directory / "logging.ini").write_text(INI, "utf-8")
    with running(worker("dev", "--app", "main:worker", "--port", "0"), directory, "Stop with") as (_, lines):
        pass
    assert len([line for line in lines if "registered with" in line]) == 1
    assert len([line for line in lines if "shutting down" in line]) == 1
    mine = how in {"fileConfig", "basicConfig"}
    assert any(line.startswith("MINE registered with") for line in lines) == mine


def test_lines_of_json_are_json_beside_a_handler_of_the_app(project):
    app = f"import logging\n{LOGGING['basicConfig']}\n{textwrap.dedent(APP.replace('EXECUTOR', 'None'))}"
    directory = project(main=app)
    command = worker("run", "--app", "main:worker", "--no-health-check")
    environment = {"LOG_FORMAT": "json", "ORCHESTRATOR_URL": "http://127.0.0.1:1"}
    with running(command, directory, "registration with", **environment) as (_, lines):
        pass
    assert all(json.loads(line) for line in lines)


def test_a_skill_that_configures_logging_does_not_silence_the_worker(project):
    directory = project(
        main="""
            import logging.config
            from avtomatika_worker import Worker
            worker = Worker(worker_type="t")
            @worker.skill
            def bad() -> int:
                logging.config.dictConfig({"version": 1, "root": {"level": "WARNING"}})
                raise ValueError("boom")
        """
    )
    ended = finished(worker("call", "--app", "main:worker", "bad"), directory)
    assert "ValueError: boom" in ended.stderr


def test_a_log_switched_off_by_logging_disable_is_reported(project):
    app = f"import logging\nlogging.disable(logging.CRITICAL)\n{textwrap.dedent(APP.replace('EXECUTOR', 'None'))}"
    ended = finished(worker("call", "--app", "main:worker", "answer"), project(main=app))
    assert "worker: logging.disable(50) is in force" in ended.stderr


# ------------------------------------------------------------------------------------------- JSON

NOISY = """
    import atexit, os, warnings
    from avtomatika_worker import Worker
    print("importing")
    os.system("echo from a child")
    atexit.register(print, "bye")
    worker = Worker(worker_type="t")
    @worker.skill
    def here(n: int = 1) -> int:
        print("here"); warnings.warn("careful")
        return n
    @worker.skill(executor="process")
    def there() -> int:
        print("there", flush=True)
        return 1
    @worker.skill
    def bad() -> int:
        print("bad")
        raise ValueError("no")
    @worker.skill(executor="process")
    def gone() -> int:
        os._exit(9)
"""


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("call", "--app", "main:worker", "here", "--json"), 0, None),
        (("call", "--app", "main:worker", "there", "--json"), 0, None),
        (("call", "--app", "main:worker", "bad", "--json"), 1, "TRANSIENT_ERROR"),
        (("call", "--app", "main:worker", "gone", "--json"), 1, "TRANSIENT_ERROR"),
        (("call", "--app", "main:worker", "here", '{"n": "x"}', "--json"), 1, "INVALID_INPUT_ERROR"),
        (("call", "--app", "main:worker", "here", "{", "--json"), 2, "USAGE_ERROR"),
        (("call", "--app", "main:worker", "nothing", "--json"), 2, "USAGE_ERROR"),
        (("call", "--app", "main:worker", "here", "--deadline", "x", "--json"), 2, "USAGE_ERROR"),
        (("call", "--app", "nowhere:worker", "here", "--json"), 2, "USAGE_ERROR"),
        (("skills", "--app", "main:worker", "--json"), 0, None),
        (("skills", "--app", "nowhere:worker", "--json"), 2, "USAGE_ERROR"),
        (("skills", "--app", "ending:worker", "--json"), 2, "USAGE_ERROR"),
        (("skills", "--app", "cancelled:worker", "--json"), 2, "USAGE_ERROR"),
        (("skills", "--app", "interrupted:worker", "--json"), 1, "CRASHED"),
    ],
    ids=lambda value: " ".join(value[2:]) if isinstance(value, tuple) else None,
)
def test_with_json_standard_output_is_one_json_value(project, arguments, code, error):
    others = {
        "ending": "raise SystemExit(3)",
        "cancelled": "import asyncio\nraise asyncio.CancelledError",
        "interrupted": "raise KeyboardInterrupt",
    }
    ended = finished(worker(*arguments), project(main=NOISY, **others))
    result = json.loads(ended.stdout)
    assert (result.get("error") or {}).get("code") == error
    assert ended.returncode == code


def test_the_markdown_output_is_only_markdown(project):
    ended = finished(worker("skills", "--app", "main:worker", "--markdown"), project(main=NOISY))
    assert ended.stdout.startswith("#")
    assert "bye" not in ended.stdout


# ------------------------------------------------------------------------------------------- ports and tokens

WITH_RESOURCE = """
    from avtomatika_worker import Worker
    worker = Worker(worker_type="t")
    class Model: ...
    @worker.resource
    def model() -> Model:
        print("made", flush=True)
        return Model()
    @worker.skill
    def use(model: Model) -> int: return 1
"""


@pytest.mark.parametrize("options", [("run",), ("run", "--workers", "2"), ("dev",)], ids=" ".join)
def test_a_taken_port_is_reported_before_resources_are_made(project, options):
    directory = project(main=WITH_RESOURCE)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        verb, *more = options
        if verb == "dev":
            more += ["--port", port]
        environment = {"WORKER_PORT": port, "WORKER_HEALTH_HOST": "127.0.0.1"}
        ended = finished(
            worker(verb, "--app", "main:worker", *more), directory, ORCHESTRATOR_URL="http://127.0.0.1:1", **environment
        )
    assert ended.returncode == 2
    assert f"PORT={port}" in ended.stderr or f"--port {port}" in ended.stderr
    assert "in use" in ended.stderr
    assert f"by process {os.getpid()} (" in ended.stderr
    assert "made" not in ended.stdout


def test_dev_prints_its_token(project):
    directory = project(main=APP.replace("EXECUTOR", "None"))
    with running(worker("dev", "--app", "main:worker", "--port", "0"), directory, "Stop with") as (process, lines):
        assert any("Token for workers: " in line for line in lines)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


@pytest.mark.skipif(not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists(), reason="there is no IPv6")
def test_dev_listens_on_ipv6(project):
    command = worker("dev", "--app", "main:worker", "--host", "::1", "--port", "0")
    with running(command, project(main=APP.replace("EXECUTOR", "None")), "Stop with") as (_, lines):
        assert any("Console: http://[::1]:" in line for line in lines)
