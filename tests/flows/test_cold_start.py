"""Many replicas that start at once on nothing end with one schema and one key (docs/security.md)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.flows.polling import wait_until
from tests.storage.stores import migrate, open_url
from tests.support.gunicorn import (
    ADMIN,
    PROJECT,
    Gunicorn,
    clean_environment,
    rsa_pem,
    start_expecting_failure,
)
from tests.support.postgres import PostgresCluster

REPLICAS = 8
SETTINGS = {
    "PYLON_ADMIN_TOKEN": ADMIN,
    "PYLON_JWT_ALG": "RS256",
    "PYLON_OIDC_ISSUER": "https://id.example.com",
    "WEB_CONCURRENCY": "1",
}


def _start_at_once(start: Callable[..., Gunicorn], count: int, **settings: str) -> list[Gunicorn]:
    """Start all replicas together, and return when each of them answers."""
    with ThreadPoolExecutor(count) as threads:
        begun = [threads.submit(start, **SETTINGS, **settings) for _ in range(count)]
        return [replica.result() for replica in begun]


def _assert_one_service(replicas: list[Gunicorn]) -> None:
    """All are ready, publish the same one key, know each other's sessions, and end in order."""
    assert {replica.call("GET", "/readyz").json()["status"] for replica in replicas} == {"ok"}
    documents = {replica.call("GET", "/oidc/jwks").body for replica in replicas}
    assert len(documents) == 1
    assert documents.pop().count(b'"kid"') == 1
    token = replicas[0].sign_in()
    assert {replica.mint(token).status for replica in replicas} == {200}
    with ThreadPoolExecutor(REPLICAS) as threads:  # each takes a second to end
        assert set(threads.map(Gunicorn.stop, replicas)) == {0}


def test_eight_servers_on_no_database_and_no_key_make_one_of_each(
    gunicorn: Callable[..., Gunicorn], tmp_path: Path
) -> None:
    """8 gunicorns at once on an empty data folder and an absent key file are one service: one schema, one key."""
    data, key = tmp_path / "data", tmp_path / "keys" / "signing.pem"
    key.parent.mkdir()
    replicas = _start_at_once(gunicorn, REPLICAS, PYLON_DATA_DIR=str(data), PYLON_OIDC_KEY_PATH=str(key))
    _assert_one_service(replicas)
    assert [file.name for file in key.parent.iterdir()] == ["signing.pem"]
    assert key.stat().st_mode & 0o777 == 0o600
    load_pem_private_key(key.read_bytes(), None)
    store = open_url(f"sqlite:///{data / 'pylon.db'}")
    assert store.schema_state() == "current"
    store.close()


#: Eight processes of one that has loaded the command: they begin closer to each other than as many programs would.
_MIGRATING = """
import os, sys
import alembic.command, service.startup
from service.cli import main
sys.argv = ["pylon-oidc", "migrate"]
for _ in range(8):
    if os.fork() == 0:
        main()
for _ in range(8):
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
"""


def test_eight_migrations_at_once_make_one_schema(database_url: str) -> None:
    """8 `migrate` at once on an empty database all succeed, and there is one current schema."""
    done = subprocess.run(
        [sys.executable, "-c", _MIGRATING],
        cwd=PROJECT,
        env=clean_environment(DATABASE_URL=database_url),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "The schema is up to date.\n" * REPLICAS)
    store = open_url(database_url)
    assert store.schema_state() == "current"
    store.close()
    if database_url.startswith("postgresql:"):
        with psycopg.connect(database_url) as connection:
            rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        assert len(rows) == 1


def test_servers_share_a_migrated_postgresql(gunicorn: Callable[..., Gunicorn], postgres_url: str) -> None:
    """Gunicorns that start at once on a migrated PostgreSQL, with one key, are one service."""
    migrate(postgres_url)
    settings = {"DATABASE_URL": postgres_url, "PYLON_OIDC_PRIVATE_KEY": rsa_pem()}
    _assert_one_service(_start_at_once(gunicorn, 3, **settings))


def test_an_unmigrated_postgresql_is_a_fault_that_names_the_command(postgres_url: str) -> None:
    """With a PostgreSQL that nobody migrated the server does not start, and says `pylon-oidc migrate`."""
    code, output = start_expecting_failure(DATABASE_URL=postgres_url)
    assert code != 0
    assert "DATABASE_URL: " in output
    assert "pylon-oidc migrate" in output


@pytest.fixture
def unreachable(
    gunicorn: Callable[..., Gunicorn], postgres_url: str, postgres_cluster: PostgresCluster
) -> Gunicorn:
    """A server that was started while its PostgreSQL was down."""
    migrate(postgres_url)
    postgres_cluster.stop()
    return gunicorn(DATABASE_URL=postgres_url, PYLON_OIDC_PRIVATE_KEY=rsa_pem(), **SETTINGS)


def test_an_unreachable_postgresql_is_a_warning_at_start(unreachable: Gunicorn) -> None:
    """The server starts without its PostgreSQL, says so in the log, lives, and is not ready."""
    warnings = [line for line in unreachable.log_lines() if line["level"] == "warning"]
    assert any("DATABASE_URL" in str(line["detail"]) for line in warnings)
    assert unreachable.call("GET", "/healthz").status == 200
    assert unreachable.call("GET", "/oidc/jwks").status == 200
    ready = unreachable.call("GET", "/readyz")
    assert (ready.status, ready.json()["database"]) == (503, "unavailable")


def test_a_server_started_without_its_postgresql_works_when_it_comes(
    unreachable: Gunicorn, postgres_cluster: PostgresCluster
) -> None:
    """When the PostgreSQL that was down at the start comes, the server is ready by itself."""
    assert unreachable.call("GET", "/readyz").status == 503
    postgres_cluster.start()
    wait_until(lambda: unreachable.call("GET", "/readyz").status == 200)
    assert unreachable.mint(unreachable.sign_in()).status == 200
