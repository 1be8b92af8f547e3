"""Decides what a token for an audience contains, or which rule refuses it: one function for endpoints and commands.

Pure: time and issuer are arguments, and the signer adds the random part (`jti`).

Spec: RFC 7519 §4.1; RFC 8693 §4.1 (`act`); RFC 9068 §2.2; RFC 9470 §3 (what to ask the user for)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from msgspec import Struct, field

from service.policies.values import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEVICE_GRANT,
    EXCHANGE_GRANT,
    MINT,
    NOTHING_REQUIRED,
    SIGN_IN_CLAIMS,
    TOKEN_EXCHANGE,
    Policy,
    Require,
)
from service.records.clients import Client
from service.records.sessions import Session

_OF_THE_SESSION: Final = frozenset({"roles", "tenant_id", *SIGN_IN_CLAIMS})
#: The rules that another sign-in can satisfy.
BY_SIGNING_IN: Final = frozenset({"acr", "amr", "max_session_age_s"})
#: How many clients may act for one another in a row.
MOST_ACTORS: Final = 4


class Subject(Struct, frozen=True):
    """The limits that an exchanged token sets for the new one.

    Attributes:
        held: the scopes that it has for the audience; None: the policy's `exchange_scopes`.
        until: the latest end of the new token, Unix s; None: that of the session.
        actors: the clients that already act in it, the latest first.
    """

    held: tuple[str, ...] | None = None
    until: int | None = None
    actors: tuple[str, ...] = ()


#: A token that was minted just now.
MINTED_NOW: Final = Subject()


class Asked(Struct, frozen=True):
    """A request for a token.

    Attributes:
        way: the grant, one of `service.policies.values.WAYS`.
        issuer: the `iss`, byte for byte.
        now: Unix s.
        session: the signed-in user, for grants with a user; for a stored grant, its user, their sign-in, and its end.
        client: the client, for grants with a client.
        scope: the requested scopes; None if not given.
        subject: the token to exchange, for `token_exchange`.
        granted: the scopes of the grant that belong to no API.
    """

    way: str
    issuer: str
    now: int
    session: Session | None = None
    client: Client | None = None
    scope: tuple[str, ...] | None = None
    subject: Subject = MINTED_NOW
    granted: tuple[str, ...] = ()


class Given(Struct, frozen=True):
    """A token that may be issued: its content, except its `jti`.

    Attributes:
        policy: the policy of its audience, with its algorithm.
        typ: of its header.
        claims: its payload.
        expires_at, expires_in: Unix s, and s from now.
        scope: the scopes that it has.
    """

    policy: Policy
    typ: str
    claims: dict[str, Any]
    expires_at: int
    expires_in: int
    scope: tuple[str, ...] = ()

    @property
    def alg(self) -> str:
        """The signature algorithm. It is the same for all tokens of a caller, also while an audience moves to another one."""
        policy = self.policy
        if policy.migrate is None:
            return policy.alg
        return policy.alg_for(str(self.claims.get("sid") or self.claims["client_id"]))


class Refused(Struct, frozen=True):
    """A token that is refused.

    Attributes:
        rule: the rule that refuses it: `grants` (not with this grant), `grant_types` (the client may not use it), `clients`
            (not this client), `scopes` (a scope that it may not have), or `require.…`.
        step_up: what to ask the user for, if another sign-in would help (in the terms of RFC 9470).
    """

    rule: str
    step_up: Mapping[str, Any] = field(default_factory=dict)


def decide(policy: Policy, asked: Asked) -> Given | Refused:
    """Decide about a token for an audience.

    Args:
        policy: the policy of the audience.
        asked: the request.
    """
    if asked.way not in policy.grants:
        return Refused("grants")
    if asked.way == MINT and asked.session is not None:
        return _for_a_session(policy, asked, asked.session)
    if asked.way == AUTHORIZATION_CODE and asked.session is not None and asked.client is not None:
        return _for_a_grant(policy, asked, asked.session, asked.client)
    if asked.way == CLIENT_CREDENTIALS and asked.client is not None:
        return _for_a_client(policy, asked, asked.client)
    if asked.way == TOKEN_EXCHANGE and asked.session is not None and asked.client is not None:
        return _for_an_exchange(policy, asked, asked.session, asked.client)
    return Refused("grants")


def _for_a_session(policy: Policy, asked: Asked, session: Session) -> Given | Refused:
    if policy.require is not NOTHING_REQUIRED and (
        unmet := unmet_requirement(policy.require, session, asked.now)
    ):
        return Refused(f"require.{unmet}", step_up(policy.require, unmet))
    now = asked.now
    expires_at = min(now + policy.lifetime_s, session.expires_at)  # a token never outlives its session
    # The protocol's own claims come last, so that nothing replaces them.
    claims = user_claims(policy, session)
    claims |= {"iss": asked.issuer, "sub": session.user_id, "iat": now, "exp": expires_at, "sid": session.sid}
    if policy.audience is not None:
        claims["aud"] = policy.audience
    return Given(policy, policy.typ_by(MINT), claims, expires_at, expires_at - now)


def _for_a_grant(policy: Policy, asked: Asked, session: Session, client: Client) -> Given | Refused:
    """An access token for what a user lets a client do at this API (RFC 9068 §2.2)."""
    if {AUTHORIZATION_CODE, DEVICE_GRANT}.isdisjoint(client.grant_types):
        return Refused("grant_types")
    if not may_ask(policy, client):
        return Refused("clients")
    if unmet := unmet_requirement(policy.require, session, asked.now):
        return Refused(f"require.{unmet}", step_up(policy.require, unmet))
    scope = _scope(asked, allowed_words(policy, client))
    if scope is None:
        return Refused("scopes")
    return _in_the_users_name(policy, asked, session, client, scope)


def _for_an_exchange(policy: Policy, asked: Asked, session: Session, client: Client) -> Given | Refused:
    """An access token with which a client acts for the user of another token (RFC 8693 §2)."""
    if rule := exchange_refusal(policy, client):
        return Refused(rule)
    actors = (client.client_id, *asked.subject.actors)
    if len(actors) > MOST_ACTORS:
        return Refused("act")
    if unmet := unmet_requirement(policy.require, session, asked.now):
        return Refused(f"require.{unmet}", step_up(policy.require, unmet))
    scope = _scope(asked, exchanged_words(policy, client, asked.subject.held))
    if scope is None or asked.scope == ():
        return Refused("scopes")
    more: dict[str, Any] = {"act": act_of(actors)}
    return _in_the_users_name(policy, asked, session, client, scope, more)


def exchange_refusal(policy: Policy, client: Client) -> str | None:
    """The rule that keeps a client from exchanging any token for one of this audience."""
    if TOKEN_EXCHANGE not in policy.grants:
        return "grants"
    if client.is_public or EXCHANGE_GRANT not in client.grant_types:
        return "grant_types"
    return None if may_ask(policy, client) else "clients"


def exchanged_words(policy: Policy, client: Client, held: tuple[str, ...] | None) -> tuple[str, ...]:
    """The scopes of an audience that a client may get for a token with these; None: the policy's `exchange_scopes`."""
    held = policy.exchange_scopes if held is None else held
    return tuple(word for word in allowed_words(policy, client) if word in held)


