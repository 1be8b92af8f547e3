"""The worker that is shipped, asked byte by byte: what HTTP/1.1 promises, and what no client can take from others.

Each test runs with the threads of a platform and without, and the deadlines on a port and on a Unix socket.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import select
import signal
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from functools import partial

import psutil
import pytest

from service.serving.plan import STOPPING_S
from tests.flows.dawdling import Dawdlers
from tests.flows.polling import wait_until, working
from tests.support.gunicorn import SECRET, SERVERS, Gunicorn, start_expecting_failure
from tests.support.pace import in_time

WAYS: dict[str, dict[str, str]] = {
    "threads": {"PORT": "4321"},
    "one thread": {},
    "granian": {"server": "granian"},
    "granian, threads": {"server": "granian", "PORT": "4321"},
}
_HOST = b"Host: localhost\r\n"
_POST = b"POST /length HTTP/1.1\r\n" + _HOST


@pytest.fixture(scope="module", params=WAYS)
def server(request: pytest.FixtureRequest) -> Iterator[Gunicorn]:
    """One worker with an application that reports what it got."""
    with Gunicorn(app="tests.flows.echoing:app", WEB_CONCURRENCY="1", **WAYS[request.param]) as started:
        yield started


def _connected(server: Gunicorn) -> socket.socket:
    wire = socket.socket(socket.AF_UNIX if server.socket_path else socket.AF_INET)
    wire.settimeout(15)
    wire.connect(str(server.socket_path) if server.socket_path else ("127.0.0.1", server.port))
    return wire


def _answers(wire: socket.socket, count: int) -> list[tuple[int, str]]:
    """Status and body of the next answers on a connection that stays open."""
    found = []
    with wire.makefile("rb") as lines:
        for _ in range(count):
            status = int(lines.readline().split(b" ")[1])
            headers = http.client.parse_headers(lines)
            found.append((status, lines.read(int(headers["Content-Length"])).decode()))
    return found


def _is_served_at_once(server: Gunicorn) -> bool:
    """Whether a request is answered that waits for no other."""
    began = time.monotonic()
    return server.call("GET", "/oidc/jwks").status == 200 and in_time(time.monotonic() - began, 2)


def _rest(wire: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := wire.recv(65536):
            received += data
    return received


def test_a_body_is_asked_for_once_and_only_where_its_client_waits(server: Gunicorn) -> None:
    """RFC 9110 §10.1.1: 100 (Continue) before the body, none in HTTP/1.0 or when the body has come, 413 or 417 at once.

    granian asks for one that has come too, which the RFC allows.
    """
    expects = _POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    with _connected(server) as wire:
        wire.sendall(expects)
        assert wire.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.sendall(b"12345")
        assert _answers(wire, 1) == [(200, "5")]
        wire.sendall(expects + b"12345")
        if server.kind == "granian":
            assert wire.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert _answers(wire, 1) == [(200, "5")]
    with _connected(server) as wire:
        wire.sendall(expects.replace(b"HTTP/1.1", b"HTTP/1.0"))
        wire.settimeout(0.3)
        with pytest.raises(TimeoutError):
            wire.recv(1)
    with _connected(server) as wire:
        wire.sendall(_POST + b"Content-Length: 999999\r\nExpect: 100-continue\r\n\r\n")
        assert _rest(wire).startswith(b"HTTP/1.1 200 ")  # what the application says of it; nobody waited
    with _connected(server) as wire:
        wire.sendall(_POST + b"Content-Length: 5\r\nExpect: payment\r\n\r\n")
        assert _rest(wire).startswith(b"HTTP/1.1 417 ")


def test_requests_may_come_in_pieces_and_several_at_once(server: Gunicorn) -> None:
    """RFC 9112 §9.3.2: pipelined requests are answered one by one, in order, whatever pieces they come in."""
    chunked = _POST + b"Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n4\r\ndefg\r\n0\r\nX-Sum: 1\r\n\r\n"
    sized = _POST + b"Content-Length: 3\r\n\r\nabc"
    bare = b"GET /length HTTP/1.1\r\n" + _HOST + b"\r\n"
    everything = (chunked + sized + bare) * 4
    expected = [(200, "7"), (200, "3"), (200, "0")] * 4
    for step in (len(everything), 17, 1):
        with _connected(server) as wire:
            for at in range(0, len(everything), step):
                wire.sendall(everything[at : at + step])
            assert _answers(wire, len(expected)) == expected
    with _connected(server) as wire:
        wire.sendall(bare * 499 + bare.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        if server.kind == "gunicorn":  # granian lets go of a client that says it sends no more
            wire.shutdown(socket.SHUT_WR)
        assert _rest(wire).count(b"HTTP/1.1 200 ") == 500


def test_how_long_a_connection_lasts_is_as_http_says(server: Gunicorn) -> None:
    """RFC 9112 §9.3, §9.6: kept in HTTP/1.1, closed where either side says so, and after HTTP/1.0 unless it is asked for."""
    get = b"GET /length HTTP/1.1\r\n" + _HOST
    for head, kept in (
        (get, True),
        (get + b"Connection: close\r\n", False),
        (b"GET /length HTTP/1.0\r\n", False),
        (b"GET /length HTTP/1.0\r\nConnection: keep-alive\r\n", True),
    ):
        with _connected(server) as wire:
            wire.sendall((head + b"\r\n") * 2)
            if kept:
                assert _answers(wire, 2) == [(200, "0")] * 2
            else:
                answer = _rest(wire)
                assert answer.count(b" 200 OK") == 1
                # In HTTP/1.0 it goes without saying (RFC 9112 §9.3).
                assert b"\r\nconnection: close\r\n" in answer.lower() or answer.startswith(b"HTTP/1.0 ")


def test_a_large_body_is_refused_while_it_is_sent(server: Gunicorn) -> None:
    """RFC 9112 §9.6: a client that keeps sending reads its answer before the connection ends."""
    with _connected(server) as wire:
        wire.sendall(_POST + b"Content-Length: 500000\r\n\r\n" + b"x" * 500_000)
        answer = _rest(wire)
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_heads_are_bounded(server: Gunicorn) -> None:
    """RFC 6585 §5: a head of 24 KiB passes, one of more than 32 KiB is 431, without waiting for its end."""
    for size, status in ((24, b"200"), (33, b"431")):
        fields = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 1014) for number in range(size))
        with _connected(server) as wire:
            wire.sendall(b"GET / HTTP/1.1\r\n" + _HOST + fields)
            if status == b"200":
                wire.sendall(b"Connection: close\r\n\r\n")
            assert _rest(wire).split(b" ")[1] == status


def test_answers_that_nobody_takes_cost_no_thread_and_end(server: Gunicorn) -> None:
    """Clients that ask for megabytes and never read, more of them than threads: the others are answered, and they are let go.

    granian keeps them; what the service answers fits into the buffer of a socket.
    """
    with contextlib.ExitStack() as stack:
        deaf = [stack.enter_context(_connected(server)) for _ in range(24)]
        for wire in deaf:
            wire.sendall(b"GET /large/8000000 HTTP/1.1\r\n" + _HOST + b"\r\n")
        for _ in range(5):
            assert server.call("GET", "/", timeout=5).status == 200
        worker = psutil.Process(server.worker_pids()[0])

        def open_connections() -> int:
            return len([wire for wire in worker.net_connections("tcp") if wire.status == "ESTABLISHED"])

        assert open_connections() >= 24
        if server.kind == "granian":
            return
        wait_until(lambda: open_connections() == 0, timeout_s=20)


def test_a_slow_answer_comes_whole(server: Gunicorn) -> None:
    """A client that reads slowly gets every byte, as long as it is done within the deadline."""
    with _connected(server) as wire:
        wire.sendall(b"GET /large/8000000 HTTP/1.1\r\n" + _HOST + b"Connection: close\r\n\r\n")
        time.sleep(1)
        received = 0
        while data := wire.recv(1 << 20):
            received += len(data)
            time.sleep(0.05)
    assert received > 8_000_000


# Deadlines

_SLOW = {"says nothing": False, "a byte of the head a second": True, "a byte of the body a second": True}
_SLOW |= {"a byte of a chunk a second": True}


@pytest.mark.parametrize("kind", SERVERS)
def test_requests_that_may_write_take_turns_where_the_application_says_so(kind: str) -> None:
    """One at a time where there is one writer, all at once where there are many."""
    most = {}
    for name in ("app", "in_turn"):
        with Gunicorn(server=kind, app=f"tests.flows.echoing:{name}", WEB_CONCURRENCY="1") as server:
            seen: list[int] = []

            def ask(server: Gunicorn = server, seen: list[int] = seen) -> None:
                for _ in range(8):
                    seen.append(int(server.call("POST", "/together/0.005").body))

            threads = [threading.Thread(target=ask) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            assert len(seen) == 64
            most[name] = statistics.quantiles(seen, n=10)[-1]
    assert most["in_turn"] <= 2 < most["app"], most


@pytest.mark.parametrize("target", ["/slow/3", "/slow/3/oidc/userinfo"])
def test_a_slow_request_keeps_its_thread_and_not_the_loop(target: str) -> None:
    """With one thread and one writer too: whether it may write or only reads, others are answered meanwhile, and it is too."""
    with Gunicorn(server="gunicorn", app="tests.flows.echoing:in_turn", WEB_CONCURRENCY="1") as server:
        for method in ("GET", "POST"):
            with _connected(server) as slow:
                slow.sendall(
                    f"{method} {target} HTTP/1.1\r\n".encode() + _HOST + b"Content-Length: 0\r\n\r\n"
                )
                # What follows on the same connection waits for it, and costs nothing meanwhile.
                time.sleep(0.3)
                slow.sendall(b"GET /together/0 HTTP/1.1\r\n" + _HOST + b"\r\n")
                worker = psutil.Process(server.worker_pids()[0])
                used = sum(worker.cpu_times()[:2])
                for _ in range(5):
                    assert _is_served_at_once(server)
                    assert in_time(_post_together(server), 1)
                # Not yet answered, however busy this machine is.
                assert not select.select([slow], [], [], 0)[0]
                assert _answers(slow, 2) == [(200, "done"), (200, "1")]
                assert sum(worker.cpu_times()[:2]) - used < 1


def _post_together(server: Gunicorn) -> float:
    """How long a request takes that may write."""
    began = time.monotonic()
    assert server.call("POST", "/together/0").status == 200
    return time.monotonic() - began


@pytest.mark.parametrize("app", ["app", "in_turn"])
def test_a_worker_in_which_every_request_is_slow_is_healthy(app: str) -> None:
    """More of them than threads, without a pause: it is not replaced, answers what may write, and stops when it should."""
    argv = ["--timeout", "3"]
    with Gunicorn(
        server="gunicorn", app=f"tests.flows.echoing:{app}", WEB_CONCURRENCY="1", argv=argv
    ) as server:
        before, over = server.worker_pids(), threading.Event()

        def ask() -> None:
            while not over.is_set():
                with contextlib.suppress(OSError, http.client.HTTPException):  # at the end
                    server.call("GET", "/slow/0.05/oidc/userinfo")

        with working(*[ask] * 20, until=over):
            end = time.monotonic() + 5
            while time.monotonic() < end:
                assert in_time(_post_together(server), 2)
            assert server.worker_pids() == before
            began = time.monotonic()
            os.kill(server.pid, signal.SIGTERM)
            assert server.wait() == 0
            assert in_time(time.monotonic() - began, 8)


@pytest.mark.parametrize("requests", [["/slow/60"], ["/slow/60/oidc/userinfo"] * 9])
def test_a_worker_in_which_a_request_is_far_too_slow_is_replaced(requests: list[str]) -> None:
    """One that hangs, and as many as the loop has threads: gunicorn's master gets no sign of life any more."""
    argv = ["--timeout", "2"]
    with (
        Gunicorn(
            server="gunicorn", app="tests.flows.echoing:in_turn", WEB_CONCURRENCY="1", argv=argv
        ) as server,
        contextlib.ExitStack() as stack,
    ):
        before = server.worker_pids()
        for target in requests:
            head = f"POST {target} HTTP/1.1\r\n".encode() + _HOST + b"Content-Length: 0\r\n\r\n"
            stack.enter_context(_connected(server)).sendall(head)
        wait_until(lambda: server.worker_pids() not in ([], before))
        assert _is_served_at_once(server)


