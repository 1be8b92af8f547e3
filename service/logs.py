"""The log: one JSON line an event on stderr, the program's own and those of the libraries."""

from __future__ import annotations

import logging
import logging.config
import sys
from typing import Any

import structlog

_TIMESTAMP = structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts")


def configure_logging(level: str, log_format: str | None) -> None:
    """Set the log up for this process and those that it forks.

    Args:
        level: `debug`, `info`, `warning` or `error`.
        log_format: `json` or `console`; None means console on a terminal.
    """
    console = log_format == "console" or (log_format is None and sys.stderr.isatty())
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [structlog.processors.add_log_level, _TIMESTAMP]
    if console:
        structlog.configure(
            processors=[
                *shared,
                structlog.dev.ConsoleRenderer(timestamp_key="ts", colors=sys.stderr.isatty()),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(number),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
            cache_logger_on_first_use=True,
        )
    else:
        structlog.configure(
            processors=[*shared, structlog.processors.JSONRenderer()],
            wrapper_class=structlog.make_filtering_bound_logger(number),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
            cache_logger_on_first_use=True,
        )
    # Authlib logs whole tokens at DEBUG: whatever the level, a library says no more than INFO.
    logging.getLogger("authlib").setLevel(max(number, logging.INFO))
