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
    "exp": "lifetime_s, at the end of the session at the latest",
    "jti": "random",
    "sid": "the session",
    "client_id": "the client",
    "act": "the client, which acts for the user",
    "scope": "asked, of scopes and of the client's scope",
}
_OF_A_CLIENT: Final = {"sub": "the client's id", "exp": "lifetime_s"}
_EXCHANGED: Final = {
    "exp": "lifetime_s, at the end of the session and of the token that is exchanged at the latest",
    "scope": "asked, of scopes, the client's scope and what the token holds that is exchanged",
}
_KINDS: Final = {
    "roles": "roles of the user",
    "tenant_id": "tenant_id of the user",
    "acr": "acr of the sign-in",
    "amr": "amr of the sign-in",
    "auth_time": "auth_time of the sign-in",
}


def source_of(given: Given, name: str) -> str:
    """Where a claim of a token comes from, in words."""
    of_user = {new: claim for claim, new in given.policy.named_claims}
    if name in of_user and (name not in _OF_THE_PROTOCOL):
        return _from_the_user(given.policy, of_user[name])
    if name in _OF_THE_PROTOCOL:
        return {**_OF_THE_PROTOCOL, **_by_its_way(given)}[name]
    return "static"


def _by_its_way(given: Given) -> Mapping[str, str]:
    if "act" in given.claims:
        return _EXCHANGED
    return _OF_A_CLIENT if "client_id" in given.claims and "sid" not in given.claims else {}


def _from_the_user(policy: Policy, claim: str) -> str:
    kind = _KINDS.get(claim, f"claims.{claim}" if claim in STANDARD_CLAIMS else f"attributes.{claim}")
    return f"{kind}, by rename" if claim in policy.rename else kind


def explained(audience: str, way: str, decided: Given | Refused, *, made_up: bool = False) -> dict[str, Any]:
    """What was decided, for people and programs: header, claims and where each comes from; or the rule that refuses.

    Args:
        audience: whose token was asked for.
        way: by which way.
        decided: what came of it.
        made_up: the session is none of the store: its `sid` says nothing.
    """
    asked = {"audience": audience, "grant": way}
    if isinstance(decided, Refused):
        return {**asked, "refused": decided.rule, **({"step_up": decided.step_up} if decided.step_up else {})}
    move = decided.policy.migrate
    random = ["jti", *(["sid"] if made_up and "sid" in decided.claims else [])]
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
    """The claims of an explained token, a row each; what is random has no value."""
    claims = answer["claims"]
    return [
        {"claim": name, "value": claims.get(name), "from": source}
        for name, source in answer["sources"].items()
    ]
