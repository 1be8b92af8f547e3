"""What the rest of the program may ask of the store: thirteen verbs over frozen records.

A record has one shape whatever its kind: an id, the subject that it is about, the grant, the session and the client that
it hangs on, when it ends, its version, and a body. What is given out (a token) never reaches the store, only its hash does.

Atomicity is the store's promise, and it stands in each verb's docstring: the callers hold no locks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, Literal, Protocol

#: `expires_at` of what does not end: Unix s that no clock will show.
NEVER: Final = 1 << 53


class Kind(StrEnum):
    """What a record is. One table each."""

    #: A signed-in user on one device; id: hash of the session token; session: its `sid`.
    SESSION = "session"
    #: A browser that signed in here through the app's backend; id: hash of the provider's own cookie.
    PROVIDER_SESSION = "provider_session"
    #: What was seen once and must not be again (a trusted-mint MAC); id: its hash.
    REPLAY_MARKER = "replay_marker"
    #: The last known claims, roles and tenant of a user; id: hash of the user id; never ends.
    USER = "user_record"
    #: A client that was registered here; id: hash of the client id; never ends.
    CLIENT = "client"
    #: What waits for a browser to come back: a request to sign in or out, a form; subject: from which address it was begun.
    INTERACTION = "interaction"
    #: How an interaction goes on, once; id: hash of the verifier; grant: the interaction.
    VERIFIER = "verifier"
    #: What a user allowed a client and wants remembered; id: hash of user, client and issuer.
    CONSENT = "consent"
    #: What a user lets a client do, with its code and its tokens; id: its own, which is no secret.
    GRANT = "oauth_grant"
    #: To which client a session has signed its user in; id: hash of both. It ends with the session, not with the grant.
    VISIT = "visit"
    #: The ring of signing keys, one document whose id says its version; and the id of this database. Neither ends.
    KEY_RING = "key_ring"


#: What falls with what, in the order in which it goes: first what others stand on, so that nothing is stored behind it.
#: Of the grants that a session began, those of offline access stay, without their access tokens.
FALLS_WITH_SESSION: Final = (Kind.SESSION, Kind.PROVIDER_SESSION, Kind.VISIT, Kind.GRANT)
FALLS_WITH_USER: Final = (*FALLS_WITH_SESSION, Kind.CONSENT)
FALLS_WITH_CLIENT: Final = (Kind.GRANT, Kind.CONSENT, Kind.VISIT)


@dataclass(frozen=True, slots=True)
class Record:
    """One row.

    Attributes:
        kind: which table it lives in.
        id_hash: SHA-256, in hex, of the handle that finds it; of a grant its id as it is.
        expires_at: Unix s; from then on no verb but `delete_expired` sees it.
        subject: the user id that it is about.
        grant_id: the grant that it hangs on, and falls with.
        session_id: the `sid` of the session that it hangs on, and falls with.
        body: whatever else its kind needs; JSON.
        client_id: the client that it hangs on, and falls with.
        version: the store counts it up at every change. What may be removed and then stored again under the same id
            begins at a random one, so that nobody takes the new record for the old one.
        outlives_session: of a grant: whether it stays when its session ends.
        tokens: of a grant: its access tokens, 32 bytes each; what they say is for `service.records.grants`.
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


@dataclass(frozen=True, slots=True)
class Fitting:
    """The live records of a kind that fit everything that is said of them.

    Attributes:
        kind: which table they live in.
        id_hash: of that id.
        subject: about whom.
        grant_id: of which grant.
        session_id: of which session. A session keeps its `sid` when it is refreshed, its id it does not.
        client_id: of which client.
        version: in which version.
        keep_session_id: not those of this session.
        outlives_session: those grants that stay when their session ends, or those that do not.
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
        """What is said of them: values by name.

        Raises:
            ValueError: when nothing is, or only what leaves some out: that would be all.
        """
        said = {name: value for name in _SAID if (value := getattr(self, name)) is not None}
        if not said.keys() - _LEAVING_OUT:
            raise ValueError("nothing is said of the records")
        return said


_SAID: Final = tuple(item.name for item in fields(Fitting) if item.name != "kind")
_LEAVING_OUT: Final = {"keep_session_id", "outlives_session"}

#: What a record becomes, decided from what it is; None leaves it as it is. It is called again when somebody else was
#: faster, so that it does nothing but decide. Kind and id stay.
Decide = Callable[[Record], Record | None]
#: See `Store.migrate`.
RingOfBefore = Callable[[Sequence[Record]], tuple[str, Record] | None]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one record, which is part of a larger transaction.

    Attributes:
        kind: which table it lives in.
        id_hash: its id.
        decide: what it becomes.
        new: what `decide` is given where there is no live record of that id; None: then there is nothing to change.
    """

    kind: Kind
    id_hash: str
    decide: Decide
    new: Record | None = None


class StoreUnavailable(Exception):
    """The database cannot be asked now. The caller may try again later; nothing of the call was kept.

    Attributes:
        reason: why, in the words of the database or its driver: one line, without secrets.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class StoreRefused(StoreUnavailable):
    """Trying again does not help: the settings or the database have to be changed.

    Attributes:
        remedy: how.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


class Contended(StoreUnavailable):
    """Others changed the same records each time that this caller tried to; nothing of the call was kept."""

    def __init__(self, reason: str = "others changed the same at the same time") -> None:
        super().__init__(reason)


class NotStanding(Exception):
    """What the records were to stand on is not there, or what was to be changed with them; nothing was kept."""


