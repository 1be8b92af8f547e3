"""docs/endpoints.md: `POST /api/auth/jwt`."""

from __future__ import annotations

from typing import Any

import jwt as pyjwt

from tests.http.conftest import Serve
from tests.http.driver import HOST, ISSUER, START, House, refused, unverified_claims
from tests.support.cases import each_of
from tests.support.gunicorn import SECRET, rsa_pem

JWT = "/api/auth/jwt"
AUDIENCE = "https://api.example.com"
REGISTERED = {"iss", "sub", "iat", "exp", "jti", "sid"}
NO_TIMES: Any = {"verify_exp": False, "verify_iat": False}


def test_a_mint_answers_token_type_and_end(house: House) -> None:
    """200 `{"token", "token_type": "Bearer", "expires_at", "expires_in"}`, `Cache-Control: no-store`."""
    answer = house.ask("POST", JWT, token=house.sign_in()["token"])
    assert answer.status == 200
    assert set(answer.json()) == {"token", "token_type", "expires_at", "expires_in"}
    assert answer.json() | {"token": ""} == {
        "token": "",
        "token_type": "Bearer",
        "expires_at": START + 3600,
        "expires_in": 3600,
    }
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "application/json"


def test_pyjwt_verifies_an_hs256_token_by_secret_and_issuer(house: House) -> None:
    """A downstream service that has only the shared secret verifies the token with a stock library."""
    begun = house.sign_in()
    token = house.ask("POST", JWT, token=begun["token"]).json()["token"]
    claims = pyjwt.decode(token, SECRET, algorithms=["HS256"], issuer=ISSUER, options=NO_TIMES)
    assert set(claims) == REGISTERED
    assert (claims["sub"], claims["sid"], claims["iat"], claims["exp"]) == (
        "user-1",
        begun["sid"],
        START,
        START + 3600,
    )
    assert pyjwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}


def test_pyjwt_verifies_an_rs256_token_by_the_jwks(serve: Serve) -> None:
    """`kid` for asymmetric keys: the one in the JWKS, whose key verifies the token."""
    house = serve(PYLON_JWT_ALG="RS256", PYLON_OIDC_PRIVATE_KEY=rsa_pem(), PYLON_JWT_AUDIENCE=AUDIENCE)
    token = house.ask("POST", JWT, token=house.sign_in()["token"]).json()["token"]
    (jwk,) = house.ask("GET", "/oidc/jwks").json()["keys"]
    assert pyjwt.get_unverified_header(token) == {"alg": "RS256", "typ": "JWT", "kid": jwk["kid"]}
    key = pyjwt.PyJWK(jwk).key
    claims = pyjwt.decode(
        token, key, algorithms=["RS256"], issuer=ISSUER, audience=AUDIENCE, options=NO_TIMES
    )
    assert set(claims) == REGISTERED | {"aud"}


def test_a_token_carries_tenant_and_roles_where_there_are_any(house: House) -> None:
    """And `aud`, `tenant_id`, `roles` where there are any; nothing else of the session, no `nbf`."""
    begun = house.sign_in(
        tenant_id="acme", roles=["dev"], claims={"email": "a@b.c"}, acr="2", amr=["pwd"], device="Firefox"
    )
    claims = house.mint(begun["token"])
    assert set(claims) == REGISTERED | {"tenant_id", "roles"}
    assert (claims["tenant_id"], claims["roles"]) == ("acme", ["dev"])


def test_two_tokens_differ_in_their_jti(house: House) -> None:
    """RFC 7519 §4.1.7: `jti` is unique to the JWT."""
    token = house.sign_in()["token"]
    assert house.mint(token)["jti"] != house.mint(token)["jti"]


