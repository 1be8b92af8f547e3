"""Counts wrong user codes, for each user and each address, in the store: all replicas count together.

An attempt is counted before its code is looked up, and a right one is taken back. So many attempts at once try no more
codes than one after the other.

Spec: RFC 8628 §5.1
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from service.handles import hash_handle
from service.storage.interface import Change, Kind, NotStanding, Record, Store

#: How many wrong codes are possible within this time (s) for one user, and from one address.
WINDOW_S: Final = 600
MOST_OF_ONE_USER: Final = 5
MOST_OF_ONE_ADDRESS: Final = 20

Who = Literal["user", "address"]


class Locked(Exception):
    """There were too many wrong codes.

    Args:
        by: whose attempts they were: the user's or the address's.
        wait_s: when the next attempt is possible, in s.
    """

    def __init__(self, by: Who, wait_s: int) -> None:
        super().__init__(by)
        self.by = by
        self.wait_s = wait_s


@dataclass(frozen=True, slots=True)
class Attempt:
    """A counted attempt.

    Attributes:
        at: Unix s.
        rows: the ids of the rows that count it.
        locks: the user or address whose last possible attempt this is, unless it is right.
    """

    at: int
    rows: tuple[str, ...]
    locks: Who | None


class Guesses:
    """Counts attempts. Their rows expire when they no longer count.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def count(self, user_id: str, address: str, *, now: int) -> Attempt:
        """Count an attempt, before its code is looked up.

        Args:
            user_id: the user who is signed in.
            address: an IPv4 address, or the /64 of an IPv6 address; empty if not known, and then it is not limited.
            now: Unix s.

        Raises:
            Locked: if there were too many wrong codes. Nothing is counted then.
        """
        counted: dict[Who, int] = {}
        limits = tuple(_limits(user_id, address))

        def with_one_more(limit: _Limit, record: Record) -> Record:
            times = _times(record.body, now)
            if len(times) >= limit.most:
                raise Locked(limit.by, times[-limit.most] + WINDOW_S - now)
            counted[limit.by] = len(times) + 1
            return replace(record, body={"at": [*times, now]}, expires_at=now + WINDOW_S)

        changes = [
            Change(
                Kind.REPLAY_MARKER,
                limit.id_hash,
                lambda record, limit=limit: with_one_more(limit, record),  # type: ignore[misc]
                new=Record(Kind.REPLAY_MARKER, limit.id_hash, now + WINDOW_S, body={"at": []}),
            )
            for limit in limits
        ]
        self._store.put(changes=changes, now=now)
        full = (limit.by for limit in limits if counted[limit.by] >= limit.most)
        return Attempt(now, tuple(limit.id_hash for limit in limits), next(full, None))

    def take_back(self, attempt: Attempt) -> None:
        """The code was right: the attempt does not count."""

        def without(record: Record) -> Record | None:
            times = list(record.body["at"])
            if attempt.at not in times:
                return None
            times.remove(attempt.at)
            return replace(record, body={"at": times})

        for id_hash in attempt.rows:
            with contextlib.suppress(NotStanding):
                self._store.change(Kind.REPLAY_MARKER, id_hash, without, now=attempt.at)


@dataclass(frozen=True, slots=True)
class _Limit:
    by: Who
    id_hash: str
    most: int


def _limits(user_id: str, address: str) -> Iterator[_Limit]:
    yield _Limit("user", hash_handle(f"user codes\nuser\n{user_id}"), MOST_OF_ONE_USER)
    if address:
        yield _Limit("address", hash_handle(f"user codes\naddress\n{address}"), MOST_OF_ONE_ADDRESS)


def _times(body: Mapping[str, Any], now: int) -> list[int]:
    """When the counted attempts were made, the first one first."""
    return [at for at in body["at"] if at > now - WINDOW_S]
