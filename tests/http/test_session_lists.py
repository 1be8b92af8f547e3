"""docs/endpoints.md: users see and end their sessions; an admin those of anybody."""

from __future__ import annotations

from tests.http.conftest import Serve
from tests.http.driver import START, House, refused
from tests.support.cases import each_of

ADMIN_METHODS = ["GET", "DELETE"]
OTHERS = "/api/auth/users/user-1/sessions"


def test_a_listed_session_has_the_six_fields(house: House) -> None:
    """`{"sessions": [{sid, token_prefix, device, created_at, expires_at, current}]}`."""
    begun = house.sign_in(device="Firefox", expires_in=60)
    answer = house.ask("GET", "/api/auth/sessions", token=begun["token"])
    assert answer.status == 200
    assert answer.json() == {
        "sessions": [
            {
                "sid": begun["sid"],
                "token_prefix": begun["token"][:12],
                "device": "Firefox",
                "created_at": START,
                "expires_at": START + 60,
                "current": True,
            }
        ]
    }


def test_a_list_holds_the_users_own_live_sessions_and_marks_the_current(house: House) -> None:
    """The user's own; `current` is the one that asks."""
    mine, other_device = house.sign_in(), house.sign_in()
    house.sign_in(expires_in=1)
    house.sign_in("user-2")
    house.clock.advance(1)
    listed = house.ask("GET", "/api/auth/sessions", token=mine["token"]).json()["sessions"]
    assert {row["sid"]: row["current"] for row in listed} == {mine["sid"]: True, other_device["sid"]: False}


def test_a_prefix_tells_too_little_to_be_a_token(house: House) -> None:
    """The token is shown once: a prefix leaves more than 200 bits of it unknown."""
    begun = house.sign_in()
    (row,) = house.ask("GET", "/api/auth/sessions", token=begun["token"]).json()["sessions"]
    assert begun["token"].startswith(row["token_prefix"])
    assert len(begun["token"]) - len(row["token_prefix"]) >= 50


def test_ending_all_spares_the_current(house: House) -> None:
    """`DELETE /api/auth/sessions`: `{"revoked_count": n}`, all but the current."""
    mine, gone, other = house.sign_in(), house.sign_in(), house.sign_in("user-2")
    house.sign_in()
    answer = house.ask("DELETE", "/api/auth/sessions", token=mine["token"])
    assert (answer.status, answer.json()) == (200, {"revoked_count": 2})
    assert house.me(mine["token"]).status == 200
    assert house.me(other["token"]).status == 200
    refused(house.me(gone["token"]), 401, "AUTH_REQUIRED")
    again = house.ask("DELETE", "/api/auth/sessions", token=mine["token"])
    assert again.json() == {"revoked_count": 0}


def test_one_of_ones_own_is_ended_by_its_sid(house: House) -> None:
    """`DELETE /api/auth/sessions/{sid}`: one of the user's own: `{"revoked": true}`."""
    mine, gone = house.sign_in(), house.sign_in()
    answer = house.ask("DELETE", f"/api/auth/sessions/{gone['sid']}", token=mine["token"])
    assert (answer.status, answer.json()) == (200, {"revoked": True})
    refused(house.me(gone["token"]), 401, "AUTH_REQUIRED")
    again = house.ask("DELETE", f"/api/auth/sessions/{gone['sid']}", token=mine["token"])
    refused(again, 404, "NOT_FOUND")


def test_the_current_one_is_ended_by_its_sid_too(house: House) -> None:
    """One of the user's own, also the current one."""
    mine = house.sign_in()
    assert house.ask("DELETE", f"/api/auth/sessions/{mine['sid']}", token=mine["token"]).status == 200
    refused(house.me(mine["token"]), 401, "AUTH_REQUIRED")


def test_anothers_session_is_not_found_and_lives_on(house: House) -> None:
    """Another's 404 `NOT_FOUND`, as one that does not exist, byte for byte except for the request id."""
    mine, other = house.sign_in(), house.sign_in("user-2")
    anothers = house.ask("DELETE", f"/api/auth/sessions/{other['sid']}", token=mine["token"])
    nobodys = house.ask("DELETE", "/api/auth/sessions/nobodys", token=mine["token"])
    errors = [refused(answer, 404, "NOT_FOUND") for answer in (anothers, nobodys)]
    assert errors[0] | {"request_id": ""} == errors[1] | {"request_id": ""}
    assert house.me(other["token"]).status == 200


@each_of("sid", ["\0", "%", "'; --", "a" * 5000, "\xff", " "])
def test_a_hostile_sid_is_not_found(house: House, sid: str) -> None:
    """Another's 404 `NOT_FOUND`, whatever is asked for."""
    token = house.sign_in()["token"]
    refused(house.ask("DELETE", f"/api/auth/sessions/{sid}", token=token), 404, "NOT_FOUND")


def test_the_admin_sees_the_sessions_of_any_user(house: House) -> None:
    """The same for any user, all of them; none of them is current."""
    begun = [house.sign_in()["sid"], house.sign_in()["sid"]]
    house.sign_in("user-2")
    listed = house.ask("GET", OTHERS, admin=True).json()["sessions"]
    assert {row["sid"] for row in listed} == set(begun)
    assert [row["current"] for row in listed] == [False, False]
    assert set(listed[0]) == {"sid", "token_prefix", "device", "created_at", "expires_at", "current"}


