"""Where the command ``worker`` finds the Worker: --app, WORKER_APP, pyproject.toml, or a usual name."""

import json
import subprocess
import sys

import pytest

MODULE = """
from avtomatika_worker import Worker

{attribute} = Worker(worker_type="test")


@{attribute}.skill
def {skill}():
    return 1
"""


@pytest.fixture
def write(tmp_path):
    """Write a module with one worker that has one skill, of the module's name unless another is given."""

    def written(path, attribute="worker"):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        skill = "in_" + path.removesuffix(".py").replace("/", "_")
        file.write_text(MODULE.format(attribute=attribute, skill=skill), "utf-8")

    return written


def found(command, *arguments, **environment):
    done = command("skills", *arguments, "--json", **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["skills"][0]["name"]


def test_the_more_explicit_name_wins(command, write, tmp_path):
    write("worker.py")
    assert found(command) == "in_worker"
    write("main.py")
    assert found(command) == "in_main"
    write("app/main.py")
    assert found(command) == "in_app_main"
    write("a.py")
    (tmp_path / "pyproject.toml").write_text('[tool.avtomatika-worker]\napp = "a:worker"\n', "utf-8")
    assert found(command) == "in_a"
    write("b.py")
    (tmp_path / ".env").write_text("WORKER_APP=b:worker\n", "utf-8")
    assert found(command) == "in_b"
    write("c.py")
    assert found(command, WORKER_APP="c:worker") == "in_c"
    assert found(command, "--app", "main:worker", WORKER_APP="c:worker") == "in_main"


def test_a_file_of_a_usual_name_without_a_worker_does_not_hide_the_next(command, write, tmp_path):
    (tmp_path / "main.py").write_text("def worker(queue):\n    raise RuntimeError\n", "utf-8")
    write("worker.py")
    assert found(command) == "in_worker"


def test_what_was_tried_is_in_the_message_when_there_is_no_worker(command, write):
    write("main.py", attribute="app")
    done = command("skills")
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (2, "")
    for part in (
        "no --app, no WORKER_APP, and no app under [tool.avtomatika-worker]",
        "app.main:worker (there is no app/main.py)",
        "main:worker (main has no attribute 'worker'; it has a Worker called app)",
        "worker:worker (there is no worker.py)",
    ):
        assert part in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("app = ", "not valid TOML"),
        ("[tool.avtomatika-worker]\napp = 3", "app should be a string"),
        ("[tool.avtomatika-worker]\nap = 'main:worker'", "unknown key 'ap'; it may have one key, app"),
        ("[tool]\navtomatika-worker = 3", "it should be a table"),
        ("[tool.avtomatika-worker]\napp = 'main'", "pyproject.toml, app 'main': write it as module:attribute"),
        ("[tool.avtomatika-worker]\napp = 'nowhere:worker'", "pyproject.toml, app: there is no module 'nowhere'"),
    ],
)
def test_a_wrong_name_in_pyproject_is_one_line_that_says_where(command, write, tmp_path, text, message):
    write("main.py")
    (tmp_path / "pyproject.toml").write_text(text, "utf-8")
    done = command("skills")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("worker: pyproject.toml")
    assert message in line


def test_a_usual_file_that_cannot_be_imported_is_an_error(command, write, tmp_path):
    (tmp_path / "main.py").write_text("import nowhere_at_all\n", "utf-8")
    write("worker.py")
    done = command("skills")
    assert done.returncode == 2
    assert "importing main failed: ModuleNotFoundError" in done.stderr.splitlines()[-1]


def test_doctor_checks_the_worker_it_finds_and_works_without_one(command, write):
    nothing = json.loads(command("doctor", "--json", ORCHESTRATOR_URL="http://127.0.0.1:1").stdout)["findings"]
    (skills,) = [each for each in nothing if each["section"] == "Skills"]
    assert (skills["severity"], skills["text"][:11]) == ("note", "not checked")
    write("main.py")
    checked = json.loads(command("doctor", "--json", ORCHESTRATOR_URL="http://127.0.0.1:1").stdout)["findings"]
    assert not [each for each in checked if each["section"] == "Skills" and "not checked" in each["text"]]


@pytest.mark.parametrize(
    ("code", "attribute", "message"),
    [
        ("raise BaseException('b')", "worker", "importing app failed: BaseException: b"),
        ("raise BaseExceptionGroup('g', [GeneratorExit()])", "worker", "importing app failed: BaseExceptionGroup: g"),
        ("class E(Exception):\n    def __str__(self): raise OSError\nraise E", "worker", "importing app failed: E"),
        ("raise SystemExit", "worker", "importing app ended the process, exit code 0"),
        ("def make(): raise SystemExit(0)", "make", "calling it ended the process, exit code 0"),
        ("def make(): raise GeneratorExit", "make", "calling it failed: GeneratorExit"),
        ("def make(needed): ...", "make", "calling it failed: TypeError: make() missing 1 required"),
        ("def __getattr__(name): raise OSError('oh')", "worker", "reading worker failed: OSError: oh"),
        ("class A:\n    w = property(lambda self: 1 / 0)\na = A()", "a.w", "reading w failed: ZeroDivisionError"),
    ],
)
def test_whatever_the_users_code_raises_is_a_usage_error_in_one_line(command, tmp_path, code, attribute, message):
    (tmp_path / "app.py").write_text(code + "\n", "utf-8")
    done = command("run", "--app", f"app:{attribute}")
    last = done.stderr.splitlines()[-1]
    assert (done.returncode, done.stdout) == (2, "")
    assert last.startswith("worker: --app")
    assert message in last
    assert "worker_app.py" not in done.stderr  # only the user's frames are shown


@pytest.mark.parametrize("name", [".app:worker", "app..main:worker", "app:worker.", "app:.worker"])
def test_a_name_with_an_empty_part_is_a_usage_error(command, name):
    done = command("run", "--app", name)
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        [f"worker: --app {name!r}: write it as module:attribute, such as app.main:worker"],
    )


def test_a_directory_in_place_of_the_env_file_is_reported(command, write, tmp_path):
    write("main.py")
    (tmp_path / ".env").mkdir()  # what Docker makes of a bind mount whose source does not exist
    done = command("skills")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("worker: .env: cannot be read: ")


def test_a_virtual_environment_of_that_name_is_no_env_file(command, write, tmp_path):
    write("main.py")
    write(".env/pyvenv.cfg")
    assert command("skills").returncode == 0


def test_nesting_that_no_parser_takes_is_a_usage_error(command, write, tmp_path):
    write("main.py")
    deep = "[" * 5000 + "]" * 5000
    done = command("call", "in_main", f'{{"a": {deep}}}')
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    deeper_than_sent = "[" * 500 + "]" * 500
    done = command("call", "in_main", f'{{"a": {deeper_than_sent}}}')
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    (tmp_path / "pyproject.toml").write_text(f"a = {deep}\n", "utf-8")
    done = command("skills")
    assert done.returncode == 2
    assert done.stderr.startswith("worker: pyproject.toml: not valid TOML")


@pytest.mark.skipif(sys.platform == "win32", reason="a directory in use cannot be removed there")
def test_a_working_directory_that_was_removed_is_a_usage_error(tmp_path):
    (gone := tmp_path / "gone").mkdir()
    program = "import os, sys; os.rmdir(os.getcwd()); from avtomatika_worker.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, "run", "--app", "main:worker"],
        cwd=gone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "the working directory does not exist" in done.stderr
