"""`Worker`, the assembly of its services, and the process it runs in.

This is a path at which users of the official SDK look for `Worker`, `SkillBlueprint` and `OrchestratorClient`: those of
`compat`, which stand on the core's in the modules here and are therefore imported when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avtomatika_worker.compat.drop_in import SkillBlueprint, Worker
    from avtomatika_worker.compat.orchestrator_client import OrchestratorClient

__all__ = ["OrchestratorClient", "SkillBlueprint", "Worker"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from avtomatika_worker.compat import drop_in

        return getattr(drop_in, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
