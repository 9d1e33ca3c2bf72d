"""Makes the heartbeat process of a worker from its settings (``WORKER_HEARTBEAT_PROCESS``)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Final

from avtomatika_worker._version import __version__
from avtomatika_worker.config import Settings
from avtomatika_worker.errors import ConfigError
from avtomatika_worker.monitoring.heartbeat_process import HeartbeatProcess, OrchestratorPlan, Plan, ProxyPlan, TlsPlan
from avtomatika_worker.transport.proxies import proxy_for
from avtomatika_worker.worker.make_links import Links
from avtomatika_worker.worker.make_monitoring import Monitoring

_SETTING: Final = "WORKER_HEARTBEAT_PROCESS=true"


def make_standby(
    settings: Settings, links: Links, monitoring: Monitoring, running_skills: Callable[[], Iterable[str]]
) -> HeartbeatProcess:
    """Return the keeper of the process; the links wait for its reports. Raises `ConfigError`."""
    if sys.platform == "win32":
        raise ConfigError([f"{_SETTING}: needs a POSIX system (Linux, macOS); leave it out on Windows"])
    tls = links.tls
    plan = Plan(
        orchestrators=tuple(orchestrator_plan(each.url) for each in settings.orchestrators),
        tls=TlsPlan(*(None if path is None else str(path.absolute()) for path in (tls.ca, tls.cert, tls.key))),
        user_agent=f"avtomatika-worker/{__version__} (heartbeat process)",
        limit=settings.loop_blocked_limit,
        metrics=settings.enable_metrics,
    )
    standby = HeartbeatProcess(plan, links.heartbeats, monitoring.health, monitoring.probe, running_skills)
    for link in links.links:
        link.caught_up = standby.caught_up
    return standby


def orchestrator_plan(url: str) -> OrchestratorPlan:
    """Return an orchestrator's address. Raises `ConfigError` for a proxy that the process cannot use."""
    try:
        proxy = proxy_for(url)
    except ValueError as error:
        raise ConfigError([f"{_SETTING}: heartbeats to {url} cannot go through the proxy: {error}"]) from None
    if proxy is None:
        return OrchestratorPlan(url, None)
    if url.startswith("https:") and proxy.url.startswith("https:"):
        problem = f"heartbeats to {url} cannot go through an https:// proxy ({proxy.url}); name it as http://"
        raise ConfigError([f"{_SETTING}: {problem}"])
    return OrchestratorPlan(url, ProxyPlan(proxy.url, proxy.headers))
