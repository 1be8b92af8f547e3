"""Serves a WSGI application from an ASGI server that passes the path as it was sent.

    scope -> environ -> the whole body, within its deadline -> the application -> its answer

The checks before the application sees a request are the same as under gunicorn: size limits, exactly one framing, and
no header that could pass for another. A body takes no thread while it arrives.

Spec: ASGI HTTP 2.3; PEP 3333; RFC 9110 §10.1.1, RFC 9112 §6.3
"""

from __future__ import annotations

import functools
import io
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from service.serving.calling import Environ, WsgiApp, body_of
from service.serving.framing import MAX_BODY_BYTES, MAX_HEAD_BYTES
from service.serving.plan import HUNG_S, MAX_FIELDS, MAX_LINE_BYTES, WRITERS, only_reads, writes_in_turn
from service.serving.steps import Moved, Pool
from service.serving.turns import Turns

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Set in the environment if the server drops the host of an absolute-form target, and a fragment.
TARGET_WITHOUT_HOST: Final = "pylon.target_without_host"
#: How much is read of a body that is refused as too long, so that the client can read the answer.
_DRAIN_BYTES: Final = 1024 * 1024
_CLOSE: Final = (b"connection", b"close")
_METHOD: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789$-_.")


class _CutShort(io.BytesIO):
    """A body that ended too early."""

    def read(self, _size: int | None = -1, /) -> bytes:
        """Fail: there is nothing to read.

        Raises:
            OSError: always.
        """
        raise OSError("the body was cut short")


