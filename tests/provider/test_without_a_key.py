"""Without an asymmetric key there are no ID tokens, and the provider says so."""

from __future__ import annotations

import pytest

from tests.provider.browser import FORM
from tests.provider.conftest import ServeProvider
from tests.provider.driver import Provider


@pytest.fixture
def keyless(serve_provider: ServeProvider) -> Provider:
    """A provider with only HS256, and a client in the database."""
    op = serve_provider([], PYLON_OIDC_PRIVATE_KEY=None)
    op.app.call(
        "POST",
        "/api/oidc/clients",
        {"client_id": "c-db", "redirect_uris": ["https://rp.example.org/callback"]},
    )
    return op


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_authorize_is_a_page(keyless: Provider, method: str) -> None:
    """docs/errors.md: 501, a page, no redirect."""
    request, browser = keyless.rp("c-db").request(), keyless.browser()
    url = f"{keyless.issuer}/oidc/authorize"
    landing = browser.go(request.url) if method == "GET" else browser.go(url, form=request.parameters)
    assert landing.is_page(501) and "PYLON_OIDC_KEYS" in landing.text  # what an operator can set


@pytest.mark.parametrize("grant_type", ["authorization_code", "refresh_token", "nonsense"])
def test_no_grant_type_is_supported(keyless: Provider, grant_type: str) -> None:
    """400 `unsupported_grant_type`, in the shape of RFC 6749 §5.2."""
    answer = keyless.ask(
        "POST", "/oidc/token", body=f"grant_type={grant_type}&code=x".encode(), content_type=FORM
    )
    assert (answer.status, answer.headers["Content-Type"]) == (400, "application/json")
    assert answer.json()["error"] == "unsupported_grant_type"


def test_the_jwks_is_empty(keyless: Provider) -> None:
    """docs/errors.md: `{"keys": []}` when only HS256 is configured."""
    assert keyless.ask("GET", "/oidc/jwks").json() == {"keys": []}