def act_of(actors: Iterable[str]) -> dict[str, Any] | None:
    """The `act` claim for these clients, the current one first; None if there are none.

    Spec: RFC 8693 §4.1
    """
    act: dict[str, Any] | None = None
    for client_id in reversed(tuple(actors)):
        act = {"sub": client_id} | ({} if act is None else {"act": act})
    return act


def actors_of(act: Any) -> tuple[str, ...] | None:
    """The clients of an `act` claim, the current one first; None if it does not have the form of `act_of`."""
    actors: list[str] = []
    while act is not None:
        if not isinstance(act, Mapping) or type(act.get("sub")) is not str:
            return None
        actors.append(act["sub"])
        act = act.get("act")
    return tuple(actors)


def _in_the_users_name(
    policy: Policy,
    asked: Asked,
    session: Session,
    client: Client,
    scope: tuple[str, ...],
    more: Mapping[str, Any] | None = None,
) -> Given:
    """The claims of a user's token that a client has (RFC 9068 §2.2)."""
    now, ends = asked.now, [session.expires_at]
    if asked.subject.until is not None:
        ends.append(asked.subject.until)
    expires_at = min(now + policy.lifetime_s, *ends)
    claims = user_claims(policy, session, claims_for(policy, client, asked.granted))
    claims |= {"iss": asked.issuer, "sub": session.user_id, "aud": policy.audience}
    claims |= {"client_id": client.client_id, "iat": now, "exp": expires_at}
    claims |= {"sid": session.sid, "auth_time": session.auth_time}
    if session.acr is not None:
        claims["acr"] = session.acr
    if session.amr:
        claims["amr"] = list(session.amr)
    if scope:
        claims["scope"] = " ".join(scope)
    claims |= more or {}
    return Given(policy, policy.typ_by(asked.way), claims, expires_at, expires_at - now, scope)


