"""What users write about files and errors. No checker may complain."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

from avtomatika_worker import (
    ConfigError,
    ContractViolationError,
    DependencyError,
    DependencyMissingError,
    FilePath,
    IntegrityMismatchError,
    InternalError,
    InvalidInputError,
    ObservabilityManager,
    PermanentError,
    ResourceExhaustedError,
    S3Uri,
    SecurityError,
    SkillBlueprint,
    StoredUri,
    SyncTaskFiles,
    TaskContext,
    TaskError,
    TaskFiles,
    TaskTimeoutError,
    TransientError,
    UnsafeNameError,
    WorkerError,
)

skills = SkillBlueprint("files")


@skills.skill
async def with_files(source: Path, where: S3Uri, files: TaskFiles) -> dict[str, Path | S3Uri]:
    assert_type(await files.get_root(), FilePath)
    assert_type(await files.path_to("a/b.txt"), FilePath)
    assert_type(await files.exists("a"), bool)
    assert_type(await files.list("a", recursive=True), list[str])
    assert_type(await files.read("a"), str)
    assert_type(await files.read(source, "rb"), bytes)
    assert_type(await files.write("a", "text"), FilePath)
    assert_type(await files.write("a", b"bytes", "ab"), FilePath)
    await files.write_json("a.json", {"a": 1})
    assert_type(await files.upload_file("a", target="kept/a"), StoredUri)
    assert_type(await files.upload_dir("a"), StoredUri)
    assert_type(await files.download_file(where, "b"), FilePath)
    assert_type((where.scheme, where.bucket, where.key, where.is_prefix), tuple[str, str, str, bool])
    async with files.open("log", "a") as file:
        assert_type(await file.write("line"), int)
        async for _line in file:
            pass
    return {"path": source, "uri": where}


@skills.skill
def with_files_in_a_thread(files: TaskFiles, ctx: TaskContext, telemetry: ObservabilityManager) -> Path:
    assert_type(files.sync, SyncTaskFiles)
    assert_type(ctx.files, TaskFiles)
    assert_type(files.sync.read("a", "rb"), bytes)
    assert_type(files.sync.read("a"), str)
    assert_type(files.sync.upload_file("a"), StoredUri)
    assert_type(files.sync.download_file("s3://bucket/key"), FilePath)
    with files.sync.open("a") as file:
        file.read()
    ctx.add_cost("tokens", 12)
    return files.sync.write("a", "b")


def errors() -> list[WorkerError]:
    """Every error that a skill may raise takes a message and details."""
    kinds: list[type[TaskError]] = [
        ContractViolationError,
        DependencyError,
        DependencyMissingError,
        IntegrityMismatchError,
        InternalError,
        InvalidInputError,
        PermanentError,
        ResourceExhaustedError,
        SecurityError,
        TaskTimeoutError,
        TransientError,
    ]
    made = [kind("what happened", {"path": "$.width"}) for kind in kinds]
    assert_type(made, list[TaskError])
    assert_type(made[0].details, dict[str, Any])
    assert_type(UnsafeNameError("../a", "it leads out").name, str)
    return [*made, ConfigError(["WORKER_PORT: not a number"])]
