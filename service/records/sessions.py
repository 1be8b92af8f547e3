"""A signed-in user on one device, what the app says when it begins, and its row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from service.handles import hash_handle, new_id
from service.storage.interface import Fitting, Kind, Record

#: However often it is refreshed, a session ends this long after it began, in s.
MAX_SESSION_S: Final = 90 * 86_400
#: So much of a token is kept, to recognise it in a list.
TOKEN_PREFIX_LENGTH: Final = len("pylon_") + 6


@dataclass(frozen=True, slots=True)
class SignIn:
    """What the app says of a user it has just signed in.

    Attributes:
        user_id: 1 to 255 visible ASCII characters; the `sub` of tokens.
        tenant_id: the tenant, if the app has such.
        roles: the user's roles.
        claims: standard claims of OpenID Connect Core §5.1, already type-checked.
        device: words for the user's list of sessions.
        auth_time: Unix s of the authentication; None means now.
        acr: authentication context class.
        amr: authentication methods (RFC 8176).
        expires_in: lifetime in s; None means the configured one.
        attributes: the app's own facts about the user, already checked.
        given: which of `claims`, `roles`, `tenant_id` and `attributes` the app gave, so that they replace what is known of the user.
    """

    user_id: str
    tenant_id: str | None = None
    roles: tuple[str, ...] = ()
    claims: Mapping[str, Any] = field(default_factory=dict)
    device: str | None = None
    auth_time: int | None = None
    acr: str | None = None
    amr: tuple[str, ...] = ()
    expires_in: int | None = None
    given: frozenset[str] = frozenset()
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Session:
    """A signed-in user on one device.

    Attributes:
        sid: random id, the same for the session's whole life.
        token_hash: what is kept of the session token.
        token_prefix: the first characters of the token, to recognise it in a list.
        created_at, expires_at, auth_time: Unix s.
        lifetime_s: what it was first given, in s; a refresh gives it again.
        attributes: the app's own facts about the user.
    """

    sid: str
    token_hash: str
    token_prefix: str
    user_id: str
    created_at: int
    expires_at: int
    lifetime_s: int
    auth_time: int
    tenant_id: str | None = None
    roles: tuple[str, ...] = ()
    claims: Mapping[str, Any] = field(default_factory=dict)
    device: str | None = None
    acr: str | None = None
    amr: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)


def new_session(sign_in: SignIn, *, lifetime_s: int, now: int, token: str = "") -> Session:
    """The session that a sign-in begins.

    Args:
        sign_in: what the app says of the user.
        lifetime_s: how long it lives unless the sign-in says less, in s.
        now: Unix s.
        token: by which it is found; empty for one that nobody looks for.
    """
    lifetime_s = sign_in.expires_in or lifetime_s
    return Session(
        sid=new_id(),
        token_hash=hash_handle(token),
        token_prefix=token[:TOKEN_PREFIX_LENGTH],
        user_id=sign_in.user_id,
        created_at=now,
        expires_at=now + lifetime_s,
        lifetime_s=lifetime_s,
        auth_time=now if sign_in.auth_time is None else sign_in.auth_time,
        tenant_id=sign_in.tenant_id,
        roles=sign_in.roles,
        claims=sign_in.claims,
        device=sign_in.device,
        acr=sign_in.acr,
        amr=sign_in.amr,
        attributes=sign_in.attributes,
    )


def on_session(session: Session) -> Fitting:
    """What is granted stands on the session, under whatever token it goes by now: it is stored only where that is there.

    To end one is to end first what others stand on, then what hangs on it: so nothing is stored behind an end.
    """
    return Fitting(Kind.SESSION, subject=session.user_id, session_id=session.sid)


def to_record(session: Session) -> Record:
    """Its row."""
    body: dict[str, Any] = {name: getattr(session, name) for name in sorted(_IN_BODY)}
    return Record(
        Kind.SESSION,
        session.token_hash,
        session.expires_at,
        session.user_id,
        session_id=session.sid,
        body=body,
    )


def of_record(record: Record) -> Session:
    """The session of a row; members that nobody knows here are passed over."""
    body = {name: value for name, value in record.body.items() if name in _IN_BODY}
    body["roles"], body["amr"] = tuple(body["roles"]), tuple(body["amr"])
    return Session(
        sid=record.session_id,
        token_hash=record.id_hash,
        user_id=record.subject,
        expires_at=record.expires_at,
        **body,
    )


_COLUMNS: Final = ("sid", "token_hash", "user_id", "expires_at")
_IN_BODY: Final = frozenset(item.name for item in fields(Session) if item.name not in _COLUMNS)
