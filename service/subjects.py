"""Whose a `sub` is: while clients get tokens of their own, none of them is called as a user is, and no user as a client.

A token for an API says its `sub`, and an API that knows users by it would take a client for the user of that name.

Owns: what is asked of the store to know it. Where no client gets tokens of its own, nothing is asked.
Never touches: requests, what is done with the answer.

Spec: RFC 9700 §4.15
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from service.handles import hash_handle
from service.policies.values import CLIENT_CREDENTIALS, Policies
from service.records.clients import Client
from service.storage.interface import Kind, Store


class IsAClient(Exception):
    """The user is called as a client is: no session is begun, nothing is remembered."""


class SettingsOfSubjects(Protocol):
    """What the settings say of them: each by the name that it has there."""

    @property
    def clients(self) -> Sequence[Client]: ...  # noqa: D102

    @property
    def audiences(self) -> Policies: ...  # noqa: D102


class Subjects:
    """Knows which name is a client's, and which a user's.

    Args:
        store: where both are.
        from_environment: the ids of the clients of the environment.
        apart: whether they are kept apart at all: some client may get tokens of its own.
    """

    def __init__(self, store: Store, from_environment: Iterable[str], *, apart: bool) -> None:
        self._store = store
        self._fixed = frozenset(from_environment)
        self.apart = apart

    @classmethod
    def of(cls, settings: SettingsOfSubjects, store: Store) -> Subjects:
        """Those of the settings."""
        ids = [client.client_id for client in settings.clients]
        return cls(store, ids, apart=settings.audiences.served_by(CLIENT_CREDENTIALS))

    def is_client(self, user_id: str, *, now: int) -> bool:
        """Whether a client is called so. One statement at most."""
        if not self.apart:
            return False
        return user_id in self._fixed or self._has(Kind.CLIENT, user_id, now)

    def is_user(self, client_id: str, *, now: int) -> bool:
        """Whether a user is called so who is known, signed in, or has granted something. Three statements at most."""
        if not self.apart:
            return False
        return self._has(Kind.USER, client_id, now) or any(
            self._store.list(kind, subject=client_id, now=now) for kind in (Kind.SESSION, Kind.GRANT)
        )

    def _has(self, kind: Kind, name: str, now: int) -> bool:
        return self._store.get(kind, hash_handle(name), now=now) is not None
