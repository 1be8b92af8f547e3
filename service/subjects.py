"""Keeps the ids of users and clients apart, if clients get tokens of their own.

An API identifies users by the `sub` of a token, so it would mistake a client for the user with the same id.

Owns: the queries for that. If no client gets tokens of its own, there are none.
Never touches: requests, and the consequences of a clash.

Spec: RFC 9700 §4.15
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from service.handles import hash_handle
from service.policies.values import CLIENT_CREDENTIALS, Policies
from service.records.clients import Client, row_ids
from service.storage.interface import Kind, Store


class IsAClient(Exception):
    """A client has the user's id: no session is started, and nothing is stored."""


class SettingsOfSubjects(Protocol):
    """The settings that are used here, by their names."""

    @property
    def clients(self) -> Sequence[Client]: ...  # noqa: D102

    @property
    def audiences(self) -> Policies: ...  # noqa: D102


class Subjects:
    """Knows which ids belong to clients, and which to users.

    Args:
        store: has both.
        from_environment: the ids of the clients of the environment.
        apart: whether to keep them apart, because some client may get tokens of its own.
    """

    def __init__(self, store: Store, from_environment: Iterable[str], *, apart: bool) -> None:
        self._store = store
        self._fixed = frozenset(from_environment)
        self.apart = apart

    @classmethod
    def of(cls, settings: SettingsOfSubjects, store: Store) -> Subjects:
        """Create it for these settings."""
        ids = [client.client_id for client in settings.clients]
        return cls(store, ids, apart=settings.audiences.served_by(CLIENT_CREDENTIALS))

    def is_client(self, user_id: str, *, now: int) -> bool:
        """Whether a client has this id. At most one statement, and two for ids that strangers may have."""
        if not self.apart:
            return False
        return user_id in self._fixed or any(
            self._store.get(Kind.CLIENT, id_hash, now=now) for id_hash in row_ids(user_id)
        )

    def is_user(self, client_id: str, *, now: int) -> bool:
        """Whether a user has this id, where that matters. At most three statements."""
        return self.apart and self.has_user(client_id, now=now)

    def has_user(self, client_id: str, *, now: int) -> bool:
        """Whether a user with this id is known, is signed in, or has a grant. At most three statements."""
        return self._has(Kind.USER, client_id, now) or any(
            self._store.list(kind, subject=client_id, now=now) for kind in (Kind.SESSION, Kind.GRANT)
        )

    def _has(self, kind: Kind, name: str, now: int) -> bool:
        return self._store.get(kind, hash_handle(name), now=now) is not None
