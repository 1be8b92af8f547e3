"""docs/keys.md, docs/endpoints.md: keys of a ring behind the application: JWKS, minting, looking again, and an outage."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest

from service.app import get_app
from service.handles import hash_handle
from service.keys.material import load_private_key
from service.keys.memory import RingMemory
from service.keys.ring import DAY_S, KeyRecords, Margins, Ring
from service.keys.rotation import imported, revoked, rotated
from service.keys.running import ManagedKeys
from service.keys.sealing import SealingKeys
from service.keys.signing import InvalidToken, Keyring
from service.keys.starting import load_managed_keys
from service.keys.store import RingStore
from service.storage.interface import Kind, Record, StoreUnavailable
from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase
from tests.http.conftest import Serve
from tests.http.driver import START, Clock, House
from tests.support.cases import each_of
from tests.support.databases import make_migrated
from tests.support.gunicorn import SECRET, rsa_pem
from tests.support.statements import at_once, stopped

JWKS, READY = "/oidc/jwks", "/readyz"
SEALING = bytes(range(32))
B64_SEALING = base64.b64encode(SEALING).decode()
MANAGED = {
    "PYLON_OIDC_KEYS": "managed",
    "PYLON_KEY_ENCRYPTION_KEY": B64_SEALING,
    "PYLON_OIDC_ALGS": "ES256,Ed25519",
}
MINTING = MANAGED | {"PYLON_JWT_ALG": "ES256"}
M = Margins()
ANY_TIME: Any = {"verify_iat": False, "verify_exp": False}


@pytest.fixture
def house(serve: Serve) -> House:
    """An application that mints by a managed key."""
    return serve(**MINTING)


@pytest.fixture
def rings(house: House) -> Iterator[RingStore]:
    """What the command line of another machine does to its ring."""
    store = SqlStore(SqliteDatabase(Path(house.settings.data_dir) / "pylon.db"))
    yield RingStore(store, SealingKeys((SEALING,)), ["ES256", "Ed25519"])
    store.close()


def keys_of(house: House) -> list[dict[str, str]]:
    """The published keys."""
    shown: list[dict[str, str]] = house.ask("GET", JWKS).json()["keys"]
    return shown


def minted(house: House, token: str) -> tuple[str, str]:
    """A token, and the kid in its header."""
    answer = house.ask("POST", "/api/auth/jwt", token=token)
    assert answer.status == 200, answer
    made = answer.json()["token"]
    return made, pyjwt.get_unverified_header(made)["kid"]


def rotate(house: House, rings: RingStore, alg: str = "ES256") -> Ring:
    """By hand, elsewhere."""
    now = int(house.clock.now)
    return rings.ensure(M, now=now, step=lambda ring: rotated(ring.keys, alg, now, M))


# --- what is published ---


def test_two_keys_of_each_algorithm_are_published(house: House) -> None:
    """One signs, and there always is a next; docs/endpoints.md: kid is the thumbprint, only public members (RFC 7517 §9.2)."""
    keys = keys_of(house)
    assert [(key["alg"], key["kty"]) for key in keys] == [("ES256", "EC")] * 2 + [("Ed25519", "OKP")] * 2
    assert len({key["kid"] for key in keys}) == 4
    for key in keys:
        members = {"kty", "use", "alg", "kid", "crv", "x"} | ({"y"} if key["kty"] == "EC" else set())
        assert set(key) == members


def test_the_algorithms_are_those_of_the_published_keys(serve: Serve) -> None:
    """docs/endpoints.md: RS256 first whenever an RSA key is there."""
    told = serve(**MANAGED | {"PYLON_OIDC_ALGS": "Ed25519,PS256,RS256"}).ask(
        "GET", "/.well-known/openid-configuration"
    )
    assert told.json()["id_token_signing_alg_values_supported"] == ["RS256", "PS256", "Ed25519"]


@each_of("alg", ["RS256", "PS256", "ES256"])
def test_a_minted_token_is_verified_by_the_published_key(serve: Serve, alg: str) -> None:
    """docs/settings.md: `PYLON_JWT_ALG`, by each algorithm that PyJWT knows too."""
    house = serve(**MANAGED | {"PYLON_OIDC_ALGS": alg, "PYLON_JWT_ALG": alg})
    token, kid = minted(house, house.sign_in()["token"])
    key = pyjwt.PyJWKSet.from_dict({"keys": keys_of(house)})[kid]
    assert pyjwt.decode(token, key, algorithms=[alg], options=ANY_TIME)["sub"] == "user-1"


def test_hs256_is_minted_beside_a_ring(serve: Serve) -> None:
    """docs/settings.md: minted tokens and ID tokens are apart."""
    house = serve(**MANAGED)
    token = house.ask("POST", "/api/auth/jwt", token=house.sign_in()["token"]).json()["token"]
    assert pyjwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    assert pyjwt.decode(token, SECRET, algorithms=["HS256"], options=ANY_TIME)


def test_the_key_of_the_environment_signs_by_ps256_too(serve: Serve) -> None:
    """docs/settings.md: `PYLON_JWT_ALG=PS256` with an RSA key: a JWK is for one algorithm, so the key has two names."""
    house = serve(PYLON_OIDC_PRIVATE_KEY=rsa_pem(), PYLON_JWT_ALG="PS256")
    token, kid = minted(house, house.sign_in()["token"])
    keys = {key["kid"]: key for key in keys_of(house)}
    assert [key["alg"] for key in keys.values()] == ["RS256", "PS256"]
    assert pyjwt.decode(token, pyjwt.PyJWK(keys[kid]), algorithms=["PS256"], options=ANY_TIME)


def test_a_published_key_of_the_environment_is_there_too(serve: Serve) -> None:
    """docs/settings.md: publish-only, for an app that signs elsewhere; next to a ring under its name."""
    numbers = load_private_key(rsa_pem()).as_dict(private=False)
    house = serve(**MINTING, PYLON_OIDC_JWKS_RSA_N=str(numbers["n"]))
    assert [key["kid"] for key in keys_of(house)][-1] == "pylon-default"


# --- time ---


def test_nothing_changes_for_a_verifier_over_a_year(house: House) -> None:
    """Whatever signs was in the set ten minutes before, and is there until its tokens have ended."""
    sets: list[tuple[float, set[str]]] = []
    tokens: list[tuple[float, str]] = []
    seen = set()
    for _ in range(100):
        house.clock.advance(4 * DAY_S)
        session = house.sign_in()["token"]
        sets.append((house.clock.now, {key["kid"] for key in keys_of(house)}))
        tokens.append((house.clock.now, minted(house, session)[1]))
        seen.add(tokens[-1][1])
        # A moment later, when all that is cached is as old as it may be.
        house.clock.advance(600)
        assert minted(house, session)[1] in sets[-1][1]
        house.clock.advance(M.longest_token_s - 600)
        assert tokens[-1][1] in {key["kid"] for key in keys_of(house)}
    assert len(seen) >= 4


def test_a_rotation_is_followed_by_a_worker_that_has_not_read_it(house: House, rings: RingStore) -> None:
    """All change on the same second, and each learns of it within 60 s."""
    session = house.sign_in()["token"]
    house.clock.advance(1000)
    _, before = minted(house, session)
    rotate(house, rings)
    house.clock.advance(59)
    assert minted(house, session)[1] == before
    house.clock.advance(1)
    _, after = minted(house, session)
    assert after != before
    assert {before, after} <= {key["kid"] for key in keys_of(house)}
    assert [line["role"] for line in house.lines if line["event"] == "key_changed"].count("active") == 1


def test_a_revoked_key_leaves_the_set_within_60_seconds(house: House, rings: RingStore) -> None:
    """`revoke` takes a key out of our JWKS within 60 s."""
    kid = keys_of(house)[0]["kid"]
    now = int(house.clock.now)
    rings.ensure(M, now=now, step=lambda ring: revoked(ring.keys, kid, now, M))
    house.clock.advance(60)
    assert kid not in {key["kid"] for key in keys_of(house)}
    assert minted(house, house.sign_in()["token"])[1] != kid


def test_the_set_is_promised_no_longer_than_it_holds(house: House, rings: RingStore) -> None:
    """docs/endpoints.md: max-age 300; never longer than the next change allows."""

    def cached() -> str:
        return house.ask("GET", JWKS).headers["Cache-Control"]

    assert cached() == "public, max-age=300"
    house.clock.advance(1000)
    (gone_at,) = {
        key.gone_at for key in rotate(house, rings).keys if key.gone_at and key.gone_at < START + DAY_S
    }
    house.clock.advance(55)  # the worker has seen it: in five seconds the next key signs
    cached()
    assert cached() == "public, max-age=5"
    house.clock.advance(5)
    assert cached() == "public, max-age=300"
    house.clock.now = gone_at - 301
    assert cached() == "public, max-age=300"
    house.clock.now = gone_at - 120
    assert cached() == "public, max-age=120"
    house.clock.now = gone_at - 1
    assert cached() == "public, max-age=1"
    house.clock.now = gone_at
    assert cached() == "public, max-age=300"


def test_the_prepared_bytes_are_made_anew_only_at_a_change(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is serialised in a request but after a change."""
    made = []
    shown = Keyring.jwks
    monkeypatch.setattr(Keyring, "jwks", lambda self: made.append(1) or shown(self))
    for _ in range(50):
        keys_of(house)
        house.clock.advance(20)
    assert len(made) == 1


