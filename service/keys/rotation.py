"""When a signing key is published, signs and goes: pure functions of its timestamps and the clock.

Owns: the roles of keys, what has to be made, what a rotation, a revocation and an import do.
Never touches: key material, the store, the clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from service.keys.algorithms import ASYMMETRIC_ALGS

DAY_S: Final = 86_400

Role = Literal["next", "active", "retired", "gone"]


@dataclass(frozen=True, slots=True)
class Margins:
    """What keeps a rotation safe, in s. The defaults are the contract's; tests give seconds, and no setting does.

    Attributes:
        max_age_s: how long a cache may keep the JWKS.
        lead_s: how long a key is published before it signs: `max_age_s`, as much for a cache behind a cache, and
            `learn_s`.
        linger_s: how long a key stays published after the longest token that it signed has ended.
        learn_s: within which every worker knows of a change.
        slack_s: how much longer than `learn_s` a worker signs that cannot reach the store.
        ahead_s: how long before it is needed the next key is made.
        rotation_s: how long a key signs; 0: until somebody rotates.
        longest_token_s: the longest lifetime of a token that is signed.
    """

    max_age_s: int = 300
    lead_s: int = 660
    linger_s: int = 360
    learn_s: int = 60
    slack_s: int = 300
    ahead_s: int = DAY_S
    rotation_s: int = 90 * DAY_S
    longest_token_s: int = 3600

    @property
    def made_before_s(self) -> int:
        """How long before its predecessor begins to sign a key is made."""
        return min(self.ahead_s, self.rotation_s // 2) if self.rotation_s else self.ahead_s


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One signing key and its times, in Unix s. None: not known yet.

    Attributes:
        kid: its name in tokens and in the JWKS; one in the ring has it.
        alg: the one algorithm that it signs by.
        jwk: its public members, as they are published.
        sealed: its private part, sealed; None when it is gone.
        published_at: from when on it is in the JWKS.
        signs_from: from when on it signs.
        retires_at: when its successor signs.
        gone_at: when it leaves the JWKS.
        revoked_at: when somebody took it away before its time; from then on nothing that it signed counts.
        imported: whether it was made elsewhere.
    """

    kid: str
    alg: str
    jwk: Mapping[str, str]
    sealed: Mapping[str, Any] | None = field(repr=False)
    published_at: int
    signs_from: int | None = None
    retires_at: int | None = None
    gone_at: int | None = None
    revoked_at: int | None = None
    imported: bool = False


Keys = tuple[KeyRecord, ...]


@dataclass(frozen=True, slots=True)
class Keeping:
    """What a replica keeps the ring by, of its own settings; all replicas of a database should have the same.

    Attributes:
        algs: the algorithms whose keys it makes.
        rotation_s: its `Margins.rotation_s`.
        seen_at: when such a replica was last there, Unix s.
    """

    algs: tuple[str, ...]
    rotation_s: int
    seen_at: int


@dataclass(frozen=True, slots=True)
class Ring:
    """All the keys of one database.

    Attributes:
        version: one more at each change.
        database_id: in which database it lives; private parts are sealed for it.
        keys: in the order in which they came.
        rotation_s: the `Margins.rotation_s` that the times were made by.
        kept_by: what its replicas keep it by, one entry for each that differs; they are no part of the document.
    """

    version: int
    database_id: str
    keys: Keys
    rotation_s: int
    kept_by: tuple[Keeping, ...] = field(default=(), compare=False)


class UnsafeStep(Exception):
    """A verifier could meet a token whose key it cannot know.

    Attributes:
        safe_at: when the step becomes safe, Unix s; None when waiting does not help.
    """

    def __init__(self, reason: str, safe_at: int | None = None) -> None:
        super().__init__(reason)
        self.safe_at = safe_at


class NoSuchKey(LookupError):
    """There is no key of this kid, or none of this algorithm that fits."""


# --- what is ---


def role(key: KeyRecord, now: int) -> Role:
    """What the key is for now: a function of its own times and the clock, and of nothing else."""
    if key.revoked_at is not None or _reached(key.gone_at, now):
        return "gone"  # what was revoked stays so, whatever a clock that is behind says
    if _reached(key.retires_at, now) or key.sealed is None:
        return "retired"  # nor does what has lost its private part sign again, when a clock was ahead for a while
    return "active" if _reached(key.signs_from, now) else "next"


def _reached(moment: int | None, now: int) -> bool:
    return moment is not None and moment <= now


def with_role(keys: Iterable[KeyRecord], alg: str, wanted: Role, now: int) -> list[KeyRecord]:
    """The keys of the algorithm that have the role; those that sign first come first."""
    return sorted((key for key in keys if key.alg == alg and role(key, now) == wanted), key=_begins)


