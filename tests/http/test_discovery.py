"""docs/endpoints.md: discovery, exactly, and as an HTTP document."""

from __future__ import annotations

import json

import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from authlib.oidc.discovery import OpenIDProviderMetadata

from tests.http.conftest import Serve
from tests.http.driver import HOST, ISSUER, House, check_standing_headers, refused
from tests.support.cases import each_of
from tests.support.gunicorn import rsa_pem

pytestmark = pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")
OPENID = "/.well-known/openid-configuration"
OAUTH = "/.well-known/oauth-authorization-server"
BOTH = each_of("path", [OPENID, OAUTH])
#: Of the tokens themselves, then by scope (OpenID Connect Core §5.4), then ours.
#: What clients with keys sign with (RFC 8414 §2).
KEY_ALGS = ["RS256", "PS256", "ES256", "Ed25519", "EdDSA"]
CLAIMS = [
    "iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "at_hash", "sid", "jti",
    "name", "family_name", "given_name", "middle_name", "nickname", "preferred_username", "profile", "picture",
    "website", "gender", "birthdate", "zoneinfo", "locale", "updated_at",
    "email", "email_verified", "address", "phone_number", "phone_number_verified",
    "roles", "tenant_id", "groups",
]  # fmt: skip


def _document(issuer: str, algs: list[str]) -> dict[str, object]:
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/oidc/authorize",
        "token_endpoint": f"{issuer}/oidc/token",
        "jwks_uri": f"{issuer}/oidc/jwks",
        "userinfo_endpoint": f"{issuer}/oidc/userinfo",
        "introspection_endpoint": f"{issuer}/oidc/introspect",
        "revocation_endpoint": f"{issuer}/oidc/revoke",
        "end_session_endpoint": f"{issuer}/oidc/logout",
        "device_authorization_endpoint": f"{issuer}/oidc/device_authorization",
        "scopes_supported": [
            "openid",
            "profile",
            "email",
            "address",
            "phone",
            "offline_access",
            "roles",
            "groups",
        ],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "form_post"],
        "grant_types_supported": [
            "authorization_code",
            "refresh_token",
            "urn:ietf:params:oauth:grant-type:device_code",
        ],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": algs,
        "token_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt",
            "none",
        ],
        "token_endpoint_auth_signing_alg_values_supported": KEY_ALGS,
        "introspection_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt",
        ],
        "introspection_endpoint_auth_signing_alg_values_supported": KEY_ALGS,
        "revocation_endpoint_auth_methods_supported": [
            "client_secret_basic",
            "client_secret_post",
            "private_key_jwt",
            "none",
        ],
        "revocation_endpoint_auth_signing_alg_values_supported": KEY_ALGS,
        "code_challenge_methods_supported": ["S256"],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "display_values_supported": ["page", "popup"],
        "claim_types_supported": ["normal"],
        "claims_supported": CLAIMS,
        "claims_parameter_supported": True,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
        "authorization_response_iss_parameter_supported": True,
    }


@BOTH
def test_the_default_document_is_exactly_this(house: House, path: str) -> None:
    """The members, 200, `application/json`, no auth; algorithms are `["HS256"]` when only that is
    configured.
    """
    answer = house.ask("GET", path)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == _document(ISSUER, ["HS256"])


@each_of("alg", ["HS256", "RS256"])
def test_with_an_rsa_key_the_algorithms_are_those_of_the_published_keys(serve: Serve, alg: str) -> None:
    """Those of the published keys otherwise (RS256 first whenever an RSA key is there)."""
    house = serve(PYLON_OIDC_PRIVATE_KEY=rsa_pem(), PYLON_JWT_ALG=alg)
    assert house.ask("GET", OPENID).json() == _document(ISSUER, ["RS256"])


def test_both_paths_serve_the_same_bytes(house: House) -> None:
    """Same document."""
    assert house.ask("GET", OPENID).body == house.ask("GET", OAUTH).body


@BOTH
def test_from_host_the_document_is_not_to_be_stored(house: House, path: str) -> None:
    """`Cache-Control`: `no-store` with `Vary: Host` when it comes from `Host` (RFC 9111 §4.1)."""
    answer = house.ask("GET", path)
    assert answer.headers.all("Cache-Control") == ["no-store"]
    assert answer.headers.all("Vary") == ["Host"]


@BOTH
def test_with_a_configured_issuer_it_is_cached_for_300_seconds(serve: Serve, path: str) -> None:
    """`public, max-age=300` when the issuer is configured."""
    answer = serve(PYLON_OIDC_ISSUER="https://id.example.com").ask("GET", path)
    assert answer.headers.all("Cache-Control") == ["public, max-age=300"]
    assert "Host" not in answer.headers.get("Vary", "")


