"""Remembers used assertions of clients: each works once, in all processes and replicas.

An assertion is a row. But anyone can register a client with a key, so those of a stranger that nobody has signed in
through share one row, which holds a limited number of them.

Spec: RFC 7523 §3 (7)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from service.handles import hash_handle, short_hash
from service.records.clients import Client
from service.storage.interface import Kind, Record, Store

#: How much longer than the assertion a marker lives, for replicas whose clocks differ, in s.
_MARGIN_S: Final = 60
#: How many assertions of an unused stranger may be remembered at a time: enough for two devices that ask every 5 s.
MOST_OF_UNUSED = 200


class TooManyAssertions(Exception):
    """An unused stranger has used too many assertions in the last minutes. This one is still unused."""


class UsedAssertions:
    """Remembers used assertions.

    Args:
        store: shared by all processes.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def use(self, client: Client, jti: str, *, until: int, now: int) -> bool:
        """Use an assertion that was not used before. Of several callers at once, at most one gets True.

        One statement, and a read for a stranger.

        Args:
            client: its client.
            jti: its id.
            until: when it expires, Unix s.
            now: Unix s.

        Raises:
            TooManyAssertions: if too many of this client are remembered.
        """
        row = hash_handle(f"client assertion\n{client.client_id}\n{jti}")
        if client.is_unused:
            # Another request may know the client as used by now, and then looks here after its own row is stored.
            is_first = self._use_of_unused(client, jti, until=until + _MARGIN_S, now=now)
            return is_first and self._store.get(Kind.REPLAY_MARKER, row, now=now) is None
        is_first = self._store.put(Record(Kind.REPLAY_MARKER, row, until + _MARGIN_S), now=now)
        return is_first and not (client.is_stranger and self._was_used_before_it(client, jti, now=now))

    def _use_of_unused(self, client: Client, jti: str, *, until: int, now: int) -> bool:
        def with_one_more(record: Record) -> Record | None:
            used = {name: end for name, end in record.body["used"].items() if end > now}
            if short_hash(jti) in used:
                return None
            if len(used) >= MOST_OF_UNUSED:
                raise TooManyAssertions
            used[short_hash(jti)] = until
            return replace(record, body={"used": used}, expires_at=max(used.values()))

        row = _row_of_unused(client)
        new = Record(Kind.REPLAY_MARKER, row, until, body={"used": {}})
        return self._store.change(Kind.REPLAY_MARKER, row, with_one_more, new=new, now=now) is not None

    def _was_used_before_it(self, client: Client, jti: str, *, now: int) -> bool:
        """Whether it was used while nobody had signed in through the client."""
        record = self._store.get(Kind.REPLAY_MARKER, _row_of_unused(client), now=now)
        return record is not None and short_hash(jti) in record.body["used"]


def _row_of_unused(client: Client) -> str:
    return hash_handle(f"assertions of an unused client\n{client.client_id}")
