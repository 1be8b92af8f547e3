"""The ring in a database: made once, changed by one writer at a time, whole at every moment, and unreadable at rest (docs/keys.md)."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.keys.material import generate_key, load_private_key, private_bytes, public_jwk
from service.keys.operations import reseal
from service.keys.ring import DAY_S, KeyRecords, Margins, Ring, UnsafeStep, published, role, with_role
from service.keys.rotation import imported, revoked, rotated
from service.keys.sealing import (
    NoSealingKey,
    SealBroken,
    SealedForAnother,
    SealingKeys,
    Unsealable,
    WrongSealingKey,
)
from service.keys.store import RingStore, _new_key
from service.storage.interface import Kind, Record
from service.storage.sql import SqlStore
from tests.storage.outages import hanging
from tests.storage.ring_racers import ALGS, ONE, STATEMENTS, TWO, M, rings_in, rotate
from tests.storage.stores import NOW, open_url, record, sqlite_path
from tests.support.gunicorn import PROJECT, clean_environment, rsa_pem
from tests.support.key_rules import violations


@pytest.fixture
def rings(store: SqlStore) -> RingStore:
    """On a fresh database."""
    return rings_in(store)


RACERS = 3

# --- made once ---


def test_a_ring_is_made_and_read_back(rings: RingStore) -> None:
    """The first start makes it; the next one finds it, and changes nothing."""
    assert rings.load(now=NOW) is None
    ring = rings.ensure(M, now=NOW)
    assert [(key.alg, role(key, NOW)) for key in ring.keys] == [
        ("ES256", "active"),
        ("ES256", "next"),
        ("Ed25519", "active"),
        ("Ed25519", "next"),
    ]
    assert rings.load(now=NOW) == ring == rings.ensure(M, now=NOW + 5)
    assert ring.version == 1


def test_every_key_opens_and_is_the_one_that_is_published(rings: RingStore) -> None:
    """A private part belongs to its public one; the kid is the thumbprint (RFC 7638 §3)."""
    ring = rings.ensure(M, now=NOW)
    for key in ring.keys:
        private = rings.open(key, ring)
        assert private.thumbprint() == key.kid
        assert {name: key.jwk[name] for name in ("alg", "use", "kid")} == {
            "alg": key.alg,
            "use": "sig",
            "kid": key.kid,
        }
        assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & set(key.jwk)


def test_of_processes_at_once_one_makes_the_ring(database_url: str, store: SqlStore) -> None:
    """docs/keys.md: cold replicas that start at once on an empty database end with one active key for each algorithm."""
    made = _race(database_url, "first")
    (ring,) = {json.dumps(each) for each in made}
    assert json.loads(ring) == [key.kid for key in rings_in(store).load(now=NOW).keys]
    assert len(json.loads(ring)) == 4


def test_of_processes_at_once_one_makes_the_next_key(database_url: str, store: SqlStore) -> None:
    """Replicas that find at the same moment that the next key is due make one."""
    rings_in(store).ensure(M, now=NOW)
    due = NOW + M.rotation_s - M.ahead_s
    made = _race(database_url, "next", due)
    assert len({json.dumps(each) for each in made}) == 1
    ring = rings_in(store).load(now=due)
    assert ring is not None and ring.version == 2
    assert [len(with_role(ring.keys, alg, "next", due)) for alg in ALGS] == [2, 2]


def test_of_operators_at_once_one_rotates(database_url: str, store: SqlStore) -> None:
    """Two rotations at once are one; the other hears that one is under way."""
    rings_in(store).ensure(M, now=NOW)
    results = _race(database_url, "rotate", NOW + 5000)
    assert sorted(str(each) for each in results) == ["refused"] * (RACERS - 1) + ["rotated"]
    ring = rings_in(store).load(now=NOW)
    assert ring is not None
    assert violations(ring.keys, NOW + 5000, M) == violations(ring.keys, NOW + 5060, M) == []


def _race(url: str, what: str, now: int = NOW, count: int = RACERS) -> list[Any]:
    code = f"import json; from tests.storage.ring_racers import race; print('ready', flush=True); print(json.dumps(race(*{(url, what, now)!r})))"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=PROJECT,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [json.loads(process.communicate(timeout=60)[0]) for process in processes]


def test_a_writer_that_read_an_old_version_reads_again(rings: RingStore, second_store: SqlStore) -> None:
    """Of two that read the same version one writes; the other one's step sees what that has left."""
    rings.ensure(M, now=NOW)
    seen: list[int] = []

    def slow(ring: Ring) -> KeyRecords:
        seen.append(ring.version)
        if len(seen) == 1:
            rings_in(second_store).ensure(M, now=NOW + 1000, step=rotate("Ed25519", NOW + 1000))
        return rotated(ring.keys, "ES256", NOW + 1000, M)

    ring = rings.ensure(M, now=NOW + 1000, step=slow)
    assert seen == [1, 2]
    assert ring.version == 3
    for alg in ALGS:
        assert with_role(ring.keys, alg, "next", NOW)[0].signs_from == NOW + 1060