def test_a_worker_stops_with_its_master() -> None:
    """`kill -9` of the master: a request that is slow ends first."""
    with (
        Gunicorn(server="gunicorn", app="tests.flows.echoing:in_turn", WEB_CONCURRENCY="1") as server,
        _connected(server) as slow,
    ):
        worker = psutil.Process(server.worker_pids()[0])
        slow.sendall(b"POST /slow/2 HTTP/1.1\r\n" + _HOST + b"Content-Length: 0\r\n\r\n")
        time.sleep(0.5)
        os.kill(server.pid, signal.SIGKILL)
        try:
            assert b"\r\n\r\ndone" in _rest(slow)
            wait_until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()


def test_a_worker_without_slow_requests_sleeps() -> None:
    """Its main thread, which watches for slow requests, wakes up once a second while there are none."""
    with Gunicorn(server="gunicorn", app="tests.flows.echoing:in_turn", WEB_CONCURRENCY="1") as server:
        assert _is_served_at_once(server)
        worker = psutil.Process(server.worker_pids()[0])
        before = worker.num_ctx_switches().voluntary  # of its main thread
        time.sleep(2)
        assert worker.num_ctx_switches().voluntary - before < 40


@pytest.mark.parametrize("app", ["app", "in_turn"])
def test_an_application_that_exits_stops_only_its_request(app: str) -> None:
    """At once or when it was slow: its connection ends, and the same worker answers the next request."""
    with Gunicorn(server="gunicorn", app=f"tests.flows.echoing:{app}", WEB_CONCURRENCY="1") as server:
        before = server.worker_pids()
        for seconds in (b"0", b"0.1"):
            with _connected(server) as wire:
                wire.sendall(b"POST /exit/" + seconds + b" HTTP/1.1\r\n" + _HOST + b"\r\n")
                assert _rest(wire) == b""
            assert in_time(_post_together(server), 2)
        assert server.worker_pids() == before
        assert server.output().count("a request could not be answered") == 2