# --- looking ---


class _Counting:
    """A store that counts who asks for the ring."""

    def __init__(self, store: Any) -> None:
        self.store, self.looks, self.away = store, 0, False

    def list(self, kind: Kind, **wanted: Any) -> Any:
        """Counted."""
        if kind is Kind.KEY_RING:
            self.looks += 1
            if self.away:
                raise StoreUnavailable
        return self.store.list(kind, **wanted)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def test_no_request_asks_for_keys(serve: Serve) -> None:
    """Without a query per request: 300 requests in the time of one look, none of them asks."""
    counted: list[_Counting] = []

    def store_of(store: Any) -> Any:
        counted.append(_Counting(store))
        return counted[0]

    house = serve(store_of=store_of, **MINTING)
    token = house.sign_in()["token"]
    before = counted[0].looks
    for _ in range(100):
        minted(house, token)
        keys_of(house)
        house.ask("GET", "/.well-known/openid-configuration")
        house.clock.advance(0.1)
    assert counted[0].looks == before


@dataclasses.dataclass
class Worker:
    """The keys of one worker, with a clock, a store that may be away, and what it does outside its requests."""

    clock: Clock
    store: _Counting
    rings: RingStore
    keys: ManagedKeys
    beside: list[Callable[[], None]]

    def do_beside(self) -> None:
        """What it would do in its thread."""
        while self.beside:
            self.beside.pop(0)()

    def kid(self) -> str:
        """What it signs by."""
        return self.keys.to_sign("ES256").signing["ES256"].kid


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """A worker whose ring is there."""
    path = tmp_path / "ring.db"
    make_migrated(path)
    real = SqlStore(SqliteDatabase(path))
    store, clock, beside = _Counting(real), Clock(), []
    rings = RingStore(store, SealingKeys((SEALING,)), ["ES256"])
    keys = ManagedKeys(rings, M, clock, Keyring("ES256"), beside=beside.append)
    rings.ensure(M, now=START)
    keys.load()
    yield Worker(clock, store, rings, keys, beside)
    real.close()