def test_a_step_that_is_refused_changes_nothing(rings: RingStore) -> None:
    """An unsafe rotation leaves the version as it was."""
    before = rings.ensure(M, now=NOW)
    with pytest.raises(UnsafeStep):
        rings.ensure(M, now=NOW, step=rotate("ES256", NOW))
    assert rings.load(now=NOW) == before


def test_a_replica_that_is_being_replaced_makes_the_next_key_by_the_ring_s_length(store: SqlStore) -> None:
    """docs/keys.md: `PYLON_OIDC_KEY_ROTATION_DAYS` is another; those that still run with the old one move nothing."""
    rings = rings_in(store)
    rings.ensure(M, now=NOW)
    shorter = replace(M, rotation_s=30 * DAY_S)
    rings.ensure(shorter, now=NOW + 5, reschedule=True)
    now = NOW + 29 * DAY_S
    ring = rings.ensure(M, now=now)  # by the old length nothing would be due
    line = [key.signs_from for key in ring.keys if key.alg == "ES256"]
    assert line == [NOW, NOW + 30 * DAY_S, NOW + 60 * DAY_S]


def test_clients_keep_rs256(store: SqlStore) -> None:
    """docs/keys.md: RS256 is always kept while there are clients, of the environment or of the database."""
    rings = RingStore(store, SealingKeys((ONE,)), ["Ed25519"])
    assert rings.algs(now=NOW) == ["Ed25519"]
    assert replace(rings, has_clients=True).algs(now=NOW) == ["RS256", "Ed25519"]
    store.put(record("c-1", kind=Kind.CLIENT), now=NOW)
    assert rings.algs(now=NOW) == ["RS256", "Ed25519"]


def test_no_kid_looks_like_an_option() -> None:
    """`keys revoke KID` must not take it for one; of 200 thumbprints some begin with a hyphen."""
    assert not any(_new_key("Ed25519").thumbprint().startswith("-") for _ in range(200))


# --- killed ---


@pytest.mark.parametrize("what", STATEMENTS)
def test_a_change_that_is_killed_has_not_happened(database_url: str, store: SqlStore, what: str) -> None:
    """docs/keys.md: `kill -9` in the middle loses nothing and doubles nothing; the next one who does it does it whole."""
    rings = rings_in(store, TWO, ONE)
    before = None if what == "creation" else rings_in(store).ensure(M, now=NOW)
    store.close()
    with hanging(f"from tests.storage.ring_racers import hang_in; hang_in({what!r})", database_url):
        pass
    assert rings.load(now=NOW) == before
    if what == "reseal":
        assert reseal(rings, M, now=NOW).count == 4
    else:
        rings.ensure(M, now=NOW + 1000, step=None if what == "creation" else rotate("ES256", NOW + 1000))
    ring = rings.load(now=NOW)
    assert ring is not None
    assert ring.version == (1 if before is None else 2)
    assert violations(ring.keys, NOW + 1000, M) == []
    for key in ring.keys:
        rings.open(key, ring)


# --- at rest ---


def _dump(url: str) -> bytes:
    """Every byte of every row, or of the whole file."""
    if url.startswith("sqlite:"):
        path = sqlite_path(url)
        return b"".join(each.read_bytes() for each in path.parent.glob(path.name + "*"))
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT * FROM key_ring").fetchall()
    return repr(rows).encode()


