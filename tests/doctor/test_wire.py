"""One request is one request: where it goes, what bounds it, and how its failure is reported."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from service.doctor.reply import Origin, Place, WireError
from service.doctor.wire import MAX_ADDRESSES, MAX_BODY, Wire
from tests.doctor.hostile import HARM, HostileServer, Listener
from tests.support.cases import each_of
from tests.support.pace import in_time

NOW = 1_700_000_000.0


class Echo(Listener):
    """Answers with the head that it was sent."""

    def answer(self) -> Iterable[bytes]:
        """The last request line, and nothing else."""
        body = self.asked[-1].encode()
        return [
            b"HTTP/1.1 200 OK\r\nX-Two: 1\r\nX-Two: 2\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        ]


def wire(left_s: float = 2, **more: Any) -> Wire:
    """A wire with that many seconds left, at a clock that stands."""
    return Wire(time.monotonic() + left_s, lambda: NOW, **more)


def origin(listener: Listener) -> Origin:
    """Its origin."""
    found = Origin.of(listener.origin)
    assert found is not None
    return found


def test_an_answer_is_what_was_sent() -> None:
    """Status, repeated headers, body, our own address, and the time by the clock that was given."""
    with Echo() as server:
        reply = wire().ask(origin(server), "GET", "/a?b=c")
        assert (reply.status, reply.body, reply.truncated) == (200, b"GET /a?b=c", False)
        assert reply.all("x-two") == ["1", "2"]
        assert (reply.received_at, reply.asked_from, reply.tls) == (NOW, "127.0.0.1", None)


def test_a_connection_goes_where_it_is_sent() -> None:
    """`connect_to` and `source` change only the connection."""
    with Echo() as server:
        elsewhere = {"id.example.com:80": [("127.0.0.1", origin(server).port)]}
        reply = wire(connect_to=elsewhere, source="127.0.0.2").ask(
            Origin("http", "id.example.com", 80), "GET", "/x"
        )
        assert reply.body == b"GET /x"
        assert reply.asked_from == "127.0.0.2"


@each_of("kind", ["an endless body", "an endless body in chunks", "huge JSON"])
def test_a_body_is_cut(kind: str) -> None:
    """256 KiB are read, whatever comes; what is cut is no JSON."""
    with Listener() as trap, HostileServer(HARM[kind], trap) as server:
        reply = wire().ask(origin(server), "GET", "/")
        assert len(reply.body) == MAX_BODY
        assert reply.truncated
        assert reply.json() is None


@each_of(
    ("kind", "told"),
    [
        ("silence", "timeout"),
        ("slow headers", "timeout"),
        ("slow body", "timeout"),
        ("endless headers", "protocol"),
        ("endless interim answers", "protocol"),
        ("not HTTP", "protocol"),
        ("nothing at all", "closed"),
    ],
)
def test_what_is_no_answer_is_told(kind: str, told: str) -> None:
    """No head in time and an answer that is not HTTP are different failures; the deadline is kept."""
    harm = HARM.get(kind) or HARM[f"a {kind}"]
    with Listener() as trap, HostileServer(harm, trap) as server:
        begun = time.monotonic()
        with pytest.raises(WireError) as error:
            wire(0.5).ask(origin(server), "GET", "/")
        assert error.value.kind == told
        assert in_time(time.monotonic() - begun, 5 * 0.5)


def test_a_closed_port_is_refused() -> None:
    """Nobody there is not the same as nobody answering."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(WireError) as error:
            wire().ask(Origin("http", "127.0.0.1", held.getsockname()[1]), "GET", "/")
    assert error.value.kind == "refused"


def test_a_name_that_nobody_answers_for_takes_no_longer_than_the_rest() -> None:
    """The look-up of the system has no bound; ours has."""

    def look_up(_name: str, _port: int) -> list[str]:
        is_over.wait(10)
        return ["127.0.0.1"]

    is_over, begun = threading.Event(), time.monotonic()
    with pytest.raises(WireError) as error:
        wire(0.2, look_up=look_up).ask(Origin("http", "id.example.com", 80), "GET", "/")
    assert error.value.kind == "dns"
    assert in_time(time.monotonic() - begun, 5)
    is_over.set()


