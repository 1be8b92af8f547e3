"""Real servers whose keys live in the database: cold starts, outages, faults, and moving there and back (docs/keys.md)."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import pytest

from service.keys.material import load_private_key
from service.keys.ring import KeyRecords, Ring
from service.keys.rotation import imported
from service.keys.sealing import SealingKeys
from service.keys.store import RingStore
from tests.flows.polling import wait_until
from tests.flows.rotating import MARGINS
from tests.flows.test_js_clients import verify
from tests.flows.test_rotation import rotate
from tests.storage.outages import Outage, migrated_database
from tests.storage.stores import migrate, open_url
from tests.support.gunicorn import ADMIN, Gunicorn, rsa_pem, start_expecting_failure
from tests.support.postgres import PostgresCluster

REPLICAS = 4
SEALING = bytes(range(32))
SETTINGS: dict[str, Any] = {
    "PYLON_ADMIN_TOKEN": ADMIN,
    "PYLON_OIDC_ISSUER": "https://id.example.com",
    "PYLON_OIDC_KEYS": "managed",
    "PYLON_KEY_ENCRYPTION_KEY": base64.b64encode(SEALING).decode(),
    "PYLON_OIDC_ALGS": "ES256",
    "PYLON_JWT_ALG": "ES256",
}
JWKS, READY = "/oidc/jwks", "/readyz"


def kids(server: Gunicorn) -> list[str]:
    """Of the published keys."""
    return [key["kid"] for key in server.call("GET", JWKS).json()["keys"]]


def minted(server: Gunicorn, session: str) -> str:
    """A token."""
    answer = server.mint(session)
    assert answer.status == 200, answer
    return str(answer.json()["token"])


def kid_of(token: str) -> str:
    """What the token calls its key."""
    return str(jwt.get_unverified_header(token)["kid"])


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_cold_replicas_are_one_service(
    request: pytest.FixtureRequest, gunicorn: Callable[..., Gunicorn], tmp_path: Path, kind: str
) -> None:
    """docs/security.md: replicas that start at once on an empty database publish the same two keys and sign by the same one."""
    where = {"PYLON_DATA_DIR": str(tmp_path / "data")}
    if kind == "postgres":
        where = {"DATABASE_URL": request.getfixturevalue("postgres_url")}
        migrate(where["DATABASE_URL"])
    with ThreadPoolExecutor(REPLICAS) as threads:
        begun = [threads.submit(gunicorn, WEB_CONCURRENCY="1", **SETTINGS, **where) for _ in range(REPLICAS)]
        replicas = [each.result() for each in begun]
    (document,) = {replica.call("GET", JWKS).body for replica in replicas}
    assert document.count(b'"kid"') == 2
    session = replicas[0].sign_in()
    assert {kid_of(minted(replica, session)) for replica in replicas} == {kids(replicas[0])[0]}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Iterator[tuple[str, Callable[[], Outage]]]:
    """The URL of a migrated database, and what takes it away while its context lasts."""
    with migrated_database(request) as made:
        yield made


def test_the_key_set_is_served_without_the_database(database: tuple[str, Callable[[], Outage]]) -> None:
    """docs/keys.md: while the store cannot be reached the loaded ring is still served; all heals by itself."""
    url, outage = database
    with Gunicorn(DATABASE_URL=url, **SETTINGS) as server:
        before, session = server.call("GET", JWKS), server.sign_in()
        with outage():
            answers = [server.call("GET", JWKS) for _ in range(6)]
            assert [(answer.status, answer.body) for answer in answers] == [(200, before.body)] * 6
            assert server.mint(session).status == 503
        wait_until(lambda: server.call("GET", READY).status == 200)
        wait_until(lambda: server.mint(session).status == 200)


def test_a_server_that_starts_without_its_database_finds_the_ring_when_it_is_there(
    gunicorn: Callable[..., Gunicorn], postgres_url: str, postgres_cluster: PostgresCluster
) -> None:
    """docs/databases.md: a PostgreSQL that cannot be reached at start is a warning and 503 in `readyz`; keys come with it."""
    migrate(postgres_url)
    postgres_cluster.stop("fast")
    try:
        server = gunicorn(DATABASE_URL=postgres_url, **SETTINGS)
        ready = server.call("GET", READY)
        assert (ready.status, ready.json()["keys"]) == (503, "unavailable")
        assert server.call("GET", JWKS).json()["error"]["code"] == "STORE_UNAVAILABLE"
    finally:
        postgres_cluster.start()
    wait_until(lambda: server.call("GET", READY).status == 200)
    assert len(kids(server)) == 2
    assert kid_of(minted(server, server.sign_in())) == kids(server)[0]


def test_a_wrong_encryption_key_does_not_start(gunicorn: Callable[..., Gunicorn], tmp_path: Path) -> None:
    """docs/settings.md: it exits before it binds, with the fault on a line, and no secret in it."""
    data = {"PYLON_DATA_DIR": str(tmp_path / "data")}
    gunicorn(**SETTINGS, **data).stop()
    other = base64.b64encode(bytes(range(32, 64))).decode()
    code, output = start_expecting_failure(**SETTINGS | data | {"PYLON_KEY_ENCRYPTION_KEY": other})
    assert code != 0
    (line,) = [line for line in output.splitlines() if line.startswith("PYLON_KEY_ENCRYPTION_KEY: ")]
    assert "was written under the key" in line and other not in output


@pytest.mark.parametrize("alg", ["PS256", "ES256", "Ed25519"])
def test_jose_verifies_each_algorithm(gunicorn: Callable[..., Gunicorn], alg: str) -> None:
    """docs/keys.md: what is minted by each algorithm is verified by npm's `jose`, by the kid, from the key set."""
    given = SETTINGS | {"PYLON_OIDC_ISSUER": "http://localhost:{port}", "PYLON_JWT_AUDIENCE": "api"}
    server = gunicorn(**given | {"PYLON_OIDC_ALGS": "PS256,ES256,Ed25519", "PYLON_JWT_ALG": alg})
    token = minted(server, server.sign_in("alice"))
    code, verified = verify(server.origin, "api", token)
    assert code == 0, verified
    assert (verified["protectedHeader"]["alg"], verified["payload"]["sub"]) == (alg, "alice")
    head, _, signature = token.rpartition(".")
    changed = f"{head}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
    assert verify(server.origin, "api", changed) == (1, "ERR_JWS_SIGNATURE_VERIFICATION_FAILED")


