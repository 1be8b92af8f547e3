"""The interface of the store: fifteen verbs over frozen records.

All kinds of records have the same shape: an id, the subject, the grant, session and client that the record depends on,
when it ends, its version, and a body. The store never gets a token itself, only its hash.

Each verb is atomic, as its docstring says. Callers hold no locks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, Literal, Protocol

#: `expires_at` of a record that never ends: Unix s that no clock will reach.
NEVER: Final = 1 << 53


class Kind(StrEnum):
    """The kinds of records. Each has its own table."""

    #: A signed-in user on one device; id: hash of the session token; session: its `sid`.
    SESSION = "session"
    #: A browser that is signed in through the app's backend; id: hash of the provider's own cookie.
    PROVIDER_SESSION = "provider_session"
    #: A value that must not be used twice (the MAC of a trusted mint); id: its hash.
    REPLAY_MARKER = "replay_marker"
    #: The last known claims, roles and tenant of a user; id: hash of the user id; never ends.
    USER = "user_record"
    #: A registered client; never ends. Except a stranger that nobody has used; subject: the address that registered it.
    CLIENT = "client"
    #: An invitation to register clients; id: hash of its token; subject: its id for the operator.
    INVITATION = "invitation"
    #: A device that waits for its user; id: hash of its code; subject: the address that started it. And its user code.
    DEVICE = "device"
    #: An interaction that waits for the browser: to sign in or out, or for a form; subject: the address that started it.
    INTERACTION = "interaction"
    #: The outcome of an interaction, used once; id: hash of the verifier; grant: the interaction.
    VERIFIER = "verifier"
    #: A consent that the user wants remembered; id: hash of user, client and issuer.
    CONSENT = "consent"
    #: What a user lets a client do, with its code and tokens; id: its own, which is not secret.
    GRANT = "oauth_grant"
    #: A client that got tokens by a session; id: hash of both. It ends with the session, not with the grant.
    VISIT = "visit"
    #: A logout token that a client has not received yet, or could not receive; id: the token's `jti`.
    DELIVERY = "delivery"
    #: A status list that a process has taken; id: its number. And a bit that is set in it; id: its place, subject: the list.
    STATUS = "status"
    #: The ring of signing keys, one document whose id contains its version; and the id of this database. Neither ends.
    KEY_RING = "key_ring"


#: Which records end together, in the order of removal: first those that others depend on, so that none are added later.
#: Grants with offline access outlive their session, but lose their access tokens.
FALLS_WITH_SESSION: Final = (Kind.SESSION, Kind.PROVIDER_SESSION, Kind.GRANT, Kind.VISIT)
FALLS_WITH_USER: Final = (*FALLS_WITH_SESSION, Kind.CONSENT)
FALLS_WITH_CLIENT: Final = (Kind.GRANT, Kind.CONSENT, Kind.VISIT, Kind.DELIVERY, Kind.DEVICE)


@dataclass(frozen=True, slots=True)
class Record:
    """One row.

    Attributes:
        kind: its table.
        id_hash: SHA-256, in hex, of the handle that finds it; for a grant its plain id.
        expires_at: Unix s; from then on only `delete_expired` sees it.
        subject: the user id that it is about.
        grant_id: the grant that it depends on; it is removed with the grant.
        session_id: the `sid` of the session that it depends on; it is removed with the session.
        body: everything else that its kind needs; JSON.
        client_id: the client that it depends on; it is removed with the client.
        version: the store increments it at every change. If a record may be removed and stored again under the same id,
            it starts at a random version, so that the new record is never mistaken for the old one.
        outlives_session: for a grant: whether it stays when its session ends.
        tokens: for a grant: its access tokens, 32 bytes each, in the format of `service.records.grants`.
        due_at: for a delivery: when it is tried next, Unix s; `NEVER` if it is over.
        user: the body of its user's record, if that was read with it; it is not stored.
    """

    kind: Kind
    id_hash: str
    expires_at: int
    subject: str = ""
    grant_id: str = ""
    session_id: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    client_id: str = ""
    version: int = field(default=1, compare=False)
    outlives_session: bool = False
    tokens: bytes = b""
    due_at: int = 0
    user: Mapping[str, Any] | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Fitting:
    """Selects the live records of a kind that have all the given values.

    Attributes:
        kind: their table.
        id_hash, subject, grant_id, client_id, version: as in `Record`.
        session_id: their session. A refreshed session keeps its `sid`, but not its id.
        keep_session_id: a session whose records are left out.
        outlives_session: only grants that outlive their session, or only those that do not.
    """

    kind: Kind
    id_hash: str | None = None
    subject: str | None = None
    grant_id: str | None = None
    session_id: str | None = None
    client_id: str | None = None
    version: int | None = None
    keep_session_id: str | None = None
    outlives_session: bool | None = None

    def said(self) -> dict[str, str | int]:
        """The given values, by name.

        Raises:
            ValueError: if there are none, or only values that leave records out: that would select everything.
        """
        said = {name: value for name in _SAID if (value := getattr(self, name)) is not None}
        if not said.keys() - _LEAVING_OUT:
            raise ValueError("nothing is said of the records")
        return said


_SAID: Final = tuple(item.name for item in fields(Fitting) if item.name != "kind")
_LEAVING_OUT: Final = {"keep_session_id", "outlives_session"}

#: Decides the new version of a record; None leaves it as it is. It is called again if another writer was faster, so it
#: must have no side effects. Kind and id do not change.
Decide = Callable[[Record], Record | None]
#: What is stored when a session or grant is removed, or loses its access tokens, now (Unix s); None: nothing.
Remains = Callable[[Record, int], Record | None]
#: Decides what is stored when records are removed, from each of them and the bodies of its client's records.
Leaving = Callable[[Sequence[tuple[Record, Sequence[Mapping[str, Any]]]]], Sequence[Record]]
RingOfBefore = Callable[[Sequence[Record]], tuple[str, Record] | None]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one record, as part of a larger transaction.

    Attributes:
        kind: its table.
        id_hash: its id.
        decide: returns its new version.
        new: passed to `decide` if there is no live record of that id; None: nothing is changed then.
    """

    kind: Kind
    id_hash: str
    decide: Decide
    new: Record | None = None


