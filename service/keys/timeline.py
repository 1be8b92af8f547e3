"""The future changes of the keys of a ring, and why they are safe: pure functions, like `rotation`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from service.keys.ring import DAY_S, KeyRecord, KeyRecords, Margins, published, role, with_role


@dataclass(frozen=True, slots=True)
class Change:
    """A future change.

    Attributes:
        at: Unix s.
        kid, alg: the key; the kid is None if the key does not exist yet.
        what: `is made`, `signs`, `retires` or `goes`.
        reason: why that is safe at that time.
    """

    at: int
    alg: str
    kid: str | None
    what: Literal["is made", "signs", "retires", "goes"]
    reason: str


def coming(keys: KeyRecords, now: int, margins: Margins) -> list[Change]:
    """All known changes, the next one first."""
    changes: list[Change] = []
    for key in published(keys, now):
        if key.signs_from is not None and key.signs_from > now:
            known_s = key.signs_from - key.published_at
            changes.append(
                Change(
                    key.signs_from,
                    key.alg,
                    key.kid,
                    "signs",
                    f"published {_lasting(known_s)} before; caches keep a set without it for {margins.lead_s} s at most",
                )
            )
        if key.retires_at is not None and key.retires_at > now:
            changes.append(
                Change(key.retires_at, key.alg, key.kid, "retires", "its successor signs from that second on")
            )
        if key.gone_at is not None and key.retires_at is not None:
            over_s = key.gone_at - key.retires_at
            changes.append(
                Change(
                    key.gone_at,
                    key.alg,
                    key.kid,
                    "goes",
                    f"{_lasting(over_s)} after it signed; the last token of it ended after {_lasting(margins.longest_token_s)}",
                )
            )
    for alg in sorted({key.alg for key in keys}):
        last = next(iter(reversed(with_role(keys, alg, "next", now))), None)
        if last is not None and last.signs_from is not None:
            at = max(last.signs_from - margins.made_before_s, now)
            reason = "so that one is next when the last of these begins to sign"
            changes.append(Change(at, alg, None, "is made", reason))
    return sorted(changes, key=lambda change: (change.at, change.alg, change.what))


def _lasting(seconds: int) -> str:
    return f"{seconds} s" if seconds < 2 * DAY_S else f"{seconds // DAY_S} days"


def overdue(keys: KeyRecords, algs: Collection[str], now: int, margins: Margins) -> list[KeyRecord]:
    """The keys that still sign although another one should; with manual rotation, after a year.

    Only for the algorithms in use, `algs`: no key follows the last one of another algorithm.
    """
    return [key for key in overstaying(keys, now, margins) if key.alg in algs]


def overstaying(keys: KeyRecords, now: int, margins: Margins) -> list[KeyRecord]:
    """The keys of all algorithms that sign for longer than a key should."""
    longest = margins.rotation_s + margins.lead_s if margins.rotation_s else 365 * DAY_S
    return [
        key
        for key in keys
        if role(key, now) == "active" and key.signs_from and now > key.signs_from + longest
    ]