def test_a_dump_of_the_database_has_no_private_key(database_url: str, store: SqlStore) -> None:
    """Acceptance: neither as it is, nor in base64, nor its numbers."""
    rings = rings_in(store, algs=("RS256", "ES256"))
    ring = rings.ensure(
        M,
        now=NOW,
        step=lambda ring: imported(
            ring.keys, rings.record(load_private_key(rsa_pem()), "RS256", "mine", ring.database_id), NOW, M
        ),
    )
    dump = _dump(database_url)
    assert b"mine" in dump  # it is the right dump
    for key in ring.keys:
        private = rings.open(key, ring)
        data = private_bytes(private)
        secrets = [data, base64.b64encode(data), base64.urlsafe_b64encode(data), data.hex().encode()]
        members = private.as_dict(private=True)
        secrets += [
            str(members[name]).encode() for name in ("d", "p", "q", "dp", "dq", "qi") if name in members
        ]
        assert len(secrets) > 4
        for secret in secrets:
            assert secret not in dump
    number = load_pem_private_key(rsa_pem().encode(), None).private_numbers().d
    assert number.to_bytes(256, "big")[:32] not in dump
    assert ONE not in dump and base64.b64encode(ONE) not in dump


def _changed(
    store: SqlStore, change: Callable[[dict[str, Any]], object], writer: RingStore | None = None
) -> None:
    """Somebody writes into the document; a writer who has an encryption key authenticates what they wrote."""
    (document,) = [each for each in store.list(Kind.KEY_RING, now=NOW) if "keys" in each.body]
    body = json.loads(json.dumps(document.body))
    change(body)
    if writer is not None:
        (identity,) = [each for each in store.list(Kind.KEY_RING, now=NOW) if "database_id" in each.body]
        del body["macs"]
        body["macs"] = writer.sealing.macs(body, identity.body["database_id"])
    assert store.replace(Kind.KEY_RING, document.id_hash, replace(document, body=body), now=NOW)


def _flip(body: dict[str, Any]) -> None:
    data = bytearray(base64.b64decode(body["keys"][0]["sealed"]["data"]))
    data[40] ^= 1
    body["keys"][0]["sealed"]["data"] = base64.b64encode(bytes(data)).decode()


def _swap(body: dict[str, Any]) -> None:
    first, second = body["keys"][:2]
    first["sealed"], second["sealed"] = second["sealed"], first["sealed"]


def _other_public(body: dict[str, Any]) -> None:
    body["keys"][0]["jwk"]["x"] = body["keys"][1]["jwk"]["x"]


def _open_all(rings: RingStore) -> None:
    ring = rings.load(now=NOW)
    assert ring is not None
    for key in ring.keys:
        rings.open(key, ring)


@pytest.mark.parametrize(
    ("secrets", "change", "error"),
    [
        ((), None, NoSealingKey),
        ((TWO,), None, WrongSealingKey),
        ((ONE,), _swap, SealedForAnother),
        ((ONE,), _flip, SealBroken),
    ],
)
def test_what_is_wrong_with_a_ring_is_told_apart(
    store: SqlStore, secrets: tuple[bytes, ...], change: Any, error: type[Exception]
) -> None:
    """Wrong, missing and swapped encryption keys and a flipped bit have different messages."""
    rings = rings_in(store)
    rings.ensure(M, now=NOW)
    if change is not None:
        _changed(store, change, rings)
    with pytest.raises(error) as caught:
        _open_all(RingStore(store, SealingKeys(secrets), ALGS))
    assert type(caught.value) is error


def test_a_public_key_that_is_not_the_private_one_s_is_found(rings: RingStore, store: SqlStore) -> None:
    """Also where the ring is authentic, as after a mistake of ours."""
    rings.ensure(M, now=NOW)
    _changed(store, _other_public, rings)
    with pytest.raises(Unsealable, match="is published as another one"):
        _open_all(rings)


# --- authentic ---

_THEIRS = generate_key("ES256")
_THEIR_KEY = {
    "kid": "theirs",
    "alg": "ES256",
    "jwk": public_jwk(_THEIRS, kid="theirs", alg="ES256"),
    "sealed": None,
    "published_at": NOW - 1000,
    "signs_from": NOW - 900,
    "retires_at": NOW - 800,
    "gone_at": NOW + 10**9,
}