@each_of(
    ("lifetime", "left_s", "expires_in"),
    [("60", 600, 60), ("600", 600, 600), ("601", 600, 600), ("86400", 10, 10)],
)
def test_a_token_never_outlives_its_session(
    serve: Serve, lifetime: str, left_s: int, expires_in: int
) -> None:
    """A token never outlives its session."""
    house = serve(PYLON_JWT_LIFETIME_SECS=lifetime)
    answer = house.ask("POST", JWT, token=house.sign_in(expires_in=left_s)["token"]).json()
    assert (answer["expires_in"], answer["expires_at"]) == (expires_in, START + expires_in)
    assert unverified_claims(answer["token"])["exp"] == START + expires_in


@each_of(
    ("setting", "body", "aud"),
    [
        (None, None, None),
        (None, {}, None),
        (AUDIENCE, None, AUDIENCE),
        (AUDIENCE, {}, AUDIENCE),
        (AUDIENCE, {"audience": AUDIENCE}, AUDIENCE),
    ],
)
def test_the_audience_is_the_default_or_the_one_asked_for(
    serve: Serve, setting: str | None, body: Any, aud: str | None
) -> None:
    """Body: none, or `{"audience": "…"}`; docs/settings.md: `PYLON_JWT_AUDIENCE` is the default `aud`."""
    house = serve(PYLON_JWT_AUDIENCE=setting)
    options = {} if body is None else {"json": body}
    assert house.mint(house.sign_in()["token"], **options).get("aud") == aud


@each_of("setting", [None, AUDIENCE])
@each_of("asked", ["", "https://other.example", AUDIENCE + "/", AUDIENCE.upper(), "\0", "*"])
def test_an_unknown_audience_is_refused(serve: Serve, setting: str | None, asked: str) -> None:
    """400 `UNKNOWN_AUDIENCE` when the audience is neither `PYLON_JWT_AUDIENCE` nor that of a policy."""
    house = serve(PYLON_JWT_AUDIENCE=setting)
    answer = house.ask("POST", JWT, token=house.sign_in()["token"], json={"audience": asked})
    refused(answer, 400, "UNKNOWN_AUDIENCE")


@each_of("asked", [None, 1, True, [AUDIENCE], {"x": 1}, []])
def test_an_audience_is_one_string(serve: Serve, asked: Any) -> None:
    """A wrong type is 400 `INVALID_BODY`, naming the field."""
    house = serve(PYLON_JWT_AUDIENCE=AUDIENCE)
    answer = house.ask("POST", JWT, token=house.sign_in()["token"], json={"audience": asked})
    assert "audience" in refused(answer, 400, "INVALID_BODY")["message"]


@each_of("field", ["aud", "Audience", "sub", "lifetime", "claims"])
def test_a_mint_takes_no_other_field(house: House, field: str) -> None:
    """An unknown field is 400 `INVALID_BODY`; nobody sets claims at the mint."""
    answer = house.ask("POST", JWT, token=house.sign_in()["token"], json={field: "x"})
    assert field in refused(answer, 400, "INVALID_BODY")["message"]


def test_an_audience_in_the_query_takes_no_part(serve: Serve) -> None:
    """The audience is the body's."""
    house = serve(PYLON_JWT_AUDIENCE=AUDIENCE)
    claims = house.mint(house.sign_in()["token"], query="audience=https://evil.example")
    assert claims["aud"] == AUDIENCE


def test_an_empty_body_needs_no_content_type(house: House) -> None:
    """Body: none."""
    token = house.sign_in()["token"]
    assert house.ask("POST", JWT, token=token, body=b"", content_type=None).status == 200
    assert house.ask("POST", JWT, token=token, body=b"", content_type="application/json").status == 200
    assert house.ask("POST", JWT, token=token, body=b"", content_type="text/plain").status == 200


