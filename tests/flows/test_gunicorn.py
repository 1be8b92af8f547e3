"""gunicorn with the shipped configuration, asked by hostile bytes, over a port and over a Unix socket."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from collections.abc import Iterator

import psutil
import pytest

from tests.flows.polling import wait_until
from tests.storage.stores import migrate
from tests.support.cases import each_of
from tests.support.gunicorn import ADMIN, SECRET, Gunicorn

ISSUER_HOST = "id.example.com"
DISCOVERY = "/.well-known/openid-configuration"
SETTINGS = {"PYLON_JWT_SECRET": SECRET, "PYLON_ADMIN_TOKEN": ADMIN}
STATUS_LINE = re.compile(rb"^HTTP/1\.[01] (\d{3}) ", re.MULTILINE)

_HOST = b"Host: id.example.com\r\n"
_POST = b"POST /api/auth/session HTTP/1.1\r\n" + _HOST
_ADMIN = b"Authorization: Bearer " + ADMIN.encode() + b"\r\nContent-Type: application/json\r\n"
_SMUGGLED = b"GET /oidc/jwks HTTP/1.1\r\n" + _HOST + b"\r\n"
_USER = b'{"user_id":"u"}'

#: Requests whose end, or whose meaning, two servers in a row could see differently.
HOSTILE = {
    "TE and CL": _POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "CL and TE": _POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "two CL": _POST + b"Content-Length: 0\r\nContent-Length: 60\r\n\r\n" + _SMUGGLED,
    "two equal CL": _POST + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n" + _SMUGGLED,
    "CL list": _POST + b"Content-Length: 0, 0\r\n\r\n" + _SMUGGLED,
    "CL +0": _POST + b"Content-Length: +0\r\n\r\n" + _SMUGGLED,
    "CL -1": _POST + b"Content-Length: -1\r\n\r\n" + _SMUGGLED,
    "CL in other digits": _POST + b"Content-Length: \xb2\r\n\r\n" + _SMUGGLED,
    "TE xchunked": _POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "TE chunked twice": _POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "TE chunked first": _POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "TE identity": _POST + b"Transfer-Encoding: identity\r\n\r\n" + _SMUGGLED,
    "TE with a space before the colon": _POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "TE with a control character": _POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + _SMUGGLED,
    "TE in HTTP/1.0": b"POST /api/auth/session HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    + _SMUGGLED,
    "bare LF": _SMUGGLED.replace(b"\r\n", b"\n") * 2,
    "bare LF in a header": b"GET /healthz HTTP/1.1\r\nX: a\nTransfer-Encoding: chunked\r\n" + _HOST + b"\r\n",
    "bare CR in a header": b"GET /healthz HTTP/1.1\r\nX: a\rHost: evil\r\n" + _HOST + b"\r\n",
    "NUL in a header": b"GET /healthz HTTP/1.1\r\nX: a\0b\r\n" + _HOST + b"\r\n",
    "folded header": b"GET /healthz HTTP/1.1\r\n" + _HOST + b"X: a\r\n  b: c\r\n\r\n",
    "header without a colon": b"GET /healthz HTTP/1.1\r\n" + _HOST + b"X\r\n\r\n",
    "two Hosts": b"GET /oidc/jwks HTTP/1.1\r\n" + _HOST + b"Host: evil.example\r\n\r\n",
    "two equal Hosts": b"GET /oidc/jwks HTTP/1.1\r\n" + _HOST * 2 + b"\r\n",
    "no Host": b"GET /oidc/jwks HTTP/1.1\r\n\r\n",
    "absolute target": b"GET http://evil.example/oidc/jwks HTTP/1.1\r\n" + _HOST + b"\r\n",
    "absolute target, same host": b"GET https://id.example.com/oidc/jwks HTTP/1.1\r\n" + _HOST + b"\r\n",
    "authority target": b"GET evil.example:443 HTTP/1.1\r\n" + _HOST + b"\r\n",
    "CONNECT": b"CONNECT id.example.com:443 HTTP/1.1\r\n" + _HOST + b"\r\n" + _SMUGGLED,
    "HTTP/0.9": b"GET /oidc/jwks\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.9999": b"GET /oidc/jwks HTTP/1.9999\r\n" + _HOST + b"\r\n",
    "space in the target": b"GET /oidc/jwks ?x HTTP/1.1\r\n" + _HOST + b"\r\n",
    "raw bytes in the target": b"GET /oidc/jwks?\xff\x01 HTTP/1.1\r\n" + _HOST + b"\r\n",
    "lower-case method": b"get /oidc/jwks HTTP/1.1\r\n" + _HOST + b"\r\n",
    "chunk size no number": _POST + _ADMIN + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n" + _USER + _SMUGGLED,
    "chunk size 0x": _POST + _ADMIN + b"Transfer-Encoding: chunked\r\n\r\n0xf\r\n" + _USER + b"\r\n0\r\n\r\n",
    "chunk size with _": _POST
    + _ADMIN
    + b"Transfer-Encoding: chunked\r\n\r\n0_f\r\n"
    + _USER
    + b"\r\n0\r\n\r\n",
    "chunk longer than said": _POST
    + _ADMIN
    + b"Transfer-Encoding: chunked\r\n\r\n2\r\n"
    + _USER
    + b"\r\n0\r\n\r\n",
    "bare LF in a chunk extension": _POST
    + _ADMIN
    + b"Transfer-Encoding: chunked\r\n\r\nf;\n"
    + _USER
    + b"\r\n0\r\n\r\n"
    + _SMUGGLED,
    "bare CR in a chunk extension": _POST
    + _ADMIN
    + b"Transfer-Encoding: chunked\r\n\r\nf;a\rb\r\n"
    + _USER
    + b"\r\n0\r\n\r\n",
    "Host in a trailer": _POST
    + _ADMIN
    + b"Transfer-Encoding: chunked\r\n\r\nf\r\n"
    + _USER
    + b"\r\n0\r\nHost: evil\r\n\r\n",
    "no last chunk": _POST + _ADMIN + b"Transfer-Encoding: chunked\r\n\r\nf\r\n" + _USER + b"\r\n",
    "body shorter than said": _POST + _ADMIN + b"Content-Length: 16\r\n\r\n" + _USER,
}


#: What granian answers where gunicorn refuses, as RFC 9112 leaves to a server: a line may end in only LF (§2.2), equal
#: lengths are one (RFC 9110 §8.6), trailers are dropped (§6.5.1). The host of an absolute target it keeps to itself:
#: `service/launch/binding.py`.
TAKEN_BY_GRANIAN = {
    "bare LF",
    "two equal CL",
    "Host in a trailer",
    "absolute target",
    "absolute target, same host",
}


def payload(server: Gunicorn, name: str) -> bytes:
    """The bytes of a hostile request; where they are taken, for a user that nobody looks for afterwards."""
    return HOSTILE[name].replace(_USER, b'{"user_id":"v"}') if taken(server, name) else HOSTILE[name]


def taken(server: Gunicorn, name: str) -> bool:
    """Whether the server answers a hostile request as a lawful one."""
    return server.kind == "granian" and name in TAKEN_BY_GRANIAN


def send(server: Gunicorn, payload: bytes, *, more_to_come: bool = False) -> bytes:
    """Send bytes, say that no more will come unless there is `more_to_come`, and return all that comes back."""
    family = socket.AF_UNIX if server.socket_path else socket.AF_INET
    with socket.socket(family) as wire:
        # granian lets go of a client that says it sends no more, answered or not: there silence after an answer is the end.
        ends = server.kind == "gunicorn" and not more_to_come
        silences: list[type[OSError]] = [] if server.kind == "gunicorn" else [TimeoutError]
        wire.settimeout(10 if server.kind == "gunicorn" else 2)
        wire.connect(str(server.socket_path) if server.socket_path else ("127.0.0.1", server.port))
        received = b""
        with contextlib.suppress(ConnectionResetError, *silences):
            wire.sendall(payload)
            if ends:
                wire.shutdown(socket.SHUT_WR)
            while chunk := wire.recv(65536):
                received += chunk
                wire.settimeout(10 if server.kind == "gunicorn" else 0.5)
        return received


@pytest.fixture(scope="module", params=["port", "socket", "granian"])
def server(request: pytest.FixtureRequest) -> Iterator[Gunicorn]:
    """One gunicorn on a port, whose peers have addresses, one on a Unix socket, which trusts everybody; and granian."""
    kind = "granian" if request.param == "granian" else "gunicorn"
    with Gunicorn(server=kind, unix=request.param == "socket", **SETTINGS) as started:
        yield started


def log_line(server: Gunicorn, request_id: str) -> dict[str, object]:
    """The line of the log about one request."""
    lines = wait_until(lambda: [line for line in server.log_lines() if line.get("request_id") == request_id])
    assert len(lines) == 1
    return lines[0]


@each_of("name", HOSTILE)
def test_an_ambiguous_request_is_refused_and_hides_no_second_one(server: Gunicorn, name: str) -> None:
    """A request that two servers could read differently gets one refusal, or none, and nothing behind it is served."""
    answer = send(server, payload(server, name))
    statuses = [int(status) for status in STATUS_LINE.findall(answer)]
    if taken(server, name):
        assert statuses, answer
        return
    assert len(statuses) <= 1, answer
    assert all(400 <= status < 600 and status != 500 for status in statuses), answer
    assert b'"keys"' not in answer


#: What gunicorn refuses before the application is asked, with a word of its sender's in it.
MALFORMED = {
    "method": b"canary / HTTP/1.1\r\n" + _HOST + b"\r\n",
    "version": b"GET / HTTP/canary\r\n" + _HOST + b"\r\n",
    "request line": b"GET canary HTTP/1.1\r\n" + _HOST + b"\r\n",
    "header name": b"GET / HTTP/1.1\r\n" + _HOST + b"canary x: y\r\n\r\n",
    "transfer coding": _POST + b"Transfer-Encoding: canary\r\n\r\n",
    "expectation": b"GET / HTTP/1.1\r\n" + _HOST + b"Expect: canary\r\n\r\n",
}


@each_of("name", MALFORMED)
def test_what_gunicorn_refuses_is_bare(server: Gunicorn, name: str) -> None:
    """docs/errors.md: a malformed line or header gets only a 4xx or 5xx status, without any of the input."""
    answer = send(server, MALFORMED[name])
    assert re.match(rb"HTTP/1\.1 [45]\d\d ", answer)
    assert b"canary" not in answer.lower()


def test_no_hostile_request_reached_the_store_or_killed_a_worker(server: Gunicorn) -> None:
    """After all hostile requests the same workers answer, and nobody was signed in."""
    workers = server.worker_pids()
    for name in HOSTILE:
        send(server, payload(server, name))
    assert server.worker_pids() == workers
    listed = server.call(
        "GET", "/api/auth/users/u/sessions", host=ISSUER_HOST, headers={"Authorization": f"Bearer {ADMIN}"}
    )
    assert listed.json() == {"sessions": []}


def test_what_follows_a_request_on_its_connection_is_a_request_of_its_own_or_nothing(
    server: Gunicorn,
) -> None:
    """Pipelined requests are never mixed: each answer that comes is that of the request in its place."""
    answer = send(server, b"GET /healthz HTTP/1.1\r\n" + _HOST + b"\r\n" + _SMUGGLED)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.partition(b"\r\n\r\n")[2].startswith(b"ok")


def test_a_lawful_chunk_extension_is_ignored(server: Gunicorn) -> None:
    """An extension that keeps to RFC 9112 §7.1.1 changes nothing of the body, nor adds an answer."""
    body = b'Transfer-Encoding: chunked\r\n\r\n18;a=b;c="d"\r\n{"user_id":"u","x":"yy"}\r\n0\r\n\r\n'
    answer = send(server, _POST + _ADMIN + body + _SMUGGLED)
    assert STATUS_LINE.findall(answer) == [b"400"]
    assert b"See the field x." in answer  # it was read to its end


@each_of("announced", ["1048577", "99999999999", "9" * 400])
@each_of(("head", "status"), [(_POST + _ADMIN, b"413"), (_POST, b"403")])
def test_a_body_far_too_large_is_refused_by_its_announcement(
    server: Gunicorn, head: bytes, status: bytes, announced: str
) -> None:
    """docs/endpoints.md: 413 above 64 KiB; RFC 9110 §15.5.14: the length says so before a byte of the body has come."""
    announcing = head + b"Content-Length: " + announced.encode() + b"\r\n\r\n"
    allowed = {status}
    if len(announced) > 20:  # to granian, and to gunicorn's parser in C, this is no length at all
        allowed = {b"400"} if server.kind == "granian" else {status, b"400"}
    (answered,) = STATUS_LINE.findall(send(server, announcing, more_to_come=True))
    assert answered in allowed


_OTHER_SPELLINGS = [
    b"GET /%61pi/oidc/clients",
    b"GET /api%2foidc/clients",
    b"GET /api/oidc/client%73",
    b"GET //api/oidc/clients",
    b"GET /./api/oidc/clients",
    b"GET /oidc/../api/oidc/clients",
    b"GET /api/oidc/clients#x",
    b"GET /api/oidc/clients;x",
    b"GET /api/oidc/clients%3Fx",
    b"GET /api/oidc/clients%20",
    b"GET /api/oidc/clients%00",
    b"GET /%61pi/auth/users/ada/sessions",
    b"GET /api/auth/users%2Fada/sessions",
    b"POST /api/auth/%73ession",
    b"DELETE /api/auth/sessio%6E",
    b"GET /ready%7A",
]


def test_a_route_has_one_spelling(server: Gunicorn) -> None:
    """RFC 3986 §6.2.2: what a proxy compared is what is routed on; a different spelling is not a route, for any client."""
    for line in _OTHER_SPELLINGS:
        if server.kind == "granian" and b"#" in line:  # dropped by granian, as by nginx
            continue
        answer = send(server, line + b" HTTP/1.1\r\n" + _HOST + _ADMIN + b"Connection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 404 "), (line, answer)
        assert b'"NOT_FOUND"' in answer
    for user_id in (b"ada", b"a%2Fb", b"a%2Fsessions", b"%61da"):
        line = b"GET /api/auth/users/" + user_id + b"/sessions HTTP/1.1\r\n"
        answer = send(server, line + _HOST + _ADMIN + b"Connection: close\r\n\r\n")
        assert answer.endswith(b'{"sessions":[]}') or b'{"sessions": []}' in answer, answer
    readiness = send(server, b"GET /readyz HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert (b"raw_path" in readiness) == (server.kind == "granian")


def test_http_1_0_without_host_has_the_fixed_issuer(server: Gunicorn) -> None:
    """A request without `Host` gets the issuer `http://localhost:4321`, and one answer."""
    answer = send(server, b"GET " + DISCOVERY.encode() + b" HTTP/1.0\r\n\r\n")
    assert STATUS_LINE.findall(answer) == [b"200"]
    assert b'"issuer": "http://localhost:4321"' in answer.replace(b'":"', b'": "')


def test_http_1_1_without_host_is_refused(server: Gunicorn) -> None:
    """HTTP/1.1 without `Host` is 400 (RFC 9112 §3.2)."""
    answer = send(server, b"GET " + DISCOVERY.encode() + b" HTTP/1.1\r\n\r\n")
    assert STATUS_LINE.findall(answer) == [b"400"]


#: Headers by which a client might try to change what is served, and to whom.
FORGED = {
    "SCRIPT_NAME": "/evil",
    "Script-Name": "/evil",
    "PATH_INFO": "/healthz",
    "Path-Info": "/healthz",
    "REMOTE_ADDR": "192.0.2.9",
    "REMOTE_USER": "root",
    "SERVER_PROTOCOL": "HTTP/1.0",
    "HTTP_HOST": "evil.example",
    "X_Forwarded_For": "192.0.2.9",
    "X_Forwarded_Host": "evil.example",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Server": "evil.example",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Scheme": "http",
    "X-Forwarded-Port": "8080",
    "X-Forwarded-Prefix": "/evil",
    "X-Original-URL": "/healthz",
    "X-Rewrite-URL": "/healthz",
    "X-HTTP-Method-Override": "DELETE",
    "X-Host": "evil.example",
    "Forwarded": "for=192.0.2.9;host=evil.example;proto=http",
    "PROXY": "TCP4 192.0.2.9 192.0.2.1 1 2",
}


@each_of("other", [{"X-Forwarded-Ssl": "on"}, {"X-Forwarded-Protocol": "ssl"}, FORGED])
def test_headers_that_disagree_about_the_scheme_change_nothing(
    server: Gunicorn, other: dict[str, str]
) -> None:
    """docs/security.md: `X-Forwarded-Proto` and its kin never take part: two that disagree are no reason to refuse."""
    answer = server.call(
        "GET",
        DISCOVERY,
        host=ISSUER_HOST,
        headers=other | {"X-Forwarded-Proto": "http", "X-Forwarded-Ssl": "on"},
    )
    assert (answer.status, answer.json()["issuer"]) == (200, f"https://{ISSUER_HOST}")


@each_of("name", FORGED)
def test_a_forged_header_changes_nothing(server: Gunicorn, name: str) -> None:
    """A client's header of that name changes neither the answer nor the line in the log."""
    plain = server.call("GET", DISCOVERY, host=ISSUER_HOST, headers={"X-Request-Id": f"plain-{name}"})
    forged = server.call(
        "GET", DISCOVERY, host=ISSUER_HOST, headers={"X-Request-Id": f"forged-{name}", name: FORGED[name]}
    )
    assert plain.status == forged.status == 200
    assert forged.body == plain.body
    assert forged.headers.get("vary") == plain.headers.get("vary")
    left = {"request_id", "duration_ms", "ts"}
    plain_line, forged_line = (log_line(server, each.headers["x-request-id"]) for each in (plain, forged))
    assert {k: v for k, v in forged_line.items() if k not in left} == {
        k: v for k, v in plain_line.items() if k not in left
    }


