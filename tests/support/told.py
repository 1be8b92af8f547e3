"""A service of a client that gets logout notices: a real listener that keeps what it was sent."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import jwt as pyjwt

EVENT = "http://schemas.openid.net/event/backchannel-logout"


@dataclass(frozen=True)
class Told:
    """One request that came."""

    at: float
    path: str
    content_type: str
    form: list[tuple[str, str]]
    token: str = field(default="", repr=False)

    @property
    def claims(self) -> dict[str, Any]:
        """What the token says, unverified."""
        return dict(pyjwt.decode(self.token, options={"verify_signature": False}))

    @property
    def header(self) -> dict[str, Any]:
        """The token's header, unverified."""
        return dict(pyjwt.get_unverified_header(self.token))


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # without a look-up of its own name
        self.server_name, self.server_port = "localhost", self.server_address[1]


class Listener:
    """Listens on a loopback port, from its start to its end; it may be started again there."""

    def __init__(self, path: str = "/backchannel") -> None:
        self.told: list[Told] = []
        self.status = 200
        self.slow_s = 0.0
        self._port = 0
        self._path = path
        self._server: _Server | None = None
        self.start()

    @property
    def uri(self) -> str:
        """Where it gets them."""
        return f"http://127.0.0.1:{self._port}{self._path}"

    def start(self) -> None:
        """Listen, on the port that it had."""
        of = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name that the server looks for
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                form = parse_qsl(body, keep_blank_values=True)
                kind = self.headers.get("Content-Type", "")
                token = dict(form).get("logout_token", "")
                of.told.append(Told(time.time(), self.path, kind, form, token))
                time.sleep(of.slow_s)
                self.send_response(of.status)
                self.send_header("Cache-Control", "no-store")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Listen no more: who comes is refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self, count: int, within_s: float = 30.0) -> list[Told]:
        """The first so many that it got.

        Raises:
            AssertionError: when fewer have come by then.
        """
        wait_for(lambda: len(self.told) >= count, within_s)
        assert len(self.told) >= count, f"{len(self.told)} of {count} have come"
        return self.told[:count]


def wait_for(holds: Callable[[], bool], within_s: float = 30.0) -> bool:
    """Wait until something holds, for so long at most; whether it does."""
    end = time.monotonic() + within_s
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()
