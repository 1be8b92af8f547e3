"""Logs the state of the keys of a running worker: each condition once, while it lasts."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from service.events import Events, KeyChanged
from service.keys.ring import DAY_S, Keeping, KeyRecord, Ring, role

log = structlog.get_logger("keys")


class Teller:
    """Logs each warning once."""

    def __init__(self) -> None:
        self._overdue: set[str] = set()
        self._differing: set[tuple[tuple[str, ...], int]] = set()

    def overdue(self, late: Iterable[KeyRecord]) -> None:
        """Log a line, once, for each key whose rotation is overdue."""
        for key in late:
            if key.kid not in self._overdue:
                self._overdue.add(key.kid)
                log.warning("rotation_overdue", kid=key.kid, alg=key.alg, detail="run pylon-oidc keys rotate")

    def differing(self, mine: Keeping, others: Iterable[Keeping]) -> None:
        """Log a line, once while it lasts, for each kind of replica with other settings for the ring."""
        there = set()
        for other in others:
            there.add((other.algs, other.rotation_s))
            if (other.algs, other.rotation_s) not in self._differing:
                log.warning(
                    "replicas_differ",
                    algs=list(mine.algs),
                    rotation_days=mine.rotation_s / DAY_S,
                    other_algs=list(other.algs),
                    other_rotation_days=other.rotation_s / DAY_S,
                    detail="give all the same PYLON_OIDC_ALGS, PYLON_OIDC_CLIENTS and PYLON_OIDC_KEY_ROTATION_DAYS",
                )
        self._differing = there


def tell_changes(events: Events, before: Ring, then: int, after: Ring, now: int) -> None:
    """Send an event for each key whose role has changed. `then` and `now` are Unix s."""
    was = {key.kid: role(key, then) for key in before.keys}
    for key in after.keys:
        known, is_now = was.get(key.kid), role(key, now)
        if known != is_now:
            revoked = key.revoked_at is not None
            events.send(KeyChanged(kid=key.kid, alg=key.alg, role=is_now, was=known, revoked=revoked))
