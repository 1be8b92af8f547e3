"""What the application tells a server about requests that may write."""

from __future__ import annotations

import pytest

from tests.http.conftest import Serve


@pytest.mark.parametrize(("url", "in_turn"), [(None, True), ("postgresql://pylon@127.0.0.1:9/pylon", False)])
def test_they_take_turns_on_sqlite_alone(serve: Serve, url: str | None, in_turn: bool) -> None:
    """SQLite has one writer; on PostgreSQL a turn would keep commits from sharing one write to the disk."""
    assert serve(DATABASE_URL=url).app.writes_in_turn is in_turn
