"""`TaskFiles`: a skill's view of its files. Names are relative to the task's own directory, and stay in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path, PurePath
from typing import IO, Any, Final, Literal, TypeVar, cast, overload

from avtomatika_worker.errors import UnsafeNameError
from avtomatika_worker.filepath import FilePath
from avtomatika_worker.files.disk import Disk
from avtomatika_worker.files.names import check_given, check_key
from avtomatika_worker.files.objects import Expect, Objects, expect_anything
from avtomatika_worker.files.offload import Place, existing, paths_in, verification
from avtomatika_worker.files.open_file import OpenFile
from avtomatika_worker.files.permit import Permit
from avtomatika_worker.files.progress import Notify
from avtomatika_worker.files.stored_uri import StoredUri
from avtomatika_worker.files.workspace import Name, Names, Workspace
from avtomatika_worker.protocol.messages import FileMetadata
from avtomatika_worker.protocol.uris import is_object_uri

_T = TypeVar("_T")

INPUT: Final = "input"
"""The default directory for downloads."""


class TaskFiles:
    """The files of one task, in its own directory: annotate an argument with this class to get it.

    The directory is created when first needed and removed after the task. A name is relative to it, or a path in it;
    one that leads elsewhere raises `UnsafeNameError`. In a plain ``def`` skill use `sync`, which has the same methods
    without ``await``.
    """

    __slots__ = ("_operations",)

    def __init__(self, operations: FileOperations) -> None:
        self._operations: FileOperations = operations

    # ------------------------------------------------------------------------------------------ names

    async def get_root(self) -> FilePath:
        """Return the task's directory."""
        return FilePath(await self._operations.disk.run(self._operations.workspace.get_root))

    async def path_to(self, filename: Name) -> FilePath:
        """Return the absolute path of ``filename``, which need not exist; its parent directory exists on return."""
        return FilePath(await self._operations.disk.run(self._operations.workspace.path_to, filename))

    def get_root_sync(self) -> FilePath:
        """Return what `get_root` does, without ``await``; it blocks."""
        return FilePath(self._operations.workspace.get_root())

    def path_to_sync(self, filename: Name) -> FilePath:
        """Return what `path_to` does, without ``await``; it blocks."""
        return FilePath(self._operations.workspace.path_to(filename))

    async def exists(self, filename: Name) -> bool:
        """Return whether the file or directory exists."""
        return await self._operations.disk.run(self._operations.workspace.exists, filename)

    async def list(self, directory: Name = "", *, recursive: bool = False) -> Names:
        """Return the names in a directory, sorted; with ``recursive``, those of all files below it, with ``/``."""
        return await self._operations.disk.run(self._operations.workspace.list, directory, recursive=recursive)

    # ------------------------------------------------------------------------------------------ contents

    def open(self, filename: Name, mode: str = "r", *, encoding: str | None = None) -> OpenFile:
        """Open a file: ``async with files.open("out.txt", "w") as file: await file.write("…")``.

        Modes are those of the built-in ``open``; text is UTF-8 unless ``encoding`` says otherwise.
        """
        return OpenFile(self._operations.disk, lambda: self._operations.workspace.open(filename, mode, encoding))

    @overload
    async def read(self, filename: Name, mode: Literal["r"] = ..., *, encoding: str | None = None) -> str: ...

    @overload
    async def read(self, filename: Name, mode: Literal["rb"], *, encoding: str | None = None) -> bytes: ...

    async def read(self, filename: Name, mode: Literal["r", "rb"] = "r", *, encoding: str | None = None) -> str | bytes:
        """Return a file's content: a text, or bytes with mode ``"rb"``."""
        return await self._operations.disk.run(lambda: self._operations.workspace.read(filename, mode, encoding))

    async def write(
        self, filename: Name, data: str | bytes, mode: str = "w", *, encoding: str | None = None
    ) -> FilePath:
        """Write ``data``, a text or bytes, and return the path; mode ``"a"`` appends."""
        write = self._operations.workspace.write
        return FilePath(await self._operations.disk.run(write, filename, data, mode, encoding))

    async def read_json(self, filename: Name) -> Any:
        """Return the value in a JSON file."""
        return await self._operations.disk.run(self._operations.workspace.read_json, filename)

    async def write_json(self, filename: Name, data: Any) -> StoredUri | None:
        """Write a value as JSON (models and dataclasses by their fields), and upload the file.

        Return its URI; None if no store for results is configured, and the file is only written.
        """
        return await self._operations.write_json(filename, data)

    # ------------------------------------------------------------------------------------------ object stores

    async def upload_file(self, filename: Name, target: str | None = None) -> StoredUri:
        """Upload a file and return its URI.

        ``target`` is a URI, or a key under the task's own (``job_id/task_id/``); it defaults to ``filename``. Raises
        FileNotFoundError, or a `TaskError` if the store does not accept the file.
        """
        return await self._operations.upload_file(filename, target)

    async def upload_dir(self, dirname: Name = "", target: str | None = None) -> StoredUri:
        """Upload a directory and everything below it; return the URI of the prefix, which ends in ``/``."""
        return await self._operations.upload_dir(dirname, target)

    async def download_file(self, uri: str, filename: Name | None = None, verify_meta: Any = None) -> FilePath:
        """Download an object, or everything under ``uri`` if that ends in ``/``, and return the path.

        ``filename`` is the target; it defaults to the object's own name in a new directory. The file may be
        read-only. ``verify_meta`` is what the object should be: an object, or a dict, with ``size`` and ``etag``.
        Raises `IntegrityMismatchError` if it differs, `DependencyMissingError` if no store is configured, and
        `InvalidInputError` if there is no such object.
        """
        return FilePath(await self._operations.download_file(uri, filename, verify_meta))

    @property
    def sync(self) -> SyncTaskFiles:
        """The same methods for threads."""
        return SyncTaskFiles(self._operations)


