"""What the rules say of answers that no deployment gives: each case changes one answer of a service that is well."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from email.utils import formatdate
from typing import Any

from service.doctor.catalogue import kinds
from service.doctor.evidence import NOBODY, Answer, Evidence, Options, UnverifiedToken
from service.doctor.reply import Certificate, Reply, WireError
from service.doctor.rules import FOLLOWS, RULES, examine
from tests.doctor.deployment import read_deployments
from tests.support.cases import each_of

NOW = 1_700_000_000
URL = "https://id.example.com"
ASKED = Options(URL, client_id="wiki", redirect_uri="https://wiki.example.com/callback", session="pylon_0")
JSON = {"content-type": "application/json"}
CORS = {"access-control-allow-origin": "*"}
LATE = {"client_id": "wiki", "state": "waiting", "tries": 4, "failure": "status 503"}
FETCHED = {
    "client_id": "wiki",
    "jwks_uri": "https://wiki.example.com/keys",
    "asked_at": 1,
    "fetched_at": 1,
    "failure": None,
}
UNFETCHED = FETCHED | {"client_id": "mail", "fetched_at": None, "failure": "no_connection"}
KEY = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "k1", "n": "AQAB", "e": "AQAB"}


def reply(status: int, body: object = None, **headers: str) -> Reply:
    """An answer; its body as JSON, or as the bytes it is."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    given = {"date": formatdate(NOW, usegmt=True)} | JSON | named
    return Reply(status, tuple(given.items()), data, False, float(NOW), "192.0.2.1", "TLSv1.3", "http/1.1")


def document(**others: object) -> dict[str, object]:
    """A discovery document of ours, with some members otherwise."""
    paths = {
        "authorization_endpoint": "authorize",
        "token_endpoint": "token",
        "userinfo_endpoint": "userinfo",
    }
    members = {name: f"{URL}/oidc/{path}" for name, path in paths.items()} | {"jwks_uri": f"{URL}/oidc/jwks"}
    lists = {
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
    }
    return {"issuer": URL, **members, **lists, **others}


def discovery(status: int = 200, **others: object) -> Reply:
    """The document, as it is sent."""
    return reply(
        status,
        document(**others),
        etag='"a"',
        cache_control="public, max-age=300",
        access_control_allow_origin="*",
    )


def unverified(alg: str = "RS256", kid: str = "k1", **claims: object) -> UnverifiedToken:
    """A token that nobody signed."""
    parts = [{"alg": alg, "kid": kid}, {"iss": URL, "exp": NOW + 600} | claims]
    text = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts)
    read = UnverifiedToken.read(f"{text}.AAAA")
    assert read is not None
    return read


READY = {"status": "ok", "database": "ok", "schema": "ok", "keys": "ok"}
RING = {
    "signing_keys": [
        {"kid": "k1", "alg": "RS256", "role": "active", "age_s": 2 * 86400},
        {"kid": "k2", "alg": "RS256", "role": "next", "age_s": 86399},
    ],
    "next_key_change": {"at": 1793491200, "alg": "RS256", "kid": "k2", "what": "signs"},
    "rotation_overdue": [],
    "keys_read_s_ago": 3,
}
WELL: Mapping[str, Answer] = {
    "discovery": discovery(),
    "probe": reply(
        404,
        {"error": {"code": "NOT_FOUND"}},
        strict_transport_security="max-age=1",
        x_content_type_options="nosniff",
    ),
    "http": reply(308, location=f"{URL}/"),
    "handshake": replace(reply(200), alpn="h2"),
    "discovery-head": reply(200),
    "discovery-options": reply(204, access_control_allow_headers="authorization, content-type", **CORS),
    "discovery-gzip": discovery(),
    "jwks": reply(200, {"keys": [KEY]}, cache_control="public, max-age=300", **CORS),
    "token": reply(401, {"error": "invalid_client"}, cache_control="no-store", **CORS),
    "userinfo": reply(
        401, {"error": "invalid_token"}, www_authenticate='Bearer error="invalid_token"', **CORS
    ),
    "authorization": reply(400, b"<html>", content_type="text/html"),
    "closed-users": reply(403, {"error": {"code": "PROXY_REFUSED"}}),
    "discovery-2": discovery(),
    "discovery-3": discovery(),
    "readyz-inside": reply(200, READY),
}


