"""The Dockerfiles as they are written; test_image.py builds and runs them."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from cluster.system import ORCHESTRATOR
from deploy.manifests import default, longest_shutdown, settings
from dockerfile import instructions
from needs import needs, program

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = (
    ROOT / "Dockerfile",
    ROOT / "deploy" / "orchestrator" / "Dockerfile",
    ROOT / "src" / "avtomatika_worker" / "cli" / "template" / "Dockerfile.tmpl",
)
WORKERS = (DOCKERFILES[0], DOCKERFILES[2])
WORKER = list(instructions(DOCKERFILES[0].read_text()))


@needs("hadolint")
@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
def test_hadolint_accepts_it(path):
    command = [program("hadolint"), "--failure-threshold", "style", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_copied_files_exist_and_are_sent_to_the_engine():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    sent = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    copied = [word for name, rest in WORKER if name == "COPY" and "--from" not in rest for word in rest.split()[:-1]]
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert any(source == each or source.startswith(f"{each}/") for each in sent), source


@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
def test_it_runs_as_a_number_that_is_not_root(path):
    users = [rest for name, rest in instructions(path.read_text()) if name == "USER"]
    assert [int(user) > 0 for user in users] == [True]


@pytest.mark.parametrize("path", WORKERS, ids=str)
def test_an_init_is_process_1_and_passes_signals_on(path):
    commands = {
        name: json.loads(rest) for name, rest in instructions(path.read_text()) if name in {"ENTRYPOINT", "CMD"}
    }
    assert commands["ENTRYPOINT"] == ["tini", "--"]
    assert commands["CMD"][:2] == ["worker", "run"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
def test_its_base_image_has_a_tag_and_can_be_given_as_a_digest(path):
    steps = list(instructions(path.read_text()))
    (name, default_image), *_ = steps
    assert name == "ARG"
    assert re.fullmatch(r"BASE_IMAGE=[a-z]+:\d[\w.-]*(@sha256:[0-9a-f]{64})?", default_image)
    assert {rest.split()[0] for name, rest in steps if name == "FROM"} == {"${BASE_IMAGE}"}


def test_it_sets_only_settings_that_exist():
    variables = {name for kind, rest in WORKER if kind == "ENV" for name in re.findall(r"(\w+)=", rest)}
    assert variables - settings() == {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPATH"}


def test_it_asks_the_health_server_and_says_how_long_a_shutdown_takes():
    text = DOCKERFILES[0].read_text()
    port = str(default("WORKER_PORT"))
    assert [rest for name, rest in WORKER if name == "EXPOSE"] == [port]
    assert f"'WORKER_PORT', '{port}'" in text
    (seconds,) = re.findall(r"docker stop -t (\d+)", text)
    assert int(seconds) > longest_shutdown(default("WORKER_SHUTDOWN_TIMEOUT"))


def test_the_orchestrator_is_the_release_that_make_cluster_runs():
    assert f"=={ORCHESTRATOR}'" in DOCKERFILES[1].read_text()


@pytest.mark.parametrize("path", WORKERS, ids=str)
def test_the_worker_owns_its_two_volumes_and_nothing_else(path):
    steps = list(instructions(path.read_text()))
    (install,) = [rest for name, rest in steps if name == "RUN" and "useradd" in rest]
    owned = re.findall(r"install -d [^&]*-o worker[^&]*", install)
    (volumes,) = [json.loads(rest) for name, rest in steps if name == "VOLUME"]
    assert [each.split()[-2:] for each in owned] == [volumes]
    assert not any("chown" in rest or "chmod" in rest for _, rest in steps)