def test_a_name_is_looked_up_once_and_its_next_address_tried() -> None:
    """The first address refuses, the second answers; four at most are kept."""
    asked: list[str] = []

    def look_up(name: str, _port: int) -> list[str]:
        asked.append(name)
        return ["127.0.0.2", "127.0.0.1", "127.0.0.3", "127.0.0.4", "127.0.0.5"]

    with Echo() as server:
        ours = wire(look_up=look_up)
        place = Origin("http", "id.example.com", origin(server).port)
        assert ours.ask(place, "GET", "/").status == 200
        assert ours.ask(place, "GET", "/", place=Place("127.0.0.1", place.port)).status == 200
        with pytest.raises(WireError):
            ours.ask(place, "GET", "/", place=Place("127.0.0.2", place.port))
        assert len(ours.places(place)) == MAX_ADDRESSES
    assert asked == ["id.example.com"]


def test_a_place_may_be_a_unix_socket(tmp_path: Path) -> None:
    """The socket that the shipped unit listens on is asked like any address; if nobody listens, the failure is the same as for a port."""
    path = str(tmp_path / "s")
    here = Origin("http", "localhost", 80)
    with pytest.raises(WireError) as error:
        wire().ask(here, "GET", "/", place=Place(path, 0))
    assert error.value.kind == "refused"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        answering = threading.Thread(target=answer, daemon=True)
        answering.start()
        reply = wire(source="127.0.0.2").ask(here, "GET", "/", place=Place(path, 0))
        answering.join(5)
    assert (reply.status, reply.asked_from) == (204, "")


def test_a_pinned_address_is_the_only_one() -> None:
    """Of several addresses that one is asked which was found to be good."""
    with Echo() as server:
        ours = wire(look_up=lambda _name, _port: ["127.0.0.2", "127.0.0.1"])
        place = Origin("http", "id.example.com", origin(server).port)
        ours.pin(place, Place("127.0.0.2", 1))
        with pytest.raises(WireError) as error:
            ours.ask(place, "GET", "/")
    assert error.value.kind == "refused"


@each_of(
    "url",
    ["", "id.example.com", "ftp://x", "https://", "https://a:b@x", "https://x:99999", "http://[::1", "//x"],
)
def test_what_is_no_origin_is_asked_by_nobody(url: str) -> None:
    """A different scheme, credentials, no name, an invalid port."""
    assert Origin.of(url) is None


@each_of(
    ("url", "host"),
    [
        ("https://ID.example.com:443/x", "id.example.com"),
        ("https://id.example.com:8443", "id.example.com:8443"),
        ("http://[::1]:80", "[::1]"),
    ],
)
def test_host_is_written_as_a_client_writes_it(url: str, host: str) -> None:
    """The default port is left out (RFC 9110 §4.2.3)."""
    found = Origin.of(url)
    assert found is not None
    assert found.host == host


def test_a_handshake_that_does_not_end_is_ended() -> None:
    """Who takes a connection and says nothing is waited for no longer than the rest."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        begun = time.monotonic()
        with pytest.raises(WireError) as error:
            wire(0.4).ask(Origin("https", "localhost", mute.getsockname()[1]), "GET", "/")
        assert error.value.kind == "timeout"
        assert in_time(time.monotonic() - begun, 5 * 0.4)


def test_tls_is_as_relying_parties_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9325 §3.1.1: at least TLS 1.2, also with a Python whose own default is lower, as Debian's is."""
    made = ssl.create_default_context

    def lower() -> ssl.SSLContext:
        context = made()
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        return context

    monkeypatch.setattr(ssl, "create_default_context", lower)
    assert wire().tls_context().minimum_version is ssl.TLSVersion.TLSv1_2


def test_tls_to_a_port_without_it_is_told() -> None:
    """Plain text where a handshake is due is neither a certificate nor a silence."""
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            connection, _ = plain.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        answering = threading.Thread(target=answer, daemon=True)
        answering.start()
        with pytest.raises(WireError) as error:
            wire().ask(Origin("https", "localhost", plain.getsockname()[1]), "GET", "/")
        answering.join(5)
        assert error.value.kind == "tls"
