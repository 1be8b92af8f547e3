"""Section 2 of the behaviours: userinfo, and the claims that scopes and the `claims` parameter give."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from tests.http.driver import refused
from tests.provider.browser import FORM
from tests.provider.driver import CLAIMS, Provider
from tests.support.cases import each_of

SCOPES = {
    "profile": [
        "name", "family_name", "given_name", "middle_name", "nickname", "preferred_username", "profile", "picture",
        "website", "gender", "birthdate", "zoneinfo", "locale", "updated_at",
    ],
    "email": ["email", "email_verified"],
    "address": ["address"],
    "phone": ["phone_number", "phone_number_verified"],
}  # fmt: skip


def _ask(op: Provider, how: str, token: str) -> Any:
    """Userinfo, in one of the ways to show a token."""
    bearer, body = {"Authorization": f"Bearer {token}"}, urlencode({"access_token": token}).encode()
    options: dict[str, dict[str, Any]] = {
        "get": {"method": "GET", "headers": bearer},
        "post-header": {"method": "POST", "headers": bearer},
        "post-header-form": {"method": "POST", "headers": bearer, "body": b"", "content_type": FORM},
        "post-body": {"method": "POST", "body": body, "content_type": FORM},
        "post-body-charset": {"method": "POST", "body": body, "content_type": f"{FORM}; charset=UTF-8"},
    }
    return op.ask(path="/oidc/userinfo", **options[how])


@each_of("how", ["get", "post-header", "post-header-form", "post-body", "post-body-charset"])
def test_userinfo_takes_the_token_in_three_ways(op: Provider, how: str) -> None:
    """docs/conformance.md 2.6, 2.7, 2.8: GET and POST with the header, POST with the body: 200 JSON, sub as in the ID token (Core §5.3.1)."""
    signed = op.sign_in()
    answer = _ask(op, how, signed.access_token)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json() == {"sub": signed.claims["sub"]}
    assert answer.headers["Cache-Control"] == "no-store"


@each_of(
    ("line", "scopes"),
    [
        ("2.10", ["profile"]),
        ("2.11", ["email"]),
        ("2.12", ["address"]),
        ("2.13", ["phone"]),
        ("2.14", list(SCOPES)),
    ],
)
def test_a_scope_gives_its_claims_at_userinfo(op: Provider, line: str, scopes: list[str]) -> None:
    """docs/conformance.md 2.10, 2.11, 2.12, 2.13, 2.14: exactly the scope's claims, of their JSON types (Core §5.4)."""
    signed = op.sign_in(scope=" ".join(["openid", *scopes]), fields={"claims": dict(CLAIMS)})
    wanted = {name: CLAIMS[name] for scope in scopes for name in SCOPES[scope]}
    assert op.rp().userinfo(signed.access_token).json() == {"sub": "ada"} | wanted, line


def test_roles_and_tenant_are_a_scope_of_ours(op: Provider) -> None:
    """docs/endpoints.md: scope `roles` gives `roles` and `tenant_id`, and nobody else gets them."""
    told = {"roles": ["dev", "ops"], "tenant_id": "acme"}
    with_it = op.sign_in(scope="openid roles", fields=told)
    assert op.rp().userinfo(with_it.access_token).json() == {"sub": "ada"} | told
    without = op.sign_in(scope="openid profile", fields=told)
    assert op.rp().userinfo(without.access_token).json() == {"sub": "ada"}


def test_an_unknown_claim_is_left_out(op: Provider) -> None:
    """docs/conformance.md 2.10: a claim that is not known is omitted, never null or empty (Core §5.3.2)."""
    signed = op.sign_in(
        scope="openid profile email", fields={"claims": {"name": "Ada", "email_verified": False}}
    )
    assert op.rp().userinfo(signed.access_token).json() == {
        "sub": "ada",
        "name": "Ada",
        "email_verified": False,
    }


@each_of(
    "detail",
    [None, {"essential": True}, {"essential": False}, {"value": "x"}, {"values": ["x"]}, {"unknown": 1}],
)
def test_a_claim_can_be_asked_for_alone(op: Provider, detail: Any) -> None:
    """docs/conformance.md 2.35: `claims` asks for one at userinfo, or in the ID token, without its scope (Core §5.5)."""
    claims: Any = {"claims": {"name": "Ada", "email": "a@b.c"}}
    at_userinfo = op.sign_in(claims=json.dumps({"userinfo": {"name": detail}}), fields=claims)
    assert op.rp().userinfo(at_userinfo.access_token).json() == {"sub": "ada", "name": "Ada"}
    assert "name" not in at_userinfo.claims
    in_token = op.sign_in(claims=json.dumps({"id_token": {"email": detail}}), fields=claims)
    assert in_token.claims["email"] == "a@b.c"
    assert op.rp().userinfo(in_token.access_token).json() == {"sub": "ada"}


@each_of("asked", ["{}", '{"userinfo":null}', '{"userinfo":{"nonsense":null}}', '{"other":{"x":1}}'])
def test_a_claims_request_for_the_unknown_does_no_harm(op: Provider, asked: str) -> None:
    """docs/conformance.md 2.35: claims that are not understood are ignored (Core §5.5.1)."""
    assert op.rp().userinfo(op.sign_in(claims=asked).access_token).json() == {"sub": "ada"}


