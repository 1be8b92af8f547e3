"""docs/errors.md: without an asymmetric key nobody can be signed in to other services, and the provider says so."""

from __future__ import annotations

import pytest

from tests.http.conftest import Serve
from tests.http.driver import House, check_standing_headers, refused
from tests.settings.reading import modulus
from tests.support.cases import each_of

FORM = "application/x-www-form-urlencoded"


@pytest.fixture(params=["a secret", "no key at all", "a published key"])
def house(request: pytest.FixtureRequest, serve: Serve) -> House:
    """An application that signs with HS256 or not at all; a public key that others sign for changes nothing."""
    if request.param == "no key at all":
        return serve(PYLON_JWT_SECRET=None)
    return serve(PYLON_OIDC_JWKS_RSA_N=modulus() if request.param == "a published key" else None)


@each_of("method", ["GET", "POST"])
@each_of("query", ["", "client_id=x&redirect_uri=https://evil.example/<script>&state=canary-1"])
def test_authorize_is_an_error_page(house: House, method: str, query: str) -> None:
    """`/oidc/authorize` is an error page (501); no redirect, no echo."""
    request_of = {"query": query} if method == "GET" else {"body": query.encode(), "content_type": FORM}
    answer = house.ask(method, "/oidc/authorize", headers={"X-Request-Id": "<b>notkept</b>"}, **request_of)
    assert answer.status == 501
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Location" not in answer.headers and "Set-Cookie" not in answer.headers
    text = answer.body.decode()
    assert "evil.example" not in text and "canary" not in text and "<b>" not in text
    assert answer.headers["X-Request-Id"] in text
    check_standing_headers(answer)


def test_the_error_page_loads_its_style_alone_and_is_framed_by_nobody(house: House) -> None:
    """docs/security.md: CSP and `no-store` of pages; what may be loaded is ours."""
    answer = house.ask("GET", "/oidc/authorize")
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert set(policy) == {
        "default-src 'none'",
        "style-src 'self'",
        "img-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    }
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "same-origin"


@each_of(
    ("body", "error"),
    [
        (b"", "unsupported_grant_type"),
        (b"grant_type=authorization_code&code=x", "unsupported_grant_type"),
        (b"grant_type=refresh_token&refresh_token=x&client_id=x", "unsupported_grant_type"),
        (b"\xff", "invalid_request"),
        (b"grant_type=%ff", "invalid_request"),
        (b"grant_type=a&grant_type=b", "invalid_request"),
        (b"&".join(b"p%d=1" % number for number in range(201)), "invalid_request"),
    ],
)
def test_token_supports_no_grant_type(house: House, body: bytes, error: str) -> None:
    """`/oidc/token` answers 400 `unsupported_grant_type` (RFC 6749 §5.2); a body that is not a form is refused first."""
    answer = house.ask("POST", "/oidc/token", body=body, content_type=FORM)
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json()["error"] == error
    assert set(answer.json()) <= {"error", "error_description", "error_uri"}
    check_standing_headers(answer)


def test_a_client_of_its_own_needs_no_key_for_id_tokens(house: House) -> None:
    """RFC 6749 §4.4: it gets no ID token; it is asked who it is."""
    answer = house.ask("POST", "/oidc/token", body=b"grant_type=client_credentials", content_type=FORM)
    assert (answer.status, answer.json()["error"]) == (401, "invalid_client")
    check_standing_headers(answer)


def test_what_is_no_form_at_all_has_the_endpoints_shape(house: House) -> None:
    """RFC 6749 §5.2: at the token endpoint every error is the endpoint's own, another method and another type too."""
    refused(house.ask("DELETE", "/oidc/authorize"), 405, "METHOD_NOT_ALLOWED")
    other = house.ask("GET", "/oidc/token")
    assert (other.status, other.json()["error"]) == (405, "invalid_request")
    too_large = house.ask("POST", "/oidc/token", body=b"x" * 100_000, content_type=FORM)
    assert (too_large.status, too_large.json()["error"]) == (413, "invalid_request")
    for content_type in (None, "application/json", "multipart/form-data; boundary=x", "text/plain"):
        answer = house.ask("POST", "/oidc/token", body=b"{}", content_type=content_type)
        assert (answer.status, answer.json()["error"]) == (400, "invalid_request")
