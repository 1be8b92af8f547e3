"""SQLite on a disk that is full: what takes away finds room, what stores more is refused, and nothing is given out for good.

Run by `test_reserve.py`, where it may mount.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from service.storage.interface import NEVER, Fitting, Kind, Record, StoreUnavailable
from service.storage.reserve import HALF, LOW, PORTION, PORTIONS
from service.storage.sql import SqlStore
from tests.flows.polling import wait_until
from tests.storage.stores import NOW, id_of, migrate, open_url, record, rows
from tests.support.small_disk import SmallDisk

WHOLE = PORTION * PORTIONS
MANY = 60


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with SmallDisk(tmp_path) as mounted:
        yield mounted


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "pylon.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def url(disk: SmallDisk, migrated: Path) -> str:
    shutil.copy(migrated, disk.folder / "pylon.db")
    return f"sqlite:///{disk.folder / 'pylon.db'}"


@pytest.fixture
def service(url: str) -> Iterator[SqlStore]:
    """A store that keeps its room, as a service does, with some of everything in it."""
    with closing(open_url(url)) as store:
        store.keep_room()
        for number in range(MANY):
            for kind in (Kind.SESSION, Kind.GRANT, Kind.INTERACTION, Kind.CONSENT):
                name = f"u{number}"
                store.put(
                    record(
                        name, kind=kind, subject=name, grant_id=name, session_id=name, body={"x": "x" * 500}
                    ),
                    now=NOW,
                )
        store.put(record("client", kind=Kind.CLIENT, expires_at=NEVER), now=NOW)
        store.put(record("ring", kind=Kind.KEY_RING, expires_at=NEVER), now=NOW)
        yield store


def reserve(disk: SmallDisk) -> int:
    path = disk.folder / "pylon.db.reserve"
    return path.stat().st_size if path.exists() else 0


def full(disk: SmallDisk) -> None:
    """Write until the disk takes no more: by one who keeps no room, so that not even SQLite's own log has any left."""
    with closing(open_url(f"sqlite:///{disk.folder / 'pylon.db'}")) as heedless:
        with pytest.raises(StoreUnavailable):
            for number in range(100_000):
                more = record(f"flood {number}", kind=Kind.VERIFIER, body={"x": "x" * 900})
                heedless.put(more, now=NOW)
        disk.fill()


