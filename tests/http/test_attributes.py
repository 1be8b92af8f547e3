"""The app's own facts about a user: kept with the session and the user, shown where they are asked for (docs/sessions.md)."""

from __future__ import annotations

from typing import Any

from tests.http.driver import House, refused
from tests.support.cases import each_of

FACTS: dict[str, Any] = {
    "department": "R&D", "seats": 3, "ratio": 0.5, "beta": False, "teams": ["a", "b"], "none": [],
    "https://example.com/a.b-c_d:e": "x",
}  # fmt: skip


def test_a_session_keeps_them_and_me_shows_them(house: House) -> None:
    """docs/sessions.md: as they were given; `{}` without any."""
    token = house.sign_in("ada", attributes=FACTS)["token"]
    assert house.me(token).json()["attributes"] == FACTS
    assert house.me(house.sign_in("bob")["token"]).json()["attributes"] == {}
    refreshed = house.ask("POST", "/api/auth/refresh", token=token).json()["token"]
    assert house.me(refreshed).json()["attributes"] == FACTS


def test_a_user_has_the_last_that_were_given(house: House) -> None:
    """docs/endpoints.md: replaced as a whole where they are given, left where they are not."""
    path = "/api/auth/users/ada"
    house.sign_in("ada", attributes=FACTS)
    assert house.ask("PUT", path, admin=True, json={"roles": ["a"]}).json()["attributes"] == FACTS
    given = house.ask("PUT", path, admin=True, json={"attributes": {"plan": "free"}}).json()
    assert given["attributes"] == {"plan": "free"}
    assert house.ask("PUT", path, admin=True, json={"attributes": {}}).json()["attributes"] == {}


def test_a_minted_token_never_holds_them(house: House) -> None:
    """docs/sessions.md: they leave only where somebody names them; a mint names nothing."""
    session = house.sign_in("ada", attributes=FACTS, roles=["dev"])
    claims = house.mint(session["token"])
    assert set(claims) == {"iss", "sub", "iat", "exp", "jti", "sid", "roles"}


BAD: list[tuple[Any, str]] = [
    ({"department": None}, "attributes.department"),
    ({"department": {"a": 1}}, "attributes.department"),
    ({"teams": ["a", 1]}, "attributes.teams"),
    ({"teams": [["a"]]}, "attributes.teams"),
    ({"sub": "x"}, "attributes.sub"),
    ({"acr": "x"}, "attributes.acr"),
    ({"username": "x"}, "attributes.username"),
    ({"email": "a@b.c"}, "attributes.email"),
    ({"email_verified": True}, "attributes.email_verified"),
    ({"roles": ["a"]}, "attributes.roles"),
    ({"groups": ["a"]}, "attributes.groups"),
    ({"tenant_id": "a"}, "attributes.tenant_id"),
    ({"": "x"}, "attributes"),
    ({"a b": "x"}, "attributes"),
    ({"é": "x"}, "attributes"),
    ({"x" * 65: "x"}, "attributes"),
    ({f"a{n}": n for n in range(65)}, "attributes"),
    ({"a": "x" * 8_200}, "attributes"),
    ({"a": "é" * 4_096}, "attributes"),
    ([], "attributes"),
    (None, "attributes"),
    ("x", "attributes"),
]


@each_of(("attributes", "field"), BAD)
def test_what_cannot_be_kept_is_refused_by_its_name(house: House, attributes: Any, field: str) -> None:
    """docs/sessions.md: names of 64 characters without a meaning of their own, plain values, 64 of them, 8 KiB."""
    for method, path, body in (
        ("POST", "/api/auth/session", {"user_id": "ada"}),
        ("PUT", "/api/auth/users/ada", {}),
    ):
        answer = house.ask(method, path, admin=True, json=body | {"attributes": attributes})
        refused(answer, 400, "INVALID_BODY")
        assert answer.json()["error"]["message"].endswith(f"See the field {field}.")


def test_an_infinite_number_is_none(house: House) -> None:
    """RFC 8259 §6: `1e999` is read as an infinity, which no JSON can say."""
    body = b'{"user_id": "ada", "attributes": {"a": 1e999}}'
    answer = house.ask("POST", "/api/auth/session", admin=True, body=body, content_type="application/json")
    refused(answer, 400, "INVALID_BODY")


def test_as_many_and_as_large_as_may_be(house: House) -> None:
    """docs/sessions.md: 64 of them; 8 KiB of JSON, counted in UTF-8."""
    assert (
        len(
            house.me(house.sign_in("a", attributes={f"a{n}": n for n in range(64)})["token"]).json()[
                "attributes"
            ]
        )
        == 64
    )
    house.sign_in("b", attributes={"a": "x" * (8 * 1024 - len('{"a":""}'))})


def test_a_claim_that_is_none_says_where_it_belongs(house: House) -> None:
    """docs/sessions.md: `claims` are OpenID Connect's; the refusal names `attributes`."""
    answer = house.ask(
        "POST", "/api/auth/session", admin=True, json={"user_id": "ada", "claims": {"department": "R&D"}}
    )
    refused(answer, 400, "INVALID_BODY")
    error = answer.json()["error"]
    assert error["message"].endswith("See the field claims.department.") and "attributes" in error["hint"]
