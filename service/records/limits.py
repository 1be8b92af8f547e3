"""Removes what exceeds the limits of rows that anyone can add. No answer depends on it."""

from __future__ import annotations

from typing import Any

from service.storage.interface import Kind, Store, StoreUnavailable


def trimmed(store: Store, kind: Kind, *, most_of_one: int, most: int, log: Any) -> int:
    """Remove the oldest rows of the address with the most, as long as there are too many.

    Args:
        store: the store.
        kind: the kind of the rows.
        most_of_one: the limit for one address.
        most: the limit for all.
        log: the logger for a failure: the new row is stored already, and the next check makes up for this one.

    Returns:
        How many were removed.
    """
    try:
        return store.trim(kind, most_of_one=most_of_one, most=most)
    except StoreUnavailable as error:
        log.warning("trim_failed", cause=type(error.__cause__).__name__, detail=error.reason)
        return 0
