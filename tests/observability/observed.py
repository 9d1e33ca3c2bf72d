"""A worker process that records metrics and traces, what it writes, and what its health server answers."""

import asyncio
import contextlib
import json
import os
import signal
import sys

import aiohttp
from prometheus_client.parser import text_string_to_metric_families


class Observed:
    """The worker, what it wrote, and its health server."""

    def __init__(self, process):
        self.process = process
        self.lines = []
        self.port = 0

    async def up(self):
        """Wait until its health server listens and it is registered."""
        up = False
        async with asyncio.timeout(30):
            while not (up and self.port):
                line = (await self.process.stdout.readline()).decode()
                assert line, self.output
                self.lines.append(line)
                if "health server on port" in line:
                    self.port = int(json.loads(line)["message"].split()[-1])
                up = up or "registered with" in line

    async def scrape(self):
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}/metrics") as response,
        ):
            assert response.status == 200
            assert response.content_type == "text/plain"
            text = await response.text()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return text, samples

    async def health(self):
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}/health") as response,
        ):
            return await response.json()

    async def scrape_until(self, predicate):
        """Scrape until the samples are as wanted: what the orchestrator saw, the worker may count a moment later."""
        async with asyncio.timeout(20):
            while True:
                text, samples = await self.scrape()
                if predicate(samples):
                    return text, samples
                await asyncio.sleep(0.05)

    async def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.lines.append((await self.process.stdout.read()).decode())
        assert await self.process.wait() == 0, self.output

    @property
    def output(self):
        return "".join(self.lines)


@contextlib.asynccontextmanager
async def observed(tmp_path, orchestrator, app, **environment):
    (tmp_path / "my_app.py").write_text(app, "utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "avtomatika_worker.cli", "run", "--app", "my_app:worker"),
        cwd=tmp_path,
        env={
            "PATH": os.environ.get("PATH", ""),
            "ORCHESTRATOR_URL": orchestrator.url,
            "WORKER_TOKEN": orchestrator.token,
            "WORKER_STATE_DIR": str(tmp_path),
            "WORKER_PORT": "0",
            "WORKER_HEALTH_HOST": "127.0.0.1",
            "WORKER_ENABLE_METRICS": "true",
            "HEARTBEAT_INTERVAL": "0.5",
            "LOG_FORMAT": "json",
            "PYTHONWARNINGS": "default",
            **environment,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    worker = Observed(process)
    try:
        await worker.up()
        yield worker
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def value(samples, name, **labels):
    found = [s.value for s in samples if s.name == name and labels.items() <= s.labels.items()]
    return sum(found) if found else None
