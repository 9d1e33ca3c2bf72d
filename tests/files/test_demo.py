"""The thumbnail example takes its pictures from S3 when there is one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from avtomatika_worker.demo_app.app import worker as demo_worker
from avtomatika_worker.demo_app.demo_jobs import DATA
from avtomatika_worker.devserver import EmbeddedOrchestrator
from files.conftest import Bucket, worker_settings
from files.s3 import ACCESS_KEY, SECRET_KEY
from services.conftest import running


@pytest.mark.timeout(60)
async def test_a_picture_comes_from_the_store_and_its_thumbnail_goes_there(
    orchestrator: EmbeddedOrchestrator, bucket: Bucket, tmp_path: Path
) -> None:
    source = bucket.put("in/dusk.jpg", (DATA / "dusk.jpg").read_bytes())
    async with running(demo_worker, orchestrator, **worker_settings(bucket, tmp_path)):
        job = orchestrator.submit("thumbnail", {"source": source, "width": 64})
        await job.done()
    assert job.result is not None, job.describe()
    assert job.result["path"] == bucket.uri(f"{job.job_id}/{job.task_id}/thumbnails/dusk-64.jpg")
    (tmp_path / "small.jpg").write_bytes(bucket.server.get(job.result["path"]))
    with Image.open(tmp_path / "small.jpg") as image:
        assert image.width == 64


def test_the_demo_uses_the_store_that_is_configured(bucket: Bucket, tmp_path: Path) -> None:
    store = {
        "S3_ENDPOINT_URL": bucket.server.url,
        "S3_ACCESS_KEY": ACCESS_KEY,
        "S3_SECRET_KEY": SECRET_KEY,
        "S3_DEFAULT_BUCKET": bucket.name,
        "TASK_FILES_DIR": str(tmp_path / "payloads"),
    }
    command = [sys.executable, "-m", "avtomatika_worker.cli", "demo", "--output", "pictures"]
    done = subprocess.run(command, cwd=tmp_path, env={"PATH": "", **store}, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"the bucket {bucket.name}" in done.stdout
    assert not (tmp_path / "pictures").exists()
