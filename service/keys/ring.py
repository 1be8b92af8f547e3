"""What a ring of signing keys is: its keys, their times, and what each of them is for at a moment.

Owns: the records of keys, the margins of a rotation, the roles.
Never touches: key material, the store, the clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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


KeyRecords = tuple[KeyRecord, ...]


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
    keys: KeyRecords
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
    if key.revoked_at is not None or reached(key.gone_at, now):
        return "gone"  # what was revoked stays so, whatever a clock that is behind says
    if reached(key.retires_at, now) or key.sealed is None:
        return "retired"  # nor does what has lost its private part sign again, when a clock was ahead for a while
    return "active" if reached(key.signs_from, now) else "next"


def reached(moment: int | None, now: int) -> bool:
    """Whether a moment is there, and now or past."""
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
    line = line_of(keys, alg, now)
    begun = [key for key in line if role(key, now) == "active"]
    return begun[-1] if begun else next(iter(line), None)


def turns_at(keys: Iterable[KeyRecord], now: int) -> int | None:
    """When the next role changes by the clock alone; None: never."""
    return min((moment for key in keys for moment in _moments(key) if moment > now), default=None)


def _moments(key: KeyRecord) -> list[int]:
    if key.revoked_at is not None:
        return []
    return [moment for moment in (key.signs_from, key.retires_at, key.gone_at) if moment is not None]


def line_of(keys: Iterable[KeyRecord], alg: str, now: int) -> list[KeyRecord]:
    """Those of the algorithm that sign, or will: each until the one after it does."""
    line = (key for key in keys if key.alg == alg and role(key, now) in {"active", "next"})
    return sorted(line, key=_begins)
