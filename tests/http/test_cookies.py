"""docs/sessions.md, docs/settings.md: the session cookie: who may carry it, who sets it, and with which attributes."""

from __future__ import annotations

from tests.http.conftest import Serve
from tests.http.driver import COOKIE, HOST, House, refused, set_cookie
from tests.support.cases import each_of

REFRESH = "/api/auth/refresh"
SESSION = "/api/auth/session"
UNKNOWN = "pylon_" + "0" * 64


def test_the_cookie_is_as_good_as_the_header(house: House) -> None:
    """A request carries it as `Authorization: Bearer …` or in the cookie."""
    begun = house.sign_in()
    assert house.ask("GET", "/api/auth/me", cookie=begun["token"]).json()["sid"] == begun["sid"]
    assert house.ask("POST", "/api/auth/jwt", cookie=begun["token"]).status == 200


@each_of(
    "authorization",
    ["Basic dTpw", "Bearer", "Bearer ", "", "Digest x", f"Bearer {UNKNOWN}", "garbage", "\xff"],
)
def test_any_authorization_header_wins(house: House, authorization: str) -> None:
    """Any `Authorization` header wins, even one that is not Bearer."""
    token = house.sign_in()["token"]
    answer = house.ask("GET", "/api/auth/me", cookie=token, headers={"Authorization": authorization})
    refused(answer, 401, "AUTH_REQUIRED")


def test_a_good_bearer_wins_over_a_bad_cookie(house: House) -> None:
    """Any `Authorization` header wins."""
    token = house.sign_in()["token"]
    assert house.ask("GET", "/api/auth/me", token=token, cookie=UNKNOWN).status == 200


def _cookies(*values: str) -> str:
    return "; ".join(f"{COOKIE}={value}" for value in values)


@each_of("others", [(), (UNKNOWN,), ("x", UNKNOWN)])
def test_two_live_cookies_are_not_signed_in(house: House, others: tuple[str, ...]) -> None:
    """docs/sessions.md: two live ones are not signed in, in either order, and nothing of theirs changes."""
    one, two = house.sign_in()["token"], house.sign_in("user-2")["token"]
    for pair in [(one, two), (two, one)]:
        header = _cookies(*others, *pair)
        for method, path in [("GET", "/api/auth/me"), ("POST", REFRESH), ("POST", "/api/auth/jwt")]:
            refused(house.ask(method, path, cookie=header), 401, "AUTH_REQUIRED")
    assert house.me(one).status == house.me(two).status == 200


def test_signing_out_ends_all_that_are_shown(house: House) -> None:
    """docs/sessions.md: of several cookies every session ends, of whomever, as far as they are looked at."""
    tokens = [house.sign_in(f"user-{n}")["token"] for n in range(6)]
    answer = house.ask("DELETE", SESSION, cookie=_cookies("x", *tokens[:3]))
    assert (answer.status, answer.json()) == (200, {"revoked": True})
    assert [house.me(token).status for token in tokens] == [401] * 3 + [200] * 3
    house.ask("DELETE", SESSION, cookie=_cookies("x", *tokens[1:]))
    assert [house.me(token).status for token in tokens] == [401] * 4 + [200] * 2


def test_signing_out_takes_what_is_not_looked_at(serve: Serve) -> None:
    """docs/sessions.md: with more than four values, they go from every place that this request shows; 16 at most."""
    house = serve(PYLON_COOKIE_DOMAIN="example.test")
    token, dead = house.sign_in()["token"], [f"pylon_{n:064x}" for n in range(4)]
    for cookies, most in ((_cookies(token, *dead[:3]), 1), (_cookies(token, *dead), 16)):
        answer = house.ask("DELETE", SESSION, cookie=cookies)
        lines = answer.headers.all("Set-Cookie")
        assert 1 <= len(lines) <= most and (most == 1 or len(lines) > 1)
        assert all("Max-Age=0" in line and line.startswith(f"{COOKIE}=;") for line in lines)
        assert len(set(lines)) == len(lines)