def published(keys: Iterable[KeyRecord], now: int) -> list[KeyRecord]:
    """What the JWKS holds: RS256 first, then as they come to sign."""
    shown = [key for key in keys if role(key, now) != "gone"]
    return sorted(shown, key=lambda key: (ASYMMETRIC_ALGS.index(key.alg), _begins(key)))


def taken_away(keys: Iterable[KeyRecord]) -> frozenset[str]:
    """The kids that an operator took away, whoever still keeps a set with them."""
    return frozenset(key.kid for key in keys if key.revoked_at is not None)


def _begins(key: KeyRecord) -> tuple[bool, int, bool, int, str]:
    """The order in which keys come to sign: by their time, then those that wait for a word, imported ones first."""
    by_hand = key.signs_from is None
    return by_hand, key.signs_from or 0, by_hand and not key.imported, key.published_at, key.kid


def signer(keys: Iterable[KeyRecord], alg: str, now: int) -> KeyRecord | None:
    """The key to sign by.

    It is the active one; but where a clock is behind the one that began, the first that will be: it is published.
    """
    line = _line(keys, alg, now)
    begun = [key for key in line if role(key, now) == "active"]
    return begun[-1] if begun else next(iter(line), None)


def turns_at(keys: Iterable[KeyRecord], now: int) -> int | None:
    """When the next role changes by the clock alone; None: never."""
    return min((moment for key in keys for moment in _moments(key) if moment > now), default=None)


def _moments(key: KeyRecord) -> list[int]:
    if key.revoked_at is not None:
        return []
    return [moment for moment in (key.signs_from, key.retires_at, key.gone_at) if moment is not None]


# --- what must be made, and where a new key stands ---


def needs(keys: Keys, algs: Iterable[str], now: int, margins: Margins) -> list[str]:
    """The algorithms of the keys that must be made now; one twice where both the first and the next are missing."""
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


def added(keys: Keys, key: KeyRecord, now: int, margins: Margins) -> Keys:
    """The ring with a new key: signing at once where nothing of its algorithm does, else after all the others."""
    key = replace(key, published_at=now)
    line = _line(keys, key.alg, now)
    if not line:
        first = replace(key, signs_from=now)
        return _in_line((*keys, first), key.alg, now, margins)
    begins = None
    if margins.rotation_s and line[-1].signs_from is not None:
        begins = max(line[-1].signs_from + margins.rotation_s, now + margins.lead_s)
    return _in_line((*keys, replace(key, signs_from=begins)), key.alg, now, margins)


def _line(keys: Iterable[KeyRecord], alg: str, now: int) -> list[KeyRecord]:
    """Those of the algorithm that sign, or will: each until the one after it does."""
    line = (key for key in keys if key.alg == alg and role(key, now) in {"active", "next"})
    return sorted(line, key=_begins)


def _waiting(keys: Iterable[KeyRecord], alg: str, now: int) -> list[KeyRecord]:
    """Those of the line that come after the one that signs."""
    signing = signer(keys, alg, now)
    return [key for key in _line(keys, alg, now) if key != signing]


def _in_line(keys: Keys, alg: str, now: int, margins: Margins) -> Keys:
    """Let each key of the algorithm sign until its successor does, so that there is always exactly one."""
    line = _line(keys, alg, now)
    changed: dict[str, KeyRecord] = {}
    for key, successor in zip(line, [*line[1:], None], strict=True):
        retires = None if successor is None else successor.signs_from
        changed[key.kid] = replace(key, retires_at=retires, gone_at=_gone(key, retires, margins))
    return tuple(changed.get(key.kid, key) for key in keys)