@contextmanager
def reading(disk: SmallDisk) -> Iterator[None]:
    """Somebody reads all the while, as a backup does: SQLite's own log cannot be begun again, each write makes it longer."""
    with closing(sqlite3.connect(disk.folder / "pylon.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM session").fetchall()
        yield


def _grant(n: int) -> Record:
    return record(f"u{n}", kind=Kind.GRANT, body={"used": "x" * 500})


def _of_user(n: int, *kinds: Kind) -> list[Fitting]:
    return [Fitting(kind, subject=f"u{n}") for kind in kinds]


def _changed(known: Record) -> Record:
    return replace(known, body={**known.body, "less": True})


#: What takes away, by verb; each number is another user's.
TAKES_AWAY: dict[str, Callable[[SqlStore, int], object]] = {
    "delete": lambda store, n: store.delete(*_of_user(n, Kind.SESSION, Kind.GRANT), now=NOW),
    "delete, and tokens of what stays": lambda store, n: store.delete(
        *_of_user(n, Kind.SESSION), without_tokens=_of_user(n, Kind.GRANT), now=NOW
    ),
    "swap that takes something away": lambda store, n: store.swap(_grant(n), ending=True, now=NOW),
    "take": lambda store, n: store.take(Kind.SESSION, id_of(f"u{n}"), now=NOW),
    "take, with what falls": lambda store, n: store.take(
        Kind.SESSION, id_of(f"u{n}"), falling=_of_user(n, Kind.GRANT), now=NOW
    ),
    "change of a client": lambda store, _: store.change(Kind.CLIENT, id_of("client"), _changed, now=NOW),
    "replace of the ring": lambda store, _: store.replace(
        Kind.KEY_RING,
        id_of("ring"),
        record("ring", kind=Kind.KEY_RING, expires_at=NEVER, body={"n": 1}),
        now=NOW,
    ),
}
GROWS: dict[str, Callable[[SqlStore, int], object]] = {
    "put": lambda store, n: store.put(record(f"new {n}"), now=NOW),
    "take and put": lambda store, n: store.take(
        Kind.INTERACTION, id_of(f"u{n}"), put=[record(f"n{n}")], now=NOW
    ),
    "swap": lambda store, n: store.swap(_grant(n), now=NOW),
    "change": lambda store, n: store.change(Kind.INTERACTION, id_of(f"u{n}"), _changed, now=NOW),
    "note of a replica": lambda store, _: store.change(Kind.KEY_RING, id_of("ring"), _changed, now=NOW),
    "replace": lambda store, n: store.replace(Kind.SESSION, id_of(f"u{n}"), record(f"r{n}"), now=NOW),
}


@pytest.mark.parametrize("verb", TAKES_AWAY)
def test_what_takes_away_finds_room(disk: SmallDisk, service: SqlStore, verb: str) -> None:
    """On a disk without a free block it is stored at the first call, and what is left of the reserve is for the next."""
    full(disk)
    with reading(disk):
        assert TAKES_AWAY[verb](service, 1)
    assert reserve(disk) > 0
    service.close()
    assert service.get(Kind.SESSION, id_of("u2"), now=NOW) is not None


def test_a_command_finds_room_too(disk: SmallDisk, service: SqlStore, url: str) -> None:
    """It keeps no reserve, and draws what the service keeps."""
    full(disk)
    with closing(open_url(url)) as command:
        assert command.delete(Fitting(Kind.SESSION, subject="u1"), now=NOW) == 1
    assert service.get(Kind.SESSION, id_of("u1"), now=NOW) is None


def test_what_takes_away_finds_room_again_and_again(disk: SmallDisk, service: SqlStore) -> None:
    """Though another program takes what is set free: each draws its own, until nothing is left."""
    full(disk)
    ended = 0
    with reading(disk), pytest.raises(StoreUnavailable):
        while True:
            assert (
                service.delete(
                    Fitting(Kind.SESSION, subject=f"u{ended}"),
                    Fitting(Kind.GRANT, subject=f"u{ended}"),
                    now=NOW,
                )
                == 1
            )
            disk.fill()
            ended += 1
            assert ended < MANY
    assert ended >= PORTIONS
    assert reserve(disk) == 0


@pytest.mark.parametrize("verb", GROWS)
def test_what_stores_more_is_refused_and_takes_nothing_of_it(
    disk: SmallDisk, service: SqlStore, verb: str
) -> None:
    """Where room is short it is `StoreUnavailable` at once, whether or not a revocation has just set some free."""
    full(disk)
    service.delete(Fitting(Kind.SESSION, subject="u1"), now=NOW)
    disk.fill()
    left = reserve(disk)
    for number in range(2, 8):
        with pytest.raises(StoreUnavailable):
            GROWS[verb](service, number)
    assert reserve(disk) == left


def test_nothing_new_is_stored_in_the_last_half_mebibyte(disk: SmallDisk, service: SqlStore) -> None:
    """It is for what takes away: that finds it without the reserve."""
    other = disk.folder / "half"
    other.write_bytes(b"\0" * (disk.free() - LOW // 2))
    wait_until(lambda: not _stores(service))
    assert service.delete(Fitting(Kind.SESSION, subject="u1"), now=NOW) == 1
    assert reserve(disk) == WHOLE
    service.check_revocable()
    other.unlink()
    wait_until(lambda: _stores(service))


def _stores(store: SqlStore) -> bool:
    try:
        return store.put(record(f"at {time.monotonic()}"), now=NOW)
    except StoreUnavailable:
        return False


def _gives_out(store: SqlStore) -> bool:
    try:
        store.check_revocable()
    except StoreUnavailable:
        return False
    return True


def test_nothing_is_given_out_that_could_not_be_taken_back(
    disk: SmallDisk, service: SqlStore, url: str
) -> None:
    """While a portion is left tokens are given out, and none after that: in every process, within a second or so."""
    full(disk)
    with closing(open_url(url)) as other:
        other.keep_room()
        with reading(disk):
            for number in range(MANY):
                if reserve(disk) < PORTION:
                    break
                assert _gives_out(service)
                assert _gives_out(other)
                service.delete(Fitting(Kind.SESSION, subject=f"u{number}"), now=NOW)
                disk.fill()
            wait_until(lambda: not _gives_out(service))
            wait_until(lambda: not _gives_out(other))
        disk.empty()
        for store in (service, other):
            wait_until(lambda s=store: _gives_out(s) and _stores(s))  # type: ignore[misc]
    assert reserve(disk) == WHOLE


def test_a_sign_out_that_waits_leaves_half_of_it(disk: SmallDisk, service: SqlStore) -> None:
    """Anybody may begin one: what ends at once has the other half."""
    full(disk)
    with pytest.raises(StoreUnavailable):
        for number in range(100_000):
            service.put(
                record(f"form {number}", kind=Kind.INTERACTION, body={"x": "x" * 8000}), ending=True, now=NOW
            )
            disk.fill()
    assert number > 2
    assert reserve(disk) == HALF * PORTION
    assert service.delete(Fitting(Kind.SESSION, subject="u1"), now=NOW) == 1


def test_what_ends_makes_room(disk: SmallDisk, service: SqlStore, url: str) -> None:
    """A disk that a flood has filled is free again when the flood has ended: the sweep draws half of the reserve for it."""
    with pytest.raises(StoreUnavailable):
        for number in range(100_000):
            service.put(
                record(f"flood {number}", kind=Kind.VERIFIER, expires_at=NOW + 2, body={"x": "x" * 900}),
                now=NOW,
            )
    disk.fill()
    wait_until(lambda: rows(url, Kind.VERIFIER) == 0, timeout_s=60)
    wait_until(lambda: _stores(service), timeout_s=60)
    assert reserve(disk) == WHOLE
