"""Fixtures of the provider's tests: a provider with a few clients, one for each way of being registered."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pytest

from tests.http.conftest import Serve, log, serve  # noqa: F401 - fixtures
from tests.provider.driver import CALLBACK, ISSUER, LOGIN_URL, OTHER_CALLBACK, SECRET, SIGNED_OUT, Provider
from tests.support.gunicorn import rsa_pem

ServeProvider = Callable[..., Provider]

_FIRST: Final[dict[str, Any]] = {"client_secret": SECRET, "first_party": True, "redirect_uris": [CALLBACK]}

#: One client for each way of being registered.
CLIENTS: Final[Sequence[dict[str, Any]]] = (
    _FIRST | {"client_id": "c-basic", "client_name": "Basic", "post_logout_redirect_uris": [SIGNED_OUT]},
    _FIRST | {"client_id": "c-post", "token_endpoint_auth_method": "client_secret_post"},
    _FIRST | {"client_id": "c-only-basic", "token_endpoint_auth_method": "client_secret_basic"},
    _FIRST | {"client_id": "c-loose", "require_pkce": False},
    _FIRST | {"client_id": "c-resource", "resource_ids": ["api"]},
    {"client_id": "c-public", "first_party": True, "redirect_uris": [CALLBACK, "http://127.0.0.1/cb"]},
    {
        "client_id": "c-third", "client_secret": SECRET, "redirect_uris": [OTHER_CALLBACK, f"{CALLBACK}?kept=1"],
        "client_name": "<b>Third & Co</b>", "logo_uri": "https://logo.example.net:8443/a.png",
        "policy_uri": "https://third.example.org/privacy", "tos_uri": "https://third.example.org/terms",
        "post_logout_redirect_uris": ["https://other.example.org/out"],
    },
    _FIRST | {"client_id": "c-narrow", "scope": "openid email"},
    _FIRST | {"client_id": "c-no-refresh", "grant_types": ["authorization_code"]},
    _FIRST | {"client_id": "c-no-code", "grant_types": ["refresh_token"]},
)  # fmt: skip

#: Set by `test_lenient_clients`: everything holds with this, too.
LENIENT: Final = "PYLON_TESTS_LENIENT_CLIENTS"


def lenient(client: Mapping[str, Any]) -> dict[str, Any]:
    """A confidential client of the app's own, registered to need no PKCE and to be given what it asks for."""
    if not client.get("client_secret") or not client.get("first_party"):
        return dict(client)
    return {"id_token_claims": "requested", "require_pkce": False} | client


@pytest.fixture
def serve_provider(serve: Serve) -> ServeProvider:  # noqa: F811 - the fixture, not the import
    """Make a provider: `serve_provider(PYLON_OIDC_CODE_LIFETIME_SECS="5")`; None unsets what is there by default."""

    def make(clients: Sequence[Mapping[str, Any]] = CLIENTS, **environ: Any) -> Provider:
        if os.environ.get(LENIENT):
            clients = list(map(lenient, clients))
        given: dict[str, Any] = {
            "PYLON_OIDC_ISSUER": ISSUER,
            "PYLON_OIDC_PRIVATE_KEY": rsa_pem(),
            "PYLON_LOGIN_URL": LOGIN_URL,
            "PYLON_OIDC_CLIENTS": json.dumps(clients) if clients else None,
        } | environ
        return Provider(serve(**given), clients)

    return make


@pytest.fixture
def op(serve_provider: ServeProvider) -> Provider:
    """A provider with the clients above."""
    return serve_provider()
