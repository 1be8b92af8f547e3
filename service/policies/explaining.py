"""Where each claim of a token comes from, in words, for `pylon-oidc policy explain`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.policies.deciding import Given, Refused
from service.policies.values import Policy
from service.records.claims import STANDARD_CLAIMS

_OF_THE_PROTOCOL: Final = {
    "iss": "the issuer",
    "sub": "the user's id",
    "aud": "the audience",
    "iat": "now",
    "exp": "lifetime_s, within the session",
    "jti": "random",
    "sid": "the session",
    "client_id": "the client",
    "act": "the client, which acts for the user",
    "scope": "asked, of scopes and of the client's scope",
    "status": "its place in a status list",
}
#: Other descriptions for some grants: a client for itself, for its user, and for another token.
_OF_A_CLIENT: Final = {"sub": "the client's id", "exp": "lifetime_s"}
_OF_A_GRANT: Final = {"exp": "lifetime_s"}
_EXCHANGED: Final = {
    "exp": "lifetime_s, within the session and the exchanged token",
    "scope": "asked, of scopes, the client's scope and the exchanged token",
}
_KINDS: Final = {
    "roles": "roles of the user",
    "tenant_id": "tenant_id of the user",
    "acr": "acr of the sign-in",
    "amr": "amr of the sign-in",
    "auth_time": "auth_time of the sign-in",
}
#: Always in a token that a user lets a client have, whatever the table says.
_OF_THE_SIGN_IN: Final = frozenset({"acr", "amr", "auth_time"})
#: The reason for each rule that refuses, in words.
_WHY: Final = {
    "audience": "no table of the policies has this name",
    "grants": "the grants of its table do not have {way}",
    "grant_types": "the client is not registered for {way}",
    "clients": "the clients of its table do not have this client",
    "scopes": "a scope is asked for that its table, or the client, does not have",
    "act": "there are too many clients in a row that act for the user",
    "require.tenant_id": "the user belongs to none of these tenants",
    "require.roles": "the user has none of these roles",
    "require.email_verified": "the user's email address is not verified",
    "require.acr": "the acr of the sign-in is not one of these",
    "require.amr": "the amr of the sign-in does not have all of these",
    "require.max_session_age_s": "the user signed in longer ago",
}


def why(refused: Refused, way: str) -> str:
    """Why a rule refuses, in words."""
    return _WHY.get(refused.rule, "its policy says so").format(way=way)


def source_of(given: Given, name: str) -> str:
    """Where a claim of a token comes from, in words."""
    of_user = {new: claim for claim, new in given.policy.named_claims}
    if name in of_user and (name not in _OF_THE_PROTOCOL):
        return _from_the_user(given.policy, of_user[name])
    if name in _OF_THE_PROTOCOL:
        return {**_OF_THE_PROTOCOL, **_by_its_way(given)}[name]
    if name in _OF_THE_SIGN_IN and "client_id" in given.claims:
        return _KINDS[name]
    return "static"


def _by_its_way(given: Given) -> Mapping[str, str]:
    if "act" in given.claims:
        return _EXCHANGED
    if "client_id" not in given.claims:
        return {}
    return _OF_A_GRANT if "sid" in given.claims else _OF_A_CLIENT


def _from_the_user(policy: Policy, claim: str) -> str:
    kind = _KINDS.get(claim, f"claims.{claim}" if claim in STANDARD_CLAIMS else f"attributes.{claim}")
    return f"{kind}, by rename" if claim in policy.rename else kind


def explained(
    audience: str, way: str, decided: Given | Refused, *, made_up: bool = False, has_place: bool = False
) -> dict[str, Any]:
    """The decision, for people and programs: header and claims with their sources, or the rule that refuses.

    Args:
        audience: the audience of the token.
        way: the grant.
        decided: the decision.
        made_up: whether the session is not stored, so that its `sid` has no meaning.
        has_place: whether the token names its place in a status list.
    """
    asked = {"audience": audience, "grant": way}
    if isinstance(decided, Refused):
        return {**asked, "refused": decided.rule, **({"step_up": decided.step_up} if decided.step_up else {})}
    move = decided.policy.migrate
    random = ["jti", *(["sid"] if made_up and "sid" in decided.claims else []), *(["status"] * has_place)]
    own = [name for name in _OF_THE_PROTOCOL if name in decided.claims or name in random]
    order = [*own, *(name for name in decided.claims if name not in own)]
    claims = {name: decided.claims[name] for name in order if name not in random}
    return {
        **asked,
        "header": {"alg": decided.alg, "typ": decided.typ},
        **({} if move is None else {"migrate": {"to": move.to, "percent": move.percent}}),
        "expires_in": decided.expires_in,
        "claims": claims,
        "random": random,
        "sources": {name: source_of(decided, name) for name in order},
    }


def rows_of(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The claims of an explained token, one row each; random ones have no value."""
    claims = answer["claims"]
    return [
        {"claim": name, "value": claims.get(name), "from": source}
        for name, source in answer["sources"].items()
    ]
