"""What the log says of the keys of a running worker: each thing once, while it lasts."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from service.events import Events, KeyChanged
from service.keys.ring import DAY_S, Keeping, KeyRecord, Ring, role

log = structlog.get_logger("keys")


class Teller:
    """Says what is odd, once."""

    def __init__(self) -> None:
        self._overdue: set[str] = set()
        self._differing: set[tuple[tuple[str, ...], int]] = set()

    def overdue(self, late: Iterable[KeyRecord]) -> None:
        """A line for each key whose rotation has become overdue, once."""
        for key in late:
            if key.kid not in self._overdue:
                self._overdue.add(key.kid)
                log.warning("rotation_overdue", kid=key.kid, alg=key.alg, detail="run pylon-oidc keys rotate")

    def differing(self, mine: Keeping, others: Iterable[Keeping]) -> None:
        """A line for each kind of replica that keeps the ring by other settings, once while it is there."""
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
    """An event for each key whose role has changed; `then` and `now` are Unix s."""
    was = {key.kid: role(key, then) for key in before.keys}
    for key in after.keys:
        known, is_now = was.get(key.kid), role(key, now)
        if known != is_now:
            revoked = key.revoked_at is not None
            events.send(KeyChanged(kid=key.kid, alg=key.alg, role=is_now, was=known, revoked=revoked))
