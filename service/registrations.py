"""Clients that register themselves, and manage their registration.

Owns: who may register, the issued credentials, the uses of an invitation.
Never touches: requests; what a stranger may have (`protocol.strangers`).

Spec: RFC 7591 §3, RFC 7592 §2
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol

from service.clients import Clients, hanging_on
from service.events import ClientChanged, Events
from service.handles import hash_handle, new_handle, new_id
from service.protocol.client_changes import check_secret_sent_back
from service.protocol.clients import InvalidClientMetadata
from service.protocol.errors import OAuthError
from service.protocol.strangers import method_of, parse_stranger, redirect_hosts, with_metadata, within
from service.records.clients import (
    REGISTERED,
    SECRET_METHODS,
    Client,
    ClientSecret,
    Registration,
    new_record,
    of_record,
    row_id,
)
from service.records.invitations import Invitation, id_of, one_use
from service.records.invitations import of_record as invitation_of
from service.records.unused import UnusedStrangers
from service.storage.interface import Contended, Fitting, Kind, NotStanding, Record, Store

DAY_S: Final = 86_400
_ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True)
class Registered:
    """A client that has registered itself.

    Attributes:
        client: as it is stored.
        token: its registration access token.
        secret: its secret, if one was created just now; it is not available later.
    """

    client: Client
    token: str
    secret: str | None = None


class SettingsOfRegistrations(Protocol):
    """The settings that are used here, by their names."""

    @property
    def registration(self) -> Literal["off", "token", "open"]: ...  # noqa: D102

    @property
    def registration_idle_days(self) -> int: ...  # noqa: D102


class Registrations:
    """Registers clients.

    Args:
        store: the store.
        clients: the directory of all clients.
        mode: who may register.
        idle_days: after how many days an unused registration expires.
        events: where changes of clients are reported.
    """

    def __init__(
        self,
        store: Store,
        clients: Clients,
        *,
        mode: Literal["off", "token", "open"],
        idle_days: int,
        events: Events,
    ) -> None:
        self._store = store
        self._clients = clients
        self._idle_s = idle_days * DAY_S
        self._events = events
        self._unused = UnusedStrangers(store)
        self.mode = mode

    @classmethod
    def of(
        cls, settings: SettingsOfRegistrations, store: Store, clients: Clients, events: Events
    ) -> Registrations:
        """The one for these settings."""
        return cls(
            store,
            clients,
            mode=settings.registration,
            idle_days=settings.registration_idle_days,
            events=events,
        )

    def register(
        self, metadata: Mapping[str, Any], invitation: Invitation | None, *, address: str, now: int
    ) -> Registered:
        """Register a client.

        Args:
            metadata: from any source.
            invitation: what `invitation` returned for the request.
            address: where the request comes from; empty if not known.
            now: Unix s.

        Raises:
            OAuthError: `invalid_token` if others have used up the invitation in the meantime.
            InvalidClientMetadata: names the first member that is missing or not allowed.

        Spec: RFC 7591 §3.1
        """
        bounds = {} if invitation is None else invitation.metadata
        given = within(metadata, bounds)
        token = new_handle()
        secret = new_handle() if method_of(given) in SECRET_METHODS else None
        client = parse_stranger(
            given,
            client_id=REGISTERED + new_id(),
            source="registration",
            scopes=self._clients.scopes,
            devices=self._clients.stranger_devices,
            secrets=() if secret is None else (ClientSecret(hash_handle(secret)),),
        )
        registration = Registration(hash_handle(token), now, bounds)
        client = self._clients.checked(
            replace(client, registration=registration, row_ends_at=now + self._idle_s)
        )
        using = () if invitation is None else (one_use(invitation),)
        try:
            self._store.put(new_record(client, address=address), changes=using, now=now)
        except NotStanding:  # others have used it up in the meantime
            raise _wrong_token("invitation_used_up") from None
        self._unused.added()
        self._tell(client, "registered")
        return Registered(client, token, secret)

    def read(self, client_id: str, unverified_token: str, *, now: int) -> Client:
        """The client that manages itself with this token.

        Raises:
            OAuthError: `invalid_token`, also for an unknown client.

        Spec: RFC 7592 §2.1
        """
        return self._owned(client_id, unverified_token, now=now)[1]

    def change(
        self, client_id: str, unverified_token: str, metadata: Mapping[str, Any], *, now: int
    ) -> Registered:
        """Replace all metadata of a client. Users are asked again if it sends them to another host.

        Args:
            client_id: its id.
            unverified_token: its registration access token.
            metadata: with its `client_id`; a `client_secret` must be the current one.
            now: Unix s.

        Raises:
            OAuthError: `invalid_token`, also for an unknown client.
            InvalidClientMetadata: names the member.
            Contended: if others were faster at every attempt.

        Spec: RFC 7592 §2.2
        """
        for _ in range(_ATTEMPTS):
            row, current = self._owned(client_id, unverified_token, now=now)
            client, secret = self._changed(current, metadata, now=now)
            is_elsewhere = redirect_hosts(client) != redirect_hosts(current)
            falling = [Fitting(Kind.CONSENT, client_id=client_id)] if is_elsewhere else []
            successor = new_record(client, address=row.subject)
            taken = self._store.take(
                Kind.CLIENT, row.id_hash, put=[successor], falling=falling, version=row.version, now=now
            )
            if taken is not None:
                self._tell(client, "metadata")
                return Registered(client, unverified_token, secret)
        raise Contended

    def remove(self, client_id: str, unverified_token: str, *, now: int) -> None:
        """Remove a client, and everything that depends on it.

        Raises:
            OAuthError: `invalid_token`, also for an unknown client.

        Spec: RFC 7592 §2.3
        """
        row, client = self._owned(client_id, unverified_token, now=now)
        if self._store.take(Kind.CLIENT, row.id_hash, falling=hanging_on(client_id), now=now) is None:
            raise _wrong_token("client_unknown")
        self._tell(client, "removed")

    # --- what a token opens ---

    def invitation(self, unverified_token: str | None, *, now: int) -> Invitation | None:
        """The invitation of a request; None if none is needed and none was sent.

        Args:
            unverified_token: the initial access token, if the request has one.
            now: Unix s.

        Raises:
            OAuthError: `invalid_token` if a required invitation is missing, or the token is wrong.

        Spec: RFC 7591 §3
        """
        if unverified_token is None and self.mode == "open":
            return None
        record = self._store.get(Kind.INVITATION, id_of(unverified_token or ""), now=now)
        if record is None:
            raise _wrong_token("invitation_unknown")
        invitation = invitation_of(record)
        if invitation.uses_left < 1:
            raise _wrong_token("invitation_used_up")
        return invitation

    def _owned(self, client_id: str, unverified_token: str, *, now: int) -> tuple[Record, Client]:
        row = self._store.get(Kind.CLIENT, row_id(client_id, "registration"), now=now)
        client = None if row is None else of_record(row, self._clients.scopes)
        known = "" if client is None or client.registration is None else client.registration.token_hash
        # An unknown client costs the same comparison, and gets the same answer.
        if not hmac.compare_digest(hash_handle(unverified_token), known) or row is None or client is None:
            raise _wrong_token("registration_token_wrong" if client else "client_unknown")
        return row, client

    # --- the next version of a client ---

    def _changed(
        self, current: Client, metadata: Mapping[str, Any], *, now: int
    ) -> tuple[Client, str | None]:
        """The client with other metadata, and its secret if it needs a new one."""
        if metadata.get("client_id") != current.client_id:
            raise InvalidClientMetadata("client_id", "is not the id of this client; write it unchanged")
        check_secret_sent_back(current, metadata, now=now)
        bounds = {} if current.registration is None else current.registration.bounds
        given = within(metadata, bounds)
        secret, secrets = None, current.secrets
        if method_of(given) not in SECRET_METHODS:
            secrets = ()
        elif not secrets:
            secret = new_handle()
            secrets = (ClientSecret(hash_handle(secret)),)
        client = with_metadata(
            current,
            given,
            scopes=self._clients.scopes,
            devices=self._clients.stranger_devices,
            secrets=secrets,
        )
        return self._clients.checked(client), secret

    def _tell(self, client: Client, what: Literal["registered", "metadata", "removed"]) -> None:
        self._events.send(ClientChanged(client_id=client.client_id, what=what, by="client"))


def _wrong_token(cause: str) -> OAuthError:
    """The same answer for every wrong token (RFC 6750 §3)."""
    return OAuthError("invalid_token", "The token is missing, unknown, expired or used up.", cause=cause)
