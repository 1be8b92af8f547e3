"""Room that SQLite keeps for what takes away; on disks that are full, by `on_small_disks.py`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from service.storage.interface import Kind, StoreUnavailable
from service.storage.reserve import PORTION, PORTIONS
from tests.storage.stores import NOW, migrate, open_url, record, sqlite_path
from tests.support.small_disk import run_on_small_disks


def test_on_small_disks() -> None:
    """Every test of `on_small_disks.py` passes, on disks that are filled up."""
    run_on_small_disks(Path(__file__).with_name("on_small_disks.py"))


def test_a_service_keeps_it_and_a_command_does_not(sqlite_url: str) -> None:
    """It has real blocks, only for the service's user; what only looks at the database makes none."""
    migrate(sqlite_url)
    path = sqlite_path(sqlite_url).with_name("pylon.sqlite3.reserve")
    with closing(open_url(sqlite_url)) as store:
        store.put(record(), now=NOW)
        store.check_revocable()
        assert not path.exists()
        store.keep_room()
        status = path.stat()
        assert (status.st_size, oct(status.st_mode & 0o777)) == (PORTION * PORTIONS, "0o600")
        assert status.st_blocks * 512 >= status.st_size


def test_without_the_right_to_make_files_it_does_without(sqlite_url: str) -> None:
    """Where no reserve can be made, the free room of its disk must do, and the service works."""
    migrate(sqlite_url)
    Path(f"{sqlite_path(sqlite_url)}.reserve").mkdir()
    with closing(open_url(sqlite_url)) as store:
        store.keep_room()
        assert store.put(record(), now=NOW) is True
        store.check_revocable()


def test_a_postgresql_that_only_reads_gives_nothing_out(postgres_url: str) -> None:
    """A standby, or a server that its operator has made read-only, tells so by itself: no statement is needed for it."""
    migrate(postgres_url)
    name = postgres_url.rpartition("/")[2]
    with closing(open_url(postgres_url)) as store, psycopg.connect(postgres_url, autocommit=True) as admin:
        store.put(record(), now=NOW)
        store.check_revocable()
        admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        store.close()
        assert store.get(Kind.SESSION, record().id_hash, now=NOW) == record()
        with pytest.raises(StoreUnavailable):
            store.check_revocable()
        admin.execute("SET default_transaction_read_only = off")
        admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        store.close()
        store.get(Kind.SESSION, record().id_hash, now=NOW)
        store.check_revocable()