class StoreUnavailable(Exception):
    """The database is unavailable. The caller may try again later; nothing was stored.

    Attributes:
        reason: the message of the database or its driver, on one line, without secrets.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class StoreRefused(StoreUnavailable):
    """The database refuses, and trying again does not help: the settings or the database must be changed.

    Attributes:
        remedy: what to change.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


class Contended(StoreUnavailable):
    """Other requests changed the same records at every attempt. Nothing was stored."""

    def __init__(self, reason: str = "others changed the same at the same time") -> None:
        super().__init__(reason)


class NotStanding(Exception):
    """A record that is required or was to be changed does not exist. Nothing was stored."""


class Store(Protocol):
    """The verbs. Each may raise `StoreUnavailable`; those that write also its subclass `Contended`. `now` is Unix s."""

    def put(
        self,
        *records: Record,
        changes: Sequence[Change] = (),
        standing_on: Sequence[Fitting] = (),
        ending: bool = False,
        now: int,
    ) -> bool:
        """Store new records and change others: all of it or nothing, in one transaction.

        If several callers put the same id, exactly one succeeds.

        Args:
            records: the new records, in the order in which they are stored.
            changes: the changes to make with them; see `change`.
            standing_on: records that must exist, one for each. A caller that removes one of them either was first, or
                waits until this is stored and then finds it.
            ending: whether this serves to end something, such as a sign-out that waits for its answer. On a full disk
                it may then use the reserve.
            now: Unix s.

        Returns:
            False if an id already exists, even one that has ended and is not swept yet.

        Raises:
            NotStanding: if a record of `standing_on` or `changes` does not exist, or its `decide` leaves it as it is.
        """
        ...

    def get(self, kind: Kind, id_hash: str, *, with_user: bool = False, now: int) -> Record | None:
        """Return the live record of that id, perhaps with the body of its user's record. This is one statement."""
        ...

    def take(
        self,
        kind: Kind,
        id_hash: str,
        *,
        put: Sequence[Record] = (),
        changes: Sequence[Change] = (),
        falling: Sequence[Fitting] = (),
        standing_on: Sequence[Fitting] = (),
        version: int | None = None,
        now: int,
    ) -> Record | None:
        """Remove the live record of that id and return it. If several callers take it, exactly one gets it.

        The same transaction removes the records that depend on it, stores `put` and makes `changes`, as `Store.put`
        does. With `version`, only a caller that has read that version gets it.

        Raises:
            NotStanding: as for `put`. The record is then still there.
        """
        ...

    def swap(self, record: Record, *, beside: Record | None = None, ending: bool = False, now: int) -> bool:
        """Store a changed record, if it is still as it was read: live, and with the version that `record` has.

        Without `beside`, this is one statement in its own transaction. Subject, session and client do not change.

        Args:
            record: the new values, with the version that was read.
            beside: a new record to store in the same transaction, by one more statement, unless its id already exists.
            ending: whether it removes something. On a full disk it may then use the reserve.
            now: Unix s.

        Returns:
            False if the record is gone, or another caller was faster.
        """
        ...

    def change(
        self,
        kind: Kind,
        id_hash: str,
        decide: Decide,
        *,
        new: Record | None = None,
        standing_on: Sequence[Fitting] = (),
        now: int,
    ) -> Record | None:
        """Change the live record of that id, without losing changes by others.

        The record is read, decided, and stored in one statement if its version is still the one that was read. A caller
        that loses reads and decides again.

        Args:
            kind: its kind.
            id_hash: its id.
            decide: returns the new record; see `Decide`. If it raises, nothing is changed.
            new: passed to `decide` if there is no live record of that id, and stored then.
            standing_on: as for `put`.
            now: Unix s.

        Returns:
            The record as it is now; None if there is none, or `decide` leaves it as it is.

        Raises:
            NotStanding: if a record of `standing_on` does not exist.
            Contended: if every attempt lost.
        """
        ...

    def replace(self, kind: Kind, id_hash: str, successor: Record, *, now: int) -> bool:
        """Replace the live record of that id with `successor`, in one statement.

        If several callers replace the same id, one succeeds. From then on only the successor's id finds the record.

        Returns:
            False if there is no live record of that id.
        """
        ...

    def due(self, kind: Kind, *, until: int, most: int, but: Sequence[str] = (), now: int) -> list[Record]:
        """List the live records that are due by then (Unix s), except those of some clients; the earliest first."""
        ...

    def list(
        self, kind: Kind, *, subject: str | None = None, session_id: str | None = None, now: int
    ) -> list[Record]:
        """List the live records of a subject, of a session, or all of them. The one that ends last comes first."""
        ...

    def delete(
        self,
        *fitting: Fitting,
        without_tokens: Sequence[Fitting] = (),
        leaving: Leaving | None = None,
        now: int,
    ) -> int:
        """Remove the live records that fit, and the access tokens of grants that stay, in one transaction.

        Args:
            fitting: what to remove, in this order: first the records that others depend on, so that none are added later.
            without_tokens: grants that stay, but lose their access tokens.
            leaving: what to store for the removed visits; one more statement if there is anything.

        Returns:
            How many records fitted the first.

        Raises:
            ValueError: if one of them has no values: it would select everything.
        """
        ...

    def delete_expired(self, *, now: int, limit: int) -> int:
        """Remove up to `limit` records of each kind that have ended. Returns how many."""
        ...

    def trim(self, kind: Kind, *, most_of_one: int, most: int) -> int:
        """Limit the records of a kind. If there are too many, the oldest ones of the subject with the most are removed.

        Records that never end are neither counted nor removed. Records that have ended count until they are removed. Up to a sixteenth of the limit is removed in addition, so
        that the next call has nothing to do. It runs in several transactions, so that others do not wait for all of it.

        Args:
            kind: a kind whose records end in the order in which they were put.
            most_of_one: the limit for one subject. It does not apply to the empty subject.
            most: the limit for all.

        Returns:
            How many were removed.
        """
        ...

    def check_revocable(self) -> None:
        """Refuse if a token that is issued now could not be revoked: the disk is full, or the server is read-only.

        Called after the read that the answer is based on, it needs no statement.

        Raises:
            StoreUnavailable: no token may be issued then.
        """
        ...

    def migrate(self, ring_of_before: RingOfBefore | None = None) -> None:
        """Bring the schema up to date. Several processes may call it at once: one migrates, and the others wait.

        Args:
            ring_of_before: called with the key ring before revision 0005. Returns what to replace with what.
        """
        ...

    def schema_state(self) -> Literal["current", "behind", "ahead", "copying"]:
        """Compare the schema with the one that this version needs. This is also the store's ping.

        `ahead`: a newer version has migrated. `copying`: a copy into this database is not finished.
        """
        ...

    def write_refusal(self) -> StoreUnavailable | None:
        """Why a write would be refused now, as far as that can be seen without writing; None if it would not."""
        ...

    def rest(self) -> None:
        """Close the connection of this thread, which needs none for a while. Its next verb opens another."""
        ...

    def close(self) -> None:
        """Close every connection, and stop background work, before a fork. The next verb starts both again."""
        ...