def imported(
    keys: Keys, key: KeyRecord, now: int, margins: Margins, *, as_next: bool = False, kept: bool = True
) -> Keys:
    """The ring with a key that was made elsewhere.

    The first of its algorithm goes on signing. Where there is one that signs, or the algorithm is not `kept`, it is
    published for as long as its tokens may live; or, `as_next`, it comes to sign before those that wait already.

    Raises:
        UnsafeStep: when its kid is taken, or the line must not change now.
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
    """When a key may go that retires then; never sooner after it than was said before, by a replica of longer tokens."""
    if retires_at is None:
        return None
    said = key.gone_at - key.retires_at if key.gone_at is not None and key.retires_at is not None else 0
    return retires_at + max(said, margins.longest_token_s + margins.linger_s)


# --- what an operator does ---


def rotation_is_safe_at(keys: Keys, alg: str, now: int, margins: Margins) -> int:
    """From when on the next key may be let sign, Unix s; now or earlier: it may be already.

    Raises:
        NoSuchKey: when no key waits.
    """
    waiting = _waiting(keys, alg, now)
    if not waiting:
        raise NoSuchKey(f"no key of {alg} waits to sign")
    known_at = waiting[0].published_at + margins.lead_s - margins.learn_s
    begins = waiting[0].signs_from
    if (
        begins is not None and begins <= max(now, known_at) + margins.learn_s
    ):  # then it is the turn of the one after
        return max(begins, (waiting[1].published_at if len(waiting) > 1 else begins) + margins.lead_s)
    return known_at


def rotated(keys: Keys, alg: str, now: int, margins: Margins) -> Keys:
    """Let the next key sign from `now + learn_s`, when every worker knows of it.

    Raises:
        NoSuchKey: when there is none that could.
        UnsafeStep: when a verifier may not know it yet, or it is about to sign anyway.
    """
    safe_at = rotation_is_safe_at(keys, alg, now, margins)
    successor, begins = _waiting(keys, alg, now)[0], now + margins.learn_s
    if successor.signs_from is not None and successor.signs_from <= begins:
        raise UnsafeStep("a rotation is under way", safe_at)
    if now < safe_at:
        raise UnsafeStep("a verifier may still hold a key set without the next key", safe_at)
    keys = straightened(keys, now, margins)
    return _takes_over(keys, successor, begins, now, margins)


def _takes_over(keys: Keys, successor: KeyRecord, begins: int, now: int, margins: Margins) -> Keys:
    waiting = [key for key in _waiting(keys, successor.alg, now) if key.kid != successor.kid]
    moved = {key.kid: key for key in _again(waiting, begins, margins)}
    moved[successor.kid] = replace(successor, signs_from=begins)
    return _in_line(tuple(moved.get(key.kid, key) for key in keys), successor.alg, now, margins)


def _again(
    waiting: Sequence[KeyRecord], after: int, margins: Margins, *, not_before: int = 0
) -> list[KeyRecord]:
    """The waiting keys with new times: a rotation apart, and none before verifiers know it."""
    moved = []
    for key in waiting:
        after = max(after + margins.rotation_s, key.published_at + margins.lead_s, not_before)
        moved.append(replace(key, signs_from=after if margins.rotation_s else None))
    return moved


def revoked(keys: Keys, kid: str, now: int, margins: Margins) -> Keys:
    """Take a key away now; where it signs, the next one does from now on.

    Raises:
        NoSuchKey: when it is not published.
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


def rescheduled(keys: Keys, now: int, margins: Margins) -> Keys:
    """The ring by another `rotation_s`: who signs next does so then; what is about to happen stays."""
    for alg in ASYMMETRIC_ALGS:
        line = _line(keys, alg, now)
        if not line or role(line[0], now) != "active":
            continue
        begins = line[0].signs_from or now
        waiting, soon = line[1:], now + margins.learn_s
        if any(key.signs_from is not None and key.signs_from <= soon for key in waiting):
            continue
        moved = {key.kid: key for key in _again(waiting, begins, margins, not_before=soon)}
        keys = _in_line(tuple(moved.get(key.kid, key) for key in keys), alg, now, margins)
    return keys


def straightened(keys: Keys, now: int, margins: Margins) -> Keys:
    """The ring after a clock that was ahead: what signs in fact does so by its times too, and what cannot has retired.

    A key that is in the ring has been published by now: one that says so for later than any skew would is published
    now, and those that wait take their turns from there. Within a skew nobody knows which clock is right, and waiting
    is safe.
    """
    ahead = {key.alg for key in keys if key.published_at > now + margins.lead_s and role(key, now) != "gone"}
    keys = tuple(
        replace(key, published_at=now) if key.published_at > now + margins.lead_s else key for key in keys
    )

    def retired(key: KeyRecord) -> KeyRecord:
        if key.sealed is not None or role(key, now) == "gone" or _reached(key.retires_at, now):
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


def kept_long_enough(keys: Keys, now: int, margins: Margins) -> Keys:
    """The ring after the longest lifetime has grown: whoever has signed stays published for tokens of that length."""

    def kept(key: KeyRecord) -> KeyRecord:
        if key.retires_at is None or role(key, now) == "gone":
            return key
        least = key.retires_at + margins.longest_token_s + margins.linger_s
        return key if key.gone_at is not None and key.gone_at >= least else replace(key, gone_at=least)

    return tuple(kept(key) for key in keys)


def without_private_parts_of_gone(keys: Keys, now: int) -> Keys:
    """The ring, where what will never sign again cannot."""
    return tuple(
        replace(key, sealed=None) if key.sealed is not None and role(key, now) == "gone" else key
        for key in keys
    )
