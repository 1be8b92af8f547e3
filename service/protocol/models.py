"""The frozen values that the rules speak of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long things live, in s; the settings say it, but for the verifier."""

    code_s: int
    id_token_s: int
    access_token_s: int
    refresh_idle_s: int
    refresh_max_s: int
    refresh_grace_s: int
    interaction_s: int
    verifier_s: int = 60


@dataclass(frozen=True, slots=True)
class User:
    """What was last said of a user by the app."""

    user_id: str
    claims: Mapping[str, Any] = field(default_factory=dict)
    roles: tuple[str, ...] = ()
    tenant_id: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of_body(user_id: str, body: Mapping[str, Any]) -> User:
        """The user of a record's body; a member that was never given is absent."""
        return User(
            user_id,
            body.get("claims", {}),
            tuple(body.get("roles", ())),
            body.get("tenant_id"),
            body.get("attributes", {}),
        )


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