def _remac(body: dict[str, Any], *secrets: bytes, database_id: str = "theirs") -> None:
    """What somebody writes who has encryption keys of their own."""
    del body["macs"]
    body["macs"] = SealingKeys(secrets).macs(body, database_id)


#: What somebody does who can write the database and has no encryption key.
FORGERIES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a public key instead of ours": _other_public,
    "a key put in": lambda body: body["keys"].append(_THEIR_KEY),
    "a key put in, and the MAC dropped": lambda body: (body["keys"].append(_THEIR_KEY), body.pop("macs")),
    "a key put in, under a MAC of their own": lambda body: (
        body["keys"].append(_THEIR_KEY),
        _remac(body, TWO),
    ),
    "a key put in, under the key of dev mode": lambda body: (
        body["keys"].append(_THEIR_KEY),
        _remac(body, *SealingKeys.of_dev_mode().secrets),
    ),
    "a key taken out": lambda body: body["keys"].pop(),
    "keys in another order": lambda body: body["keys"].reverse(),
    "a date moved": lambda body: body["keys"][0].update(gone_at=NOW + 10**9),
    "a revocation made": lambda body: body["keys"][0].update(revoked_at=NOW, sealed=None),
    "another version": lambda body: body.update(version=7),
    "another length": lambda body: body.update(rotation_s=10**9),
    "another private part": _flip,
    "a MAC cut short": lambda body: body["macs"].update(
        {name: mac[:-1] for name, mac in body["macs"].items()}
    ),
    "a MAC that is empty": lambda body: body["macs"].update(dict.fromkeys(body["macs"], "")),
    "a MAC that is none": lambda body: body["macs"].update({name: [1] for name in body["macs"]}),
    "MACs that are none": lambda body: body.update(macs="0" * 64),
    "keys that are none": lambda body: body.update(keys=[{"kid": 1}]),
    "no keys at all": lambda body: body.pop("keys"),
    "a version that is none": lambda body: body.update(version=None),
}


def test_a_ring_that_was_written_without_the_encryption_key_is_refused(
    rings: RingStore, store: SqlStore, subtests: pytest.Subtests
) -> None:
    """RFC 2104: who can write into the database publishes no key of theirs and moves no date; nothing is written then."""
    ring, later = rings.ensure(M, now=NOW), NOW + M.rotation_s
    (good,) = [each for each in store.list(Kind.KEY_RING, now=NOW) if "keys" in each.body]
    for name, forgery in FORGERIES.items():
        with subtests.test(name):
            _changed(store, forgery)
            found = store.list(Kind.KEY_RING, now=NOW)
            for use in (
                lambda: rings.load(now=NOW),
                lambda: rings.ensure(M, now=later),
                lambda: rings.ensure(M, now=later, step=rotate("ES256", later), though_shut=True),
                lambda: reseal(rings, M, now=later),
            ):
                with pytest.raises(Unsealable):
                    use()
            assert store.list(Kind.KEY_RING, now=NOW) == found
        assert store.replace(Kind.KEY_RING, good.id_hash, good, now=NOW)
        assert rings.load(now=NOW) == ring


#: What becomes of the two rows of a ring: whose database it is, and the document.
ROWS: dict[str, Callable[[Record, Record], list[tuple[str, Record]]]] = {
    "another database": lambda identity, _: [
        (identity.id_hash, replace(identity, body={"database_id": "another"}))
    ],
    "no database": lambda identity, _: [(identity.id_hash, replace(identity, body={}))],
    "a note that is none": lambda identity, _: [
        (identity.id_hash, replace(identity, body={**identity.body, "kept_by": [{"algs": 1}]}))
    ],
    "one of them gone": lambda identity, _: [(identity.id_hash, replace(identity, expires_at=NOW))],
    "the other gone": lambda _, document: [(document.id_hash, replace(document, expires_at=NOW))],
    "a row more": lambda _, document: [("", replace(document, id_hash="2" * 64))],
    "a row moved": lambda _, document: [(document.id_hash, replace(document, id_hash="2" * 64))],
}


