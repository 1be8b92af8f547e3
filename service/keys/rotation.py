"""Decides when a signing key is published, signs and is removed: pure functions of its timestamps and the clock.

Owns: which keys to create, and what a rotation, a revocation and an import do.
Never touches: key material, the store, the clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from service.keys.algorithms import ASYMMETRIC_ALGS
from service.keys.ring import (
    KeyRecord,
    KeyRecords,
    Margins,
    NoSuchKey,
    UnsafeStep,
    line_of,
    reached,
    role,
    signer,
)

# --- which keys to create, and the place of a new key ---


def needs(keys: KeyRecords, algs: Iterable[str], now: int, margins: Margins) -> list[str]:
    """The algorithms of the keys to create now. An algorithm is listed twice if it lacks both the first and the next key."""
    wanted = []
    for alg in algs:
        if signer(keys, alg, now) is None:
            wanted.append(alg)
        soon = now + margins.made_before_s
        coming_later = [
            key for key in _waiting(keys, alg, now) if key.signs_from is None or key.signs_from > soon
        ]
        if not coming_later:
            wanted.append(alg)
    return wanted


def added(keys: KeyRecords, key: KeyRecord, now: int, margins: Margins) -> KeyRecords:
    """The ring with a new key. It signs at once if it is the first of its algorithm, or else after all others."""
    key = replace(key, published_at=now)
    line = line_of(keys, key.alg, now)
    if not line:
        first = replace(key, signs_from=now)
        return _in_line((*keys, first), key.alg, now, margins)
    begins = None
    if margins.rotation_s and line[-1].signs_from is not None:
        begins = max(line[-1].signs_from + margins.rotation_s, now + margins.lead_s)
    return _in_line((*keys, replace(key, signs_from=begins)), key.alg, now, margins)


def _waiting(keys: Iterable[KeyRecord], alg: str, now: int) -> list[KeyRecord]:
    """The keys of an algorithm that wait to sign."""
    signing = signer(keys, alg, now)
    return [key for key in line_of(keys, alg, now) if key != signing]


def _in_line(keys: KeyRecords, alg: str, now: int, margins: Margins) -> KeyRecords:
    """Make each key of the algorithm sign until its successor does, so that exactly one signs at any time."""
    line = line_of(keys, alg, now)
    changed: dict[str, KeyRecord] = {}
    for key, successor in zip(line, [*line[1:], None], strict=True):
        retires = None if successor is None else successor.signs_from
        changed[key.kid] = replace(key, retires_at=retires, gone_at=_gone(key, retires, margins))
    return tuple(changed.get(key.kid, key) for key in keys)


def imported(
    keys: KeyRecords, key: KeyRecord, now: int, margins: Margins, *, as_next: bool = False, kept: bool = True
) -> KeyRecords:
    """The ring with a key that was created elsewhere.

    The first key of an algorithm keeps signing. If another key signs, or the algorithm is not `kept`, the key is
    published for as long as its tokens may live. With `as_next`, it signs before the keys that already wait.

    Raises:
        UnsafeStep: if its kid is taken, or the order of keys must not change now.
    """
    if any(known.kid == key.kid for known in keys):
        raise UnsafeStep(f"the kid {key.kid} is taken")
    key = replace(key, published_at=now, imported=True)
    if kept and signer(keys, key.alg, now) is None:
        return added(keys, key, now, margins)
    if not as_next or not kept:
        gone = now + margins.longest_token_s + margins.linger_s
        return (*keys, replace(key, signs_from=now, retires_at=now, gone_at=gone))
    waiting = _waiting(keys, key.alg, now)
    begins = waiting[0].signs_from if waiting else None
    if begins is not None:
        if begins <= now + margins.learn_s:
            raise UnsafeStep("a rotation is under way", begins)
        begins = max(begins, now + margins.lead_s)
        moved = {each.kid: each for each in _again(waiting, begins, margins)}
        keys = tuple(moved.get(each.kid, each) for each in keys)
    return _in_line((*keys, replace(key, signs_from=begins)), key.alg, now, margins)


def _gone(key: KeyRecord, retires_at: int | None, margins: Margins) -> int | None:
    """When a key that retires then may be removed; never earlier than a replica with longer tokens has already set."""
    if retires_at is None:
        return None
    said = key.gone_at - key.retires_at if key.gone_at is not None and key.retires_at is not None else 0
    return retires_at + max(said, margins.longest_token_s + margins.linger_s)


# --- what an operator does ---


def rotation_is_safe_at(keys: KeyRecords, alg: str, now: int, margins: Margins) -> int:
    """From when on the next key may sign, Unix s. If that is now or earlier, it may sign now.

    Raises:
        NoSuchKey: if no key waits.
    """
    waiting = _waiting(keys, alg, now)
    if not waiting:
        raise NoSuchKey(f"no key of {alg} waits to sign")
    known_at = waiting[0].published_at + margins.lead_s - margins.learn_s
    begins = waiting[0].signs_from
    if begins is not None and begins <= max(now, known_at) + margins.learn_s:  # then the key after it is next
        return max(begins, (waiting[1].published_at if len(waiting) > 1 else begins) + margins.lead_s)
    return known_at


def rotated(keys: KeyRecords, alg: str, now: int, margins: Margins) -> KeyRecords:
    """Make the next key sign from `now + learn_s`, when every worker knows of it.

    Raises:
        NoSuchKey: if there is none.
        UnsafeStep: if a verifier may not know it yet, or it is about to sign anyway.
    """
    safe_at = rotation_is_safe_at(keys, alg, now, margins)
    successor, begins = _waiting(keys, alg, now)[0], now + margins.learn_s
    if successor.signs_from is not None and successor.signs_from <= begins:
        raise UnsafeStep("a rotation is under way", safe_at)
    if now < safe_at:
        raise UnsafeStep("a verifier may still have a key set without the next key", safe_at)
    keys = straightened(keys, now, margins)
    return _takes_over(keys, successor, begins, now, margins)


def _takes_over(
    keys: KeyRecords, successor: KeyRecord, begins: int, now: int, margins: Margins
) -> KeyRecords:
    waiting = [key for key in _waiting(keys, successor.alg, now) if key.kid != successor.kid]
    moved = {key.kid: key for key in _again(waiting, begins, margins)}
    moved[successor.kid] = replace(successor, signs_from=begins)
    return _in_line(tuple(moved.get(key.kid, key) for key in keys), successor.alg, now, margins)


def _again(
    waiting: Sequence[KeyRecord], after: int, margins: Margins, *, not_before: int = 0
) -> list[KeyRecord]:
    """Give the waiting keys new times: one rotation apart, and none before verifiers know it."""
    moved = []
    for key in waiting:
        after = max(after + margins.rotation_s, key.published_at + margins.lead_s, not_before)
        moved.append(replace(key, signs_from=after if margins.rotation_s else None))
    return moved


def revoked(keys: KeyRecords, kid: str, now: int, margins: Margins) -> KeyRecords:
    """Remove a key now. If it signs, the next one signs from now on.

    Raises:
        NoSuchKey: if it is not published.
    """
    key = next((each for each in keys if each.kid == kid and role(each, now) != "gone"), None)
    if key is None:
        raise NoSuchKey(f"no published key is called {kid}")
    signed = key == signer(keys, key.alg, now)
    gone = replace(key, revoked_at=now, sealed=None)
    keys = tuple(gone if each.kid == kid else each for each in keys)
    if not signed:
        return _in_line(keys, key.alg, now, margins)
    successor = signer(keys, key.alg, now)
    return keys if successor is None else _takes_over(keys, successor, now, now, margins)


def rescheduled(keys: KeyRecords, now: int, margins: Margins) -> KeyRecords:
    """The ring with another `rotation_s`: the next key signs at the new time, but a change that is about to happen stays."""
    for alg in ASYMMETRIC_ALGS:
        line = line_of(keys, alg, now)
        if not line or role(line[0], now) != "active":
            continue
        begins = line[0].signs_from or now
        waiting, soon = line[1:], now + margins.learn_s
        if any(key.signs_from is not None and key.signs_from <= soon for key in waiting):
            continue
        moved = {key.kid: key for key in _again(waiting, begins, margins, not_before=soon)}
        keys = _in_line(tuple(moved.get(key.kid, key) for key in keys), alg, now, margins)
    return keys


def straightened(keys: KeyRecords, now: int, margins: Margins) -> KeyRecords:
    """Correct the times that a fast clock has written, so that they match which key really signs.

    Every key in the ring is already published. If its time of publication is further ahead than the allowed skew, it
    is set to now, and the waiting keys are rescheduled from there. Within the skew it is unknown which clock is right,
    and waiting is safe.
    """
    ahead = {key.alg for key in keys if key.published_at > now + margins.lead_s and role(key, now) != "gone"}
    keys = tuple(
        replace(key, published_at=now) if key.published_at > now + margins.lead_s else key for key in keys
    )

    def retired(key: KeyRecord) -> KeyRecord:
        if key.sealed is not None or role(key, now) == "gone" or reached(key.retires_at, now):
            return key
        return replace(key, retires_at=now, gone_at=now + margins.longest_token_s + margins.linger_s)

    keys = tuple(retired(key) for key in keys)
    for alg in ASYMMETRIC_ALGS:
        signing = signer(keys, alg, now)
        if signing is not None and role(signing, now) == "next":
            begun = replace(signing, signs_from=now)
            keys = _in_line(tuple(begun if key == signing else key for key in keys), alg, now, margins)
        if signing is not None and alg in ahead:
            moved = {key.kid: key for key in _again(_waiting(keys, alg, now), now, margins)}
            keys = _in_line(tuple(moved.get(key.kid, key) for key in keys), alg, now, margins)
    return keys


def kept_long_enough(keys: KeyRecords, now: int, margins: Margins) -> KeyRecords:
    """The ring after the longest lifetime has grown: keys that have signed stay published for tokens of that length."""

    def kept(key: KeyRecord) -> KeyRecord:
        if key.retires_at is None or role(key, now) == "gone":
            return key
        least = key.retires_at + margins.longest_token_s + margins.linger_s
        return key if key.gone_at is not None and key.gone_at >= least else replace(key, gone_at=least)

    return tuple(kept(key) for key in keys)


def without_private_parts_of_gone(keys: KeyRecords, now: int) -> KeyRecords:
    """The ring without the private parts of keys that will never sign again."""
    return tuple(
        replace(key, sealed=None) if key.sealed is not None and role(key, now) == "gone" else key
        for key in keys
    )