@each_of(
    "asked",
    ["", " ", "x", "[]", "1", "null", '{"userinfo":[]}', '{"id_token":{"name":1}}', '{"id_token":{"name":{"essential":1}}}',
     '{"id_token":{"name":{"values":"x"}}}', "[" * 5000, '{"userinfo":{"name":[]}}'],
)  # fmt: skip
def test_a_malformed_claims_request_is_refused(op: Provider, asked: str) -> None:
    """docs/conformance.md 2.35: invalid_request (Core §5.5); an empty one counts as absent (RFC 6749 §3.1)."""
    shown = op.authorize(op.browser(), op.rp().request(claims=asked))
    assert ("code" in shown) is (asked == "")
    assert asked == "" or shown["error"] == "invalid_request"


def test_a_claims_request_gives_no_more_than_the_clients_scope(op: Provider) -> None:
    """docs/endpoints.md: what is outside the client's `scope` is left out, asked for by `claims` too."""
    asked = json.dumps({"userinfo": {"name": None, "email": None}, "id_token": {"phone_number": None}})
    signed = op.sign_in(client_id="c-narrow", claims=asked, fields={"claims": dict(CLAIMS)})
    assert op.rp("c-narrow").userinfo(signed.access_token).json() == {"sub": "ada", "email": CLAIMS["email"]}
    assert "phone_number" not in signed.claims


def test_what_the_app_says_last_counts(op: Provider) -> None:
    """docs/endpoints.md: the user record, as the app last sent it, feeds userinfo and refreshed ID tokens."""
    asked = json.dumps({"id_token": {"name": None}})
    signed = op.sign_in(
        scope="openid profile offline_access", claims=asked, fields={"claims": {"name": "Ada"}}
    )
    op.app.call("PUT", "/api/auth/users/ada", {"claims": {"name": "Countess"}})
    assert op.rp().userinfo(signed.access_token).json()["name"] == "Countess"
    fresh = op.rp().refresh(signed.tokens["refresh_token"]).json()
    assert op.rp().verified(fresh["id_token"])["name"] == "Countess"


@each_of("token", ["x", "pylon_" + "0" * 64, "é", "a b"])
@each_of("method", ["GET", "POST"])
def test_a_bad_token_is_invalid_token(op: Provider, method: str, token: str) -> None:
    """401 with error in `WWW-Authenticate: Bearer` and in JSON, nothing echoed (RFC 6750 §3, §3.1)."""
    answer = op.ask(
        method, "/oidc/userinfo", headers={"Authorization": f"Bearer {token}".encode().decode("latin-1")}
    )
    assert (answer.status, answer.json()["error"]) == (401, "invalid_token")
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer error="invalid_token", error_description="')
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


@each_of("authorization", [None, "Basic eDp5", "bearer", "Token x"])
def test_without_a_token_the_challenge_says_no_error(op: Provider, authorization: str | None) -> None:
    """No credentials: 401 with `Bearer` and no error (RFC 6750 §3.1)."""
    answer = op.ask(
        "GET", "/oidc/userinfo", headers={} if authorization is None else {"Authorization": authorization}
    )
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_token_in_the_query_does_not_count(op: Provider) -> None:
    """A token in the address is not taken (RFC 6750 §2.3; RFC 9700 §4.3.2)."""
    query = urlencode({"access_token": op.sign_in().access_token})
    assert op.ask("GET", "/oidc/userinfo", query=query).status == 401
    assert op.ask("POST", "/oidc/userinfo", query=query, body=b"", content_type=FORM).status == 401


def test_two_tokens_at_once_are_refused(op: Provider) -> None:
    """Header and body together are invalid_request (RFC 6750 §2, §3.1)."""
    token = op.sign_in().access_token
    body = urlencode({"access_token": token}).encode()
    answer = op.ask("POST", "/oidc/userinfo", token=token, body=body, content_type=FORM)
    assert (answer.status, answer.json()["error"]) == (400, "invalid_request")
    twice = body + b"&" + body
    answer = op.ask("POST", "/oidc/userinfo", body=twice, content_type=FORM)
    assert (answer.status, answer.json()["error"]) == (400, "invalid_request")


def test_the_scheme_has_no_case(op: Provider) -> None:
    """docs/conformance.md 2.6: `bearer` and `BEARER` are the scheme too (RFC 9110 §11.1)."""
    token = op.sign_in().access_token
    for scheme in ("bearer", "BEARER", "bEaReR"):
        assert op.ask("GET", "/oidc/userinfo", headers={"Authorization": f"{scheme} {token}"}).status == 200


def test_an_access_token_ends_to_the_second(op: Provider) -> None:
    """An access token lives 3,600 s (RFC 6749 §5.1)."""
    signed = op.sign_in()
    op.clock.advance(3599)
    assert op.rp().userinfo(signed.access_token).status == 200
    op.clock.advance(1)
    assert op.rp().userinfo(signed.access_token).status == 401


@each_of("method", ["PUT", "DELETE", "PATCH"])
def test_other_methods_are_not_allowed(op: Provider, method: str) -> None:
    """docs/endpoints.md: 405 with `Allow`, in the `/api` shape."""
    answer = op.ask(method, "/oidc/userinfo")
    refused(answer, 405, "METHOD_NOT_ALLOWED")
    assert {"GET", "POST"} <= set(answer.headers["Allow"].replace(" ", "").split(","))
