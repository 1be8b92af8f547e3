"""Remembers used assertions of clients: each works once, in all processes and replicas.

Spec: RFC 7523 §3 (7)
"""

from __future__ import annotations

from typing import Final

from service.handles import hash_handle
from service.storage.interface import Kind, Record, Store

#: How much longer than the assertion a marker lives, for replicas whose clocks differ, in s.
_MARGIN_S: Final = 60


class UsedAssertions:
    """Remembers used assertions.

    Args:
        store: shared by all processes.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def use(self, client_id: str, jti: str, *, until: int, now: int) -> bool:
        """Use an assertion that was not used before. Of several callers at once, one gets True. One statement.

        Args:
            client_id: its client.
            jti: its id.
            until: when it expires, Unix s.
            now: Unix s.
        """
        marker = Record(
            Kind.REPLAY_MARKER, hash_handle(f"client assertion\n{client_id}\n{jti}"), until + _MARGIN_S
        )
        return self._store.put(marker, now=now)
