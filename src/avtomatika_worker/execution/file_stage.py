"""The stage that downloads a task's files before its skill runs, uploads the results after it, and cleans up."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from avtomatika_worker.errors import InvalidInputError, SourceRefusedError, TaskError, UnsafeNameError
from avtomatika_worker.execution.context import TaskContext, controls_of
from avtomatika_worker.execution.middleware import Handler
from avtomatika_worker.execution.outcome import Cancelled, Failed, Outcome, Succeeded
from avtomatika_worker.execution.task_boundary import TaskBoundary
from avtomatika_worker.files.concurrency import side_by_side
from avtomatika_worker.files.offload import (
    DEEPEST,
    Place,
    expectation,
    may_name_objects,
    name_of,
    replaced,
    texts,
    uris_in,
)
from avtomatika_worker.files.task_files import FileOperations
from avtomatika_worker.observability.tracing import Tracing
from avtomatika_worker.protocol.uris import for_messages, is_object_uri, is_web_url
from avtomatika_worker.skills.skill import Skill
from avtomatika_worker.skills.uri_params import KEY

_log: Final = logging.getLogger("avtomatika_worker.task")

_AT_ONCE: Final = 8
_NAMED: Final = 5
"""Maximum number of places that a warning lists."""


class Offload:
    """The innermost middleware, so that the others see URIs in both params and data."""

    def __init__(self, tracing: Tracing, *, untyped: bool = False) -> None:
        """``untyped``: whether all URIs and paths are transferred for skills without types for their params."""
        self._untyped = untyped
        self._tracing = tracing

    async def __call__(self, ctx: TaskContext, call_next: Handler) -> Outcome:
        """Run the rest of the task with local files in place of URIs. Raises nothing but ``CancelledError``."""
        controls = controls_of(ctx)
        skill = controls.skill
        with TaskBoundary() as boundary:
            try:
                if skill is not None and (skill.wants_paths or (self._untyped and skill.untyped)):
                    await self._localize(ctx, skill)
                outcome = await call_next(ctx)
                files = controls.used_files
                return outcome if files is None else await self._take_away(files, outcome, skill)
            finally:
                if (files := controls.used_files) is not None:
                    await files.remove()
        return boundary.failure

    async def _localize(self, ctx: TaskContext, skill: Skill) -> None:
        """Replace files named in the params by paths in the task's directory; no other path is accepted."""
        named = {place: _text_at(ctx.params, place) for place in skill.path_places(ctx.params)}
        settled = await _settled(ctx, named) if named else {}
        if wanted := self._wanted(ctx, skill, named):
            with self._tracing.span("fetch"):
                await self._bring(ctx, wanted)
        if settled:
            ctx.params = replaced(ctx.params, settled)

    def _wanted(self, ctx: TaskContext, skill: Skill, named: dict[Place, str]) -> dict[Place, str]:
        """Return the URIs to replace by files: those where the skill wants a path rather than the URI itself."""
        everywhere = self._untyped and skill.untyped
        if not (everywhere or named) or not may_name_objects(ctx.params):
            return {}
        found = uris_in(ctx.params) if everywhere else {}
        found |= {place: uri for place, uri in named.items() if _is_elsewhere(uri)}
        bare = skill.bare_places(ctx.params) if found else frozenset[Place]()
        return {place: uri for place, uri in found.items() if place not in bare}

    async def _bring(self, ctx: TaskContext, wanted: dict[Place, str]) -> None:
        """Download what the params name, each URI once, and put the paths in their place."""
        files = controls_of(ctx).files
        first = {uri: place for place, uri in reversed(wanted.items())}
        paths: dict[str, str] = {}

        async def bring(uri: str) -> None:
            expect = expectation(uri, first[uri], ctx.params_metadata)
            try:
                paths[uri] = str(await files.bring(uri, expect))
            except SourceRefusedError as error:
                raise _refused(first[uri], error) from None
            except UnsafeNameError as error:
                raise _no_file(first[uri], error.name, error) from None
            except TaskError as error:
                error.details.setdefault("param", name_of(first[uri]))
                raise

        await side_by_side(bring, dict.fromkeys(wanted.values()), at_once=min(len(first), _AT_ONCE))
        ctx.params = replaced(ctx.params, {place: paths[uri] for place, uri in wanted.items()})

    async def _take_away(self, files: FileOperations, outcome: Outcome, skill: Skill | None) -> Outcome:
        """Upload the files that the data name. If that fails, so does the task: its data would name missing files."""
        if files.root is None or isinstance(outcome, Cancelled):
            return outcome
        with TaskBoundary() as boundary, self._tracing.span("upload"):
            return await self._uploaded(files, outcome, skill)
        failure = boundary.failure
        if not isinstance(outcome, Failed):
            return failure
        text = f"{outcome.message} (the files in its data could not be stored and were dropped: {failure.message})"
        return replace(outcome, message=text, data={}, traceback=outcome.traceback or failure.traceback)

    async def _uploaded(self, files: FileOperations, outcome: Succeeded | Failed, skill: Skill | None) -> Outcome:
        typed = skill.result_places(outcome.data) if skill is not None else frozenset[Place]()
        untyped = self._untyped and (skill is None or skill.untyped)
        found, left = await files.paths_in(outcome.data, typed, untyped=untyped)
        if left:
            _warn_of_texts(skill, left)
        uris: dict[str, str] = {}

        async def upload(name: str) -> None:
            uris[name] = await files.upload(name)

        await side_by_side(upload, dict.fromkeys(found.values()), at_once=_AT_ONCE if found else 0)
        at = {place: str(uris[name]) for place, name in found.items()}
        data = replaced(outcome.data, at) if found else outcome.data
        known = {name_of(place): files.stored(text) for place, text in texts(data)}
        metadata = {name: each for name, each in known.items() if each is not None}
        return replace(outcome, data=data, data_metadata={**outcome.data_metadata, **metadata})


