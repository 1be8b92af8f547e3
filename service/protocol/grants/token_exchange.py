"""Token exchange: a user's token for one for another audience, with which a client acts for that user.

Nothing is stored. The `jti` of the new token names what the subject token depends on (`service.protocol.standing`), so it
ends together with the session, the grant, or the access token that it was exchanged for.

Spec: RFC 8693 §2; RFC 8707 §2.2; RFC 9068 §2
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.events import TokenExchanged
from service.handles import new_id
from service.policies.deciding import Asked, Given, Refused, decide
from service.policies.values import EXCHANGE_GRANT, TOKEN_EXCHANGE, Policies, Policy
from service.protocol.errors import OAuthError
from service.protocol.grants.base import GrantType, TokenRequest
from service.protocol.grants.issuing import Issuing
from service.protocol.grants.subject_tokens import ACCESS_TOKEN, JWT, SUBJECT_TOKEN_TYPES, SubjectTokens
from service.protocol.tokens import NoKey, sign_token
from service.records.scopes import words_of

#: The types that may be requested; both mean the same token.
_REQUESTED_TOKEN_TYPES: Final = (ACCESS_TOKEN, JWT)


def exchange(request: TokenRequest, issuing: Issuing) -> dict[str, Any]:
    """Exchange a user's token for one for another audience.

    Raises:
        OAuthError: `invalid_request`, `invalid_target`, `invalid_scope`, `unauthorized_client`.
    """
    parameters = request.parameters
    issued_type = _issued_token_type(parameters)
    subject_type = _subject_token_type(request)
    policy = _target(parameters, issuing.policies)
    subject = SubjectTokens(request.client, request.issuer, request.now, issuing).read(
        request.required("subject_token"), subject_type, policy
    )
    scope = words_of(parameters["scope"]) if "scope" in parameters else None
    asked = Asked(
        TOKEN_EXCHANGE, request.issuer, request.now, subject.session, request.client, scope, subject.bounds
    )
    decided = decide(policy, asked)
    if isinstance(decided, Refused):
        raise _refusal(decided.rule)
    status = issuing.statuses.claim(request.issuer, subject.session.status)
    answer = _signed(decided, f"{subject.line}.{new_id()}", issuing, status)
    issuing.events.send(
        TokenExchanged(
            client_id=request.client.client_id,
            subject=subject.session.user_id,
            sid=subject.session.sid,
            audience=policy.audience or "",
        )
    )
    return answer | {"issued_token_type": issued_type}


def _signed(given: Given, jti: str, issuing: Issuing, status: Mapping[str, Any]) -> dict[str, Any]:
    issuing.check_revocable()
    try:
        token = sign_token(given, issuing.keys, jti=jti, status=status)
    except NoKey:
        raise _no_target("no_key_for_the_audience") from None
    answer = {"access_token": token.token, "token_type": "Bearer", "expires_in": token.expires_in}
    return answer | ({"scope": " ".join(given.scope)} if given.scope else {})


def _issued_token_type(parameters: Mapping[str, str]) -> str:
    """The type of the requested token, which is also that of the answer.

    Raises:
        OAuthError: `invalid_request` for any other type, and for an actor.
    """
    if "actor_token" in parameters or "actor_token_type" in parameters:
        raise OAuthError(
            "invalid_request",
            "actor_token is not supported: the client that asks is the actor.",
            cause="actor_token_shown",
        )
    wanted = parameters.get("requested_token_type", ACCESS_TOKEN)
    if wanted not in _REQUESTED_TOKEN_TYPES:
        raise OAuthError(
            "invalid_request",
            "This requested_token_type is not supported.",
            cause="requested_token_type_unsupported",
        )
    return wanted


def _subject_token_type(request: TokenRequest) -> str:
    wanted = request.required("subject_token_type")
    if wanted not in SUBJECT_TOKEN_TYPES:
        raise OAuthError(
            "invalid_request",
            "This subject_token_type is not supported.",
            cause="subject_token_type_unsupported",
        )
    return wanted


def _target(parameters: Mapping[str, str], policies: Policies) -> Policy:
    """The requested audience: `resource` and `audience` both name it, and there must be exactly one."""
    named = (*words_of(parameters.get("resource")), *words_of(parameters.get("audience")))
    if len(named) != 1:
        raise _no_target("more_than_one_resource" if named else "resource_missing")
    policy = policies.of_resource(named[0])
    if policy is None:
        raise _no_target("resource_unknown")
    return policy


def _no_target(cause: str) -> OAuthError:
    words = (
        "The resource is missing or unknown, or this client may not exchange tokens for it: name exactly one."
    )
    return OAuthError("invalid_target", words, cause=cause)


def _refusal(rule: str) -> OAuthError:
    if rule == "scopes":
        return OAuthError(
            "invalid_scope",
            "The request has a scope that the resource, this client or the subject token does not have.",
            cause="scope_not_permitted",
        )
    if rule == "act":
        return OAuthError(
            "invalid_request", "The subject token already has too many actors.", cause="too_many_actors"
        )
    if rule == "grant_types":
        return OAuthError(
            "unauthorized_client", "This client may not use this grant type.", cause="grant_type_not_allowed"
        )
    if rule.startswith("require."):
        words = f"The policy of this resource refuses the token: {rule}."
        return OAuthError("invalid_target", words, cause=rule.replace(".", "_"))
    causes = {"grants": "resource_not_by_token_exchange", "clients": "resource_not_for_this_client"}
    return _no_target(causes[rule])


TYPE: Final = GrantType(
    EXCHANGE_GRANT,
    given_by_default=False,
    needs_id_token_key=False,
    exchange=exchange,
    is_served=lambda policies: policies.served_by(TOKEN_EXCHANGE),
)
