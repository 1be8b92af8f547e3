"""Request smuggling by raw socket, through nginx to a stub that keeps what it gets, and to the real servers.

Each payload hides a second request where one of the two could take the rest for a new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.cases import each_of
from tests.support.gunicorn import ADMIN, SECRET, SERVERS, Gunicorn
from tests.support.nginx import NginxSite, StubUpstream, assert_refused

pytestmark = pytest.mark.usefixtures("fresh")

HIDDEN_ID = "hidden-request"


@dataclass(frozen=True)
class Attack:
    """A request as bytes, `{host}` and `{hidden}` (a whole second request) to be filled in."""

    name: str
    head: str
    body: str

    def payload(self, site: NginxSite) -> bytes:
        """The bytes to send."""
        hidden = f"GET /healthz HTTP/1.1\r\nHost: {site.authority}\r\nX-Request-Id: {HIDDEN_ID}\r\n\r\n"
        body = self.body.replace("{hidden}", hidden).replace("{hidden_size}", f"{len(hidden):x}")
        head = self.head.replace("{host}", site.authority).replace("{size}", str(len(body)))
        return f"{head}\r\n\r\n{body}".encode("latin-1")


def attack(
    name: str, lines: str, body: str = "0\r\n\r\n{hidden}", target: str = "POST /api/auth/jwt"
) -> Attack:
    """An attack whose head is the usual one with more lines, separated by `|`."""
    return Attack(name, "\r\n".join([f"{target} HTTP/1.1", "Host: {host}", *lines.split("|")]), body)


CHUNKED = "Transfer-Encoding: chunked"
REFUSED = [
    attack("TE and CL", f"{CHUNKED}|Content-Length: 6"),
    attack("CL and TE", f"Content-Length: 6|{CHUNKED}"),
    attack("CL of all and TE", f"Content-Length: {{size}}|{CHUNKED}"),
    attack("two CL", "Content-Length: 5|Content-Length: {size}"),
    attack("two equal CL", "Content-Length: {size}|Content-Length: {size}"),
    attack("CL list", "Content-Length: 5, 5"),
    attack("CL with a sign", "Content-Length: +5"),
    attack("negative CL", "Content-Length: -1"),
    attack("hexadecimal CL", "Content-Length: 0x5"),
    attack("empty CL", "Content-Length:"),
    attack("enormous CL", "Content-Length: 99999999999999999999999"),
    attack("TE xchunked", "Transfer-Encoding: xchunked"),
    attack("TE chunkedx", "Transfer-Encoding: chunkedx"),
    attack("TE list", "Transfer-Encoding: gzip, chunked"),
    attack("TE identity first", "Transfer-Encoding: identity, chunked"),
    attack("TE chunked first", "Transfer-Encoding: chunked, identity"),
    attack("two TE", f"{CHUNKED}|Transfer-Encoding: identity"),
    attack("two equal TE", f"{CHUNKED}|{CHUNKED}"),
    attack("TE with vertical tab", "Transfer-Encoding: \x0bchunked"),
    attack("TE empty", "Transfer-Encoding:"),
    attack("space before the colon", "Transfer-Encoding : chunked"),
    attack("two Hosts", "Host: evil.test", "{hidden}"),
    attack("two equal Hosts", "Host: {host}", "{hidden}"),
    attack("NUL in a header", "X-A: a\x00b", "{hidden}"),
    attack("chunk size with a sign", CHUNKED, "+5\r\nhello\r\n0\r\n\r\n{hidden}"),
    attack("chunk size 0x5", CHUNKED, "0x5\r\nhello\r\n0\r\n\r\n{hidden}"),
    attack("negative chunk size", CHUNKED, "-5\r\nhello\r\n0\r\n\r\n{hidden}"),
    attack("enormous chunk size", CHUNKED, "fffffffffffffffff\r\nhello\r\n0\r\n\r\n{hidden}"),
    attack("no chunk size", CHUNKED, "\r\nhello\r\n0\r\n\r\n{hidden}"),
    attack("chunk longer than its size", CHUNKED, "5\r\nhelloX\r\n0\r\n\r\n{hidden}"),
    attack("space in the target", CHUNKED, target="POST /a HTTP/1.1 /b"),
    attack("bare CR in the request line", CHUNKED, target="POST /a\rGET /b"),
    Attack(
        "TE over HTTP/1.0",
        "POST /x HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked",
        "0\r\n\r\n{hidden}",
    ),
    Attack("HTTP/1.1 without Host", "POST /x HTTP/1.1\r\nContent-Length: 0", "{hidden}"),
]
# What nginx may read in one way only, and rewrites for the application: one request, the rest is its body.
MADE_PLAIN = [
    attack("GET with a body", "Content-Length: {size}", "{hidden}", target="GET /healthz"),
    attack("body that is a request", "Content-Length: {size}", "{hidden}"),
    attack("chunk that is a request", CHUNKED, "{hidden_size}\r\n{hidden}\r\n0\r\n\r\n"),
    attack("chunk extension", CHUNKED, '{hidden_size};a="b"\r\n{hidden}\r\n0;x\r\n\r\n'),
    attack(
        "trailer", CHUNKED, "{hidden_size}\r\n{hidden}\r\n0\r\nContent-Length: 5\r\nHost: evil.test\r\n\r\n"
    ),
    attack("TE in upper case", "Transfer-Encoding: CHUNKED", "{hidden_size}\r\n{hidden}\r\n0\r\n\r\n"),
    attack(
        "underscore in a name",
        "Content_Length: 5|Transfer_Encoding: chunked|Content-Length: {size}",
        "{hidden}",
    ),
    attack(
        "upgrade to h2c",
        "Connection: Upgrade, HTTP2-Settings|Upgrade: h2c|HTTP2-Settings: AAMAAABk|Content-Length: {size}",
        "{hidden}",
    ),
    attack("hop-by-hop names", "Connection: Content-Length, Host|Content-Length: {size}", "{hidden}"),
    Attack("bare LF", "POST /api/auth/jwt HTTP/1.1\nHost: {host}\nContent-Length: {size}", "{hidden}"),
]


@pytest.fixture(scope="module", params=SERVERS)
def real(request: pytest.FixtureRequest) -> Iterator[tuple[NginxSite, Gunicorn]]:
    with (
        Gunicorn(server=request.param, unix=True, PYLON_JWT_SECRET=SECRET, PYLON_ADMIN_TOKEN=ADMIN) as server,
        NginxSite(f"unix:{server.socket_path}") as running,
    ):
        yield running, server


def test_two_requests_on_a_connection_get_two_answers(site: NginxSite, stub: StubUpstream) -> None:
    """The control: what is sent as two requests is two, so a second answer would be seen."""
    request = f"GET /x HTTP/1.1\r\nHost: {site.authority}\r\nX-Request-Id: {HIDDEN_ID}\r\n"
    answers = site.exchange(f"{request}\r\n{request}Connection: close\r\n\r\n".encode())
    assert [answer.status for answer in answers] == [200, 200]
    assert len(stub.seen) == 2


@each_of("case", REFUSED, ids=lambda case: case.name)
def test_ambiguous_framing_is_refused(site: NginxSite, stub: StubUpstream, case: Attack) -> None:
    """A request whose end two readers could see differently is 4xx or 501, one answer, and goes no further."""
    answers = site.exchange(case.payload(site), quiet_s=2)
    assert len(answers) == 1
    assert answers[0].status in {400, 413, 414, 501}
    assert_refused(answers[0], answers[0].status)
    assert stub.seen == []


@each_of("case", MADE_PLAIN, ids=lambda case: case.name)
def test_what_is_read_in_one_way_stays_one_request(site: NginxSite, stub: StubUpstream, case: Attack) -> None:
    """Chunks, extensions, trailers and bare line feeds are rewritten: a length, and the hidden request in the body."""
    answers = site.exchange(case.payload(site), quiet_s=0.3)
    assert len(answers) == 1
    assert len(stub.seen) <= 1
    for seen in stub.seen:
        assert HIDDEN_ID not in str(seen.headers)
        assert HIDDEN_ID.encode() in seen.body
        assert seen.headers.all("content-length") == [str(len(seen.body))]
        assert seen.headers.all("host") == [site.authority]
        assert not {"transfer-encoding", "upgrade", "http2-settings", "connection", "trailer"} & set(
            seen.headers
        )


@each_of("case", [*REFUSED, *MADE_PLAIN], ids=lambda case: case.name)
def test_nothing_is_smuggled_to_the_real_application(real: tuple[NginxSite, Gunicorn], case: Attack) -> None:
    """Through nginx and gunicorn there is one answer, and the hidden request is never run."""
    site, server = real
    answers = site.exchange(case.payload(site), quiet_s=0.3)
    assert len(answers) == 1
    assert answers[0].headers["x-request-id"] != HIDDEN_ID
    assert HIDDEN_ID not in server.output()


def test_the_real_application_ignores_a_script_name(real: tuple[NginxSite, Gunicorn]) -> None:
    """SCRIPT_NAME and PATH_INFO as headers change neither the route nor the issuer."""
    site, _ = real
    for name in (
        "SCRIPT_NAME",
        "Script-Name",
        "PATH_INFO",
        "Path-Info",
        "X-Forwarded-Prefix",
        "X-Script-Name",
    ):
        answer = site.call("GET", "/.well-known/openid-configuration", headers={name: "/evil"})
        assert answer.status == 200
        assert answer.json()["issuer"] == site.origin
