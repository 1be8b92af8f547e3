"""What a token for an audience holds, or which rule refuses it: one function, which the endpoints and the commands call.

Pure: time and issuer are arguments, what is random (`jti`) is added by the one who signs.

Spec: RFC 7519 §4.1; RFC 8693 §4.1 (`act`); RFC 9068 §2.2; RFC 9470 §3 (what to ask the user for)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct, field

from service.policies.values import (
    AUTHORIZATION_CODE,
    CLIENT_CREDENTIALS,
    DEVICE_GRANT,
    EXCHANGE_GRANT,
    MINT,
    NOTHING_REQUIRED,
    TOKEN_EXCHANGE,
    Policy,
    Require,
)
from service.records.clients import Client
from service.records.sessions import Session

_OF_THE_SESSION: Final = frozenset({"roles", "tenant_id", "acr", "amr", "auth_time"})
#: The rules that another sign-in can meet.
BY_SIGNING_IN: Final = frozenset({"acr", "amr", "max_session_age_s"})
#: How many clients may act one for another.
MOST_ACTORS: Final = 4


class Subject(Struct, frozen=True):
    """The token that is exchanged, as far as it bounds what is given for it.

    Attributes:
        held: the words that it holds for the audience; None: the policy's `exchange_scopes`.
        until: the new token ends then at the latest, Unix s; None: with the session.
        actors: which clients act in it already, the latest first.
    """

    held: tuple[str, ...] | None = None
    until: int | None = None
    actors: tuple[str, ...] = ()


#: One that was minted just now.
MINTED_NOW: Final = Subject()


class Asked(Struct, frozen=True):
    """What is asked for.

    Attributes:
        way: by which way, one of `service.policies.values.WAYS`.
        issuer: the `iss`, byte for byte.
        now: Unix s.
        session: who is signed in, for the ways that have a user; of a grant, whose it is, how they signed in, and its end.
        client: who asks, for the ways that have a client.
        scope: which words; None: nothing is said.
        subject: for `token_exchange`, what is exchanged.
    """

    way: str
    issuer: str
    now: int
    session: Session | None = None
    client: Client | None = None
    scope: tuple[str, ...] | None = None
    subject: Subject = MINTED_NOW


class Given(Struct, frozen=True):
    """A token that may be issued: its content, except its `jti`.

    Attributes:
        policy: the policy of its audience, with its algorithm.
        typ: of its header.
        claims: its payload.
        expires_at, expires_in: Unix s, and s from now.
        scope: the words that it holds.
    """

    policy: Policy
    typ: str
    claims: dict[str, Any]
    expires_at: int
    expires_in: int
    scope: tuple[str, ...] = ()

    @property
    def alg(self) -> str:
        """The signature algorithm. One caller always gets the same, also while an audience moves to another."""
        policy = self.policy
        if policy.migrate is None:
            return policy.alg
        return policy.alg_for(str(self.claims.get("sid") or self.claims["client_id"]))


class Refused(Struct, frozen=True):
    """A token that is not given.

    Attributes:
        rule: which rule refuses: `grants` (not by this way), `grant_types` (not a client of this way), `clients` (not
            this client), `scopes` (a word that it may not have), or `require.…`.
        step_up: what to ask the user for, where another sign-in would do (RFC 9470's words).
    """

    rule: str
    step_up: Mapping[str, Any] = field(default_factory=dict)


def decide(policy: Policy, asked: Asked) -> Given | Refused:
    """Decide what is given for an audience.

    Args:
        policy: of the audience.
        asked: by whom, by which way, and when.
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
    # The protocol's own come last: so that nothing replaces them.
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
    """The rule by which a client may not exchange tokens for ones of this audience at all."""
    if TOKEN_EXCHANGE not in policy.grants:
        return "grants"
    if client.is_public or EXCHANGE_GRANT not in client.grant_types:
        return "grant_types"
    return None if may_ask(policy, client) else "clients"


def exchanged_words(policy: Policy, client: Client, held: tuple[str, ...] | None) -> tuple[str, ...]:
    """The words of an audience that a client may have for a token that holds these; None: the policy's `exchange_scopes`."""
    held = policy.exchange_scopes if held is None else held
    return tuple(word for word in allowed_words(policy, client) if word in held)


def act_of(actors: Iterable[str]) -> dict[str, Any] | None:
    """The `act` claim for these clients, the one that acts now first; None for none.

    Spec: RFC 8693 §4.1
    """
    act: dict[str, Any] | None = None
    for client_id in reversed(tuple(actors)):
        act = {"sub": client_id} | ({} if act is None else {"act": act})
    return act


def actors_of(act: Any) -> tuple[str, ...] | None:
    """The clients of an `act` claim, the one that acts now first; None where it is not of the form of `act_of`."""
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
    """What a token of a user holds that a client has (RFC 9068 §2.2)."""
    now, ends = asked.now, [session.expires_at]
    if asked.subject.until is not None:
        ends.append(asked.subject.until)
    expires_at = min(now + policy.lifetime_s, *ends)
    claims = user_claims(policy, session)
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
    """The words that both an audience and a client have."""
    return tuple(word for word in policy.scopes if word in client.scope)


def _scope(asked: Asked, allowed: tuple[str, ...]) -> tuple[str, ...] | None:
    """The words that are given, of those that are allowed; None where another is asked for."""
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
    """Whether a client may ask for tokens of this audience at all: a stranger only where the operator lets strangers in."""
    if client.is_stranger:
        return policy.strangers
    return policy.clients is None or client.client_id in policy.clients


def user_claims(policy: Policy, session: Session) -> dict[str, Any]:
    """The claims of the user that go in, under their names there, and the fixed ones; what is not known is not there."""
    claims = dict(policy.static)
    for claim, name in policy.named_claims:
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
    """The first member of `require` that a session does not meet; first what no other sign-in of this user changes."""
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
    """What to ask the user for, so that the next sign-in meets all of it; nothing where no sign-in would.

    Spec: RFC 9470 §3. It has no word for methods: there the user signs in again.
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
