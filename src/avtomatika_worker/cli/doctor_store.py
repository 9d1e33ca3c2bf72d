"""Checks the file store for `worker doctor`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from avtomatika_worker.cli.findings import Finding, error, note, ok, warning
from avtomatika_worker.errors import DependencyError, DependencyMissingError, TaskError, UnsafeNameError
from avtomatika_worker.files.store_check import StoreProbe, probe_store
from avtomatika_worker.files.store_settings import StoreSettings

_TIMEOUT: Final = 20.0


async def examine_store(settings: StoreSettings) -> tuple[Finding, ...]:
    """Write, read and delete a probe where the files of results go."""
    has_place = settings.default_bucket is not None or settings.file_root is not None
    if not (settings.has_s3 or has_place):
        return (note("no store is configured (S3_DEFAULT_BUCKET): skills can get and return no files"),)
    if not has_place:
        advice = "set S3_DEFAULT_BUCKET if skills return files"
        return (note("S3 is configured, but no bucket for the files of results; not tried", advice),)
    try:
        async with asyncio.timeout(_TIMEOUT):
            return tuple(_reported(await probe_store(settings)))
    except TimeoutError:
        text = f"the store does not answer within {_TIMEOUT:.0f} s"
        return (error(text, _advice(None)),)
    except DependencyMissingError as problem:  # the client, or a setting
        return (error(problem.message, "tasks cannot transfer files without it"),)


def _reported(probe: StoreProbe) -> Iterator[Finding]:
    place, failed = probe.uri.rpartition("/avtomatika-doctor/")[0], probe.failed
    if not failed:
        yield ok(f"{place}: a probe was written, read and deleted in {probe.seconds * 1000:.0f} ms")
        return
    if problem := failed.get("write"):
        yield error(f"cannot write to {place}: {_said(problem, probe)}", _advice(problem))
        return
    if problem := failed.get("read"):
        yield error(f"cannot read what was written to {place}: {_said(problem, probe)}", _advice(problem))
    else:
        yield ok(f"{place}: a probe was written and read in {probe.seconds * 1000:.0f} ms")
    if problem := failed.get("delete"):
        text = f"the probe cannot be deleted: {_said(problem, probe)}"
        yield warning(text, f"delete {probe.uri}; a worker never deletes anything in a store, so it works anyway")


def _said(problem: TaskError, probe: StoreProbe) -> str:
    return problem.message.removeprefix(f"{probe.uri}: ")


def _advice(problem: TaskError | None) -> str:
    match problem:
        case DependencyError():
            return "check S3_DEFAULT_BUCKET, S3_ACCESS_KEY and S3_SECRET_KEY, and what they are allowed to do there"
        case UnsafeNameError():
            return "set WORKER_FILE_STORE_ROOT to a directory without symbolic links"
        case _:
            return "check S3_ENDPOINT_URL, and that this machine may connect to it"
