"""Requests of ours against real servers: what is sent, and what the worst of them cost."""

from __future__ import annotations

import gzip
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.outbound.addresses import NOTHING, Allowed, Refused
from service.outbound.fetcher import MOST_BYTES, UNREACHABLE, Outbound, Unreachable
from service.outbound.reading import Proxy, parse_allowed
from service.outbound.wire import Budget, Failed, LookUp, Wire
from tests.outbound.attacking import NAME, Answering, Attacker, Authority, ok, stuck
from tests.support.pace import in_time

_LOOPBACK = parse_allowed("127.0.0.0/8")


def _loopback(_name: str, _port: int) -> list[str]:
    return ["127.0.0.1"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def _outbound(
    authority: Authority,
    *,
    allowed: Allowed = _LOOPBACK,
    look_up: Callable[[str, int], list[str]] = _loopback,
    proxy: Proxy | None = None,
) -> Outbound:
    return Outbound(allowed, authority.file, proxy, look_up=look_up)


def _fails(outbound: Outbound, url: str, cause: str, *, operators: bool = True) -> float:
    """The one text comes, with the cause for the log, in time; returns how long it took."""
    began = time.monotonic()
    with pytest.raises(Unreachable) as raised:
        outbound.get(url, operators=operators)
    took = time.monotonic() - began
    assert str(raised.value) == UNREACHABLE
    assert raised.value.cause == cause
    assert in_time(took, 5.9)
    return took


def test_what_is_sent_says_nothing_of_us(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No cookie of an earlier answer, no `.netrc`, no proxy of the environment; the name in `Host` and TLS."""
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine {NAME} login root password secret\n")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("NETRC", str(netrc))
    serve = Answering(
        ok(b'{"keys":[]}', b"Set-Cookie: a=b", b"Cache-Control: max-age=60", b"Connection: close")
    )
    outbound = _outbound(authority)
    with Attacker(serve, authority.server()) as server:
        url = f"https://{NAME}:{server.port}/jwks?x=1"
        for _ in range(2):
            answer = outbound.get(url, operators=True, accept="application/json")
            assert (answer.status, answer.body) == (200, b'{"keys":[]}')
            assert answer.headers["cache-control"] == "max-age=60"
        answer = outbound.post(url, {"logout_token": "a.b c"}, operators=True)
    assert (answer.status, answer.body) == (200, b"")
    head = f"GET /jwks?x=1 HTTP/1.1\r\nHost: {NAME}:{server.port}\r\n"
    lines = serve.seen[1].decode().strip().split("\r\n")
    assert serve.seen[1].decode().startswith(head)
    assert {line.partition(":")[0].lower() for line in lines[1:]} == {
        "host",
        "user-agent",
        "accept-encoding",
        "connection",
        "accept",
    }
    assert "Accept-Encoding: identity" in lines
    assert serve.seen[2].endswith(b"\r\n\r\nlogout_token=a.b+c")
    assert b"Content-Type: application/x-www-form-urlencoded" in serve.seen[2]


def test_a_redirect_is_an_answer_and_a_body_of_the_greatest_size_is_read(authority: Authority) -> None:
    with Attacker(
        Answering(b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1/\r\nContent-Length: 0\r\n\r\n"),
        authority.server(),
    ) as server:
        assert _outbound(authority).get(f"https://{NAME}:{server.port}/", operators=True).status == 302
        assert _outbound(authority).post(f"https://{NAME}:{server.port}/", {}, operators=True).status == 302
        assert server.met == 2
    with Attacker(Answering(ok(b"x" * MOST_BYTES)), authority.server()) as server:
        assert (
            len(_outbound(authority).get(f"https://{NAME}:{server.port}/", operators=True).body) == MOST_BYTES
        )


def test_an_attackers_answers_cost_at_most_5_s_and_64_kib(authority: Authority) -> None:
    """All at once: each ends with the one text, in time, and what it sent beyond the bounds was not taken."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    bomb = gzip.compress(b"\0" * 10_000_000)
    cases = {
        "one byte more": (Answering(ok(b"x" * (MOST_BYTES + 1))), "too_large"),
        "10 MB": (
            Answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n", endless=b"x" * 65536),
            "too_large",
        ),
        "endless": (Answering(chunked, endless=b"1000\r\n" + b"x" * 4096 + b"\r\n"), "too_large"),
        "endless until closed": (Answering(b"HTTP/1.1 200 OK\r\n\r\n", endless=b"x" * 65536), "too_large"),
        "endless headers": (
            Answering(b"HTTP/1.1 200 OK\r\n", endless=b"X-Y: " + b"z" * 1000 + b"\r\n"),
            "too_large",
        ),
        "endless interim": (Answering(endless=b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50), "too_large"),
        "dripping body": (Answering(chunked, endless=b"1\r\nx\r\n", pause_s=0.3), "timeout"),
        "dripping head": (Answering(b"HTTP/1.1 200 OK\r\nX: ", endless=b"y", pause_s=0.3), "timeout"),
        "silent": (Answering(endless=b"", pause_s=0), "answer_malformed"),
        "gzip bomb": (Answering(ok(bomb, b"Content-Encoding: gzip")), "encoded"),
        "no HTTP": (Answering(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "answer_malformed"),
        "cut off": (Answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx"), "answer_malformed"),
    }
    faults: dict[str, BaseException] = {}
    context = authority.server()

    def meet(case: str) -> None:
        serve, cause = cases[case]
        try:
            with Attacker(serve, context) as server:
                _fails(_outbound(authority), f"https://{NAME}:{server.port}/", cause)
                # What is on its way in buffers of the system is not taken by us.
                assert serve.sent < 8_000_000
        except BaseException as error:
            faults[case] = error

    threads = [threading.Thread(target=meet, args=(case,)) for case in cases]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not faults


def test_the_body_of_an_answer_to_a_post_does_not_count(authority: Authority) -> None:
    for serve in (
        Answering(b"HTTP/1.1 204 No Content\r\n\r\n"),
        Answering(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            endless=b"1000\r\n" + b"x" * 4096 + b"\r\n",
        ),
        Answering(ok(gzip.compress(b"\0" * 10_000_000), b"Content-Encoding: gzip")),
        Answering(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 100\r\n\r\nx"),
    ):
        with Attacker(serve, authority.server()) as server:
            answer = _outbound(authority).post(f"https://{NAME}:{server.port}/", {"a": "b"}, operators=True)
            assert answer.status in {204, 200, 400}
            assert answer.body == b""


def test_tls_is_verified(authority: Authority) -> None:
    old = authority.server()
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    contexts = {
        "the name only in CN": (authority.server(has_san=False), "certificate_refused"),
        "wrong name": (authority.server("other.example.com"), "certificate_refused"),
        "expired": (authority.server(days=-1), "certificate_refused"),
        "TLS 1.1": (old, "tls_failed"),
        "no TLS": (None, "tls_failed"),
    }
    for case, (context, cause) in contexts.items():
        serve = Answering(ok()) if context else Answering(at_once=b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with Attacker(serve, context) as server:
            assert _fails(_outbound(authority), f"https://{NAME}:{server.port}/", cause) < 5, case
            assert serve.seen == [], case
    # An authority that nobody named is not trusted.
    with Attacker(Answering(ok()), authority.server()) as server:
        _fails(
            Outbound(_LOOPBACK, look_up=_loopback), f"https://{NAME}:{server.port}/", "certificate_refused"
        )


def test_a_peer_that_accepts_and_says_nothing(authority: Authority) -> None:
    """TLS that never starts, and a name server that never answers, at once."""
    over = threading.Event()
    took: list[float] = []
    with Attacker(lambda _wire: over.wait(20) and None) as server, stuck(over) as look_up:
        url = f"https://{NAME}:{server.port}/"
        threads = [
            threading.Thread(target=lambda: took.append(_fails(_outbound(authority), url, "timeout"))),
            threading.Thread(
                target=lambda: took.append(
                    _fails(_outbound(authority, look_up=look_up), url, "name_server_slow")
                )
            ),
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert len(took) == 2


def test_a_name_is_looked_up_once_and_every_address_of_it_counts(authority: Authority) -> None:
    """Between look-up and connection nobody asks again; one closed address among open ones refuses all."""
    asked: list[str] = []

    def rebinding(name: str, _port: int) -> list[str]:
        asked.append(name)
        return ["127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]

    serve = Answering(ok())
    with Attacker(serve, authority.server()) as server:
        # The first answer is where it connects to, although a second look-up would lead to the server.
        _fails(_outbound(authority, look_up=rebinding), f"https://{NAME}:{server.port}/", "no_connection")
        assert asked == [NAME]
        for addresses in (
            ["127.0.0.1"],
            ["93.184.215.14", "127.0.0.1"],
            ["127.0.0.1", "93.184.215.14"],
            ["::ffff:127.0.0.1"],
            ["64:ff9b::7f00:1"],
            ["fe80::1%lo"],
        ):
            outbound = _outbound(authority, allowed=Allowed(), look_up=lambda *_, found=addresses: found)
            _fails(outbound, f"https://{NAME}:{server.port}/", "address_not_public")
        # For a stranger's URL the list does not count.
        _fails(_outbound(authority), f"https://{NAME}:{server.port}/", "address_not_public", operators=False)
        assert server.met == 0
        # The second address is tried if the first does not answer.
        both = _outbound(authority, look_up=lambda *_: ["127.0.0.2", "127.0.0.1"])
        assert both.get(f"https://{NAME}:{server.port}/", operators=True).status == 200
    for nobody in ([], None):

        def unknown(_name: str, _port: int, found: list[str] | None = nobody) -> list[str]:
            if found is None:
                raise socket.gaierror(-2, "Name or service not known")
            return found

        _fails(_outbound(authority, look_up=unknown), f"https://{NAME}/", "name_unknown")


@dataclass
class _Share(Budget):
    """Each wait gets the same time, so that a busy machine cannot use the budget up between two of them."""

    each_s: float = 0.05

    def left_s(self) -> float:
        return self.each_s


def test_slow_name_servers_of_strangers_stop_only_strangers() -> None:
    """docs/security.md: a look-up continues after its request has ended; however many do, the operator's clients have others."""
    over = threading.Event()

    def wire(look_up: LookUp, *, operators: bool, each_s: float = 0.05) -> Wire:
        return Wire(_Share(0, 1000, each_s), look_up, NOTHING, operators)

    with stuck(over) as look_up:
        for _ in range(17):
            with pytest.raises(Failed, match="name_server_slow"):
                wire(look_up, operators=False).connect_tcp("a.example", 443)
        with pytest.raises(Failed, match="name_server_slow"):  # none is left to them
            wire(lambda *_: ["10.0.0.1"], operators=False, each_s=0.5).connect_tcp("a.example", 443)
        with pytest.raises(Refused, match="address_not_public"):
            wire(lambda *_: ["10.0.0.1"], operators=True, each_s=20).connect_tcp("a.example", 443)


def test_the_systems_resolver_is_asked_once(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is made to the address: `socket` is not given a name, or anything to look up."""
    asked: list[object] = []
    real = socket.getaddrinfo

    def getaddrinfo(host: object, *rest: object, **more: object) -> object:
        asked.append(host)
        return real("127.0.0.1", *rest, **more) if len(asked) == 1 else []  # type: ignore[arg-type]

    with Attacker(Answering(ok()), authority.server()) as server:
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        outbound = Outbound(_LOOPBACK, authority.file)
        assert outbound.get(f"https://{NAME}:{server.port}/", operators=True).status == 200
    assert asked == [NAME]


def test_http_only_where_the_list_names_the_host(authority: Authority) -> None:
    serve = Answering(ok())
    with Attacker(serve) as server:
        outbound = _outbound(authority, allowed=parse_allowed("app.internal"))
        assert outbound.get(f"http://app.internal:{server.port}/", operators=True).status == 200
        _fails(_outbound(authority), f"http://app.internal:{server.port}/", "not_https")
        _fails(outbound, f"http://app.internal:{server.port}/", "not_https", operators=False)
    assert len(serve.seen) == 1


def test_through_a_proxy(authority: Authority) -> None:
    """The proxy gets the name and its own password, the target neither; addresses are refused here."""

    class Through(Answering):
        def __call__(self, wire: socket.socket) -> None:
            asked = wire.recv(65536)
            self.seen.append(asked)
            wire.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with authority.server().wrap_socket(wire, server_side=True) as secure:
                super().__call__(secure)

    serve = Through(ok())
    with Attacker(serve) as server:
        proxy = Proxy(f"http://127.0.0.1:{server.port}", (b"us", b"pw"))
        outbound = _outbound(authority, allowed=Allowed(), proxy=proxy)
        assert outbound.get(f"https://{NAME}/jwks", operators=False).status == 200
        for url in (
            "https://127.0.0.1/",
            "https://8.8.8.8/",
            "https://[2606:4700::1111]/",
            "https://localhost/",
        ):
            with pytest.raises(Unreachable):
                outbound.get(url, operators=False)
    connect, inside = serve.seen
    assert connect.startswith(f"CONNECT {NAME}:443 HTTP/1.1\r\n".encode())
    assert b"Proxy-Authorization: Basic dXM6cHc=" in connect
    assert b"authorization" not in inside.lower()


def test_what_is_refused_is_logged_for_the_operator_alone() -> None:
    code = (
        "from service.logs import configure_logging; configure_logging('info', 'json')\n"
        "from service.outbound.fetcher import Outbound, Unreachable\n"
        "try: Outbound().get('https://10.0.0.1/jwks?token=canary', operators=True)\n"
        "except Unreachable as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout.strip() == UNREACHABLE
    assert '"event":"outbound_failed"' in done.stderr.replace('": "', '":"')
    assert "address_not_public" in done.stderr
    assert "https://10.0.0.1/jwks" in done.stderr
    assert "canary" not in done.stderr


def test_the_start_loads_no_http_client() -> None:
    code = "import sys, service.app, service.startup, service.outbound.fetcher; print({'httpx', 'httpcore', 'anyio'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