class SyncTaskFiles:
    """`TaskFiles` for threads: the same methods, without ``await``. Transfers run on the main loop."""

    __slots__ = ("_operations", "_workspace")

    def __init__(self, operations: FileOperations) -> None:
        self._operations: FileOperations = operations
        self._workspace = operations.workspace

    def get_root(self) -> FilePath:
        """Return the task's directory."""
        return FilePath(self._workspace.get_root())

    def path_to(self, filename: Name) -> FilePath:
        """Return the absolute path of ``filename``; its parent directory exists on return."""
        return FilePath(self._workspace.path_to(filename))

    def exists(self, filename: Name) -> bool:
        """Return whether the file or directory exists."""
        return self._workspace.exists(filename)

    def list(self, directory: Name = "", *, recursive: bool = False) -> Names:
        """Return the names in a directory, sorted; with ``recursive``, those of all files below it."""
        return self._workspace.list(directory, recursive=recursive)

    def open(self, filename: Name, mode: str = "r", *, encoding: str | None = None) -> IO[Any]:
        """Open a file like the built-in ``open``; text is UTF-8 unless ``encoding`` says otherwise."""
        return self._workspace.open(filename, mode, encoding)

    @overload
    def read(self, filename: Name, mode: Literal["r"] = ..., *, encoding: str | None = None) -> str: ...

    @overload
    def read(self, filename: Name, mode: Literal["rb"], *, encoding: str | None = None) -> bytes: ...

    def read(self, filename: Name, mode: Literal["r", "rb"] = "r", *, encoding: str | None = None) -> str | bytes:
        """Return a file's content: a text, or bytes with mode ``"rb"``."""
        return self._workspace.read(filename, mode, encoding)

    def write(self, filename: Name, data: str | bytes, mode: str = "w", *, encoding: str | None = None) -> FilePath:
        """Write ``data``, a text or bytes, and return the path; mode ``"a"`` appends."""
        return FilePath(self._workspace.write(filename, data, mode, encoding))

    def read_json(self, filename: Name) -> Any:
        """Return the value in a JSON file."""
        return self._workspace.read_json(filename)

    def write_json(self, filename: Name, data: Any) -> StoredUri | None:
        """Write a value as JSON and upload the file, as `TaskFiles.write_json` does."""
        if self._operations.stores_results:
            return self._operations.in_loop(lambda: self._operations.write_json(filename, data))
        self._workspace.write_json(filename, data)
        return None

    def upload_file(self, filename: Name, target: str | None = None) -> StoredUri:
        """Upload a file and return its URI, as `TaskFiles.upload_file` does."""
        return self._operations.in_loop(lambda: self._operations.upload_file(filename, target))

    def upload_dir(self, dirname: Name = "", target: str | None = None) -> StoredUri:
        """Upload a directory and return the URI of its prefix, as `TaskFiles.upload_dir` does."""
        return self._operations.in_loop(lambda: self._operations.upload_dir(dirname, target))

    def download_file(self, uri: str, filename: Name | None = None, verify_meta: Any = None) -> FilePath:
        """Download an object or a prefix and return its path, as `TaskFiles.download_file` does."""
        return FilePath(self._operations.in_loop(lambda: self._operations.download_file(uri, filename, verify_meta)))


