"""The official SDK's ``avtomatika_worker.logging``."""

from __future__ import annotations

from avtomatika_worker.compat.logs import setup_logging

__all__ = ["setup_logging"]
