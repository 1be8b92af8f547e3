"""docs/settings.md over HTTP: which `Host` is answered, and what takes no part in the issuer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.http.conftest import Serve
from tests.http.driver import HOST, ISSUER, House, refused, unverified_claims
from tests.support.cases import each_of

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors/hosts.json").read_text())
LATIN_1 = [host for host in VECTORS["refused"] if host.isascii() or host == "\u00e9"]
pytestmark = pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")
DISCOVERY = "/.well-known/openid-configuration"


def _issuer(house: House, **options: Any) -> str:
    answer = house.ask("GET", DISCOVERY, **options)
    assert answer.status == 200, answer
    issuer: str = answer.json()["issuer"]
    return issuer


def test_good_hosts_are_answered_as_themselves(house: House) -> None:
    """The request's `Host` header → `https://<host>`, in discovery and in tokens byte-identical (OpenID Connect Discovery §4.3)."""
    token = house.sign_in()["token"]
    for row in VECTORS["accepted"]:
        minted = house.ask("POST", "/api/auth/jwt", token=token, host=row["host"]).json()["token"]
        assert _issuer(house, host=row["host"]) == row["issuer"] == unverified_claims(minted)["iss"]


@each_of("host", LATIN_1)
def test_a_malformed_host_is_400_and_not_echoed(house: House, host: str) -> None:
    """Anything else: 400 `INVALID_HOST`, and nothing of the header in the body (RFC 9112 §3.2)."""
    clean = house.ask("GET", DISCOVERY, host="a b")
    answer = house.ask("GET", DISCOVERY, host=host)
    error = refused(answer, 400, "INVALID_HOST")
    assert error | {"request_id": ""} == refused(clean, 400, "INVALID_HOST") | {"request_id": ""}


def test_nothing_of_a_hostile_host_reaches_headers_or_log(house: House) -> None:
    """docs/errors.md: no echo of hostile input."""
    answer = house.ask("GET", DISCOVERY, host="canary-7f3<script>")
    assert b"canary" not in answer.body
    assert not any("canary" in value for value in answer.headers.values())
    assert "canary" not in house.log.getvalue()


@each_of(
    ("method", "path"),
    [
        ("GET", "/nothing"),
        ("GET", "/oidc/authorize"),
        ("POST", "/oidc/token"),
        ("PUT", "/api/auth/me"),
        ("FOO", "/"),
        ("GET", "/api/auth/me"),
        ("POST", "/api/auth/session"),
        ("OPTIONS", DISCOVERY),
        ("POST", "/api/auth/sessions/trusted-mint"),
    ],
)
def test_an_invalid_host_comes_before_everything(house: House, method: str, path: str) -> None:
    """docs/endpoints.md: checked in this order: `INVALID_HOST`, 401 or 403, …; docs/errors.md: it has the `/api` shape everywhere."""
    refused(house.ask(method, path, host="a b"), 400, "INVALID_HOST")


@each_of(
    ("environ", "host", "answered"),
    [
        ({"PYLON_ALLOWED_HOSTS": "id.example.test"}, HOST, True),
        ({"PYLON_ALLOWED_HOSTS": "id.example.test"}, f"{HOST}:443", True),
        ({"PYLON_ALLOWED_HOSTS": "id.example.test"}, f"{HOST}:8443", False),
        ({"PYLON_ALLOWED_HOSTS": "id.example.test"}, "other.example", False),
        ({"PYLON_ALLOWED_HOSTS": ".example.test:*, other.example"}, f"{HOST}:8443", True),
        ({"PYLON_ALLOWED_HOSTS": ".example.test:*, other.example"}, "other.example", True),
        ({"PYLON_ALLOWED_HOSTS": "other.example", "PYLON_OIDC_ISSUER": ISSUER}, HOST, True),
    ],
)
def test_a_host_outside_the_allow_list_is_refused(
    serve: Serve, environ: dict[str, str], host: str, answered: bool
) -> None:
    """A host outside `PYLON_ALLOWED_HOSTS`: 400; used only while the issuer is derived."""
    answer = serve(**environ).ask("GET", DISCOVERY, host=host)
    if answered:
        assert answer.status == 200
    else:
        refused(answer, 400, "INVALID_HOST")


