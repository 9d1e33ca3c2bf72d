"""The console's page and its calls, below ``/console/``.

| call | answer |
|---|---|
| `GET /console/` | the page; its parts are next to it |
| `GET /console/api/stream` | the whole state, then changes, as server-sent events |
| `GET /console/api/jobs/{id}` | a job with its events, results and logs |
| `POST /console/api/files?name=` | stores the body; `{"value"}` is how params may refer to it |
| `GET /console/api/file?uri=` | a file that was uploaded, or that a result names |
| `POST /console/api/faults`, `DELETE` | injects a fault; removes all faults |
| `POST /console/api/restart` | has the same effect on workers as a restart |

Submitting and cancelling belong to the client API.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final, cast, get_args

import orjson
from aiohttp import web

from avtomatika_worker.devserver.client_api import ClientError, json_answer
from avtomatika_worker.devserver.console.feed import Feed
from avtomatika_worker.devserver.console.file_room import FileRoom
from avtomatika_worker.devserver.console.shown_program import Program, announced
from avtomatika_worker.devserver.console.task_logs import TaskLogs
from avtomatika_worker.devserver.console.views import fault_views, job_details
from avtomatika_worker.devserver.faults import Fault, FaultBook, FaultCall, FaultKind
from avtomatika_worker.devserver.orchestrator import Orchestrator
from avtomatika_worker.devserver.sse import EventStream
from avtomatika_worker.narrowing import is_dict
from avtomatika_worker.protocol.coerce import as_number, as_text
from avtomatika_worker.skills.contract import SkillContract

_TYPES: Final = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # Text from tasks cannot become markup, whatever the page's code does with it.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
_PACKAGE: Final = "avtomatika_worker.devserver.console"
_CALLS: Final = frozenset(get_args(FaultCall))
_KINDS: Final = frozenset(get_args(FaultKind)) - {"body"}
_LONGEST_DELAY: Final = 600.0
_MOST_TIMES: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """What the console gets from its caller: the tasks' ``logs``, and the ``file_room`` for files.

    Without a file room, nothing can be uploaded. ``contracts`` are those of a worker in this process: its forms then
    show their fields in the author's order. A ``program`` is one in another process, which may be restarted.
    """

    logs: TaskLogs = field(default_factory=TaskLogs)
    file_room: FileRoom | None = None
    contracts: Sequence[SkillContract] = ()
    program: Program | None = None

    def shown_program(self) -> Program:
        """Return ``program``, or one of the ``contracts``."""
        return self.program or Program(announced(self.contracts))


class ConsoleApi:
    """Serves the page and its calls through `routes`. ``restart`` simulates a restart for the workers."""

    def __init__(
        self, console: Console, orchestrator: Orchestrator, faults: FaultBook, feed: Feed, restart: Callable[[], None]
    ) -> None:
        self._console = console
        self._orchestrator = orchestrator
        self._faults = faults
        self._feed = feed
        self._restart = restart

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of the console."""
        return [
            web.get("/console", self._to_page),
            web.get("/console/", self._page),
            web.get("/console/{name}", self._page),
            web.get("/console/api/stream", self._stream, allow_head=False),
            web.get("/console/api/jobs/{job_id}", self._job),
            web.post("/console/api/files", self._upload),
            web.get("/console/api/file", self._file),
            web.post("/console/api/faults", self._add_fault),
            web.delete("/console/api/faults", self._clear_faults),
            web.post("/console/api/restart", self._restart_seemingly),
        ]

    async def _to_page(self, _request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/console/"})

    async def _page(self, request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        kind = _TYPES.get(name.rpartition(".")[2])
        part = next((each for each in _static().iterdir() if each.name == name), None)
        if kind is None or part is None:
            raise ClientError(404, "no such part of the console")
        return web.Response(body=part.read_bytes(), content_type=kind, charset="utf-8", headers=_HEADERS)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        return await EventStream.serve(request, self._feed.write)

    async def _job(self, request: web.Request) -> web.Response:
        job = self._orchestrator.book.jobs.get(request.match_info["job_id"])
        if job is None:
            raise ClientError(404, "no such job (only the latest ended jobs are kept)")
        return json_answer(job_details(job, self._console.logs))

    # ------------------------------------------------------------------------------------------- files

    async def _upload(self, request: web.Request) -> web.Response:
        return json_answer(await self._room().take(request), 201)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        return await self._room().show(request.query.get("uri", ""), download="download" in request.query)

    def _room(self) -> FileRoom:
        if self._console.file_room is None:
            raise ClientError(404, "this orchestrator was started without a directory for files")
        return self._console.file_room

    # ------------------------------------------------------------------------------------------- faults

    async def _add_fault(self, request: web.Request) -> web.Response:
        self._faults.add(_fault(await request.read()))
        return json_answer({"faults": fault_views(self._faults.pending)}, 201)

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self._faults.clear()
        return json_answer({"faults": []})

    async def _restart_seemingly(self, _request: web.Request) -> web.Response:
        self._restart()
        return json_answer({}, 202)


def _static() -> Traversable:
    return files(_PACKAGE) / "static"


def _fault(body: bytes) -> Fault:
    """Read a fault. Raises `ClientError`."""
    try:
        given: Any = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ClientError(400, f"the body is not JSON: {error}") from None
    if not is_dict(given):
        raise ClientError(400, 'the body should be an object such as {"call": "result", "kind": "drop_after"}')
    call, kind = cast("FaultCall", as_text(given.get("call"))), cast("FaultKind", as_text(given.get("kind")))
    if call not in _CALLS:
        raise ClientError(400, f"call should be one of {', '.join(sorted(_CALLS))}")
    if kind not in _KINDS:
        raise ClientError(400, f"kind should be one of {', '.join(sorted(_KINDS))}")
    retry_after = _number(given, "retry_after", None, 0, 1e6)
    return Fault(
        call=call,
        kind=kind,
        times=int(_number(given, "times", 1, 1, _MOST_TIMES) or 1),
        status=int(_number(given, "status", 503, 400, 599) or 503),
        retry_after=None if retry_after is None else f"{retry_after:g}",
        delay=_number(given, "delay", 0, 0, _LONGEST_DELAY) or 0.0,
    )


def _number(given: dict[str, Any], name: str, default: float | None, least: float, most: float) -> float | None:
    if given.get(name) is None:
        return default
    number = as_number(given[name])
    if number is None or not least <= number <= most:
        raise ClientError(400, f"{name} should be a number from {least:g} to {most:g}")
    return number
