"""The bridge from granian to the application, with a client that sends what it wants and when it wants."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterable
from typing import Any

from service.serving.asgi import Bridge
from service.serving.plan import BODY_S, HUNG_S, WRITERS
from service.serving.steps import Moved, Steps
from tests.flows.polling import wait_until

READ, WRITE = "/oidc/jwks", "/oidc/token"


class Future:
    """A part of a body that may come later."""

    def __init__(self) -> None:
        self.cancelled = False
        self._callback: Callable[[object], None] | None = None
        self._message: dict[str, Any] | None = None

    def __await__(self) -> Generator[Future, None, dict[str, Any]]:
        if self._message is None:
            yield self
        assert self._message is not None
        return self._message

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        self._callback = callback

    def cancel(self) -> None:
        self.cancelled = True

    def comes(self, body: bytes, more: bool = False) -> None:
        """It has arrived."""
        self._message = {"type": "http.request", "body": body, "more_body": more}
        assert self._callback is not None
        self._callback(self)


class Client:
    """One request, and what came back."""

    def __init__(self, method: str, path: str, *headers: tuple[bytes, bytes]) -> None:
        self.scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "http_version": "1.1",
            "client": ("127.0.0.1", "1"),
            "server": ("127.0.0.1", "2"),
            "headers": [(b"host", b"localhost"), *headers],
        }
        self.asked_for: list[Future] = []
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.error: BaseException | None = None
        self.ended = threading.Event()

    def receive(self) -> Future:
        self.asked_for.append(Future())
        return self.asked_for[-1]

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            assert not self.status
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.body += message["body"]

    def done(self) -> None:
        self.ended.set()

    def err(self, error: BaseException) -> None:
        self.error = error
        self.ended.set()


class App:
    """Answers with its body, and notes in which thread; each as many as there are writers wait for a gate."""

    writes_in_turn = False

    def __init__(self, *gates: threading.Event) -> None:
        self.threads: list[threading.Thread] = []
        self._gates = gates
        self._numbers = itertools.count()

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        self.threads.append(threading.current_thread())
        number = next(self._numbers)
        if self._gates:
            assert self._gates[number // WRITERS].wait(60)
        if environ["PATH_INFO"] == "/broken":
            raise ZeroDivisionError
        start("200 OK", [("Content-Type", "text/plain")])
        return [environ["wsgi.input"].read()]


def _begun(client: Client, bridge: Bridge, steps: Steps | None = None) -> Client:
    coroutine = bridge(client.scope, client.receive, client.send)  # type: ignore[arg-type]
    (steps or Steps(BODY_S)).begin(coroutine, client)
    return client


def test_reads_are_answered_where_they_arrive_and_writes_elsewhere() -> None:
    """Whatever waits for another request's write is in a thread of its own; with threads, reads are as well."""
    for threads, path, is_here in ((1, READ, True), (1, WRITE, False), (8, READ, False), (8, WRITE, False)):
        app = App()
        client = _begun(Client("POST", path, (b"content-length", b"3")), Bridge(app, threads=threads))
        client.asked_for[0].comes(b"abc")
        assert client.ended.wait(60)
        assert (client.status, client.body) == (200, b"abc")
        assert (app.threads == [threading.current_thread()]) is is_here, (threads, path)


def test_a_request_without_a_body_waits_for_nothing() -> None:
    """RFC 9112 §6.3: without Content-Length and Transfer-Encoding there is no body."""
    for headers in ([], [(b"content-length", b"0")]):
        client = _begun(Client("GET", READ, *headers), Bridge(App()))
        assert client.ended.is_set()
        assert (client.status, client.asked_for) == (200, [])


