"""docs/errors.md: no `Host`, JSON body, session token, path or query makes a 500; every answer keeps
the shape of that page.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.http.conftest import Serve
from tests.http.driver import HOST, House, check_standing_headers, well_shaped
from tests.support.gunicorn import Answer, rsa_pem

ONE_HOUSE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
LATIN_1 = st.binary(max_size=60).map(lambda raw: raw.decode("latin-1"))
HEADER = LATIN_1 | st.text(st.characters(max_codepoint=0xFF), max_size=60)
SEGMENTS = st.sampled_from(
    [
        "api",
        "auth",
        "session",
        "sessions",
        "me",
        "jwt",
        "users",
        "oidc",
        "jwks",
        "..",
        ".",
        "",
        "%2e",
        "\0",
        "\xff",
        "healthz",
        ".well-known",
        "trusted-mint",
        "authorize",
        "token",
        "userinfo",
        "introspect",
        "revoke",
        "logout",
        "interaction",
        "interactions",
        "clients",
        "grants",
        "secret",
        "login",
    ]
)
PATHS = HEADER.map(lambda text: "/" + text) | st.lists(SEGMENTS, max_size=6).map(
    lambda parts: "/" + "/".join(parts)
)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [
        "user_id",
        "tenant_id",
        "roles",
        "claims",
        "device",
        "auth_time",
        "acr",
        "amr",
        "expires_in",
        "nonce",
        "audience",
    ]
) | st.text(max_size=8)
CLAIMS = st.dictionaries(
    st.sampled_from(["name", "email", "email_verified", "address", "updated_at", "sub"])
    | st.text(max_size=8),
    VALUES,
    max_size=4,
)
OBJECTS = st.dictionaries(FIELDS, VALUES, max_size=5) | st.builds(
    lambda claims: {"user_id": "u", "claims": claims}, CLAIMS
)
BODIES = (
    st.binary(max_size=200)
    | (OBJECTS | VALUES).map(lambda value: json.dumps(value).encode())
    | OBJECTS.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
)
READABLE = {"GET": ["/api/auth/me", "/api/auth/sessions"], "POST": ["/api/auth/refresh", "/api/auth/jwt"]}


@pytest.fixture
def house(serve: Serve) -> House:
    """The application with something of each kind configured; its issuer comes from `Host`."""
    return serve(
        PYLON_JWT_AUDIENCE="api",
        PYLON_TRUSTED_ORIGINS="https://app.example.test",
        PYLON_OIDC_PRIVATE_KEY=rsa_pem(),
        PYLON_LOGIN_URL="https://app.example.test/sign-in",
    )


OAUTH_ERRORS = {
    "invalid_request", "invalid_client", "invalid_grant", "invalid_token", "unauthorized_client",
    "unsupported_grant_type",
}  # fmt: skip


def keeps_the_shape(answer: Answer, *, method: str = "GET") -> None:
    """Check that the answer is not a server error, and has the form of docs/errors.md."""
    assert answer.status < 500 or answer.status == 501, answer
    check_standing_headers(answer)
    if answer.status >= 400 and method != "HEAD" and answer.headers["Content-Type"] == "application/json":
        if isinstance(answer.json()["error"], dict):
            well_shaped(answer)
        else:
            assert answer.json()["error"] in OAUTH_ERRORS
            assert set(answer.json()) == {"error", "error_description"}


@ONE_HOUSE
@given(host=HEADER | st.none(), protocol=st.sampled_from(["HTTP/1.0", "HTTP/1.1"]))
def test_no_host_header_makes_a_500(house: House, host: str | None, protocol: str) -> None:
    """docs/settings.md: a `Host` is answered as itself or 400 `INVALID_HOST`, nothing else."""
    answer = house.ask("GET", "/.well-known/openid-configuration", host=host, protocol=protocol)
    keeps_the_shape(answer)
    if answer.status == 200:
        assert host is None or answer.json()["issuer"].startswith("https://")
    else:
        assert well_shaped(answer)["code"] == "INVALID_HOST"


@ONE_HOUSE
@given(method=METHODS, path=PATHS, query=HEADER)
def test_no_path_or_query_makes_a_500(house: House, method: str, path: str, query: str) -> None:
    """docs/errors.md: unknown paths have the shape, known ones too."""
    keeps_the_shape(house.ask(method, path, query=query), method=method)
    keeps_the_shape(house.ask(method, path, query=query, admin=True), method=method)


@ONE_HOUSE
@given(body=BODIES, content_type=st.just("application/json") | HEADER)
def test_no_body_makes_a_500(house: House, body: bytes, content_type: str) -> None:
    """docs/endpoints.md: a body is taken, or refused as 400, 413 or 415; what was taken can be read back."""
    answer = house.ask("POST", "/api/auth/session", admin=True, body=body, content_type=content_type)
    keeps_the_shape(answer)
    assert answer.status in {201, 400, 415}
    if answer.status == 201:
        token = answer.json()["token"]
        me = house.me(token)
        assert me.status == 200
        assert me.json()["claims"] == json.loads(body).get("claims", {})
        assert house.ask("POST", "/api/auth/jwt", token=token).status == 200


@ONE_HOUSE
@given(body=BODIES, content_type=st.just("application/json") | HEADER)
def test_no_body_of_a_mint_makes_a_500(house: House, body: bytes, content_type: str) -> None:
    """docs/endpoints.md: a mint's body is taken, or refused as 400 or 415."""
    token = house.sign_in()["token"]
    answer = house.ask("POST", "/api/auth/jwt", token=token, body=body, content_type=content_type)
    keeps_the_shape(answer)
    assert answer.status in {200, 400, 415}


