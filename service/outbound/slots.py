"""Limits how many requests of a process wait for other people's hosts, so that slow hosts do not stop other requests."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Final

#: How many requests for strangers' hosts, and for hosts of clients that the operator registered. A worker has 8 threads
#: for requests that may wait (`serving.plan.WRITERS`): there is always one that answers others.
MOST_OF_STRANGERS: Final = 4
MOST_OF_OPERATORS: Final = 3
#: How long further requests for the operator's clients wait for a slot, in s, counted from when the last one was taken:
#: most hosts answer by then.
PATIENCE_S: Final = 1.0


class Slots:
    """Counts the requests of a process that wait for other people's hosts. One for the whole process."""

    def __init__(self) -> None:
        self._strangers: set[str] = set()
        self._guard = threading.Lock()
        self._operators = threading.BoundedSemaphore(MOST_OF_OPERATORS)
        self._taken_at = 0.0

    @contextlib.contextmanager
    def for_stranger(self, host: str) -> Iterator[bool]:
        """Take a slot for a stranger's host, at most one for each host, without waiting; it is returned at the end.

        Args:
            host: in lower case, without its port, because the owner of a host owns all its ports. Brackets are ignored.

        Yields:
            Whether there was one. If not, no request may be sent.
        """
        host = host.strip("[]")
        with self._guard:
            hosts = self._strangers
            is_free = len(hosts) < MOST_OF_STRANGERS and host not in hosts
            if is_free:
                hosts.add(host)
        try:
            yield is_free
        finally:
            if is_free:
                with self._guard:
                    hosts.discard(host)

    @contextlib.contextmanager
    def for_operator(self, *, waits: bool) -> Iterator[bool]:
        """The same for a host of a client that the operator registered. One host may have all slots.

        Args:
            waits: whether to wait briefly for one.
        """
        patience_s = max(0.0, self._taken_at + PATIENCE_S - time.monotonic()) if waits else 0.0
        is_free = self._operators.acquire(timeout=patience_s)
        try:
            if is_free:
                self._taken_at = time.monotonic()
            yield is_free
        finally:
            if is_free:
                self._operators.release()
