"""Checks a message before it is trusted: token, timestamp, signature, replay, fields (RXON.md, "Signing").

A refusal is for a developer: it says what is wrong and what would be right.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from avtomatika_worker.devserver.releases import Release
from avtomatika_worker.devserver.shapes import shape_problems
from avtomatika_worker.errors import UnsendableValueError
from avtomatika_worker.narrowing import is_dict
from avtomatika_worker.protocol.coerce import as_number, as_object, as_text
from avtomatika_worker.protocol.signing import NOTHING, Signer, verify_message

MAX_SKEW: Final = 60.0
"""The most a message's timestamp may be off, in seconds."""

REPLAY_WINDOW: Final = 65.0
"""How long a nonce is remembered, in seconds."""

_IGNORED: Final = {"event": frozenset({"bubbling_chain"})}
_SIGNERS_KEPT: Final = 1000


class Refusal(Exception):  # noqa: N818 - an answer, not a failure of ours
    """An answer of 400 or more. ``problem``: whether it shows a mistake of the worker."""

    def __init__(self, status: int, text: str, *, problem: bool = True) -> None:
        self.status = status
        self.text = text
        self.problem = problem
        super().__init__(f"{status}: {text}")


class RateLimiter:
    """Counts calls; every call, a refused one too, starts the period of its count again.

    So ``limits`` is how many calls are accepted until there is a pause of ``period`` seconds between two of them
    (measured on every release, with Redis and in memory).
    """

    def __init__(self, limits: Mapping[str, int], period: float) -> None:
        self._limits = dict(limits)
        self._period = period
        self._counts: dict[tuple[str, str], tuple[int, float]] = {}
        """(call, caller) → the count, and when it ends; the first to end is the first."""

    def check(self, call: str, who: str, now: float) -> None:
        """Count a call. Raises a 429 `Refusal` if there were too many."""
        limit = self._limits.get(call)
        if limit is None:
            return
        while self._counts and next(iter(self._counts.values()))[1] <= now:
            del self._counts[next(iter(self._counts))]
        count = self._counts.pop((call, who), (0, 0.0))[0] + 1
        self._counts[call, who] = (count, now + self._period)
        if count > limit:
            text = f"rate limit: {limit} {call} calls; the next is accepted after {self._period:g} s without any"
            raise Refusal(429, text, problem=False)


class ReplayGuard:
    """Remembers nonces for `REPLAY_WINDOW`."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], float] = {}

    def first_time(self, worker_id: str, nonce: str, now: float) -> bool:
        """Return whether a nonce is new, and remember it."""
        while self._seen and next(iter(self._seen.values())) <= now:
            del self._seen[next(iter(self._seen))]
        key = (worker_id, nonce)
        if key in self._seen:
            return False
        self._seen[key] = now + REPLAY_WINDOW
        return True


@dataclass(frozen=True, slots=True)
class IssuedTokens:
    """A pair of tokens; ``expires_in`` is in seconds."""

    access_token: str
    refresh_token: str
    expires_in: float


class TokenDesk:
    """Issues access and refresh tokens, and knows the valid ones."""

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime
        self._access: dict[str, tuple[str, float]] = {}
        self._refresh: dict[str, str] = {}

    def issue(self, worker_id: str, now: float) -> IssuedTokens:
        """Issue a new pair; the older access tokens of the worker stay valid until they expire."""
        self._access = {token: entry for token, entry in self._access.items() if entry[1] > now}
        self._refresh = {token: owner for token, owner in self._refresh.items() if owner != worker_id}
        tokens = IssuedTokens(secrets.token_urlsafe(24), secrets.token_urlsafe(24), self._lifetime)
        self._access[tokens.access_token] = (worker_id, now + self._lifetime)
        self._refresh[tokens.refresh_token] = worker_id
        return tokens

    def owner(self, access_token: str, now: float) -> str | None:
        """Return the token's owner, or None for an unknown or expired token."""
        worker_id, until = self._access.get(access_token, ("", 0.0))
        return worker_id if until > now else None

    def refreshed(self, refresh_token: str, now: float) -> tuple[str, IssuedTokens] | None:
        """Exchange a refresh token, once, for the worker's next pair."""
        worker_id = self._refresh.pop(refresh_token, None)
        return (worker_id, self.issue(worker_id, now)) if worker_id is not None else None

    def forget(self) -> None:
        """Forget all tokens."""
        self._access.clear()
        self._refresh.clear()


