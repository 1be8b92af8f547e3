"""The log: one JSON line an event on stderr, the program's own and those of the libraries.

Nothing that a client sent is written in full: not a query, not a header, not the words of an error that may repeat
them.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

_TIMESTAMP: Final = structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts")
_SHARED: Final[list[Any]] = [structlog.processors.add_log_level, _TIMESTAMP]
_TOKEN_LIKE: Final = re.compile(r"[A-Za-z0-9_\-+/=.]{20,}")
# gunicorn repeats the request line or the header that it refuses, and a failed request's whole target.
_REPEATS_REQUEST: Final = re.compile(
    r"(Invalid request from ip=[0-9A-Fa-f.:]*|Error handling request).*", re.DOTALL
)


def configure_logging(level: str, log_format: str | None) -> None:
    """Set the log up for this process and those that it forks.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        log_format: `json` or `console`; None means console on a terminal.
    """
    console = log_format == "console" or (log_format is None and sys.stderr.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer: Any = structlog.processors.JSONRenderer()
    if console:
        renderer = structlog.dev.ConsoleRenderer(timestamp_key="ts", colors=sys.stderr.isatty())
    structlog.configure(
        processors=[*_SHARED, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _configure_libraries(renderer, number)


def _configure_libraries(renderer: Any, level: int) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[_describe_failure, *_SHARED],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        keep_exc_info=False,
        keep_stack_info=False,
    )
    handler = logging.StreamHandler(sys.stderr)
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
        "detail": _TOKEN_LIKE.sub("[…]", str(error))[:500],
        "frames": frames,
    }