@each_of("dead", [("x",), (UNKNOWN,), ("",), ("x", UNKNOWN, "y")])
def test_dead_cookies_are_passed_over(house: House, dead: tuple[str, ...]) -> None:
    """docs/sessions.md: of several cookies of that name the live one counts, wherever it stands."""
    for place in range(len(dead) + 1):
        token = house.sign_in()["token"]

        def cookies(live: str, place: int = place) -> str:
            return _cookies(*dead[:place], live, *dead[place:])

        assert house.ask("GET", "/api/auth/me", cookie=cookies(token)).status == 200
        token = house.ask("POST", REFRESH, cookie=cookies(token)).json()["token"]
        assert house.ask("DELETE", SESSION, cookie=cookies(token)).json() == {"revoked": True}
        assert house.me(token).status == 401
        refused(house.ask("GET", "/api/auth/me", cookie=cookies(token)), 401, "AUTH_REQUIRED")


def test_four_cookies_are_looked_at(house: House) -> None:
    """docs/sessions.md: the fifth different value of the name is not."""
    token, dead = house.sign_in()["token"], [f"pylon_{n:064x}" for n in range(4)]
    assert house.ask("GET", "/api/auth/me", cookie=_cookies(*dead[:3], token)).status == 200
    refused(house.ask("GET", "/api/auth/me", cookie=_cookies(*dead, token)), 401, "AUTH_REQUIRED")
    assert house.ask("GET", "/api/auth/me", cookie=_cookies(*[dead[0]] * 9, token)).status == 200


def test_ending_a_session_twice_by_several_cookies_is_no_mistake(house: House) -> None:
    """docs/endpoints.md: the same answer when the well-formed tokens that are shown are unknown."""
    header = _cookies("x", UNKNOWN, UNKNOWN[:-1] + "1")
    assert house.ask("DELETE", SESSION, cookie=header).json() == {"revoked": True}
    refused(house.ask("DELETE", SESSION, cookie=_cookies("x", "y")), 401, "AUTH_REQUIRED")


def test_the_same_cookie_twice_is_one(house: House) -> None:
    """docs/sessions.md: only two different cookies can be two live ones."""
    token = house.sign_in()["token"]
    assert house.ask("GET", "/api/auth/me", cookie=f"{COOKIE}={token}; a=b; {COOKIE}={token}").status == 200


@each_of("header", ["", "=", ";", f"{COOKIE}", f"{COOKIE}=", f"Pylon_Session={UNKNOWN}", "a=\xff", "\0=\0"])
def test_a_cookie_header_without_a_token_is_not_signed_in(house: House, header: str) -> None:
    """docs/endpoints.md: no session: `AUTH_REQUIRED`."""
    answer = house.ask("GET", "/api/auth/me", environ={"HTTP_COOKIE": header})
    refused(answer, 401, "AUTH_REQUIRED")


def test_a_cookie_of_another_name_is_none(serve: Serve) -> None:
    """docs/settings.md: `PYLON_COOKIE_NAME` is the app's session cookie."""
    house = serve(PYLON_COOKIE_NAME="sid")
    token = house.sign_in()["token"]
    refused(house.ask("GET", "/api/auth/me", cookie=f"{COOKIE}={token}"), 401, "AUTH_REQUIRED")
    assert house.ask("GET", "/api/auth/me", cookie=f"sid={token}").status == 200
    assert set_cookie(house.ask("POST", REFRESH, cookie=f"sid={token}"))["name"] == "sid"


def test_a_refresh_by_cookie_sets_the_new_one(house: House) -> None:
    """A cookie is set by `POST /api/auth/refresh` made with the cookie (the new one)."""
    token = house.sign_in(expires_in=600)["token"]
    answer = house.ask("POST", REFRESH, cookie=token)
    assert set_cookie(answer) == {
        "name": COOKIE,
        "value": answer.json()["token"],
        "path": "/",
        "max-age": "600",
        "httponly": "",
        "secure": "",
        "samesite": "Lax",
    }


def test_a_refresh_by_bearer_sets_none(house: House) -> None:
    """A cookie is set by a refresh made with the cookie, not by one made with the header."""
    token = house.sign_in()["token"]
    answer = house.ask("POST", REFRESH, token=token, cookie=token)
    assert answer.status == 200
    assert "Set-Cookie" not in answer.headers


def test_a_refused_refresh_sets_none(house: House) -> None:
    """A cookie is set by a refresh, not by its refusal."""
    assert "Set-Cookie" not in house.ask("POST", REFRESH, cookie=UNKNOWN).headers


