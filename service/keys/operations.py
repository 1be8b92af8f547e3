"""What an operator does to a ring: rotate, revoke, reseal, take a key in. Each returns what became of it.

Owns: the steps, and what is to be said of each.
Never touches: words for people, files, the clock.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from service.keys.algorithms import ASYMMETRIC_ALGS
from service.keys.material import AsymmetricKey
from service.keys.ring import (
    KeyRecord,
    KeyRecords,
    Margins,
    NoSuchKey,
    Ring,
    Role,
    published,
    role,
    signer,
    with_role,
)
from service.keys.rotation import imported, revoked, rotated, rotation_is_safe_at
from service.keys.sealing import Binding, Unsealable
from service.keys.store import RingStore
from service.storage.interface import Record


@dataclass(frozen=True, slots=True)
class Rotation:
    """A key that signs until its successor does; Unix s."""

    alg: str
    kid: str
    successor: str
    signs_from: int | None
    published_until: int | None


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A key that signed and is taken away at once; Unix s.

    Attributes:
        successor, signs_from: what signs in its place; None: nothing does.
        signs_until: when the last worker knows it.
        accepted_until: when the last verifier does.
        affected_until: when the last token that it signed would have ended.
        unknown_until: until when a verifier may not know the successor.
    """

    alg: str
    kid: str
    successor: str | None
    signs_from: int | None
    signs_until: int
    accepted_until: int
    affected_until: int
    unknown_until: int | None


@dataclass(frozen=True, slots=True)
class Rotated:
    """The ring after `rotate`, and what happened to the key of each algorithm."""

    ring: Ring
    keys: tuple[Rotation | Withdrawal, ...]


@dataclass(frozen=True, slots=True)
class Revoked:
    """The ring after `revoke`, and until when a verifier may believe the key, Unix s."""

    ring: Ring
    believed_until: int


@dataclass(frozen=True, slots=True)
class Resealed:
    """What `reseal` did.

    Attributes:
        ring: as it is now.
        count: how many private parts were sealed under the first encryption key.
        taken_away: the kids of the keys that a repair did not keep.
    """

    ring: Ring
    count: int
    taken_away: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """The ring after `import_key`, and what the key is in it."""

    ring: Ring
    role: Role


def algs_with_a_next(keys: KeyRecords, now: int) -> list[str]:
    """The algorithms in which a key waits to sign."""
    return [alg for alg in ASYMMETRIC_ALGS if with_role(keys, alg, "next", now)]


def safe_rotations(keys: KeyRecords, kept: Collection[str], now: int, margins: Margins) -> dict[str, int]:
    """From when on each algorithm that is kept may be rotated by hand, Unix s."""
    return {
        alg: rotation_is_safe_at(keys, alg, now, margins)
        for alg in algs_with_a_next(keys, now)
        if alg in kept
    }


def lately_revoked(ring: Ring, now: int, margins: Margins) -> list[tuple[KeyRecord, int]]:
    """The keys that were taken away so lately that a worker may not know it yet, and until when; Unix s."""
    ends = [(key, key.revoked_at + margins.learn_s) for key in ring.keys if key.revoked_at is not None]
    return [(key, until) for key, until in ends if now < until]


def rotate(
    rings: RingStore, margins: Margins, *, now: int, alg: str | None = None, compromised: bool = False
) -> Rotated:
    """Let the next key sign when every worker knows of it.

    Args:
        rings: where the ring is.
        margins: what keeps it safe.
        now: Unix s.
        alg: of this algorithm alone; None: of all in which a key waits.
        compromised: whether to take away now what signs, whatever that breaks.

    Raises:
        UnsafeStep: when a verifier may not know the next key yet; a compromise does not wait for that.
        NoSuchKey: when no key waits, or, compromised, none signs.
        Unsealable: when the ring is not authentic, or an encryption key is missing.
    """
    # What a clock that was ahead has written is set right first, and stays so where the rotation is refused.
    before = rings.ensure(margins, now=now)
    algs = [alg] if alg else algs_with_a_next(before.keys, now)

    def step(ring: Ring) -> KeyRecords:
        nonlocal before
        before, keys = ring, ring.keys
        for each in algs:
            if not compromised:
                keys = rotated(keys, each, now, margins)
                continue
            signing = signer(keys, each, now)
            if signing is None:
                raise NoSuchKey(f"no key of {each} signs")
            keys = revoked(keys, signing.kid, now, margins)
        return keys

    ring = rings.ensure(margins, now=now, step=step)
    done = [_what_rotated(before, ring, each, margins, now, compromised=compromised) for each in algs]
    return Rotated(ring, tuple(done))


def _what_rotated(
    before: Ring, ring: Ring, alg: str, margins: Margins, now: int, *, compromised: bool
) -> Rotation | Withdrawal:
    old = signer(before.keys, alg, now)
    kept = next(key for key in ring.keys if old is not None and key.kid == old.kid)
    if not compromised:
        new = with_role(ring.keys, alg, "next", now)[0]
        return Rotation(alg, kept.kid, new.kid, new.signs_from, kept.gone_at)
    follows = signer(ring.keys, alg, now)
    return Withdrawal(
        alg,
        kept.kid,
        successor=None if follows is None else follows.kid,
        signs_from=None if follows is None else follows.signs_from,
        signs_until=now + margins.learn_s,
        accepted_until=now + margins.learn_s + margins.max_age_s,
        affected_until=now + margins.longest_token_s,
        unknown_until=None if follows is None else max(now, follows.published_at + margins.lead_s),
    )