@each_of("configured", [None, "https://id.example.com"])
@each_of("path", [OPENID, OAUTH, "/oidc/jwks"])
def test_head_is_get_without_its_body(serve: Serve, path: str, configured: str | None) -> None:
    """`GET`/`HEAD`; RFC 9110 §9.3.2: the same header fields."""
    house = serve(PYLON_OIDC_ISSUER=configured)
    got, head = house.ask("GET", path), house.ask("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    for name in ("ETag", "Content-Type", "Cache-Control", "Access-Control-Allow-Origin", "Content-Length"):
        assert head.headers[name] == got.headers[name]


@each_of("issuer", ["https://id.example.com", "https://id.example.com:8443/tenant"])
def test_authlibs_validators_have_nothing_against_it(serve: Serve, issuer: str) -> None:
    """Authlib's validators of OpenID Connect Discovery §3 and RFC 8414 §2, an RSA key being there."""
    house = serve(PYLON_OIDC_ISSUER=issuer, PYLON_OIDC_PRIVATE_KEY=rsa_pem())
    document = house.ask("GET", issuer.partition(".com")[2].removeprefix(":8443") + OPENID).json()
    OpenIDProviderMetadata(document).validate()
    AuthorizationServerMetadata(document).validate()


@each_of("path", [OPENID, OAUTH, "/oidc/jwks"])
def test_the_etag_is_strong_and_stands_for_the_bytes(house: House, path: str) -> None:
    """Strong `ETag` (RFC 9110 §8.8.3): the same bytes, the same tag; other bytes, another."""
    one, two = house.ask("GET", path), house.ask("GET", path)
    etag = one.headers["ETag"]
    assert etag.startswith('"') and etag.endswith('"')
    assert (one.body, etag) == (two.body, two.headers["ETag"])
    other = house.ask("GET", path, host="other.example.test")
    assert (other.body == one.body) == (other.headers["ETag"] == etag)


@each_of("path", [OPENID, OAUTH, "/oidc/jwks"])
@each_of("method", ["GET", "HEAD"])
@each_of("form", ["{}", "W/{}", '"other", {}', '{},"other"', "*", ' W/"x" ,  {} '])
def test_what_the_client_has_is_304(house: House, path: str, method: str, form: str) -> None:
    """With 304 (RFC 9110 §13.1.2: weak comparison; §15.4.5: ETag, Cache-Control, Vary are repeated)."""
    full = house.ask("GET", path)
    etag = full.headers["ETag"]
    answer = house.ask(method, path, headers={"If-None-Match": form.format(etag)})
    assert (answer.status, answer.body) == (304, b"")
    for name in ("ETag", "Cache-Control", "Vary", "Access-Control-Allow-Origin"):
        assert answer.headers.all(name) == full.headers.all(name)
    check_standing_headers(answer)


@each_of("path", [OPENID, "/oidc/jwks"])
@each_of("value", ['"other"', "", "x", '"', '""', "W/", "\xff", ","])
def test_what_the_client_has_not_is_200(house: House, path: str, value: str) -> None:
    """RFC 9110 §13.1.2: no match, the whole document."""
    answer = house.ask("GET", path, headers={"If-None-Match": value})
    assert answer.status == 200
    assert answer.json()


@each_of("path", [OPENID, OAUTH, "/oidc/jwks"])
def test_anybody_may_read_it_without_credentials(house: House, path: str) -> None:
    """CORS `*`, also in answer to `OPTIONS`."""
    answer = house.ask("GET", path, headers={"Origin": "https://spa.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    preflight = house.ask(
        "OPTIONS", path, headers={"Origin": "https://spa.example", "Access-Control-Request-Method": "GET"}
    )
    assert preflight.status in {200, 204}
    assert preflight.headers["Access-Control-Allow-Origin"] == "*"
    assert "GET" in preflight.headers["Access-Control-Allow-Methods"]
    for each in (answer, preflight):
        assert "Access-Control-Allow-Credentials" not in each.headers
        check_standing_headers(each)


@each_of("path", [OPENID, OAUTH, "/oidc/jwks"])
@each_of("method", ["POST", "PUT", "DELETE", "PATCH", "FOO"])
def test_it_is_only_to_be_read(house: House, path: str, method: str) -> None:
    """docs/errors.md: 405 (`METHOD_NOT_ALLOWED`) with `Allow`."""
    answer = house.ask(method, path)
    refused(answer, 405, "METHOD_NOT_ALLOWED")
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


ISSUERS = [
    "https://id.example.com",
    "https://id.example.com:8443",
    "http://localhost:4321",
    "https://[2001:db8::1]",
]


@each_of("issuer", ISSUERS)
@each_of("host", [HOST, "evil.example", "a b", "", "localhost"])
def test_no_host_changes_a_configured_issuer(serve: Serve, issuer: str, host: str) -> None:
    """docs/settings.md: `PYLON_OIDC_ISSUER`. No `Host` changes anything then."""
    answer = serve(PYLON_OIDC_ISSUER=issuer).ask("GET", OPENID, host=host)
    assert answer.json() == _document(issuer, ["HS256"])


@each_of("prefix", ["/tenant", "/a/b"])
def test_an_issuer_with_a_path_serves_everything_under_it(serve: Serve, prefix: str) -> None:
    """docs/settings.md: an issuer with a path serves everything under that path, and the inserted forms (RFC 8414 §3.1)."""
    issuer = f"https://id.example.com{prefix}"
    house = serve(PYLON_OIDC_ISSUER=issuer)
    expected = _document(issuer, ["HS256"])
    for path in (prefix + OPENID, prefix + OAUTH, OPENID + prefix, OAUTH + prefix):
        answer = house.ask("GET", path)
        assert (answer.status, answer.json()) == (200, expected)
        assert house.ask("HEAD", path).status == 200
    assert house.ask("GET", f"{prefix}/oidc/jwks").json() == {"keys": []}
    begun = house.ask("POST", f"{prefix}/api/auth/session", admin=True, json={"user_id": "u"}).json()
    assert house.ask("POST", f"{prefix}/api/auth/jwt", token=begun["token"]).status == 200


@each_of(
    "path",
    [
        "/",
        OPENID,
        OAUTH,
        "/oidc/jwks",
        "/oidc/authorize",
        "/oidc/token",
        "/oidc/userinfo",
        "/oidc/logout",
        "/oidc/style.css",
        "/oidc/interaction/x",
        "/api/oidc/clients",
        "/api/auth/users/u",
        "/api/auth/me",
        "/api/auth/jwt",
        "/tenant",
        "/tenant/",
        "/tenant/healthz",
        "/tenant/readyz",
        "/tenant2" + OPENID,
        "/TENANT" + OPENID,
        OPENID + "/tenant/",
        OPENID + "/other",
        "/.well-known/jwks.json/tenant",
        "/tenant/tenant" + OPENID,
    ],
)
def test_outside_the_issuers_path_there_is_nothing(serve: Serve, path: str) -> None:
    """docs/settings.md: and 404 outside it, except health and the inserted forms."""
    house = serve(PYLON_OIDC_ISSUER="https://id.example.com/tenant")
    for method in ("GET", "POST", "HEAD", "FOO"):
        answer = house.ask(method, path)
        assert answer.status == 404
        if method != "HEAD":
            refused(answer, 404, "NOT_FOUND")


def test_health_stays_at_the_root_of_an_issuer_with_a_path(serve: Serve) -> None:
    """docs/settings.md: 404 outside it, except health."""
    house = serve(PYLON_OIDC_ISSUER="https://id.example.com/tenant")
    assert house.ask("GET", "/healthz").status == 200
    assert house.ask("GET", "/readyz").status == 200


def test_every_endpoint_of_the_document_is_mounted(serve: Serve) -> None:
    """The document is derived from what is mounted: no endpoint that it names is 404."""
    for issuer in ("https://id.example.com", "https://id.example.com/tenant"):
        house = serve(PYLON_OIDC_ISSUER=issuer)
        prefix = issuer.removeprefix("https://id.example.com")
        document = house.ask("GET", prefix + OPENID).json()
        urls = [value for member, value in document.items() if member.endswith(("_endpoint", "_uri"))]
        assert len(urls) == 8
        for url in urls:
            path = url.removeprefix("https://id.example.com")
            assert house.ask("GET", path).status != 404


def test_many_hosts_do_not_fill_the_memory(house: House) -> None:
    """RFC 9112 §3.2: hosts are anybody's to make up: the cache of derived documents is bounded, and stays right."""
    for number in range(300):
        host = f"h{number}.example.test"
        assert house.ask("GET", OPENID, host=host).json()["issuer"] == f"https://{host}"
    assert (
        json.loads(house.ask("GET", OPENID, host="h0.example.test").body)["issuer"]
        == "https://h0.example.test"
    )