class Bridge:
    """Calls a WSGI application for ASGI requests, in the steps of `steps.py`.

    Requests that may wait for another request's write are answered in separate threads.

    Args:
        app: the application.
        threads: how many requests that only read are answered at the same time; with 1, and where one request writes
            at a time, in the thread in which they arrive, one after the other.
        workers: how many processes do the same.
    """

    def __init__(self, app: WsgiApp, *, threads: int = 1, workers: int = 1) -> None:
        self._app = app
        # The first request starts the threads, in the worker: threads do not survive a fork.
        in_turn = writes_in_turn(app)
        self._readers = Moved(ThreadPoolExecutor(threads)) if threads > 1 and not in_turn else None
        writers: Pool = Turns(WRITERS) if in_turn else ThreadPoolExecutor(WRITERS)
        self._writers = Moved(writers)
        #: The requests being answered, with their start by the monotonic clock, oldest first.
        self._under_way: dict[_Answer, float] = {}
        #: Whether the process is about to end. Each answer is then the last on its connection.
        self.takes_leave = False
        self._environ = {
            "SCRIPT_NAME": "",
            "SERVER_SOFTWARE": "granian",
            TARGET_WITHOUT_HOST: True,
            "wsgi.errors": sys.stderr,
            "wsgi.input_terminated": True,
            "wsgi.multiprocess": workers > 1,
            "wsgi.multithread": True,
            "wsgi.run_once": False,
            "wsgi.url_scheme": "http",
            "wsgi.version": (1, 0),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. A `TimeoutError` while it waits for the body is answered with 408."""
        if scope["type"] != "http":
            return
        environ: Environ = self._environ.copy()
        status = _read_head(scope, environ)
        is_last = False
        if status is None:
            status, is_last = await _read_body(environ, receive)
        if status is not None:
            await _refuse(send, status)
            return
        answer = _Answer(environ["REQUEST_METHOD"] == "HEAD")
        body = environ["wsgi.input"]
        sent = body.getvalue() if isinstance(body, io.BytesIO) else None
        reads = only_reads(environ["REQUEST_METHOD"], environ["RAW_URI"], sent)
        threads = self._readers if reads else self._writers
        if threads is not None:
            await threads
        self._under_way[answer] = time.monotonic()
        try:
            answer.of(self._app, environ)
        finally:
            del self._under_way[answer]
        if is_last or self.takes_leave:
            answer.headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        await send({"type": "http.response.body", "body": answer.body})

    def has_hung(self, now: float) -> bool:
        """Whether a request has taken too long. `now` is of the monotonic clock. Any thread may call this."""
        return any(now - since > HUNG_S for since in list(self._under_way.values()))


class _Answer:
    """The application's answer, in memory."""

    def __init__(self, is_head: bool) -> None:
        self._is_head = is_head
        self.status = 500
        self.headers: list[tuple[bytes, bytes]] = []
        self.body = b""

    def of(self, app: WsgiApp, environ: Environ) -> None:
        """Call the application."""
        body = body_of(app, environ, self._start)
        self.body = b"" if self._is_head else body

    def _start(self, status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> None:
        self.status = int(status[:3])
        self.headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _read_head(scope: Scope, environ: Environ) -> int | None:
    """Put the head into the environment. Returns the status to refuse it with, or None."""
    target: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    if query:
        target = b"%b?%b" % (target, query)
    method: str = scope["method"]
    if not target.startswith((b"/", b"*")) or not _METHOD.issuperset(method):
        return 400
    if len(method) + len(target) + len(" HTTP/1.1") + 1 > MAX_LINE_BYTES:
        return 414
    client, server = scope["client"], scope["server"]
    environ["REQUEST_METHOD"] = method
    environ["RAW_URI"] = target.decode("latin-1")
    environ["PATH_INFO"] = scope["path"].encode("utf-8", "surrogateescape").decode("latin-1")
    environ["QUERY_STRING"] = query.decode("latin-1")
    environ["SERVER_PROTOCOL"] = "HTTP/1.1" if scope["http_version"] == "1.1" else "HTTP/1.0"
    environ["REMOTE_ADDR"] = client[0] if client else ""
    environ["SERVER_NAME"], environ["SERVER_PORT"] = server[0], str(server[1])
    return _read_fields(scope["headers"], environ)


@functools.lru_cache(64)
def _name_of(field: bytes) -> str:
    """The name of a header in the environment. Most requests have the same ones."""
    name = field.decode("latin-1").upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


def _read_fields(fields: Iterable[tuple[bytes, bytes]], environ: Environ) -> int | None:
    number = size = 0
    for raw_name, raw_value in fields:
        number += 1
        length = len(raw_name) + len(raw_value) + 4
        size += length
        if number > MAX_FIELDS or length > MAX_LINE_BYTES or size > MAX_HEAD_BYTES:
            return 431
        if b"_" in raw_name:  # it could pass for another header in the environment
            continue
        name = _name_of(raw_name)
        value = raw_value.decode("latin-1")
        if name not in environ:
            environ[name] = value
        elif name == "CONTENT_LENGTH":
            return 400
        else:
            environ[name] = f"{environ[name]},{value}"
    # An HTTP/1.0 request may have no Host; the server has added an empty one.
    if environ.get("HTTP_HOST") == "" and environ["SERVER_PROTOCOL"] == "HTTP/1.0":
        del environ["HTTP_HOST"]
    return None


async def _read_body(environ: Environ, receive: Receive) -> tuple[int | None, bool]:
    """Read the whole body into the environment.

    Returns:
        The status to refuse it with, or None; and whether nothing may follow on the connection.
    """
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    expected = environ.get("HTTP_EXPECT")
    if coding is not None and coding.lower() != "chunked":
        return 501, True
    if expected is not None and expected.lower() != "100-continue":
        return 417, True
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if not (coding or length):
        environ["wsgi.input"] = io.BytesIO()
        return None, False
    # A body that is too large to drain, or that the client holds back until it is asked for it, is not waited for:
    # the client is answered at once.
    if length > (MAX_BODY_BYTES if expected else _DRAIN_BYTES):
        environ["wsgi.input"] = io.BytesIO()
        return None, True
    body = bytearray()
    try:
        size = await _receive(receive, body, 0 if coding else length)
    except TimeoutError:
        return 408, True
    is_whole = size is not None and size >= length
    environ["wsgi.input"] = io.BytesIO(body) if is_whole else _CutShort()
    return None, not is_whole or len(body) > MAX_BODY_BYTES


async def _receive(receive: Receive, body: bytearray, length: int) -> int | None:
    """Read the body, up to one byte more than the application accepts.

    Args:
        receive: gives the next part. granian only says with one more, empty part that the body has ended.
        body: where it is kept.
        length: how long it is, in bytes; 0 if that is not known.

    Returns:
        How many bytes came, or None if the body ended too early.
    """
    size = 0
    more = True
    while more and size <= _DRAIN_BYTES and not 0 < length <= size:
        message = await receive()
        if message["type"] != "http.request":
            return None
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        body += chunk[: MAX_BODY_BYTES + 1 - len(body)]
        more = message.get("more_body", False)
    return size


async def _refuse(send: Send, status: int) -> None:
    """Answer with a status and no body, and close the connection."""
    headers = [(b"content-length", b"0"), _CLOSE]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
