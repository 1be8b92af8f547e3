"""The keys of clients that authenticate with them: registered, or at the client's own URL.

All processes share fetched keys through the store, so a client's URL is rarely requested, and an outage of that URL
does not lock the client out of a process that has just started.

Spec: RFC 7591 §2 (jwks, jwks_uri), OpenID Connect Core 1.0 §10.1.1
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import structlog

from service.handles import hash_handle
from service.keys.material import KeyFault
from service.keys.others import OthersKey, usable_keys
from service.outbound.fetcher import Outbound, Unreachable
from service.outbound.slots import Slots
from service.protocol.errors import OAuthError
from service.records.clients import Client
from service.storage.interface import Kind, Record, Store

#: How long fetched keys are used without another request, in s.
FRESH_S: Final = 600
#: The shortest time between two requests to one client's URL, in s.
ASK_S: Final = 60
#: How long fetched keys are used if the URL fails, in s.
KEPT_S: Final = 86_400
#: How many clients' keys a process keeps: of the operator's clients, and of strangers, whose sets may be large.
_MOST_KEPT: Final = 1000
_MOST_KEPT_OF_STRANGERS: Final = 100
#: How long to wait for another process that fetches, and the time between two checks, in s.
_PATIENCE_S: Final = 5.5
_LOOK_S: Final = 0.1

_Value = TypeVar("_Value")
_log: Final[Any] = structlog.get_logger("clients")


@dataclass(frozen=True, slots=True)
class _Fetched:
    """The state of a URL.

    Attributes:
        jwks: the last good document, or None.
        fetched_at: when it was fetched; 0: never.
        asked_at: when the URL was last requested, with or without success.
        is_done: whether that request has ended.
        failure: why it failed; None: it did not, or has not ended.
    """

    jwks: Mapping[str, Any] | None = None
    fetched_at: int = 0
    asked_at: int = 0
    is_done: bool = True
    failure: str | None = None


class _Memory:
    """What a process knows of some clients, of at most so many.

    Attributes:
        read: client id -> a document and its keys.
        known: client and URL -> the state of the URL.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.read: dict[str, tuple[Any, tuple[OthersKey, ...]]] = {}
        self.known: dict[str, _Fetched] = {}

    def put(self, kept: dict[str, _Value], name: str, value: _Value) -> None:
        """Keep a value in one of the two. If there are too many, all are forgotten."""
        if len(kept) >= self._most:
            kept.clear()
        kept[name] = value


@dataclass(frozen=True, slots=True)
class KeysAtUrl:
    """The result of the last request for a client's keys, for the operator.

    Attributes:
        client_id: the client.
        jwks_uri: its URL.
        asked_at: when the URL was last requested, Unix s; None: not within a day.
        fetched_at: when the keys in use were fetched, Unix s; None: there are none.
        failure: why the last request failed; None: it did not.
    """

    client_id: str
    jwks_uri: str
    asked_at: int | None
    fetched_at: int | None
    failure: str | None

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


