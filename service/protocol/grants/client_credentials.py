"""`client_credentials`: a token for the client itself, for one audience, without a user, ID token or refresh token.

Nothing is stored. The audience's policy decides the content. The `sub` is the client's id, which no user has
(`service.subjects`).

Spec: RFC 6749 §4.4; RFC 8707 §2.2; RFC 9068 §2, §3
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.policies.deciding import Asked, Refused, decide, may_ask
from service.policies.values import CLIENT_CREDENTIALS, Policies, Policy
from service.protocol.errors import OAuthError
from service.protocol.grants.base import GrantType, TokenRequest
from service.protocol.grants.issuing import Issuing
from service.protocol.tokens import NoKey, sign_token
from service.records.clients import Client
from service.records.scopes import words_of


def exchange(request: TokenRequest, issuing: Issuing) -> dict[str, Any]:
    """Issue a client's own token.

    Raises:
        OAuthError: `invalid_target`, `invalid_scope`, `unauthorized_client`.
    """
    policy = _target(request.parameters, request.client, issuing.policies)
    scope = words_of(request.parameters["scope"]) if "scope" in request.parameters else None
    decided = decide(
        policy, Asked(CLIENT_CREDENTIALS, request.issuer, request.now, client=request.client, scope=scope)
    )
    if isinstance(decided, Refused):
        raise _REFUSALS[decided.rule]()
    issuing.check_revocable()
    try:
        token = sign_token(decided, issuing.keys)
    except NoKey:
        raise _no_target("no_key_for_the_audience") from None
    answer = {"access_token": token.token, "token_type": "Bearer", "expires_in": token.expires_in}
    return answer | ({"scope": " ".join(decided.scope)} if decided.scope else {})


def _target(parameters: Mapping[str, str], client: Client, policies: Policies) -> Policy:
    """The requested audience, or else the only one that the client may have."""
    resources = words_of(parameters.get("resource"))
    if len(resources) > 1:
        raise _no_target("more_than_one_resource")
    if resources:
        policy = policies.of_resource(resources[0])
        if policy is None:
            raise _no_target("resource_unknown")
        return policy
    open_to_it = [
        policy
        for policy in policies.tables.values()
        if CLIENT_CREDENTIALS in policy.grants and may_ask(policy, client)
    ]
    if len(open_to_it) != 1:
        raise _no_target("resource_missing")
    return open_to_it[0]


def _no_target(cause: str) -> OAuthError:
    """The same answer for an unknown resource and one that is not for this client."""
    return OAuthError(
        "invalid_target",
        "The resource is missing or unknown, or this client may not request it.",
        cause=cause,
    )


def _no_scope() -> OAuthError:
    return OAuthError(
        "invalid_scope",
        "The request has a scope that the resource does not have, or that this client may not have.",
        cause="scope_not_permitted",
    )


def _no_client() -> OAuthError:
    return OAuthError(
        "unauthorized_client", "This client may not use this grant type.", cause="grant_type_not_allowed"
    )


_REFUSALS: Final = {
    "grants": lambda: _no_target("resource_not_by_client_credentials"),
    "clients": lambda: _no_target("resource_not_for_this_client"),
    "grant_types": _no_client,
    "scopes": _no_scope,
}

TYPE: Final = GrantType(
    CLIENT_CREDENTIALS,
    given_by_default=False,
    needs_id_token_key=False,
    exchange=exchange,
    is_served=lambda policies: policies.served_by(CLIENT_CREDENTIALS),
)