def found(changes: Mapping[str, Answer | None], **more: Any) -> list[str]:
    """The ids of what is found, where some answers are others or none."""
    answers = {name: answer for name, answer in (WELL | changes).items() if answer is not None}
    findings = examine(Evidence(ASKED, answers, **more))
    return [finding.kind.id for finding in findings if not finding.follows_from]


def test_nothing_is_found_where_all_is_well() -> None:
    """The answers that the cases below change are those of a service that is well."""
    assert found({}) == []


def everywhere(document_: Reply) -> dict[str, Answer | None]:
    """That it is this document, however often it is asked for."""
    return dict.fromkeys(("discovery", "discovery-2", "discovery-3"), document_)


def only(error: WireError) -> dict[str, Answer | None]:
    """That no question is answered."""
    return dict.fromkeys(WELL, error)


def ending(days: int) -> Certificate:
    """A certificate of ninety days that ends in some."""
    return Certificate(("id.example.com",), "", NOW - (90 - days) * 86400, NOW + days * 86400)


def at(off: int) -> UnverifiedToken:
    """A token whose time is that of a clock which is off."""
    return replace(unverified("HS256", iat=NOW + off), received_at=float(NOW))


def begun(attributes: str) -> Reply:
    """A sign-in that has begun, with its cookie."""
    location = "https://app.example.com/sign-in?interaction=i1&return_to=x"
    return reply(
        303, location=location, set_cookie=f"__Host-pylon_interaction_i1=a; Max-Age=60; {attributes}"
    )


BEGUN = begun("Secure; HttpOnly; SameSite=Lax; Path=/")
PAGE = reply(400, b'<link href="/oidc/style.css">', content_type="text/html")
REGISTRABLE = reply(400, {"error": "invalid_redirect_uri"})
APIS = {"protected_resources": ["https://tools.example.com/mcp"]}
INVALID_HOST = reply(400, {"error": {"code": "INVALID_HOST"}})

