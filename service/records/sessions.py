"""A session, the sign-in that starts it, and its row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from service.handles import hash_handle, new_id
from service.storage.interface import Fitting, Kind, Record

#: The longest lifetime of a session in s, however often it is refreshed.
MAX_SESSION_S: Final = 90 * 86_400
#: How many characters of a token are stored, to recognise it in a list.
TOKEN_PREFIX_LENGTH: Final = len("pylon_") + 6


@dataclass(frozen=True, slots=True)
class SignIn:
    """The app's report about a user whom it has just signed in.

    Attributes:
        user_id: 1 to 255 visible ASCII characters; the `sub` of tokens.
        tenant_id: the tenant, if the app has tenants.
        roles: the user's roles.
        claims: standard claims of OpenID Connect Core §5.1, already type-checked.
        device: a description for the user's list of sessions.
        auth_time: Unix s of the authentication; None means now.
        acr: authentication context class.
        amr: authentication methods (RFC 8176).
        expires_in: lifetime in s; None means the configured one.
        attributes: the app's own data about the user, already checked.
        given: which of `claims`, `roles`, `tenant_id` and `attributes` the app sent; they replace the stored ones.
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
        sid: random id that stays the same for the whole session.
        token_hash: the hash of the session token.
        token_prefix: the first characters of the token, to recognise it in a list.
        created_at, expires_at, auth_time: Unix s.
        lifetime_s: its first lifetime in s; a refresh sets it again.
        attributes: the app's own data about the user.
        status: its place in a status list; None if the service had none when it began.
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
    status: str | None = None


def new_session(
    sign_in: SignIn, *, lifetime_s: int, now: int, token: str = "", status: str | None = None
) -> Session:
    """Create the session for a sign-in.

    Args:
        sign_in: the app's report about the user.
        lifetime_s: its lifetime in s, unless the sign-in sets a shorter one.
        now: Unix s.
        token: the token that finds it; empty for a session that is only an example.
        status: its place in a status list.
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
        status=status,
    )


def on_session(session: Session) -> Fitting:
    """Grants depend on their session, whatever its current token is: they are stored only if it exists.

    A session is ended first, then the records that depend on it, so that none are added after the end.
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
    """Read the session from a row. Unknown members are ignored."""
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
