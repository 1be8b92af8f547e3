"""Real processes with real threads that all ask a store for the same thing at the same moment."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any, Final

from msgspec.structs import replace as changed

from service.clients import Clients
from service.events import UNHEARD
from service.handles import device_id, hash_handle
from service.protocol.errors import OAuthError
from service.records.devices import Decision, Device, decided
from service.records.grants import AccessToken, Code, Grant, Grants
from service.records.guesses import Guesses, Locked
from service.records.invitations import Invitation
from service.records.sessions import SignIn
from service.registrations import Registrations
from service.sessions import LocalSessions, Replayed
from service.storage.interface import Kind, NotStanding, Record
from service.storage.sql import SqlStore
from tests.storage.crew import ANSWER_S, CONTEXT, Crew
from tests.storage.stores import NOW, id_of, open_url, record

PROCESSES: Final = 4
THREADS: Final = 8


def _wins_put(store: SqlStore, handle: str, racer: str) -> bool:
    return store.put(record(handle, subject=racer), now=NOW)


def _wins_take(store: SqlStore, handle: str, _racer: str) -> bool:
    return store.take(Kind.SESSION, record(handle).id_hash, now=NOW) is not None


def _wins_replace(store: SqlStore, handle: str, racer: str) -> bool:
    old = record(handle).id_hash
    return store.replace(Kind.SESSION, old, record(f"{handle} by {racer}", subject=handle), now=NOW)


def grant_of(handle: str, **fields: Any) -> Record:
    """A grant, whose code nobody has redeemed; all of it is the user's whose name is the handle."""
    grant = Grant(
        id=id_of(handle, Kind.GRANT),
        subject=handle,
        client_id="reports",
        sid=handle,
        expires_at=NOW + 60,
        issuer="https://id.example",
        scope=("openid",),
        auth_time=NOW,
        created_at=NOW,
        code=Code("hash", "uri"),
    )
    return changed(grant, **fields).to_record()


def _wins_swap(store: SqlStore, handle: str, racer: str) -> bool:
    return store.swap(record(handle, kind=Kind.GRANT, body={"by": racer}), now=NOW)


def redeem(store: SqlStore, handle: str, racer: str) -> bool:
    """Redeem the code of a grant, as a client does; whether it is this one that got the access token."""

    def decide(grant: Grant | None) -> tuple[Grant | None, bool]:
        if grant is None or grant.code.spent_at is not None:
            return None, False
        token = AccessToken(hashlib.sha256(racer.encode()).digest()[:16], NOW, NOW + 60, grant.scope)
        spent = changed(grant, code=changed(grant.code, spent_at=NOW))
        return spent.with_access(token, now=NOW), True

    return Grants(store).use(id_of(handle, Kind.GRANT), decide, now=NOW)


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


def device_of(handle: str) -> Device:
    """A device that waits for its user."""
    return Device(device_id(handle), "https://id.example", {"client_id": "tv"}, "hash", NOW + 600)


def _wins_decision(store: SqlStore, handle: str, racer: str) -> bool:
    change = decided(device_id(handle), Decision.ALLOWED, grant_id=racer, now=NOW)
    try:
        return store.put(record(f"{handle} by {racer}", subject=handle), changes=[change], now=NOW)
    except NotStanding:
        return False


def _may_guess(store: SqlStore, handle: str, _racer: str) -> bool:
    try:
        Guesses(store).count(handle, "", now=NOW)
    except Locked:
        return False
    return True


def invitation_of(handle: str) -> Invitation:
    """An invitation that registers one client, which has its name."""
    return Invitation(handle, hash_handle(handle), 1, NOW + 60, NOW, {"client_name": handle})


def _wins_invitation(store: SqlStore, handle: str, _racer: str) -> bool:
    clients = Clients((), store, minted_audience=None)
    registrations = Registrations(store, clients, mode="token", idle_days=1, events=UNHEARD)
    metadata = {"redirect_uris": ["https://rp.example/cb"]}
    try:
        # Read by all before one of them has used it.
        registrations.register(metadata, invitation_of(handle), address="", now=NOW)
    except OAuthError as error:
        assert error.cause == "invitation_used_up"
        return False
    return True


#: What is raced for: whether this caller got it.
RACES: Final[Mapping[str, Callable[[SqlStore, str, str], bool]]] = {
    "put": _wins_put,
    "take": _wins_take,
    "take and put": _wins_take_and_put,
    "replace": _wins_replace,
    "swap": _wins_swap,
    "use": redeem,
    "change": _wins_change,
    "trusted mint": _wins_trusted_mint,
    "refresh": _wins_refresh,
    "decision": _wins_decision,
    "guess": _may_guess,
    "invitation": _wins_invitation,
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
            start.wait(ANSWER_S)
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


class Racers(Crew):
    """4 processes of 8 threads each, started once and used for many races."""

    def __init__(self) -> None:
        # Kept: its semaphores have names, which end with the object.
        self._start = CONTEXT.Barrier(PROCESSES * THREADS)
        super().__init__(_serve, [(self._start, f"{number}-") for number in range(PROCESSES)])

    def race(self, url: str, race: str, handles: list[str]) -> Result:
        """Let all of them race for one handle after another on the database of `url`."""
        results: list[Result] = self.told([(url, race, handles)] * PROCESSES)
        wins = [sum(column) for column in zip(*(result.wins for result in results), strict=True)]
        return Result(wins, [error for result in results for error in result.errors])
