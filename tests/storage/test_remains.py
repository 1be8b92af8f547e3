"""What remains of sessions and grants that go is stored in the transaction that removes them, on both databases.

Spec: Token Status List (draft-ietf-oauth-status-list) §4
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Final

import pytest

from service.records.statuses import revocation
from service.startup import open_database
from service.storage.interface import NEVER, Change, Fitting, Kind, NotStanding, Record
from service.storage.sql import SqlStore
from service.storage.urls import parse_database_url

NOW: Final = 1_800_000_000


def _grant(number: int, *, tokens: bytes = b"t" * 32, offline: bool = True) -> Record:
    return Record(
        Kind.GRANT,
        f"{number:026}",
        NOW + 1000,
        "ada",
        session_id="sid",
        client_id="wiki",
        body={"status": f"7.{number}"},
        outlives_session=offline,
        tokens=tokens,
    )


def _session() -> Record:
    return Record(Kind.SESSION, "a" * 64, NOW + 1000, "ada", session_id="sid", body={"status": "7.900"})


def _bits(store: SqlStore) -> set[int]:
    records = store.list(Kind.STATUS, subject="7", now=NOW)
    assert {record.expires_at for record in records} <= {NOW + 86_400}
    return {int(record.id_hash.partition(".")[2]) for record in records}


def test_every_way_to_go_leaves_a_bit(database_url: str, subtests: pytest.Subtests) -> None:
    """A removal, one taken with what falls with it, and each way to lose the access tokens; nothing else does."""
    with closing(open_database(parse_database_url(database_url), remains=revocation)) as store:
        store.put(_session(), *(_grant(number, offline=number > 100) for number in range(200)), now=NOW)
        store.put(replace(_grant(300), body={}), now=NOW)
        assert _bits(store) == set()
        with subtests.test("a session ends, with its grants, more than one statement inserts"):
            store.delete(
                Fitting(Kind.SESSION, session_id="sid"),
                Fitting(Kind.GRANT, session_id="sid", outlives_session=False),
                without_tokens=[Fitting(Kind.GRANT, session_id="sid", outlives_session=True)],
                now=NOW,
            )
            assert _bits(store) == {900, *range(200)}
        with subtests.test("what has lost its tokens is removed: its bit is there"):
            assert store.take(Kind.GRANT, _grant(150).id_hash, now=NOW) is not None
            assert _bits(store) == {900, *range(200)}
        store.put(_grant(400), _grant(401), _grant(402), now=NOW)
        with subtests.test("one is taken, and another one falls with it"):
            store.take(
                Kind.GRANT,
                _grant(400).id_hash,
                falling=[Fitting(Kind.GRANT, id_hash=_grant(401).id_hash)],
                now=NOW,
            )
            assert _bits(store) >= {400, 401}
            assert 402 not in _bits(store)
        with subtests.test("a change that continues keeps it clear, and one that is refused changes nothing"):
            kept = Change(Kind.GRANT, _grant(402).id_hash, lambda known: replace(known, tokens=b"u" * 32))
            store.put(changes=[kept], now=NOW)
            empty = replace(kept, decide=lambda known: replace(known, tokens=b""))
            nobody = Fitting(Kind.SESSION, subject="nobody")
            with pytest.raises(NotStanding):
                store.put(changes=[empty], standing_on=[nobody], now=NOW)
            assert 402 not in _bits(store)
        with subtests.test("a change that takes the tokens"):
            store.put(changes=[empty], now=NOW)
            assert 402 in _bits(store)


def test_without_status_lists_nothing_remains(database_url: str) -> None:
    """A store that was opened without them stores no bit."""
    with closing(open_database(parse_database_url(database_url))) as store:
        store.put(_session(), _grant(1), now=NOW)
        store.delete(Fitting(Kind.SESSION, session_id="sid"), Fitting(Kind.GRANT, session_id="sid"), now=NOW)
        assert _bits(store) == set()
        assert store.put(Record(Kind.STATUS, "7", NEVER), now=NOW)