@pytest.mark.parametrize("app", ["app", "in_turn"])
def test_requests_that_wait_for_a_thread_cost_nothing(app: str) -> None:
    """More slow ones than there are threads, each with something behind it on its connection, and one that is gone."""
    with (
        Gunicorn(server="gunicorn", app=f"tests.flows.echoing:{app}", WEB_CONCURRENCY="1") as server,
        contextlib.ExitStack() as stack,
    ):
        worker = psutil.Process(server.worker_pids()[0])
        waiting = [stack.enter_context(_connected(server)) for _ in range(12)]
        for wire in waiting:
            wire.sendall(b"GET /oidc/jwks HTTP/1.1\r\n" + _HOST + b"\r\n")
            assert _answers(wire, 1)[0][0] == 200
        for wire in waiting:
            wire.sendall(b"POST /slow/1.5 HTTP/1.1\r\n" + _HOST + b"Content-Length: 0\r\n\r\n")
        time.sleep(0.3)
        for wire in waiting:
            wire.sendall(b"GET /oidc/jwks HTTP/1.1\r\n" + _HOST + b"\r\n")
        waiting.pop().close()
        used = sum(worker.cpu_times()[:2])
        assert _is_served_at_once(server)
        time.sleep(1)
        assert sum(worker.cpu_times()[:2]) - used < 0.3
        for wire in waiting:
            assert [status for status, _ in _answers(wire, 2)] == [200, 200]


