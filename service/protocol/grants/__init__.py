"""The grant types: one file for each, and a row in the table here.

To add one: write its file, with its `TYPE`, and name it in `GRANT_TYPES`.

Spec: RFC 6749 §4, §5.2
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.keys.signing import Keys
from service.policies.values import Policies
from service.protocol.errors import OAuthError, Reused
from service.protocol.grants import (
    authorization_code,
    client_credentials,
    device_code,
    refresh_token,
    token_exchange,
)
from service.protocol.grants.base import GrantType, TokenRequest
from service.protocol.grants.issuing import Issuing

GRANT_TYPES: Final = (
    authorization_code.TYPE,
    refresh_token.TYPE,
    device_code.TYPE,
    client_credentials.TYPE,
    token_exchange.TYPE,
)
GIVEN_BY_DEFAULT: Final = tuple(each.name for each in GRANT_TYPES if each.given_by_default)
_BY_NAME: Final = {each.name: each for each in GRANT_TYPES}


def check_can_sign(parameters: Mapping[str, str], keys: Keys) -> None:
    """Refuse a grant type that needs a key for ID tokens if there is none, for every client.

    Raises:
        OAuthError: `unsupported_grant_type`.
    """
    wanted = _BY_NAME.get(parameters.get("grant_type", ""))
    needs_key = wanted is None or wanted.needs_id_token_key
    if needs_key and not keys.current().can_sign_id_tokens:
        raise OAuthError(
            "unsupported_grant_type",
            "This server has no key to sign ID tokens with.",
            cause="no_id_token_key",
        )


def exchange(request: TokenRequest, issuing: Issuing) -> dict[str, Any]:
    """Exchange a code, token or credentials for tokens, with the requested grant type.

    Returns:
        The members of the answer.

    Raises:
        OAuthError: if the grant type or a rule here refuses.
    """
    grant_type = _grant_type(request, issuing.policies)
    _check_key(grant_type, request, issuing.keys)
    try:
        return grant_type.exchange(request, issuing)
    except Reused as error:
        issuing.grants.end(error.grant_id, now=request.now)
        issuing.events.send(error.event)
        raise


def _grant_type(request: TokenRequest, policies: Policies) -> GrantType:
    name = request.required("grant_type")
    if name not in _BY_NAME or not _BY_NAME[name].is_served(policies):
        raise OAuthError(
            "unsupported_grant_type", "This grant type is not supported.", cause="grant_type_unknown"
        )
    if name not in request.client.grant_types:
        raise OAuthError(
            "unauthorized_client", "This client may not use this grant type.", cause="grant_type_not_allowed"
        )
    return _BY_NAME[name]


def _check_key(grant_type: GrantType, request: TokenRequest, keys: Keys) -> None:
    alg = request.client.id_token_signed_response_alg
    # The key of a first client may be created only now.
    if not grant_type.needs_id_token_key or keys.current().can_sign_id_tokens_by(alg):
        return
    if not keys.to_sign(alg).can_sign_id_tokens_by(alg):
        raise OAuthError(
            "unauthorized_client",
            "This server has no key for this client's ID tokens.",
            cause="no_key_for_the_client",
        )