async def _settled(ctx: TaskContext, named: dict[Place, str]) -> dict[Place, str]:
    """Return the paths of files named relative to the task's directory. Raises `InvalidInputError` for other paths."""
    settled: dict[Place, str] = {}
    for place, text in named.items():
        if place[-1] == KEY:
            where = name_of(place[:-2])
            raise InvalidInputError(f"params.{where}: keys cannot be paths; only values can be files", {"param": where})
        if len(place) > DEEPEST:
            raise InvalidInputError(
                f"params: a file is named more than {DEEPEST} levels deep", {"param": str(place[0])}
            )
        if _is_elsewhere(text):
            continue
        try:
            settled[place] = str(await controls_of(ctx).files.settle(text))
        except UnsafeNameError as error:
            raise _no_file(place, text, error) from None
    return settled


def _is_elsewhere(text: str) -> bool:
    """Whether a string names something to fetch. Web URLs count only where the skill's types ask for a file."""
    return is_object_uri(text) or is_web_url(text)


def _no_file(place: Place, text: str, error: UnsafeNameError) -> InvalidInputError:
    where, shown = name_of(place), for_messages(text)
    return InvalidInputError(
        f"params.{where}: {shown!r:.300} is not a file of this task: {error.problem}; give its URI, or a name relative"
        " to the task's directory",
        {"param": where, "problem": error.problem},
    )


def _refused(place: Place, error: SourceRefusedError) -> InvalidInputError:
    where = name_of(place)
    return InvalidInputError(
        f"params.{where}: refused to fetch {error.name!r:.300}: {error.problem}",
        {"param": where, "uri": error.name[:300], "problem": error.problem},
    )


def _text_at(params: Any, place: Place) -> str:
    value = params
    for part in place:
        if part == KEY:
            return ""
        value = value[part]
    return str(value)


def _warn_of_texts(skill: Skill | None, left: Sequence[Place]) -> None:
    _log.warning(
        "skill %s returned the path of a file as a string, in data.%s: the file is not stored and is removed with the"
        " task; return a Path",
        skill.contract.name if skill is not None else "?",
        ", data.".join(map(name_of, left[:_NAMED])),
        extra={"action": "file_left_as_text"},
    )
