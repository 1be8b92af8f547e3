"""The directory of clients over a real store."""

from __future__ import annotations

from pathlib import Path

from service.clients import Clients
from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase

NOW = 1_800_000_000
METADATA = {"client_id": "reports", "redirect_uris": ["https://rp.example/cb"]}


def test_a_client_registered_before_the_minted_audience_was_named_so_is_none(tmp_path: Path) -> None:
    """RFC 9700 §4.15: a client whose id becomes the audience of minted tokens is not served: its ID token is forgeable."""
    store = SqlStore(SqliteDatabase(tmp_path / "clients.db"))
    store.migrate()
    Clients((), store, minted_audience=None).add(METADATA, now=NOW)
    assert Clients((), store, minted_audience="other").find("reports", now=NOW) is not None
    assert Clients((), store, minted_audience="reports").find("reports", now=NOW) is None
    store.close()