def test_a_body_of_a_known_length_ends_with_its_last_byte() -> None:
    """RFC 9112 §6.3: with Content-Length nothing follows, so nothing more is waited for, although granian cannot say so yet."""
    client = _begun(Client("POST", READ, (b"content-length", b"4")), Bridge(App()))
    client.asked_for[0].comes(b"ab", more=True)
    client.asked_for[1].comes(b"cd", more=True)
    assert (client.status, client.body, len(client.asked_for)) == (200, b"abcd", 2)
    # Transfer-Encoding overrides it.
    both = (b"content-length", b"2"), (b"transfer-encoding", b"chunked")
    client = _begun(Client("POST", READ, *both), Bridge(App()))
    client.asked_for[0].comes(b"ab", more=True)
    client.asked_for[1].comes(b"cd", more=True)
    client.asked_for[2].comes(b"")
    assert (client.status, client.body) == (200, b"abcd")


def test_a_body_may_come_in_parts_and_not_too_late() -> None:
    """RFC 9110 §15.5.9: the whole body has its time, not each part; after the 408 nothing of it counts."""
    app, steps = App(), Steps(0.0)
    client = _begun(Client("POST", READ, (b"transfer-encoding", b"chunked")), Bridge(app), steps)
    client.asked_for[0].comes(b"ab", more=True)
    client.asked_for[1].comes(b"cd", more=True)
    client.asked_for[2].comes(b"")
    assert (client.status, client.body) == (200, b"abcd")

    steps = Steps(BODY_S)
    client = _begun(Client("POST", READ, (b"content-length", b"4")), Bridge(app), steps)
    steps.end_the_late(0.0)
    client.asked_for[0].comes(b"ab", more=True)
    assert client.status == 0
    steps.end_the_late(float("inf"))
    assert (client.status, client.headers[b"connection"]) == (408, b"close")
    assert client.asked_for[1].cancelled
    assert client.ended.is_set()
    client.asked_for[1].comes(b"cd")
    assert len(app.threads) == 1


def test_an_error_of_the_application_is_told() -> None:
    """The server logs it, and answers 500."""
    client = _begun(Client("GET", "/broken"), Bridge(App()))
    assert client.ended.wait(60)
    assert isinstance(client.error, ZeroDivisionError)


def test_only_what_runs_can_hang() -> None:
    """A request that takes too long is noticed; the time in which it waits for its body or its turn does not count."""
    gates = threading.Event(), threading.Event()
    app = App(*gates)
    app.writes_in_turn = True
    bridge = Bridge(app)
    _begun(Client("POST", WRITE, (b"content-length", b"3")), bridge)
    assert not bridge.has_hung(float("inf"))
    clients = [_begun(Client("GET", WRITE), bridge) for _ in range(2 * WRITERS)]
    wait_until(lambda: len(app.threads) == WRITERS)
    assert bridge.has_hung(float("inf"))
    all_were_asked_at = time.monotonic()
    gates[0].set()
    wait_until(lambda: sum(client.ended.is_set() for client in clients) == WRITERS)
    wait_until(lambda: len(app.threads) == 2 * WRITERS)
    assert bridge.has_hung(float("inf"))
    assert not bridge.has_hung(all_were_asked_at + HUNG_S)
    gates[1].set()
    wait_until(lambda: all(client.ended.is_set() for client in clients))
    assert not bridge.has_hung(float("inf"))


class Full:
    """A pool that cannot start a thread, and keeps the job, as Python's own does."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], object]] = []

    def submit(self, job: Callable[[], object], /) -> object:
        self.jobs.append(job)
        raise RuntimeError("can't start new thread")


def test_without_a_thread_a_request_fails_and_ends() -> None:
    """The server gets the error and answers 500. The application is not called when there is a thread again."""
    app, pool = App(), Full()
    bridge = Bridge(app)
    bridge._writers = Moved(pool)
    client = _begun(Client("POST", WRITE, (b"content-length", b"3")), bridge)
    client.asked_for[0].comes(b"abc")
    assert isinstance(client.error, RuntimeError)
    pool.jobs[0]()
    assert (client.status, app.threads) == (0, [])
