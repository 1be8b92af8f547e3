"""The upgrade from a version that authenticated no ring of keys: the migration does so once (docs/upgrade.md)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from service.cli import main
from service.keys.material import generate_key, public_jwk
from service.keys.ring import Ring, role
from service.keys.sealing import NotAuthentic
from service.keys.store import RingStore
from service.startup import Prepared, prepare
from service.storage.sql import SqlStore
from tests.storage.ring_racers import ALGS, ONE, TWO, M, rings_in
from tests.storage.stores import NOW, engine_of, migrated_to, sqlite_path
from tests.storage.test_schema import _set_revision

Body = dict[str, Any]


def _environ(url: str, secret: bytes | None = ONE) -> dict[str, str]:
    environ = {"DATABASE_URL": url, "PYLON_OIDC_KEYS": "managed", "PYLON_OIDC_ALGS": ",".join(ALGS)}
    environ |= {
        "PYLON_OIDC_ISSUER": "https://id.example.com",
        "PYLON_ADMIN_TOKEN": "rlHzDmcL1s9yXg1Kb8cJ7o0wq5n3Tt2EuV",
    }
    if secret is not None:
        environ["PYLON_KEY_ENCRYPTION_KEY"] = base64.b64encode(secret).decode()
    return environ


def _rewrite(url: str, change: Callable[[Body], None]) -> None:
    """Change the document in the database as somebody does who has no encryption key: a MAC they cannot make."""
    engine = engine_of(url)
    with engine.begin() as connection:
        for id_hash, written in connection.execute(text("SELECT id_hash, body FROM key_ring")).fetchall():
            body = json.loads(written)
            if "keys" in body:
                body.pop("macs", None)
                change(body)
                connection.execute(
                    text("UPDATE key_ring SET body = :body WHERE id_hash = :id_hash"),
                    {"body": json.dumps(body), "id_hash": id_hash},
                )
    engine.dispose()


def _as_before(body: Body) -> None:
    """The document as a version before MACs wrote it."""


def _with_a_key_of_their_own(body: Body) -> None:
    jwk = public_jwk(generate_key("ES256"), kid="theirs", alg="ES256")
    body["keys"].append({**body["keys"][0], "kid": "theirs", "jwk": jwk})


def _with_a_key_that_is_gone(body: Body) -> None:
    _with_a_key_of_their_own(body)
    body["keys"][-1] |= {"sealed": None, "retires_at": 1, "gone_at": 2}


@pytest.fixture
def rings(unmigrated_store: SqlStore, empty_database_url: str) -> RingStore:
    """The ring of a database of revision 0004."""
    migrated_to(empty_database_url, "0004")
    rings = rings_in(unmigrated_store, ONE)
    rings.ensure(M, now=NOW)
    return rings


def _found(rings: RingStore) -> Ring:
    ring = rings.look(now=NOW)[0]
    assert ring is not None
    return ring


def _migrate(url: str, secret: bytes | None = ONE) -> str:
    done = CliRunner().invoke(main, ["migrate"], env=_environ(url, secret))
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_the_migration_authenticates_the_ring_once(rings: RingStore, empty_database_url: str) -> None:
    """Every key stays as it is, and what reads the ring afterwards takes it; a second migration does nothing."""
    _rewrite(empty_database_url, _as_before)
    before = _found(rings)
    with pytest.raises(NotAuthentic):
        rings.load(now=NOW)
    assert "authenticated the ring of keys" in _migrate(empty_database_url)
    after = rings.load(now=NOW)
    assert after is not None
    assert (after.keys, after.version, after.database_id) == (
        before.keys,
        before.version + 1,
        before.database_id,
    )
    assert "authenticated" not in _migrate(empty_database_url)
    assert rings.load(now=NOW) == after


def test_a_start_that_migrates_authenticates_it_too(rings: RingStore, empty_database_url: str) -> None:
    """SQLite is migrated by the start: it keeps the keys, serves by them, and says what it did."""
    if not empty_database_url.startswith("sqlite"):
        return
    _rewrite(empty_database_url, _as_before)
    kids = {key.kid for key in _found(rings).keys}

    def start() -> Prepared:
        environ = {
            **_environ(empty_database_url),
            "PYLON_DATA_DIR": str(sqlite_path(empty_database_url).parent),
        }
        prepared = prepare(environ, clock=lambda: NOW)
        prepared.store.close()
        return prepared

    first = start()
    assert {key.kid for key in first.keyring.published} == kids
    assert any("authenticated the ring of keys" in warning for warning in first.warnings)
    assert not any("authenticated" in warning for warning in start().warnings)


def test_what_does_not_prove_itself_is_left_to_the_operator(
    rings: RingStore, empty_database_url: str
) -> None:
    """A key that somebody put in, no encryption key, another one: the schema is migrated, and the ring is refused."""
    _rewrite(empty_database_url, _with_a_key_of_their_own)
    written = _found(rings)
    assert "keys reseal --repair" in _migrate(empty_database_url)
    assert _found(rings) == written
    with pytest.raises(NotAuthentic):
        rings.load(now=NOW)


@pytest.mark.parametrize("secret", [None, TWO], ids=["no encryption key", "another one"])
def test_without_the_encryption_key_nothing_is_authenticated(
    rings: RingStore, empty_database_url: str, secret: bytes | None
) -> None:
    """The process that migrates must have the key that sealed."""
    _rewrite(empty_database_url, _as_before)
    written = _found(rings)
    assert "could not authenticate" in _migrate(empty_database_url, secret)
    assert _found(rings) == written
    with pytest.raises(NotAuthentic):
        rings.load(now=NOW)


def test_a_key_that_is_gone_proves_nothing_afterwards(rings: RingStore, empty_database_url: str) -> None:
    """One without a private part could be anybody's: what it signed counts as a hint no more."""
    _rewrite(empty_database_url, _with_a_key_that_is_gone)
    _migrate(empty_database_url)
    ring = rings.load(now=NOW)
    assert ring is not None
    (theirs,) = [key for key in ring.keys if key.kid == "theirs"]
    assert (role(theirs, NOW), theirs.revoked_at is not None) == ("gone", True)


def test_a_ring_with_a_wrong_mac_is_not_taken(rings: RingStore, empty_database_url: str) -> None:
    """A ring that has MACs was written by a version that makes them: it is not an older one."""
    _rewrite(empty_database_url, lambda body: body.update(macs={rings.sealing.names[0]: "00" * 32}))
    assert "could not authenticate" in _migrate(empty_database_url)
    with pytest.raises(NotAuthentic):
        rings.load(now=NOW)


def test_who_can_write_the_database_cannot_have_a_ring_authenticated(
    rings: RingStore, empty_database_url: str
) -> None:
    """On the schema of now the MACs are dropped: no migration takes that ring, nor where the revision is set back."""
    _migrate(empty_database_url)
    _rewrite(empty_database_url, _as_before)
    assert "authenticated" not in _migrate(empty_database_url)
    with pytest.raises(NotAuthentic):
        rings.load(now=NOW)
    _set_revision(empty_database_url, "0004")
    done = CliRunner().invoke(main, ["migrate"], env=_environ(empty_database_url))
    assert done.exit_code != 0  # the tables are there already
    with pytest.raises(NotAuthentic):
        rings.load(now=NOW)
    if empty_database_url.startswith("sqlite"):
        with pytest.raises(Exception, match="already exists"):
            prepare(_environ(empty_database_url), clock=lambda: NOW)
        with pytest.raises(NotAuthentic):
            rings.load(now=NOW)