@pytest.mark.parametrize("rows", ROWS)
def test_a_ring_with_a_part_of_another_one_is_refused(rings: RingStore, store: SqlStore, rows: str) -> None:
    """A MAC is valid only for its database; with a row more or less the ring is refused, and no new one is created."""
    rings.ensure(M, now=NOW)
    document, identity = sorted(
        store.list(Kind.KEY_RING, now=NOW), key=lambda each: "database_id" in each.body
    )
    for of, row in ROWS[rows](identity, document):
        assert store.replace(Kind.KEY_RING, of, row, now=NOW) if of else store.put(row, now=NOW)
    found = store.list(Kind.KEY_RING, now=NOW)
    for use in (
        lambda: rings.load(now=NOW),
        lambda: rings.ensure(M, now=NOW),
        lambda: reseal(rings, M, now=NOW),
    ):
        with pytest.raises(Unsealable):
            use()
    assert store.list(Kind.KEY_RING, now=NOW) == found


@pytest.mark.parametrize("forgery", ["a key put in", "a key put in, and the MAC dropped"])
def test_a_repair_keeps_what_proves_itself(rings: RingStore, store: SqlStore, forgery: str) -> None:
    """docs/keys.md: a key is kept whose private part opens, and belongs to the public one; nothing else is."""
    ours = rings.ensure(M, now=NOW)
    _changed(store, FORGERIES[forgery])
    done = reseal(rings, M, now=NOW, repair=True)
    assert done.taken_away == ("theirs",)
    ring = rings.load(now=NOW)
    assert ring == done.ring
    assert [key.kid for key in published(ring.keys, NOW)] == [key.kid for key in ours.keys]
    (theirs,) = [key for key in ring.keys if key.kid == "theirs"]
    assert theirs.revoked_at == NOW  # nor does a hint of theirs count
    _open_all_published(rings, ring)


def test_a_repair_takes_nothing_of_what_was_gone_for_ours(rings: RingStore, store: SqlStore) -> None:
    """A gone key has no private part to prove itself by: hints that it signed count no more."""
    rings.ensure(M, now=NOW)
    _changed(store, lambda body: body["keys"].append(_THEIR_KEY | {"gone_at": NOW - 700}))
    done = reseal(rings, M, now=NOW, repair=True)
    (theirs,) = [key for key in done.ring.keys if key.kid == "theirs"]
    assert (done.taken_away, theirs.revoked_at) == ((), NOW)


def test_every_encryption_key_that_is_here_authenticates(store: SqlStore) -> None:
    """docs/keys.md, changing the encryption key: older and newer replicas read what either writes."""
    old, both, new = rings_in(store), rings_in(store, TWO, ONE), rings_in(store, TWO)
    now = NOW + 5000
    old.ensure(M, now=NOW)
    assert both.load(now=NOW) is not None
    with pytest.raises(WrongSealingKey):
        new.load(now=NOW)
    both.ensure(M, now=now, step=rotate("ES256", now))
    assert old.load(now=now) == both.load(now=now) == new.load(now=now)
    reseal(both, M, now=now)
    assert new.ensure(M, now=now).version == 3
    new.ensure(M, now=now, step=rotate("Ed25519", now))
    with pytest.raises(WrongSealingKey):
        old.load(now=now)


def test_reseal_authenticates_under_the_first_although_nothing_was_sealed_otherwise(store: SqlStore) -> None:
    """So that the others may be dropped after it."""
    rings_in(store, TWO).ensure(M, now=NOW)
    _changed(store, lambda body: _remac(body, ONE, database_id=_database_id(store)))
    both = rings_in(store, TWO, ONE)
    assert reseal(both, M, now=NOW).count == 0
    _open_all(rings_in(store, TWO))


def _database_id(store: SqlStore) -> str:
    (identity,) = [each for each in store.list(Kind.KEY_RING, now=NOW) if "database_id" in each.body]
    return str(identity.body["database_id"])


def test_reseal_moves_every_key_to_the_first_encryption_key(store: SqlStore) -> None:
    """docs/keys.md: `keys reseal` moves to the first; then the old one may be dropped."""
    rings_in(store).ensure(M, now=NOW)
    both = rings_in(store, TWO, ONE)
    ring = both.load(now=NOW)
    assert ring is not None and set(both.sealed_otherwise(ring)) == {key.kid for key in ring.keys}
    done = reseal(both, M, now=NOW)
    assert (done.count, both.sealed_otherwise(done.ring)) == (4, {})
    _open_all(rings_in(store, TWO))
    assert reseal(both, M, now=NOW).count == 0


