"""Builds the discovery document from the mounted endpoints and the loaded keys, and those of APIs from their policies.

Spec: OpenID Connect Discovery 1.0 §3, RFC 8414 §2, RFC 9728 §2, §4
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from service.keys.others import OTHERS_ALGS
from service.policies.values import NO_POLICIES, Policies, Policy
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
    "device_authorization_endpoint": "/oidc/device_authorization",
}

#: Where an API publishes its metadata.
RESOURCE_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
#: Where clients register themselves.
REGISTRATION: Final = "/oidc/register"

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
    registration_is_open: bool = False,
    documents: bool = False,
) -> dict[str, Any]:
    """The metadata of the provider.

    Args:
        issuer: the issuer, exactly as in tokens.
        algs: the algorithms that tokens are signed with.
        scopes: the available scopes.
        policies: which grants issue tokens for audiences.
        registration_is_open: whether everybody may register a client.
        documents: whether the URL of a document may be a client id.
    """
    return {
        "issuer": issuer,
        **{member: issuer + path for member, path in ENDPOINTS.items()},
        **({"registration_endpoint": issuer + REGISTRATION} if registration_is_open else {}),
        **_open_to_strangers(scopes, policies, documents),
        "response_types_supported": ["code"],
        "response_modes_supported": list(RESPONSE_MODES),
        "grant_types_supported": [each.name for each in GRANT_TYPES if each.is_served(policies)],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": list(algs),
        **_authentication(),
        "code_challenge_methods_supported": ["S256"],
        "prompt_values_supported": list(PROMPTS),
        "display_values_supported": ["page", "popup"],
        "claim_types_supported": ["normal"],
        "claims_supported": list(dict.fromkeys([*_OWN_CLAIMS, *scopes.claims_of(scopes.words)])),
        "claims_parameter_supported": True,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,  # if it were missing, it would mean true (Discovery §3)
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
        "authorization_response_iss_parameter_supported": True,
    }


def _authentication() -> dict[str, Any]:
    """How clients authenticate at each endpoint: those without a secret do not introspect."""
    return {
        "token_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "token_endpoint_auth_signing_alg_values_supported": list(OTHERS_ALGS),
        "introspection_endpoint_auth_methods_supported": [*SECRET_METHODS, KEY_METHOD],
        "introspection_endpoint_auth_signing_alg_values_supported": list(OTHERS_ALGS),
        "revocation_endpoint_auth_methods_supported": list(AUTH_METHODS),
        "revocation_endpoint_auth_signing_alg_values_supported": list(OTHERS_ALGS),
    }


def _open_to_strangers(scopes: Scopes, policies: Policies, documents: bool) -> dict[str, Any]:
    """The scopes, and what is for everybody: APIs that are not open to strangers are for their clients to know.

    Spec: RFC 8414 §2 (scopes_supported), RFC 9728 §4 (protected_resources);
    draft-ietf-oauth-client-id-metadata-document-02 §6
    """
    apis = policies.open_to_strangers
    words = dict.fromkeys([*scopes.words, *(word for policy in apis for word in policy.scopes)])
    resources = [policy.audience for policy in apis]
    opened: dict[str, Any] = {"scopes_supported": list(words)}
    if resources:
        opened["protected_resources"] = resources
    if documents:
        opened["client_id_metadata_document_supported"] = True
    return opened


def build_resource_metadata(issuer: str, policy: Policy) -> dict[str, Any]:
    """The metadata of an API, which it publishes itself, so that a client finds us.

    Args:
        issuer: ours, exactly as in tokens.
        policy: of its audience, which is a URL.

    Spec: RFC 9728 §2; a member without a value is left out (§3.2)
    """
    scopes = {"scopes_supported": list(policy.scopes)} if policy.scopes else {}
    return {
        "resource": policy.audience,
        "authorization_servers": [issuer],
        **scopes,
        "bearer_methods_supported": ["header"],
    }


def resource_metadata_address(resource: str) -> str | None:
    """Where an API publishes its metadata: the well-known part comes before its path. None if it has no address.

    Spec: RFC 9728 §3.1
    """
    parts = urlsplit(resource)
    if parts.scheme not in ("https", "http") or not parts.netloc:
        return None
    path = "" if parts.path == "/" else parts.path
    return urlunsplit(parts._replace(path=RESOURCE_WELL_KNOWN + path))
