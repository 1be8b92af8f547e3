"""What the rest of the program may ask of the store: nine verbs over frozen records.

A record has one shape whatever its kind: a hashed id, the subject that it is about, the grant that it hangs on,
when it ends, and a body. What is given out (a token) never reaches the store, only its hash does.

Atomicity is the store's promise, and it stands in each verb's docstring: the callers hold no locks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol


class Kind(StrEnum):
    """What a record is. One table each."""

    #: A signed-in user on one device; id: hash of the session token; grant: the `sid`.
    SESSION = "session"
    #: What was seen once and must not be again (a trusted-mint MAC); id: its hash.
    REPLAY_MARKER = "replay_marker"


@dataclass(frozen=True, slots=True)
class Record:
    """One row.

    Attributes:
        kind: which table it lives in.
        id_hash: SHA-256, in hex, of the handle that finds it.
        expires_at: Unix s; from then on no verb but `delete_expired` sees it.
        subject: the user id that it is about.
        grant_id: what it hangs on, and falls with.
        body: whatever else its kind needs; JSON.
    """

    kind: Kind
    id_hash: str
    expires_at: int
    subject: str = ""
    grant_id: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)


class StoreUnavailable(Exception):
    """The database cannot be asked now. The caller may try again later; nothing of the call was kept."""


class Store(Protocol):
    """The verbs. Each may raise `StoreUnavailable`. `now` is Unix s."""

    def put(self, *records: Record, now: int) -> bool:
        """Store new records, all of them or none.

        Of any number of callers that put the same id, one succeeds.

        Returns:
            False when an id is there already, even one that has ended and is not swept yet.
        """
        ...

    def get(self, kind: Kind, id_hash: str, *, now: int) -> Record | None:
        """The live record of that id. One statement; the hot path."""
        ...

    def take(self, kind: Kind, id_hash: str, *, now: int) -> Record | None:
        """Remove the live record of that id and return it; of any number of callers one gets it."""
        ...

    def replace(self, kind: Kind, id_hash: str, successor: Record, *, now: int) -> bool:
        """Put `successor` in the place of the live record of that id, in one statement.

        Of any number of callers that replace the same id, one succeeds; from then on only the successor's id
        finds the record.

        Returns:
            False when there is no live record of that id.
        """
        ...

    def list(self, kind: Kind, *, subject: str, now: int) -> list[Record]:
        """The live records about a subject, the one that ends last first."""
        ...

    def delete(
        self, kind: Kind, *, subject: str, grant_id: str | None = None, keep: str | None = None, now: int
    ) -> int:
        """Remove the live records about a subject.

        Args:
            kind: of which kind.
            subject: about whom.
            grant_id: only those of this grant.
            keep: not those of this grant.
            now: Unix s.

        Returns:
            How many there were.
        """
        ...

    def delete_expired(self, *, now: int, limit: int) -> int:
        """Remove up to `limit` records of each kind that have ended; how many it were."""
        ...

    def migrate(self) -> None:
        """Bring the schema up to date. Any number of processes may call it at once: one does it, all wait."""
        ...

    def schema_state(self) -> Literal["current", "behind", "ahead"]:
        """Whether the schema is the one that this version works on; also the store's ping.

        `ahead`: a newer version has migrated already, as in the middle of a rolling deployment.
        """
        ...

    def close(self) -> None:
        """Let go of every connection; the next verb opens new ones. Called before a fork."""
        ...
