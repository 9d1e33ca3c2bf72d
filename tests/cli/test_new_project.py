"""A project of ``worker init`` in an environment of its own: its README's commands and its Dockerfile, offline."""

import asyncio
import os
import shlex
import shutil
import signal
import sys
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from avtomatika_worker.testing import EmbeddedOrchestrator
from dockerfile import instructions

ROOT = Path(__file__).resolve().parents[2]

WHERE = "python -c 'import avtomatika_worker; print(avtomatika_worker.__file__)'"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="bash and signals of POSIX")


def required(*names: str) -> set[Path]:
    """Return what the distributions need, as it is installed here: what an index would serve, without this package."""
    found: set[Path] = set()
    known, left = set[str](), [*names]
    while left:
        name = canonicalize_name(left.pop())
        if name in known:
            continue
        known.add(name)
        installed = distribution(name)
        needed = map(Requirement, installed.requires or ())
        left += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
        if name != "avtomatika-worker":
            tops = {file.parts[0] for file in installed.files or ()} - {"..", "__pycache__"}
            found |= {Path(str(installed.locate_file(top))) for top in tops}
    return found


class Environment:
    """A shell in a project's directory, with no package index and an interpreter that has nothing of this package."""

    def __init__(self, directory: Path, project: Path) -> None:
        self.project = project
        self._packages = directory / "packages"
        self._packages.mkdir()
        for path in required("avtomatika-worker", "pytest", "pytest-asyncio", "watchfiles"):
            (self._packages / path.name).symlink_to(path)
        self._bin = directory / "bin"
        self._bin.mkdir()
        python = self._bin / "python3"
        base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(str(base))} "$@"\n', "utf-8")
        python.chmod(0o755)
        self._environ = {
            "PATH": f"{self._bin}:/usr/bin:/bin",
            "HOME": str(directory),
            "PYTHONUTF8": "1",
            "PIP_NO_INDEX": "1",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "WORKER_PORT": "0",
        }

    async def start(self, command: str, **environ: str) -> asyncio.subprocess.Process:
        """Start a command in the project's own environment, once there is one."""
        activated = ". .venv/bin/activate && " if (self.project / ".venv").exists() else ""
        return await asyncio.create_subprocess_exec(
            *("bash", "-c", f"{activated}exec {command}" if "&&" not in command else command),
            cwd=self.project,
            env={**self._environ, **environ},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def run(self, command: str, **environ: str) -> str:
        """Run a command, which succeeds, and return what it wrote."""
        process = await self.start(command, **environ)
        output, _ = await process.communicate()
        assert process.returncode == 0, f"{command}\n{output.decode()}"
        return output.decode()

    def add_dependencies(self) -> None:
        """Put what an index would serve, the SDK excepted, into the environment that the project has now."""
        (site_packages,) = (self.project / ".venv" / "lib").glob("python*/site-packages")
        (site_packages / "dependencies.pth").write_text(f"{self._packages}\n", "utf-8")
        pytest_itself = self.project / ".venv" / "bin" / "pytest"
        pytest_itself.write_text('#!/bin/sh\nexec "$(dirname "$0")/python" -P -m pytest "$@"\n', "utf-8")
        pytest_itself.chmod(0o755)


async def read_until(process: asyncio.subprocess.Process, text: str) -> None:
    """Read what a process writes, until there is ``text``."""
    seen = ""
    while text not in seen:
        line = await process.stdout.readline()
        assert line, seen
        seen += line.decode()


async def end(process: asyncio.subprocess.Process, with_signal: signal.Signals) -> None:
    """End a process in order."""
    process.send_signal(with_signal)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


@pytest.fixture
def environment(command, tmp_path):
    done = command("init", "project")
    assert done.returncode == 0, done.stderr
    return Environment(tmp_path, tmp_path / "project")


def commands(readme: str) -> list[str]:
    """Return the commands of a README, as a reader copies them."""
    return [line[2:].split("   #")[0].strip() for line in readme.splitlines() if line.startswith("$ ")]


@pytest.mark.timeout(300)
async def test_the_commands_of_its_readme_do_what_it_says(environment):
    project = environment.project
    make_environment, install, run_tests, call, dev, fill_in, doctor, run, *container = commands(
        (project / "README.md").read_text("utf-8")
    )
    await environment.run(make_environment)
    environment.add_dependencies()
    assert "Successfully installed avtomatika-worker" in await environment.run(install)
    assert (await environment.run(WHERE)).startswith(f"{project}/.venv/")
    assert "3 passed" in await environment.run(run_tests)
    assert "Hello, Ada!" in await environment.run(call)

    process = await environment.start(f"{dev} --port 0")
    await read_until(process, "Console: ")
    await end(process, signal.SIGINT)

    await environment.run(fill_in)
    async with EmbeddedOrchestrator(token="secret") as orchestrator:
        env = (project / ".env").read_text("utf-8")
        env = env.replace("http://localhost:8080", orchestrator.url).replace("WORKER_TOKEN=", "WORKER_TOKEN=secret")
        (project / ".env").write_text(env, "utf-8")
        await environment.run(doctor)
        process = await environment.start(run)
        await orchestrator.wait_for_worker()
        await end(process, signal.SIGTERM)
    assert [each.split()[0] for each in container] == ["docker", "docker"]


@pytest.mark.timeout(300)
async def test_its_dockerfile_installs_what_it_copies_and_nothing_else_of_that_name(environment, tmp_path):
    """The steps that copy and install, beside an index that has a newer package of the same name."""
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / "avtomatika_worker-99.0-py3-none-any.whl", "w") as wheel:
        info = "avtomatika_worker-99.0.dist-info"
        wheel.writestr("avtomatika_worker.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: avtomatika-worker\nVersion: 99.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    project, image = environment.project, tmp_path / "image"
    image.mkdir()
    environment.project = image
    await environment.run("python3 -m venv .venv && true")
    environment.add_dependencies()
    installed = []
    for name, rest in instructions((project / "Dockerfile").read_text("utf-8")):
        if name == "COPY":
            source, target = rest.split()
            copy = shutil.copytree if (project / source).is_dir() else shutil.copy
            copy(project / source, image / target)
        elif name == "RUN" and rest.startswith("pip "):
            installed.append(await environment.run(rest, PIP_FIND_LINKS=str(index)))
        elif name == "CMD":
            assert rest == '["worker", "run"]'
    assert len(installed) == 1
    assert (await environment.run(WHERE)).startswith(f"{image}/.venv/")
    assert "Hello, Ada!" in await environment.run("worker call greet -p name=Ada")


async def test_sources_that_are_not_installed_make_no_project_without_its_wheel(environment, tmp_path):
    environment.project = tmp_path
    paths = f"{ROOT / 'src'}:{tmp_path / 'packages'}"
    process = await environment.start("python3 -m avtomatika_worker.cli init other", PYTHONPATH=paths)
    output, _ = await process.communicate()
    assert process.returncode == 2
    assert "install it first, from a clone or a wheel" in output.decode()
    assert not (tmp_path / "other").exists()