def test_a_busy_worker_looks_beside_its_requests(worker: Worker) -> None:
    """Within 60 s, off the hot path: what is 15 s old is looked at again, and no request waits for that."""
    looks = worker.store.looks
    for _ in range(60):
        worker.clock.advance(1)
        worker.kid()
        assert worker.store.looks == looks
        if worker.beside:
            worker.do_beside()
            looks += 1
    assert looks - 2 in {3, 4}


def test_a_look_that_takes_long_is_not_made_twice(worker: Worker) -> None:
    """While one is under way no other begins, until the ring is so old that a request has to."""
    worker.clock.advance(16)
    for _ in range(5):
        worker.kid()
        worker.clock.advance(1)
    assert len(worker.beside) == 1


def test_a_worker_that_slept_looks_first(worker: Worker) -> None:
    """Within 60 s also where there were no requests."""
    now = START + 1000
    worker.rings.ensure(M, now=now, step=lambda ring: revoked(ring.keys, worker.kid(), now, M))
    worker.clock.now = now + 59
    (active,) = [key for key in worker.rings.load(now=now).keys if key.signs_from == now]
    assert worker.kid() == active.kid


@pytest.mark.parametrize("slept_s", [100, 1000])
def test_of_two_requests_that_wake_it_the_second_waits_for_the_look(worker: Worker, slept_s: int) -> None:
    """A request that comes while the first one looks signs with what that finds, and is not refused."""
    now = START + 2000
    worker.clock.now = now - slept_s
    worker.kid()
    worker.do_beside()
    worker.rings.ensure(M, now=now, step=lambda ring: revoked(ring.keys, worker.kid(), now, M))
    (active,) = [key for key in worker.rings.load(now=now).keys if key.signs_from == now]
    worker.clock.now = now
    second = at_once(worker.kid)

    def come_second() -> None:
        second.start()
        assert second.waits()

    with stopped(worker.store.store, before="SELECT", then=come_second):
        assert worker.kid() == active.kid
    assert second.result() == active.kid


def test_an_unknown_kid_makes_it_look_at_once(worker: Worker) -> None:
    """At once when it meets a kid that it does not know in a token of its own."""
    now = START + 3
    other = RingStore(worker.store, worker.rings.sealing, ["ES256", "Ed25519"])
    ring = other.ensure(M, now=now)
    (new,) = [key for key in ring.keys if key.alg == "Ed25519" and key.signs_from == now]
    signing = ManagedKeys(other, M, lambda: now, Keyring("Ed25519"))
    token = signing.to_sign("Ed25519").sign({"sub": "a"}, alg="Ed25519")
    worker.clock.now = now
    assert new.kid not in [key.kid for key in worker.keys.current().published]
    assert worker.keys.knowing(token).verify(token, alg="Ed25519") == {"sub": "a"}


