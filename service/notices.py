"""Tells operators about clients, without a log line for each request."""

from __future__ import annotations

import contextlib
from typing import Any, Final, Protocol

from service.handles import hash_handle
from service.storage.interface import Kind, Record, Store, StoreUnavailable

_HOUR_S: Final = 3600
_MOST_KEPT: Final = 10_000


class Log(Protocol):
    """The log to write to."""

    def warning(self, event: str, **known: Any) -> Any:
        """Write it."""


class Notices:
    """Logs each event of a client once an hour, across all processes that share the store.

    Args:
        store: shows other processes that it was sent.
        log: gets the lines.
    """

    def __init__(self, store: Store, log: Log) -> None:
        self._store = store
        self._log = log
        self._told_at: dict[tuple[str, str], int] = {}

    def tell(self, event: str, client_id: str, *, now: int, **known: Any) -> None:
        """Log the event, unless it was already logged within this hour. It never affects a request.

        Args:
            event: its name.
            client_id: the client.
            now: Unix s.
            known: values for the operator, without secrets or data of a user.
        """
        key, hour = (event, client_id), now // _HOUR_S
        if self._told_at.get(key) == hour:
            return
        if len(self._told_at) >= _MOST_KEPT:
            self._told_at.clear()
        self._told_at[key] = hour
        marker = Record(
            Kind.REPLAY_MARKER,
            hash_handle(f"notice\n{event}\n{client_id}\n{hour}"),
            (hour + 1) * _HOUR_S,
        )
        with contextlib.suppress(StoreUnavailable):
            if not self._store.put(marker, now=now):
                return
        self._log.warning(event, client_id=client_id, **known)
