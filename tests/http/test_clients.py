"""docs/endpoints.md, docs/errors.md: `/api/oidc/clients` and its kin: for the admin token; the codes of their refusals."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.http.conftest import Serve
from tests.http.driver import ISSUER, House, refused
from tests.support.cases import each_of
from tests.support.gunicorn import ADMIN, Answer, rsa_pem

CLIENTS = "/api/oidc/clients"
CALLBACK = "https://rp.example/cb"
SECRET = "f3c1d09b7e5a4826" * 4
FIXED = {"client_id": "fixed", "redirect_uris": [CALLBACK], "client_secret": SECRET}


@pytest.fixture
def house(serve: Serve) -> House:
    """A provider with one client of the environment, and an audience for minted tokens."""
    return serve(
        PYLON_OIDC_ISSUER=ISSUER,
        PYLON_OIDC_PRIVATE_KEY=rsa_pem(),
        PYLON_LOGIN_URL="https://app.example.test/sign-in",
        PYLON_JWT_AUDIENCE="api",
        PYLON_OIDC_CLIENTS=json.dumps([FIXED]),
    )


def _add(house: House, **members: Any) -> Answer:
    return house.ask("POST", CLIENTS, admin=True, json={"redirect_uris": [CALLBACK], **members})


def test_a_client_is_made_shown_changed_and_removed(house: House) -> None:
    """201 with the secret, shown only now; then metadata without it; then gone."""
    made = _add(house, client_name="One")
    assert made.status == 201
    shown = made.json()
    client_id, secret = shown["client_id"], shown.pop("client_secret")
    assert len(secret) >= 43
    path = f"{CLIENTS}/{client_id}"
    assert house.ask("GET", path, admin=True).json() == shown
    listed = house.ask("GET", CLIENTS, admin=True).json()["clients"]
    assert sorted(client["client_id"] for client in listed) == sorted([client_id, "fixed"])
    changed = house.ask("PUT", path, admin=True, json=shown | {"client_name": "Two"})
    assert (changed.status, changed.json()) == (200, shown | {"client_name": "Two"})
    rotated = house.ask("POST", f"{path}/secret", admin=True)
    assert (rotated.status, set(rotated.json())) == (200, {"client_id", "client_secret"})
    for answer in (changed, house.ask("GET", CLIENTS, admin=True), house.ask("GET", path, admin=True)):
        for hidden in (secret, rotated.json()["client_secret"], SECRET, '"secrets"'):
            assert hidden not in answer.body.decode()
    gone = house.ask("DELETE", path, admin=True)
    assert (gone.status, gone.body) == (204, b"")
    for method in ("GET", "DELETE"):
        refused(house.ask(method, path, admin=True), 404, "NOT_FOUND")


@each_of("client_id", ["https://rp.example/", "a/b", "/", "secret", "a/secrets", "a//b"])
def test_a_client_id_may_hold_slashes(house: House, client_id: str) -> None:
    """A client id is visible ASCII, often an address; what was made under it is found under it."""
    assert _add(house, client_id=client_id).status == 201
    path = f"{CLIENTS}/{client_id}"
    assert house.ask("GET", path, admin=True).json()["client_id"] == client_id
    assert house.ask("POST", f"{path}/secret", admin=True).json()["client_id"] == client_id
    assert house.ask("DELETE", path, admin=True).status == 204


def test_a_taken_id_is_409(house: House) -> None:
    """docs/errors.md: 409 `CLIENT_EXISTS`, for one of the environment too; what is there stays."""
    assert _add(house, client_id="one", client_name="first").status == 201
    for client_id in ("one", "fixed"):
        refused(_add(house, client_id=client_id, client_name="second"), 409, "CLIENT_EXISTS")
    assert house.ask("GET", f"{CLIENTS}/one", admin=True).json()["client_name"] == "first"


def test_a_client_of_the_environment_is_not_changed_here(house: House) -> None:
    """docs/errors.md: 409 `CLIENT_READ_ONLY`."""
    path = f"{CLIENTS}/fixed"
    for request_of in (
        {"method": "PUT", "path": path, "json": {"redirect_uris": ["https://other.example"]}},
        {"method": "DELETE", "path": path},
        {"method": "POST", "path": f"{path}/secret"},
    ):
        refused(house.ask(**request_of, admin=True), 409, "CLIENT_READ_ONLY")
    assert house.ask("GET", path, admin=True).json()["redirect_uris"] == [CALLBACK]


WRONG: dict[str, dict[str, Any]] = {
    "redirect_uris": {"redirect_uris": ["http://rp.example/cb"]},
    "redirect_uri": {"redirect_uri": CALLBACK},
    "client_id": {"client_id": "api"},
    "client_secret": {"client_secret": "canary7f3a"},
    "scope": {"scope": "admin"},
    "token_endpoint_auth_method": {"token_endpoint_auth_method": "private_key_jwt"},
}


@each_of("member", WRONG)
def test_a_wrong_member_is_refused_by_its_name(house: House, member: str) -> None:
    """docs/errors.md: 400 `INVALID_CLIENT_METADATA`: the message names the member, the hint says what to write; no secret."""
    error = refused(_add(house, **WRONG[member]), 400, "INVALID_CLIENT_METADATA")
    assert f" {member}." in error["message"]
    assert error["hint"].startswith(f"{member}: ") and "; " in error["hint"]
    assert "canary" not in str(error)
    assert len(house.ask("GET", CLIENTS, admin=True).json()["clients"]) == 1


@each_of("name", ["<script>alert(1)</script>", "a b", "\n", "é", "x" * 65, "", "\x1b[31m"])
def test_a_hostile_member_name_is_not_echoed(house: House, name: str) -> None:
    """docs/errors.md: no echo of hostile input, in the hint either."""
    answer = _add(house, **{name: 1})
    error = refused(answer, 400, "INVALID_CLIENT_METADATA")
    assert error["hint"] == "a member: is not known; leave it out"
    assert "See the field" not in error["message"]


def test_a_change_keeps_id_secret_and_kind(house: House) -> None:
    """The id cannot be changed, the secret is not set here, and a confidential client stays one."""
    _add(house, client_id="one")
    for more, member in [
        ({"client_id": "two"}, "client_id"),
        ({"client_secret": SECRET}, "client_secret"),
        ({"token_endpoint_auth_method": "none"}, "token_endpoint_auth_method"),
    ]:
        body = {"redirect_uris": [CALLBACK], **more}
        answer = house.ask("PUT", f"{CLIENTS}/one", admin=True, json=body)
        assert f" {member}." in refused(answer, 400, "INVALID_CLIENT_METADATA")["message"]
    refused(house.ask("PUT", f"{CLIENTS}/nobody", admin=True, json={}), 404, "NOT_FOUND")
    _add(house, client_id="public", token_endpoint_auth_method="none")
    refused(house.ask("POST", f"{CLIENTS}/public/secret", admin=True), 404, "NOT_FOUND")


ADMIN_ROUTES = [
    ("GET", CLIENTS),
    ("POST", CLIENTS),
    ("GET", f"{CLIENTS}/fixed"),
    ("PUT", f"{CLIENTS}/fixed"),
    ("DELETE", f"{CLIENTS}/fixed"),
    ("POST", f"{CLIENTS}/fixed/secret"),
    ("GET", "/api/oidc/grants"),
    ("DELETE", "/api/oidc/grants/x"),
    ("GET", "/api/oidc/interactions/x"),
    ("POST", "/api/oidc/interactions/x/login"),
    ("POST", "/api/oidc/interactions/x/consent"),
    ("POST", "/api/oidc/interactions/x/reject"),
]


@each_of(("method", "path"), ADMIN_ROUTES)
def test_it_is_for_the_admin_token(house: House, serve: Serve, method: str, path: str) -> None:
    """403 `FORBIDDEN` without it, whatever the body or the id is; unset, the admin API is closed."""
    token = house.sign_in()["token"]
    for headers in ({}, {"Authorization": f"Bearer {token}"}, {"Authorization": f"Basic {ADMIN}"}):
        refused(house.ask(method, path, headers=headers, body=b"{"), 403, "FORBIDDEN")
    closed = serve(PYLON_ADMIN_TOKEN=None)
    error = refused(closed.ask(method, path, headers={"Authorization": "Bearer None"}), 403, "FORBIDDEN")
    assert "PYLON_ADMIN_TOKEN" in error["hint"]


def test_a_report_of_another_step_is_409(house: House) -> None:
    """docs/errors.md: 409 `WRONG_STEP`: consent, for an interaction that waits for a sign-in; 404 for one that is not there."""
    query = {
        "response_type": "code",
        "client_id": "fixed",
        "redirect_uri": CALLBACK,
        "scope": "openid",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM",
        "code_challenge_method": "S256",
    }
    sent = house.ask("GET", "/oidc/authorize", query=urlencode(query))
    (interaction,) = parse_qs(urlsplit(sent.headers["Location"]).query)["interaction"]
    path = f"/api/oidc/interactions/{interaction}/consent"
    refused(house.ask("POST", path, admin=True, json={}), 409, "WRONG_STEP")
    nobodys = "/api/oidc/interactions/nobodys/consent"
    refused(house.ask("POST", nobodys, admin=True, json={}), 404, "NOT_FOUND")


@each_of("query", ["", "user_id=", "user=u", "user_id=a&user_id=b"])
def test_grants_are_of_one_user(house: House, query: str) -> None:
    """docs/errors.md: 400 `INVALID_REQUEST` unless one user is named."""
    refused(house.ask("GET", "/api/oidc/grants", query=query, admin=True), 400, "INVALID_REQUEST")


@each_of("user_id", ["nobody", "%00", "a" * 300, "%27%20OR%201=1"])
def test_an_unknown_user_has_let_nobody_do_anything(house: House, user_id: str) -> None:
    """None for an unknown user; another's grant is not found."""
    answer = house.ask("GET", "/api/oidc/grants", query=f"user_id={user_id}", admin=True)
    assert (answer.status, answer.json()) == (200, {"grants": []})
    refused(house.ask("DELETE", "/api/oidc/grants/nobodys", admin=True), 404, "NOT_FOUND")