def revoke(rings: RingStore, margins: Margins, kid: str, *, now: int) -> Revoked:
    """Take a key away now; also where an encryption key is lost, which is how such a ring is repaired.

    Raises:
        NoSuchKey: when it is not published.
        Unsealable: when the ring is not authentic.
    """
    ring = rings.ensure(
        margins, now=now, step=lambda ring: revoked(ring.keys, kid, now, margins), though_shut=True
    )
    return Revoked(ring, now + margins.learn_s + margins.max_age_s)


def import_key(
    rings: RingStore,
    margins: Margins,
    private: AsymmetricKey,
    *,
    alg: str,
    kid: str,
    as_next: bool,
    now: int,
) -> Imported:
    """Take in a key that was made elsewhere; see `rotation.imported`.

    Raises:
        UnsafeStep: when its kid is taken, or the line must not change now.
        Unsealable: when the ring is not authentic, or an encryption key is missing.
    """

    def step(ring: Ring) -> KeyRecords:
        record = rings.record(private, alg, kid, ring.database_id)
        return imported(ring.keys, record, now, margins, as_next=as_next, kept=alg in rings.algs(now=now))

    ring = rings.ensure(margins, now=now, step=step)
    return Imported(ring, role(next(key for key in ring.keys if key.kid == kid), now))


def reseal(rings: RingStore, margins: Margins, *, now: int, repair: bool = False) -> Resealed:
    """Seal every private part, and authenticate the ring, under the first encryption key.

    What will not sign again, and whose encryption key is gone already, stays as it is until it goes.

    Args:
        rings: where the ring is.
        margins: what keeps it safe.
        now: Unix s.
        repair: whether to take a ring that is not authentic. A key is kept where its private part opens and is
            that of the public one, since nobody without the encryption key can seal one; all others are taken away.

    Raises:
        Unsealable: when one cannot be opened that signs, or will; or the ring is not authentic.
    """
    count = 0
    gone: Sequence[str] = ()

    def sealed_again(ring: Ring) -> KeyRecords:
        nonlocal count, gone
        count, keys = 0, ring.keys
        if repair:
            keys, gone = proven(rings, ring, margins, now=now)
        others, resealed = rings.sealed_otherwise(ring), []
        for key in keys:
            if key.sealed is not None and key.kid in others:
                binding = Binding(key.kid, key.alg, ring.database_id)
                again = rings.sealing.seal(rings.sealing.unseal(key.sealed, binding), binding)
                resealed.append(replace(key, sealed=again))
                count += 1
            else:
                resealed.append(key)
        return tuple(resealed)

    ring = rings.ensure(
        margins, now=now, step=sealed_again, though_shut=repair, though_unproven=repair, anyway=True
    )
    return Resealed(ring, count, tuple(gone))


def of_before(
    rings: RingStore, found: Sequence[Record], margins: Margins, *, now: int
) -> tuple[str, Record] | None:
    """The ring of a version that authenticated none, authenticated once: by the migration to the version that does.

    Only a ring without any MAC is taken, and only where every key that is published proves itself; the rest is for an
    operator to decide: `reseal` with `repair`.

    Args:
        rings: say how it is sealed; their store is not asked.
        found: the records of the ring, before the migration.
        margins: what keeps it safe.
        now: Unix s.

    Returns:
        The id of the record that is replaced, and what replaces it; None: nothing is.
    """
    ring, doubt = rings.read(found)
    documents = [record for record in found if "keys" in record.body]
    if ring is None or doubt is None or len(documents) != 1 or "macs" in documents[0].body:
        return None
    keys, away = proven(rings, ring, margins, now=now)
    if away:
        return None
    return documents[0].id_hash, rings.document(replace(ring, version=ring.version + 1, keys=keys))


def proven(rings: RingStore, ring: Ring, margins: Margins, *, now: int) -> tuple[KeyRecords, list[str]]:
    """The keys of a ring that anybody may have written: those that prove themselves; and the kids of the others.

    A key proves itself by its private part: nobody without the encryption key can seal one. Of the others, those that
    are published are taken away; of those that are gone no hint that they signed counts.
    """
    unproven = {key.kid for key in ring.keys if not _proves(rings, key, ring)}
    away = [key.kid for key in published(ring.keys, now) if key.kid in unproven]
    keys = ring.keys
    for kid in away:
        keys = revoked(keys, kid, now, margins)
    keys = tuple(
        replace(key, revoked_at=now, sealed=None) if key.kid in unproven and key.revoked_at is None else key
        for key in keys
    )
    return keys, away


def _proves(rings: RingStore, key: KeyRecord, ring: Ring) -> bool:
    """Whether its own private part says that it is ours, whoever wrote the ring."""
    try:
        rings.open(key, ring)
    except Unsealable:
        return False
    return True
