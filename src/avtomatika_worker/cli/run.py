"""``worker run``."""

from __future__ import annotations

from avtomatika_worker.cli.app import load_app, load_settings
from avtomatika_worker.cli.reload import reload_command


def run_command(app: str, *, health_check: bool, reload: bool) -> None:
    """Run the worker ``app`` names."""
    if reload:
        reload_command()
    worker = load_app(app)
    worker.run_with(load_settings(worker), health_check=health_check)
