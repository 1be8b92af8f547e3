"""PostgreSQL's own words say why it cannot be asked; what no retry can help is a fault."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import closing

import psycopg
import pytest

from service.settings import read_settings
from service.startup import open_store
from service.storage.interface import StoreRefused
from service.storage.postgres import PostgresDatabase
from service.storage.schema import HEAD
from service.storage.sql import SqlStore
from tests.outbound.attacking import Attacker
from tests.settings.conftest import Run
from tests.support.gunicorn import ADMIN, SECRET, Gunicorn, start_expecting_failure
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import PostgresCluster

CANARY = "canary7f3a"

#: What is changed in a URL that works (user, password, database, query) and what is said of it, without a pooler.
REFUSED = {
    "an unknown role": ({"user": "nobody"}, 'authentication failed for user "nobody"; correct the user'),
    "a wrong password": ({"password": CANARY}, "authentication failed for user"),
    "no password": ({"password": ""}, "no password supplied; correct the user or the password"),
    "an unknown database": (
        {"database": "nothing"},
        'database "nothing" does not exist; create the database',
    ),
    "TLS that is not there": (
        {"query": "?sslmode=require"},
        "server does not support SSL, but SSL was required; write",
    ),
    "an unknown service": ({"query": "?service=nothing"}, 'definition of service "nothing" not found; write'),
}
#: The same of PgBouncer.
POOLED = {
    "an unknown role": "authentication failed; correct",
    "a wrong password": "authentication failed; correct",
    "an unknown database": "no such database: nothing; create",
    "TLS that is not there": "server does not support SSL, but SSL was required; write",
}


def _url(of: str, change: dict[str, str]) -> str:
    head, _, address = of.partition("@")
    user, _, password = head.removeprefix("postgresql://").partition(":")
    host, _, database = address.partition("/")
    parts = {"user": user, "password": password, "database": database, "query": ""} | change
    return f"postgresql://{parts['user']}:{parts['password']}@{host}/{parts['database']}{parts['query']}"


def _told(result: object, reason: str) -> None:
    line = str(getattr(result, "stderr", "")).strip()
    assert line.startswith("DATABASE_URL: "), result
    assert reason in line
    assert len(line.splitlines()) == 1
    assert CANARY not in line


def test_what_no_retry_can_help_is_a_fault(run: Run, postgres_url: str, subtests: pytest.Subtests) -> None:
    """`check` and every command exit 2 with the server's reason and the remedy, on one line, without the password."""
    for name, (change, reason) in REFUSED.items():
        for command in (["check"], ["migrate"], ["sessions", "list", "--user", "u"]):
            with subtests.test(name, command=command[0]):
                result = run(*command, DATABASE_URL=_url(postgres_url, change))
                assert result.exit_code == 2
                _told(result, reason)


def test_a_pooler_is_understood_too(run: Run, postgres_url: str, subtests: pytest.Subtests) -> None:
    """PgBouncer refuses in words of its own."""
    with PgBouncer(postgres_url) as pooler:
        for name, reason in POOLED.items():
            with subtests.test(name):
                result = run("check", DATABASE_URL=_url(pooler.url(postgres_url), REFUSED[name][0]))
                assert result.exit_code == 2
                _told(result, reason)


def test_a_server_that_is_away_is_a_warning_with_its_reason(run: Run) -> None:
    """Nobody has to change anything for it to heal: exit 0, and why it cannot be reached."""
    result = run("check", DATABASE_URL=f"postgresql://u:{CANARY}@127.0.0.1:1/n", PYLON_JWT_SECRET=SECRET)
    assert result.exit_code == 0
    assert "warning: DATABASE_URL: the database cannot be reached (connection to server at" in result.stdout
    assert "Connection refused); readyz says 503" in result.stdout
    assert CANARY not in result.output


def test_a_start_is_refused_and_the_log_has_the_reason(
    postgres_cluster: PostgresCluster,
) -> None:
    """A start with a wrong password exits 2; one that is changed under a running service is in the log at each 503."""
    postgres_cluster.start()
    role = postgres_cluster.create_role()
    database = postgres_cluster.create_database(owner=role.name)
    url = role.url(database)
    with closing(open_store(read_settings({"DATABASE_URL": url}).settings)) as store:
        store.migrate()
    settings = {"PYLON_JWT_SECRET": SECRET, "PYLON_ADMIN_TOKEN": ADMIN, "PYLON_LOG_FORMAT": "json"}
    with Gunicorn(DATABASE_URL=url, **settings) as server:
        assert server.call("GET", "/readyz").status == 200
        postgres_cluster.execute(f"ALTER ROLE {role.name} PASSWORD '{CANARY}'")
        postgres_cluster.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role.name}'"
        )
        answer = server.call(
            "POST", "/api/auth/session", headers={"Authorization": f"Bearer {ADMIN}"}, body={"user_id": "u"}
        )
        assert answer.status == 503
    lines = [line for line in server.log_lines() if line["event"] == "store_unavailable"]
    (line,) = [line for line in lines if line.get("request_id") == answer.headers["X-Request-Id"]]
    assert f'password authentication failed for user "{role.name}"' in line["detail"]
    assert role.password not in server.output() and CANARY not in server.output()
    code, output = start_expecting_failure(DATABASE_URL=url, **settings)
    assert code == 2
    assert f'password authentication failed for user "{role.name}"; correct the user' in output
    assert role.password not in output