def test_reseal_does_what_can_be_done(store: SqlStore) -> None:
    """What only verifies needs no private part: that its encryption key is lost keeps no other one from being moved."""
    rings_in(store).ensure(M, now=NOW)
    both = rings_in(store, TWO, ONE)
    now = NOW + 5000
    ring = both.ensure(M, now=now, step=rotate("ES256", now))
    old = ring.keys[0].kid
    _changed(store, lambda body: body["keys"][0]["sealed"].update(by="lost"), both)
    now += M.learn_s
    done = reseal(both, M, now=now)
    ring = done.ring
    assert (done.count, role(ring.keys[0], now)) == (3, "retired")
    assert rings_in(store, TWO).sealed_otherwise(ring) == {}
    assert [key.kid for key in ring.keys if (key.sealed or {}).get("by") != both.sealing.names[0]] == [old]


def test_reseal_with_a_wrong_key_changes_nothing(store: SqlStore) -> None:
    """Nothing is lost by a mistake."""
    before = rings_in(store).ensure(M, now=NOW)
    with pytest.raises(WrongSealingKey):
        reseal(rings_in(store, TWO), M, now=NOW)
    assert rings_in(store).load(now=NOW) == before


@pytest.mark.parametrize("what", ["another algorithm", "a rotation", "another length", "a next key"])
def test_without_its_encryption_key_nothing_is_sealed_under_another(store: SqlStore, what: str) -> None:
    """docs/keys.md: who starts or rotates with a wrong encryption key leaves no key behind that the others cannot open."""
    before = rings_in(store).ensure(M, now=NOW)
    wrong = rings_in(store, TWO, algs=("RS256", *ALGS) if what == "another algorithm" else ALGS)
    margins = replace(M, rotation_s=DAY_S) if what == "another length" else M
    now = NOW + (M.rotation_s - M.ahead_s if what == "a next key" else 5000)
    step = rotate("ES256", now) if what == "a rotation" else None
    with pytest.raises(WrongSealingKey):
        wrong.ensure(margins, now=now, step=step, reschedule=True)
    assert rings_in(store).load(now=NOW) == before


def test_a_key_that_cannot_be_opened_can_be_revoked(store: SqlStore) -> None:
    """Whose private part was sealed under an encryption key that is lost, in a ring that is authentic."""
    rings_in(store).ensure(M, now=NOW)
    lost = rings_in(store, TWO)
    _changed(store, lambda body: _remac(body, TWO, database_id=_database_id(store)))
    with pytest.raises(WrongSealingKey):
        lost.ensure(M, now=NOW)
    for _ in range(2):
        for alg in ALGS:
            lost.ensure(
                M,
                now=NOW,
                step=lambda ring, alg=alg: revoked(
                    ring.keys, with_role(ring.keys, alg, "active", NOW)[0].kid, NOW, M
                ),
                though_shut=True,
            )
    _open_all_published(lost, lost.load(now=NOW))


def test_a_ring_whose_encryption_key_is_lost_can_be_repaired(store: SqlStore) -> None:
    """An operator who has lost the encryption key continues with new keys."""
    before = rings_in(store).ensure(M, now=NOW)
    lost = rings_in(store, TWO)
    done = reseal(lost, M, now=NOW, repair=True)
    assert set(done.taken_away) == {key.kid for key in before.keys}
    assert len(published(done.ring.keys, NOW)) == 4
    _open_all_published(lost, lost.load(now=NOW))


def _open_all_published(rings: RingStore, ring: Ring | None) -> None:
    assert ring is not None
    for key in published(ring.keys, NOW):
        rings.open(key, ring)


