"""The states of a link to one orchestrator, as a table."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final


class LinkState(enum.StrEnum):
    """The state of a link."""

    CONNECTING = "connecting"
    """Registering for the first time, or again after a break; the orchestrator cannot use the worker yet."""

    REGISTERED = "registered"
    """The orchestrator knows the worker; polls are allowed."""

    DRAINING = "draining"
    """The worker takes no new tasks from here; heartbeats continue while tasks finish."""

    CLOSED = "closed"
    """Nothing more is sent."""


class LinkEvent(enum.StrEnum):
    """An event of a link."""

    REGISTRATION_ACCEPTED = "registration_accepted"
    CONTACT_BROKEN = "contact_broken"
    DRAIN = "drain"
    CLOSE = "close"


TRANSITIONS: Final[Mapping[tuple[LinkState, LinkEvent], LinkState]] = {
    (LinkState.CONNECTING, LinkEvent.REGISTRATION_ACCEPTED): LinkState.REGISTERED,
    (LinkState.CONNECTING, LinkEvent.CONTACT_BROKEN): LinkState.CONNECTING,
    (LinkState.CONNECTING, LinkEvent.DRAIN): LinkState.DRAINING,
    (LinkState.CONNECTING, LinkEvent.CLOSE): LinkState.CLOSED,
    (LinkState.REGISTERED, LinkEvent.REGISTRATION_ACCEPTED): LinkState.REGISTERED,
    (LinkState.REGISTERED, LinkEvent.CONTACT_BROKEN): LinkState.CONNECTING,
    (LinkState.REGISTERED, LinkEvent.DRAIN): LinkState.DRAINING,
    (LinkState.REGISTERED, LinkEvent.CLOSE): LinkState.CLOSED,
    (LinkState.DRAINING, LinkEvent.REGISTRATION_ACCEPTED): LinkState.DRAINING,
    (LinkState.DRAINING, LinkEvent.CONTACT_BROKEN): LinkState.DRAINING,
    (LinkState.DRAINING, LinkEvent.DRAIN): LinkState.DRAINING,
    (LinkState.DRAINING, LinkEvent.CLOSE): LinkState.CLOSED,
    (LinkState.CLOSED, LinkEvent.CLOSE): LinkState.CLOSED,
}


def step(state: LinkState, event: LinkEvent) -> LinkState:
    """Return the state after ``event``. Raises ValueError for an event that cannot happen in ``state``."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise ValueError(f"a link in state {state} does not accept {event}") from None