def test_an_attempt_that_is_not_made_has_the_reason_of_the_one_before() -> None:
    """After an attempt that took a while, the next ones fail at once, by the same fault and with the same remedy."""

    def refuse_slowly(wire: socket.socket) -> None:
        wire.recv(1024)
        time.sleep(1)
        fields = b'SFATAL\0C28P01\0Mpassword authentication failed for user "u"\0\0'
        wire.sendall(b"E" + struct.pack("!i", 4 + len(fields)) + fields)

    with Attacker(refuse_slowly) as server:
        store = SqlStore(
            PostgresDatabase(f"postgresql://u:{CANARY}@127.0.0.1:{server.port}/d?sslmode=disable")
        )
        for _ in range(5):
            met = server.met
            with pytest.raises(StoreRefused, match='failed for user "u"') as raised:
                store.schema_state()
            assert raised.value.remedy.startswith("correct the user or the password")
            assert ("a moment ago" in str(raised.value)) == (server.met == met)
        store.close()
    assert server.met < 5


def test_a_password_may_have_any_character(run: Run, postgres_cluster: PostgresCluster) -> None:
    """What libpq takes as it is is taken as it is; the rest is written with %, as the fault says."""
    postgres_cluster.start()
    role = postgres_cluster.create_role()
    database = postgres_cluster.create_database(owner=role.name)
    postgres_cluster.execute(f"ALTER ROLE {role.name} PASSWORD 'a#?[]:/@%é b'")
    url = _url(role.url(database), {"password": "a#?[]:%2F%40%25é%20b"})
    assert run("migrate", DATABASE_URL=url).exit_code == 0
    postgres_cluster.drop_database(database)


def test_several_hosts_are_tried_one_after_the_other(run: Run, postgres_url: str) -> None:
    """A host that is down is passed over; where none answers, each is named."""
    one = postgres_url.partition("@")[2].partition("/")[0]
    several = postgres_url.replace(one, f"127.0.0.1:1,{one}") + "?target_session_attrs=read-write"
    assert run("migrate", DATABASE_URL=several).exit_code == 0
    result = run("check", DATABASE_URL=several.replace(one, "127.0.0.1:2"), PYLON_JWT_SECRET=SECRET)
    assert result.exit_code == 0
    assert 'port 1 failed: Connection refused; connection to server at "127.0.0.1", port 2' in result.stdout


def test_a_migration_without_rights_names_what_is_missing(
    run: Run, postgres_cluster: PostgresCluster
) -> None:
    """One line: who may not do what, and the GRANT that helps; nothing is changed."""
    postgres_cluster.start()
    owner, guest = postgres_cluster.create_role(), postgres_cluster.create_role()
    database = postgres_cluster.create_database(owner=owner.name)
    url, as_guest = owner.url(database), guest.url(database)
    result = run("migrate", DATABASE_URL=as_guest)
    assert result.exit_code == 2
    _told(
        result,
        f"permission denied for schema public; run GRANT USAGE, CREATE ON SCHEMA public TO {guest.name}",
    )

    assert run("migrate", DATABASE_URL=url).exit_code == 0
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {guest.name}")
        admin.execute("UPDATE alembic_version SET version_num = '0003'")
    result = run("migrate", DATABASE_URL=as_guest)
    assert result.exit_code == 2
    _told(
        result,
        f"must be owner of table client; run pylon-oidc migrate as the role that owns the tables, not as {guest.name}",
    )

    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"UPDATE alembic_version SET version_num = '{HEAD}'")
        admin.execute(f"REVOKE DELETE ON key_ring FROM {guest.name}")
    for command in ("check", "migrate"):
        result = run(command, DATABASE_URL=as_guest)
        assert (command, result.exit_code) == (command, 2 if command == "check" else 0)
        if command == "check":
            _told(
                result,
                f"the role {guest.name} may not DELETE in key_ring; run GRANT SELECT, INSERT, UPDATE, DELETE ON ALL",
            )
    postgres_cluster.drop_database(database)
