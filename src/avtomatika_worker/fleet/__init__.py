"""``worker run --workers N``: keeps N worker processes running, and speaks for them on one port.

The fleet's process runs no code of the user's, so that nothing of it can take the fleet down. Each member is the same
``worker run`` in a process and session of its own. A socket pair joins the two: the member says who it is, is told to
drain through it, and takes its end for the fleet's death. Its health server listens on a Unix socket, where the fleet
asks it.
"""

from __future__ import annotations

from avtomatika_worker.fleet.control import Control
from avtomatika_worker.fleet.fleet import Plan, run_fleet
from avtomatika_worker.fleet.membership import Membership, Ready

__all__ = ["Control", "Membership", "Plan", "Ready", "run_fleet"]