@each_of("state", ["none", "unknown", "expired", "revoked", "refreshed", "locked out"])
def test_every_session_that_does_not_live_gets_the_same_401(house: House, state: str) -> None:
    """401 `AUTH_REQUIRED` (no, unknown, expired or revoked session; one answer for all)."""
    token: str | None = house.sign_in(expires_in=10)["token"]
    match state:
        case "none":
            token = None
        case "unknown":
            token = "pylon_" + "0" * 64
        case "expired":
            house.clock.advance(10)
        case "revoked":
            house.ask("DELETE", "/api/auth/session", token=token)
        case "refreshed":
            house.ask("POST", "/api/auth/refresh", token=token)
        case "locked out":
            house.ask("DELETE", "/api/auth/users/user-1/sessions", admin=True)
    error = refused(house.ask("POST", JWT, token=token), 401, "AUTH_REQUIRED")
    assert set(error) == {"code", "message", "request_id"}
    assert error["message"] == "A live session is required."


def test_without_a_secret_the_mint_is_501_with_a_hint(serve: Serve) -> None:
    """501 `JWT_NOT_CONFIGURED` with a hint while HS256 has no secret."""
    house = serve(PYLON_JWT_SECRET=None)
    error = refused(house.ask("POST", JWT, token=house.sign_in()["token"]), 501, "JWT_NOT_CONFIGURED")
    assert "PYLON_JWT_SECRET" in error["hint"]


def test_the_checks_of_a_mint_come_in_their_order(serve: Serve) -> None:
    """Checked in this order: 401, 413/415/400, 501."""
    house = serve(PYLON_JWT_SECRET=None)
    token = house.sign_in()["token"]
    bad: list[tuple[dict[str, Any], int, str]] = [
        ({"body": b" " * 65_537, "content_type": "text/plain"}, 413, "BODY_TOO_LARGE"),
        ({"body": b"{", "content_type": "text/plain"}, 415, "UNSUPPORTED_MEDIA_TYPE"),
        ({"body": b"{"}, 400, "INVALID_BODY"),
        ({"json": {"audience": "x"}}, 400, "UNKNOWN_AUDIENCE"),
        ({}, 501, "JWT_NOT_CONFIGURED"),
    ]
    for options, status, code in bad:
        refused(house.ask("POST", JWT, **options, host="a b"), 400, "INVALID_HOST")
        refused(house.ask("POST", JWT, **options), 401, "AUTH_REQUIRED")
        refused(house.ask("POST", JWT, **options, token=token), status, code)


@each_of(
    ("environ", "host", "iss"),
    [
        ({}, HOST, ISSUER),
        ({}, "ID.Example.Test:8443", "https://id.example.test:8443"),
        ({"PYLON_DEV_MODE": "1"}, "localhost:4321", "http://localhost:4321"),
        ({"PYLON_OIDC_ISSUER": "https://id.example.com"}, HOST, "https://id.example.com"),
        ({"PYLON_JWT_ISSUER": "urn:app"}, HOST, "urn:app"),
        ({"PYLON_JWT_ISSUER": "urn:app", "PYLON_OIDC_ISSUER": "https://id.example.com"}, HOST, "urn:app"),
    ],
)
def test_iss_is_the_issuer_unless_another_is_set(
    serve: Serve, environ: dict[str, str], host: str, iss: str
) -> None:
    """docs/settings.md: one function gives the `iss` of every token, but minted ones where `PYLON_JWT_ISSUER` is set;
    OpenID Connect Discovery §4.3: the issuer is the same in the document and in tokens.
    """
    house = serve(**environ)
    assert house.mint(house.sign_in()["token"], host=host)["iss"] == iss
    if "PYLON_JWT_ISSUER" not in environ:
        document = house.ask("GET", "/.well-known/openid-configuration", host=host).json()
        assert document["issuer"] == iss


def test_no_key_is_hs256_and_rs256_at_once(serve: Serve) -> None:
    """docs/settings.md: `PYLON_JWT_ALG` is the algorithm of minted tokens, whichever keys there are."""
    pem = rsa_pem()
    for alg in ("HS256", "RS256"):
        house = serve(PYLON_JWT_ALG=alg, PYLON_OIDC_PRIVATE_KEY=pem)
        token = house.ask("POST", JWT, token=house.sign_in()["token"]).json()["token"]
        assert pyjwt.get_unverified_header(token)["alg"] == alg
