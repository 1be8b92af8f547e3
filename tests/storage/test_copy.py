"""A database copied into another, of either kind: all of it, verified, and gone on with where it was interrupted.

`PYLON_TEST_COPY=full` copies 100,000 sessions and 10,000 grants instead of a fiftieth of them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest
from click.testing import CliRunner

from service.cli import main
from service.records.sessions import SignIn
from service.sessions import LocalSessions
from service.storage.interface import NEVER, Kind
from service.storage.schema import TABLES
from tests.provider.browser import query_of
from tests.provider.driver import challenge_of
from tests.storage.outages import migrated_database
from tests.storage.stores import NOW, migrate, open_url, record, sqlite_path
from tests.support.gunicorn import ADMIN, PROJECT, Gunicorn, clean_environment
from tests.support.postgres import PostgresCluster

PART = 1 if os.environ.get("PYLON_TEST_COPY") == "full" else 50
SESSIONS, GRANTS = 100_000 // PART, 10_000 // PART
CLIENT: dict[str, Any] = {
    "client_id": "c",
    "first_party": True,
    "redirect_uris": ["https://rp.example.org/cb"],
    "token_endpoint_auth_method": "none",
}
SETTINGS = {
    "PYLON_OIDC_KEYS": "managed",
    "PYLON_KEY_ENCRYPTION_KEY": "3q2+7wABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhs=",
    "PYLON_JWT_ALG": "RS256",
    "PYLON_JWT_AUDIENCE": "api",
    "PYLON_ADMIN_TOKEN": ADMIN,
    "PYLON_OIDC_ISSUER": "https://id.example.com",
    "PYLON_LOGIN_URL": "https://app.example.com/sign-in",
    "PYLON_OIDC_CLIENTS": json.dumps([CLIENT]),
}


def _copy(source: str, target: str, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "service", "store", "copy", "--from", source, "--to", target, *options],
        cwd=PROJECT, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _copied(source: str, target: str, *options: str) -> tuple[int, str, str]:
    """Run the command in this process: how it ended, and what it printed."""
    done = CliRunner().invoke(main, ["store", "copy", "--from", source, "--to", target, *options])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def _fill(url: str) -> None:
    """Sessions and grants, and a record of every other kind."""
    with closing(open_url(url)) as store:
        far, odd = NOW + 10_000_000, bytes(range(256))
        for first in range(0, SESSIONS, 1000):
            some = range(first, first + 1000)
            store.put(*(record(f"s{n}", expires_at=far, body={"n": n, "é": "\0'"}) for n in some), now=NOW)
        for first in range(0, GRANTS, 500):
            some = range(first, min(first + 500, GRANTS))
            store.put(
                *(record(f"g{n}", kind=Kind.GRANT, expires_at=far, tokens=odd[n % 256 :]) for n in some),
                now=NOW,
            )
        for kind in set(Kind) - {Kind.SESSION, Kind.KEY_RING, Kind.CLIENT}:
            about = {"subject": "alice", "session_id": "s", "client_id": "c", "grant_id": "g"}
            own = {"outlives_session": True} if kind is Kind.GRANT else {}
            store.put(record("one", kind=kind, expires_at=NEVER, **about, **own), now=NOW)


@pytest.fixture(params=["sqlite to postgres", "postgres to sqlite"])
def urls(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A database with its schema, and an empty one of the other kind."""
    source, target = request.param.split(" to ")
    with migrated_database(request, source) as (url, _):
        yield url, request.getfixturevalue(f"{target}_url")


def test_a_copy_that_was_killed_goes_on_and_serves(urls: tuple[str, str]) -> None:
    """Both ways: nothing works on half of it; the same command continues; keys, sessions and grants are the same."""
    source, target = urls
    _fill(source)
    with Gunicorn(DATABASE_URL=source, **SETTINGS) as server:
        keys = server.call("GET", "/oidc/jwks").body
        token = server.sign_in("ada")
        tokens = _granted(server, token)

    process = _copy(source, target)
    assert process.stderr is not None
    for line in process.stderr:  # in the middle of the largest table, or behind it
        if line.startswith("session: "):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with closing(open_url(target)) as store:
        assert store.schema_state() == "copying"
    checked = subprocess.run(
        [sys.executable, "-m", "service", "check"], cwd=PROJECT, text=True, capture_output=True, check=False,
        env=clean_environment(DATABASE_URL=target, **SETTINGS),
    )  # fmt: skip
    assert checked.returncode == 2
    assert "DATABASE_URL: a copy into the database is not finished; run the same" in checked.stderr

    code, out, errors = _copied(source, target, "--json")
    assert (code, errors.count("Traceback")) == (0, 0), errors
    tables = {each["table"]: each["records"] for each in json.loads(out)["tables"]}
    assert set(tables) == {table.name for table in TABLES.values()}
    assert tables["session"] == SESSIONS + 1 and tables["oauth_grant"] == GRANTS + 2
    assert min(count for table, count in tables.items() if table != "client") >= 1

    with Gunicorn(DATABASE_URL=target, **SETTINGS) as server:
        assert server.call("GET", "/oidc/jwks").body == keys
        assert server.mint(token).status == 200
        assert server.call("GET", "/readyz").status == 200
        bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
        assert server.call("GET", "/oidc/userinfo", headers=bearer).json()["sub"] == "ada"
        refreshed = _redeemed(server, grant_type="refresh_token", refresh_token=tokens["refresh_token"])
        assert refreshed["refresh_token"] != tokens["refresh_token"]


