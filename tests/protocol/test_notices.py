"""What the log says to an operator about a client: once an hour, and never in the way of a request."""

from __future__ import annotations

from typing import Any

from service.notices import Notices
from service.storage.interface import StoreUnavailable
from tests.http.broken_store import BrokenStore

NOW = 1_800_000_000


class Paper:
    """A log that is read back."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **known: Any) -> None:
        """Keep the line."""
        self.lines.append((event, known))


def test_a_store_that_is_away_keeps_nothing_from_the_operator() -> None:
    """The line is written, once an hour a process, and the request continues."""
    paper = Paper()
    notices = Notices(BrokenStore(StoreUnavailable()), paper)
    for now in (NOW, NOW + 1, NOW + 3600):
        notices.tell("cut", "c-1", now=now, claims=["picture"])
    assert paper.lines == [("cut", {"client_id": "c-1", "claims": ["picture"]})] * 2


def test_each_event_of_each_client_counts_by_itself() -> None:
    """Another client, or another event, has its own line."""
    paper = Paper()
    notices = Notices(BrokenStore(StoreUnavailable()), paper)
    for event, client_id in (("cut", "c-1"), ("cut", "c-2"), ("loose", "c-1"), ("cut", "c-1")):
        notices.tell(event, client_id, now=NOW)
    assert [(event, known["client_id"]) for event, known in paper.lines] == [
        ("cut", "c-1"), ("cut", "c-2"), ("loose", "c-1"),
    ]  # fmt: skip