@each_of("configured", [None, "https://id.example.com"])
@each_of("protocol", ["HTTP/1.1", "HTTP/2.0"])
def test_http_1_1_without_host_is_400(serve: Serve, configured: str | None, protocol: str) -> None:
    """HTTP/1.1 without `Host` is 400, with a configured issuer too (RFC 9112 §3.2)."""
    house = serve(PYLON_OIDC_ISSUER=configured)
    refused(house.ask("GET", DISCOVERY, host=None, protocol=protocol), 400, "INVALID_HOST")


def test_http_1_0_without_host_is_the_fallback(serve: Serve) -> None:
    """No `Host` (HTTP/1.0): `http://localhost:4321`, or 400 when an allow-list is set."""
    assert _issuer(serve(), host=None, protocol="HTTP/1.0") == "http://localhost:4321"
    configured = serve(PYLON_OIDC_ISSUER="https://id.example.com")
    assert _issuer(configured, host=None, protocol="HTTP/1.0") == "https://id.example.com"
    listed = serve(PYLON_ALLOWED_HOSTS="localhost:4321")
    refused(listed.ask("GET", DISCOVERY, host=None, protocol="HTTP/1.0"), 400, "INVALID_HOST")


def test_http_1_0_with_an_empty_host_is_400(house: House) -> None:
    """An empty header is 400: it is there, and names nobody."""
    refused(house.ask("GET", DISCOVERY, host="", protocol="HTTP/1.0"), 400, "INVALID_HOST")


FORWARDED = {
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Scheme": "http",
    "X-Forwarded-Port": "8443",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Server": "evil.example",
    "X-Original-Host": "evil.example",
    "X-Original-URL": "/evil",
    "X-Rewrite-URL": "/evil",
    "X-Host": "evil.example",
    "Forwarded": "host=evil.example;proto=http",
    "Script-Name": "/evil",
    "Path-Info": "/evil",
    "Via": "1.1 evil.example",
}


@each_of(("name", "value"), FORWARDED.items())
@each_of("peer", ["203.0.113.9", "127.0.0.1", ""])
def test_no_forwarding_header_takes_part(house: House, name: str, value: str, peer: str) -> None:
    """`X-Forwarded-Host`, `Forwarded`, `X-Forwarded-Proto`, `-Prefix`, `SCRIPT_NAME` never take part.
    docs/security.md: forwarded headers are never read for it.
    """
    plain = house.ask("GET", DISCOVERY)
    answer = house.ask("GET", DISCOVERY, headers={name: value}, environ={"REMOTE_ADDR": peer})
    assert (answer.status, answer.body) == (plain.status, plain.body)


@each_of("scheme", ["http", "https"])
@each_of("port", ["80", "4321"])
def test_the_servers_own_address_takes_no_part(house: House, scheme: str, port: str) -> None:
    """The issuer comes only from `Host`, whichever socket the request came in by."""
    environ = {"wsgi.url_scheme": scheme, "SERVER_PORT": port, "SERVER_NAME": "internal"}
    assert _issuer(house, environ=environ) == ISSUER


@each_of(
    "target",
    ["http://evil.example/", "https://evil.example/x", "HTTP://id.example.test/", "evil.example:443"],
)
@each_of("configured", [None, "https://id.example.com"])
def test_an_absolute_form_target_is_refused(serve: Serve, target: str, configured: str | None) -> None:
    """An absolute-form target counts as its own authority, or is refused (RFC 9112 §3.2.2)."""
    house = serve(PYLON_OIDC_ISSUER=configured)
    refused(house.ask("GET", DISCOVERY, environ={"RAW_URI": target}), 400, "INVALID_HOST")


def test_a_server_that_tells_no_raw_target_is_fine(house: House) -> None:
    """docs/cli.md: it runs under any WSGI server; `RAW_URI` is gunicorn's own."""
    assert _issuer(house, environ={"RAW_URI": None}) == ISSUER


@each_of("host", ["a b", "", None, "evil.example"])
@each_of("path", ["/healthz", "/readyz"])
def test_health_never_looks_at_host(serve: Serve, host: str | None, path: str) -> None:
    """`/healthz` and `/readyz` never look at `Host`."""
    house = serve(PYLON_ALLOWED_HOSTS="id.example.test")
    assert house.ask("GET", path, host=host).status == 200