CASES: list[tuple[str, Mapping[str, Answer | None], dict[str, Any]]] = [
    ("dns-fails", only(WireError("dns", "no such name")), {}),
    ("connection-refused", only(WireError("refused", "refused")), {}),
    ("connection-refused", only(WireError("unroutable", "no route to host")), {}),
    ("too-slow", only(WireError("timeout", "")), {}),
    ("not-http", only(WireError("protocol", "")), {}),
    ("not-http", only(WireError("tls", "wrong version number")), {}),
    ("certificate-expired", only(WireError("certificate", "not yet valid", 9)), {}),
    ("certificate-wrong-name", only(WireError("certificate", "IP address mismatch", 64)), {}),
    ("certificate-incomplete-chain", only(WireError("certificate", "self-signed in chain", 19)), {}),
    ("tls-too-old", only(WireError("old-tls", "")), {}),
    ("tls-too-old", {"old-tls": reply(200)}, {}),
    ("addresses-differ", {"address 192.0.2.1": discovery(), "address 192.0.2.2": WireError("refused", "")}, {}),
    ("addresses-differ", {"address 192.0.2.1": discovery(issuer="https://old.example.com"), "address 192.0.2.2": discovery()}, {}),
    ("certificate-ends-soon", {"handshake": replace(reply(200), alpn="h2", certificate=ending(5))}, {}),
    ("refused-by-proxy", only(WireError("client-certificate", "")), {}),
    ("refused-by-proxy", only(WireError("closed", "closed")), {}),
    ("refused-by-proxy", everywhere(reply(401, b"<html>", www_authenticate='Basic realm="x"')), {}),
    ("refused-by-proxy", everywhere(reply(401, {"message": "no"}, www_authenticate="Bearer")), {}),
    ("refused-by-proxy", {"token": reply(403, b"<html>", content_type="text/html", **CORS)}, {}),
    ("refused-by-proxy", {"jwks": reply(429, b"", **CORS)}, {}),
    ("refused-by-proxy", everywhere(reply(400, b"400 No required SSL certificate was sent")), {}),
    ("refused-by-proxy", everywhere(reply(302, location="https://sso.example.org/?rd=%2Foidc")), {}),
    ("refused-by-proxy", everywhere(reply(302, location="https://login.example.org/")), {}),
    ("refused-by-proxy", everywhere(reply(403, b"<html>", cf_mitigated="challenge")), {}),
    ("well-known-redirected", everywhere(reply(301, location="https://www.example.com/")), {}),
    ("bad-gateway", {"again-1": reply(503, b""), "again-2": discovery()}, {}),
    ("bad-gateway", {"silent-1": reply(502, b""), "silent-2": reply(303)}, {}),
    ("not-answered", {"discovery-2": WireError("closed", "closed")}, {}),
    ("too-slow", {"discovery-2": WireError("timeout", "late")}, {}),
    ("body-not-handed-on", {"client-1": reply(400, {"error": "invalid_request"})}, {}),
    ("refused-by-proxy", {"agent python-requests/2.32.3": reply(403)}, {}),
    ("endpoint-unreachable", {"token": reply(301, location=f"{URL}/oidc/token/")}, {}),
    ("answers-slow", {name: replace(answer, took_s=3.0) for name, answer in WELL.items() if isinstance(answer, Reply)}, {}),
    ("not-ready", {"userinfo": reply(503, {"error": {"code": "STORE_UNAVAILABLE"}}, **CORS)}, {}),
    ("replica-without-database", {"userinfo-2": reply(503, {"error": "temporarily_unavailable"}, **CORS)}, {}),
    ("replicas-differ-database", {"mint-1": reply(401, {"error": {"code": "AUTH_REQUIRED"}}), "mint-2": reply(200, {})}, {}),
    ("replicas-differ-secret", {"accepted-1": reply(200, {"active": True}), "accepted-2": reply(200, {"active": False})}, {}),
    ("replicas-differ-secret", {"client-1": reply(400, {"error": "invalid_grant"}), "client-2": reply(401, {"error": "invalid_client"})}, {}),
    ("replicas-differ-clock", {}, {"minted": [at(0), at(2), at(-200)]}),
    ("replicas-differ-clock", {"silent-1": reply(303), "silent-2": reply(303, date=formatdate(NOW - 99, usegmt=True))}, {}),
    ("replicas-differ", {}, {"minted": [unverified("HS256", aud="api"), unverified("HS256", aud="other")]}),
    ("replicas-differ", {f"authorize-{n}": reply(303, location=f"https://{n}.example/") for n in (2, 3)}, {}),
    ("client-refused", {"silent-1": reply(400, b""), "silent-2": reply(303)}, {}),
    ("host-refused", everywhere(INVALID_HOST) | {"discovery-inside": INVALID_HOST}, {}),
    ("discovery-not-ours", everywhere(discovery(token_endpoint=f"{URL}/realms/main/token")), {}),
    ("discovery-not-ours", {"discovery-inside": reply(200, document(jwks_uri=f"{URL}/keys"))}, {}),
    ("jwks-not-ours", {"jwks": reply(200, {"keys": [KEY | {"kid": "old"}]}, **CORS), "jwks-inside": reply(200, {"keys": [KEY]})},
     {"minted": [unverified("HS256")]}),
    ("deliveries-pile-up", {"deliveries-inside": reply(200, {"deliveries": [LATE]})}, {}),
    ("deliveries-pile-up", {"deliveries-inside": reply(200, {"deliveries": [LATE | {"tries": 1, "state": "given_up"}]})}, {}),
    ("client-keys-unreachable", {"client-keys-inside": reply(200, {"client_keys": [FETCHED, UNFETCHED]})}, {}),
    ("registration-open", {"register": REGISTRABLE}, {}),
    ("audience-open", everywhere(discovery(**APIS)), {}),
    ("private-answers-cached", {"userinfo-bare": WELL["userinfo"]}, {}),
    ("private-answers-cached", {f"authorize-{n}": BEGUN for n in (2, 3)}, {}),
    ("response-header-too-large", {"unknown-client": PAGE, "silent-1": reply(303), "long-state": reply(502, b"")}, {}),
    ("header-too-large-for-proxy", {"unknown-client": PAGE, "long-field": reply(400, b"")}, {}),
    ("method-changed", {"token": reply(405, {"error": {"code": "METHOD_NOT_ALLOWED"}}, allow="POST, OPTIONS", **CORS)}, {}),
    ("cors-missing", {"token-options": reply(204)}, {}),
    ("cors-missing", {"token": reply(401, {"error": "x"}, cache_control="no-store", access_control_allow_origin="https://a.example")}, {}),
    ("cookies-stripped", {"authorize": replace(BEGUN, headers=BEGUN.headers[:-1])}, {}),
    ("cookies-stripped", {"authorize": BEGUN, "return-inside": reply(303)}, {"flow": {"return": "400"}}),
    ("cookies-rewritten", {"authorize": begun("Secure; HttpOnly; SameSite=None; Path=/")}, {}),
    ("cookies-rewritten", {"authorize": begun("Secure; HttpOnly; SameSite=Lax; Path=/app")}, {}),
    ("login-page-missing", {"authorize": BEGUN, "login-page": reply(404, b"")}, {}),
    ("errors-replaced", {"trusted-get": reply(405, {"error": {"code": "METHOD_NOT_ALLOWED"}}), "trusted-post": reply(404, b"<html>")}, {}),
    ("security-headers-missing", {"authorization": PAGE}, {}),
    ("stopped-at-consent", {}, {"flow": {"stopped": "409 to the report of a consent"}}),
    ("malformed-document", {"discovery": reply(200, b"{", content_type="text/plain")}, {}),
    ("malformed-document", {"discovery": reply(200, ["issuer"])}, {}),
    ("metadata-invalid", {"discovery": reply(200, document(issuer=5))}, {}),
    ("metadata-invalid", {"discovery": discovery(token_endpoint="/oidc/token")}, {}),
    ("metadata-invalid", {"discovery": discovery(response_types_supported="code")}, {}),
    ("metadata-invalid", {"discovery": discovery(id_token_signing_alg_values_supported=[])}, {}),
    ("endpoint-elsewhere", {"discovery": discovery(jwks_uri="https://other.example.com/jwks")}, {}),
    ("endpoint-unreachable", {"userinfo": reply(502, b"")}, {}),
    ("endpoint-unreachable", {"userinfo": WireError("timeout", "")}, {}),
    ("cache-poisoned", {"discovery-2": discovery(issuer=f"https://{NOBODY}")}, {}),
    ("cache-ignores-host", {"discovery-2": discovery(issuer="https://doctor-probe.example.com")}, {}),
    ("forwarded-host-believed", {"forged-forwarded": reply(301, location=f"https://{NOBODY}/")}, {}),
    ("any-host-answered", {"forged-nobody": discovery(issuer=f"https://{NOBODY}")}, {}),
    ("jwks-invalid", {"jwks": reply(404, {"error": {"code": "NOT_FOUND"}}, **CORS)}, {}),
    ("jwks-invalid", {"jwks": reply(200, {"keys": [KEY | {"d": "AQAB"}]}, **CORS)}, {}),
    ("jwks-invalid", {"jwks": reply(200, {"keys": [{"kty": "oct", "k": "AQAB"}]}, **CORS)}, {}),
    ("jwks-invalid", {"jwks": reply(200, {"keys": [KEY, KEY]}, **CORS)}, {}),
    ("replicas-differ-keys", {"jwks-2": reply(200, {"keys": []}, **CORS)}, {}),
    ("errors-replaced", {"token": reply(401, b"<html>", content_type="text/html", **CORS)}, {}),
    ("authorization-stripped", {"userinfo": reply(401, {}, www_authenticate="Bearer", **CORS)}, {}),
    ("body-too-large-for-proxy", {"body": WireError("protocol", "the connection broke")}, {}),
    ("header-too-large-for-proxy", {"long": reply(431, b"")}, {}),
    ("methods-refused", {"discovery-options": reply(405)}, {}),
    ("clock-off", {"probe": replace(WELL["probe"], received_at=NOW + 31.0)}, {}),  # type: ignore[type-var]
    ("clock-off", {"probe": replace(WELL["probe"], received_at=NOW - 31.0)}, {}),  # type: ignore[type-var]
    ("http-without-redirect", {"http": reply(302, location="http://www.example.com/")}, {}),
    ("inside-unreachable", {"inside": WireError("refused", "connection refused")}, {}),
    ("inside-unreachable", {"inside": reply(403, {"error": {"code": "FORBIDDEN"}})}, {}),
    ("token-invalid", {"mint-1": reply(500, {"error": {"code": "INTERNAL"}})}, {}),
    ("token-invalid", {}, {"minted": [unverified()]}),
    ("token-invalid", {}, {"minted": [unverified("ES256")]}),
    ("token-invalid", {}, {"minted": [unverified("none")]}),
    ("token-issuer", {}, {"minted": [unverified("HS256", iss="https://app.example.com")]}),
    ("flow-broken", {}, {"flow": {"token": "400 invalid_grant"}}),
    ("client-refused", {"authorize": reply(400, b"<html>", content_type="text/html")}, {}),
    ("replicas-differ", {"discovery-2": discovery(scopes_supported=["openid"])}, {}),
    ("replicas-differ", {"discovery": discovery(scopes_supported=["openid"])}, {}),
    ("forwarded-host-believed", {"forged-forwarded": discovery(issuer=f"{URL}/doctor")}, {}),
    ("cache-too-old", {"jwks": replace(WELL["jwks"], headers=(*WELL["jwks"].headers, ("age", "331")))}, {}),  # type: ignore[type-var, union-attr]
    ("cache-too-old", {
        "discovery": discovery(), "probe": replace(
            reply(404, {"error": {"code": "NOT_FOUND"}}, date=formatdate(NOW + 331, usegmt=True),
                  strict_transport_security="1", x_content_type_options="nosniff"),
            received_at=NOW + 331.0,
        )
    }, {}),
    ("cache-control-changed", {"token": reply(401, {"error": "invalid_client"}, **CORS)}, {}),
    ("cache-control-changed", {"jwks": reply(200, {"keys": [KEY]}, **CORS)}, {}),
    ("security-headers-missing", {"probe": reply(404, {"error": {"code": "X"}}, strict_transport_security="1")}, {}),
    ("hs256-only", everywhere(discovery(id_token_signing_alg_values_supported=["HS256"])), {}),
    ("http2-missing", {"handshake": reply(0)}, {}),
    ("admin-reachable", {
        "probe": replace(WELL["probe"], asked_from="127.0.0.1"),  # type: ignore[type-var]
        "closed-users": reply(403, {"error": {"code": "FORBIDDEN"}}),
    }, {}),
    ("issuer-from-host", {
        "discovery": reply(200, document(), etag='"a"', cache_control="no-store", vary="Host", **CORS)
    }, {}),
    ("not-ours", everywhere(discovery(authorization_endpoint=f"{URL}/auth")) | {"probe": reply(404, b"no")}, {}),
]  # fmt: skip