class ClientKeys:
    """Finds the keys of clients.

    Args:
        store: shares the fetched keys.
        outbound: sends requests.
        slots: limits how many requests wait.
    """

    def __init__(self, store: Store, outbound: Outbound, slots: Slots | None = None) -> None:
        self._store = store
        self._outbound = outbound
        self._slots = slots or Slots()
        self._of_operators = _Memory(_MOST_KEPT)
        self._of_strangers = _Memory(_MOST_KEPT_OF_STRANGERS)
        self._asking: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def current(self, client: Client, *, now: int) -> Sequence[OthersKey]:
        """The keys of a client. Those of its URL are fetched if there are none, or they are too old.

        Args:
            client: registered for `private_key_jwt`.
            now: Unix s.

        Raises:
            OAuthError: `temporarily_unavailable` if it has no keys yet, and too many requests wait for URLs already.
        """
        if client.jwks_uri is None:
            return self._keys(client, client.jwks)
        known = self._known(client)
        if not 0 <= now - known.fetched_at < FRESH_S:
            known = self._asked(client, known, waits=not self._of(client, known, now=now), now=now)
        return self._of(client, known, now=now)

    def again(self, client: Client, *, now: int) -> Sequence[OthersKey]:
        """The keys of a client's URL, fetched again because none of `current` fits. Empty if they were fetched a moment ago.

        Raises:
            OAuthError: as `current`.
        """
        if client.jwks_uri is None:
            return ()
        before = self._known(client)
        known = self._asked(client, before, waits=True, now=now)
        return () if known == before else self._of(client, known, now=now)

    def seen(self, clients: Iterable[Client], *, now: int) -> list[KeysAtUrl]:
        """The state of all clients that have their keys at a URL, without sending a request.

        Args:
            clients: any clients. Those without a URL are left out, and strangers, whose keys do not concern the operator.
            now: Unix s.
        """
        return [
            _seen(client, self._stored(client, now=now), now=now)
            for client in clients
            if client.jwks_uri is not None and not client.is_stranger
        ]

    def ask(self, client: Client, *, now: int) -> tuple[KeysAtUrl, Sequence[OthersKey]]:
        """Request a client's URL now, even if that was done a moment ago: the operator wants to know.

        Args:
            client: a client that has its keys at a URL.
            now: Unix s.

        Returns:
            The result, and the keys in use now.
        """
        found = self._fetched(client, replace(self._stored(client, now=now), asked_at=now), now=now)
        self._keep(client, found, now=now)
        return _seen(client, found, now=now), self._of(client, found, now=now)

    def _memory(self, client: Client) -> _Memory:
        return self._of_strangers if client.is_stranger else self._of_operators

    def _known(self, client: Client) -> _Fetched:
        return self._memory(client).known.get(_name(client), _Fetched())

    def _of(self, client: Client, known: _Fetched, *, now: int) -> Sequence[OthersKey]:
        if known.jwks is None or now - known.fetched_at >= KEPT_S:
            return ()
        return self._keys(client, known.jwks)

    def _keys(self, client: Client, jwks: Mapping[str, Any] | None) -> tuple[OthersKey, ...]:
        memory = self._memory(client)
        document, keys = memory.read.get(client.client_id, (None, ()))
        if jwks is not None and document != jwks:
            try:
                keys = usable_keys(jwks)
            except KeyFault:  # the rules may have changed since it was stored
                keys = ()
            memory.put(memory.read, client.client_id, (jwks, keys))
        return keys if jwks is not None else ()

    def _asked(self, client: Client, before: _Fetched, *, waits: bool, now: int) -> _Fetched:
        """Request the URL, unless this or another process did so within a minute. Returns its state.

        Args:
            client: the client.
            before: the state that this process knows.
            waits: whether to wait for another process that is fetching.
            now: Unix s.
        """
        if 0 <= now - before.asked_at < ASK_S and before.is_done:
            return before
        with self._slot(client, waits=waits) as is_free:
            if is_free:
                ask = self._asked_now if client.is_stranger else self._asked_in_turn
                return ask(client, before, waits=waits, now=now)
        if not waits:
            return before
        # Slow hosts of others do not stop a client whose keys another process has fetched.
        stored = before if client.is_unused else self._stored(client, now=now)
        if stored.fetched_at > before.fetched_at and self._of(client, stored, now=now):
            memory = self._memory(client)
            memory.put(memory.known, _name(client), stored)
            return stored
        words = "The client's keys are not known yet, and too many requests wait for keys of clients."
        raise OAuthError("temporarily_unavailable", words, cause="client_keys_awaited")

    def _slot(self, client: Client, *, waits: bool) -> contextlib.AbstractContextManager[bool]:
        if client.is_stranger:
            return self._slots.for_stranger(urlsplit(client.jwks_uri or "").hostname or "")
        return self._slots.for_operator(waits=waits)

    def _asked_in_turn(self, client: Client, before: _Fetched, *, waits: bool, now: int) -> _Fetched:
        with self._guard:
            lock = self._asking.setdefault(_name(client), threading.Lock())
        if not lock.acquire(blocking=waits):
            return before
        try:
            return self._asked_now(client, before, waits=waits, now=now)
        finally:
            lock.release()

    def _asked_now(self, client: Client, before: _Fetched, *, waits: bool, now: int) -> _Fetched:
        memory, name = self._memory(client), _name(client)
        known = memory.known.get(name, before)
        if known == before:  # nobody has requested it while this thread waited
            if client.is_unused:  # anybody can add such clients, so nothing is stored for them
                known = self._fetched(client, replace(known, asked_at=now), now=now)
            else:
                known = self._claimed(client, known, waits=waits, now=now)
            memory.put(memory.known, name, known)
        return known

    def _claimed(self, client: Client, known: _Fetched, *, waits: bool, now: int) -> _Fetched:
        """Be the one process that fetches now, or use what another one gets."""
        mine = False

        def claim(record: Record) -> Record | None:
            nonlocal mine
            stored = _read(record, client)
            mine = not 0 <= now - stored.asked_at < ASK_S
            return _written(record, client, replace(stored, asked_at=now, is_done=False)) if mine else None

        new = Record(Kind.REPLAY_MARKER, _id_hash(client), now + KEPT_S)
        changed = self._store.change(Kind.REPLAY_MARKER, new.id_hash, claim, new=new, now=now)
        if changed is None or not mine:
            return self._of_another(client, waits=waits, now=now)
        found = self._fetched(client, _read(changed, client), now=now)
        self._keep(client, found, now=now)
        return found

    def _keep(self, client: Client, found: _Fetched, *, now: int) -> None:
        """Share the result of a request."""
        new = Record(Kind.REPLAY_MARKER, _id_hash(client), now + KEPT_S)

        def written(record: Record) -> Record:
            return _written(record, client, found)

        self._store.change(new.kind, new.id_hash, written, new=new, now=now)

    def _stored(self, client: Client, *, now: int) -> _Fetched:
        record = self._store.get(Kind.REPLAY_MARKER, _id_hash(client), now=now)
        return _Fetched() if record is None else _read(record, client)

    def _of_another(self, client: Client, *, waits: bool, now: int) -> _Fetched:
        """What another process got, or with `waits`, what it gets."""
        waiting = threading.Event()
        found = _Fetched()
        for _ in range(round(_PATIENCE_S / _LOOK_S)):
            found = self._stored(client, now=now)
            if found.is_done or not waits or now - found.asked_at > _PATIENCE_S:
                break
            waiting.wait(_LOOK_S)
        return found

    def _fetched(self, client: Client, known: _Fetched, *, now: int) -> _Fetched:
        """Fetch the document. If that fails, the earlier one stays."""
        done = replace(known, is_done=True)
        try:
            answer = self._outbound.get(
                str(client.jwks_uri), operators=not client.is_stranger, accept="application/json"
            )
        except Unreachable as error:
            return replace(done, failure=error.cause)
        try:
            if answer.status != 200:
                raise KeyFault(f"has status {answer.status}")
            jwks = json.loads(answer.body)
            usable_keys(jwks)
        except (ValueError, RecursionError) as error:  # a KeyFault is a ValueError
            cause = str(error) if isinstance(error, KeyFault) else "is not JSON"
            _log.warning(
                "client_keys_unusable", client_id=client.client_id, detail=f"the answer of jwks_uri {cause}"
            )
            return replace(done, failure=f"the answer {cause}")
        return _Fetched(jwks, now, known.asked_at)


