"""Behind a transaction pooler, and under a role with defaults of its own, the store is the same store."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from service.settings import read_settings
from service.startup import open_store
from service.storage.interface import Kind, StoreUnavailable
from service.storage.schema import TABLES
from tests.storage.racers import race_threads
from tests.storage.stores import NOW, migrate, open_url, record
from tests.storage.test_away import VERBS
from tests.storage.test_races import LEFT, ROUNDS, left, prizes
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import PostgresCluster

THREADS = 12

#: What a role, or the database, may have been given as its default.
DEFAULTS = {
    "repeatable read": {"default_transaction_isolation": "repeatable read"},
    "serializable, written in other ways": {
        "default_transaction_isolation": "serializable",
        "default_transaction_deferrable": "on",
        "client_encoding": "LATIN1",
        "standard_conforming_strings": "off",
        "datestyle": "SQL, DMY",
        "timezone": "Asia/Tokyo",
    },
}


@pytest.fixture
def pooled(postgres_url: str) -> Iterator[str]:
    """A database with its schema, behind a pooler that has two sessions for it."""
    with PgBouncer(postgres_url, pool_size=2) as pooler:
        url = pooler.url(postgres_url)
        migrate(url)
        yield url


def _race(url: str) -> None:
    """One race after the other: one winner each, and no call fails."""
    with closing(open_url(url)) as store:
        for race in ("put", "take and put", "swap", "use", "change", "refresh"):
            handles = prizes(race, store)
            result = race_threads(store, race, handles, start=threading.Barrier(THREADS), threads=THREADS)
            assert result.errors == [], race
            if race != "change":
                assert result.wins == [1] * ROUNDS, race
                assert left(race, store, handles) == LEFT.get(race, [1] * ROUNDS), race


def test_behind_a_transaction_pooler_all_is_as_without(pooled: str) -> None:
    """Sixteen threads on two sessions of the server: one winner each, and no call fails."""
    _race(pooled)


def test_nothing_is_kept_in_a_session_of_the_server(
    pooled: str, postgres_url: str, postgres_cluster: PostgresCluster
) -> None:
    """No statement has a name, nothing is SET, however often a statement runs; the migration too."""
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        name = admin.info.dbname
        admin.execute(f"ALTER DATABASE \"{name}\" SET log_statement = 'all'")
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    before = len(postgres_cluster.log())
    with closing(open_url(pooled)) as store:
        store.migrate()
        for number in range(20):
            store.put(record(str(number)), now=NOW)
            assert store.get(record().kind, record(str(number)).id_hash, now=NOW) is not None
    log = postgres_cluster.log()[before:]
    assert "execute <unnamed>" in log
    assert not [line for line in log.splitlines() if "execute _pg" in line or "PREPARE" in line]
    sets = [line for line in log.splitlines() if "LOG:  statement: SET " in line and "SET LOCAL" not in line]
    assert sets == [] or all("client_encoding" in line or "application_name" in line for line in sets), sets


def test_what_others_set_in_the_sessions_of_the_server_changes_nothing(
    pooled: str, postgres_url: str, postgres_cluster: PostgresCluster
) -> None:
    """Another program that shares the sessions leaves its search path, isolation and time zone there."""
    with closing(open_url(pooled)) as store:
        store.put(record(), now=NOW)
        with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as other:
            for setting in ("search_path = pg_catalog", "default_transaction_isolation = 'serializable'"):
                other.execute(f"SET {setting}")
        assert store.get(Kind.SESSION, record().id_hash, now=NOW) == record()
        assert store.schema_state() == "current"
    # A process that begins now finds the tables without the search path.
    with closing(open_url(pooled)) as store:
        assert store.get(Kind.SESSION, record().id_hash, now=NOW) == record()
        assert store.write_refusal() is None
        store.migrate()


def test_statements_are_prepared_where_a_setting_says_so(
    postgres_url: str, postgres_cluster: PostgresCluster
) -> None:
    """`PYLON_PREPARED_STATEMENTS=1`: from its third use on a statement has a name at the server."""
    migrate(postgres_url)
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE \"{admin.info.dbname}\" SET log_statement = 'all'")
    before = len(postgres_cluster.log())
    settings = read_settings({"DATABASE_URL": postgres_url, "PYLON_PREPARED_STATEMENTS": "1"}).settings
    with closing(open_store(settings)) as store:
        for _ in range(4):
            store.get(Kind.SESSION, "x", now=NOW)
    assert "execute _pg3_0: SELECT" in postgres_cluster.log()[before:]


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_role_s_own_defaults_change_nothing(name: str, postgres_cluster: PostgresCluster) -> None:
    """What a role is given by `ALTER ROLE … SET` decides over nothing that the store relies on."""
    postgres_cluster.start()
    role = postgres_cluster.create_role(**DEFAULTS[name])
    database = postgres_cluster.create_database(owner=role.name)
    try:
        migrate(role.url(database))
        _race(role.url(database))
    finally:
        postgres_cluster.drop_database(database)


GIVE_WAY = """
CREATE SEQUENCE losses;
CREATE FUNCTION give_way() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    IF nextval('losses') <= 3 THEN RAISE EXCEPTION 'given way' USING ERRCODE = '{state}'; END IF;
    RETURN true;
END $$;
"""


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_what_gave_way_is_tried_again(
    state: str, postgres_cluster: PostgresCluster, subtests: pytest.Subtests
) -> None:
    """A serialization failure or a deadlock is never a 503: single statements and transactions run again."""
    postgres_cluster.start()
    role = postgres_cluster.create_role()
    database = postgres_cluster.create_database(owner=role.name)
    url = role.url(database)
    migrate(url)
    with psycopg.connect(url, autocommit=True) as owner, closing(open_url(url)) as store:
        owner.execute(GIVE_WAY.format(state=state))
        for table in TABLES.values():
            owner.execute(f"ALTER TABLE {table.name} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
            owner.execute(f"CREATE POLICY p ON {table.name} USING (give_way()) WITH CHECK (give_way())")
        for verb, ask in VERBS.items():
            with subtests.test(verb):
                owner.execute("ALTER SEQUENCE losses RESTART WITH 100")
                for kind, handle in ((Kind.SESSION, "one"), (Kind.GRANT, "grant"), (Kind.USER, "user")):
                    store.put(record(handle, kind=kind), now=NOW)
                owner.execute("ALTER SEQUENCE losses RESTART WITH 1")
                ask(store)
    postgres_cluster.drop_database(database)


def test_what_always_gives_way_is_unavailable(postgres_url: str) -> None:
    """Trying again ends: then it is an outage, and nothing is kept."""
    with closing(open_url(postgres_url)) as store, psycopg.connect(postgres_url, autocommit=True) as admin:
        store.migrate()
        always = (
            GIVE_WAY.format(state="40001")
            .replace("<= 3", "> 0")
            .replace("RETURNS boolean", "RETURNS trigger")
        )
        admin.execute(always.replace("RETURN true", "RETURN NEW"))
        admin.execute("CREATE TRIGGER t BEFORE INSERT ON session EXECUTE FUNCTION give_way()")
        with pytest.raises(StoreUnavailable):
            store.put(record(), now=NOW)
        assert store.get(Kind.SESSION, record().id_hash, now=NOW) is None