# --- any sequence of events, on a real store ---


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite file."""
    path = tmp_path_factory.mktemp("ring") / "pylon.db"
    with contextlib.closing(open_url(f"sqlite:///{path}")) as store:
        store.migrate()
    return path


class AnyHistory(RuleBasedStateMachine):
    """Replicas of one database, each with a connection of its own, in any order."""

    template: Path
    folder: Path
    count = 0

    def __init__(self) -> None:
        super().__init__()
        AnyHistory.count += 1
        self.path = self.folder / f"{AnyHistory.count}.db"
        self.path.write_bytes(self.template.read_bytes())
        self.margins, self.now = Margins(rotation_s=3 * DAY_S), NOW
        self.replicas: list[SqlStore] = []

    def teardown(self) -> None:
        """Close what is open."""
        for store in self.replicas:
            store.close()

    @initialize()
    def the_first_replica(self) -> None:
        """On an empty database."""
        self.start()

    @rule()
    def a_new_replica(self) -> None:
        """While the others run."""
        self.start()

    def start(self) -> None:
        """It finds the ring, or makes it."""
        self.replicas.append(open_url(f"sqlite:///{self.path}"))
        self.at(-1).ensure(self.margins, now=self.now, reschedule=True)

    def at(self, index: int) -> RingStore:
        """The ring as one replica sees it."""
        return rings_in(self.replicas[index % len(self.replicas)], algs=("Ed25519",))

    @rule(index=st.integers(0, 3), seconds=st.integers(1, 8 * DAY_S))
    def time_passes(self, index: int, seconds: int) -> None:
        """One of them keeps the ring in order meanwhile."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + self.margins.made_before_s // 2)
            self.at(index).ensure(self.margins, now=self.now)

    @rule(index=st.integers(0, 3))
    def an_operator_rotates(self, index: int) -> None:
        """Or has to wait."""
        with contextlib.suppress(UnsafeStep):
            self.at(index).ensure(
                self.margins,
                now=self.now,
                step=lambda ring: rotated(ring.keys, "Ed25519", self.now, self.margins),
            )

    @rule(index=st.integers(0, 3), which=st.integers(0, 5))
    def an_operator_revokes(self, index: int, which: int) -> None:
        """Whatever is published."""

        def step(ring: Ring) -> KeyRecords:
            shown = published(ring.keys, self.now)
            return revoked(ring.keys, shown[which % len(shown)].kid, self.now, self.margins)

        self.at(index).ensure(self.margins, now=self.now, step=step)

    @rule(index=st.integers(0, 3), days=st.integers(0, 9))
    def a_restart(self, index: int, days: int) -> None:
        """With another rotation."""
        self.margins = replace(self.margins, rotation_s=days * DAY_S)
        self.at(index).store.close()
        self.at(index).ensure(self.margins, now=self.now, reschedule=True)

    @rule(index=st.integers(0, 3))
    def two_at_once(self, index: int) -> None:
        """Of two replicas that rotate in the same moment one does."""
        results: list[str] = []

        def run(rings: RingStore) -> None:
            try:
                rings.ensure(
                    self.margins,
                    now=self.now,
                    step=lambda ring: rotated(ring.keys, "Ed25519", self.now, self.margins),
                )
                results.append("rotated")
            except UnsafeStep:
                results.append("refused")

        threads = [threading.Thread(target=partial(run, self.at(index + n))) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == 2 and results.count("rotated") <= 1

    @invariant()
    def the_ring_is_sound(self) -> None:
        """The invariants of docs/keys.md, always, and every key opens."""
        if not self.replicas:
            return
        rings = self.at(0)
        ring = rings.load(now=self.now)
        assert ring is not None
        assert violations(ring.keys, self.now, self.margins) == []
        for key in published(ring.keys, self.now):
            rings.open(key, ring)


def test_any_history_of_a_real_store_keeps_the_ring_sound(template: Path, tmp_path: Path) -> None:
    """Acceptance: random sequences of clock steps, rotations, revocations, restarts and new replicas."""
    from hypothesis.stateful import run_state_machine_as_test

    AnyHistory.template, AnyHistory.folder = template, tmp_path
    run_state_machine_as_test(
        AnyHistory, settings=settings(max_examples=12, stateful_step_count=20, deadline=None)
    )


def test_the_version_before_leaves_the_ring_alone(store: SqlStore) -> None:
    """The sweep removes what has ended; the ring never does."""
    ring = rings_in(store).ensure(M, now=NOW)
    store.delete_expired(now=NOW + 10**10, limit=100)
    assert rings_in(store).load(now=NOW + 10**10) == ring
