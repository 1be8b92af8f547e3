"""Where the tables are, and what the role may do with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from service.storage.interface import Kind, StoreRefused, StoreUnavailable
from service.storage.sqlite import SqliteDatabase
from tests.storage.stores import NOW, migrate, open_url, record, sqlite_path
from tests.support.postgres import PostgresCluster, Role


@pytest.fixture
def role(postgres_cluster: PostgresCluster) -> Role:
    """An ordinary role."""
    postgres_cluster.start()
    return postgres_cluster.create_role()


@pytest.fixture
def its_url(role: Role, postgres_cluster: PostgresCluster) -> Iterator[str]:
    """The URL of an empty database that belongs to the role."""
    database = postgres_cluster.create_database(owner=role.name)
    yield role.url(database)
    postgres_cluster.drop_database(database)


def _admin(url: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(url, autocommit=True)


def _works(url: str, handle: str = "one") -> None:
    with closing(open_url(url)) as store:
        store.migrate()
        assert store.schema_state() == "current"
        assert store.write_refusal() is None
        assert store.put(record(handle), now=NOW) is True
        assert store.get(Kind.SESSION, record(handle).id_hash, now=NOW) == record(handle)


def _schemas_with_tables(url: str) -> list[str]:
    with _admin(url) as admin:
        rows = admin.execute("SELECT schemaname FROM pg_tables WHERE tablename = 'session' ORDER BY 1")
        return [str(name) for (name,) in rows]


def test_a_search_path_that_leads_nowhere(
    role: Role, its_url: str, postgres_cluster: PostgresCluster
) -> None:
    """Where a role's search path has no schema of its own the tables are made in `public`, and found there."""
    postgres_cluster.execute(f"ALTER ROLE {role.name} SET search_path = ''")
    _works(its_url)
    _works(its_url, "two")
    assert _schemas_with_tables(its_url) == ["public"]


def test_tables_that_exist_are_found_whatever_the_search_path_is(
    role: Role, its_url: str, postgres_cluster: PostgresCluster
) -> None:
    """A search path that is changed later leads nobody to new and empty tables."""
    _works(its_url)
    with _admin(its_url) as admin:
        admin.execute("CREATE SCHEMA elsewhere")
    postgres_cluster.execute(f"ALTER ROLE {role.name} SET search_path = elsewhere, pg_temp")
    _works(its_url, "two")
    assert _schemas_with_tables(its_url) == ["public"]


def test_a_schema_of_the_role_s_own_is_taken(role: Role, its_url: str) -> None:
    """As PostgreSQL's own recipe for a shared database has it: a schema that is called as its role."""
    with _admin(its_url) as admin:
        admin.execute(f"CREATE SCHEMA AUTHORIZATION {role.name}")
    _works(its_url)
    assert _schemas_with_tables(its_url) == [role.name]


def test_two_services_share_a_database(role: Role, its_url: str, postgres_cluster: PostgresCluster) -> None:
    """Each role has its tables in the schema of its search path, and what others have is not taken for its own."""
    _works(its_url)
    second = postgres_cluster.create_role(search_path="Second One")
    with _admin(its_url) as admin:
        admin.execute(f'CREATE SCHEMA "Second One"; GRANT ALL ON SCHEMA "Second One" TO {second.name}')
    _works(second.url(its_url), "two")
    assert _schemas_with_tables(its_url) == ["Second One", "public"]
    # With a role for both the URL says which; without that nobody guesses.
    with closing(open_url(f"{its_url}?options=-csearch_path%3Dthird")) as store:
        assert store.schema_state() == "behind"
    postgres_cluster.execute(f"GRANT {second.name} TO {role.name}")
    postgres_cluster.execute(f"ALTER ROLE {role.name} SET search_path = ''")
    with closing(open_url(its_url)) as store, pytest.raises(StoreRefused, match="Second One and public"):
        store.schema_state()


def test_another_program_s_tables_are_left_alone(its_url: str) -> None:
    """A table of revisions that is not ours is neither read as ours nor migrated."""
    with _admin(its_url) as admin:
        admin.execute("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)")
        admin.execute("INSERT INTO alembic_version VALUES ('8f1c2d3e4a5b')")
    with closing(open_url(its_url)) as store:
        assert store.schema_state() == "behind"
        with pytest.raises(StoreRefused, match="another program"):
            store.migrate()


def test_a_role_without_a_right_is_refused_by_every_verb_that_needs_it(
    its_url: str, postgres_cluster: PostgresCluster
) -> None:
    """What the role may not do is unavailable, with the right that it lacks; what it may still works."""
    migrate(its_url)
    reader = postgres_cluster.create_role()
    with _admin(its_url) as admin:
        admin.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader.name}")
    with closing(open_url(reader.url(its_url))) as store:
        assert store.schema_state() == "current"
        assert store.get(Kind.SESSION, record().id_hash, now=NOW) is None
        refusal = store.write_refusal()
        assert isinstance(refusal, StoreRefused)
        assert refusal.reason.startswith(f"the role {reader.name} may not DELETE, INSERT, UPDATE in ")
        assert f"IN SCHEMA public TO {reader.name}" in refusal.remedy
        with pytest.raises(StoreUnavailable, match="permission denied for table session"):
            store.put(record(), now=NOW)


def test_a_read_only_role_is_told(role: Role, its_url: str, postgres_cluster: PostgresCluster) -> None:
    """`default_transaction_read_only` is respected, and said without a write."""
    migrate(its_url)
    postgres_cluster.execute(f"ALTER ROLE {role.name} SET default_transaction_read_only = on")
    with closing(open_url(its_url)) as store:
        refusal = store.write_refusal()
        assert refusal is not None and not isinstance(refusal, StoreRefused)
        assert "default_transaction_read_only" in refusal.reason
        with pytest.raises(StoreUnavailable, match="read-only transaction"):
            store.put(record(), now=NOW)


def test_a_file_that_cannot_be_written_is_told(sqlite_url: str, tmp_path: Path) -> None:
    """SQLite too says so without a write: the file, or the folder of its log, is not the user's."""
    migrate(sqlite_url)
    database = SqliteDatabase(sqlite_path(sqlite_url))
    never = lambda _sql, _values: []  # noqa: E731 - it is not asked
    assert database.write_refusal(never, "") is None
    for path in (sqlite_path(sqlite_url), tmp_path):
        before = path.stat().st_mode
        path.chmod(before & ~0o222)
        child = os.fork()
        if child == 0:  # root may write anything
            told = None
            try:
                if os.geteuid() == 0:
                    os.setresuid(65_534, 65_534, 65_534)
                told = database.write_refusal(never, "")
            finally:
                os._exit(0 if isinstance(told, StoreRefused) else 1)
        assert os.waitpid(child, 0)[1] == 0
        path.chmod(before)
