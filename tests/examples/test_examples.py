"""The examples: their tests, and the commands that their README names, run as a reader would run them.

The pipeline is in tests/e2e/test_pipeline_example.py, the model in tests/processes, the rest in tests/testing.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from needs import needs, program
from own_pytest import PLAIN

EXAMPLES = Path(__file__).parents[2] / "examples"
README = (EXAMPLES / "README.md").read_text("utf-8")
TESTS = sorted(path.name for path in EXAMPLES.glob("test_*.py"))
NEEDS = {"test_transcode.py": needs("ffmpeg")}
NEEDED = ("worker call ", "ffmpeg ", "python parrot.py")
COMMANDS = [
    line.removeprefix("$ ") for line in README.splitlines() if line.startswith("$ ") and any(n in line for n in NEEDED)
]


def run(command, directory, home):
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SCRAPE_PAUSE": "0",
    }
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize("name", [pytest.param(name, marks=NEEDS.get(name, ())) for name in TESTS])
def test_the_tests_of_an_example_pass(name, tmp_path):
    (command,) = re.findall(r"^\$ (python -m pytest .*)$", README, re.MULTILINE)
    done = run(["sh", "-c", " ".join([command, *PLAIN]).replace("test_*.py", name)], EXAMPLES, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_commands_of_the_readme_work_one_after_the_other(tmp_path):
    assert len(COMMANDS) >= 5
    place = tmp_path / "repository" / "examples"
    place.mkdir(parents=True)
    for path in EXAMPLES.glob("*.py"):
        shutil.copy(path, place)
    data = Path("src/avtomatika_worker/demo_app/data")
    shutil.copytree(EXAMPLES.parent / data, place.parent / data)
    for command in COMMANDS:
        if ("ffmpeg" in command or "transcode" in command) and program("ffmpeg") is None:
            continue
        done = run(["sh", "-c", command], place, tmp_path)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert done.stderr == ""


def test_the_readme_lists_every_example():
    listed = set(re.findall(r"\]\(([\w/]+\.py|\w+/)\)", README))
    files = {path.name for path in EXAMPLES.glob("*.py")} - set(TESTS)
    directories = {f"{path.name}/" for path in EXAMPLES.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert listed == files | directories
    assert {f"test_{Path(each).stem}.py" for each in files if each != "parrot.py"} == set(TESTS)
