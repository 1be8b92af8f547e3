"""The admin API for clients: `/api/oidc/clients`."""

from __future__ import annotations

import sqlite3
from typing import Any

from tests.http.driver import refused
from tests.provider.conftest import CLIENTS, ServeProvider
from tests.provider.driver import CALLBACK, SECRET, Provider, RelyingParty
from tests.support.cases import each_of

ALL = "/api/oidc/clients"
FULL: dict[str, Any] = {
    "client_name": "Wiki", "redirect_uris": [CALLBACK], "post_logout_redirect_uris": ["https://rp.example.org/out"],
    "client_uri": "https://rp.example.org", "logo_uri": "https://rp.example.org/logo.png", "policy_uri": "https://rp.example.org/p",
    "tos_uri": "https://rp.example.org/t", "contacts": ["ops@example.org"], "scope": "openid email", "first_party": True,
    "grant_types": ["authorization_code"], "response_types": ["code"], "token_endpoint_auth_method": "client_secret_post",
    "id_token_signed_response_alg": "RS256", "application_type": "web", "require_pkce": False, "resource_ids": ["api"],
}  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"], "first_party": False, "id_token_claims": "scope",
    "resource_ids": [], "scope": "openid profile email address phone offline_access roles groups", "source": "database",
    "claim_names": {}, "allow_any_scheme": False, "default_scopes": [], "logout_by_hint": True,
}  # fmt: skip


def _add(op: Provider, **metadata: Any) -> dict[str, Any]:
    answer = op.app.call("POST", ALL, {"redirect_uris": [CALLBACK]} | metadata)
    assert answer.status == 201, answer
    made: dict[str, Any] = answer.json()
    return made


def _signs_in(op: Provider, client_id: str, secret: str | None, method: str = "client_secret_basic") -> bool:
    rp = RelyingParty(op.house, client_id, secret=secret, method=method)
    request = rp.request()
    code = op.authorize(op.browser(), request)["code"]
    return rp.redeem(request, code).status == 200


def test_registering_answers_metadata_and_a_secret_once(op: Provider) -> None:
    """201 metadata with `client_id` (it starts with `c_`) and, once, `client_secret` (RFC 7591 §3.2.1)."""
    made = _add(op)
    assert made["client_id"].startswith("c_") and len(made["client_secret"]) >= 32
    assert {name: made[name] for name in DEFAULTS} == DEFAULTS and "require_pkce" not in made
    assert made["redirect_uris"] == [CALLBACK]
    shown = op.app.call("GET", f"{ALL}/{made['client_id']}")
    assert shown.status == 200 and shown.json() == {
        name: value for name, value in made.items() if name != "client_secret"
    }
    assert made["client_secret"] not in op.app.call("GET", ALL).body.decode()


def test_every_member_comes_back_as_it_was_given(op: Provider) -> None:
    """Clients carry RFC 7591 names, and ours (RFC 7591 §2)."""
    made = _add(op, **FULL)
    assert {name: made[name] for name in FULL} == FULL


def test_a_registered_client_signs_in(op: Provider) -> None:
    """docs/endpoints.md: the database adds clients: confidential ones by either method, and public ones."""
    made = _add(op)
    assert _signs_in(op, made["client_id"], made["client_secret"])
    assert _signs_in(op, made["client_id"], made["client_secret"], "client_secret_post")
    public = _add(op, token_endpoint_auth_method="none")
    assert "client_secret" not in public and public["token_endpoint_auth_method"] == "none"
    assert _signs_in(op, public["client_id"], None)


def test_an_id_and_a_secret_of_ones_own_are_taken(op: Provider) -> None:
    """docs/endpoints.md: `client_id` and `client_secret` may be given, as in `PYLON_OIDC_CLIENTS`."""
    made = _add(op, client_id="wiki", client_secret=SECRET)
    assert (made["client_id"], made["client_secret"]) == ("wiki", SECRET)
    assert "client_secret" not in op.app.call("GET", f"{ALL}/wiki").json()
    assert _signs_in(op, "wiki", SECRET)


def test_a_secret_is_a_hash_at_rest(op: Provider) -> None:
    """docs/security.md: secrets are kept as one fast hash, and never logged."""
    made = _add(op)
    with sqlite3.connect(op.house.settings.data_dir / "pylon.db") as database:
        dump = "\n".join(database.iterdump())
    assert made["client_id"] in dump and made["client_secret"] not in dump
    assert made["client_secret"] not in op.house.log.getvalue()


