"""``worker init``: what it writes, what it leaves alone, and the wheel it brings along."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from own_pytest import PLAIN

ROOT = Path(__file__).resolve().parents[2]


def test_a_new_project_passes_its_own_tests_and_can_be_called(command, tmp_path):
    done = command("init", "Image Worker")
    assert done.returncode == 0, done.stderr
    assert "cd 'Image Worker'" in done.stdout
    project = tmp_path / "Image Worker"
    assert {"Dockerfile", ".env.example", ".gitignore", "README.md"} <= {path.name for path in project.iterdir()}
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *PLAIN],
        cwd=project,
        env={"PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert "3 passed" in tests.stdout
    for path in project.rglob("*"):
        assert not path.is_file() or path.suffix in {".pyc", ".whl"} or "{{" not in path.read_text("utf-8"), path


def test_no_test_runner_is_needed_to_make_one(tmp_path):
    code = "import sys; sys.modules['pytest'] = None; from avtomatika_worker.cli import main; main(['init', 'made'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made" / "README.md").exists()


@pytest.mark.parametrize("variables", ["example", "none"])
def test_its_worker_and_its_env_file_are_well(command, tmp_path, variables):
    command("init", ".")
    if variables == "example":
        (tmp_path / ".env").write_text((tmp_path / ".env.example").read_text("utf-8"), "utf-8")
    called = command("call", "--app", "app.main:worker", "greet", "-p", "name=Ada")
    assert called.returncode == 0, called.stderr
    assert "Hello, Ada!" in called.stdout


# ------------------------------------------------------------------------------------------- what is there already


def test_a_project_is_made_beside_what_is_there_already(command, tmp_path):
    for directory in (".git", ".venv/bin", "skills", "wheels"):
        (tmp_path / directory).mkdir(parents=True)
    others = {name: tmp_path / name for name in ("LICENSE", "notes.txt", "skills/own.py", "wheels/other.whl")}
    for path in others.values():
        path.write_text("mine", "utf-8")
    done = command("init", ".")
    assert "  cd " not in done.stdout
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "app" / "main.py").exists()
    assert [path.read_text("utf-8") for path in others.values()] == ["mine"] * len(others)


@pytest.mark.parametrize(
    ("name", "taken", "named"),
    [
        (".", {"README.md": "mine", "skills/greeting.py": "mine"}, ["README.md, skills/greeting.py exist already"]),
        ("new", {"new/Dockerfile": "mine"}, ["new/Dockerfile exists already"]),
        (".", {"app": "a file"}, ["app exists already"]),
        ("taken/file", {"taken/file": "mine"}, ["taken/file exists already"]),
        ("taken/file/below", {"taken/file": "mine"}, ["Not a directory"]),
        ("§", {}, ["the name should hold letters or digits"]),
    ],
)
def test_nothing_is_overwritten(command, tmp_path, name, taken, named):
    for path, text in taken.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, "utf-8")
    done = command("init", name)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert all(each in line for each in named), line
    files = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*") if path.is_file()}
    assert {path: file.read_text("utf-8") for path, file in files.items()} == taken


def test_a_link_that_leads_nowhere_is_not_written_through(command, tmp_path):
    (tmp_path / "Dockerfile").symlink_to(tmp_path / "elsewhere")
    done = command("init", ".")
    assert (done.returncode, "Dockerfile exists already" in done.stderr) == (2, True)
    assert not (tmp_path / "elsewhere").exists()


# ------------------------------------------------------------------------------------------- the wheel it brings along


def test_the_wheel_it_brings_is_the_one_that_a_clone_builds(command, tmp_path):
    command("init", "made")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "built")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (brought,), (wheel,) = (tmp_path / "made" / "wheels").iterdir(), (tmp_path / "built").glob("*.whl")
    assert brought.name == wheel.name
    assert contents(brought) == contents(wheel)


def contents(wheel: Path) -> dict[str, bytes]:
    """Return what a wheel holds, apart from what an installation may have older than the sources: its description."""
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        return {
            name: archive.read(name) for name in archive.namelist() if Path(name).name not in {"METADATA", "RECORD"}
        }
