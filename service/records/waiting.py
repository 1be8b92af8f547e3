"""What waits for a browser to come back, and is bounded because anybody may begin it: in size, an address, and in all.

Owns: how much of it there may be. An authorization request, a request to sign out and a form of ours that was shown are
each one record of this kind.

The bounds are looked at every so often, not each time: each worker process may exceed them by what it keeps in between.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

import structlog

from service.storage.interface import Kind, Record, Store, StoreUnavailable

#: How large the parameters of one request may be, in bytes as they are written in an address.
MOST_BYTES: Final = 8192
#: How much one address may have begun (an IPv6 network of 64 bits counts as one), and how much there may be in all.
MOST_OF_ONE_ADDRESS = 1_000
MOST_IN_ALL = 10_000
#: A process looks at them after so many that it has kept.
LOOK_EVERY = 50

_log = structlog.get_logger("waiting")


def as_kept(parameters: Mapping[str, str]) -> str:
    """The parameters in one line of ASCII, as an address would hold them: kept so, they are as large as they look."""
    return urlencode(parameters, quote_via=quote, safe="")


def is_too_large(parameters: Mapping[str, str]) -> bool:
    """Whether the parameters are larger than what is kept of a request, all of them together."""
    # No character is longer there than twelve bytes: most requests need not be written down to know.
    length = sum(len(name) + len(value) + 2 for name, value in parameters.items())
    return length * 12 > MOST_BYTES and len(as_kept(parameters)) > MOST_BYTES


def from_kept(line: str) -> dict[str, str]:
    """The parameters of a line that `as_kept` made."""
    return dict(parse_qsl(line))


class Waiting:
    """Keeps what waits.

    Args:
        store: where it lives.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._kept = itertools.count()

    def keep(self, record: Record, *, ending: bool = False, now: int) -> None:
        """Keep one more. Where there are too many, those of whoever has the most waiting go, the oldest first.

        Args:
            record: of the kind `INTERACTION`; its subject says from which address it was begun, empty where nobody knows.
            ending: whether it is part of a sign-out.
            now: Unix s.
        """
        self.store.put(record, ending=ending, now=now)
        if next(self._kept) % LOOK_EVERY == 0:
            self._look()

    def _look(self) -> None:
        try:
            self.store.trim(Kind.INTERACTION, most_of_one=MOST_OF_ONE_ADDRESS, most=MOST_IN_ALL)
        except StoreUnavailable as error:  # what was kept is kept; the next look makes up for this one
            _log.warning("trim_failed", cause=type(error.__cause__).__name__, detail=error.reason)
