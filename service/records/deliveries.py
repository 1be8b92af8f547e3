"""A logout token that a client has yet to get: what it says, when it is tried, and its row.

What the token says is kept, and its `jti`; the token is signed at each try.

Spec: OpenID Connect Back-Channel Logout 1.0 §2.4, §2.5
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from service.handles import new_id
from service.storage.interface import NEVER, Kind, Record

#: How long after a try in vain the next one comes, in s; after the last of them it is given up.
RETRY_AFTER_S: Final = (5, 30, 120, 600, 3600, 21_600)
#: For so long, in s, nobody else tries what one process has taken: longer than a try takes, with what is before it.
LEASE_S: Final = 15
#: How long it is kept, in s, in whatever state; and what was given up or refused, since then.
KEPT_S: Final = 30 * 86_400
KEPT_OVER_S: Final = 7 * 86_400
#: Why it is over, where it was not delivered.
REFUSED: Final = "refused"
GIVEN_UP: Final = "given_up"
WAITING: Final = "waiting"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A logout token that waits for its client, or was given up.

    Attributes:
        id: the token's `jti`, at every try.
        client_id: whom it is for.
        subject, sid: whose session has ended, and which.
        issuer: `iss`: the one that the client knows.
        queued_at: when the session ended; Unix s.
        due_at: when it is tried next, Unix s; `NEVER` where it is over.
        expires_at: Unix s; then it is forgotten.
        tries: how often it was tried.
        failure: why the last try was in vain.
        state: `WAITING`, `REFUSED` or `GIVEN_UP`.
        version: as it was read.
    """

    id: str
    client_id: str
    subject: str
    sid: str
    issuer: str
    queued_at: int
    due_at: int
    expires_at: int
    tries: int = 0
    failure: str | None = None
    state: str = WAITING
    version: int = 1

    def taken(self, now: int) -> Delivery:
        """Taken by this process: nobody else tries it for a while."""
        return replace(self, due_at=now + LEASE_S)

    def failed(self, failure: str, *, now: int) -> Delivery:
        """After a try in vain: to be tried again later, or given up."""
        tries = self.tries + 1
        if tries > len(RETRY_AFTER_S):
            return self._over(GIVEN_UP, failure, now)
        return replace(self, tries=tries, failure=failure, due_at=now + RETRY_AFTER_S[tries - 1])

    def refused(self, failure: str, *, now: int) -> Delivery:
        """The client does not take it, and never will."""
        return self._over(REFUSED, failure, now)

    def again(self, *, now: int) -> Delivery:
        """Tried now, and then as one that is new."""
        return replace(self, tries=0, state=WAITING, due_at=now, expires_at=now + KEPT_S)

    def _over(self, state: str, failure: str, now: int) -> Delivery:
        over = replace(self, state=state, failure=failure, due_at=NEVER)
        return replace(over, tries=self.tries + 1, expires_at=now + KEPT_OVER_S)

    def to_record(self) -> Record:
        """Its row."""
        body = {name: getattr(self, name) for name in _IN_BODY if getattr(self, name) is not None}
        return Record(
            Kind.DELIVERY,
            self.id,
            self.expires_at,
            self.subject,
            session_id=self.sid,
            client_id=self.client_id,
            version=self.version,
            body=body,
            due_at=self.due_at,
        )

    def shown(self) -> dict[str, Any]:
        """What an operator is shown."""
        return {
            "id": self.id,
            "client_id": self.client_id,
            "user_id": self.subject,
            "sid": self.sid,
            "issuer": self.issuer,
            "state": self.state,
            "tries": self.tries,
            "failure": self.failure,
            "queued_at": self.queued_at,
            "next_try_at": None if self.due_at == NEVER else self.due_at,
        }


_IN_BODY: Final = ("issuer", "queued_at", "tries", "failure", "state")


def of_record(record: Record) -> Delivery:
    """The delivery of a row; members that nobody knows here are passed over."""
    body = {name: record.body[name] for name in _IN_BODY if name in record.body}
    return Delivery(
        id=record.id_hash,
        client_id=record.client_id,
        subject=record.subject,
        sid=record.session_id,
        due_at=record.due_at,
        expires_at=record.expires_at,
        version=record.version,
        **body,
    )


def queued(visit: Record, issuer: str, *, now: int, due_at: int) -> Delivery:
    """For the client of a visit whose session ends now.

    Args:
        visit: the session, its user, and the client.
        issuer: under which it was signed in.
        now: Unix s.
        due_at: when it may be tried; Unix s.
    """
    return Delivery(
        id=new_id(),
        client_id=visit.client_id,
        subject=visit.subject,
        sid=visit.session_id,
        issuer=issuer,
        queued_at=now,
        due_at=due_at,
        expires_at=now + KEPT_S,
    )


def logout_uri(body: Mapping[str, Any]) -> str | None:
    """Where the record of a client says that its logout tokens go."""
    uri = body.get("backchannel_logout_uri")
    return uri if isinstance(uri, str) else None
