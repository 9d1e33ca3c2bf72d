"""Images built by buildah from the Dockerfiles as they are, and containers of them, without an engine.

The base image is a tree of debootstrap under the name that the Dockerfiles ask for: Debian with its own Python in place
of the official image of Python. Everything is kept in ``.cache/images``, the base image for the next run too.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from dockerfile import instructions

ROOT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = ROOT / ".cache" / "images"
PACKAGES: Final = "ca-certificates,python3,python3-pip,python3-venv"
_APART: Final = ("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child")


def why_not() -> str:
    """Return why no image can be built here, or nothing."""
    if not os.environ.get("AVTOMATIKA_IMAGES"):
        return "building images takes minutes: make image does it"
    missing = [name for name in ("buildah", "debootstrap", "nsenter", "unshare") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} not installed (Debian's packages buildah, debootstrap and util-linux)"
    return "" if os.geteuid() == 0 else "building images without an engine needs root"


def base_image() -> str:
    """Return the name of the base image that the worker's Dockerfile asks for."""
    arguments = (rest for name, rest in instructions((ROOT / "Dockerfile").read_text()) if name == "ARG")
    return next(each.partition("=")[2] for each in arguments if each.startswith("BASE_IMAGE="))


def _run(command: list[str], **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}\n{done.stdout[-5000:]}\n{done.stderr[-5000:]}")
    return done.stdout


def buildah(*arguments: str | Path) -> str:
    """Run buildah on the storage of these tests, and return what it wrote. Raises AssertionError."""
    # Copies in place of overlays, and chroot in place of a runtime: both work inside of containers too.
    storage = ["--storage-driver=vfs", f"--root={CACHE / 'storage'}", f"--runroot={CACHE / 'run'}"]
    environ = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
    return _run(["buildah", *storage, *map(str, arguments)], env=environ).strip()


class MirrorUnreachableError(Exception):
    """The packages of the base image could not be downloaded."""


def make_base_image() -> None:
    """Commit a tree of debootstrap as the base image, unless an earlier run did. Raises MirrorUnreachableError."""
    name = f"docker.io/library/{base_image()}"
    if name in buildah("images", "--format", "{{.Name}}:{{.Tag}}").splitlines():
        return
    with tempfile.TemporaryDirectory(prefix="base-", dir=CACHE) as directory:
        packages, tree = Path(directory, "packages.tar"), Path(directory, "tree")
        _debootstrap(f"--make-tarball={packages}", tree, MirrorUnreachableError)
        _debootstrap(f"--unpack-tarball={packages}", tree, AssertionError)
        # As in the official image: `python`, and a pip that installs for the whole system.
        (tree / "usr/bin/python").symlink_to("python3")
        for marker in tree.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            marker.unlink()
        container = buildah("from", "scratch")
        buildah("add", "--quiet", container, tree, "/")
        buildah("commit", "--quiet", "--rm", container, name)


def _debootstrap(step: str, tree: Path, failure: type[Exception]) -> None:
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", step, "bookworm", str(tree)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise failure(done.stdout[-2000:])


@contextmanager
def built(context: Path, tag: str) -> Iterator[Container]:
    """Build the Dockerfile of a directory, as it is, and give a container of it; remove both at the end.

    Raises AssertionError.
    """
    with tempfile.TemporaryDirectory() as directory:
        volumes = [f"--volume={path}:{target}:ro" for path, target in _for_pip(Path(directory)).items()]
        buildah("bud", "--pull-never", "--format=docker", *volumes, "--tag", tag, context)
    working = buildah("from", "--pull-never", tag)
    try:
        config = json.loads(buildah("inspect", "--type=image", tag))["Docker"]["config"]
        yield Container(config, Path(buildah("mount", working)))
    finally:
        buildah("rm", working)
        buildah("rmi", "--force", tag)