@each_of(("id_", "changes", "more"), CASES, ids=[case[0] for case in CASES])
def test_a_rule_tells_what_is_wrong(
    id_: str, changes: Mapping[str, Answer | None], more: dict[str, Any]
) -> None:
    """One answer is another one: it is the first finding, and the cause of any other."""
    assert found(changes, **more)[:1] == [id_]


@each_of(
    "changes",
    [
        {"probe": replace(WELL["probe"], received_at=NOW + 29.0)},  # type: ignore[type-var]
        {
            "probe": replace(
                WELL["probe"],
                headers=(
                    ("date", "yesterday"),
                    ("strict-transport-security", "1"),
                    ("x-content-type-options", "nosniff"),
                ),
            )
        },  # type: ignore[type-var]
        {"address 192.0.2.1": discovery(), "address 2001:db8::1": WireError("unroutable", "")},
        {"forged-host": discovery()},
        {"forged-forwarded": discovery()},
        {"http": WireError("refused", "")},
        {"old-tls": WireError("old-tls", "")},
        {"mint-1": reply(501, {"error": {"code": "JWT_NOT_CONFIGURED"}})},
    ],
)
def test_what_is_no_fault_is_not_told(changes: Mapping[str, Answer | None]) -> None:
    """A few seconds, an address that is not reachable from here, a closed port 80, a service that mints nothing."""
    assert found(changes) == []