def test_the_list_has_both_sources(op: Provider) -> None:
    """docs/endpoints.md: `{"clients": [metadata]}`; `source` is `environment` or `database`; never a secret."""
    made = _add(op)
    answer = op.app.call("GET", ALL)
    sources = {client["client_id"]: client["source"] for client in answer.json()["clients"]}
    assert list(answer.json()) == ["clients"]
    assert sources == {str(client["client_id"]): "environment" for client in CLIENTS} | {
        made["client_id"]: "database"
    }
    assert SECRET not in answer.body.decode() and "secret" not in {
        name for client in answer.json()["clients"] for name in client
    }


@each_of(
    ("metadata", "member", "hint"),
    [
        ({"redirect_uri": [CALLBACK]}, "redirect_uri", "redirect_uris"),
        ({"client_nam": "x"}, "client_nam", "client_name"),
        ({"frist_party": True}, "frist_party", "first_party"),
        ({"scopes": "openid"}, "scopes", "scope"),
        ({"jwks_uri": "https://x.example/"}, "jwks_uri", ""),
        ({"redirect_uris": None}, "redirect_uris", "JSON array"),
        ({"redirect_uris": []}, "redirect_uris", "at least one"),
        ({"redirect_uris": [1]}, "redirect_uris", ""),
        ({"client_id": ""}, "client_id", ""),
        ({"client_id": "a b"}, "client_id", "visible ASCII"),
        ({"client_secret": "short"}, "client_secret", "32"),
        ({"client_secret": 1}, "client_secret", ""),
        ({"first_party": "yes"}, "first_party", "true or false"),
        ({"scope": "openid nonsense"}, "scope", "openid"),
        ({"scope": ["openid"]}, "scope", ""),
        ({"grant_types": ["implicit"]}, "grant_types", "authorization_code"),
        ({"grant_types": ["password"]}, "grant_types", ""),
        ({"response_types": ["token"]}, "response_types", "code"),
        (
            {"token_endpoint_auth_method": "client_secret_jwt"},
            "token_endpoint_auth_method",
            "client_secret_basic",
        ),
        ({"token_endpoint_auth_method": "none", "client_secret": SECRET}, "client_secret", "public"),
        ({"token_endpoint_auth_method": "none", "require_pkce": False}, "require_pkce", "public"),
        ({"id_token_signed_response_alg": "none"}, "id_token_signed_response_alg", "RS256"),
        ({"application_type": "service"}, "application_type", "web"),
        ({"client_name": "a\nb"}, "client_name", ""),
        ({"client_name": "x" * 256}, "client_name", "255"),
        ({"contacts": "ops@example.org"}, "contacts", ""),
        ({"resource_ids": [""]}, "resource_ids", ""),
    ],
)
def test_wrong_metadata_is_told_by_its_member(
    op: Provider, metadata: dict[str, Any], member: str, hint: str
) -> None:
    """400 `INVALID_CLIENT_METADATA` naming the member, an unknown one with a did-you-mean (RFC 7591 §3.2.2)."""
    error = refused(
        op.app.call("POST", ALL, {"redirect_uris": [CALLBACK]} | metadata), 400, "INVALID_CLIENT_METADATA"
    )
    assert error["message"].endswith(f"See the field {member}.")
    assert error["hint"].startswith(member) and hint in error["hint"]
    assert SECRET not in str(error)


def test_a_hostile_member_is_not_repeated(op: Provider) -> None:
    """docs/security.md: no echo of hostile input: an odd name is not named."""
    answer = op.app.call("POST", ALL, {"redirect_uris": [CALLBACK], "<script>alert(1)</script>": 1})
    error = refused(answer, 400, "INVALID_CLIENT_METADATA")
    assert "script" not in str(error)


@each_of("body", ["[]", '"x"', '{"a":1,"a":2}', "{", '{"x":NaN}', "null"])
def test_a_body_that_is_no_object_is_refused(op: Provider, body: str) -> None:
    """docs/endpoints.md: 400 INVALID_BODY."""
    refused(op.ask("POST", ALL, admin=True, body=body.encode()), 400, "INVALID_BODY")


def test_a_taken_id_is_a_conflict(op: Provider) -> None:
    """docs/endpoints.md: 409 `CLIENT_EXISTS`, for one of either source."""
    _add(op, client_id="taken")
    for client_id in ("c-basic", "taken"):
        again = op.app.call("POST", ALL, {"redirect_uris": [CALLBACK], "client_id": client_id})
        refused(again, 409, "CLIENT_EXISTS")


