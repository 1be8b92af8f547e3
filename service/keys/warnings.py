"""Warnings about a key ring: at a start, in `check`, and in the commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from service.keys.ring import DAY_S, Keeping, Margins, Ring
from service.keys.sealing import Unsealable
from service.keys.store import RingStore
from service.keys.timeline import overstaying


def ring_warnings(ring: Ring, rings: RingStore, margins: Margins, *, now: int) -> Iterator[str]:
    """Yield the warnings about a ring."""
    in_use = Counter(rings.sealed_otherwise(ring).values())
    for number, name in enumerate(rings.sealing.names, 1):
        if count := in_use[name]:
            yield (
                f"PYLON_KEY_ENCRYPTION_KEY: {count} private {'key is' if count == 1 else 'keys are'} sealed under its key "
                f"{number} ({name}) and not under its first; run pylon-oidc keys reseal before you remove that one"
            )
    if rings.sealing.names:
        try:
            rings.check_sealing(ring, now=now)
        except Unsealable as error:
            yield f"PYLON_KEY_ENCRYPTION_KEY: {error}"
    kept = rings.algs(now=now)
    for key in overstaying(ring.keys, now, margins):
        if key.alg in kept:
            yield f"the rotation of the {key.alg} key {key.kid} is overdue; run pylon-oidc keys rotate"
        else:
            yield (
                f"{key.alg} is no longer used, but its key {key.kid} is still published; "
                f"run pylon-oidc keys revoke {key.kid} when its tokens are no longer needed"
            )


def replica_warnings(ring: Ring, rings: RingStore, margins: Margins, *, now: int) -> Iterator[str]:
    """Yield a warning for each kind of replica with other settings for the ring than this one."""
    for other in rings.differing(ring, margins, now=now):
        yield (
            f"replicas differ: one that was seen {max(0, now - other.seen_at)} s ago {_kept_by(other)}, "
            f"this one {_kept_by(rings.keeping(margins, now=now))}; give all of them the same PYLON_OIDC_ALGS, "
            "PYLON_OIDC_CLIENTS and PYLON_OIDC_KEY_ROTATION_DAYS. A replaced replica is forgotten after 20 minutes"
        )


def _kept_by(keeping: Keeping) -> str:
    days = keeping.rotation_s / DAY_S
    return f"uses {', '.join(keeping.algs)} and rotates " + (f"every {days:g} days" if days else "by hand")
