"""The ring of signing keys: its keys, their times, and the role of each key at a given time.

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
    """The margins that keep a rotation safe, in s. Tests use shorter ones; no setting changes them.

    Attributes:
        max_age_s: how long a cache may keep the JWKS.
        lead_s: how long a key is published before it signs: `max_age_s`, as much for a cache behind a cache, and
            `learn_s`.
        linger_s: how long a key stays published after its last token has expired.
        learn_s: the time within which every worker learns of a change.
        slack_s: how much longer than `learn_s` a worker may sign if it cannot reach the store.
        ahead_s: how long before it is needed the next key is created.
        rotation_s: how long a key signs; 0: until it is rotated manually.
        longest_token_s: the longest lifetime of a signed token.
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
        """How long before its predecessor starts to sign a key is created."""
        return min(self.ahead_s, self.rotation_s // 2) if self.rotation_s else self.ahead_s


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One signing key and its times, in Unix s. None: not known yet.

    Attributes:
        kid: its name in tokens and in the JWKS, unique in the ring.
        alg: the only algorithm that it signs with.
        jwk: its public members, as published.
        sealed: its private part, encrypted; None after it was deleted.
        published_at: when it is added to the JWKS.
        signs_from: when it starts to sign.
        retires_at: when its successor starts to sign.
        gone_at: when it is removed from the JWKS.
        revoked_at: when it was revoked; from then on nothing that it signed is accepted.
        imported: whether it was created elsewhere.
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
    """A replica's settings for the ring. All replicas of a database should have the same.

    Attributes:
        algs: the algorithms that it creates keys for.
        rotation_s: its `Margins.rotation_s`.
        seen_at: when such a replica was last seen, Unix s.
    """

    algs: tuple[str, ...]
    rotation_s: int
    seen_at: int


@dataclass(frozen=True, slots=True)
class Ring:
    """All keys of one database.

    Attributes:
        version: incremented at each change.
        database_id: the id of its database; private keys are sealed for it.
        keys: in the order in which they were added.
        rotation_s: the `Margins.rotation_s` that the times are based on.
        kept_by: the different settings of its replicas; not part of the document.
    """

    version: int
    database_id: str
    keys: KeyRecords
    rotation_s: int
    kept_by: tuple[Keeping, ...] = field(default=(), compare=False)


class UnsafeStep(Exception):
    """A verifier could get a token whose key it does not know yet.

    Attributes:
        safe_at: when the step becomes safe, Unix s; None if waiting does not help.
    """

    def __init__(self, reason: str, safe_at: int | None = None) -> None:
        super().__init__(reason)
        self.safe_at = safe_at


class NoSuchKey(LookupError):
    """There is no key with this kid, or no suitable key of this algorithm."""


# --- what is ---


def role(key: KeyRecord, now: int) -> Role:
    """The current role of the key. It depends only on the key's times and the clock."""
    if key.revoked_at is not None or reached(key.gone_at, now):
        return "gone"  # a revoked key stays revoked, even for a slow clock
    if reached(key.retires_at, now) or key.sealed is None:
        return "retired"  # a key without its private part cannot sign again, even if a clock was fast for a while
    return "active" if reached(key.signs_from, now) else "next"


def reached(moment: int | None, now: int) -> bool:
    """Whether the time is set, and is now or past."""
    return moment is not None and moment <= now


def with_role(keys: Iterable[KeyRecord], alg: str, wanted: Role, now: int) -> list[KeyRecord]:
    """The keys of the algorithm with the role, in the order in which they sign."""
    return sorted((key for key in keys if key.alg == alg and role(key, now) == wanted), key=_begins)


def published(keys: Iterable[KeyRecord], now: int) -> list[KeyRecord]:
    """The keys in the JWKS: RS256 first, then in the order in which they sign."""
    shown = [key for key in keys if role(key, now) != "gone"]
    return sorted(shown, key=lambda key: (ASYMMETRIC_ALGS.index(key.alg), _begins(key)))


def taken_away(keys: Iterable[KeyRecord]) -> frozenset[str]:
    """The kids of revoked keys. Caches may still have them."""
    return frozenset(key.kid for key in keys if key.revoked_at is not None)


def _begins(key: KeyRecord) -> tuple[bool, int, bool, int, str]:
    """The sort order in which keys sign: by their time, then those that wait for a manual rotation, imported ones first."""
    by_hand = key.signs_from is None
    return by_hand, key.signs_from or 0, by_hand and not key.imported, key.published_at, key.kid


def signer(keys: Iterable[KeyRecord], alg: str, now: int) -> KeyRecord | None:
    """The key to sign with.

    It is the active one. If the clock is slow and none is active yet, it is the first one that will be, which is
    already published.
    """
    line = line_of(keys, alg, now)
    begun = [key for key in line if role(key, now) == "active"]
    return begun[-1] if begun else next(iter(line), None)


def turns_at(keys: Iterable[KeyRecord], now: int) -> int | None:
    """When the next role changes by time; None: never."""
    return min((moment for key in keys for moment in _moments(key) if moment > now), default=None)


def _moments(key: KeyRecord) -> list[int]:
    if key.revoked_at is not None:
        return []
    return [moment for moment in (key.signs_from, key.retires_at, key.gone_at) if moment is not None]


def line_of(keys: Iterable[KeyRecord], alg: str, now: int) -> list[KeyRecord]:
    """The keys of the algorithm that sign, or will sign: each until the next one does."""
    line = (key for key in keys if key.alg == alg and role(key, now) in {"active", "next"})
    return sorted(line, key=_begins)
