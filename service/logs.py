"""The log: one JSON line on stderr for each event, of the program and of its libraries.

A line that cannot be written is dropped and counted, and never affects its request. Nothing that a client sent is
logged in full: no query, no header, and no error message that may repeat them.
"""

from __future__ import annotations

import logging
import os
import re
import select
import sys
import threading
from collections.abc import MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import structlog

from service.json_text import to_ascii

#: The id of the request that this thread answers; None between requests. The middleware sets it. A thread that a request
#: starts has none.
REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)


def _name_request(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if (current := REQUEST_ID.get()) is not None:
        event.setdefault("request_id", current)
    return event


_TIMESTAMP: Final = structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts")
_SHARED: Final[list[Any]] = [_name_request, structlog.processors.add_log_level, _TIMESTAMP]
_JSON: Final = structlog.processors.JSONRenderer()
_PATIENCE_MS: Final = 100
_TOKEN_LIKE: Final = re.compile(r"[A-Za-z0-9_\-+/=.]{20,}")
# gunicorn repeats a request line or header that it refuses, and the whole target of a failed request.
_REPEATS_REQUEST: Final = re.compile(
    r"(Invalid request from ip=[0-9A-Fa-f.:]*|Error handling request).*", re.DOTALL
)


class _Lines:
    """Writes lines to the log's stream, and never fails or waits for long.

    There is no buffer, so that a line that a full disk refused does not appear in pieces later. If the reader is stuck,
    one line waits for it, and further lines are dropped at once until it continues.

    Args:
        stream: standard error, or a replacement.
        renderer: turns an event into a line.
    """

    def __init__(self, stream: TextIO, renderer: Any) -> None:
        self._stream = stream
        self._renderer = renderer
        self._lost = 0
        self._counting = threading.Lock()
        try:
            self._file: int | None = stream.fileno()
        except (OSError, ValueError):  # not a real file
            self._file = None

    def write(self, text: str) -> None:
        """Write one line, or count it as lost. After lost lines, log their number."""
        written = self._put(text)
        if written and not self._lost:
            return
        with self._counting:
            if not written:
                self._lost += 1
            elif self._lost and self._put(self._told(self._lost)):
                self._lost = 0

    def _told(self, lost: int) -> str:
        line: Any = {"event": "log_lines_lost", "lost": lost}
        for process in [*_SHARED, self._renderer]:
            line = process(None, "warning", line)
        return f"{line}\n"

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def _put(self, text: str) -> bool:
        try:
            return self._written(text)
        except (OSError, ValueError):
            return False

    def _written(self, text: str) -> bool:
        if self._file is None:
            self._stream.write(text)
            self._stream.flush()
            return True
        data = text.encode("utf-8", "backslashreplace")
        room = select.poll()
        room.register(self._file, select.POLLOUT)
        while data:
            if not room.poll(0 if self._lost else _PATIENCE_MS):
                return False
            # No more than a pipe with room accepts at once (PIPE_BUF): a longer piece could block.
            data = data[os.write(self._file, data[: select.PIPE_BUF]) :]
        return True


class RequestLines:
    """The log of requests, one line for each. Lines in JSON are made in one step, without structlog's."""

    def __init__(self) -> None:
        self._lines: _Lines | None = None
        self._is_on = True

    def configure(self, lines: _Lines | None, *, is_on: bool) -> None:
        """Write JSON to these lines; None means what structlog is configured for."""
        self._lines, self._is_on = lines, is_on

    def write(self, line: dict[str, Any]) -> None:
        """Log a request, which has its `request_id`. The line is completed in place."""
        if not self._is_on:
            return
        if self._lines is None:
            structlog.get_logger().info("request", **line)
            return
        line.update(event="request", level="info", ts=datetime.now(UTC))
        self._lines.write(to_ascii(line) + "\n")


request_log: Final = RequestLines()


def configure_logging(level: str, log_format: str | None) -> None:
    """Set up the log for this process and its forks.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        log_format: `json` or `console`; None means console on a terminal.
    """
    console = log_format == "console" or (log_format is None and sys.stderr.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer: Any = _JSON
    if console:
        renderer = structlog.dev.ConsoleRenderer(timestamp_key="ts", colors=sys.stderr.isatty())
    lines = _Lines(sys.stderr, renderer)
    structlog.configure(
        processors=[*_SHARED, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(lines),  # type: ignore[arg-type]  # it writes and flushes
        cache_logger_on_first_use=True,
    )
    request_log.configure(None if console else lines, is_on=number <= logging.INFO)
    _configure_libraries(renderer, number, lines)


def _configure_libraries(renderer: Any, level: int, lines: _Lines) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_describe_failure, *_SHARED],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        keep_exc_info=False,
        keep_stack_info=False,
    )
    handler = logging.StreamHandler(lines)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers, root.level = [handler], logging.WARNING
    # gunicorn has created its logger by now. Its lines get our format and level.
    server = logging.getLogger("gunicorn.error")
    server.handlers, server.propagate = [handler], False
    server.setLevel(max(level, logging.INFO))
    # Authlib logs whole tokens at DEBUG, so libraries never log below INFO.
    logging.getLogger("authlib").setLevel(max(level, logging.INFO))


def _describe_failure(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["event"] = _REPEATS_REQUEST.sub(r"\1", str(event["event"]))
    record: logging.LogRecord = event["_record"]
    if record.exc_info and record.exc_info[1] is not None:
        event.update(describe_error(record.exc_info[1]))
        record.exc_info = record.exc_text = None
    event.pop("exc_info", None)
    return event


def describe_error(error: BaseException) -> dict[str, Any]:
    """Describe an unknown failure for the log: its type, its origin and its message, without secrets.

    Returns:
        `error` (the type), `detail` (the message, without anything that looks like a token) and `frames`.
    """
    frames = []
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return {
        "error": type(error).__name__,
        "detail": without_tokens(str(error)),
        "frames": frames,
    }


def without_tokens(words: str) -> str:
    """A message for the log, without anything that looks like a token."""
    return _TOKEN_LIKE.sub("[…]", words)[:500]
