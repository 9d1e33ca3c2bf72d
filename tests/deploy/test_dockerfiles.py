"""The Dockerfiles; scripts/build_in_chroot.py runs their steps where there is no engine."""

import re
import subprocess
from pathlib import Path

import pytest

from build_in_chroot import instructions
from cluster.system import ORCHESTRATOR
from deploy.manifests import default, longest_shutdown, settings
from needs import needs, program

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = (ROOT / "Dockerfile", ROOT / "deploy" / "orchestrator" / "Dockerfile")
WORKER = list(instructions(DOCKERFILES[0].read_text()))


@needs("hadolint")
@pytest.mark.parametrize("path", DOCKERFILES, ids=str)
def test_hadolint_accepts_it(path):
    command = [program("hadolint"), "--failure-threshold", "style", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_copied_is_there_and_sent_to_the_engine():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    sent = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    copied = [word for name, rest in WORKER if name == "COPY" and "--from" not in rest for word in rest.split()[:-1]]
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert any(source == each or source.startswith(f"{each}/") for each in sent), source


def test_the_worker_is_no_root_and_gets_signals_itself():
    assert [int(rest) > 0 for name, rest in WORKER if name == "USER"] == [True]
    (command,) = [rest for name, rest in WORKER if name == "CMD"]
    assert command.startswith("[")


def test_it_sets_only_settings_that_there_are():
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


def test_the_worker_cannot_write_to_its_code():
    (install,) = [rest for name, rest in WORKER if name == "RUN" and "useradd" in rest]
    owned = re.findall(r"install -d [^&]*-o worker[^&]*", install)
    assert [each.split()[-2:] for each in owned] == [["/srv/worker/state", "/srv/worker/files"]]


def test_workflows_leave_no_credentials_in_the_checkout():
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = path.read_text()
        assert text.count("actions/checkout@") == text.count("persist-credentials: false")
