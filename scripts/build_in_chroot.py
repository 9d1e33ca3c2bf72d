"""Run the steps of the Dockerfile in a chroot, then the container it describes: for machines without Docker's engine.

    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm ROOTFS
    python scripts/build_in_chroot.py ROOTFS [--bind PATH]...

ROOTFS stands for the base image and is left as it is; ``--bind`` shows further paths of this machine to the steps
(pip's configuration, a CA). Needs root. The container runs without privileges on a read-only root file system: its
health check must pass, it must run a job, be unable to write beside its volumes, and end by itself after SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from avtomatika_worker.devserver import EmbeddedOrchestrator, JobState

ROOT = Path(__file__).resolve().parents[1]
SYSTEM = ("/dev", "/proc", "/etc/resolv.conf")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass
class Stage:
    """What one FROM begins."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    cwd: str = "/"
    user: str = "0"
    volumes: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield the instructions and their arguments."""
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    for line in filter(None, map(str.strip, lines.splitlines())):
        name, _, rest = line.partition(" ")
        yield name, rest.strip()


def arguments(stage: Stage, command: list[str], binds: list[str], *, contained: bool) -> list[str]:
    """Return the command line that runs ``command`` in the stage; ``contained`` as a container, else as a step."""
    root = shlex.quote(str(stage.root))
    steps = ["set -e", "mount --make-rprivate /", f"mount --bind {root} {root}"]
    for path in SYSTEM if contained else (*SYSTEM, *binds):
        target = shlex.quote(f"{stage.root}{path}")
        if Path(path).is_dir():
            steps += [f"mkdir -p {target}", f"mount --rbind {path} {target}"]
        elif Path(path).exists():
            steps += [f"mkdir -p $(dirname {target})", f"touch {target}", f"mount --bind {path} {target}"]
    if contained:
        steps.append(f"mount -t tmpfs tmpfs {root}/tmp")
        # As an engine does: a new volume begins as a copy of what the image has there, its owner included.
        steps += [f"mount -t tmpfs -o uid={stage.user},mode=755 tmpfs {root}{volume}" for volume in stage.volumes]
        steps.append(f"mount -o remount,bind,ro {root}")
    env = [f"{name}={value}" for name, value in stage.env.items()]
    inner = shlex.join(["env", "-i", *env, "sh", "-c", f'cd {shlex.quote(stage.cwd)} && exec "$@"', "-", *command])
    steps.append(f"exec chroot --userspec={stage.user}:{stage.user} {root} {inner}")
    return ["unshare", "--mount", "sh", "-c", "\n".join(steps)]


def run(stage: Stage, command: list[str], binds: list[str], *, contained: bool = False) -> None:
    """Run a command in the stage. Raises CalledProcessError."""
    subprocess.run(arguments(stage, command, binds, contained=contained), check=True)


def copy(stage: Stage, rest: str, stages: dict[str, Stage]) -> None:
    """Carry out a COPY."""
    words = rest.split()
    source = ROOT
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")].root
    *names, target = words
    into = stage.root / os.path.join(stage.cwd, target).lstrip("/")  # noqa: PTH118 - the target may be absolute
    for name in names:
        found = source / name.lstrip("/")
        if found.is_dir():
            shutil.copytree(found, into, symlinks=True, dirs_exist_ok=True)
        else:
            place = into / found.name if target.endswith("/") else into
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, place)


def apply(stage: Stage, name: str, rest: str) -> None:
    """Carry out an instruction that only sets something."""
    match name:
        case "WORKDIR":
            stage.cwd = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        case "ENV":
            for word in shlex.split(rest):
                key, _, value = word.partition("=")
                stage.env[key] = value.replace("$PATH", stage.env["PATH"])
        case "USER":
            stage.user = rest
        case "VOLUME":
            stage.volumes = json.loads(rest)
        case "HEALTHCHECK":
            stage.health = json.loads(rest.partition(" CMD ")[2])
        case "ENTRYPOINT":
            stage.command = json.loads(rest)
        case "CMD":
            stage.command += json.loads(rest)
        case "EXPOSE":
            pass
        case _:
            raise SystemExit(f"this script does not know {name}")


def build(rootfs: Path, binds: list[str], work: Path) -> Stage:
    """Carry out the Dockerfile; return its last stage."""
    stages: dict[str, Stage] = {}
    stage = Stage(work)
    # pip's settings of this machine, as build arguments would pass them on.
    passed = {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
    for name, rest in instructions((ROOT / "Dockerfile").read_text()):
        print(f"{name} {rest}", flush=True)
        if name == "FROM":
            key = rest.partition(" AS ")[2] or str(len(stages))
            stages[key] = stage = Stage(work / key)
            subprocess.run(["cp", "-a", str(rootfs), str(stage.root)], check=True)
            (stage.root / "usr/bin/python").symlink_to("python3")
        elif name == "RUN":
            run(replace(stage, env={**passed, **stage.env}), ["sh", "-c", rest], binds)
        elif name == "COPY":
            copy(stage, rest, stages)
        else:
            apply(stage, name, rest)
    return stage


async def try_out(stage: Stage) -> None:
    """Run the container. Raises AssertionError or CalledProcessError when it is not as it should be."""
    async with EmbeddedOrchestrator(poll_time=2.0) as orchestrator:
        told = {"ORCHESTRATOR_URL": orchestrator.url, "WORKER_TOKEN": orchestrator.token or "", "WORKER_PORT": "8093"}
        stage = replace(stage, env={**stage.env, **told, "WORKER_ID": "contained"})
        process = subprocess.Popen(arguments(stage, stage.command, [], contained=True))
        try:
            await orchestrator.wait_for_worker("contained", timeout=30)
            await asyncio.to_thread(run, stage, stage.health, [], contained=True)
            job = orchestrator.submit("pause", {"seconds": 0.1, "number": 1})
            await orchestrator.wait_for(lambda: job.state.final)
            print(f"the health check passes; a job: {job.state}")
            assert job.state is JobState.FINISHED, job
            owner = Path(f"/proc/{process.pid}/status").read_text().partition("Uid:")[2].split()[0]
            assert owner == stage.user, f"it runs as {owner}"
            write = ["touch", "/srv/worker/here"]
            assert subprocess.run(arguments(stage, write, [], contained=True), check=False).returncode, "it could write"
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(process.wait, 60)
            assert code == 0, f"exit code {code}"
            print(f"after SIGTERM it ended within {time.monotonic() - began:.1f} s with exit code 0")
        finally:
            process.kill()


def size(path: Path) -> float:
    """Return the MiB that a directory's files take."""
    return sum(each.lstat().st_size for each in path.rglob("*") if not each.is_dir()) / 2**20


def main() -> int:
    """Build, run, and say what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rootfs", type=Path)
    parser.add_argument("--bind", action="append", default=[], metavar="PATH")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="avtomatika-chroot-") as directory:
        stage = build(told.rootfs.resolve(), told.bind, Path(directory))
        print(f"{size(stage.root / 'opt/venv'):.0f} MiB on top of the base image")
        asyncio.run(try_out(stage))
    return 0


if __name__ == "__main__":
    sys.exit(main())
