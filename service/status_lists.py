"""Gives each new session and grant its place in a status list, if the service has status lists.

Spec: draft-ietf-oauth-status-list §4
"""

from __future__ import annotations

import os
import threading
from array import array
from typing import Any, Final

from service.handles import new_list_number, shuffled
from service.records.statuses import NUMBERS, PLACES, list_record, numbers_of, place
from service.storage.interface import Store

#: The path of a list below the issuer, before its number.
PATH: Final = "/oidc/status/"


class StatusLists:
    """The places of this process.

    Args:
        store: keeps which lists are taken.
        enabled: whether tokens name a place at all.
    """

    def __init__(self, store: Store, *, enabled: bool) -> None:
        self._store = store
        self.enabled = enabled
        self._taking = threading.Lock()
        self._pid = 0
        self._number = 0
        self._free: array[int] = array("H")

    def next_place(self, *, now: int) -> str | None:
        """A place that was never used; None without status lists. Once in 65,536 times this takes a new list.

        Raises:
            StoreUnavailable: if a list is needed and the store is unavailable.
        """
        if not self.enabled:
            return None
        with self._taking:
            if self._pid != os.getpid():  # after a fork, the places belong to the parent
                self._pid, self._free = os.getpid(), array("H")
            if not self._free:
                self._take_list(now)
            return place(self._number, self._free.pop())

    def _take_list(self, now: int) -> None:
        number = new_list_number(NUMBERS)
        while not self._store.put(list_record(number), now=now):
            number = new_list_number(NUMBERS)
        self._number, self._free = number, shuffled(PLACES)

    def claim(self, issuer: str, stored: str | None) -> dict[str, Any]:
        """The claim of a token that names its place; empty without status lists, or without a place.

        Args:
            issuer: where this service is reached.
            stored: the place of the session or grant.
        """
        if not self.enabled or stored is None:
            return {}
        number, index = numbers_of(stored)
        return {"status": {"status_list": {"idx": index, "uri": f"{issuer}{PATH}{number}"}}}
