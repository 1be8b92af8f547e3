"""The operator's operations on a ring: rotate, revoke, reseal, import. Each returns its result.

Owns: the steps and their results.
Never touches: messages, files, the clock.
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
    """A key that signs until its successor does. Times are Unix s."""

    alg: str
    kid: str
    successor: str
    signs_from: int | None
    published_until: int | None


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """A signing key that is removed immediately. Times are Unix s.

    Attributes:
        successor, signs_from: the key that signs instead; None if there is none.
        signs_until: when the last worker learns of the removal.
        accepted_until: when the last verifier learns of it.
        affected_until: when the last token that it signed would have expired.
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
    """The ring after `rotate`, and the result for each algorithm."""

    ring: Ring
    keys: tuple[Rotation | Withdrawal, ...]


@dataclass(frozen=True, slots=True)
class Revoked:
    """The ring after `revoke`, and until when a verifier may accept the key, Unix s."""

    ring: Ring
    believed_until: int


@dataclass(frozen=True, slots=True)
class Resealed:
    """The result of `reseal`.

    Attributes:
        ring: the new ring.
        count: how many private keys were encrypted with the first encryption key.
        taken_away: the kids of the keys that a repair removed.
    """

    ring: Ring
    count: int
    taken_away: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Imported:
    """The ring after `import_key`, and the role of the new key."""

    ring: Ring
    role: Role


def algs_with_a_next(keys: KeyRecords, now: int) -> list[str]:
    """The algorithms that have a key waiting to sign."""
    return [alg for alg in ASYMMETRIC_ALGS if with_role(keys, alg, "next", now)]


def safe_rotations(keys: KeyRecords, kept: Collection[str], now: int, margins: Margins) -> dict[str, int]:
    """From when on each algorithm in use may be rotated manually, Unix s."""
    return {
        alg: rotation_is_safe_at(keys, alg, now, margins)
        for alg in algs_with_a_next(keys, now)
        if alg in kept
    }


def lately_revoked(ring: Ring, now: int, margins: Margins) -> list[tuple[KeyRecord, int]]:
    """The keys that were removed so recently that a worker may not know it yet, and until when, Unix s."""
    ends = [(key, key.revoked_at + margins.learn_s) for key in ring.keys if key.revoked_at is not None]
    return [(key, until) for key, until in ends if now < until]


def rotate(
    rings: RingStore, margins: Margins, *, now: int, alg: str | None = None, compromised: bool = False
) -> Rotated:
    """Make the next key sign as soon as every worker knows of it.

    Args:
        rings: the store of the ring.
        margins: the margins of a safe rotation.
        now: Unix s.
        alg: only this algorithm; None: all that have a key waiting.
        compromised: whether to remove the signing key now, whatever that breaks.

    Raises:
        UnsafeStep: if a verifier may not know the next key yet. A compromise does not wait for that.
        NoSuchKey: if no key waits; with `compromised`, if none signs.
        Unsealable: if the ring is not authentic, or an encryption key is missing.
    """
    # First correct the times that a fast clock has written. The correction stays even if the rotation is refused.
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
    """Remove a key now. This also works if an encryption key is lost, to repair the ring.

    Raises:
        NoSuchKey: if it is not published.
        Unsealable: if the ring is not authentic.
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
    """Import a key that was created elsewhere; see `rotation.imported`.

    Raises:
        UnsafeStep: if its kid is taken, or the order of keys must not change now.
        Unsealable: if the ring is not authentic, or an encryption key is missing.
    """

    def step(ring: Ring) -> KeyRecords:
        record = rings.record(private, alg, kid, ring.database_id)
        return imported(ring.keys, record, now, margins, as_next=as_next, kept=alg in rings.algs(now=now))

    ring = rings.ensure(margins, now=now, step=step)
    return Imported(ring, role(next(key for key in ring.keys if key.kid == kid), now))


def reseal(rings: RingStore, margins: Margins, *, now: int, repair: bool = False) -> Resealed:
    """Encrypt every private key, and authenticate the ring, with the first encryption key.

    A key that will not sign again and whose encryption key is lost stays as it is until it is removed.

    Args:
        rings: the store of the ring.
        margins: the margins of a safe rotation.
        now: Unix s.
        repair: whether to accept a ring that is not authentic. A key is kept if its private part can be decrypted and
            matches the public one, because sealing one needs the encryption key. All others are removed.

    Raises:
        Unsealable: if a key that signs, or will sign, cannot be decrypted; or the ring is not authentic.
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
    """Authenticate the ring of an earlier version, which had no MACs. The migration does this once.

    This accepts only a ring without any MAC, in which every published key is proven. All other cases are for the
    operator to decide: `reseal` with `repair`.

    Args:
        rings: how the ring is sealed; their store is not used.
        found: the records of the ring, before the migration.
        margins: the margins of a safe rotation.
        now: Unix s.

    Returns:
        The id of the record to replace, and its replacement; None to replace nothing.
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
    """Check the keys of a ring that anyone may have written. Returns the proven keys, and the kids of the others.

    A key is proven by its private part, because sealing one needs the encryption key. Other keys are removed if they
    are published. ID tokens that they signed are no longer accepted as hints.
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
    """Whether its private part proves that the key is ours, regardless of who wrote the ring."""
    try:
        rings.open(key, ring)
    except Unsealable:
        return False
    return True
