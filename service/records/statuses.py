"""Status lists: one bit for each session, and one for each grant, that says that its tokens were revoked.

A list has 2^16 places. A process takes a whole list, and gives its places to the sessions and grants that it stores, in
random order; so no two have the same place, and a place costs no statement. A place is never used again. A session and
a grant keep their place in their own row. When the row is removed, or loses its access tokens, the same transaction
stores the bit, which stays until the last token that names it has expired.

Spec: draft-ietf-oauth-status-list §4
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from service.storage.interface import NEVER, Kind, Record

#: The places of one list.
PLACES: Final = 1 << 16
#: The numbers of lists are random, below this.
NUMBERS: Final = 1 << 31
#: The longest lifetime of a token that has a place, in s: what the settings and policies allow.
LONGEST_TOKEN_S: Final = 86_400
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,9}", re.ASCII)


def place(number: int, index: int) -> str:
    """A place as it is stored."""
    return f"{number}.{index}"


def numbers_of(stored: str) -> tuple[int, int]:
    """The number of the list of a place, and the index in it."""
    number, _, index = stored.partition(".")
    return int(number), int(index)


def is_number(unverified: str) -> bool:
    """Whether a text has the form of a list's number."""
    return _NUMBER.fullmatch(unverified) is not None and int(unverified) < NUMBERS


def list_record(number: int) -> Record:
    """The row of a list that a process has taken."""
    return Record(Kind.STATUS, str(number), NEVER)


def revocation(record: Record, now: int) -> Record | None:
    """The bit to store for a session or grant that is removed now, or loses its access tokens; None if it has no place.

    Args:
        record: the row.
        now: Unix s.
    """
    stored = record.body.get("status")
    if not isinstance(stored, str):
        return None
    return Record(Kind.STATUS, stored, now + LONGEST_TOKEN_S, stored.partition(".")[0])


def revoked_places(bits: Iterable[Record]) -> list[int]:
    """The indexes of the bits of one list."""
    return [numbers_of(record.id_hash)[1] for record in bits]