def test_the_admin_locks_somebody_out(house: House) -> None:
    """How an app locks somebody out."""
    tokens = [house.sign_in()["token"], house.sign_in()["token"]]
    other = house.sign_in("user-2")["token"]
    answer = house.ask("DELETE", OTHERS, admin=True)
    assert (answer.status, answer.json()) == (200, {"revoked_count": 2})
    for token in tokens:
        refused(house.ask("POST", "/api/auth/jwt", token=token), 401, "AUTH_REQUIRED")
    assert house.me(other).status == 200


@each_of("user_id", ["nobody", "\0", "\xff", "a" * 300, "%", " ", "' OR 1=1 --"])
def test_an_unknown_user_has_none(house: House, user_id: str) -> None:
    """200 with 0 for an unknown user."""
    house.sign_in()
    path = f"/api/auth/users/{user_id}/sessions"
    assert house.ask("GET", path, admin=True).json() == {"sessions": []}
    answer = house.ask("DELETE", path, admin=True)
    assert (answer.status, answer.json()) == (200, {"revoked_count": 0})


@each_of("prefix", ["", "/tenant"])
@each_of(
    "user_id", ["a/b", "https://idp.example/u/1", "/", "//", "a/", "/a", "sessions", "a/sessions", "a/../b"]
)
def test_a_user_id_with_a_slash_can_be_locked_out(serve: Serve, user_id: str, prefix: str) -> None:
    """`user_id` is visible ASCII, a slash is such (decoded from `%2F`), and any user can be locked
    out.
    """
    house = serve(PYLON_OIDC_ISSUER=f"https://id.example.test{prefix}")
    token = house.ask("POST", f"{prefix}/api/auth/session", admin=True, json={"user_id": user_id}).json()[
        "token"
    ]
    path = f"{prefix}/api/auth/users/{user_id}/sessions"
    refused(house.ask("DELETE", path), 403, "FORBIDDEN")
    assert len(house.ask("GET", path, admin=True).json()["sessions"]) == 1
    answer = house.ask("DELETE", path, admin=True)
    assert (answer.status, answer.json()) == (200, {"revoked_count": 1})
    refused(house.ask("GET", f"{prefix}/api/auth/me", token=token), 401, "AUTH_REQUIRED")
    assert house.requests_logged[-2]["route"] == f"{prefix}/api/auth/users/{{user_id}}/sessions"


@each_of("method", ADMIN_METHODS)
@each_of(
    "authorization", [None, "Bearer", "Bearer wrong", "Basic x", "Bearer \xe9", "Bearer " + "a" * 70, ""]
)
def test_without_the_admin_token_it_is_forbidden(
    house: House, method: str, authorization: str | None
) -> None:
    """A wrong or missing admin token: 403 `FORBIDDEN`."""
    token = house.sign_in()["token"]
    headers = {} if authorization is None else {"Authorization": authorization}
    refused(house.ask(method, OTHERS, headers=headers), 403, "FORBIDDEN")
    refused(house.ask("POST", "/api/auth/session", headers=headers, json={"user_id": "u"}), 403, "FORBIDDEN")
    assert house.me(token).status == 200


@each_of("method", ADMIN_METHODS)
def test_a_session_token_is_no_admin_token(house: House, method: str) -> None:
    """Only the admin token opens the admin API; a session does not, even for its own user."""
    token = house.sign_in()["token"]
    refused(house.ask(method, OTHERS, token=token), 403, "FORBIDDEN")
    refused(house.ask(method, OTHERS, cookie=token), 403, "FORBIDDEN")


@each_of("authorization", [None, "Bearer", "Bearer None", "Bearer "])
def test_an_unset_admin_token_closes_the_admin_api(serve: Serve, authorization: str | None) -> None:
    """docs/settings.md: unset = the admin API answers 403."""
    house = serve(PYLON_ADMIN_TOKEN=None)
    headers = {} if authorization is None else {"Authorization": authorization}
    for method, path in [("GET", OTHERS), ("DELETE", OTHERS), ("POST", "/api/auth/session")]:
        error = refused(house.ask(method, path, headers=headers), 403, "FORBIDDEN")
        assert "PYLON_ADMIN_TOKEN" in error["hint"]


def test_the_admin_token_comes_before_the_body(house: House) -> None:
    """The admin token comes before the body."""
    for body, content_type in [
        (b"{", "application/json"),
        (b"x" * 70_000, "application/json"),
        (b"a", "text/plain"),
    ]:
        answer = house.ask("POST", "/api/auth/session", body=body, content_type=content_type)
        refused(answer, 403, "FORBIDDEN")


def test_an_admin_request_is_not_asked_where_it_comes_from(house: House) -> None:
    """Only a change authenticated by cookie must be same-origin."""
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    assert house.ask("DELETE", OTHERS, admin=True, headers=headers).status == 200
    body = {"user_id": "u"}
    assert house.ask("POST", "/api/auth/session", admin=True, headers=headers, json=body).status == 201