@each_of(
    ("options", "seen"),
    [
        (Options(URL), "no client, no session"),
        (replace(ASKED, session=None), "no session"),
        (replace(ASKED, session=None, admin_url="http://127.0.0.1:4321", admin_token="x"), ""),
        (replace(ASKED, redirect_uri=None), "no client"),
    ],
)
def test_what_was_not_asked_is_said(options: Options, seen: str) -> None:
    """With nothing but the address, a note says what that leaves unseen; it is not a fault."""
    told = {each.kind.id: each for each in examine(Evidence(options, WELL))}
    assert set(told) == ({"not-all-asked"} if seen else set())
    assert not seen or told["not-all-asked"].seen == seen


@each_of(
    ("registered", "seen"),
    [
        ({"require_pkce": False}, "require_pkce is false"),
        ({}, "require_pkce is not set"),
        ({"token_endpoint_auth_method": "client_secret_basic"}, "require_pkce is not set"),
        ({"require_pkce": True}, None),
        ({"require_pkce": True, "token_endpoint_auth_method": "none"}, None),
    ],
)
def test_a_client_that_need_not_send_pkce_is_told(registered: dict[str, object], seen: str | None) -> None:
    """RFC 9700 §2.1.1: what the registration of a confidential client takes is a note, with what to change."""
    metadata = {"client_id": "wiki"} | registered
    told = examine(Evidence(ASKED, WELL | {"client-inside": reply(200, metadata)}))
    assert [(each.kind.id, each.severity, each.seen) for each in told] == (
        [("client-without-pkce", "note", seen)] if seen else []
    )
    assert [fix.line for each in told for fix in each.fixes()] == (
        ["pylon-oidc clients update wiki --set require_pkce=true"] if seen else []
    )


