"""Calls the application for a request of gunicorn's parser, and writes its whole answer in one piece.

gunicorn's own way looks up, formats and checks each part of each head; this is half of the work of a small answer.

Spec: PEP 3333; RFC 9110 §5.5, §6.4.2; RFC 9112 §4, §5
"""

from __future__ import annotations

import functools
import re
import time
from datetime import timedelta
from email.utils import formatdate
from typing import Any, Final

from gunicorn.http import wsgi
from gunicorn.http.errors import InvalidResponseHeader
from gunicorn.workers.gthread import ThreadWorker

from service.serving.calling import body_of

#: What a head consists of after its first line, with one line for each header.
_FIELDS: Final = re.compile(r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t\x20-\x7e\x80-\xff]*\r\n)*", re.ASCII)
_STATUS: Final = re.compile(r"[1-5][0-9]{2} [\t\x20-\x7e]*", re.ASCII)
_BODILESS: Final = ("1", "204", "304")


class Answer(wsgi.Response):
    """An answer in memory. `status`, `headers` and `sent` are what gunicorn's access log reads."""

    def start_response(self, status: str, headers: list[tuple[str, str]], _exc_info: Any = None) -> None:
        """Keep the status and the headers, as PEP 3333 has it. There is no `write`: the application returns its body."""
        self.status, self.headers = status, headers

    def written(self, body: bytes, *, is_last: bool) -> bytes:
        """The whole answer.

        Args:
            body: what the application returned.
            is_last: whether the connection is closed after it.

        Raises:
            InvalidResponseHeader: if the status or a header could be read as something else.
        """
        status = self.status or ""
        fields = "".join([f"{name}: {value}\r\n" for name, value in self.headers])
        is_one_each = fields.count("\n") == len(self.headers)
        if not (is_one_each and _STATUS.fullmatch(status) and _FIELDS.fullmatch(fields)):
            raise InvalidResponseHeader("the answer's head")  # its content is not logged: it may be a secret
        if self.req.method == "HEAD" or status.startswith(_BODILESS):
            body = b""
        elif "\r\ncontent-length:" not in f"\r\n{fields}".lower():
            fields += f"Content-Length: {len(body)}\r\n"
        self.sent, self.headers_sent = len(body), True
        version = self.req.version
        return (
            f"HTTP/{version[0]}.{version[1]} {status}\r\nServer: {self.version}\r\nDate: {_date(int(time.monotonic()))}\r\n"
            f"Connection: {'close' if is_last else 'keep-alive'}\r\n{fields}\r\n"
        ).encode("latin-1") + body


class AnsweringWorker(ThreadWorker):
    """gunicorn's `gthread`, for applications whose answers are in memory."""

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Answer a request. Returns whether another one may follow on its connection."""
        answer, environ = None, {}
        self.cfg.pre_request(self, req)
        began = time.monotonic()
        try:
            answer, environ = wsgi.create(
                req, conn.sock, conn.client, conn.server, self.cfg, response_class=Answer
            )
            environ["wsgi.multithread"] = True
            self.nr += 1
            if self.nr >= self.max_requests and self.alive:
                self.log.info("Autorestarting worker after current request.")
                self.alive = False
            is_last = not self.alive or not self.cfg.keepalive or req.should_close()
            body = body_of(self.wsgi, environ, answer.start_response)
            conn.sock.sendall(answer.written(body, is_last=is_last))
            self.log.access(answer, req, environ, timedelta(seconds=time.monotonic() - began))
            return not is_last
        finally:
            try:
                self.cfg.post_request(self, req, environ, answer)
            except Exception:  # an operator's hook: the answer is already written
                self.log.exception("Exception in post_request hook")


@functools.lru_cache(maxsize=1)
def _date(_second: int) -> str:
    """The value of a `Date` header in this second of any clock (RFC 9110 §6.6.1)."""
    return formatdate(usegmt=True)
