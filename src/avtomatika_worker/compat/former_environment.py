"""Maps environment variables that the official SDK reads to ours."""

from __future__ import annotations

from collections.abc import Mapping

from avtomatika_worker.compat.former_settings import ALIASES, MEANINGLESS_VARIABLES


def translated(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment with the official SDK's variables under our names; ours take precedence."""
    found = {ours: environ[theirs] for theirs, ours in _aliases(environ).items()}
    return {**environ, **found} if found else environ


def hints(environ: Mapping[str, str]) -> list[str]:
    """Return a hint for each variable that should be renamed or that has no effect here."""
    found = [f"{theirs} is used as {ours}: rename it" for theirs, ours in _aliases(environ).items()]
    found += [
        f"{name} has no effect: {advice}" for name, advice in MEANINGLESS_VARIABLES.items() if environ.get(name, "")
    ]
    return found


def _aliases(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        theirs: ours
        for theirs, ours in ALIASES.items()
        if environ.get(theirs, "").strip() and not environ.get(ours, "").strip()
    }
