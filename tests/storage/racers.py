"""Real processes with real threads that all ask a store for the same thing at the same moment."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final, Self

from service.protocol.models import SignIn
from service.sessions import LocalSessions, Replayed
from service.storage.interface import Kind, Record
from service.storage.sql import SqlStore
from tests.storage.stores import NOW, open_url, record

PROCESSES: Final = 4
THREADS: Final = 8
_ANSWER_S: Final = 60.0


def _wins_put(store: SqlStore, handle: str, racer: str) -> bool:
    return store.put(record(handle, subject=racer), now=NOW)


def _wins_take(store: SqlStore, handle: str, _racer: str) -> bool:
    return store.take(Kind.SESSION, record(handle).id_hash, now=NOW) is not None


def _wins_replace(store: SqlStore, handle: str, racer: str) -> bool:
    old = record(handle).id_hash
    return store.replace(Kind.SESSION, old, record(f"{handle} by {racer}", subject=handle), now=NOW)


def grant_of(handle: str) -> Record:
    """The grant that the code `handle` hangs on."""
    return record(f"grant of {handle}", kind=Kind.GRANT, subject=handle, grant_id=handle)


def _wins_spend(store: SqlStore, handle: str, racer: str) -> bool:
    token = record(f"{handle} by {racer}", kind=Kind.ACCESS_TOKEN, subject=handle, grant_id=handle)
    code = record(handle).id_hash
    return store.spend(Kind.CODE, code, grant=grant_of(handle), body={"by": racer}, put=[token], now=NOW).won


def _wins_take_and_put(store: SqlStore, handle: str, racer: str) -> bool:
    successor = record(f"{handle} by {racer}", subject=handle)
    return store.take(Kind.INTERACTION, record(handle).id_hash, put=[successor], now=NOW) is not None


def _wins_change(store: SqlStore, handle: str, racer: str) -> bool:
    new = record(handle, kind=Kind.USER, subject=handle)
    merged = store.change(
        Kind.USER, new.id_hash, lambda known: replace(known, body={**known.body, racer: 1}), new=new, now=NOW
    )
    return merged is not None and racer in merged.body


def _wins_trusted_mint(store: SqlStore, handle: str, _racer: str) -> bool:
    sessions = LocalSessions(store, lifetime_s=60)
    try:
        sessions.create(SignIn(user_id=handle), now=NOW, single_use_proof=handle.encode())
    except Replayed:
        return False
    return True


def _wins_refresh(store: SqlStore, token: str, _racer: str) -> bool:
    sessions = LocalSessions(store, lifetime_s=60)
    session = sessions.find(token, now=NOW)
    return session is not None and sessions.refresh(session, now=NOW) is not None


#: What is raced for: whether this caller got it.
RACES: Final[Mapping[str, Callable[[SqlStore, str, str], bool]]] = {
    "put": _wins_put,
    "take": _wins_take,
    "take and put": _wins_take_and_put,
    "replace": _wins_replace,
    "spend": _wins_spend,
    "change": _wins_change,
    "trusted mint": _wins_trusted_mint,
    "refresh": _wins_refresh,
}


@dataclass(frozen=True)
class Result:
    """How many callers won each handle, and what any of them raised."""

    wins: list[int]
    errors: list[str]


def race_threads(
    store: SqlStore, race: str, handles: list[str], *, start: Any, threads: int, name: str = ""
) -> Result:
    """Let threads of this process race for one handle after another.

    Args:
        store: What they share.
        race: A key of `RACES`.
        handles: What they race for, one after another.
        start: A barrier of all that take part.
        threads: How many of them are here.
        name: What makes this process' racers different from others'.
    """
    wins, errors, lock = [0] * len(handles), [], threading.Lock()

    def run(number: int) -> None:
        for index, handle in enumerate(handles):
            start.wait(_ANSWER_S)
            try:
                won = RACES[race](store, handle, f"{name}{number}")
            except Exception as error:
                with lock:
                    errors.append(repr(error))
            else:
                with lock:
                    wins[index] += won

    racers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    return Result(wins, errors)


def _serve(wire: Connection, start: Any, name: str) -> None:
    """A process of racers: takes orders until the wire is closed."""
    while (order := wire.recv()) is not None:
        url, race, handles = order
        with closing(open_url(url)) as store:
            wire.send(race_threads(store, race, handles, start=start, threads=THREADS, name=name))


class Racers:
    """4 processes of 8 threads each, started once and used for many races."""

    def __enter__(self) -> Self:
        # Children of one process that has imported this module and nothing else has begun in.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        # Kept: its semaphores have names, which end with the object.
        self._start = context.Barrier(PROCESSES * THREADS)
        self._wires: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for number in range(PROCESSES):
            here, there = context.Pipe()
            process = context.Process(target=_serve, args=(there, self._start, f"{number}-"), daemon=True)
            process.start()
            there.close()
            self._wires.append(here)
            self._processes.append(process)
        return self

    def __exit__(self, *_: object) -> None:
        for wire, process in zip(self._wires, self._processes, strict=True):
            with suppress(BrokenPipeError):
                wire.send(None)
            process.join(10)
            process.kill()

    def race(self, url: str, race: str, handles: list[str]) -> Result:
        """Let all of them race for one handle after another on the database of `url`."""
        for wire in self._wires:
            wire.send((url, race, handles))
        results: list[Result] = []
        for wire in self._wires:
            assert wire.poll(_ANSWER_S), "a process of racers gives no answer"
            results.append(wire.recv())
        wins = [sum(column) for column in zip(*(result.wins for result in results), strict=True)]
        return Result(wins, [error for result in results for error in result.errors])
