"""Contract §7: until the provider exists, `/oidc/authorize` and `/oidc/token` say so."""

from __future__ import annotations

import pytest

from tests.http.driver import House, check_standing_headers, refused


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "query", ["", "client_id=x&redirect_uri=https://evil.example/<script>&state=canary-1"]
)
def test_authorize_is_an_error_page(house: House, method: str, query: str) -> None:
    """§7: until the provider exists, `/oidc/authorize` is an error page (501); no redirect, no echo."""
    answer = house.ask(method, "/oidc/authorize", query=query, headers={"X-Request-Id": "<b>notkept</b>"})
    assert answer.status == 501
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "Location" not in answer.headers
    text = answer.body.decode()
    assert "evil.example" not in text and "canary" not in text and "<b>" not in text
    assert answer.headers["X-Request-Id"] in text
    check_standing_headers(answer)


def test_the_error_page_loads_and_frames_nothing(house: House) -> None:
    """S26: CSP and `no-store` of pages: `default-src 'none'`, `frame-ancestors 'none'`, `base-uri 'none'`."""
    answer = house.ask("GET", "/oidc/authorize")
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(policy)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize(
    "body",
    [b"", b"grant_type=authorization_code&code=x", b"\xff", b"grant_type=a&grant_type=b", b"x" * 100_000],
)
def test_token_supports_no_grant_type(house: House, body: bytes) -> None:
    """§7: `/oidc/token` answers 400 `unsupported_grant_type` (RFC 6749 §5.2)."""
    answer = house.ask("POST", "/oidc/token", body=body, content_type="application/x-www-form-urlencoded")
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json()["error"] == "unsupported_grant_type"
    assert set(answer.json()) <= {"error", "error_description", "error_uri"}
    check_standing_headers(answer)


def test_other_methods_have_the_api_shape(house: House) -> None:
    """§7: 405 has the `/api` shape everywhere."""
    refused(house.ask("GET", "/oidc/token"), 405, "METHOD_NOT_ALLOWED")
    refused(house.ask("DELETE", "/oidc/authorize"), 405, "METHOD_NOT_ALLOWED")
