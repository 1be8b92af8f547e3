"""docs/deploy.md: one JSON line a request."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from service.storage.interface import Store
from service.web.middleware import ClientAddress
from tests.http.conftest import Serve
from tests.http.driver import House
from tests.support.cases import each_of

pytestmark = pytest.mark.filterwarnings("ignore:Unknown REQUEST_METHOD")
FORM = "application/x-www-form-urlencoded"
FIELDS = {"ts", "level", "request_id", "method", "route", "status", "duration_ms", "size", "ip"}


def _line(house: House, *args: str, **options: Any) -> dict[str, Any]:
    before = len(house.requests_logged)
    house.ask(*args, **options)
    (line,) = house.requests_logged[before:]
    return line


def test_a_request_is_one_line_with_exactly_these_fields(house: House) -> None:
    """`ts, level, request_id, method, route, status, duration_ms, size, ip, client_id?, user?`, and
    its name.
    """
    answer = house.ask("GET", "/oidc/jwks", headers={"X-Request-Id": "my-request-1"})
    (line,) = house.requests_logged
    assert set(line) == FIELDS | {"event"}
    assert line | {"ts": "", "duration_ms": 0} == {
        "event": "request",
        "ts": "",
        "level": "info",
        "request_id": "my-request-1",
        "method": "GET",
        "route": "/oidc/jwks",
        "status": 200,
        "duration_ms": 0,
        "size": len(answer.body),
        "ip": "203.0.113.9",
    }
    assert isinstance(line["duration_ms"], float) and 0 <= line["duration_ms"] < 60_000
    assert abs(datetime.now(UTC) - datetime.fromisoformat(line["ts"])).total_seconds() < 60


def test_the_user_is_named_once_known(house: House) -> None:
    """`user?`: who is signed in, or is being signed in."""
    token = house.sign_in("user-1")["token"]
    assert house.requests_logged[-1]["user"] == "user-1"
    assert _line(house, "GET", "/api/auth/me", token=token)["user"] == "user-1"
    line = _line(house, "GET", "/api/auth/me", token="pylon_" + "0" * 64)
    assert set(line) == FIELDS | {"event", "error", "cause"}


@each_of(
    ("method", "path", "route"),
    [
        ("DELETE", "/api/auth/sessions/secret-sid", "/api/auth/sessions/{sid}"),
        ("GET", "/api/auth/users/user-9/sessions", "/api/auth/users/{user_id}/sessions"),
        ("PUT", "/api/auth/users/user-9/and/more", "/api/auth/users/{user_id}"),
        ("GET", "/api/oidc/clients/https://user-9/", "/api/oidc/clients/{client_id}"),
        ("POST", "/api/oidc/clients/user-9/x/secret", "/api/oidc/clients/{client_id}/secret"),
        ("GET", "/api/oidc/interactions/user-9", "/api/oidc/interactions/{interaction_id}"),
        ("GET", "/oidc/interaction/secret-sid", "/oidc/interaction/{interaction_id}"),
        ("DELETE", "/api/oidc/grants/secret-sid", "/api/oidc/grants/{grant_id}"),
        ("GET", "/nothing-of-this", None),
        ("PUT", "/healthz", "/healthz"),
    ],
)
def test_the_route_is_the_template_and_never_the_path(
    house: House, method: str, path: str, route: str | None
) -> None:
    """`route`, and never the text of a path."""
    assert _line(house, method, path)["route"] == route
    for part in ("secret-sid", "user-9", "nothing-of-this"):
        assert part not in house.log.getvalue()


@each_of("path", ["/oidc/jwks", "/api/auth/me", "/nothing", "/oidc/authorize", "/healthz"])
def test_a_query_string_is_never_logged(house: House, path: str) -> None:
    """And never a secret, token, code, cookie or query string."""
    house.ask("GET", path, query="code=canary-4c1&x=canary-4c1", headers={"Referer": "https://a/?canary-4c1"})
    assert "canary-4c1" not in house.log.getvalue()


@each_of("status", [200, 304, 400, 404, 405, 500])
def test_every_outcome_has_its_line(serve: Serve, status: int) -> None:
    """One JSON line a request, whatever became of it."""
    house = serve()
    options: dict[int, dict[str, Any]] = {
        200: {"method": "HEAD", "path": "/healthz"},
        304: {"method": "GET", "path": "/oidc/jwks", "headers": {"If-None-Match": "*"}},
        400: {"method": "GET", "path": "/oidc/jwks", "host": "a b"},
        404: {"method": "FOO", "path": "/nothing"},
        405: {"method": "FOO", "path": "/oidc/jwks"},
        500: {"method": "GET", "path": "/api/auth/me", "token": "pylon_" + "a" * 64},
    }
    if status == 500:
        house.settings.database.path.write_bytes(b"no database")
    answer = house.ask(**options[status])
    (line,) = house.requests_logged
    assert line["status"] == answer.status
    assert line["size"] == len(answer.body)


@each_of("hostile", ['a"b', "a\nb", "a\r\nb", "\x1b[31m", "{", "\xff", "\u0000"])
def test_hostile_input_does_not_break_a_line(house: House, hostile: str) -> None:
    """One JSON line a request: nobody writes a second one."""
    headers = {"X-Request-Id": hostile, "X-Forwarded-For": hostile, "User-Agent": hostile}
    before = len(house.lines)
    house.ask(
        "GET",
        "/nothing",
        headers=headers,
        environ={"REMOTE_ADDR": "127.0.0.1", "REQUEST_METHOD": f"X{hostile}"},
    )
    (line,) = house.lines[before:]
    assert line["status"] == 404


# FORWARDED_ALLOW_IPS, peer, X-Forwarded-For, ip
ADDRESSES: list[tuple[str | None, str, str | None, str]] = [
    (None, "203.0.113.9", None, "203.0.113.9"),
    (None, "203.0.113.9", "198.51.100.1", "203.0.113.9"),
    (None, "127.0.0.1", "198.51.100.1", "198.51.100.1"),
    (None, "::1", "198.51.100.1", "198.51.100.1"),
    (None, "127.0.0.1", "6.6.6.6, 198.51.100.1", "198.51.100.1"),
    (None, "127.0.0.1", "6.6.6.6,2001:db8::1", "2001:db8::1"),
    (None, "127.0.0.1", None, "127.0.0.1"),
    (None, "127.0.0.1", "", "127.0.0.1"),
    (None, "127.0.0.1", "<script>", "127.0.0.1"),
    (None, "127.0.0.1", "198.51.100.1, ", "127.0.0.1"),
    (None, "", "198.51.100.1", "198.51.100.1"),
    ("10.0.0.0/8", "10.1.2.3", "198.51.100.1", "198.51.100.1"),
    ("10.0.0.0/8", "127.0.0.1", "198.51.100.1", "127.0.0.1"),
    ("10.0.0.1, 10.0.0.2", "10.0.0.2", "198.51.100.1", "198.51.100.1"),
    ("10.0.0.1", "10.0.0.2", "198.51.100.1", "10.0.0.2"),
    ("*", "203.0.113.9", "198.51.100.1", "198.51.100.1"),
]


@each_of(("trusted", "peer", "forwarded", "ip"), ADDRESSES)
def test_ip_is_the_nearest_address_that_can_be_believed(
    serve: Serve, trusted: str | None, peer: str, forwarded: str | None, ip: str
) -> None:
    """`ip`: the right-most `X-Forwarded-For` entry when the peer is a trusted proxy or a Unix socket,
    else the peer.
    """
    house = serve(FORWARDED_ALLOW_IPS=trusted)
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    assert _line(house, "GET", "/healthz", headers=headers, environ={"REMOTE_ADDR": peer})["ip"] == ip


def test_other_forwarding_headers_are_not_believed(house: House) -> None:
    """docs/security.md: only `X-Forwarded-For` counts."""
    headers = {"Forwarded": "for=6.6.6.6", "X-Real-IP": "6.6.6.6", "Client-IP": "6.6.6.6"}
    line = _line(house, "GET", "/healthz", headers=headers, environ={"REMOTE_ADDR": "127.0.0.1"})
    assert line["ip"] == "127.0.0.1"


def test_a_refusal_names_its_error_and_its_rule(house: House) -> None:
    """`error?` and `cause?`: what was answered, and one constant word for the rule; never anything of the request."""
    line = _line(house, "GET", "/api/auth/me")
    assert (line["error"], line["cause"]) == ("AUTH_REQUIRED", "auth_required")
    line = _line(house, "POST", "/oidc/introspect", body=b"token=hidden&token=hidden", content_type=FORM)
    assert (line["error"], line["cause"]) == ("invalid_request", "parameter_repeated")
    line = _line(house, "GET", "/oidc/userinfo")
    assert (line["error"], line["cause"]) == ("invalid_token", "no_access_token")
    assert not {"error", "cause"} & set(_line(house, "GET", "/healthz"))


@each_of(
    ("trusted", "peer", "forwarded", "expected"),
    [
        ("127.0.0.1", "::ffff:127.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("::ffff:127.0.0.1", "127.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("10.0.0.0/8", "::FFFF:10.1.2.3", "::ffff:203.0.113.7", "203.0.113.7"),
        ("127.0.0.1", "::ffff:127.0.0.2", "203.0.113.7", "127.0.0.2"),
        ("*", "10.0.0.1", "203.0.113.7:5112", "203.0.113.7"),
        ("*", "10.0.0.1", "[2001:db8::1]:443", "2001:db8::1"),
        ("*", "10.0.0.1", "2001:DB8::1", "2001:db8::1"),
        ("*", "10.0.0.1", "999.1.1.1", "10.0.0.1"),
        ("*", "10.0.0.1", "...", "10.0.0.1"),
    ],
)
def test_an_address_has_one_spelling(trusted: str, peer: str, forwarded: str, expected: str) -> None:
    """An IPv4 peer of a listener for both families is that peer; an entry is an address, with or without its port."""
    env = {"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": forwarded}
    assert ClientAddress([trusted]).of(env) == expected


class _Talking:
    """A store that says something each time that it is asked for a record, as any part of ours may."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        if name == "get":
            structlog.get_logger("far").warning("said")
        return getattr(self._store, name)


def test_every_line_has_the_id_of_its_own_request(serve: Serve) -> None:
    """Of two requests on one thread the second's lines never have the first's id, and what is said between them has none."""
    house = serve(store_of=_Talking)
    token = "pylon_" + "0" * 64
    for number in (1, 2):
        house.ask("GET", "/api/auth/me", token=token, headers={"X-Request-Id": f"request-{number}"})
        structlog.get_logger("far").warning("said between")
    lines = house.lines
    assert [(line["event"], line.get("request_id")) for line in lines] == [
        ("said", "request-1"),
        ("request", "request-1"),
        ("said between", None),
        ("said", "request-2"),
        ("request", "request-2"),
        ("said between", None),
    ]
