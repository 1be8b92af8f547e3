"""Finds where a request ends: just enough of HTTP/1.1 to wait for a whole request.

This only decides how long to wait. gunicorn's parser then reads exactly the same bytes. A request that looks wrong
here is passed to it at once, and refused there. If the two disagree, the connection is closed.

Spec: RFC 9112 §2.2, §6, §7.1
"""

from __future__ import annotations

import re
from typing import Final

MAX_HEAD_BYTES: Final = 32 * 1024
#: The largest body that the application accepts (`web/bodies.py`). It refuses a larger one by its announced length.
MAX_BODY_BYTES: Final = 64 * 1024
#: With chunks, their size lines count too: a body of the full length may come in chunks of a dozen bytes.
MAX_CHUNKED_BYTES: Final = 96 * 1024
_MAX_LINE_BYTES: Final = (
    8195  # the longest line that gunicorn accepts, with its CRLF and an empty line before it
)

_FRAMING_FIELD: Final = re.compile(
    rb"\r\n(content-length|transfer-encoding|expect):[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)", re.IGNORECASE
)
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")


class Framing:
    """Tracks one request in the bytes that have arrived so far.

    Attributes:
        end: where the request ends; None until that is known.
        body_at: where its body begins; None until its head is complete.
        is_last: whether anything that follows on the connection must be ignored.
        head_too_large: whether the head is refused as too long.
        line_too_long: whether the request line is.
        awaits_continue: whether the client holds its body back until it is asked for (RFC 9110 §10.1.1).
    """

    __slots__ = (
        "_decoded", "_searched", "_to_come", "awaits_continue", "body_at", "end", "head_too_large", "is_last", "line_too_long"
    )  # fmt: skip

    def __init__(self) -> None:
        self.end: int | None = None
        self.body_at: int | None = None
        self.is_last = False
        self.head_too_large = False
        self.line_too_long = False
        self.awaits_continue = False
        self._searched = 0
        self._to_come: int | None = 0  # bytes left of the body; None if it is chunked
        self._decoded = 0

    @property
    def is_chunked(self) -> bool:
        """Whether its body comes in chunks."""
        return self._to_come is None

    def look(self, received: bytes | bytearray, *, is_all: bool = False) -> bool:
        """Whether the request is complete.

        Args:
            received: all bytes from its first one on.
            is_all: whether the client has finished sending.
        """
        if self.end is None and (self.body_at is not None or self._head_is_complete(received)):
            self._look_at_body(received)
        if self.end is None and is_all:
            self._refuse(received)
        return self.end is not None

    def _refuse(self, received: bytes | bytearray) -> None:
        """Stop waiting: what is here is answered or refused, and the connection is closed."""
        self.end = len(received)
        self.is_last = True

    def _head_is_complete(self, received: bytes | bytearray) -> bool:
        at = received.find(b"\r\n\r\n", self._searched)
        if len(received) > _MAX_LINE_BYTES and received.find(b"\r\n", 2, _MAX_LINE_BYTES) < 0:
            self.line_too_long = True
            self._refuse(received)
        elif at > MAX_HEAD_BYTES or (at < 0 and len(received) > MAX_HEAD_BYTES):
            self.head_too_large = True
            self._refuse(received)
        elif at < 0:
            if _BARE_LF.search(received, max(0, self._searched - 1)):  # it can never become a valid head
                self._refuse(received)
            self._searched = max(0, len(received) - 3)
        else:
            self.body_at = self._searched = at + 4
            self._read_head(received[: at + 2])
            if self.is_last:
                self._refuse(received)
        return self.body_at is not None and self.end is None

    def _read_head(self, head: bytes | bytearray) -> None:
        fields: dict[bytes, list[bytes]] = {}
        for name, value in _FRAMING_FIELD.findall(head):
            fields.setdefault(name.lower(), []).append(value.lower())
        lengths, codings = fields.get(b"content-length", []), fields.get(b"transfer-encoding", [])
        expectations = fields.get(b"expect", [])
        of_old = head.find(b" HTTP/1.0\r\n", 0, head.find(b"\r\n", 2) + 2) > 0
        if len(lengths) + len(codings) > 1 or (codings and of_old) or set(expectations) - {b"100-continue"}:
            self.is_last = True
        elif codings:
            self.is_last = not codings[0].endswith(b"chunked")
            self._to_come = None
        elif lengths:
            announced = int(lengths[0]) if _LENGTH.fullmatch(lengths[0]) else MAX_BODY_BYTES + 1
            self.is_last = announced > MAX_BODY_BYTES
            self._to_come = announced
        self.awaits_continue = bool(expectations) and not of_old

    def _look_at_body(self, received: bytes | bytearray) -> None:
        assert self.body_at is not None  # noqa: S101
        if self._to_come is None:
            self._look_at_chunks(received, self.body_at)
        elif len(received) >= self.body_at + self._to_come:
            self.end = self.body_at + self._to_come

    def _look_at_chunks(self, received: bytes | bytearray, body_at: int) -> None:
        while self.end is None:
            start = self._searched
            size = _CHUNK_SIZE.match(received, start)
            if size is None:
                if b"\n" in received[start:] or len(received) - start > _MAX_LINE_BYTES:
                    self._refuse(received)
                break
            length = int(size[1], 16)
            if length == 0:
                self._look_at_trailer(received, size.end())
                break
            room = MAX_BODY_BYTES - self._decoded
            after = size.end() + length
            # One byte too many is enough to refuse it.
            if length > room and len(received) > size.end() + room:
                self._refuse(received)
            elif length > room or len(received) < after + 2:
                break
            elif received[after : after + 2] != b"\r\n":
                self._refuse(received)
            else:
                self._decoded += length
                self._searched = after + 2
        if self.end is None and len(received) - body_at > MAX_CHUNKED_BYTES:
            self._refuse(received)

    def _look_at_trailer(self, received: bytes | bytearray, start: int) -> None:
        # From the CRLF after the last chunk's size: an empty trailer ends at once.
        at = received.find(b"\r\n\r\n", start - 2)
        if at >= 0:
            self.end = at + 4
        elif _BARE_LF.search(received, start) or len(received) - start > _MAX_LINE_BYTES:
            self._refuse(received)
