"""docs/endpoints.md: a session is begun by the app, seen, and ended."""

from __future__ import annotations

import re
from typing import Any

from service.handles import hash_handle
from tests.http.conftest import Serve
from tests.http.driver import START, House, refused
from tests.support.cases import each_of

FULL = {
    "user_id": "user-1",
    "tenant_id": "acme",
    "roles": ["admin", "dev"],
    "claims": {"name": "Ada", "email_verified": True, "address": {"country": "UK"}, "updated_at": 1},
    "attributes": {"department": "R&D", "seats": 3},
    "device": "Firefox on Linux",
    "auth_time": START - 100,
    "acr": "urn:mfa",
    "amr": ["pwd", "otp"],
    "expires_in": 600,
}


def test_a_session_answers_token_sid_user_and_end_and_nothing_else(house: House) -> None:
    """`POST /api/auth/session`: 201 `{token, sid, user_id, expires_at}`."""
    answer = house.ask("POST", "/api/auth/session", admin=True, json={"user_id": "user-1"})
    assert answer.status == 201
    assert set(answer.json()) == {"token", "sid", "user_id", "expires_at"}
    assert answer.json()["user_id"] == "user-1"
    assert answer.json()["expires_at"] == START + 2_592_000
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_session_token_is_pylon_and_64_hex_characters(house: House) -> None:
    """A session token is `pylon_` + 64 hex characters."""
    assert re.fullmatch(r"pylon_[0-9a-f]{64}", house.sign_in()["token"])


def test_a_session_answer_sets_no_cookie(house: House) -> None:
    """Session and trusted-mint answers set none."""
    answer = house.ask("POST", "/api/auth/session", admin=True, json={"user_id": "user-1"})
    assert "Set-Cookie" not in answer.headers


def test_the_token_is_at_rest_as_a_hash_alone(house: House) -> None:
    """Shown once, stored as a SHA-256 hash; `sid` is not derived from the token."""
    begun = house.sign_in()
    at_rest = b"".join(path.read_bytes() for path in house.settings.database.path.parent.iterdir())
    secret_part = begun["token"].removeprefix("pylon_")
    assert hash_handle(begun["token"]).encode() in at_rest
    assert secret_part.encode() not in at_rest
    assert begun["sid"] not in {begun["token"], secret_part, hash_handle(begun["token"])}
    assert begun["sid"] not in hash_handle(begun["token"])


def test_two_sessions_of_one_user_differ_in_token_and_sid(house: House) -> None:
    """`sid` is a random id of the session."""
    one, two = house.sign_in(), house.sign_in()
    assert one["token"] != two["token"]
    assert one["sid"] != two["sid"]


def test_me_tells_all_that_the_sign_in_said(house: House) -> None:
    """`GET /api/auth/me`: 200 with the eleven fields."""
    begun = house.sign_in(**FULL)
    answer = house.me(begun["token"])
    assert answer.status == 200
    given = {name: value for name, value in FULL.items() if name != "expires_in"}
    assert answer.json() == {**given, "sid": begun["sid"], "expires_at": START + 600}
    assert answer.headers["Cache-Control"] == "no-store"


def test_me_answers_null_and_empty_for_what_was_not_said(house: House) -> None:
    """An absent scalar is `null`, `roles` `[]`, `claims` `{}` in `/me`."""
    begun = house.sign_in()
    assert house.me(begun["token"]).json() == {
        "user_id": "user-1",
        "sid": begun["sid"],
        "tenant_id": None,
        "roles": [],
        "claims": {},
        "attributes": {},
        "device": None,
        "auth_time": START,
        "acr": None,
        "amr": [],
        "expires_at": START + 2_592_000,
    }


def test_head_of_me_is_get_without_a_body(house: House) -> None:
    """RFC 9110 §9.3.2: HEAD is identical to GET except that no content is sent."""
    token = house.sign_in()["token"]
    answer = house.ask("HEAD", "/api/auth/me", token=token)
    assert (answer.status, answer.body) == (200, b"")


NOT_SIGNED_IN: dict[str, dict[str, Any]] = {
    "no credential": {},
    "an unknown token": {"token": "pylon_" + "0" * 64},
    "upper-case hex": {"token": "pylon_" + "A" * 64},
    "a short token": {"token": "pylon_" + "0" * 63},
    "a long token": {"token": "pylon_" + "0" * 65},
    "no prefix": {"token": "0" * 64},
    "an empty bearer": {"headers": {"Authorization": "Bearer "}},
    "a bare scheme": {"headers": {"Authorization": "Bearer"}},
    "an empty header": {"headers": {"Authorization": ""}},
    "another scheme": {"headers": {"Authorization": "Basic dTpw"}},
    "non-ASCII": {"headers": {"Authorization": "Bearer pylon_\xe9"}},
    "the admin token": {"admin": True},
}