def test_ending_the_session_clears_the_cookie(house: House) -> None:
    """A cookie is set by `DELETE /api/auth/session` (cleared), with the attributes it was set with."""
    token = house.sign_in()["token"]
    answer = house.ask("DELETE", SESSION, cookie=token)
    assert set_cookie(answer) == {
        "name": COOKIE,
        "value": "",
        "path": "/",
        "max-age": "0",
        "httponly": "",
        "secure": "",
        "samesite": "Lax",
    }
    refused(house.ask("GET", "/api/auth/me", cookie=token), 401, "AUTH_REQUIRED")


@each_of(
    ("method", "path"),
    [
        ("GET", "/api/auth/me"),
        ("GET", "/api/auth/sessions"),
        ("DELETE", "/api/auth/sessions"),
        ("POST", "/api/auth/jwt"),
    ],
)
def test_no_other_answer_sets_one(house: House, method: str, path: str) -> None:
    """A cookie is set by refresh, by ending the session and by the dev sign-in."""
    answer = house.ask(method, path, cookie=house.sign_in()["token"])
    assert answer.status == 200
    assert "Set-Cookie" not in answer.headers


@each_of(
    ("environ", "host", "secure"),
    [
        ({}, HOST, True),
        ({}, "localhost:4321", True),
        ({"PYLON_DEV_MODE": "1"}, "localhost:4321", False),
        ({"PYLON_DEV_MODE": "1"}, HOST, True),
        ({"PYLON_OIDC_ISSUER": "http://localhost:4321"}, HOST, False),
        ({"PYLON_OIDC_ISSUER": "https://id.example.com"}, "localhost", True),
    ],
)
def test_the_cookie_is_secure_unless_the_issuer_is_http(
    serve: Serve, environ: dict[str, str], host: str, secure: bool
) -> None:
    """docs/settings.md: `Secure` unless the request's issuer is `http://`."""
    house = serve(**environ)
    token = house.sign_in()["token"]
    for method, path in [("POST", REFRESH), ("DELETE", SESSION)]:
        answer = house.ask(method, path, cookie=token, host=host)
        assert ("secure" in set_cookie(answer)) is secure
        token = answer.json().get("token")


def test_a_forwarded_scheme_takes_no_part_in_secure(house: House) -> None:
    """docs/settings.md: `X-Forwarded-Proto` never takes part."""
    token = house.sign_in()["token"]
    answer = house.ask("POST", REFRESH, cookie=token, headers={"X-Forwarded-Proto": "http"})
    assert "secure" in set_cookie(answer)


@each_of(
    ("issuer", "path"),
    [
        ("https://id.example.com", "/"),
        ("https://id.example.com/a", "/a"),
        ("https://id.example.com/a/b", "/a/b"),
    ],
)
def test_the_cookies_path_is_the_issuers(serve: Serve, issuer: str, path: str) -> None:
    """docs/settings.md: `Path` is the issuer's path."""
    house = serve(PYLON_OIDC_ISSUER=issuer)
    prefix = "" if path == "/" else path
    begun = house.ask("POST", f"{prefix}/api/auth/session", admin=True, json={"user_id": "u"}).json()
    answer = house.ask("POST", f"{prefix}/api/auth/refresh", cookie=begun["token"])
    assert set_cookie(answer)["path"] == path


@each_of(("value", "same_site"), [("lax", "Lax"), ("strict", "Strict"), ("none", "None")])
def test_domain_and_same_site_are_the_settings(serve: Serve, value: str, same_site: str) -> None:
    """docs/settings.md: `PYLON_COOKIE_DOMAIN`, `PYLON_COOKIE_SAME_SITE`."""
    house = serve(PYLON_COOKIE_DOMAIN="example.test", PYLON_COOKIE_SAME_SITE=value)
    cookie = set_cookie(house.ask("POST", REFRESH, cookie=house.sign_in()["token"]))
    assert (cookie["domain"], cookie["samesite"]) == ("example.test", same_site)


def test_without_a_domain_the_cookie_is_host_only(house: House) -> None:
    """docs/settings.md: the default domain is unset: RFC 6265 §5.3: a host-only cookie."""
    assert "domain" not in set_cookie(house.ask("POST", REFRESH, cookie=house.sign_in()["token"]))


def test_max_age_is_what_is_left_of_the_90_days(serve: Serve) -> None:
    """Never beyond 90 days from the first, in the cookie as in the answer."""
    house = serve(PYLON_SESSION_LIFETIME_SECS=str(90 * 86_400))
    token = house.sign_in()["token"]
    house.clock.advance(90 * 86_400 - 7)
    assert set_cookie(house.ask("POST", REFRESH, cookie=token))["max-age"] == "7"
