"""``worker run --workers N``: keeps N worker processes running, and answers for them on one port.

The fleet's process runs no user code, so that such code cannot take the fleet down. Each member is the same ``worker
run`` in a process and session of its own. A socket pair joins the two: through it the member reports who it is and
receives orders to drain, and it treats the end of the stream as the fleet's death. The member's health server listens
on a Unix socket, where the fleet queries it.
"""

from __future__ import annotations

from avtomatika_worker.fleet.control import Control
from avtomatika_worker.fleet.fleet import Plan, run_fleet
from avtomatika_worker.fleet.members import Place
from avtomatika_worker.fleet.membership import Membership, Ready

__all__ = ["Control", "Membership", "Place", "Plan", "Ready", "run_fleet"]