@pytest.mark.parametrize("app", ["app", "in_turn"])
def test_reads_wait_for_one_write_at_most(app: str) -> None:
    """Clients that write one request after the other, each of which takes 5 ms: a read is answered in between."""
    with Gunicorn(server="gunicorn", app=f"tests.flows.echoing:{app}", WEB_CONCURRENCY="1") as server:
        ends = threading.Event()

        def write() -> None:
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as wire:
                while not ends.is_set():
                    wire.request("POST", "/slow/0.005", b"")
                    assert wire.getresponse().read() == b"done"

        took = []
        reader = http.client.HTTPConnection("127.0.0.1", server.port)
        with working(*[write] * 12, until=ends), contextlib.closing(reader) as wire:
            for _ in range(40):
                began = time.monotonic()
                wire.request("GET", "/oidc/jwks")
                wire.getresponse().read()
                took.append(time.monotonic() - began)
        assert in_time(statistics.median(took), 0.02)


@pytest.mark.parametrize("app", ["app", "in_turn"])
def test_a_worker_that_can_start_no_thread_stays(app: str) -> None:
    """Requests wait for a thread that exists; when threads can be started again, they are."""
    with Gunicorn(server="gunicorn", app=f"tests.flows.echoing:{app}", WEB_CONCURRENCY="1") as server:
        before = server.worker_pids()
        assert server.call("POST", "/threads/none").status == 200
        for limit in ("none", "some"):
            with contextlib.ExitStack() as stack:
                slow = [stack.enter_context(_connected(server)) for _ in range(4)]
                for wire in slow:
                    wire.sendall(b"POST /slow/0.3 HTTP/1.1\r\n" + _HOST + b"Content-Length: 0\r\n\r\n")
                for wire in slow:
                    assert _answers(wire, 1) == [(200, "done")]
            assert server.call("POST", f"/threads/{limit}").status == 200
        assert server.worker_pids() == before


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGQUIT])
def test_a_signal_reaches_a_worker_while_a_request_is_slow(sent: signal.Signals) -> None:
    """SIGTERM lets a request in the loop end, SIGQUIT stops at once what is idle; both arrive although it is slow."""
    with (
        Gunicorn(server="gunicorn", app="tests.flows.echoing:in_turn", WEB_CONCURRENCY="1") as server,
        _connected(server) as slow,
    ):
        slow.sendall(b"POST /slow/2 HTTP/1.1\r\n" + _HOST + b"Content-Length: 0\r\n\r\n")
        time.sleep(0.5)
        began = time.monotonic()
        os.kill(server.pid, sent)
        if sent is signal.SIGTERM:
            assert b"\r\n\r\ndone" in _rest(slow)
        assert server.wait() == 0
        assert in_time(time.monotonic() - began, 8)


