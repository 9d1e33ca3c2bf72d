"""Releases: the same source gives the same bytes, and CI runs the Makefile's verbs."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import avtomatika_worker
from needs import GROUPS, PROGRAMS, needs

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
EPOCH = "1750000000"


def build(directory: Path) -> list[Path]:
    """Copy what the archives are made of, and build them there."""
    source = directory / "source"
    source.mkdir(parents=True)
    wanted = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for name in [*wanted, "/pyproject.toml", "/.gitignore"]:
        found, place = ROOT / name[1:], source / name[1:]
        if found.is_dir():
            shutil.copytree(found, place, copy_function=shutil.copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(found, place)  # not its times
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(directory / "dist")]
    env = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    done = subprocess.run(command, cwd=source, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return sorted((directory / "dist").iterdir())


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("first"))


def test_the_same_source_gives_the_same_bytes(built, tmp_path):
    def digests(files):
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    assert len(built) == 2
    assert digests(build(tmp_path)) == digests(built)


@needs("twine")
def test_twine_accepts_both(built):
    command = [sys.executable, "-m", "twine", "check", "--strict", *built]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_holds_the_packages_and_nothing_else(built):
    (wheel,) = [file for file in built if file.suffix == ".whl"]
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"avtomatika_worker", "avtomatika_worker_pytest"}
    assert "avtomatika_worker/py.typed" in names


def test_what_tests_need_is_in_the_sdist(built):
    (sdist,) = [file for file in built if file.name.endswith(".tar.gz")]
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"deploy/compose.yaml", "cluster/system.py", "tests/e2e/test_cluster.py", "Dockerfile", "Makefile"}
    assert needed <= names


def test_the_workflow_runs_verbs_of_the_makefile_on_each_supported_python():
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    verbs = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    used = [step["run"].removeprefix("make ") for job in jobs.values() for step in job["steps"] if "run" in step]
    used = [each for each in used if re.fullmatch(r"[a-z]+", each)]
    assert {"check", "test", "dist"} <= set(used) <= verbs
    named = {f"Programming Language :: Python :: {each}" for each in jobs["test"]["strategy"]["matrix"]["python"]}
    assert named == {each for each in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", each)}


def test_ci_installs_every_program_that_tests_need():
    text = (ROOT / ".ci" / "run").read_text()
    programs, packages = (
        re.search(rf"^{name}=\((.*)\)$", text, re.MULTILINE)[1].split() for name in ("programs", "packages")
    )
    assert dict(zip(programs, packages, strict=True)) == {
        name: package for name, package in PROGRAMS.items() if package
    }
    assert "make setup" in text


def test_contributors_can_read_which_tests_are_skipped_without_what():
    rows = re.findall(r"^  \| (.+) \| .+ \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    named = set(re.findall(r"`([a-z]+)`", "".join(rows)))
    assert named == {*PROGRAMS, *GROUPS.values()}


def test_each_group_is_one_that_a_verb_installs():
    makefile = (ROOT / "Makefile").read_text()
    used = set(re.findall(r"group-([a-z]+)", makefile))
    assert used | {"plots"} == PROJECT["dependency-groups"].keys()


def test_the_newest_version_of_the_changelog_is_that_of_the_code():
    titles = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert titles[0] == "[Unreleased]"
    versions = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\]( - \d{4}-\d\d-\d\d)?", title)[1] for title in titles[1:]]
    assert versions[0] == avtomatika_worker.__version__
