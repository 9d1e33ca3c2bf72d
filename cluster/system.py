"""Start, restart, break and stop the processes of a cluster."""

from __future__ import annotations

import http.client
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cluster.environments import python_of
from cluster.processes import ManagedProcess, ProcessError, free_port
from cluster.redis_server import READY, close_connections, redis_command

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
ORCHESTRATOR = "1.0b30"
WORKER_TOKEN = "worker-token"  # noqa: S105 - everything listens on loopback only
CLIENT_TOKEN = "client-token"  # noqa: S105
BUCKET = "results"
START_TIMEOUT = 40.0
STOP_TIMEOUT = 15.0
RESTART_AFTER = 1.0
POLLED = 0.05

_UNLIMITED = str(10**9)
ENGINE_SETTINGS = {
    # The defaults (60 polls and 100 results a minute) are for a worker with a task or so a second.
    "RATE_LIMIT_LIMIT": _UNLIMITED,
    "RATE_LIMIT_POLL_LIMIT": _UNLIMITED,
    "RATE_LIMIT_HEARTBEAT_LIMIT": _UNLIMITED,
    "DETAILED_API_RESPONSES": "true",
    "LOG_LEVEL": "WARNING",
    "LOG_FORMAT": "text",
    # How soon jobs of a dead engine, and tasks of a dead worker, are taken up by others; how long a task may queue.
    "WATCHER_INTERVAL_SECONDS": "2",
    "WORKER_TIMEOUT_SECONDS": "10",
    "TAKE_OVER_AFTER_MS": "5000",
    "WORKER_POLL_TIMEOUT_SECONDS": "5",
}
WORKER_SETTINGS = {
    "MULTI_ORCHESTRATOR_MODE": "ROUND_ROBIN",
    "REGISTRATION_RETRY_MAX_DELAY": "3",
    "RESULT_RETRY_MAX_DELAY": "3",
    "WORKER_RESULT_DURABILITY": "always",
    "LOG_FORMAT": "json",
}


class ClusterError(Exception):
    """Something that keeps the cluster from starting, and what to do about it."""


