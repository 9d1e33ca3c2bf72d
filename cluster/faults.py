"""What can break in a cluster, and when a run of jobs breaks it."""

from __future__ import annotations

from collections.abc import Callable

from cluster.system import Cluster


def schedule(cluster: Cluster, jobs: int, report: Callable[[str], None]) -> Callable[[int], None]:
    """Return what to call with the number of jobs that have ended: a quarter of the way through ``jobs`` it kills an
    engine, at the half a worker, and at three quarters every connection to Redis. ``report`` hears of each.
    """

    def kill_engine() -> str:
        cluster.engines[0].kill()
        return f"{cluster.engines[0].name} killed"

    def kill_worker() -> str:
        cluster.workers[0].kill()
        return f"{cluster.workers[0].name} killed"

    def cut_redis() -> str:
        return f"{cluster.cut_redis()} connections to Redis killed"

    planned = [(jobs // 4, kill_engine), (jobs // 2, kill_worker), (jobs * 3 // 4, cut_redis)]

    def on_ended(ended: int) -> None:
        while planned and ended >= planned[0][0]:
            report(f"{ended} jobs have ended: {planned.pop(0)[1]()}")

    return on_ended