def test_strangers_with_unknown_kids_do_not_make_it_look_at_each(worker: Worker) -> None:
    """Nobody multiplies queries by inventing kids; text that is not a token causes no query."""
    looks = worker.store.looks
    for number in range(50):
        head = base64.urlsafe_b64encode(json.dumps({"alg": "ES256", "kid": f"x{number}"}).encode()).decode()
        worker.keys.knowing(f"{head}.e30.x")
    for nonsense in ("", "...", "é.x.y", "eyJhbGciOiJFUzI1NiJ9.e30.x", "W10.e30.x", "A" * 10_000):
        worker.keys.knowing(nonsense)
    assert worker.store.looks == looks + 1


def test_the_next_key_is_made_beside_the_requests(worker: Worker) -> None:
    """A rotation costs requests nothing: no request makes a key."""
    worker.clock.now = START + M.rotation_s - M.ahead_s
    worker.kid()
    assert len(worker.keys.current().published) == 2
    worker.do_beside()
    assert len(worker.keys.current().published) == 3


def test_what_a_read_found_is_not_replaced_by_an_earlier_one(worker: Worker) -> None:
    """A thread that began first and was then held up does not make the ring look old, which would refuse requests."""
    worker.clock.now = START + M.rotation_s - M.ahead_s
    worker.kid()  # the next key is due
    other = at_once(worker.kid)
    began = iter([worker.clock.now])

    def held_up() -> float:
        """The time at which the thread began; then it stands still for long, and a request comes."""
        if threading.current_thread() is threading.main_thread() and (then := next(began, None)) is not None:
            worker.clock.advance(2 * (M.learn_s + M.slack_s))
            other.start()
            other.waits()
            return then
        return worker.clock()

    worker.keys._clock = held_up
    worker.beside[0]()
    other.result()
    assert worker.kid()


