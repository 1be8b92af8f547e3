"""Limits the requests that wait for a browser, because anyone can start one: in size, for each address, and in total.

Owns: the limits. Authorization requests, sign-out requests and shown forms are limited together, and so are devices.

The limits are checked only from time to time, so each worker process may exceed them by the records that it stores in between.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

import structlog

from service.records.limits import trimmed
from service.storage.interface import Kind, Record, Store

#: How large the parameters of one request may be, in bytes of a URL.
MOST_BYTES: Final = 8192
#: The limit for one address (an IPv6 network of 64 bits counts as one), and the limit for all.
MOST_OF_ONE_ADDRESS = 1_000
MOST_IN_ALL = 10_000
#: A process checks the limits after it has stored this many.
LOOK_EVERY = 50
#: Each kind has these limits of its own.
_LIMITED: Final = (Kind.INTERACTION, Kind.DEVICE)

_log = structlog.get_logger("waiting")


def as_kept(parameters: Mapping[str, str]) -> str:
    """The parameters as one line of ASCII, like in a URL, so that their stored size is their length."""
    return urlencode(parameters, quote_via=quote, safe="")


def is_too_large(parameters: Mapping[str, str]) -> bool:
    """Whether all parameters together exceed the limit for a stored request."""
    # A character takes at most twelve bytes there, so most requests do not have to be encoded to check this.
    length = sum(len(name) + len(value) + 2 for name, value in parameters.items())
    return length * 12 > MOST_BYTES and len(as_kept(parameters)) > MOST_BYTES


def from_kept(line: str) -> dict[str, str]:
    """Parse a line from `as_kept`."""
    return dict(parse_qsl(line))


class Waiting:
    """Stores waiting requests.

    Args:
        store: the store.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._kept = {kind: itertools.count() for kind in _LIMITED}

    def keep(self, record: Record, *, ending: bool = False, now: int) -> bool:
        """Store one more. If there are too many, the oldest ones of the address with the most are removed.

        Args:
            record: of a kind with these limits; its subject is the address that started it, or empty if not known.
            ending: whether it is part of a sign-out.
            now: Unix s.

        Returns:
            False if its id already exists.
        """
        if not self.store.put(record, ending=ending, now=now):
            return False
        if next(self._kept[record.kind]) % LOOK_EVERY == 0:
            trimmed(self.store, record.kind, most_of_one=MOST_OF_ONE_ADDRESS, most=MOST_IN_ALL, log=_log)
        return True
