"""Section 1 of the behaviours: discovery, as the certification reads it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.provider.conftest import ServeProvider
from tests.provider.driver import ISSUER, Provider
from tests.support.cases import each_of

STRING_LISTS = (
    "scopes_supported", "response_types_supported", "response_modes_supported", "grant_types_supported",
    "subject_types_supported", "id_token_signing_alg_values_supported", "token_endpoint_auth_methods_supported",
    "introspection_endpoint_auth_methods_supported", "revocation_endpoint_auth_methods_supported",
    "token_endpoint_auth_signing_alg_values_supported", "introspection_endpoint_auth_signing_alg_values_supported",
    "revocation_endpoint_auth_signing_alg_values_supported",
    "code_challenge_methods_supported", "prompt_values_supported", "display_values_supported", "claim_types_supported",
    "claims_supported",
)  # fmt: skip
ENDPOINTS = {
    "authorization_endpoint": "/oidc/authorize",
    "token_endpoint": "/oidc/token",
    "userinfo_endpoint": "/oidc/userinfo",
    "introspection_endpoint": "/oidc/introspect",
    "revocation_endpoint": "/oidc/revoke",
    "end_session_endpoint": "/oidc/logout",
    "jwks_uri": "/oidc/jwks",
    "device_authorization_endpoint": "/oidc/device_authorization",
}
BOOLEANS = {
    "claims_parameter_supported": True,
    "request_parameter_supported": False,
    "request_uri_parameter_supported": False,
    "backchannel_logout_supported": True,
    "backchannel_logout_session_supported": True,
    "authorization_response_iss_parameter_supported": True,
}


@pytest.fixture
def document(op: Provider) -> dict[str, Any]:
    """The discovery document."""
    answer = op.ask("GET", "/.well-known/openid-configuration")
    value: dict[str, Any] = answer.json()
    return value


def test_it_is_json(op: Provider) -> None:
    """docs/conformance.md 1.1: 200 with `application/json` (Discovery §4.2)."""
    answer = op.ask("GET", "/.well-known/openid-configuration")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")


def test_the_issuer_is_the_address_without_the_well_known_part(document: dict[str, Any]) -> None:
    """docs/conformance.md 1.2, 1.3: https, a host, no query, fragment or user info (Discovery §4.3)."""
    assert document["issuer"] == ISSUER
    parts = urlsplit(document["issuer"])
    assert (parts.scheme, parts.query, parts.fragment, parts.username) == ("https", "", "", None)


def test_every_member_has_its_type_and_none_is_unknown(document: dict[str, Any]) -> None:
    """docs/conformance.md 1.4, 6.1: lists of strings, booleans, URLs; no null, no member that no registry knows (Discovery §3, RFC 8414 §2)."""
    assert set(document) == {"issuer", *STRING_LISTS, *ENDPOINTS, *BOOLEANS}
    for name in STRING_LISTS:
        assert document[name] and all(type(value) is str for value in document[name]), name
        assert len(set(document[name])) == len(document[name]), name


def test_response_and_subject_types(document: dict[str, Any]) -> None:
    """docs/conformance.md 1.5, 1.6: `code`; `public` (Discovery §3)."""
    assert document["response_types_supported"] == ["code"]
    assert document["subject_types_supported"] == ["public"]
    assert document["response_modes_supported"] == ["query", "form_post"]


def test_rs256_is_listed(document: dict[str, Any]) -> None:
    """docs/conformance.md 1.7, 1.8: RS256 is in the ID token algorithms; userinfo is not signed (Discovery §3)."""
    assert document["id_token_signing_alg_values_supported"] == ["RS256"]
    assert "userinfo_signing_alg_values_supported" not in document


def test_every_endpoint_is_an_https_address_that_answers(op: Provider, document: dict[str, Any]) -> None:
    """docs/conformance.md 1.9, 1.10, 5.1: endpoints are https URLs under the issuer, and mounted (Discovery §3)."""
    for name, path in ENDPOINTS.items():
        assert document[name] == ISSUER + path
        assert op.ask("GET", path).status not in {404, 500, 501}


def test_request_objects_are_said_to_be_unsupported(document: dict[str, Any]) -> None:
    """docs/conformance.md 1.11, 2.32, 2.33: published false, as absent means true for `request_uri` (Discovery §3)."""
    assert {name: document[name] for name in BOOLEANS} == BOOLEANS
    assert "request_object_signing_alg_values_supported" not in document


def test_claims_and_scopes_are_listed(document: dict[str, Any]) -> None:
    """docs/conformance.md 1.12: claims_supported; scopes_supported with `openid`, each a scope token (Discovery §3, RFC 6749 §3.3)."""
    scopes = "openid profile email address phone offline_access roles groups"
    assert document["scopes_supported"] == scopes.split()
    assert all(re.fullmatch(r"[\x21\x23-\x5b\x5d-\x7e]+", scope) for scope in document["scopes_supported"])
    assert {"sub", "iss", "auth_time", "name", "email", "address", "phone_number", "roles"} <= set(
        document["claims_supported"]
    )


def test_grant_types_are_listed(document: dict[str, Any]) -> None:
    """docs/conformance.md 1.13: authorization_code, refresh_token and device_code (Discovery §3, RFC 7591 §2)."""
    devices = "urn:ietf:params:oauth:grant-type:device_code"
    assert document["grant_types_supported"] == ["authorization_code", "refresh_token", devices]


def test_locales_are_not_claimed(document: dict[str, Any]) -> None:
    """docs/conformance.md 1.14: no member lists languages, so none is malformed (Discovery §3)."""
    assert not {"ui_locales_supported", "claims_locales_supported"} & set(document)


def test_s256_alone_is_listed(document: dict[str, Any]) -> None:
    """docs/conformance.md 1.15: code_challenge_methods_supported is `["S256"]` (RFC 8414 §2)."""
    assert document["code_challenge_methods_supported"] == ["S256"]


def test_client_authentication_methods_are_listed(document: dict[str, Any]) -> None:
    """Basic, post and none at the token endpoint; a public client may not introspect (RFC 8414 §2)."""
    secret_methods = ["client_secret_basic", "client_secret_post", "private_key_jwt"]
    algs = ["RS256", "PS256", "ES256", "Ed25519", "EdDSA"]
    for endpoint in ("token", "introspection", "revocation"):
        assert document[f"{endpoint}_endpoint_auth_signing_alg_values_supported"] == algs
    assert document["token_endpoint_auth_methods_supported"] == [*secret_methods, "none"]
    assert document["revocation_endpoint_auth_methods_supported"] == [*secret_methods, "none"]
    assert document["introspection_endpoint_auth_methods_supported"] == secret_methods


@each_of("value", ["page", "popup", "touch", "nonsense"])
def test_display_values_are_accepted(op: Provider, value: str) -> None:
    """docs/conformance.md 2.16: display=page and display=popup are accepted; any other does no harm (Core §3.1.2.1)."""
    assert "code" in op.authorize(op.browser(), op.rp().request(display=value))


def test_of_apis_those_for_strangers_are_listed(serve_provider: ServeProvider, tmp_path: Path) -> None:
    """RFC 9728 §4, docs/endpoints.md: audiences with `strangers` and their scopes; nothing of any other."""
    tables = {
        "https://open.example.com/mcp": """grants = ["authorization_code"]
            strangers = true
            scopes = ["tools:call", "profile:read"]""",
        "https://closed.example.com": """grants = ["authorization_code"]
            scopes = ["secret:read"]""",
        "https://minted.example.com": """strangers = true
            scopes = ["minted:read"]""",
        "also-minted": """grants = ["mint"]
            strangers = true""",
    }
    file = tmp_path / "policies.toml"
    file.write_text("\n".join(f'[audience."{name}"]\n{table}' for name, table in tables.items()))
    op = serve_provider([], PYLON_POLICIES=str(file), PYLON_JWT_ALG="RS256")
    for path in ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"):
        answer = op.ask("GET", path)
        document = answer.json()
        assert document["protected_resources"] == ["https://open.example.com/mcp"]
        assert document["scopes_supported"][-3:] == ["groups", "tools:call", "profile:read"]
        assert "secret:read" not in answer.body.decode() and "minted:read" not in answer.body.decode()