def test_nothing_runs_beside_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow a start is: a thread at the fork would leave its locks held permanently in each worker."""
    for name, value in MINTING.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYLON_DATA_DIR", str(tmp_path))
    begun: list[str] = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: begun.append(thread.name))
    slow = itertools.count(int(START), 7)
    get_app(clock=lambda: float(next(slow)))
    assert begun == []


# --- a store that is away ---


def test_the_ring_goes_on_by_the_clock_without_a_store(worker: Worker) -> None:
    """Store unreachable: the loaded ring is served as long as it is safe, changes by the clock included."""
    now = START + 1000
    worker.clock.now = now
    before = worker.kid()
    worker.rings.ensure(M, now=now, step=lambda ring: rotated(ring.keys, "ES256", now, M))
    worker.clock.now = now + 45
    assert worker.kid() == before
    worker.store.away = True
    worker.clock.now = now + 60
    assert worker.kid() != before
    worker.clock.now = now + 45 + M.learn_s + M.slack_s
    assert worker.kid() != before
    worker.clock.advance(1)
    with pytest.raises(StoreUnavailable):
        worker.keys.to_sign("ES256")
    assert len(worker.keys.current().published) == 3
    assert worker.keys.max_age_s() == 0
    worker.store.away = False
    worker.clock.advance(50)
    assert worker.kid() != before
    assert worker.keys.max_age_s() == 300


def test_a_clock_that_goes_back_makes_no_ring_younger(worker: Worker) -> None:
    """Without a store, nobody knows how old what a worker has is then: it signs no more until it has looked."""
    worker.store.away = True
    worker.clock.now = START - 3600
    with pytest.raises(StoreUnavailable):
        worker.keys.to_sign("ES256")
    worker.store.away = False
    worker.clock.advance(50)
    kid = worker.kid()
    worker.do_beside()
    assert (worker.kid(), len(worker.keys.current().published)) == (kid, 2)


def test_a_worker_that_never_saw_the_ring_has_no_keys(worker: Worker) -> None:
    """A PostgreSQL that cannot be reached at start: 503 until it can."""
    worker.store.away = True
    keys = ManagedKeys(worker.rings, M, worker.clock, Keyring("ES256"))
    for ask in (keys.current, lambda: keys.to_sign("ES256"), keys.max_age_s, keys.status):
        with pytest.raises(StoreUnavailable):
            ask()
    worker.store.away = False
    assert keys.to_sign("ES256").can_mint


def test_an_outage_asks_once_a_look_and_not_once_a_request(worker: Worker) -> None:
    """A request is not held up by a database that does not answer, while there are requests."""
    worker.store.away = True
    looks = worker.store.looks
    for _ in range(120):
        worker.clock.advance(0.5)
        worker.kid()
        worker.do_beside()
    assert worker.store.looks - looks <= 5


def test_a_key_that_cannot_be_opened_leaves_the_worker_with_what_it_has(worker: Worker) -> None:
    """A replica that lacks an encryption key continues, and says so; it takes no half of a ring."""
    other = RingStore(worker.store, SealingKeys((bytes(32), SEALING)), ["ES256"])
    now = START + 1000
    worker.clock.now = now
    before = worker.kid()
    other.ensure(M, now=now, step=lambda ring: rotated(ring.keys, "ES256", now, M))
    worker.clock.now = now + 50  # the one that signs, and its successor, it can open; not the one after it
    assert worker.kid() == before
    assert len(worker.keys.current().published) == 3
    later = now + M.lead_s
    other.ensure(M, now=later, step=lambda ring: rotated(ring.keys, "ES256", later, M))
    worker.clock.now = later + 50
    second = worker.kid()
    assert second != before
    worker.clock.now = later + 60
    with pytest.raises(StoreUnavailable):
        worker.kid()
    assert second in [key.kid for key in worker.keys.current().published]
    assert worker.keys.to_sign("HS256")  # which has nothing to do with the ring


# --- tokens that come back ---


def test_a_gone_key_recognises_hints_and_a_revoked_one_nothing(worker: Worker) -> None:
    """The public part of a gone key is kept to recognise logout hints; who stole a key forges none."""
    now = START + 1000
    hint = worker.keys.to_sign("ES256").sign({"at_hash": "x"}, alg="ES256")
    worker.rings.ensure(M, now=now, step=lambda ring: rotated(ring.keys, "ES256", now, M))
    worker.clock.now = now + DAY_S
    keyring = worker.keys.current()
    assert keyring.verify_hint(hint) == {"at_hash": "x"}
    with pytest.raises(InvalidToken):
        keyring.verify(hint, alg="ES256")
    later = int(worker.clock.now)
    second = worker.keys.to_sign("ES256").sign({"at_hash": "y"}, alg="ES256")
    worker.rings.ensure(M, now=later, step=lambda ring: revoked(ring.keys, worker.kid(), later, M))
    worker.clock.advance(60)
    with pytest.raises(InvalidToken):
        worker.keys.current().verify_hint(second)


def test_a_token_names_its_key_and_its_algorithm(worker: Worker) -> None:
    """RFC 8725 §3.1: the algorithm list is per key; a kid of another key, none, or another algorithm is refused."""
    keyring = worker.keys.to_sign("ES256")
    signing = keyring.signing["ES256"]
    stranger = dataclasses.replace(keyring, signing={"ES256": dataclasses.replace(signing, kid="other")})
    unnamed = pyjwt.encode(
        {"a": 1}, signing.key.as_pem(private=True), algorithm="ES256", headers={"typ": "JWT"}
    )
    for token in (stranger.sign({"a": 1}, alg="ES256"), unnamed):
        with pytest.raises(InvalidToken):
            keyring.verify(token, alg="ES256")
        with pytest.raises(InvalidToken):
            keyring.verify_hint(token)
    with pytest.raises(InvalidToken):
        keyring.verify(keyring.sign({"a": 1}, alg="ES256"), alg="Ed25519")


# --- moving ---


def test_the_key_of_the_environment_comes_into_the_ring_under_its_kid(serve: Serve) -> None:
    """Moving from one key to the ring keeps the old kid published: it still signs."""
    old = keys_of(serve(PYLON_OIDC_PRIVATE_KEY=rsa_pem()))
    house = serve(
        **MANAGED | {"PYLON_OIDC_ALGS": "RS256"}, PYLON_OIDC_PRIVATE_KEY=rsa_pem(), PYLON_JWT_ALG="RS256"
    )
    keys = keys_of(house)
    assert keys[0] == old[0]
    assert len(keys) == 2
    assert minted(house, house.sign_in()["token"])[1] == old[0]["kid"]


def test_a_key_of_the_environment_that_was_imported_is_not_there_twice(serve: Serve) -> None:
    """It keeps the name that it was imported by, although the setting has come to name it otherwise."""
    environ = MANAGED | {"PYLON_OIDC_ALGS": "RS256", "PYLON_OIDC_PRIVATE_KEY": rsa_pem()}
    house = serve(
        **environ, PYLON_OIDC_JWKS_RSA_N=str(load_private_key(rsa_pem()).as_dict(private=False)["n"])
    )
    assert keys_of(house)[0]["kid"] == "pylon-default"
    store = SqlStore(SqliteDatabase(Path(house.settings.data_dir) / "pylon.db"))
    settings = dataclasses.replace(house.settings, jwks_rsa_n=None)
    keys, _ = load_managed_keys(settings, store, M, house.clock)
    assert [key.kid for key in keys.current().published] == [key["kid"] for key in keys_of(house)]
    store.close()


def test_a_key_that_signed_by_ps256_too_comes_into_the_ring_under_both_names(serve: Serve) -> None:
    """Moving keeps what was minted good: by PS256 the key of the environment has a kid of its own."""
    given = {"PYLON_OIDC_PRIVATE_KEY": rsa_pem(), "PYLON_JWT_ALG": "PS256"}
    before = serve(**given)
    old = {key["kid"]: key for key in keys_of(before)}
    token, kid = minted(before, before.sign_in()["token"])
    house = serve(**given, **MANAGED | {"PYLON_OIDC_ALGS": "RS256,PS256"})
    keys = {key["kid"]: key for key in keys_of(house)}
    assert {name: keys[name] for name in old} == old
    assert minted(house, house.sign_in()["token"])[1] == kid
    assert pyjwt.decode(token, pyjwt.PyJWK(keys[kid]), algorithms=["PS256"], options=ANY_TIME)
    assert len(keys) == 4


def test_a_key_moves_into_the_ring_although_the_database_was_away_at_the_start(serve: Serve) -> None:
    """docs/cli.md: a database that cannot be reached at start is a warning: the move happens when it is there."""
    given = MINTING | {"PYLON_OIDC_ALGS": "RS256,ES256"}
    house = serve(**MINTING)  # only for its folder and settings
    store = _Counting(SqlStore(SqliteDatabase(Path(house.settings.data_dir) / "other.db")))
    store.store.migrate()
    settings = dataclasses.replace(
        house.settings,
        private_key=load_private_key(rsa_pem()),
        algs=tuple(given["PYLON_OIDC_ALGS"].split(",")),
    )
    store.away = True
    keys, _ = load_managed_keys(settings, store, M, house.clock)  # type: ignore[arg-type]
    store.away = False
    kid = load_private_key(rsa_pem()).thumbprint()
    assert keys.current().signing["RS256"].kid == kid
    assert len(keys.current().published) == 4
    store.store.close()


def test_a_wrong_encryption_key_that_no_start_could_find_changes_nothing(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database was away at the start: whose keys these are is not known, so none is published; the log says why."""
    other = RingStore(worker.store, SealingKeys((bytes(range(32, 64)),)), ["ES256", "Ed25519"])
    before = worker.rings.load(now=START)
    keys = ManagedKeys(other, M, worker.clock, Keyring("ES256"), beside=worker.beside.append)
    logged: list[str] = []
    monkeypatch.setattr("service.keys.running._log.error", lambda event, **_: logged.append(event))
    for use in (keys.current, lambda: keys.to_sign("ES256"), keys.status):
        with pytest.raises(StoreUnavailable):
            use()
    assert (keys.published, set(logged)) == ((), {"keys_unreadable"})
    worker.clock.advance(50)
    worker.do_beside()
    assert worker.rings.load(now=START) == before


