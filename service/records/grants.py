"""A grant: what a user lets a client do. Its code, refresh token and access tokens are stored in one row.

A grant is read and changed at every use, so its values are msgspec structs, which are several times as fast.

Handles never get here, only their hashes; see `service.handles`.

Members of a row that this version does not know are preserved.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from service.events import UNHEARD, Events, GrantEnded
from service.records.users import User
from service.storage.interface import Change, Contended, Fitting, Kind, NotStanding, Record, Store

#: One more access token ends the oldest.
MOST_ACCESS_TOKENS: Final = 32
#: How many scopes a grant can have: a token stores them as bits.
MOST_WORDS: Final = 64
#: An access token: 16 bytes of its hash, when it was created and when it expires (Unix s), and its part of the scope.
_ACCESS_TOKEN: Final = struct.Struct(">16sIIQ")
#: How often a change is tried if others are faster.
_ATTEMPTS: Final = 5
_GRANT_ID: Final = re.compile(r"[0-9a-v]{26}", re.ASCII)

_Part = TypeVar("_Part", "Code", "RefreshToken", "Rotation")
_Result = TypeVar("_Result")


class Code(Struct, frozen=True):
    """An authorization code. Until it is used, its grant expires with it.

    Attributes:
        hash: the hash of its secret.
        uri_hash: the hash of the redirect URI that it was sent to.
        challenge: the request's code challenge, if it had one.
        spent_at: Unix s of its use. A used code stays, so that a second use is recognised.
        nonce: the request's nonce; removed when the code is used.
    """

    hash: str
    uri_hash: str
    challenge: str | None = None
    nonce: str | None = None
    spent_at: int | None = None


class Rotation(Struct, frozen=True):
    """How the refresh token was created: its predecessor, and the request that used it.

    Attributes:
        hash: the hash of the predecessor's changing part.
        salt: together with the predecessor, it derives the same tokens again.
        asked_hash: the hash of the request: client, scope, resource.
    """

    hash: str
    salt: str
    asked_hash: str


class RefreshToken(Struct, frozen=True):
    """The current refresh token.

    Attributes:
        fixed_hash: the hash of the part that all refresh tokens of the grant share.
        hash: the hash of the changing part.
        made_at, valid_until: Unix s. It is created when its predecessor is used.
        rotation: how it was created; None for the first.
    """

    fixed_hash: str
    hash: str
    made_at: int
    valid_until: int
    rotation: Rotation | None = None


class AccessToken(Struct, frozen=True):
    """A live access token.

    Attributes:
        hash: the hash of its secret, 16 bytes.
        made_at, ends_at: Unix s.
        scope: its scope, part of the grant's.
    """

    hash: bytes
    made_at: int
    ends_at: int
    scope: tuple[str, ...]


class Grant(Struct, frozen=True):
    """What a user lets a client do.

    Attributes:
        id: not secret; every code and token contains it.
        subject, client_id, sid: its user, client and session.
        expires_at: Unix s.
        version: the version that was read.
        issuer: the issuer that it is valid for.
        scope: the granted scope.
        auth_time, acr, amr: from the sign-in.
        id_token_claims, userinfo_claims: the claims requested one by one that the user agreed to.
        created_at: Unix s.
        code: its authorization code.
        refresh: None without offline access, and until the code is redeemed.
        access: its access tokens, oldest first.
        status: the place of its JWT access tokens in a status list. A grant without live access tokens gets a new one,
            because the bit of the old one may be set.
        unknown: members of the row from a newer version.
        user: what the app last reported about its user, if that was read with it.
    """

    id: str
    subject: str
    client_id: str
    sid: str
    expires_at: int
    issuer: str
    scope: tuple[str, ...]
    auth_time: int
    created_at: int
    code: Code
    acr: str | None = None
    amr: tuple[str, ...] = ()
    id_token_claims: tuple[str, ...] = ()
    userinfo_claims: tuple[str, ...] = ()
    refresh: RefreshToken | None = None
    access: tuple[AccessToken, ...] = ()
    status: str | None = None
    version: int = 1
    unknown: Mapping[str, Any] = field(default_factory=dict[str, Any])
    user: User | None = None

    @property
    def last_used_at(self) -> int:
        """When its code or a refresh token was last exchanged, or else when it was created; Unix s."""
        return self.refresh.made_at if self.refresh else self.code.spent_at or self.created_at

    def with_access(self, token: AccessToken, *, now: int) -> Grant:
        """The grant with one more access token, without expired ones and without the oldest if there are too many."""
        living = tuple(each for each in self.access if each.ends_at > now)
        return replace(self, access=(*living, token)[-MOST_ACCESS_TOKENS:])

    def access_token(self, token_hash: bytes, *, now: int) -> AccessToken | None:
        """The live access token of that hash."""
        return next((each for each in self.access if each.hash == token_hash and each.ends_at > now), None)

    def to_record(self) -> Record:
        """Its row."""
        body = dict(self.unknown)
        for name in _IN_BODY:
            if (value := getattr(self, name)) not in (None, ()):
                body[name] = value
        body["code"] = _members(self.code)
        if self.refresh is not None:
            refresh = body["refresh"] = _members(self.refresh)
            if self.refresh.rotation is not None:
                refresh["rotation"] = _members(self.refresh.rotation)
        bits = {word: 1 << place for place, word in enumerate(self.scope)}
        tokens = b"".join(
            _ACCESS_TOKEN.pack(each.hash, each.made_at, each.ends_at, sum(bits[word] for word in each.scope))
            for each in self.access
        )
        return Record(
            Kind.GRANT,
            self.id,
            self.expires_at,
            self.subject,
            session_id=self.sid,
            client_id=self.client_id,
            version=self.version,
            body=body,
            outlives_session=self.refresh is not None,
            tokens=tokens,
        )


_COLUMNS: Final = ("id", "subject", "client_id", "sid", "expires_at", "version")
_MADE: Final = ("code", "refresh", "access", "unknown", "user")
_IN_BODY: Final = tuple(name for name in Grant.__struct_fields__ if name not in _COLUMNS + _MADE)
_LISTS: Final = ("scope", "amr", "id_token_claims", "userinfo_claims")


def of_record(record: Record) -> Grant:
    """Read the grant from a row."""
    body = dict(record.body)
    known = {name: body.pop(name) for name in _IN_BODY if name in body}
    known |= {name: tuple(known[name]) for name in _LISTS if name in known}
    scope = known.setdefault("scope", ())
    code = _of(Code, body.pop("code"))
    refresh = body.pop("refresh", None)
    if refresh is not None:
        rotation = refresh.get("rotation")
        refresh = _of(RefreshToken, refresh | {"rotation": rotation and _of(Rotation, rotation)})
    packed = list(_ACCESS_TOKEN.iter_unpack(record.tokens))
    words = {bits: tuple(word for n, word in enumerate(scope) if bits >> n & 1) for *_, bits in packed}
    access = tuple(AccessToken(hash_, made, ends, words[bits]) for hash_, made, ends, bits in packed)
    return Grant(
        id=record.id_hash,
        subject=record.subject,
        client_id=record.client_id,
        sid=record.session_id,
        expires_at=record.expires_at,
        version=record.version,
        code=code,
        refresh=refresh,
        access=access,
        unknown=body,
        user=None if record.user is None else User.of_body(record.subject, record.user),
        **known,
    )


def _members(value: Code | RefreshToken | Rotation) -> dict[str, Any]:
    """The members of a part, without nested parts."""
    members = {name: getattr(value, name) for name in _NAMES[type(value)]}
    return {name: member for name, member in members.items() if isinstance(member, (str, int))}


def _of(kind: type[_Part], members: Mapping[str, Any]) -> _Part:
    names = _NAMES[kind]
    return kind(**{name: value for name, value in members.items() if name in names})


_NAMES: Final[Mapping[type, frozenset[str]]] = {
    kind: frozenset(kind.__struct_fields__) for kind in (Code, RefreshToken, Rotation)
}


class Grants:
    """The store of grants.

    Args:
        store: the store.
        events: where the end of a grant is reported.
    """

    def __init__(self, store: Store, events: Events = UNHEARD) -> None:
        self._store = store
        self._events = events

    def find(self, grant_id: str, *, with_user: bool = False, now: int) -> Grant | None:
        """The live grant of that id, which must have the right form; perhaps with its user. This is one statement."""
        record = self._store.get(Kind.GRANT, grant_id, with_user=with_user, now=now)
        return None if record is None else of_record(record)

    def use(
        self,
        grant_id: str,
        decide: Callable[[Grant | None], tuple[Grant | None, _Result]],
        *,
        beside: Callable[[Grant], Record | None] = lambda _grant: None,
        ending: bool = False,
        now: int,
    ) -> _Result:
        """Change a grant without losing changes by others, with one read and one conditional update.

        Args:
            grant_id: its id, in the right form.
            decide: gets the grant with its user; returns the new grant, or None to leave it, and the result. It is
                called again if another request was faster. If it raises, nothing is changed.
            beside: returns the record to store together with the new grant, unless there is one of its id; None: nothing.
            ending: whether it removes something; see `Store.swap`.
            now: Unix s.

        Raises:
            Contended: if other requests were faster at every attempt.
        """
        for _ in range(_ATTEMPTS):
            wanted, result = decide(self.find(grant_id, with_user=True, now=now))
            if wanted is None:
                return result
            if self._store.swap(wanted.to_record(), beside=beside(wanted), ending=ending, now=now):
                return result
        raise Contended

    def revoke_access_token(self, grant_id: str, token_hash: bytes, *, now: int) -> None:
        """Revoke one access token, if it is live.

        Raises:
            Contended: if other requests were faster at every attempt.
        """

        def without(grant: Grant | None) -> tuple[Grant | None, None]:
            if grant is None or grant.access_token(token_hash, now=now) is None:
                return None, None
            access = tuple(each for each in grant.access if each.hash != token_hash)
            return replace(grant, access=access), None

        self.use(grant_id, without, ending=True, now=now)

    def revoke_access_tokens(self, grant_id: str, *, now: int) -> None:
        """Revoke all access tokens of a grant.

        Raises:
            Contended: if other requests were faster at every attempt.
        """

        def without(record: Record) -> Record | None:
            return dataclasses.replace(record, tokens=b"") if record.tokens else None

        change = Change(Kind.GRANT, grant_id, without)
        with contextlib.suppress(NotStanding):  # it is gone, or has no access tokens
            self._store.put(changes=[change], ending=True, now=now)

    def end(self, grant_id: str, *, now: int, falling: Sequence[Fitting] = ()) -> bool:
        """End a grant, and everything that depends on it. Returns whether it existed."""
        if not is_grant_id(grant_id):
            return False
        ended = self._store.take(Kind.GRANT, grant_id, falling=falling, now=now)
        if ended is not None:
            whose = {"client_id": ended.client_id, "subject": ended.subject, "sid": ended.session_id}
            self._events.send(GrantEnded(**whose))
        return ended is not None

    def of_user(self, user_id: str, *, now: int) -> list[Grant]:
        """The live grants of a user."""
        return [of_record(record) for record in self._store.list(Kind.GRANT, subject=user_id, now=now)]

    def of_session(self, user_id: str, sid: str, *, now: int) -> list[Grant]:
        """The live grants that a user has given in one session."""
        records = self._store.list(Kind.GRANT, subject=user_id, session_id=sid, now=now)
        return [of_record(record) for record in records]


def is_grant_id(unverified: str) -> bool:
    """Whether a text has the form of a grant's id."""
    return _GRANT_ID.fullmatch(unverified) is not None