class FileOperations:
    """The worker's view of a task's files; the skill sees them as `TaskFiles`."""

    def __init__(
        self,
        workspace: Workspace,
        disk: Disk,
        objects: Objects,
        permit: Permit,
        *,
        job_id: str,
        task_id: str,
        notify: Notify,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.workspace: Workspace = workspace
        self.disk: Disk = disk
        self.files: TaskFiles = TaskFiles(self)
        self._objects = objects
        self._permit = permit
        self._ids = (job_id, task_id)
        self._returned: frozenset[str] = frozenset()
        self._notify = notify
        self._stored: dict[str, FileMetadata] = {}
        self._downloads = 0
        self._loop = loop

    @property
    def stores_results(self) -> bool:
        """Whether a store for results is configured."""
        return self._objects.stores_results

    async def write_json(self, name: Name, value: Any) -> StoredUri | None:
        """Implement `TaskFiles.write_json`."""
        await self.disk.run(self.workspace.write_json, name, value)
        return await self.upload_file(name) if self.stores_results else None

    async def upload_file(self, name: Name, target: str | None = None) -> StoredUri:
        """Implement `TaskFiles.upload_file`."""
        path = await self.disk.run(self.workspace.file, name)
        return await self._upload({"": path}, target if target is not None else await self._name_of(path))

    async def upload_dir(self, name: Name = "", target: str | None = None) -> StoredUri:
        """Implement `TaskFiles.upload_dir`."""
        path, found = await self.disk.run(self.workspace.tree, name)
        target = target if target is not None else await self._name_of(path)
        return await self._upload(found, f"{target.rstrip('/')}/")

    async def download_file(self, uri: str, name: Name | None = None, verify_meta: Any = None) -> Path:
        """Implement `TaskFiles.download_file`."""
        expect = expect_anything if verify_meta is None else verification(uri, verify_meta)
        if name is not None:
            path = await self.disk.run(self.workspace.path_to, name)
            return await self._objects.fetch(uri, path.parent, path.name, self._notify, self._permit, expect)
        return await self.bring(uri, expect)

    @property
    def root(self) -> Path | None:
        """The task's directory, or None before it is needed."""
        return self.workspace.made

    def stored(self, uri: str) -> FileMetadata | None:
        """Return the facts about an object uploaded by this task."""
        return self._stored.get(uri)

    async def settle(self, name: str) -> Path:
        """Return the path for a name in the params, in the task's directory. Raises `UnsafeNameError`."""
        check_given(name)
        return await self.disk.run(self.workspace.confined, name)

    async def bring(self, uri: str, expect: Expect = expect_anything) -> Path:
        """Download into a new directory, under the object's own name; ``expect`` raises for a wrong object."""
        self._downloads += 1
        directory = await self.disk.run(self.workspace.path_to, f"{INPUT}/{self._downloads}")
        return await self._objects.fetch(uri, directory, None, self._notify, self._permit, expect)

    def note_returned(self, paths: Iterable[str | PurePath]) -> None:
        """Remember which texts in the result's data were paths when the skill returned them.

        What is a text as well as a path stays a text where no store for results is configured.
        """
        self._returned = frozenset(
            str(path) for path in paths if self.stores_results or not isinstance(cast("object", path), FilePath)
        )

    async def paths_in(
        self, data: dict[str, Any], typed: AbstractSet[Place], *, untyped: bool
    ) -> tuple[dict[Place, str], tuple[Place, ...]]:
        """Return the names and locations of this task's files in the data, and the locations of mere texts.

        Files are the values returned as paths, those at the ``typed`` places and, if ``untyped``, every path. Raises
        `PermanentError` for a path where nothing exists.
        """
        return await self.disk.run(
            _files_in, data, self.workspace.get_root(), typed, None if untyped else self._returned
        )

    async def upload(self, name: Name) -> StoredUri:
        """Upload a file or a directory."""
        path = await self.disk.run(self.workspace.confined, name)
        return await (self.upload_dir(name) if await self.disk.run(path.is_dir) else self.upload_file(name))

    async def remove(self) -> None:
        """Remove the directory and its content."""
        if self.workspace.made is not None:
            await self.disk.run(self.workspace.remove)

    def in_loop(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        """Run ``work`` on the main loop and wait for it in this thread. Raises RuntimeError on a loop."""
        if self._loop is None:
            raise RuntimeError("files can only be transferred in a worker")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run_coroutine_threadsafe(work(), self._loop).result()
        raise RuntimeError("files.sync is for threads: in an async def skill, await the methods of files itself")

    async def _upload(self, found: Mapping[str, Path], target: str) -> StoredUri:
        uri = target if is_object_uri(target) else self._objects.target(self._key(target))
        metadata = await self._objects.store(found, uri, self._notify, self._permit)
        self._stored[metadata.uri] = metadata
        return StoredUri(metadata)

    async def _name_of(self, path: Path) -> str:
        return path.relative_to(self.workspace.get_root()).as_posix()

    def _key(self, name: str) -> str:
        """Return the key of ``name`` under the task's own: two tasks of a job must not overwrite each other's files."""
        bare = name.removesuffix("/")
        below = () if bare in {"", "."} else check_key(bare, name)
        for each in self._ids:
            if len(check_key(each, each)) != 1:
                raise UnsafeNameError(each, "an id must not contain a slash")
        return "/".join((*self._ids, *below)) + ("/" if name.endswith("/") else "")


def _files_in(
    data: Mapping[str, Any], root: Path, typed: AbstractSet[Place], returned: AbstractSet[str] | None
) -> tuple[dict[Place, str], tuple[Place, ...]]:
    found = paths_in(data, root)
    files = {place: text for place, text in found.items() if returned is None or place in typed or text in returned}
    return existing(files, root), tuple(place for place in found if place not in files)
