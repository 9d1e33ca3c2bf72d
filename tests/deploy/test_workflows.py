"""What of .github is trusted with what: actions by commit, tokens that may only read, no credentials left behind."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from needs import needs, program

GITHUB = Path(__file__).resolve().parents[2] / ".github"
WORKFLOWS = sorted(GITHUB.glob("workflows/*.y*ml"))


def workflow(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text())
    return document


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in workflow(path)["jobs"].values() for step in job["steps"]]


def test_there_are_workflows():
    assert WORKFLOWS


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_with_the_version_beside(path):
    lines = re.findall(r"^\s*-?\s*uses:\s*(.*)$", path.read_text(), re.MULTILINE)
    assert len(lines) == sum("uses" in step for step in steps(path))
    for line in lines:
        assert re.fullmatch(r"[\w-]+/[\w/.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_an_action_has_one_version_everywhere():
    used = {step["uses"] for path in WORKFLOWS for step in steps(path) if "uses" in step}
    names = [each.partition("@")[0] for each in used]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_checkout_leaves_no_credentials_behind(path):
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    for step in checkouts:
        assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_the_token_of_a_run_may_only_read_the_contents(path):
    document = workflow(path)
    assert document["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in document["jobs"].values())
    assert "pull_request_target" not in path.read_text()


@needs("zizmor")
def test_zizmor_finds_nothing():
    command = [program("zizmor"), "--offline", "--no-progress", str(GITHUB)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_pinned_is_kept_fresh():
    updates = yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]
    places = {
        (each["package-ecosystem"], place)
        for each in updates
        for place in each.get("directories", [each.get("directory")])
    }
    assert {
        ("github-actions", "/"),
        ("docker", "/"),
        ("docker", "/deploy/orchestrator"),
        ("docker-compose", "/deploy"),
    } == places


@needs("check_jsonschema")
@pytest.mark.parametrize(
    ("schema", "path"),
    [*(("vendor.github-workflows", path) for path in WORKFLOWS), ("vendor.dependabot", GITHUB / "dependabot.yml")],
    ids=lambda value: getattr(value, "name", value),
)
def test_it_is_valid_by_githubs_schema(schema, path):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
