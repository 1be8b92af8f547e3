"""What the app last reported about a user, and its row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from service.handles import hash_handle
from service.records.sessions import SignIn
from service.storage.interface import NEVER, Change, Kind, Record


@dataclass(frozen=True, slots=True)
class User:
    """What the app last reported about a user."""

    user_id: str
    claims: Mapping[str, Any] = field(default_factory=dict)
    roles: tuple[str, ...] = ()
    tenant_id: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of_body(user_id: str, body: Mapping[str, Any]) -> User:
        """Read the user from a record's body. Members that were never reported are missing."""
        return User(
            user_id,
            body.get("claims", {}),
            tuple(body.get("roles", ())),
            body.get("tenant_id"),
            body.get("attributes", {}),
        )


def remembered(user: SignIn) -> Change:
    """The change of the user's record for a new report."""
    fields = {
        "claims": dict(user.claims),
        "roles": list(user.roles),
        "tenant_id": user.tenant_id,
        "attributes": dict(user.attributes),
    }
    given = {name: value for name, value in fields.items() if name in user.given}
    id_hash = hash_handle(user.user_id)
    return Change(
        Kind.USER,
        id_hash,
        lambda record: replace(record, body={**record.body, **given}),
        new=Record(Kind.USER, id_hash, NEVER, user.user_id),
    )


class Users(Protocol):
    """Finds users."""

    def user(self, user_id: str, *, now: int) -> User:
        """What the app last reported about a user."""
        ...