def test_a_published_key_that_is_in_the_ring_is_shown_once(serve: Serve) -> None:
    """RFC 7517 §9.2: kids are unique. The private key moves into the ring, and `PYLON_OIDC_JWKS_RSA_N` is left set."""
    modulus = str(load_private_key(rsa_pem()).as_dict(private=False)["n"])
    given = MINTING | {"PYLON_OIDC_ALGS": "RS256,ES256", "PYLON_OIDC_JWKS_RSA_N": modulus}
    house = serve(**given, PYLON_OIDC_PRIVATE_KEY=rsa_pem())
    store = SqlStore(SqliteDatabase(Path(house.settings.data_dir) / "pylon.db"))
    settings = dataclasses.replace(house.settings, private_key=None)
    keys, _ = load_managed_keys(settings, store, M, house.clock)
    assert [key.kid for key in keys.current().published] == [key["kid"] for key in keys_of(house)]
    assert "pylon-default" in [key["kid"] for key in keys_of(house)]
    now = int(house.clock.now)
    RingStore(store, SealingKeys((SEALING,)), ["RS256", "ES256"]).ensure(
        M, now=now, step=lambda ring: revoked(ring.keys, "pylon-default", now, M)
    )
    house.clock.advance(60)
    assert "pylon-default" not in [key.kid for key in keys.current().published]  # nor does it come back
    store.close()


def test_an_imported_key_verifies_on(house: House, rings: RingStore) -> None:
    """`keys import`, also of Pylon's file, keeps the old kid."""
    now = int(house.clock.now)

    def step(ring: Ring) -> KeyRecords:
        record = rings.record(load_private_key(rsa_pem()), "RS256", "0123456789abcdef", ring.database_id)
        return imported(ring.keys, record, now, M)

    rings.ensure(M, now=now, step=step)
    house.clock.advance(60)
    assert keys_of(house)[0]["kid"] == "0123456789abcdef"


# --- readyz ---


def test_readyz_tells_roles_ages_and_the_next_change(house: House) -> None:
    """docs/endpoints.md: roles, ages and the next change, and what is overdue."""
    house.clock.advance(500)
    told = house.ask("GET", READY).json()
    assert (told["status"], told["keys"]) == ("ok", "ok")
    assert [(key["alg"], key["role"], key["age_s"]) for key in told["signing_keys"]] == [
        ("ES256", "active", 500),
        ("ES256", "next", 500),
        ("Ed25519", "active", 500),
        ("Ed25519", "next", 500),
    ]
    assert told["next_key_change"] == {
        "at": START + 89 * DAY_S,
        "alg": "ES256",
        "kid": None,
        "what": "is made",
    }
    assert told["rotation_overdue"] == []
    assert told["keys_read_s_ago"] == 0