class Verifier:
    """Decides whether a call is authentic and new.

    ``token`` is shared by all workers, ``individual_tokens`` belong to some; None accepts any token and verifies
    signatures with the one received.
    """

    def __init__(
        self,
        release: Release,
        token: str | None,
        individual_tokens: Mapping[str, str],
        desk: TokenDesk,
        *,
        access_tokens_required: bool,
    ) -> None:
        self._release = release
        self._token = token
        self._individual = dict(individual_tokens)
        self._desk = desk
        self._access_tokens_required = access_tokens_required
        self._signers: dict[str, Signer] = {}
        # Workers' tokens where any is accepted; they still sign with them when an access token is in the header.
        self._own_tokens: dict[str, str] = {}
        self._replays = ReplayGuard()

    def authenticate(self, worker_id: str | None, token: str | None, now: float, *, configured: bool) -> None:
        """Check the token header. ``configured``: accept the configured token even if access tokens are issued."""
        if not token:
            raise Refusal(401, "X-Worker-Token is missing")
        owner = self._desk.owner(token, now)
        if owner is not None:
            if worker_id is not None and owner != worker_id:
                raise Refusal(401, f"the access token in X-Worker-Token belongs to {owner}, not to {worker_id}")
            return
        if self._access_tokens_required and not configured:
            raise Refusal(401, "X-Worker-Token is not a valid access token: expired, or never issued", problem=False)
        expected = self._configured_token(worker_id)
        if expected is not None and not hmac.compare_digest(expected.encode(), token.encode("utf-8", "replace")):
            raise Refusal(401, "X-Worker-Token is not the worker token of this orchestrator")

    def _configured_token(self, worker_id: str | None) -> str | None:
        return self._individual.get(worker_id or "", self._token)

    def verify(self, call: str, message: dict[str, Any], path_id: str | None, token: str | None, now: float) -> None:
        """Verify a message. Raises `Refusal`."""
        worker_id = as_text(message.get("worker_id"))
        if worker_id is None:
            raise Refusal(400, f"{call}.worker_id: is required, as a string")
        if path_id is not None and path_id != worker_id:
            raise Refusal(403, f"the body's worker_id is {worker_id}, the call is {path_id}'s")
        self._check_timestamp(message, now)
        self._check_signature(call, message, self._signing_key(worker_id, token, now))
        if problems := shape_problems(call, message):
            raise Refusal(400, "; ".join(problems[:5]))
        self._check_replay(call, message, now)

    def _check_timestamp(self, message: dict[str, Any], now: float) -> None:
        timestamp = as_number(message.get("timestamp"))
        if timestamp is None:
            raise Refusal(403, "timestamp is missing")
        if abs(timestamp - now) > MAX_SKEW:
            raise Refusal(403, f"timestamp is {timestamp - now:+.0f} s off, {MAX_SKEW:.0f} s are allowed (see Date)")

    def _signing_key(self, worker_id: str, token: str | None, now: float) -> str | None:
        """Return the worker's signing key: always its configured token."""
        configured = self._configured_token(worker_id)
        if configured is not None:
            return configured
        if token and self._desk.owner(token, now) is None:
            if len(self._own_tokens) >= _SIGNERS_KEPT:
                self._own_tokens.clear()
            self._own_tokens[worker_id] = token
        return self._own_tokens.get(worker_id)

    def _check_signature(self, call: str, message: dict[str, Any], key: str | None) -> None:
        if not as_object(message.get("security")).get("signature"):
            raise Refusal(403, "security.signature is missing: every message must be signed")
        if key is None:
            return
        try:
            right = verify_message(message, self._signer(key), self._release.dialect, _IGNORED.get(call, NOTHING))
        except UnsendableValueError as error:
            raise Refusal(500, f"cannot digest {error.path}: {error.problem}") from None
        if not right:
            raise Refusal(
                403,
                f"security.signature is wrong: it is the HMAC-SHA256 of the canonical form of version "
                f"{self._release.dialect.version}, with the configured token as the key",
            )

    def _signer(self, key: str) -> Signer:
        signer = self._signers.get(key)
        if signer is None:
            if len(self._signers) >= _SIGNERS_KEPT:
                self._signers.clear()
            signer = self._signers[key] = Signer(key)
        return signer

    def _check_replay(self, call: str, message: dict[str, Any], now: float) -> None:
        if not self._release.dialect.replay_nonces:
            return
        if call == "event":
            nonce = message["event_id"]
        else:
            signature = str(as_object(message.get("security")).get("signature"))
            nonce = as_text(message.get("message_id")) or as_text(message.get("nonce")) or signature
        if not self._replays.first_time(message["worker_id"], nonce, now):
            # An event resent after a lost reply keeps its id: the refusal shows that it had arrived.
            text = f"seen before within {REPLAY_WINDOW:.0f} s: every attempt must differ in something signed"
            raise Refusal(403, text, problem=call != "event")


def parsed(body: bytes) -> dict[str, Any]:
    """Parse a body. Raises a 400 `Refusal` if it is not a JSON object."""
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal(400, f"the body is not JSON: {error}") from None
    if not is_dict(message):
        raise Refusal(400, "the body should be a JSON object")
    return message