def test_moving_to_the_ring_and_back_keeps_every_token_good(
    gunicorn: Callable[..., Gunicorn], tmp_path: Path
) -> None:
    """docs/keys.md: from `PYLON_OIDC_KEY_PATH` to the ring and back to a key file, without an outage: whatever was signed
    before a move is verified by the key set after it.
    """
    first, last = tmp_path / "first.pem", tmp_path / "last.pem"
    for path, number in ((first, 0), (last, 1)):
        path.write_text(rsa_pem(number=number) if number else rsa_pem())
        path.chmod(0o600)
    rs256: dict[str, Any] = SETTINGS | {"PYLON_OIDC_ALGS": "RS256", "PYLON_JWT_ALG": "RS256"}
    data = {"PYLON_DATA_DIR": str(tmp_path / "data"), "PYLON_JWT_LIFETIME_SECS": "3"}
    alone: dict[str, Any] = {
        name: value
        for name, value in rs256.items()
        if name not in {"PYLON_OIDC_KEYS", "PYLON_KEY_ENCRYPTION_KEY"}
    }

    server = gunicorn(**alone | data, PYLON_OIDC_KEY_PATH=str(first))
    session, old = server.sign_in(), kids(server)
    token = minted(server, session)
    server.stop()

    server = gunicorn(app="tests.flows.rotating:make()", **rs256 | data, PYLON_OIDC_KEY_PATH=str(first))
    assert kid_of(token) in kids(server)
    assert [kid_of(minted(server, session))] == old
    server.stop()

    server = gunicorn(app="tests.flows.rotating:make()", **rs256 | data)
    assert [kid_of(minted(server, session))] == old
    store = open_url(f"sqlite:///{tmp_path / 'data' / 'pylon.db'}")
    rings = RingStore(store, SealingKeys((SEALING,)))
    name = load_private_key(last.read_text()).thumbprint()

    def step(ring: Ring) -> KeyRecords:
        record = rings.record(load_private_key(last.read_text()), "RS256", name, ring.database_id)
        return imported(ring.keys, record, int(time.time()), MARGINS, as_next=True)

    rings.ensure(MARGINS, now=int(time.time()), step=step)
    rotate(rings, MARGINS, "RS256")
    store.close()
    wait_until(lambda: kid_of(minted(server, session)) == name)
    wait_until(lambda: old[0] not in kids(server))
    token = minted(server, session)
    server.stop()

    server = gunicorn(**alone | data, PYLON_OIDC_KEY_PATH=str(last))
    assert kids(server) == [kid_of(token)] == [kid_of(minted(server, session))]
