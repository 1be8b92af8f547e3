"""The directory of clients: those of the environment, then those of the database.

Owns: ids and secrets of new clients, rotation.
Never touches: requests, the metadata's rules (`protocol.clients`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, Protocol

import structlog

from service.events import UNHEARD, ClientChanged, Events
from service.handles import hash_handle, new_handle, new_id
from service.outbound.fetcher import Outbound, SettingsOfOutbound
from service.policies.values import CLIENT_CREDENTIALS
from service.protocol.client_addresses import check_addresses
from service.protocol.client_changes import changed_client
from service.protocol.client_documents import CLOSED, DocumentHosts, HostPattern
from service.protocol.clients import InvalidClientMetadata, MintedAudienceMissing, parse_client
from service.records.clients import (
    KEY_METHOD,
    Client,
    ClientSecret,
    new_record,
    of_record,
    row_ids,
    to_body,
)
from service.records.scopes import STANDARD_SCOPES, Scopes
from service.storage.interface import FALLS_WITH_CLIENT, Fitting, Kind, Record, Store
from service.subjects import SettingsOfSubjects, Subjects

#: How long a rotated secret stays valid, in s, so that the client's developers have an hour to change it.
ROTATION_OVERLAP_S: Final = 3600
_MOST_OLD_SECRETS: Final = 10  # each is compared at every authentication
#: The methods of clients that get no secret.
WITHOUT_SECRET: Final = ("none", KEY_METHOD)
#: How many clients are cached.
_MOST_READ: Final = 1000

_log = structlog.get_logger("clients")


class ClientExists(Exception):
    """The client id is taken."""


class ClientReadOnly(Exception):
    """The client is in the environment, or known by its document, and can only be changed there."""


class SettingsOfClients(SettingsOfSubjects, SettingsOfOutbound, Protocol):
    """The settings that are used here, by their names."""

    @property
    def jwt_audience(self) -> str | None: ...  # noqa: D102

    @property
    def jwt_alg(self) -> str: ...  # noqa: D102

    @property
    def scopes(self) -> Scopes: ...  # noqa: D102

    @property
    def id_token_algs(self) -> Sequence[str]: ...  # noqa: D102

    @property
    def stranger_devices(self) -> bool: ...  # noqa: D102

    @property
    def client_documents(self) -> bool | tuple[HostPattern, ...]: ...  # noqa: D102


class Clients:
    """The directory of clients.

    Args:
        from_environment: those of `PYLON_OIDC_CLIENTS`, which take precedence over the database.
        store: has the other clients.
        id_token_algs: the algorithms for ID tokens.
        minted_audience: the default `aud` of minted tokens, which no client may have as its id.
        audiences: every `aud` that has a policy; the same applies to them.
        scopes: the scopes that can be requested.
        mint_alg: the algorithm of minted tokens.
        events: where changes of clients are reported.
        subjects: knows the ids of users.
        outbound: checks the addresses that requests go to; None: they are not checked.
        stranger_devices: whether clients that the operator did not register may use the device grant.
        documents: which clients may be known by their documents.
    """

    def __init__(
        self,
        from_environment: Iterable[Client],
        store: Store,
        *,
        minted_audience: str | None,
        audiences: Collection[str] = (),
        mint_alg: str = "HS256",
        id_token_algs: Sequence[str] = ("RS256",),
        scopes: Scopes = STANDARD_SCOPES,
        events: Events = UNHEARD,
        subjects: Subjects | None = None,
        outbound: Outbound | None = None,
        stranger_devices: bool = False,
        documents: DocumentHosts = CLOSED,
    ) -> None:
        self._events = events
        self._outbound = outbound
        self.scopes = scopes
        self.stranger_devices = stranger_devices
        self.documents = documents
        self._id_token_algs = id_token_algs
        self._fixed = {client.client_id: client for client in from_environment}
        self._store = store
        self._audiences = {minted_audience, *audiences}
        self._lacks_minted_audience = mint_alg != "HS256" and minted_audience is None and not audiences
        self._subjects = subjects or Subjects(store, (), apart=False)
        self._mint_alg = mint_alg
        #: Cache of parsed clients, reused as long as they do not change.
        self._read: dict[str, tuple[Record, Client]] = {}

    @classmethod
    def of(
        cls,
        settings: SettingsOfClients,
        store: Store,
        *,
        events: Events = UNHEARD,
        subjects: Subjects | None = None,
    ) -> Clients:
        """The directory for these settings, the same for the service and its commands."""
        return cls(
            settings.clients,
            store,
            minted_audience=settings.jwt_audience,
            audiences=settings.audiences.audiences,
            mint_alg=settings.jwt_alg,
            scopes=settings.scopes,
            id_token_algs=settings.id_token_algs,
            events=events,
            subjects=subjects or Subjects.of(settings, store),
            outbound=Outbound.of(settings),
            stranger_devices=settings.stranger_devices,
            documents=DocumentHosts(settings.client_documents),
        )

    def find(self, client_id: str, *, now: int) -> Client | None:
        """The client of that id, if it is served. One that is called like an audience is not: see `checked`."""
        if client_id in self._audiences:
            return None
        client = self.registered(client_id, now=now)
        if client is not None and client.source == "document" and self.documents.url_of(client_id) is None:
            return None  # the operator has closed its host
        # Another process registered it after the start.
        if client is not None and self._lacks_minted_audience:
            _log.error(
                "client_not_served", client_id=client_id, detail=str(MintedAudienceMissing(self._mint_alg))
            )
            return None
        return client

    def registered(self, client_id: str, *, now: int) -> Client | None:
        """The client of that id, for the operator, also if it is not served."""
        if client_id in self._fixed:
            return self._fixed[client_id]
        before, client = self._read.get(client_id, (None, None))
        ids = row_ids(client_id) if before is None else (before.id_hash,)
        record = _first(self._store.get(Kind.CLIENT, id_hash, now=now) for id_hash in ids)
        if record is None:
            was_read = self._read.pop(client_id, None) is not None
            return self.registered(client_id, now=now) if was_read else None  # it may have another row now
        if client is None or before != record or before.version != record.version:
            if len(self._read) >= _MOST_READ:
                self._read.clear()
            client = of_record(record, self.scopes)
            self._read[client_id] = record, client
        return client

    def list(self, *, now: int) -> list[Client]:
        """All clients, ordered by id."""
        stored = [of_record(record, self.scopes) for record in self._store.list(Kind.CLIENT, now=now)]
        known = {client.client_id: client for client in stored} | self._fixed
        return [known[client_id] for client_id in sorted(known)]

    def add(self, metadata: Mapping[str, Any], *, now: int) -> tuple[Client, str | None]:
        """Register a client.

        Args:
            metadata: may have a `client_id`. A `client_secret` is created if missing, unless the method needs none.
            now: Unix s.

        Returns:
            The client, and its secret if one was created. The secret is not available later.

        Raises:
            InvalidClientMetadata: see `protocol.clients.parse_client`.
            MintedAudienceMissing: if minted tokens need an audience before there can be clients.
            ClientExists: if the id is taken.
        """
        made: str | None = None
        given = {"client_id": f"c_{new_id()}", **metadata}
        if "client_secret" not in given and given.get("token_endpoint_auth_method") not in WITHOUT_SECRET:
            made = given["client_secret"] = new_handle()
        client = self.checked(parse_client(given, source="database", scopes=self.scopes))
        client_id = client.client_id
        known = self.registered(client_id, now=now)
        if known is not None and known.source != "document":
            raise ClientExists
        if "client_id" in metadata:
            self._check_no_user(client_id, now=now)
            # A client of the environment may have had that id, and left records behind; or a document has it.
            copies = [Fitting(Kind.CLIENT, id_hash=each) for each in row_ids(client_id)[1:]]
            self._store.delete(*copies, *hanging_on(client_id), now=now)
        if not self._store.put(new_record(client), now=now):
            raise ClientExists
        if "client_id" in metadata:
            try:  # a session that starts at the same time either sees this client, or is seen here
                self._check_no_user(client_id, now=now)
            except InvalidClientMetadata:
                self._store.delete(Fitting(Kind.CLIENT, id_hash=row_ids(client_id)[0]), now=now)
                raise
        self._events.send(ClientChanged(client_id=client_id, what="registered"))
        return client, made

    def change(self, client_id: str, metadata: Mapping[str, Any], *, now: int) -> Client | None:
        """Replace a client's metadata, but not its secrets.

        Returns:
            The client, or None if it does not exist.

        Raises:
            InvalidClientMetadata: also if it would change the id, or has a secret that is not the client's.
            MintedAudienceMissing: if minted tokens need an audience before there can be clients.
            ClientReadOnly: if it is in the environment.
        """
        self._check_own_tokens(client_id, metadata, now=now)
        return self._change(client_id, lambda known: self._with_metadata(known, metadata, now=now), now=now)

    def update(self, client_id: str, members: Mapping[str, Any], *, now: int) -> tuple[Client, Client] | None:
        """Change some members of a client's metadata, and keep the others.

        Args:
            client_id: the client's id.
            members: their new values; None resets to the default.
            now: Unix s.

        Returns:
            The client before and after, or None if it does not exist.

        Raises:
            As `change`.
        """
        self._check_own_tokens(client_id, members, now=now)
        before: Client | None = None

        def updated(current: Client) -> Client:
            nonlocal before
            before, wanted = current, current.public_metadata() | dict(members)
            given = {name: value for name, value in wanted.items() if value is not None}
            return self._with_metadata(current, given, now=now)

        after = self._change(client_id, updated, now=now)
        return None if before is None or after is None else (before, after)

    def _with_metadata(self, current: Client, metadata: Mapping[str, Any], *, now: int) -> Client:
        """The client with other metadata and the same secrets."""
        if current.source == "document":
            raise ClientReadOnly
        devices = self.stranger_devices
        return self.checked(changed_client(current, metadata, scopes=self.scopes, devices=devices, now=now))

    def rotate_secret(self, client_id: str, *, now: int) -> str | None:
        """Give a client a new secret. The old one stays valid for an hour; earlier ones until their own hour is over.

        Returns:
            The new secret, or None if there is no such confidential client.

        Raises:
            ClientReadOnly: if it is in the environment.
        """
        secret, until = new_handle(), now + ROTATION_OVERLAP_S

        def rotated(current: Client) -> Client | None:
            if current.is_public or current.has_keys:
                return None
            old = [
                ClientSecret(kept.hash, until if kept.valid_until is None else kept.valid_until)
                for kept in current.secrets
                if kept.valid_until is None or now < kept.valid_until
            ]
            return replace(current, secrets=(ClientSecret(hash_handle(secret)), *old[:_MOST_OLD_SECRETS]))

        return None if self._change(client_id, rotated, what="secret", now=now) is None else secret

    def remove(self, client_id: str, *, now: int) -> bool:
        """Remove a client. Returns whether it existed.

        Raises:
            ClientReadOnly: if it is in the environment.
        """
        self._check_own(client_id)
        falling = hanging_on(client_id)
        ids, take = row_ids(client_id), self._store.take
        removed = _first(take(Kind.CLIENT, each, falling=falling, now=now) for each in ids) is not None
        if removed:
            self._events.send(ClientChanged(client_id=client_id, what="removed"))
        return removed

    def _check_no_user(self, client_id: str, *, now: int) -> None:
        if self._subjects.is_user(client_id, now=now):
            raise InvalidClientMetadata(
                "client_id", "is the id of a user, and an API could confuse the two; choose another"
            )

    def _check_own_tokens(self, client_id: str, metadata: Mapping[str, Any], *, now: int) -> None:
        """Check a client before it gets tokens of its own: it may be older than the rule about users' ids."""
        wanted = metadata.get("grant_types")
        if isinstance(wanted, list) and CLIENT_CREDENTIALS in wanted:
            self._check_no_user(client_id, now=now)

    def _check_own(self, client_id: str) -> None:
        if client_id in self._fixed:
            raise ClientReadOnly

    def _change(
        self,
        client_id: str,
        decide: Callable[[Client], Client | None],
        *,
        what: Literal["metadata", "secret"] = "metadata",
        now: int,
    ) -> Client | None:
        self._check_own(client_id)

        def decided(record: Record) -> Record | None:
            client = decide(of_record(record, self.scopes))
            return None if client is None else replace(record, body=to_body(client))

        ids, change = row_ids(client_id), self._store.change
        record = _first(change(Kind.CLIENT, each, decided, now=now) for each in ids)
        if record is None:
            return None
        self._events.send(ClientChanged(client_id=client_id, what=what))
        return of_record(record, self.scopes)

    def checked(self, client: Client) -> Client:
        """Check what the rules of a client do not know: addresses, audiences and keys.

        Raises:
            InvalidClientMetadata: names the member.
            MintedAudienceMissing: if minted tokens need an audience before there can be clients.
        """
        if self._lacks_minted_audience:
            raise MintedAudienceMissing(self._mint_alg)
        if self._outbound is not None:
            check_addresses(client, self._outbound)
        if client.client_id in self._audiences:  # a minted token could be used as its ID token
            raise InvalidClientMetadata("client_id", "is the audience of minted tokens; choose another")
        if client.id_token_signed_response_alg not in self._id_token_algs:
            raise InvalidClientMetadata(
                "id_token_signed_response_alg",
                f"there is no key for it; write {' or '.join(self._id_token_algs)}",
            )
        return client


def _first(found: Iterable[Record | None]) -> Record | None:
    return next((record for record in found if record is not None), None)


def hanging_on(client_id: str) -> list[Fitting]:
    """The records of a client, which a later client with the same id must not find."""
    return [Fitting(kind, client_id=client_id) for kind in FALLS_WITH_CLIENT]
