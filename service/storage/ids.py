"""Ids that grow with time, so that new rows stand together: 26 characters, the second first, then what is random."""

from __future__ import annotations

import base64
from typing import Final

RANDOM_BYTES: Final = 11
_SECOND_BYTES: Final = 5


def ordered_id(now: int, random: bytes) -> str:
    """The id of something that is made now.

    Args:
        now: Unix s.
        random: `RANDOM_BYTES` of them.
    """
    # The alphabet of RFC 4648 §7 is in the order of its values; as it sorts in every collation.
    return base64.b32hexencode(now.to_bytes(_SECOND_BYTES) + random).rstrip(b"=").decode().lower()


def first_id(now: int) -> str:
    """What comes before every id that is made from then on; `now` is Unix s."""
    return ordered_id(max(0, now), bytes(RANDOM_BYTES))