def test_readyz_without_a_ring_is_as_ever(serve: Serve) -> None:
    """Without managed keys nothing is there but the three parts."""
    assert serve().ask("GET", READY).json() == {
        "status": "ok",
        "database": "ok",
        "schema": "ok",
        "keys": "ok",
    }


def test_an_overdue_rotation_is_told(serve: Serve) -> None:
    """A warning when rotation is overdue; by hand that is after a year."""
    house = serve(**MINTING, PYLON_OIDC_KEY_ROTATION_DAYS="0")
    house.clock.advance(366 * DAY_S)
    told = house.ask("GET", READY).json()
    assert told["rotation_overdue"] == [key["kid"] for key in told["signing_keys"] if key["role"] == "active"]


def test_an_overdue_rotation_is_logged_once_by_a_worker_that_runs(serve: Serve) -> None:
    """A warning when rotation is overdue: also in a service that nobody has restarted for a year."""
    house = serve(**MINTING, PYLON_OIDC_KEY_ROTATION_DAYS="0")
    house.clock.advance(364 * DAY_S)
    keys_of(house)
    assert "rotation_overdue" not in house.log.getvalue()
    for _ in range(3):
        house.clock.advance(2 * DAY_S)
        keys_of(house)
    lines = [json.loads(line) for line in house.log.getvalue().splitlines() if "rotation_overdue" in line]
    told = [(line["level"], line["alg"], "pylon-oidc keys rotate" in line["detail"]) for line in lines]
    assert told == [("warning", alg, True) for alg in ("ES256", "Ed25519")]


def test_an_algorithm_that_is_kept_no_more_is_not_overdue(serve: Serve) -> None:
    """Nothing can follow its last key."""
    house = serve(**MANAGED | {"PYLON_OIDC_ALGS": "ES256,Ed25519"}, PYLON_OIDC_KEY_ROTATION_DAYS="0")
    store = SqlStore(SqliteDatabase(Path(house.settings.data_dir) / "pylon.db"))
    settings = dataclasses.replace(house.settings, algs=("Ed25519",))
    keys, _ = load_managed_keys(settings, store, settings.margins, house.clock)
    house.clock.advance(366 * DAY_S)
    told = keys.status()
    signing = {key["kid"]: key["alg"] for key in told["signing_keys"] if key["role"] == "active"}
    assert [signing[kid] for kid in told["rotation_overdue"]] == ["Ed25519"]
    store.close()


# --- nothing tells ---


def test_no_key_is_in_a_log_an_answer_or_a_repr(house: House, rings: RingStore) -> None:
    """docs/security.md: neither an encryption key nor a private part, through a rotation, a revocation and all answers."""
    house.clock.advance(1000)
    ring = rotate(house, rings)
    house.clock.advance(60)
    now = int(house.clock.now)
    rings.ensure(M, now=now, step=lambda ring: revoked(ring.keys, ring.keys[0].kid, now, M))
    house.clock.advance(60)
    token = house.sign_in()["token"]
    answers = [house.ask("GET", path) for path in (JWKS, READY, "/.well-known/openid-configuration")]
    told = (
        b"".join(answer.body for answer in answers).decode() + minted(house, token)[0] + house.log.getvalue()
    )
    told += repr(house.settings) + repr(ring) + repr(rings) + repr(rings.sealing)
    secrets = [B64_SEALING, SEALING.hex(), repr(SEALING)]
    secrets += [str(rings.open(key, ring).as_dict(private=True)["d"]) for key in ring.keys]
    secrets += [str(key.sealed["data"]) for key in ring.keys if key.sealed is not None]
    assert len(secrets) > 10
    assert [secret for secret in secrets if secret in told] == []


def test_an_older_ring_that_is_put_back_is_noticed(house: House, rings: RingStore) -> None:
    """docs/security.md: the log and readyz say so, and a key that was taken away stays away where this process knew of it."""
    now = int(house.clock.now)
    kid = keys_of(house)[0]["kid"]
    identity = hash_handle("key ring: database")
    (before,) = [each for each in rings.store.list(Kind.KEY_RING, now=now) if each.id_hash != identity]
    after = rings.ensure(M, now=now, step=lambda ring: revoked(ring.keys, kid, now, M))
    house.clock.advance(60)
    assert kid not in [key["kid"] for key in keys_of(house)]
    assert "ring_older" not in house.ask("GET", READY).json()
    assert rings.store.replace(
        Kind.KEY_RING, hash_handle(f"key ring: version {after.version}"), before, now=now
    )
    house.clock.advance(60)
    assert kid not in [key["kid"] for key in keys_of(house)]
    told = house.ask("GET", READY).json()
    assert told["ring_older"] == {"version": after.version - 1, "seen": after.version}
    assert house.log.getvalue().count("keys_ring_older") == 1


