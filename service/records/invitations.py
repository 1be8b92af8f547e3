"""Invitations to register a client: initial access tokens, each with the number of its uses.

Spec: RFC 7591 §3 (initial access token)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from service.handles import hash_handle
from service.storage.interface import Change, Kind, Record


@dataclass(frozen=True, slots=True)
class Invitation:
    """One invitation.

    Attributes:
        id: its id for the operator; not secret.
        token_hash: hash of its token.
        uses_left: how many clients it may still register.
        expires_at: Unix s.
        created_at: Unix s.
        metadata: limits the metadata of the clients that it registers.
    """

    id: str
    token_hash: str
    uses_left: int
    expires_at: int
    created_at: int
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def to_record(self) -> Record:
        """Its row."""
        body = {"uses": self.uses_left, "created_at": self.created_at, "metadata": dict(self.metadata)}
        return Record(Kind.INVITATION, self.token_hash, self.expires_at, self.id, body=body)


def of_record(record: Record) -> Invitation:
    """Read one from its row."""
    body = record.body
    return Invitation(
        id=record.subject,
        token_hash=record.id_hash,
        uses_left=body["uses"],
        expires_at=record.expires_at,
        created_at=body["created_at"],
        metadata=body["metadata"],
    )


def id_of(unverified_token: str) -> str:
    """The id of the row of a token."""
    return hash_handle(unverified_token)


def one_use(invitation: Invitation) -> Change:
    """The change that uses it once. If no use is left, it leaves the row as it is, and so refuses."""

    def used(record: Record) -> Record | None:
        uses = record.body["uses"]
        return replace(record, body={**record.body, "uses": uses - 1}) if uses > 0 else None

    return Change(Kind.INVITATION, invitation.token_hash, used)