def _name(client: Client) -> str:
    return f"{client.client_id}\n{client.jwks_uri}"


def _id_hash(client: Client) -> str:
    """The id of the row. A stranger can change its URL as often as it likes, and has one row all the same."""
    return hash_handle(f"keys of a client\n{client.client_id if client.is_stranger else _name(client)}")


def _seen(client: Client, known: _Fetched, *, now: int) -> KeysAtUrl:
    counts = known.jwks is not None and now - known.fetched_at < KEPT_S
    return KeysAtUrl(
        client.client_id,
        str(client.jwks_uri),
        known.asked_at or None,
        known.fetched_at if counts else None,
        known.failure,
    )


def _read(record: Record, client: Client) -> _Fetched:
    body = record.body
    if body.get("jwks_uri", client.jwks_uri) != client.jwks_uri:
        return _Fetched()
    return _Fetched(
        body.get("jwks"),
        body.get("fetched_at", 0),
        body.get("asked_at", 0),
        body.get("is_done", True),
        body.get("failure"),
    )


def _written(record: Record, client: Client, known: _Fetched) -> Record:
    body = {
        "jwks_uri": client.jwks_uri,
        "jwks": known.jwks,
        "fetched_at": known.fetched_at,
        "asked_at": known.asked_at,
        "is_done": known.is_done,
        "failure": known.failure,
    }
    return replace(record, body=body, expires_at=max(known.fetched_at, known.asked_at) + KEPT_S)