@each_of(
    ("over", "trusted", "forwarded", "expected"),
    [
        ("port", None, "203.0.113.7", "203.0.113.7"),
        ("port", None, "198.51.100.1, 203.0.113.7", "203.0.113.7"),
        ("port", None, None, "127.0.0.1"),
        ("port", None, "<script>", "127.0.0.1"),
        ("port", "10.0.0.1", "203.0.113.7", "127.0.0.1"),
        ("socket", "10.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("socket", "10.0.0.1", None, "unix"),
    ],
)
def test_the_client_address_is_believed_of_trusted_peers_alone(
    addressed: dict[tuple[str, str | None], Gunicorn],
    over: str,
    trusted: str | None,
    forwarded: str | None,
    expected: str,
) -> None:
    """`ip` in the log is the right-most forwarded entry behind a trusted peer or a Unix socket, else the peer."""
    server = addressed[over, trusted]
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    answer = server.call("GET", "/healthz", host=ISSUER_HOST, headers=headers)
    assert log_line(server, answer.headers["x-request-id"])["ip"] == expected


@pytest.fixture(scope="module")
def addressed() -> Iterator[dict[tuple[str, str | None], Gunicorn]]:
    """Servers by the address that they listen on and the peers that they trust."""
    with contextlib.ExitStack() as stack:
        yield {
            (over, trusted): stack.enter_context(
                Gunicorn(unix=over == "socket", WEB_CONCURRENCY="1", FORWARDED_ALLOW_IPS=trusted, **SETTINGS)
            )
            for over, trusted in (("port", None), ("port", "10.0.0.1"), ("socket", "10.0.0.1"))
        }


def _request_line(length: int) -> bytes:
    line = b"GET /healthz?" + b"x" * (length - len(b"GET /healthz? HTTP/1.1")) + b" HTTP/1.1"
    assert len(line) == length
    return line + b"\r\n" + _HOST + b"\r\n"


@each_of(("length", "status"), [(4095, b"200"), (8190, b"200"), (8191, b"414"), (65536, b"414")])
def test_a_request_line_may_have_8190_bytes(server: Gunicorn, length: int, status: bytes) -> None:
    """An authorization request with a long hint passes; a longer line is 414."""
    refused = {status} if server.kind == "gunicorn" or status == b"200" else {b"414", b"431"}
    (answered,) = STATUS_LINE.findall(send(server, _request_line(length)))
    assert answered in refused


def test_nothing_steers_the_server_but_signals(server: Gunicorn) -> None:
    """No process of the server listens on any Unix socket but the one that was asked for."""
    own = {str(server.socket_path)} if server.socket_path else set()
    family = [psutil.Process(pid) for pid in (server.pid, *server.worker_pids())]
    paths = {wire.laddr for process in family for wire in process.net_connections("unix") if wire.laddr}
    assert paths == own


def test_workers_look_for_garbage_after_a_reload_too() -> None:
    """Only loading goes without: workers would grow without end, the first ones and those that HUP begins."""

    def told() -> tuple[str, str]:
        pid, looks = server.call("GET", "/").body.decode().split()
        return pid, looks

    with Gunicorn(app="tests.flows.collecting:app", WEB_CONCURRENCY="1", **SETTINGS) as server:
        before, looks = told()
        assert looks == "True"
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: told()[0] != before)
        assert told()[1] == "True"


