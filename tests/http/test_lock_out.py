"""docs/endpoints.md: `DELETE /api/auth/users/{id}/sessions` also ends what the user let clients do; other ends do not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.http.conftest import Serve
from tests.http.driver import HOST, ISSUER, House, refused
from tests.support.cases import each_of
from tests.support.gunicorn import Answer, rsa_pem

FORM = "application/x-www-form-urlencoded"
CALLBACK = "https://rp.example/cb"
VERIFIER = "v" * 43
CHALLENGE = "7w_YNF9DSfIdPf_pRjSq646_kPr-2-o9NAl16JGghdM"


@pytest.fixture
def house(serve: Serve) -> House:
    """A provider with a public client of the app's own."""
    client = {"client_id": "c-1", "redirect_uris": [CALLBACK], "first_party": True}
    return serve(
        PYLON_OIDC_ISSUER=ISSUER,
        PYLON_OIDC_PRIVATE_KEY=rsa_pem(),
        PYLON_LOGIN_URL="https://app.example.test/sign-in",
        PYLON_OIDC_CLIENTS=json.dumps([client]),
    )


@dataclass
class Held:
    """What a user has given to the client, and where they are signed in."""

    house: House
    session: dict[str, Any]
    spare_code: str
    tokens: dict[str, Any]

    def token(self, **form: str) -> Answer:
        """Ask the token endpoint."""
        return _token(self.house, form)

    def redeem_spare(self) -> Answer:
        """Redeem the code that was not used yet."""
        return self.token(
            grant_type="authorization_code",
            code=self.spare_code,
            redirect_uri=CALLBACK,
            code_verifier=VERIFIER,
        )

    def refresh(self) -> Answer:
        """Exchange the refresh token."""
        return self.token(grant_type="refresh_token", refresh_token=self.tokens["refresh_token"])

    def userinfo(self) -> Answer:
        """Show the access token."""
        return self.house.ask("GET", "/oidc/userinfo", token=self.tokens["access_token"])

    def grants(self) -> list[Any]:
        """What the operator sees."""
        query = urlencode({"user_id": self.session["user"]})
        listed: list[Any] = self.house.ask("GET", "/api/oidc/grants", query=query, admin=True).json()[
            "grants"
        ]
        return listed


def _token(house: House, form: dict[str, str]) -> Answer:
    body = urlencode({**form, "client_id": "c-1"}).encode()
    return house.ask("POST", "/oidc/token", body=body, content_type=FORM)


def _code(house: House, session_token: str) -> str:
    query = urlencode(
        {
            "response_type": "code",
            "client_id": "c-1",
            "redirect_uri": CALLBACK,
            "scope": "openid offline_access",
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
        }
    )
    answer = house.ask("GET", "/oidc/authorize", query=query, cookie=session_token)
    assert answer.status == 303, answer
    (code,) = parse_qs(urlsplit(answer.headers["Location"]).query)["code"]
    return code


def _held(house: House, user: str) -> Held:
    session = house.sign_in(user) | {"user": user}
    form = {"grant_type": "authorization_code", "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
    answer = _token(house, form | {"code": _code(house, session["token"])})
    assert answer.status == 200, answer
    held = Held(house, session, _code(house, session["token"]), answer.json())
    assert held.userinfo().status == 200
    assert len(held.grants()) == 2
    return held


def _is_over(held: Held) -> None:
    refused(held.house.me(held.session["token"]), 401, "AUTH_REQUIRED")
    assert held.userinfo().status == 401
    assert held.redeem_spare().json()["error"] == "invalid_grant"


@pytest.mark.parametrize("user", ["ada", "idp/ada"])
def test_who_is_locked_out_keeps_nothing(house: House, user: str) -> None:
    """Sessions, codes, access tokens and grants end with it, offline ones too; only sessions are counted."""
    held, other = _held(house, user), _held(house, "bob")
    answer = house.ask("DELETE", f"/api/auth/users/{user}/sessions", admin=True)
    assert (answer.status, answer.json()) == (200, {"revoked_count": 1})
    _is_over(held)
    assert held.refresh().json()["error"] == "invalid_grant"
    assert held.grants() == []
    assert house.me(other.session["token"]).status == 200
    assert other.userinfo().status == 200
    assert other.refresh().status == 200
    assert other.redeem_spare().status == 200


def test_who_has_no_session_left_is_locked_out_all_the_same(house: House) -> None:
    """Grants end though no session is there to be counted."""
    held = _held(house, "ada")
    house.ask("DELETE", "/api/auth/session", token=held.session["token"])
    answer = house.ask("DELETE", "/api/auth/users/ada/sessions", admin=True)
    assert answer.json() == {"revoked_count": 0}
    assert held.refresh().json()["error"] == "invalid_grant"
    assert held.grants() == []


ENDS: dict[str, tuple[str, str]] = {
    "by the session": ("DELETE", "/api/auth/session"),
    "by its sid": ("DELETE", "/api/auth/sessions/{sid}"),
}


@each_of("way", ENDS)
def test_a_session_that_ends_takes_codes_and_access_tokens_along(house: House, way: str) -> None:
    """What hangs on the session ends with it; offline access does not: that is what it is for."""
    held = _held(house, way.replace(" ", "-"))
    method, path = ENDS[way]
    answer = house.ask(method, path.format(**held.session), token=held.session["token"])
    assert answer.status in {200, 204}
    _is_over(held)
    renewed = held.refresh()
    assert renewed.status == 200
    fresh = renewed.json()["access_token"]
    assert house.ask("GET", "/oidc/userinfo", token=fresh, host=HOST).status == 200


def test_ending_the_others_spares_what_hangs_on_the_current(house: House) -> None:
    """`DELETE /api/auth/sessions`: all but the current, and what hangs on it."""
    gone, kept = _held(house, "bob"), house.sign_in("bob")
    answer = house.ask("DELETE", "/api/auth/sessions", token=kept["token"])
    assert answer.json() == {"revoked_count": 1}
    _is_over(gone)
    mine = _code(house, kept["token"])
    house.ask("DELETE", "/api/auth/sessions", token=kept["token"])
    form = {
        "grant_type": "authorization_code",
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
        "code": mine,
    }
    assert _token(house, form).status == 200