@each_of(("method", "tail"), [("PUT", ""), ("DELETE", ""), ("POST", "/secret")])
def test_the_environments_are_read_only(op: Provider, method: str, tail: str) -> None:
    """docs/endpoints.md: 409 `CLIENT_READ_ONLY` for one of the environment."""
    body = {"redirect_uris": [CALLBACK]} if method == "PUT" else None
    refused(op.app.call(method, f"{ALL}/c-basic{tail}", body), 409, "CLIENT_READ_ONLY")


@each_of(("method", "tail"), [("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/secret")])
@each_of("client_id", ["nobody", "\0", "x" * 500])
def test_an_unknown_client_is_not_found(op: Provider, client_id: str, method: str, tail: str) -> None:
    """docs/endpoints.md: 404 `NOT_FOUND`."""
    body = {"redirect_uris": [CALLBACK]} if method == "PUT" else None
    refused(op.app.call(method, f"{ALL}/{client_id}{tail}", body), 404, "NOT_FOUND")


def test_changing_replaces_the_metadata_and_keeps_the_secret(op: Provider) -> None:
    """`PUT`: 200 with the metadata; what is left out is at its default again (RFC 7592 §2.2)."""
    made = _add(op, client_name="Old", first_party=True)
    answer = op.app.call(
        "PUT", f"{ALL}/{made['client_id']}", {"redirect_uris": [CALLBACK], "client_name": "New"}
    )
    assert answer.status == 200
    assert (answer.json()["client_name"], answer.json()["first_party"]) == ("New", False)
    assert answer.json() == op.app.call("GET", f"{ALL}/{made['client_id']}").json()
    assert _signs_in(op, made["client_id"], made["client_secret"])


@each_of(
    ("change", "member"),
    [({"client_id": "other"}, "client_id"), ({"client_secret": SECRET}, "client_secret"), ({"client_secret": 1}, "client_secret"), ({"token_endpoint_auth_method": "none"}, "token_endpoint_auth_method"),
     ({"redirect_uris": ["http://rp.example.org/"]}, "redirect_uris"), ({"nonsense": 1}, "nonsense")],
)  # fmt: skip
def test_a_wrong_change_changes_nothing(op: Provider, change: dict[str, Any], member: str) -> None:
    """docs/endpoints.md: 400 naming the member; id and secret are not changed here."""
    made = _add(op)
    answer = op.app.call("PUT", f"{ALL}/{made['client_id']}", {"redirect_uris": [CALLBACK]} | change)
    assert member in refused(answer, 400, "INVALID_CLIENT_METADATA")["message"]
    assert _signs_in(op, made["client_id"], made["client_secret"])


def test_removing_ends_it(op: Provider) -> None:
    """docs/endpoints.md: `DELETE` 204 without a body; 404 afterwards; its tokens stop working."""
    made = _add(op)
    rp = RelyingParty(op.house, made["client_id"], secret=made["client_secret"])
    request = rp.request(scope="openid offline_access")
    tokens = rp.redeem(request, op.authorize(op.browser(), request)["code"]).json()
    answer = op.app.call("DELETE", f"{ALL}/{made['client_id']}")
    assert (answer.status, answer.body) == (204, b"")
    refused(op.app.call("GET", f"{ALL}/{made['client_id']}"), 404, "NOT_FOUND")
    assert rp.refresh(tokens["refresh_token"]).json()["error"] == "invalid_client"
    assert rp.userinfo(tokens["access_token"]).status == 401
    assert op.browser().go(request.url).is_page(400)


@each_of(("age_s", "old_is_good"), [(0, True), (3599, True), (3600, False)])
def test_a_rotated_secret_overlaps_for_an_hour(op: Provider, age_s: int, old_is_good: bool) -> None:
    """docs/endpoints.md: 200 with the new secret, the old one good for an hour, to the second."""
    made = _add(op)
    answer = op.app.call("POST", f"{ALL}/{made['client_id']}/secret")
    assert answer.status == 200
    new = answer.json()["client_secret"]
    assert answer.json()["client_id"] == made["client_id"] and new != made["client_secret"]
    op.clock.advance(age_s)
    assert _signs_in(op, made["client_id"], new)
    assert _signs_in(op, made["client_id"], made["client_secret"]) is old_is_good