@pytest.mark.parametrize("app", ["app", "in_turn"])
def test_a_slow_request_that_outlives_its_worker_writes_to_no_file_of_others(app: str) -> None:
    """HUP, and no patience: when the request ends, the loop has ended, and its files may be those of a database."""
    argv = ["--graceful-timeout", "1"]
    with (
        Gunicorn(
            server="gunicorn", app=f"tests.flows.echoing:{app}", WEB_CONCURRENCY="1", argv=argv
        ) as server,
        _connected(server) as slow,
    ):
        slow.sendall(b"POST /open/3 HTTP/1.1\r\n" + _HOST + b"Content-Length: 0\r\n\r\n")
        time.sleep(0.5)
        os.kill(server.pid, signal.SIGHUP)
        wait_until(lambda: "others wrote" in server.output())
        assert "others wrote 0 bytes" in server.output()


@pytest.mark.parametrize("where", ["a platform's port", "a Unix socket"])
def test_every_state_of_a_connection_has_a_deadline(where: str) -> None:
    """10 to 15 s for a whole head and a whole body, each; the keep-alive time for an idle one; others are served meanwhile."""
    options = {"PORT": "4321"} if where == "a platform's port" else {}
    settings = options | {"PYLON_JWT_SECRET": SECRET, "WEB_CONCURRENCY": "1"}
    with Gunicorn(
        server="gunicorn", unix=where == "a Unix socket", argv=["--keep-alive", "3"], **settings
    ) as server:
        kinds = [*_SLOW, "idle after an answer"]
        with Dawdlers(lambda: _connected(server), kinds, 60).at_work() as slow:

            def all_have_ended() -> bool:
                assert _is_served_at_once(server)
                return all(slow.ended.values())

            wait_until(all_have_ended)
    for kind, is_told in _SLOW.items():
        for lasted, answer in slow.ended[kind][:5]:
            assert lasted > 9.5 and in_time(lasted, 15), (kind, lasted)
            assert answer.startswith(b"HTTP/1.1 408 ") if is_told else answer == b"", kind
    for lasted, answer in slow.ended["idle after an answer"]:
        assert lasted > 2.5 and in_time(lasted, 6)
        assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_head_and_a_body_have_a_deadline_each() -> None:
    """A head that took its time leaves its body the whole of its own."""
    with Gunicorn(WEB_CONCURRENCY="1") as server, _connected(server) as wire:
        wire.sendall(b"POST /oidc/token HTTP/1.1\r\n" + _HOST)
        time.sleep(7)
        wire.sendall(b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n\r\n")
        time.sleep(7)
        wire.sendall(b"a=b")
        assert _answers(wire, 1)[0][0] == 400


def test_a_body_has_a_deadline_under_granian_too() -> None:
    """RFC 9110 §15.5.9: a body that stops, or comes byte by byte, is 408 after 10 s, and keeps nobody waiting."""
    kinds = ["stops within the body", "a byte of the body a second", "a byte of a chunk a second"]
    with Gunicorn(server="granian", app="tests.flows.echoing:app", WEB_CONCURRENCY="1") as server:
        with Dawdlers(lambda: _connected(server), kinds, 60).at_work() as slow:

            def all_have_ended() -> bool:
                assert _is_served_at_once(server)
                return all(slow.ended.values())

            wait_until(all_have_ended)
        for lasted, answer in [one for kind in kinds for one in slow.ended[kind]]:
            assert lasted > 9.5 and in_time(lasted, 15)
            assert answer.startswith(b"HTTP/1.1 408 ")
        assert server.call("POST", "/length", body=b"whole").body == b"5"


def test_the_oldest_makes_room_for_the_next() -> None:
    """At the bound the connection that got nowhere for the longest time ends; new connections are served, and it is logged."""
    argv = ["--worker-connections", "20"]
    with (
        Gunicorn(server="gunicorn", app="tests.flows.echoing:app", WEB_CONCURRENCY="1", argv=argv) as server,
        contextlib.ExitStack() as stack,
    ):
        silent = [stack.enter_context(_connected(server)) for _ in range(60)]
        for _ in range(5):
            assert _is_served_at_once(server)
        for wire in silent[:30]:
            assert _rest(wire) == b""
        worker = psutil.Process(server.worker_pids()[0])
        assert len([wire for wire in worker.net_connections("tcp") if wire.status == "ESTABLISHED"]) <= 20
        wait_until(lambda: "made room" in server.output())


def test_memory_is_bounded_by_the_number_of_connections() -> None:
    """500 connections that each leave almost 64 KiB of a body cost little more than that."""
    with Gunicorn(WEB_CONCURRENCY="1", PORT="4321") as server, contextlib.ExitStack() as stack:
        worker = psutil.Process(server.worker_pids()[0])
        before = worker.memory_info().rss
        head = b"POST /oidc/token HTTP/1.1\r\n" + _HOST + b"Content-Length: 65536\r\n\r\n"
        for _ in range(500):
            stack.enter_context(_connected(server)).sendall(head + b"x" * 65000)
        assert server.call("GET", "/healthz", timeout=5).status == 200
        assert worker.memory_info().rss - before < 500 * 2 * 65536 + 20_000_000


# Stopping and reloading


@pytest.mark.parametrize("way", WAYS)
def test_a_stop_sees_through_what_has_begun(way: str) -> None:
    """SIGTERM: a request under way and one whose body still comes are answered, silent and idle connections end; exit 0."""
    with (
        Gunicorn(app="tests.flows.echoing:app", WEB_CONCURRENCY="1", **WAYS[way]) as server,
        contextlib.ExitStack() as stack,
    ):
        silent, idle, half, slow = (stack.enter_context(_connected(server)) for _ in range(4))
        idle.sendall(b"GET / HTTP/1.1\r\n" + _HOST + b"\r\n")
        assert _answers(idle, 1)[0][0] == 200
        half.sendall(_POST + b"Content-Length: 5\r\n\r\n12")
        slow.sendall(b"GET /slow/2 HTTP/1.1\r\n" + _HOST + b"\r\n")
        time.sleep(0.5)
        began = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        time.sleep(0.5)
        half.sendall(b"345")
        assert b"\r\n\r\ndone" in _rest(slow)
        answer = _rest(half)
        assert answer.endswith(b"\r\n\r\n5")
        assert b"connection: close" in answer.lower()
        assert _rest(silent) == _rest(idle) == b""
        assert server.wait() == 0
        assert in_time(time.monotonic() - began, 12)


def test_a_stop_in_the_first_moment_reaches_every_worker() -> None:
    """SIGTERM while workers are being forked ends them too, at once: none waits for the kill after 25 s."""
    with Gunicorn(config="tests/flows/forking_slowly.py", WEB_CONCURRENCY="2", wait=False) as server:
        wait_until(lambda: len(server.worker_pids()) == 2)
        began = time.monotonic()
        assert server.stop() == 0
        assert in_time(time.monotonic() - began, 10)


def _are_replaced(server: Gunicorn, old: set[int]) -> bool:
    workers = set(server.worker_pids())
    return len(workers) == 2 and not old & workers


@pytest.mark.parametrize("way", WAYS)
def test_a_reload_loses_no_request(way: str) -> None:
    """HUP: new workers come, old ones end, and no request fails, on new connections or kept ones."""
    with Gunicorn(app="tests.flows.echoing:app", WEB_CONCURRENCY="2", **WAYS[way]) as server:
        over = threading.Event()
        failed: list[BaseException] = []
        asked = [0]

        def ask(*, kept: bool) -> None:
            connection, idle_since = server.connection(10), float("inf")
            while not over.is_set():
                # One that was idle for about as long as a stop waits may be ended while its request is on its way
                # (RFC 9112 §9.5): its client, which a busy machine held up, opens another.
                may_be_ended = time.monotonic() - idle_since > STOPPING_S / 2
                try:
                    connection.request("POST", "/length", body=b"abc")
                    response = connection.getresponse()
                    assert response.read() == b"3"
                except ConnectionError as error:
                    connection.close()
                    idle_since = float("inf")
                    if may_be_ended:
                        continue
                    failed.append(error)
                    return
                except BaseException as error:
                    failed.append(error)
                    return
                asked[0] += 1
                if kept:
                    idle_since = time.monotonic()
                else:
                    connection.close()
                time.sleep(0.002)
            connection.close()

        clients = [threading.Thread(target=ask, kwargs={"kept": number % 2 == 0}) for number in range(4)]
        for client in clients:
            client.start()
        for _ in range(2):
            old = set(server.worker_pids())
            os.kill(server.pid, signal.SIGHUP)
            wait_until(partial(_are_replaced, server, old))
        over.set()
        for client in clients:
            client.join(60)
        assert not failed
        assert asked[0] > 100


@pytest.mark.usefixtures("each_server")
def test_a_worker_that_takes_leave_takes_no_connection() -> None:
    """HUP: a connection that came as an old worker ends would be lost with it (RFC 9112 §9.6): new ones are the new one's."""
    with (
        Gunicorn(app="tests.flows.collecting:app", WEB_CONCURRENCY="1") as server,
        _connected(server) as kept,
    ):
        (old,) = server.worker_pids()
        kept.sendall(
            b"GET / HTTP/1.1\r\nConnection: close\r\n" + _HOST
        )  # so that it stays until it has answered
        os.kill(server.pid, signal.SIGHUP)

        def by() -> int:
            return int(server.call("GET", "/").body.split()[0])

        # The old one takes leave a moment after the new one has started to answer.
        wait_until(lambda: old not in {by() for _ in range(10)})
        assert old not in {by() for _ in range(50)}
        assert psutil.pid_exists(old)
        kept.sendall(b"\r\n")
        assert b"\r\n%d " % old in _rest(kept)


def test_tls_is_refused_in_words() -> None:
    """A certificate for gunicorn itself is a fault that says what to do instead, before anything is bound."""
    code, output = start_expecting_failure(
        server="gunicorn", argv=["--certfile", __file__, "--keyfile", __file__]
    )
    assert code != 0
    assert re.search("terminate TLS at a proxy", output)
