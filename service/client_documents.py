"""Clients that are known by their document: fetched when a user arrives, and stored for all processes.

Only an authorization request fetches. Everything else uses the stored copy (`service.clients`), which stays as long as
somebody uses the client.

Owns: when a document is fetched, and which parts of it are stored.
Never touches: the rules of documents (`protocol.client_documents`) and of strangers (`protocol.strangers`), pages.

Spec: draft-ietf-oauth-client-id-metadata-document-02 §5, §5.1, §5.2, §8.6
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal

from service.clients import Clients
from service.events import ClientChanged, Events
from service.outbound.fetcher import Outbound, Unreachable
from service.outbound.slots import Slots
from service.protocol.client_documents import (
    LONGEST_S,
    MOST_BYTES,
    DocumentRefused,
    fresh_s,
    read_document,
)
from service.protocol.clients import InvalidClientMetadata
from service.protocol.strangers import parse_stranger
from service.records.clients import Client, new_record, of_record, to_body
from service.records.unused import UnusedStrangers
from service.storage.interface import Kind, Record, Store
from service.subjects import Subjects

#: How long requests that find no free fetch use a copy that is no longer fresh, in s: one that no user has agreed to,
#: while another request fetches it, for at most 5 s; and one in use, which hosts of strangers could otherwise stop.
_MEANWHILE_S: Final = 60
_IN_USE_S: Final = 86_400
#: When a request that found too many fetches in progress may try again, in s.
RETRY_S: Final = 5


class DocumentBusy(DocumentRefused):
    """Too many documents are being fetched; try again."""

    def __init__(self) -> None:
        super().__init__("document_busy", "too many documents are being fetched, or one of this host is")


class ClientDocuments:
    """Finds the client of an authorization request, and fetches its document if its id is the URL of one.

    Args:
        store: the store of the copies.
        clients: the directory of all clients.
        outbound: sends requests.
        slots: limits the fetches.
        subjects: knows the ids of users.
        events: where changes of clients are reported.
        interaction_s: how long a sign-in may take; an unused copy stays at least that long.
    """

    def __init__(
        self,
        store: Store,
        clients: Clients,
        outbound: Outbound,
        slots: Slots,
        subjects: Subjects,
        events: Events,
        interaction_s: int,
    ) -> None:
        self._store = store
        self._clients = clients
        self._outbound = outbound
        self._slots = slots
        self._subjects = subjects
        self._unused_s = LONGEST_S + interaction_s
        self._events = events
        self._unused = UnusedStrangers(store)

    def find(self, client_id: str, *, address: str, now: int) -> Client | None:
        """The client of an authorization request.

        Args:
            client_id: its id. If that is the URL of a document, and there is no fresh copy, the document is fetched.
            address: the browser's address; empty if not known.
            now: Unix s.

        Returns:
            The client, or None if there is none with this id.

        Raises:
            DocumentRefused: if there is no document, or it is refused.
            DocumentBusy: if too many are being fetched.
        """
        client = self._clients.find(client_id, now=now)
        if client is not None and client.source != "document":
            return client
        hosts = self._clients.documents
        url = hosts.url_of(client_id) if hosts.opened else None
        if url is None:
            return None
        if client is None:
            registered = self._clients.registered(client_id, now=now)
            if registered is not None and not registered.is_stranger:
                return None  # the operator's own, which is not served; a document never takes its place
        if client is not None and now < client.fresh_until <= now + LONGEST_S:
            return client
        with self._slots.for_stranger(url.host) as is_free:
            if not is_free:
                if client is not None and now < _usable_until(client):
                    return client
                raise DocumentBusy
            fetched = self._fetched(client_id, now=now)
        return self._kept(fetched, address=address, now=now)

    def _fetched(self, client_id: str, *, now: int) -> Client:
        try:
            answer = self._outbound.get(
                client_id, operators=False, most_bytes=MOST_BYTES, accept="application/json"
            )
        except Unreachable:
            raise DocumentRefused(
                "document_unreachable", "it cannot be fetched; see outbound_failed"
            ) from None
        document = read_document(client_id, answer.status, answer.headers, answer.body)
        try:
            client = self._clients.checked(
                parse_stranger(
                    document,
                    client_id=client_id,
                    source="document",
                    scopes=self._clients.scopes,
                    devices=self._clients.stranger_devices,
                )
            )
        except InvalidClientMetadata as error:
            raise DocumentRefused("document_metadata", str(error)) from None
        if self._subjects.has_user(client_id, now=now):
            raise DocumentRefused("document_of_a_user", "its URL is the id of a user")
        return replace(client, fresh_until=now + fresh_s(answer.headers))

    def _kept(self, client: Client, *, address: str, now: int) -> Client:
        """Store the copy, or change the existing one. Returns the stored copy."""
        client = replace(client, row_ends_at=now + self._unused_s)
        new, body = new_record(client, address=address), to_body(client)
        what: Literal["registered", "metadata"] | None = None

        def decided(record: Record) -> Record:
            nonlocal what
            what = "registered" if record is new else "metadata" if _differ(record.body, body) else None
            return replace(record, body=body, expires_at=max(record.expires_at, new.expires_at))

        stored = self._store.change(Kind.CLIENT, new.id_hash, decided, new=new, now=now)
        if what is not None:
            self._events.send(ClientChanged(client_id=client.client_id, what=what, by="client"))
        if what == "registered":
            self._unused.added()
        return client if stored is None else of_record(stored, self._clients.scopes)


def _usable_until(client: Client) -> int:
    """Until when a copy is used that cannot be fetched again now, Unix s."""
    return client.fresh_until + (_MEANWHILE_S if client.is_unused else _IN_USE_S)


def _differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether two copies differ in more than their age."""
    return {**before, "fresh_until": 0} != {**after, "fresh_until": 0}
