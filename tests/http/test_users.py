"""docs/endpoints.md: `PUT /api/auth/users/{user_id}`: what the app knows of a user."""

from __future__ import annotations

from typing import Any

from tests.http.conftest import Serve
from tests.http.driver import House, refused
from tests.support.cases import each_of
from tests.support.gunicorn import Answer

NOTHING: dict[str, Any] = {"claims": {}, "roles": [], "tenant_id": None, "attributes": {}}


def _put(house: House, user_id: str, /, **fields: Any) -> Answer:
    return house.ask("PUT", f"/api/auth/users/{user_id}", admin=True, json=fields)


def test_what_is_given_replaces_what_is_known_field_by_field(house: House) -> None:
    """The fields that are given are replaced as a whole, the rest stays; the answer is what is known then."""
    first = NOTHING | {"claims": {"name": "Ada", "email": "a@b.c"}, "roles": ["a", "b"], "tenant_id": "t"}
    assert _put(house, "ada", **first).json() == {"user_id": "ada", **first}
    changed = _put(house, "ada", claims={"name": "Ada Byron"})
    assert (changed.status, changed.json()) == (
        200,
        {"user_id": "ada", **first, "claims": {"name": "Ada Byron"}},
    )
    emptied = _put(house, "ada", roles=[]).json()
    assert (emptied["roles"], emptied["tenant_id"]) == ([], "t")
    assert _put(house, "ada").json() == emptied
    assert _put(house, "Ada").json() == {"user_id": "Ada", **NOTHING}


def test_a_sign_in_tells_it_too(house: House) -> None:
    """What a sign-in says of a user replaces what is known in the same way; what it does not say stays."""
    _put(house, "ada", claims={"name": "Ada"}, roles=["a"])
    house.sign_in("ada", roles=["b"])
    known = _put(house, "ada").json()
    assert (known["claims"], known["roles"]) == ({"name": "Ada"}, ["b"])


def test_it_signs_nobody_in(house: House) -> None:
    """A session says what was said when it began."""
    token = house.sign_in("ada", claims={"name": "Ada"})["token"]
    _put(house, "ada", claims={"name": "Other"}, roles=["admin"])
    me = house.me(token).json()
    assert (me["claims"], me["roles"]) == ({"name": "Ada"}, [])
    path = "/api/auth/users/bob/sessions"
    _put(house, "bob", roles=["a"])
    assert house.ask("GET", path, admin=True).json() == {"sessions": []}


@each_of("prefix", ["", "/tenant"])
@each_of(
    "user_id",
    ["a/b", "https://idp.example/u/1", "/", "//", "a/", "/a", "a//b", "sessions", "a/../b", "a/sessions/"],
)
def test_a_user_id_may_hold_slashes(serve: Serve, user_id: str, prefix: str) -> None:
    """`user_id` is visible ASCII, a slash is such (decoded from `%2F`); each spelling is a user of its own."""
    house = serve(PYLON_OIDC_ISSUER=f"https://id.example.test{prefix}")
    path = f"{prefix}/api/auth/users/{user_id}"
    refused(house.ask("PUT", path, json={}), 403, "FORBIDDEN")
    answer = house.ask("PUT", path, admin=True, json={"tenant_id": "t"})
    assert (answer.status, answer.json()) == (200, NOTHING | {"user_id": user_id, "tenant_id": "t"})
    assert house.requests_logged[-1]["route"] == f"{prefix}/api/auth/users/{{user_id}}"
    other = house.ask("PUT", f"{path}x", admin=True, json={})
    assert other.json() == NOTHING | {"user_id": f"{user_id}x"}


def test_the_sessions_of_a_user_are_not_another_user(house: House) -> None:
    """An id that continues like the other route belongs to that route, which has no `PUT`."""
    answer = _put(house, "a/sessions", roles=["a"])
    refused(answer, 405, "METHOD_NOT_ALLOWED")
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "DELETE", "OPTIONS"}


@each_of("user_id", ["", " ", "a b", "\0", "\xff", "\xc3\xa9", "a\n", "a" * 256, "\x7f"])
def test_what_is_no_user_id_is_not_found(house: House, user_id: str) -> None:
    """1 to 255 visible ASCII characters; nobody can be signed in under anything else."""
    refused(_put(house, user_id), 404, "NOT_FOUND")


@each_of("authorization", [None, "Bearer wrong", "Basic x", "Bearer"])
def test_it_is_for_the_admin_token(house: House, authorization: str | None) -> None:
    """403 `FORBIDDEN` without it, before the body is looked at; a session token does not do."""
    headers = {} if authorization is None else {"Authorization": authorization}
    refused(house.ask("PUT", "/api/auth/users/ada", headers=headers, body=b"{"), 403, "FORBIDDEN")
    token = house.sign_in("ada")["token"]
    refused(house.ask("PUT", "/api/auth/users/ada", token=token, json={}), 403, "FORBIDDEN")
    assert _put(house, "ada").json() == {"user_id": "ada", **NOTHING}


@each_of(
    ("fields", "named"),
    [
        ({"name": "x"}, "name"),
        ({"user_id": "x"}, "user_id"),
        ({"claims": {"sub": "x"}}, "claims.sub"),
        ({"claims": {"name": 1}}, "claims.name"),
        ({"claims": None}, "claims"),
        ({"roles": "admin"}, "roles"),
        ({"roles": [""]}, "roles.0"),
        ({"tenant_id": ""}, "tenant_id"),
        ({"tenant_id": None}, "tenant_id"),
        ({"device": "x"}, "device"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(house: House, fields: dict[str, Any], named: str) -> None:
    """400 `INVALID_BODY`, naming the field; nothing of the body is kept."""
    answer = _put(house, "ada", **{"roles": ["kept?"], **fields})
    assert f" {named}." in refused(answer, 400, "INVALID_BODY")["message"]
    assert _put(house, "ada").json() == {"user_id": "ada", **NOTHING}


def test_the_body_is_json_of_64_kib(house: House) -> None:
    """413, 415, 400, in this order."""
    path = "/api/auth/users/ada"
    ask = {"admin": True, "path": path, "method": "PUT"}
    refused(house.ask(**ask, body=b" " * 65_537, content_type="text/plain"), 413, "BODY_TOO_LARGE")
    refused(house.ask(**ask, body=b"{}", content_type="text/plain"), 415, "UNSUPPORTED_MEDIA_TYPE")
    refused(house.ask(**ask, body=b"[]"), 400, "INVALID_BODY")