TOKENS = HEADER | st.from_regex(r"pylon_[0-9a-fA-F]{60,68}", fullmatch=True) | st.just("pylon_" + "0" * 64)


@ONE_HOUSE
@given(token=TOKENS, scheme=st.sampled_from(["Bearer ", "bearer  ", "", "Basic ", "Bearer\t"]))
def test_no_session_token_makes_a_500(house: House, token: str, scheme: str) -> None:
    """docs/endpoints.md: the same answer for everything that is not a live session."""
    for method, paths in READABLE.items():
        for path in paths:
            by_header = house.ask(method, path, headers={"Authorization": scheme + token})
            by_cookie = house.ask(method, path, environ={"HTTP_COOKIE": f"pylon_session={token}"})
            for answer in (by_header, by_cookie):
                assert well_shaped(answer)["code"] == "AUTH_REQUIRED"
    keeps_the_shape(
        house.ask("POST", "/api/auth/session", headers={"Authorization": scheme + token}, json={})
    )
    keeps_the_shape(house.ask("DELETE", "/api/auth/session", headers={"Authorization": scheme + token}))


NAMES = st.sampled_from(
    [
        "Authorization",
        "Cookie",
        "X-Request-Id",
        "Origin",
        "Sec-Fetch-Site",
        "If-None-Match",
        "X-Forwarded-For",
        "Forwarded",
        "Accept",
        "Transfer-Encoding",
        "Access-Control-Request-Method",
        "X-Pylon-Trusted-Timestamp",
        "X-Pylon-Trusted-Signature",
        "Range",
        "Expect",
        "User-Agent",
    ]
)


@ONE_HOUSE
@given(
    headers=st.dictionaries(NAMES, HEADER, max_size=5),
    method=METHODS,
    path=st.sampled_from(
        [
            "/oidc/jwks",
            "/api/auth/me",
            "/api/auth/jwt",
            "/api/auth/sessions/trusted-mint",
            "/api/auth/session",
            "/healthz",
            "/oidc/authorize",
            "/oidc/token",
            "/oidc/userinfo",
            "/oidc/introspect",
            "/oidc/revoke",
            "/oidc/logout",
            "/oidc/interaction/x",
            "/api/oidc/clients",
            "/api/oidc/interactions/x/login",
            "/nothing",
        ]
    ),
    environ=st.fixed_dictionaries(
        {}, optional={"REMOTE_ADDR": HEADER, "wsgi.url_scheme": st.sampled_from(["http", "https"])}
    ),
)
def test_no_header_makes_a_500(
    house: House, headers: dict[str, str], method: str, path: str, environ: dict[str, Any]
) -> None:
    """docs/errors.md: every answer keeps the shape, whatever the headers are."""
    keeps_the_shape(house.ask(method, path, headers=headers, environ=environ), method=method)


PARAMETERS = st.dictionaries(
    st.sampled_from(
        [
            "grant_type", "code", "refresh_token", "client_id", "client_secret", "redirect_uri", "code_verifier", "token",
            "access_token", "response_type", "scope", "state", "nonce", "prompt", "max_age", "claims", "id_token_hint",
            "response_mode", "code_challenge", "post_logout_redirect_uri", "form_token", "decision", "verifier",
        ]
    ),
    HEADER | st.sampled_from(["", "authorization_code", "code", "openid", "none", "{}", '{"userinfo": []}', "-1", "\0"]),
    max_size=6,
)  # fmt: skip


@ONE_HOUSE
@given(
    parameters=PARAMETERS | HEADER,
    method=st.sampled_from(["GET", "POST"]),
    path=st.sampled_from(
        ["authorize", "token", "userinfo", "introspect", "revoke", "logout", "interaction/x"]
    ),
    authorization=st.none() | HEADER.map(lambda text: f"Basic {text}") | st.just("Basic Og=="),
)
def test_no_parameters_make_a_500(
    house: House, parameters: dict[str, str] | str, method: str, path: str, authorization: str | None
) -> None:
    """docs/errors.md: what a client or a browser sends is answered as a page, a redirect, or an error in its shape."""
    text = parameters if isinstance(parameters, str) else urlencode(parameters, encoding="latin-1")
    answer = house.ask(
        method,
        f"/oidc/{path}",
        query=text if method == "GET" else "",
        body=text.encode("latin-1") if method == "POST" else None,
        content_type="application/x-www-form-urlencoded" if method == "POST" else None,
        headers={} if authorization is None else {"Authorization": authorization},
    )
    keeps_the_shape(answer)
    location = answer.headers.get("Location", "")
    assert location.isascii() and location.isprintable()
    assert not location or location.startswith(f"https://{HOST}/")


@ONE_HOUSE
@given(
    body=BODIES | st.dictionaries(st.text(max_size=8), VALUES).map(lambda value: json.dumps(value).encode()),
    target=st.sampled_from(
        [
            ("PUT", "/api/auth/users/u"),
            ("POST", "/api/oidc/clients"),
            ("PUT", "/api/oidc/clients/c"),
            ("POST", "/api/oidc/interactions/i/consent"),
        ]
    ),
)
def test_no_body_of_the_admin_api_makes_a_500(house: House, body: bytes, target: tuple[str, str]) -> None:
    """docs/endpoints.md: a body is taken, or refused in the shape."""
    keeps_the_shape(house.ask(*target, admin=True, body=body))
