"""Variables of the environment that the official SDK reads, in the words of ours."""

from __future__ import annotations

from collections.abc import Mapping

from avtomatika_worker.compat.former_settings import ALIASES, MEANINGLESS_VARIABLES


def translated(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment with our names for the official SDK's; what is set under our name wins."""
    found = {ours: environ[theirs] for theirs, ours in _aliases(environ).items()}
    return {**environ, **found} if found else environ


def hints(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable that another name should have, and for all that mean nothing here."""
    found = [f"{theirs} is taken as {ours}: rename it" for theirs, ours in _aliases(environ).items()]
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