def allowed_words(policy: Policy, client: Client) -> tuple[str, ...]:
    """The scopes that both an audience and a client have."""
    return tuple(word for word in policy.scopes if word in client.scope)


def _scope(asked: Asked, allowed: tuple[str, ...]) -> tuple[str, ...] | None:
    """The scopes to grant, of the allowed ones; None if another one is requested."""
    if asked.scope is None:
        return allowed
    wanted = set(asked.scope)
    return tuple(word for word in allowed if word in wanted) if wanted <= set(allowed) else None


def _for_a_client(policy: Policy, asked: Asked, client: Client) -> Given | Refused:
    if client.is_public or CLIENT_CREDENTIALS not in client.grant_types:
        return Refused("grant_types")
    if not may_ask(policy, client):
        return Refused("clients")
    scope = _scope(asked, allowed_words(policy, client))
    if scope is None or asked.scope == ():
        return Refused("scopes")
    now, expires_at = asked.now, asked.now + policy.lifetime_s
    claims: dict[str, Any] = {
        **policy.static,
        "iss": asked.issuer,
        "sub": client.client_id,
        "aud": policy.audience,
        "client_id": client.client_id,
        "iat": now,
        "exp": expires_at,
    }
    if scope:
        claims["scope"] = " ".join(scope)
    return Given(policy, policy.typ_by(CLIENT_CREDENTIALS), claims, expires_at, policy.lifetime_s, scope)


def may_ask(policy: Policy, client: Client) -> bool:
    """Whether a client may request tokens of this audience at all: a stranger only if the operator admits strangers."""
    if client.is_stranger:
        return policy.strangers
    return policy.clients is None or client.client_id in policy.clients


def claims_for(policy: Policy, client: Client, granted: Iterable[str]) -> tuple[str, ...]:
    """The user's claims in a client's token: those of the table; for a stranger, of these what a granted scope gives."""
    if not client.is_stranger:
        return policy.claims
    given = {*client.scopes.claims_of(granted), *SIGN_IN_CLAIMS}
    if "groups" in given:  # the same claim under another name
        given.add("roles")
    return tuple(claim for claim in policy.claims if claim in given)


def user_claims(policy: Policy, session: Session, only: Collection[str] | None = None) -> dict[str, Any]:
    """The user's claims under their names in the token, and the fixed ones. Unknown claims are left out."""
    claims = dict(policy.static)
    for claim, name in policy.named_claims:
        if only is not None and claim not in only:
            continue
        if claim in _OF_THE_SESSION:
            value = getattr(session, claim)
            value = list(value) or None if type(value) is tuple else value
        else:
            value = session.claims.get(claim)
            value = session.attributes.get(claim) if value is None else value
        if value is not None:
            claims[name] = value
    return claims


def unmet_requirement(require: Require, session: Session, now: int) -> str | None:
    """The first member of `require` that a session does not meet, beginning with those that another sign-in would not change."""
    checks = (
        ("tenant_id", not require.tenant_id or session.tenant_id in require.tenant_id),
        ("roles", not require.roles or not set(require.roles).isdisjoint(session.roles)),
        ("email_verified", not require.email_verified or session.claims.get("email_verified") is True),
        ("acr", not require.acr or session.acr in require.acr),
        ("amr", set(require.amr) <= set(session.amr)),
        (
            "max_session_age_s",
            require.max_session_age_s is None or now - session.auth_time <= require.max_session_age_s,
        ),
    )
    return next((name for name, is_met in checks if not is_met), None)


def step_up(require: Require, unmet: str) -> dict[str, Any]:
    """What to ask the user for, so that the next sign-in meets every requirement; empty if none would.

    Spec: RFC 9470 §3. It has no term for methods: the user then signs in again.
    """
    if unmet not in BY_SIGNING_IN:
        return {}
    asked: dict[str, Any] = {}
    if require.acr:
        asked["acr_values"] = list(require.acr)
    if require.max_session_age_s is not None:
        asked["max_age"] = require.max_session_age_s
    if unmet == "amr" and not require.acr:
        asked["max_age"] = 0
    return asked
