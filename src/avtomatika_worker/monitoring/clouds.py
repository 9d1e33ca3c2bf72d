"""The clouds' notices, from the metadata services of their machines. Used on the link thread.

Each service is plain HTTP on an address that only the machine itself reaches: no proxy is used, and no redirect
followed. ``base`` is another address for tests.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from avtomatika_worker.monitoring.notices import LOOK_EVERY, Notice, NoticeUnavailableError
from avtomatika_worker.narrowing import is_list
from avtomatika_worker.protocol.coerce import as_object, as_text, as_texts
from avtomatika_worker.world import REAL, World

if TYPE_CHECKING:
    import aiohttp

_LINK_LOCAL: Final = "http://169.254.169.254"
_TIMEOUT: Final = 5.0
_MOST: Final = 1024 * 1024

_AWS_NOTICE: Final = 120.0
"""Seconds that AWS leaves, should its answer not say."""

_AWS_TOKEN_LIFE: Final = "21600"  # noqa: S105 - seconds
_AWS_GONE: Final = frozenset({"terminate", "stop", "hibernate"})

_GCP_NOTICE: Final = 30.0
"""Seconds that Google leaves; its answer does not say."""

_GCP_HELD: Final = 60
"""Seconds for which Google's service holds a request while nothing changes."""

_AZURE_FIRST_TIMEOUT: Final = 150.0
"""Seconds: the first request switches scheduled events on for the machine, which takes up to two minutes."""

_AZURE_GONE: Final = frozenset({"Preempt", "Terminate", "Redeploy", "Reboot"})
_AZURE_NOTICE: Final = 30.0
"""Seconds that Azure leaves at least, should its answer not say."""


class _Answer(msgspec.Struct, frozen=True):
    """What a service said. Header names are as in ``aiohttp``: any case."""

    status: int
    headers: Mapping[str, str]
    text: str

    def json(self) -> Any:
        """Return the value. Raises `NoticeUnavailableError`."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            raise NoticeUnavailableError(f"its answer is no JSON: {self.text!r:.100}") from None


class _Service:
    """One metadata service."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self._base = base

    async def call(self, method: str, path: str, headers: Mapping[str, str], timeout: float = _TIMEOUT) -> _Answer:
        """Make a call. Raises `NoticeUnavailableError` when there is no answer."""
        import aiohttp

        limit = aiohttp.ClientTimeout(total=timeout)
        url = f"{self._base}{path}"
        try:
            async with self._session.request(
                method, url, headers=headers, timeout=limit, allow_redirects=False
            ) as answer:
                content = await answer.content.read(_MOST)
                return _Answer(answer.status, answer.headers, content.decode("utf-8", "replace"))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise NoticeUnavailableError(
                f"{self._base} does not answer: {str(error) or type(error).__name__}"
            ) from None


def _session() -> aiohttp.ClientSession:
    import aiohttp

    return aiohttp.ClientSession(trust_env=False)


class AwsNotices:
    """Interruptions of EC2 spot instances (IMDSv2, ``spot/instance-action``)."""

    @property
    def name(self) -> str:
        """The setting's word for it."""
        return "aws"

    def __init__(self, world: World = REAL, *, base: str = _LINK_LOCAL) -> None:
        self._wall = world.wall
        self._base = base

    async def wait(self) -> Notice:
        """Return the notice once there is one."""
        async with _session() as session:
            service = _Service(session, self._base)
            token = await self._token(service)
            while True:
                headers = {"X-aws-ec2-metadata-token": token}
                answer = await service.call("GET", "/latest/meta-data/spot/instance-action", headers)
                if answer.status == 200 and (notice := self._notice(answer)) is not None:
                    return notice
                if answer.status == 401:
                    token = await self._token(service)
                elif answer.status not in {200, 404}:
                    raise NoticeUnavailableError(f"the metadata service answers {answer.status}")
                await asyncio.sleep(LOOK_EVERY)

    async def _token(self, service: _Service) -> str:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": _AWS_TOKEN_LIFE}
        answer = await service.call("PUT", "/latest/api/token", headers)
        if answer.status != 200:
            raise NoticeUnavailableError(f"the metadata service gives no token: it answers {answer.status}")
        return answer.text.strip()

    def _notice(self, answer: _Answer) -> Notice | None:
        said = as_object(answer.json())
        action = as_text(said.get("action"))
        if action not in _AWS_GONE:
            return None
        at = _time(as_text(said.get("time")))
        seconds = _AWS_NOTICE if at is None else max(0.0, at - self._wall())
        return Notice(seconds, f"spot instance: {action}")


