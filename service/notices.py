"""What an operator should know of a client, without a line for each request."""

from __future__ import annotations

import contextlib
from typing import Any, Final, Protocol

from service.handles import hash_handle
from service.storage.interface import Kind, Record, Store, StoreUnavailable

_HOUR_S: Final = 3600
_MOST_KEPT: Final = 10_000


class Log(Protocol):
    """Where a line goes."""

    def warning(self, event: str, **known: Any) -> Any:
        """Write it."""


class Notices:
    """Tells each event of a client once an hour, all processes that share the store counted as one.

    Args:
        store: where the others see that it was sent.
        log: gets the lines.
    """

    def __init__(self, store: Store, log: Log) -> None:
        self._store = store
        self._log = log
        self._told_at: dict[tuple[str, str], int] = {}

    def tell(self, event: str, client_id: str, *, now: int, **known: Any) -> None:
        """Send it, unless it was already sent within this hour. It never decides over a request.

        Args:
            event: its name.
            client_id: whose it is.
            now: Unix s.
            known: what the operator should know; no secret, nothing of a user.
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
