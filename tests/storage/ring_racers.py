"""What processes do to the ring of a database, all at once or until they are killed. Light, since each process imports it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Final

from service.keys.operations import reseal
from service.keys.ring import KeyRecords, Margins, Ring, UnsafeStep
from service.keys.rotation import rotated
from service.keys.sealing import SealingKeys
from service.keys.store import RingStore
from service.storage.sql import SqlStore
from tests.storage.stores import NOW, open_url
from tests.support.statements import watch

ONE, TWO = bytes(range(32)), bytes(range(32, 64))
M: Final = Margins()
#: Cheap to make.
ALGS: Final = ("ES256", "Ed25519")


def rings_in(store: SqlStore, *secrets: bytes, algs: tuple[str, ...] = ALGS) -> RingStore:
    """The ring of a store, under encryption keys."""
    return RingStore(store, SealingKeys(secrets or (ONE,)), algs)


def rotate(alg: str, now: int) -> Callable[[Ring], KeyRecords]:
    """The step of a rotation."""
    return lambda ring: rotated(ring.keys, alg, now, M)


def race(url: str, what: str, now: int) -> object:
    """What one of the processes does, and what came of it; run by `_race`."""
    with contextlib.closing(open_url(url)) as store:
        rings = rings_in(store)
        sys.stdin.readline()
        if what != "rotate":
            return [key.kid for key in rings.ensure(M, now=now).keys]
        try:
            rings.ensure(M, now=now, step=rotate("ES256", now))
        except UnsafeStep:
            return "refused"
        return "rotated"


STATEMENTS = {"creation": "INSERT INTO key_ring", "rotation": "UPDATE key_ring", "reseal": "UPDATE key_ring"}


def hang_in(what: str) -> None:
    """A module of the tests: change the ring of `DATABASE_URL`, and hang when its one statement has run."""

    def hang(statement: str) -> None:
        if statement.startswith(STATEMENTS[what]):
            print("in the middle", flush=True)
            sys.stdin.readline()

    watch(after=hang)
    rings = rings_in(open_url(os.environ["DATABASE_URL"]), TWO, ONE)
    if what == "reseal":
        reseal(rings, M, now=NOW)
    else:
        rings.ensure(M, now=NOW + 1000, step=None if what == "creation" else rotate("ES256", NOW + 1000))