def test_a_second_rotation_takes_nobodys_hour_away(op: Provider) -> None:
    """docs/endpoints.md: each old secret is good for an hour from its own rotation, however soon the next one follows."""
    made = _add(op)
    path = f"{ALL}/{made['client_id']}/secret"
    secrets = [made["client_secret"]]
    for _ in range(3):
        secrets.append(op.app.call("POST", path).json()["client_secret"])
        op.clock.advance(1200)
    good = [_signs_in(op, made["client_id"], secret) for secret in secrets]
    assert good == [False, True, True, True]


def test_old_secrets_do_not_pile_up(op: Provider) -> None:
    """docs/security.md: each is compared at every authentication: the ten before the newest are kept, in their hour."""
    made = _add(op)
    for _ in range(11):
        newest = op.app.call("POST", f"{ALL}/{made['client_id']}/secret").json()["client_secret"]
    assert _signs_in(op, made["client_id"], newest)
    assert not _signs_in(op, made["client_id"], made["client_secret"])


def test_what_registering_showed_may_be_sent_back(op: Provider) -> None:
    """A change that holds the client's own secret is taken, and leaves it (RFC 7592 §2.2)."""
    made = _add(op)
    answer = op.app.call("PUT", f"{ALL}/{made['client_id']}", made | {"client_name": "New"})
    assert (answer.status, answer.json()["client_name"]) == (200, "New"), answer
    assert _signs_in(op, made["client_id"], made["client_secret"])


def test_a_public_client_has_no_secret_to_rotate(op: Provider) -> None:
    """docs/endpoints.md: there is nothing to rotate."""
    made = _add(op, token_endpoint_auth_method="none")
    refused(op.app.call("POST", f"{ALL}/{made['client_id']}/secret"), 404, "NOT_FOUND")


def test_of_an_id_in_both_the_environment_wins(op: Provider, serve_provider: ServeProvider) -> None:
    """docs/endpoints.md: the environment's metadata and secret count, and it is read-only."""
    made = _add(op, client_id="both", client_name="stored")
    fixed = {
        "client_id": "both",
        "client_secret": SECRET,
        "client_name": "fixed",
        "redirect_uris": [CALLBACK],
    }
    later = serve_provider([fixed], PYLON_DATA_DIR=str(op.house.settings.data_dir))
    (shown,) = later.app.call("GET", ALL).json()["clients"]
    assert (shown["client_name"], shown["source"]) == ("fixed", "environment")
    assert _signs_in(later, "both", SECRET) and not _signs_in(later, "both", made["client_secret"])
    refused(later.app.call("DELETE", f"{ALL}/both"), 409, "CLIENT_READ_ONLY")


def test_a_client_is_never_called_as_the_minted_audience(serve_provider: ServeProvider) -> None:
    """docs/security.md: an ID token would be forged by a minted one: refused at registration."""
    op = serve_provider(PYLON_JWT_AUDIENCE="api")
    answer = op.app.call("POST", ALL, {"client_id": "api", "redirect_uris": [CALLBACK]})
    assert "client_id" in refused(answer, 400, "INVALID_CLIENT_METADATA")["message"]


@each_of("client_id", ["https://rp.example.org/", "a/b", "a/secrets"])
def test_an_id_may_be_an_address(op: Provider, client_id: str) -> None:
    """docs/endpoints.md: an id is visible ASCII, slashes too: it is found under its own name."""
    _add(op, client_id=client_id)
    assert op.app.call("GET", f"{ALL}/{client_id}").json()["client_id"] == client_id


@each_of(
    ("method", "path"),
    [("GET", ALL), ("POST", ALL), ("GET", f"{ALL}/c-basic"), ("PUT", f"{ALL}/c-basic"), ("DELETE", f"{ALL}/c-basic"),
     ("POST", f"{ALL}/c-basic/secret"), ("GET", "/api/oidc/grants"), ("DELETE", "/api/oidc/grants/x"), ("PUT", "/api/auth/users/ada"),
     ("GET", "/api/oidc/interactions/x"), ("POST", "/api/oidc/interactions/x/login"), ("POST", "/api/oidc/interactions/x/consent"),
     ("POST", "/api/oidc/interactions/x/reject")],
)  # fmt: skip
@each_of("token", [None, "x" * 40, SECRET])
def test_the_admin_token_comes_first(op: Provider, method: str, path: str, token: str | None) -> None:
    """docs/endpoints.md: 403 `FORBIDDEN` without the admin token, before the body and the id are read; a session's token does not count."""
    refused(op.ask(method, path, token=token, body=b"nonsense"), 403, "FORBIDDEN")
    assert op.ask(method, path, token=op.app.session()["token"], body=b"x").status == 403