def test_keys_that_rotate_while_it_asks_are_no_fault() -> None:
    """Two kids in a minute are two replicas, unless both are published."""
    minted = [unverified("HS256", "k1"), unverified("HS256", "k2")]
    both = reply(200, {"keys": [KEY, KEY | {"kid": "k2"}]}, cache_control="public, max-age=300", **CORS)
    assert found({"jwks": both}, minted=minted) == []
    assert found({}, minted=minted) == ["replicas-differ-keys"]
    assert found({}, minted=minted[1:]) == ["jwks-cached-too-long"]


@each_of(
    ("headers", "is_note"),
    [
        ({"age": "40"}, True),
        ({"age": "40", "cache_control": "public, max-age=86400"}, False),
        ({"age": "400"}, False),
        ({}, False),
    ],
)
def test_keys_that_a_cache_may_still_keep_are_waited_for(headers: dict[str, str], is_note: bool) -> None:
    """After keys changed at once a cache has the earlier ones, as long as it may: no line has to be changed for that."""
    told = {"cache_control": "public, max-age=300"} | headers | CORS
    jwks = reply(200, {"keys": [KEY]}, **told)
    first, *_ = examine(Evidence(ASKED, WELL | {"jwks": jwks}, minted=[unverified("HS256", "k2")]))
    assert (first.kind.id, first.severity == "note", not first.fixes()) == (
        "jwks-cached-too-long",
        is_note,
        is_note,
    )
    assert ("40 s old, and may be kept for 300 s" in first.seen) is is_note


@each_of(
    ("parts", "seen", "fix"),
    [
        ({"schema": "behind"}, "database: ok, schema: behind, keys: ok", "pylon-oidc migrate"),
        ({"database": "unavailable"}, "database: unavailable, schema: ok, keys: ok", "pylon-oidc check"),
        ({"keys": "unavailable"}, "database: ok, schema: ok, keys: unavailable", "pylon-oidc check"),
    ],
)
def test_what_the_service_says_of_itself_is_the_cause(parts: dict[str, str], seen: str, fix: str) -> None:
    """`/readyz`, asked on the inside, names the part; that tokens fail follows from it."""
    unready = reply(503, READY | {"status": "unavailable"} | parts)
    failing = {"readyz-inside": unready, "inside": reply(503, {"error": {"code": "STORE_UNAVAILABLE"}})}
    first, second = examine(Evidence(ASKED, WELL | failing))
    assert (first.kind.id, first.seen) == ("not-ready", seen)
    assert [each.line.startswith(fix) for each in first.fixes()] == [True]
    assert (second.kind.id, second.follows_from) == ("inside-unreachable", "not-ready")


def test_the_keys_and_their_next_change_are_told() -> None:
    """docs/keys.md: key ages, roles and the next change are seen in doctor; an overdue rotation is a warning."""
    (told,) = examine(Evidence(ASKED, WELL | {"readyz-inside": reply(200, READY | RING)}))
    assert (told.kind.id, told.kind.severity) == ("signing-keys", "note")
    assert told.seen == "2026-11-01 00:00 UTC: k2 signs; RS256: active 2 days, next 0 days"
    made = RING | {"next_key_change": {"at": 0, "alg": "ES256", "kid": None, "what": "is made"}}
    (told,) = examine(Evidence(ASKED, WELL | {"readyz-inside": reply(200, READY | made)}))
    assert told.seen.startswith("1970-01-01 00:00 UTC: a key for ES256 is made; ")
    late = READY | RING | {"rotation_overdue": ["k1"]}
    told, _ = examine(Evidence(ASKED, WELL | {"readyz-inside": reply(200, late)}))
    assert (told.kind.id, told.kind.severity) == ("key-rotation-overdue", "warning")
    assert told.seen == "1 key: k1"


