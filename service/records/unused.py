"""Limits the strangers that nobody has signed in through, because anyone can add one: for each address, and in total.

Owns: the limits. A stranger is not counted any more from its first sign-in (`records.clients.used`).

As for waiting requests, the limits are checked only from time to time.
"""

from __future__ import annotations

import itertools
from typing import Final

import structlog

from service.records.limits import trimmed
from service.storage.interface import Kind, Store

#: The limit for one address (an IPv6 network of 64 bits counts as one), and the limit for all.
MOST_OF_ONE_ADDRESS = 100
MOST_IN_ALL = 5_000
#: A process checks the limits after it has stored this many.
LOOK_EVERY = 20

_log: Final = structlog.get_logger("clients")


class UnusedStrangers:
    """Keeps their number small.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._stored = itertools.count()

    def added(self) -> None:
        """One more is stored. If there are too many, the oldest ones of the address with the most are removed."""
        if next(self._stored) % LOOK_EVERY:
            return
        removed = trimmed(
            self._store, Kind.CLIENT, most_of_one=MOST_OF_ONE_ADDRESS, most=MOST_IN_ALL, log=_log
        )
        if removed:
            _log.warning("strangers_removed", count=removed)
