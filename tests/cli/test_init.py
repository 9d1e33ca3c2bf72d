"""``worker init``: the project it makes does what its README says."""

import subprocess
import sys

import pytest


def test_a_new_project_passes_its_own_tests_and_can_be_called(command, tmp_path):
    done = command("init", "Image Worker")
    assert done.returncode == 0, done.stderr
    assert "cd 'Image Worker'" in done.stdout
    project = tmp_path / "Image Worker"
    assert {"Dockerfile", ".env.example", ".gitignore", "README.md"} <= {path.name for path in project.iterdir()}
    tests = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"],
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
        assert not path.is_file() or path.suffix == ".pyc" or "{{" not in path.read_text("utf-8"), path


@pytest.mark.parametrize("variables", ["example", "none"])
def test_its_worker_and_its_env_file_are_well(command, tmp_path, variables):
    command("init", ".")
    if variables == "example":
        (tmp_path / ".env").write_text((tmp_path / ".env.example").read_text("utf-8"), "utf-8")
    called = command("call", "--app", "app.main:worker", "greet", "-p", "name=Ada")
    assert called.returncode == 0, called.stderr
    assert "Hello, Ada!" in called.stdout


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("taken", "taken exists and is not empty; choose another name"),
        ("taken/file", "taken/file exists and is not empty"),
        ("taken/file/below", "Not a directory"),
        ("§", "the name should hold letters or digits"),
    ],
)
def test_nothing_is_overwritten(command, tmp_path, name, message):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine", "utf-8")
    done = command("init", name)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert message in line
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["file"]