@each_of(
    ("metadata", "answer", "findings"),
    [
        ({}, REGISTRABLE, [("registration-open", "warning")]),
        (APIS, REGISTRABLE, [("registration-open", "note"), ("audience-open", "note")]),
        ({}, reply(400, {"error": "invalid_client_metadata"}), [("registration-open", "warning")]),
        ({}, reply(401, {"error": "invalid_token"}), []),
        ({}, reply(400, b"<html>"), []),
        ({}, reply(429, {"error": "slow_down"}), []),
        (APIS, None, [("audience-open", "note")]),
        ({"protected_resources": "x"}, None, []),
        ({"protected_resources": [1, None]}, None, []),
    ],
)
def test_what_is_open_to_strangers_is_told(
    metadata: dict[str, Any], answer: Reply | None, findings: list[tuple[str, str]]
) -> None:
    """docs/doctor/registration-open.md, audience-open.md: a warning if nothing needs it, and which APIs are open."""
    told = examine(Evidence(ASKED, WELL | everywhere(discovery(**metadata)) | {"register": answer or PAGE}))
    assert [(each.kind.id, each.severity) for each in told] == findings


def test_an_api_for_strangers_where_there_are_none_is_told() -> None:
    """docs/doctor/audience-open.md: it names the audience, and the settings without which nobody can use it."""
    (told,) = examine(Evidence(ASKED, WELL | everywhere(discovery(**APIS))))
    assert (told.seen, told.variant) == ("https://tools.example.com/mcp", "nobody")
    for opened in (
        {"registration_endpoint": f"{URL}/oidc/register"},
        {"client_id_metadata_document_supported": True},
    ):
        (told,) = examine(Evidence(ASKED, WELL | everywhere(discovery(**APIS, **opened))))
        assert told.variant == ""


@each_of(
    ("failure", "line"),
    [
        ("address_not_public", "PYLON_OUTBOUND_ALLOW=mail.example.com"),
        ("certificate_refused", "PYLON_OUTBOUND_CA_FILE=/etc/pylon-oidc/ca.pem"),
        ("no_connection", "pylon-oidc clients update mail --set jwks_uri=https://…"),
        ("the answer has status 404", None),
        ("answer_malformed", None),
    ],
)
def test_keys_that_cannot_be_fetched_are_told_with_client_cause_and_line(
    failure: str, line: str | None
) -> None:
    """docs/doctor/client-keys-unreachable.md: which client, why, and what helps; a client without any keys comes first."""
    mail = UNFETCHED | {"jwks_uri": "https://mail.example.com/keys", "failure": failure}
    listed = reply(200, {"client_keys": [FETCHED | {"failure": "timeout"}, FETCHED, mail]})
    (told,) = examine(Evidence(ASKED, WELL | {"client-keys-inside": listed}))
    assert (told.kind.id, told.severity) == ("client-keys-unreachable", "warning")
    assert told.seen == f"mail: {failure}, at https://mail.example.com/keys; and 1 more client"
    assert [fix.line for fix in told.fixes()] == ([] if line is None else [line])
    assert told.filled(told.kind.verify) == "pylon-oidc clients keys mail"


@each_of(
    "answer",
    [
        reply(200, {"client_keys": [FETCHED]}),
        reply(200, {"client_keys": {}}),
        reply(200, ["x"]),
        reply(403, {}),
    ],
)
def test_keys_that_came_or_an_answer_of_another_kind_are_no_finding(answer: Reply) -> None:
    """An older service has no such address, and anything may come back."""
    assert found({"client-keys-inside": answer}) == []


@each_of(
    ("said", "kind", "severity", "seen"),
    [
        ({"ring_refused": True}, "ring-refused", "error", "ring_refused in readyz"),
        (
            {"ring_older": {"version": 3, "seen": 5}},
            "ring-older",
            "warning",
            "version 3, where version 5 was seen",
        ),
        (
            {"ring_older": {"version": "3", "seen": None}},
            "ring-older",
            "warning",
            "version ?, where version ? was seen",
        ),
    ],
)
def test_a_ring_that_is_not_ours_or_older_is_told(
    said: dict[str, object], kind: str, severity: str, seen: str
) -> None:
    """docs/keys.md: what readyz says of a ring that somebody wrote or put back into the database, doctor says too."""
    told, _ = examine(Evidence(ASKED, WELL | {"readyz-inside": reply(200, READY | RING | said)}))
    assert (told.kind.id, told.kind.severity, told.seen) == (kind, severity, seen)