def _open_database(pid: int, server: Gunicorn, port: int | None) -> set[object]:
    """What a process has open of the database: files by number, or connections by their own port."""
    process = psutil.Process(pid)
    if port is None:
        return {file.fd for file in process.open_files() if file.path.startswith(str(server.data_dir))}
    return {
        wire.laddr.port for wire in process.net_connections("tcp") if wire.raddr and wire.raddr.port == port
    }


def test_no_database_connection_crosses_the_fork(database_url: str, request: pytest.FixtureRequest) -> None:
    """The master has no connection to the database after the start, and each worker opens its own."""
    port = None
    settings = dict(SETTINGS)
    if database_url.startswith("postgresql:"):
        migrate(database_url)
        settings["DATABASE_URL"] = database_url
        port = request.getfixturevalue("postgres_cluster").port
    with Gunicorn(**settings) as server:
        workers = wait_until(lambda: len(server.worker_pids()) == 2 and server.worker_pids())
        assert [_open_database(pid, server, port) for pid in (server.pid, *workers)] == [set()] * 3
        wait_until(
            lambda: (
                server.call("GET", "/readyz").status == 200
                and all(_open_database(pid, server, port) for pid in workers)
            )
        )
        assert _open_database(server.pid, server, port) == set()
        if port is not None:
            assert not _open_database(workers[0], server, port) & _open_database(workers[1], server, port)
