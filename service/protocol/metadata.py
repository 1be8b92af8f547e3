"""The discovery document, built from what is mounted and which keys are loaded.

Spec: OpenID Connect Discovery 1.0 §3, RFC 8414 §2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

#: Metadata member -> path under the issuer. The route table of `app` mounts exactly these.
ENDPOINTS: Final = {
    "authorization_endpoint": "/oidc/authorize",
    "token_endpoint": "/oidc/token",
    "jwks_uri": "/oidc/jwks",
}

#: What minted tokens carry.
MINTED_CLAIMS: Final = ("iss", "sub", "aud", "exp", "iat", "jti", "sid", "tenant_id", "roles")


def build_metadata(issuer: str, *, algs: Sequence[str]) -> dict[str, Any]:
    """The metadata of the provider.

    Args:
        issuer: the issuer, byte for byte as tokens carry it.
        algs: the algorithms that verifiers will meet.
    """
    return {
        "issuer": issuer,
        **{member: issuer + path for member, path in ENDPOINTS.items()},
        "scopes_supported": ["openid"],
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": list(algs),
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "claims_supported": list(MINTED_CLAIMS),
        # Absent would mean true (Discovery §3).
        "request_uri_parameter_supported": False,
    }