@each_of("said", [{"ring_refused": "x"}, {"ring_older": [1]}, {"ring_refused": None, "ring_older": 5}])
def test_nonsense_of_a_ring_is_nothing(said: dict[str, object]) -> None:
    """What the inside address says is believed as little as anything else."""
    (told,) = examine(Evidence(ASKED, WELL | {"readyz-inside": reply(200, READY | RING | said)}))
    assert told.kind.id == "signing-keys"


@each_of("at", [None, "soon", -(10**30), 10**30, True, 1.5])
def test_a_moment_that_is_none_is_a_question_mark(at: object) -> None:
    """What the inside address says is believed as little as anything else."""
    odd = RING | {"next_key_change": {"at": at}, "signing_keys": [5, {"age_s": "old"}]}
    (told,) = examine(Evidence(ASKED, WELL | {"readyz-inside": reply(200, READY | odd)}))
    assert told.kind.id == "signing-keys"


def test_port_80_of_another_site_is_not_ours() -> None:
    """With https on another port, port 80 may belong to something else."""
    elsewhere = f"{URL}:8443"
    answers = WELL | {"http": reply(200, b"<html>", content_type="text/html")}
    told = examine(Evidence(Options(elsewhere), answers))
    assert "http-without-redirect" not in {finding.kind.id for finding in told}
    told = examine(Evidence(Options(elsewhere), answers | {"http": discovery()}))
    assert "http-without-redirect" in {finding.kind.id for finding in told}


def test_a_cause_comes_before_what_follows_from_it() -> None:
    """A consequence names its cause, and stands right behind it; notes come last."""
    answers = WELL | {
        "token": reply(404, b"<html>", content_type="text/html", **CORS),
        "handshake": reply(0),
        "body": reply(413, b""),
        "http": reply(200, document()),
    }
    told = examine(Evidence(ASKED, answers, flow={"token": "404"}))
    assert [(each.kind.id, each.follows_from) for each in told] == [
        ("endpoint-not-ours", ""),
        ("body-too-large-for-proxy", "endpoint-not-ours"),
        ("flow-broken", "endpoint-not-ours"),
        ("http-without-redirect", ""),
        ("http2-missing", ""),
    ]


def test_what_follows_and_from_what_are_findings() -> None:
    """`FOLLOWS` names only findings that exist."""
    known = set(kinds())
    assert set(FOLLOWS) <= known
    assert set().union(*FOLLOWS.values()) <= known


def test_every_finding_is_seen_by_a_test() -> None:
    """What may be found is found: in a deployment, or in a case of this file."""
    seen = {each.expect for each in read_deployments("deployments")} | {case[0] for case in CASES}
    above = {"client-without-pkce", "not-all-asked", "not-ready", "signing-keys", "key-rotation-overdue"}
    above |= {"ring-refused", "ring-older"}
    assert seen | above == set(kinds())


def test_no_rule_minds_what_came() -> None:
    """Bad types everywhere give findings, and never an exception: each answer in turn is each kind of nonsense."""
    nonsense: list[Answer] = [
        reply(200, b"\xff\xfe"),
        reply(200, []),
        reply(200, {"issuer": [], "keys": {"a": 1}, "error": {"code": 5}}),
        reply(200, {"keys": [5, {"kid": []}]}),
        reply(302, location="http://[::1"),
        reply(401, {"error": []}, www_authenticate="\x00", date="0"),
        WireError("timeout", ""),
    ]
    for name in WELL:
        for answer in nonsense:
            examine(
                Evidence(Options(URL), WELL | {name: answer}, minted=[unverified("none", iss=5, exp="x")])
            )
    assert len(RULES) > 20


@each_of("url", ["http://localhost:4321", "http://127.0.0.1:4321", URL])
def test_a_developers_own_machine_has_no_outside(url: str) -> None:
    """What `make run` serves is open only to that machine; the same answers at a public address are faults."""
    answers = WELL | {
        "closed-dev": reply(200, b"<html>", content_type="text/html"),
        "forged-nobody": discovery(issuer=f"https://{NOBODY}"),
    }
    told = {finding.kind.id for finding in examine(Evidence(Options(url), answers))}
    outside = {"dev-sign-in-open", "any-host-answered"}
    assert told & outside == (outside if url == URL else set())