@each_of("shown", NOT_SIGNED_IN.values(), ids=NOT_SIGNED_IN.keys())
@each_of(
    ("method", "path"),
    [
        ("GET", "/api/auth/me"),
        ("POST", "/api/auth/refresh"),
        ("GET", "/api/auth/sessions"),
        ("DELETE", "/api/auth/sessions"),
        ("DELETE", "/api/auth/sessions/x"),
        ("POST", "/api/auth/jwt"),
    ],
)
def test_who_is_not_signed_in_gets_one_and_the_same_401(
    house: House, method: str, path: str, shown: dict[str, Any]
) -> None:
    """`AUTH_REQUIRED` (no, unknown, expired or revoked session; one answer for all)."""
    error = refused(house.ask(method, path, **shown), 401, "AUTH_REQUIRED")
    assert error["message"] == "A live session is required."


@each_of("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_bearer_scheme_is_case_insensitive(house: House, scheme: str) -> None:
    """RFC 9110 §11.1: the scheme is case-insensitive."""
    token = house.sign_in()["token"]
    assert house.ask("GET", "/api/auth/me", headers={"Authorization": f"{scheme} {token}"}).status == 200


@each_of(("after_s", "status"), [(599, 200), (600, 401), (601, 401)])
def test_a_session_ends_at_its_expires_at(house: House, after_s: int, status: int) -> None:
    """Times are integer Unix seconds; from `expires_at` on nobody is signed in."""
    token = house.sign_in(expires_in=600)["token"]
    house.clock.advance(after_s)
    assert house.me(token).status == status


def test_the_lifetime_of_the_settings_is_the_default_and_the_most(serve: Serve) -> None:
    """`expires_in` is 1 to `PYLON_SESSION_LIFETIME_SECS`."""
    house = serve(PYLON_SESSION_LIFETIME_SECS="100")
    assert house.sign_in()["expires_at"] == START + 100
    assert house.sign_in(expires_in=100)["expires_at"] == START + 100
    assert house.sign_in(expires_in=1)["expires_at"] == START + 1
    for wrong in (0, 101, -1):
        answer = house.ask(
            "POST", "/api/auth/session", admin=True, json={"user_id": "u", "expires_in": wrong}
        )
        assert "expires_in" in refused(answer, 400, "INVALID_BODY")["message"]


@each_of(("ahead_s", "status"), [(0, 201), (60, 201), (61, 400), (-START, 201)])
def test_auth_time_may_lie_60_seconds_ahead(house: House, ahead_s: int, status: int) -> None:
    """`auth_time` at most 60 s ahead."""
    body = {"user_id": "u", "auth_time": START + ahead_s}
    answer = house.ask("POST", "/api/auth/session", admin=True, json=body)
    assert answer.status == status
    if status == 400:
        assert "auth_time" in refused(answer, 400, "INVALID_BODY")["message"]


@each_of("user_id", ["a", "a" * 255, "!~", "auth0|5f7c8ec7c33c6c004bbafe82", "a/b"])
def test_visible_ascii_makes_a_user_id(house: House, user_id: str) -> None:
    """`user_id`: 1–255 visible ASCII characters."""
    assert house.sign_in(user_id)["user_id"] == user_id


@each_of("user_id", ["", "a" * 256, "a b", "a\n", "\n", "é", "a\x7f", "\0", "a\x00", " a", "a\t", "a\r"])
def test_nothing_else_makes_a_user_id(house: House, user_id: str) -> None:
    """`user_id`: 1–255 visible ASCII characters; anything else is `INVALID_BODY`, naming the field."""
    answer = house.ask("POST", "/api/auth/session", admin=True, json={"user_id": user_id})
    assert "user_id" in refused(answer, 400, "INVALID_BODY")["message"]


def test_ending_a_session_ends_it_and_no_other(house: House) -> None:
    """`DELETE /api/auth/session`: 200 `{"revoked": true}`."""
    one, two = house.sign_in()["token"], house.sign_in()["token"]
    answer = house.ask("DELETE", "/api/auth/session", token=one)
    assert (answer.status, answer.json()) == (200, {"revoked": True})
    refused(house.me(one), 401, "AUTH_REQUIRED")
    assert house.me(two).status == 200


@each_of("state", ["unknown", "gone", "expired"])
def test_ending_what_is_not_there_is_no_mistake(house: House, state: str) -> None:
    """200 also for a well-formed token that is unknown or already gone."""
    token = "pylon_" + "ab" * 32
    if state != "unknown":
        token = house.sign_in(expires_in=10)["token"]
    if state == "gone":
        house.ask("DELETE", "/api/auth/session", token=token)
    house.clock.advance(10 if state == "expired" else 0)
    answer = house.ask("DELETE", "/api/auth/session", token=token)
    assert (answer.status, answer.json()) == (200, {"revoked": True})


@each_of("shown", [{}, {"token": "pylon_zz"}, {"token": "x"}, {"headers": {"Authorization": "Basic x"}}])
def test_ending_without_a_well_formed_token_is_401(house: House, shown: dict[str, Any]) -> None:
    """None or a malformed one 401."""
    refused(house.ask("DELETE", "/api/auth/session", **shown), 401, "AUTH_REQUIRED")
