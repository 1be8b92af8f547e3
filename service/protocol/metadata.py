"""Builds the discovery document from the mounted endpoints and the loaded keys.

Spec: OpenID Connect Discovery 1.0 §3, RFC 8414 §2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from service.keys.others import OTHERS_ALGS
from service.policies.values import NO_POLICIES, Policies
from service.protocol.authorize import PROMPTS, RESPONSE_MODES
from service.protocol.clients import AUTH_METHODS
from service.protocol.grants import GRANT_TYPES
from service.records.clients import KEY_METHOD, SECRET_METHODS
from service.records.scopes import STANDARD_SCOPES, Scopes

#: Metadata member -> path under the issuer. The route table of `app` mounts exactly these.
ENDPOINTS: Final = {
    "authorization_endpoint": "/oidc/authorize",
    "token_endpoint": "/oidc/token",
    "jwks_uri": "/oidc/jwks",
    "userinfo_endpoint": "/oidc/userinfo",
    "introspection_endpoint": "/oidc/introspect",
    "revocation_endpoint": "/oidc/revoke",
    "end_session_endpoint": "/oidc/logout",
}

#: The claims in discovery.
_OWN_CLAIMS: Final = (
    "iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "at_hash", "sid", "jti",
)  # fmt: skip


def build_metadata(
    issuer: str,
    *,
    algs: Sequence[str],
    scopes: Scopes = STANDARD_SCOPES,
    policies: Policies = NO_POLICIES,
) -> dict[str, Any]:
    """The metadata of the provider.

    Args:
        issuer: the issuer, exactly as in tokens.
        algs: the algorithms that tokens are signed with.
        scopes: the available scopes.
        policies: which grants issue tokens for audiences.
    """
    return {
        "issuer": issuer,
        **{member: issuer + path for member, path in ENDPOINTS.items()},
        "scopes_supported": list(scopes.words),
        "response_types_supported": ["code"],
        "response_modes_supported": list(RESPONSE_MODES),
        "grant_types_supported": [each.name for each in GRANT_TYPES if each.is_served(policies)],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": list(algs),
        "token_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "token_endpoint_auth_signing_alg_values_supported": list(OTHERS_ALGS),
        "introspection_endpoint_auth_methods_supported": [*SECRET_METHODS, KEY_METHOD],
        "introspection_endpoint_auth_signing_alg_values_supported": list(OTHERS_ALGS),
        "revocation_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "revocation_endpoint_auth_signing_alg_values_supported": list(OTHERS_ALGS),
        "code_challenge_methods_supported": ["S256"],
        "prompt_values_supported": list(PROMPTS),
        "display_values_supported": ["page", "popup"],
        "claim_types_supported": ["normal"],
        "claims_supported": list(dict.fromkeys([*_OWN_CLAIMS, *scopes.claims_of(scopes.words)])),
        "claims_parameter_supported": True,
        "request_parameter_supported": False,
        # If it were missing, it would mean true (Discovery §3).
        "request_uri_parameter_supported": False,
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
        "authorization_response_iss_parameter_supported": True,
    }