class GcpNotices:
    """Preemption of Google Compute Engine's spot machines (``instance/preempted``)."""

    @property
    def name(self) -> str:
        """The setting's word for it."""
        return "gcp"

    def __init__(self, *, base: str = "http://metadata.google.internal", held: int = _GCP_HELD) -> None:
        self._base = base
        self._held = held

    async def wait(self) -> Notice:
        """Return the notice once there is one; the service holds each request until something changes."""
        async with _session() as session:
            service = _Service(session, self._base)
            path, headers = "/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"}
            query, timeout = "", _TIMEOUT
            while True:
                answer = await service.call("GET", path + query, headers, timeout)
                if answer.status != 200 or answer.headers.get("Metadata-Flavor") != "Google":
                    raise NoticeUnavailableError(f"{self._base} is no metadata service: it answers {answer.status}")
                if answer.text.strip() == "TRUE":
                    return Notice(_GCP_NOTICE, "spot machine: preempted")
                tag = answer.headers.get("ETag", "0")
                query = f"?wait_for_change=true&timeout_sec={self._held}&last_etag={tag}"
                timeout = self._held + _TIMEOUT


class AzureNotices:
    """Scheduled events of Azure's machines that end this one: Preempt, Terminate, Redeploy, Reboot."""

    @property
    def name(self) -> str:
        """The setting's word for it."""
        return "azure"

    def __init__(self, world: World = REAL, *, base: str = _LINK_LOCAL) -> None:
        self._wall = world.wall
        self._base = base

    async def wait(self) -> Notice:
        """Return the notice once there is one."""
        headers = {"Metadata": "true"}
        async with _session() as session:
            service = _Service(session, self._base)
            path = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
            named = await service.call("GET", path, headers)
            if named.status != 200:
                raise NoticeUnavailableError(f"the metadata service does not name the machine: {named.status}")
            timeout = _AZURE_FIRST_TIMEOUT
            while True:
                path = "/metadata/scheduledevents?api-version=2020-07-01"
                answer = await service.call("GET", path, headers, timeout)
                if answer.status != 200:
                    raise NoticeUnavailableError(f"the metadata service answers {answer.status}")
                if (notice := self._notice(answer, named.text.strip())) is not None:
                    return notice
                timeout = _TIMEOUT
                await asyncio.sleep(LOOK_EVERY)

    def _notice(self, answer: _Answer, machine: str) -> Notice | None:
        """Return the earliest event that ends this machine; those of others in its set are listed too."""
        events = as_object(answer.json()).get("Events")
        found: list[Notice] = []
        for event in map(as_object, events if is_list(events) else ()):
            kind = as_text(event.get("EventType"))
            if kind in _AZURE_GONE and machine in (as_texts(event.get("Resources")) or ()):
                at = _time(as_text(event.get("NotBefore")))
                seconds = _AZURE_NOTICE if at is None else max(0.0, at - self._wall())
                found.append(Notice(seconds, f"scheduled event: {kind}"))
        return min(found, key=lambda notice: notice.seconds or 0.0, default=None)


def _time(text: str | None) -> float | None:
    """Return a time in Unix seconds: ISO 8601, as AWS writes it, or that of HTTP, as Azure does."""
    from email.utils import parsedate_to_datetime  # only where a cloud is asked

    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            found = read(text or "")
        except (ValueError, TypeError):
            continue
        if found.tzinfo is not None:
            return found.timestamp()
    return None
