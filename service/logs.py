"""The log: one JSON line an event on stderr, the program's own and those of the libraries.

A line that cannot be written is dropped and counted; it never decides over the request that it is about.

Nothing that a client sent is written in full: not a query, not a header, not the words of an error that may repeat
them.
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

#: Of the request that this thread answers; None between requests. The middleware sets it. A thread that a request starts
#: has none: what it does is no request's.
REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)


def _name_request(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if (current := REQUEST_ID.get()) is not None:
        event.setdefault("request_id", current)
    return event


_TIMESTAMP: Final = structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts")
_SHARED: Final[list[Any]] = [_name_request, structlog.processors.add_log_level, _TIMESTAMP]
_JSON: Final = structlog.processors.JSONRenderer()
#: How the line of a request is made; `configure_logging` says it.
_OF_REQUESTS: Final[list[Any]] = [*_SHARED, _JSON]
#: The log of requests, a line each.
request_log: Final[Any] = structlog.wrap_logger(None, processors=_OF_REQUESTS)
_PATIENCE_MS: Final = 100
_TOKEN_LIKE: Final = re.compile(r"[A-Za-z0-9_\-+/=.]{20,}")
# gunicorn repeats the request line or the header that it refuses, and a failed request's whole target.
_REPEATS_REQUEST: Final = re.compile(
    r"(Invalid request from ip=[0-9A-Fa-f.:]*|Error handling request).*", re.DOTALL
)


class _Lines:
    """Writes lines where the log goes, and never fails or waits for long.

    Without a buffer: what a full disk refused must not come out in pieces later. A reader that stands still is waited
    for once; as long as it does, further lines are dropped at once.

    Args:
        stream: standard error, or what stands in for it.
        renderer: makes a line of an event.
    """

    def __init__(self, stream: TextIO, renderer: Any) -> None:
        self._stream = stream
        self._renderer = renderer
        self._lost = 0
        self._counting = threading.Lock()
        try:
            self._file: int | None = stream.fileno()
        except (OSError, ValueError):  # not a file of the system's
            self._file = None

    def write(self, text: str) -> None:
        """Write one line, or count it as lost; after lost ones, say how many they were."""
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
        """Nothing is kept back."""

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
            # No more than what a pipe that has room takes at once (PIPE_BUF): a longer piece could wait.
            data = data[os.write(self._file, data[: select.PIPE_BUF]) :]
        return True


def configure_logging(level: str, log_format: str | None) -> None:
    """Set the log up for this process and those that it forks.

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
    _OF_REQUESTS[:] = [*_SHARED, renderer] if console else [_request_line]
    _configure_libraries(renderer, number, lines)


def _request_line(_logger: Any, level: str, event: MutableMapping[str, Any]) -> str:
    """The line of a request, which has its id already: at once, and not by one processor after the other."""
    event["level"], event["ts"] = level, datetime.now(UTC)
    return to_ascii(event)


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
    # gunicorn has made its logger by now; what it says follows our form and our level.
    server = logging.getLogger("gunicorn.error")
    server.handlers, server.propagate = [handler], False
    server.setLevel(max(level, logging.INFO))
    # Authlib logs whole tokens at DEBUG: whatever the level, a library says no more than INFO.
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
    """What the log may tell of an unknown failure: its kind, where it came from, its words without secrets.

    Returns:
        `error` (the kind), `detail` (its words, whatever looks like a token left out) and `frames`.
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
    """Words of others, as far as the log may have them: whatever looks like a token left out."""
    return _TOKEN_LIKE.sub("[…]", words)[:500]