class Store(Protocol):
    """The verbs. Each may raise `StoreUnavailable`; where something is changed, also its kind `Contended`. `now` is Unix s."""

    def put(
        self,
        *records: Record,
        changes: Sequence[Change] = (),
        standing_on: Sequence[Fitting] = (),
        ending: bool = False,
        now: int,
    ) -> bool:
        """Store new records, and change others with them: all of it or nothing, in one transaction.

        Of any number of callers that put the same id, one succeeds.

        Args:
            records: what is new, in the order in which it is stored.
            changes: what is changed with them; see `change`.
            standing_on: what must be there for it, a record of each. Whoever removes that waits until this is stored,
                and then finds it, or was first.
            ending: whether it serves to end something: a sign-out that waits for its answer. On a full disk it may then
                take room that is kept for that.
            now: Unix s.

        Returns:
            False when an id is there already, even one that has ended and is not swept yet.

        Raises:
            NotStanding: when a record of `standing_on` is not there, or one of `changes`, or its `decide` leaves it.
        """
        ...

    def get(self, kind: Kind, id_hash: str, *, now: int) -> Record | None:
        """The live record of that id. One statement."""
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
        """Remove the live record of that id and return it; of any number of callers one gets it.

        The one who gets it removes what falls with it, stores `put` and makes `changes` in the same transaction, as
        `Store.put` does. With `version`, nobody gets it who read another one.

        Raises:
            NotStanding: as for `put`; then the record is still there.
        """
        ...

    def swap(self, record: Record, *, ending: bool = False, now: int) -> bool:
        """Store a changed record where it still is as it was read: live, and of the version that `record` has.

        One statement, which is its own transaction. What others find it by (subject, session, client) does not change.

        Args:
            record: as it is from now on, with the version that it was read at.
            ending: whether it takes something away. On a full disk it may then take room that is kept for that.
            now: Unix s.

        Returns:
            False when it is gone, or somebody else was faster.
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
        """Change the live record of that id, so that no change of anybody else is lost.

        It is read, decided, and stored where its version is still the one that was read, in one statement; who loses
        reads and decides again.

        Args:
            kind: of which kind.
            id_hash: its id.
            decide: what it becomes; see `Decide`. What it raises is raised, and nothing was changed.
            new: what `decide` is given where there is no live record of that id; it is stored then.
            standing_on: as for `put`.
            now: Unix s.

        Returns:
            The record as it is now; None where there is none, or `decide` leaves it.

        Raises:
            NotStanding: when a record of `standing_on` is not there.
            Contended: when it lost each time.
        """
        ...

    def replace(self, kind: Kind, id_hash: str, successor: Record, *, now: int) -> bool:
        """Put `successor` in the place of the live record of that id, in one statement.

        Of any number of callers that replace the same id, one succeeds; from then on only the successor's id
        finds the record.

        Returns:
            False when there is no live record of that id.
        """
        ...

    def list(
        self, kind: Kind, *, subject: str | None = None, session_id: str | None = None, now: int
    ) -> list[Record]:
        """The live records about a subject, of a session, or all; the one that ends last first."""
        ...

    def delete(self, *fitting: Fitting, without_tokens: Sequence[Fitting] = (), now: int) -> int:
        """Remove the live records that fit, and the access tokens of grants that stay: one transaction.

        Args:
            fitting: what goes, in this order: first what others stand on, so that nothing is stored behind it.
            without_tokens: which grants stay, but lose their access tokens.
            now: Unix s.

        Returns:
            How many there were that fit the first.

        Raises:
            ValueError: when nothing is said of one of them: that would be all.
        """
        ...

    def delete_expired(self, *, now: int, limit: int) -> int:
        """Remove up to `limit` records of each kind that have ended; how many it were."""
        ...

    def trim(self, kind: Kind, *, most_of_one: int, most: int) -> int:
        """Keep a kind small: where it has too many records, those of the subject that has the most go, the oldest first.

        What has ended counts as long as it is there. Up to a sixteenth of the bound goes besides, so that the next look
        finds nothing to do; and nothing waits for the whole of it: it is several transactions.

        Args:
            kind: which; its records end in the order in which they were put.
            most_of_one: how many may be about one subject; the empty subject, which is nobody, is not asked.
            most: how many there may be in all.

        Returns:
            How many went.
        """
        ...

    def check_revocable(self) -> None:
        """Refuse, where what is given out now could not be taken back: a disk without room, a server that only reads.

        Asked after the read that the answer stands on, it costs no statement.

        Raises:
            StoreUnavailable: then nothing may be given out.
        """
        ...

    def migrate(self, ring_of_before: RingOfBefore | None = None) -> None:
        """Bring the schema up to date. Any number of processes may call it at once: one does it, all wait.

        Args:
            ring_of_before: given the records of the ring of keys where the schema is really of before revision 0005,
                says which of them is replaced by what; in the transaction of the migration, or not at all.
        """
        ...

    def schema_state(self) -> Literal["current", "behind", "ahead", "copying"]:
        """Whether the schema is the one that this version works on; also the store's ping.

        `ahead`: a newer version has migrated already, as in the middle of a rolling deployment. `copying`: a copy into
        it is not finished.
        """
        ...

    def write_refusal(self) -> StoreUnavailable | None:
        """Why a write would be refused now, as far as that can be seen without one; None where it would not."""
        ...

    def close(self) -> None:
        """Let go of every connection, and end what works beside the requests; the next verb begins both again.

        Called before a fork.
        """
        ...