def test_a_worker_says_by_what_it_keeps_the_ring_and_tells_of_others(house: House, rings: RingStore) -> None:
    """A running replica is seen by the others, at least every twenty minutes; one that differs is in its log, once."""
    other = dataclasses.replace(rings, configured_algs=["ES256"])
    ring, seen = rings.load(now=int(house.clock.now)), []
    assert ring is not None and rings.differing(ring, M, now=int(house.clock.now)) == []
    other.say(ring, M, now=int(house.clock.now))
    for _ in range(60):
        house.clock.advance(60)
        keys_of(house)
        for thread in threading.enumerate():
            if thread.name == "keys":
                thread.join()
        ring = rings.load(now=int(house.clock.now))
        assert ring is not None
        seen += [said.algs for said in other.differing(ring, M, now=int(house.clock.now))]
    assert seen == [("ES256", "Ed25519")] * 60
    (line,) = [json.loads(line) for line in house.log.getvalue().splitlines() if "replicas_differ" in line]
    assert (line["algs"], line["other_algs"], line["other_rotation_days"]) == (
        ["ES256", "Ed25519"],
        ["ES256"],
        90.0,
    )


def _the_document(rings: RingStore, now: int) -> Record:
    (document,) = [each for each in rings.store.list(Kind.KEY_RING, now=now) if "keys" in each.body]
    return document


def test_a_ring_that_was_forged_is_not_taken_by_a_running_service(house: House, rings: RingStore) -> None:
    """RFC 2104: the last good ring stays in use; the log and readyz say so, and it is taken again when it is right again."""
    now = int(house.clock.now)
    good, token = keys_of(house), house.sign_in()["token"]
    document = _the_document(rings, now)
    forged = json.loads(json.dumps(document.body))
    forged["keys"][0]["jwk"] |= {"x": forged["keys"][1]["jwk"]["x"], "y": forged["keys"][1]["jwk"]["y"]}
    assert rings.store.replace(
        Kind.KEY_RING, document.id_hash, dataclasses.replace(document, body=forged), now=now
    )
    house.clock.advance(60)
    assert keys_of(house) == good
    assert minted(house, token)
    assert house.ask("GET", READY).json()["ring_refused"] is True
    assert "written or changed without the encryption key" in house.log.getvalue()
    assert rings.store.replace(Kind.KEY_RING, document.id_hash, document, now=now)
    house.clock.advance(60)
    assert keys_of(house) == good
    assert "ring_refused" not in house.ask("GET", READY).json()


def test_a_forged_ring_stops_the_signing_of_a_service_that_cannot_see_the_right_one(
    house: House, rings: RingStore
) -> None:
    """docs/keys.md: as with a database that is away, somebody may have rotated meanwhile."""
    now, token = int(house.clock.now), house.sign_in()["token"]
    document = _the_document(rings, now)
    bare = {name: value for name, value in document.body.items() if name != "macs"}
    assert rings.store.replace(
        Kind.KEY_RING, document.id_hash, dataclasses.replace(document, body=bare), now=now
    )
    house.clock.advance(M.learn_s + M.slack_s + 1)
    assert house.ask("POST", "/api/auth/jwt", token=token).status == 503
    assert house.ask("GET", JWKS).headers["Cache-Control"] == "no-store"
    assert house.ask("GET", READY).json()["keys"] == "unavailable"


def _without_ring(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "ring.db")) as database, database:
        database.execute("DELETE FROM key_ring")


def test_a_ring_of_another_database_brings_no_key_back(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/security.md: the ring is deleted, another is made in its place, and then the older one is put back."""
    now, store = START + 100, worker.store.store
    logged: list[str] = []
    monkeypatch.setattr("service.keys.running._log.error", lambda event, **_: logged.append(event))
    memory = RingMemory(tmp_path / "seen.json")
    keys = ManagedKeys(worker.rings, M, worker.clock, Keyring("ES256"), beside=[].append, memory=memory)
    keys.load()

    def kid() -> str:
        worker.clock.advance(60)
        return keys.to_sign("ES256").signing["ES256"].kid

    before, first = store.list(Kind.KEY_RING, now=now), kid()
    worker.rings.ensure(M, now=now, step=lambda ring: revoked(ring.keys, first, now, M))
    worker.clock.now = now
    assert (kid() != first, logged) == (True, [])
    _without_ring(tmp_path)
    kid()
    assert logged == ["keys_ring_replaced"]
    _without_ring(tmp_path)
    assert store.put(*before, now=now)
    assert kid() != first
    assert first not in [key.kid for key in keys.current().published]
    assert keys.status()["ring_older"] == {"version": 1, "seen": 2}
    assert "keys_ring_older" in logged