def _for_pip(directory: Path) -> dict[Path, str]:
    """Return what the steps are shown of this machine: where pip finds its index, and whom it trusts."""
    listed = _run([sys.executable, "-m", "pip", "config", "list"])
    settings = {
        key: ast.literal_eval(value) for key, value in re.findall(r"^\S+\.([\w-]+)=(.*)$", listed, re.MULTILINE)
    }
    kept = {key: settings[key] for key in ("cert", "index-url", "proxy", "trusted-host") if key in settings}
    config = directory / "pip.conf"
    config.write_text("\n".join(["[global]", *(f"{key} = {value}" for key, value in kept.items()), ""]))
    return {config: "/etc/pip.conf", **({Path(kept["cert"]): kept["cert"]} if "cert" in kept else {})}


class Container:
    """A container of an image, hardened as deploy/ asks an engine to: see `start`."""

    def __init__(self, config: Mapping[str, Any], root: Path) -> None:
        self.config = config
        self._root = root

    @contextmanager
    def start(
        self, *command: str, environ: Mapping[str, str] | None = None, read_only: bool = True
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run ``command``, or the image's own, after its entry point; all namespaces but the network's are its own.

        It has no capabilities and gains none, /tmp of its own, and volumes that begin with what the image has there.
        """
        with tempfile.TemporaryDirectory() as volumes:
            steps = [*self._mounts(Path(volumes)), f"mount -o remount,bind,{'ro' if read_only else 'rw'} ."]
            steps.append('exec chroot . "$@"')
            begun = [*(self.config["Entrypoint"] or []), *(command or self.config["Cmd"])]
            process = subprocess.Popen(
                [*_APART, "sh", "-ec", "\n".join(steps), "-", *self._as_user(begun, environ or {})],
            )
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    def first_process(self, process: subprocess.Popen[bytes]) -> int:
        """Return the id, on this machine, of process 1 of a container that runs."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            if children and Path(f"/proc/{children[0]}/root").readlink() != Path("/"):
                return int(children[0])
            time.sleep(0.01)
        raise AssertionError("the container has not started")

    def execute(
        self, process: subprocess.Popen[bytes], *command: str, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a container that runs, as an engine's ``exec`` does."""
        entering = ["nsenter", f"--target={self.first_process(process)}", "--mount", "--pid", "--root", "--wd=/"]
        command_line = [*entering, *self._as_user([*command], environ or {})]
        return subprocess.run(command_line, capture_output=True, text=True, timeout=60, check=False)

    def owner(self, process: subprocess.Popen[bytes]) -> str:
        """Return the id of the user that process 1 of a container runs as."""
        status = Path(f"/proc/{self.first_process(process)}/status").read_text()
        return status.partition("Uid:")[2].split()[0]

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        """Send SIGTERM to process 1 and return the container's exit code."""
        os.kill(self.first_process(process), signal.SIGTERM)
        return process.wait(60)

    def _as_user(self, command: list[str], environ: Mapping[str, str]) -> list[str]:
        user = self.config["User"]
        own = [f"--reuid={user}", f"--regid={user}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
        variables = [*self.config["Env"], *(f"{name}={value}" for name, value in environ.items())]
        clean = ["env", "-i", f"--chdir={self.config['WorkingDir']}", *variables]
        return ["setpriv", *own, "--no-new-privs", *clean, *command]

    def _mounts(self, volumes: Path) -> list[str]:
        place = shlex.quote(str(self._root))
        steps = ["mount --make-rprivate /", f"mount --bind {place} {place}", f"cd {place}"]
        steps += ["mount -t proc proc proc", "mount --rbind /dev dev", "mount -t tmpfs tmpfs tmp"]
        for number, volume in enumerate(self.config["Volumes"] or ()):
            # As an engine does: a new volume begins as a copy of what the image has there, its owner included.
            begun = volumes / str(number)
            _run(["cp", "--archive", str(self._root / volume[1:]), str(begun)])
            steps.append(f"mount --bind {shlex.quote(str(begun))} {shlex.quote(volume[1:])}")
        return steps