@dataclass
class Member:
    """A process with its place in the system; ``process`` changes with each restart."""

    name: str
    url: str
    command: list[str] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)  # tokens
    directory: Path
    ready: str = field(repr=False)
    process: ManagedProcess | None = None
    restarts: int = 0
    outputs: list[str] = field(default_factory=list, repr=False)

    def start(self) -> None:
        """Start it; it answers once ``wait`` has returned."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.process = ManagedProcess(self.name, self.command, env=self.env, cwd=self.directory, own_session=True)

    def wait(self) -> None:
        """Wait until it says that it answers. Raises `ProcessError` with its output when it does not."""
        assert self.process is not None
        self.process.wait_for_line(lambda line: self.ready in line, timeout=START_TIMEOUT)

    def kill(self) -> None:
        """End it at once, as a crash does."""
        assert self.process is not None
        self.process.kill()

    def stop(self) -> None:
        """Ask it to end, and end it when it does not."""
        if self.process is None:
            return
        if self.process.running:
            self.process.terminate()
            try:
                self.process.wait(STOP_TIMEOUT)
            except ProcessError:
                self.process.kill()

    def output(self) -> str:
        """Return what it has written, in earlier lives too."""
        return "".join([*self.outputs, self.process.output() if self.process else ""])


class Cluster:
    """The members in the order in which they start; what ends by itself is started again, as containers would be."""

    def __init__(
        self, directory: Path, *, engines: int = 2, workers: int = 3, engine_env: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.redis = _redis(directory)
        self.s3 = s3_server(directory)
        self.engines = [
            _engine(directory, f"engine-{number}", self.redis, engine_env or {}) for number in range(1, engines + 1)
        ]
        self.workers = [
            _worker(directory, f"worker-{number}", self.engines, self.s3) for number in range(1, workers + 1)
        ]
        self._ending = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="restarts", daemon=True)

    @property
    def members(self) -> list[Member]:
        """All of them."""
        return [self.redis, self.s3, *self.engines, *self.workers]

    def start(self) -> None:
        """Start everything and wait until it answers. Raises `ProcessError` with the output of what does not."""
        for group in ([self.redis, self.s3], self.engines, self.workers):
            for member in group:
                member.start()
            for member in group:
                member.wait()
        put(self.s3.url, BUCKET)
        self._keeper.start()

    def stop(self) -> None:
        """End everything: workers first, so that they say goodbye."""
        self._ending.set()
        if self._keeper.ident is not None:
            self._keeper.join()
        for group in (self.workers, self.engines, [self.s3, self.redis]):
            threads = [threading.Thread(target=member.stop) for member in group]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def cut_redis(self) -> int:
        """Close every connection to Redis from its side; return how many there were."""
        return close_connections(int(self.redis.url.rpartition(":")[2]))

    def _keep(self) -> None:
        while not self._ending.wait(POLLED):
            for member in self.members:
                if member.process is not None and not member.process.running:
                    member.outputs.append(member.process.output())
                    if self._ending.wait(RESTART_AFTER):
                        return
                    member.restarts += 1
                    member.start()


@contextmanager
def running(
    directory: Path, *, engines: int = 2, workers: int = 3, engine_env: Mapping[str, str] | None = None
) -> Iterator[Cluster]:
    """Provide a running cluster; nothing of it is left behind but ``directory``. ``engine_env`` adds to the engines'.

    Raises `RedisMissingError` when a server has to be installed first, `ProcessError` when a member does not start.
    """
    cluster = Cluster(directory, engines=engines, workers=workers, engine_env=engine_env)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _redis(directory: Path) -> Member:
    port = free_port()
    home = directory / "redis"
    # Every write is on disk before it is answered: a restart forgets no job.
    command = redis_command(port, home, "--appendonly", "yes", "--appendfsync", "always")
    return Member("redis", f"redis://127.0.0.1:{port}", command, {}, home, READY)


def s3_server(directory: Path) -> Member:
    """Return an S3 server that keeps its objects in memory."""
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    return Member("s3", f"http://127.0.0.1:{port}", command, {}, directory / "s3", "Running on")


def _engine(directory: Path, name: str, redis: Member, more: Mapping[str, str]) -> Member:
    port = free_port()
    env = {
        "INSTANCE_ID": name,
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": redis.url.rpartition(":")[2],
        "API_HOST": "127.0.0.1",
        "API_PORT": str(port),
        "CLIENT_TOKEN": CLIENT_TOKEN,
        "GLOBAL_WORKER_TOKEN": WORKER_TOKEN,
        "CLIENTS_CONFIG_PATH": str(DEPLOY / "orchestrator" / "clients.toml"),
        "TASK_FILES_DIR": str(directory / name / "files"),
        "OTEL_SDK_DISABLED": "true",
        **ENGINE_SETTINGS,
        **more,
    }
    command = [str(python_of(ORCHESTRATOR, "redis")), str(DEPLOY / "orchestrator" / "app.py")]
    return Member(name, f"http://127.0.0.1:{port}", command, env, directory / name, "READY")


def _worker(directory: Path, name: str, engines: list[Member], s3: Member) -> Member:
    port = free_port()
    home = directory / name
    env = {
        "PYTHONPATH": str(DEPLOY / "worker"),
        "WORKER_ID": name,  # the same after a restart: it finds its results, and the tasks that are queued for it
        "WORKER_TOKEN": WORKER_TOKEN,
        "ORCHESTRATORS_CONFIG": json.dumps([{"url": engine.url} for engine in engines]),
        "WORKER_PORT": str(port),
        "WORKER_HEALTH_HOST": "127.0.0.1",
        "TASK_FILES_DIR": str(home / "files"),
        "WORKER_STATE_DIR": str(home / "state"),
        **s3_settings(s3.url),
        **WORKER_SETTINGS,
    }
    command = [sys.executable, "-m", "avtomatika_worker.cli", "run", "--app", "app:worker"]
    return Member(name, f"http://127.0.0.1:{port}", command, env, home, '"registered"')


def s3_settings(url: str) -> dict[str, str]:
    """Return a worker's settings for the S3 server at ``url``."""
    return {
        "S3_ENDPOINT_URL": url,
        "S3_ACCESS_KEY": "access-key",
        "S3_SECRET_KEY": "secret-key",
        "S3_DEFAULT_BUCKET": BUCKET,
    }


def put(url: str, path: str, body: bytes = b"") -> None:
    """Make a bucket, or an object in one, at the S3 server. Raises `ClusterError` when it does not take it."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    try:
        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=access-key/20260101/us-east-1/s3/aws4_request"}
        connection.request("PUT", f"/{path}", body, signed)
        answer = connection.getresponse()
        if answer.status >= 300:
            raise ClusterError(f"{path} could not be made at {url}: HTTP {answer.status}")
    finally:
        connection.close()
