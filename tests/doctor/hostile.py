"""A server that means harm, and a trap that nobody may touch."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable
from typing import Any, Self

_STEP_S = 0.05
_CHUNK = b" " * 65536

#: What is sent for one request: the origin of the server, and that of the trap, are its arguments.
Answer = Callable[[str, str], Iterable[bytes]]


class Listener:
    """Something that listens on a loopback port, and keeps what it was asked.

    Attributes:
        asked: Method and target of every request; an empty text for a connection without one.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._ended = threading.Event()
        listener = self

        class Handler(socketserver.StreamRequestHandler):
            timeout = 30

            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    listener._handle(self.rfile, self.connection)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.origin = f"http://localhost:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def _handle(self, incoming: Any, wire: socket.socket) -> None:
        line = incoming.readline(65536).decode("latin-1").strip()
        self.asked.append(" ".join(line.split(" ")[:2]))
        while incoming.readline(65536).strip():
            pass
        for piece in self.answer():
            if self._ended.is_set():
                return
            wire.sendall(piece)

    def answer(self) -> Iterable[bytes]:
        """What every client gets."""
        return [b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()


class HostileServer(Listener):
    """Answers every request in one way."""

    def __init__(self, answer: Answer, trap: Listener) -> None:
        self._answer, self._trap = answer, trap
        super().__init__()

    def answer(self) -> Iterable[bytes]:
        """What its kind of harm is."""
        return self._slowly(self._answer(self.origin, self._trap.origin))

    def _slowly(self, pieces: Iterable[bytes]) -> Iterable[bytes]:
        """An empty piece is a pause."""
        for piece in pieces:
            if not piece:
                self._ended.wait(_STEP_S)
            yield piece


def _head(status: str, **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _whole(body: bytes, status: str = "200 OK", **headers: str) -> list[bytes]:
    given = {"Content_Type": "application/json"} | headers
    return [_head(status, **given, Content_Length=str(len(body)), Connection="close"), body]


def _document(origin: str, **others: object) -> dict[str, object]:
    endpoints = {
        f"{name}_endpoint": f"{origin}/oidc/{name}" for name in ("authorization", "token", "userinfo")
    }
    return {
        "issuer": origin,
        "jwks_uri": f"{origin}/oidc/jwks",
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        **endpoints,
        **others,
    }


def _json(origin: str, **others: object) -> list[bytes]:
    return _whole(json.dumps(_document(origin, **others)).encode())


def _endless_body(_: str, __: str) -> Iterable[bytes]:
    yield _head("200 OK", Content_Type="application/json")
    while True:
        yield _CHUNK


def _slow_body(_: str, __: str) -> Iterable[bytes]:
    yield _head("200 OK", Content_Type="application/json")
    while True:
        yield b" "
        yield b""


def _endless_chunks(_: str, __: str) -> Iterable[bytes]:
    yield _head("200 OK", Content_Type="application/json", Transfer_Encoding="chunked")
    while True:
        yield b"10000\r\n" + _CHUNK + b"\r\n"


def _slow_head(_: str, __: str) -> Iterable[bytes]:
    yield b"HTTP/1.1 200 OK\r\nX-Slow: "
    while True:
        yield b"a"
        yield b""


def _endless_head(_: str, __: str) -> Iterable[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X-More: and more\r\n" * 100


def _endless_interim(_: str, __: str) -> Iterable[bytes]:
    while True:
        yield b"HTTP/1.1 100 Continue\r\n\r\n" * 100


def _silence(_: str, __: str) -> Iterable[bytes]:
    while True:
        yield b""


def _bomb(_: str, __: str) -> Iterable[bytes]:
    return _whole(gzip.compress(b" " * 200_000_000, 1), Content_Encoding="gzip")


def _everywhere(trap: str) -> dict[str, object]:
    names = ("authorization", "token", "userinfo", "introspection", "revocation", "end_session")
    return {f"{name}_endpoint": f"{trap}/{name}" for name in names} | {"jwks_uri": f"{trap}/keys"}


#: Kinds of harm, by name.
HARM: dict[str, Answer] = {
    "nothing at all": lambda _, __: [],
    "silence": _silence,
    "slow headers": _slow_head,
    "endless headers": _endless_head,
    "endless interim answers": _endless_interim,
    "an endless body": _endless_body,
    "an endless body in chunks": _endless_chunks,
    "a slow body": _slow_body,
    "a compressed bomb": _bomb,
    "huge JSON": lambda _, __: _whole(b'{"issuer": "' + b"a" * 30_000_000 + b'"}'),
    "deep JSON": lambda _, __: _whole(b"[" * 200_000),
    "deep JSON that ends": lambda _, __: _whole(b'{"issuer":' * 50_000 + b"1" + b"}" * 50_000),
    "a number without an end": lambda _, __: _whole(b'{"issuer": ' + b"9" * 100_000 + b"}"),
    "bad UTF-8": lambda _, __: _whole(b'{"issuer": "\xff\xfe\xed\xa0\x80"}'),
    "lone surrogates": lambda _, __: _whole(b'{"issuer": "\\ud800"}'),
    "not HTTP": lambda _, __: [b"SSH-2.0-OpenSSH_9.2\r\n"],
    "a redirect to itself": lambda origin, __: _whole(b"", "302 Found", Location=f"{origin}/again"),
    "a redirect to the trap": lambda _, trap: _whole(b"", "302 Found", Location=f"{trap}/private"),
    "a redirect to a private address": lambda _, trap: _whole(
        b"", "307 Temporary Redirect", Location=trap.replace("localhost", "127.0.0.1") + "/latest/meta-data"
    ),
    "a redirect to a file": lambda _, __: _whole(b"", "302 Found", Location="file:///etc/passwd"),
    "a redirect that cannot be read": lambda _, __: _whole(b"", "302 Found", Location="http://[::1"),
    "endpoints at the trap": lambda origin, trap: _json(origin, **_everywhere(trap)),
    "the issuer is the trap": lambda _, trap: _json(trap),
    "members of other types": lambda origin, __: _json(
        origin, issuer=5, jwks_uri={}, token_endpoint=["x"], response_types_supported="code"
    ),
    "addresses that cannot be read": lambda origin, __: _json(
        origin,
        jwks_uri="http://[::1",
        token_endpoint="javascript:alert(1)",
        userinfo_endpoint="//",
        issuer="",
    ),
    "no object": lambda _, __: _whole(b'["issuer"]'),
    "control characters": lambda origin, __: _json(origin, issuer="https://a\u001b[2J\u202e\u0007\r\nx"),
    "control characters in headers": lambda _, __: _whole(
        b"{}", "200 \x1b[2J", Content_Type="application/\x1b]0;x\x07json", Server="\x1b[31m"
    ),
    "markup": lambda origin, __: _json(origin, issuer="https://<script>alert(1)</script>"),
}