def _granted(server: Gunicorn, session_token: str) -> dict[str, str]:
    """What a client gets for a signed-in user."""
    verifier = "v" * 43
    asked = {
        "client_id": "c",
        "response_type": "code",
        "redirect_uri": CLIENT["redirect_uris"][0],
        "scope": "openid offline_access",
        "code_challenge": challenge_of(verifier),
        "code_challenge_method": "S256",
    }
    cookie = {"Cookie": f"pylon_session={session_token}"}
    answer = server.call("GET", f"/oidc/authorize?{urlencode(asked)}", headers=cookie)
    code = query_of(answer.headers["Location"])["code"]
    return _redeemed(
        server,
        grant_type="authorization_code",
        code=code,
        redirect_uri=asked["redirect_uri"],
        code_verifier=verifier,
    )


def _redeemed(server: Gunicorn, **form: str) -> dict[str, str]:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = server.call("POST", "/oidc/token", headers=headers, body=urlencode({"client_id": "c", **form}))
    assert answer.status == 200, answer
    tokens: dict[str, str] = answer.json()
    return tokens


def test_a_schema_with_any_name_is_copied(tmp_path: Path, postgres_cluster: PostgresCluster) -> None:
    """The names of schemas are free: a per cent sign is not a parameter."""
    postgres_cluster.start()
    role = postgres_cluster.create_role(search_path="100% ours")
    url = role.url(postgres_cluster.create_database(owner=role.name))
    with psycopg.connect(url) as admin:
        admin.execute('CREATE SCHEMA "100% ours"')
    copy, back = f"sqlite:///{tmp_path}/copy.db", f"sqlite:///{tmp_path}/back.db"
    migrate(copy)
    with closing(open_url(copy)) as store:
        store.put(record("one"), now=NOW)
    for source, target in ((copy, url), (url, back)):
        assert _copied(source, target)[0] == 0
    with closing(open_url(back)) as store:
        assert store.get(Kind.SESSION, record("one").id_hash, now=NOW) == record("one")


def test_a_target_that_is_not_empty_is_refused(urls: tuple[str, str]) -> None:
    """Nothing is copied over what is there, nor into the database itself; a source that is not there is an error."""
    source, target = urls
    for url in (source, target):
        with closing(open_url(url)) as store:
            store.migrate()
            LocalSessions(store, lifetime_s=60).create(SignIn(url[:3]), now=NOW)
    for to in (target, source):
        code, _, errors = _copied(source, to)
        assert code == 1
        assert errors == "The target is not empty: session has 1 records. Give an empty database.\n"
        with closing(open_url(to)) as store:
            assert store.schema_state() == "current"
            assert len(store.list(Kind.SESSION, subject=to[:3], now=NOW)) == 1
    code, _, errors = _copied(source, "postgresql://u:canary/7@h/n")
    assert code == 2 and "%2F for /" in errors and "canary" not in errors


def test_what_changed_in_between_is_found(urls: tuple[str, str]) -> None:
    """A copy that continued from a source that had been replaced is not taken for it."""
    source, target = urls
    with closing(open_url(source)) as store, closing(open_url(target)) as other:
        store.put(*(record(f"s{n}") for n in range(10)), now=NOW)
        assert _copied(source, target)[0] == 0
        other.close()
        _set_under_way(target)
        store.replace(Kind.SESSION, record("s3").id_hash, record("s3", subject="changed"), now=NOW)
        code, _, errors = _copied(source, target)
        assert code == 1
        assert "session differs: 10 records in the source, 10 in the target. The source has changed" in errors
        assert other.schema_state() == "copying"


def _set_under_way(url: str) -> None:
    import sqlite3

    change = "UPDATE alembic_version SET version_num = 'copying-' || version_num"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(sqlite_path(url), isolation_level=None)) as connection:
            connection.execute(change)
    else:
        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute(change)
