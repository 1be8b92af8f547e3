"""A logout token that a client has not received yet: its content, its next try, and its row.

The content and the `jti` are stored; each try signs the token again.

Spec: OpenID Connect Back-Channel Logout 1.0 §2.4, §2.5
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from service.handles import new_id
from service.storage.interface import NEVER, Kind, Record

#: The time until the next try after each failed one, in s; after the last of them there is no further try.
RETRY_AFTER_S: Final = (5, 30, 120, 600, 3600, 21_600)
#: How long a process reserves what it has taken, in s: longer than a try takes, including the wait for it.
LEASE_S: Final = 15
#: How long it is kept, in s, in any state; and after it was refused or given up.
KEPT_S: Final = 30 * 86_400
KEPT_OVER_S: Final = 7 * 86_400
#: Why it will not be tried again.
REFUSED: Final = "refused"
GIVEN_UP: Final = "given_up"
WAITING: Final = "waiting"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A logout token that waits for its client, or was given up.

    Attributes:
        id: the token's `jti`, the same at every try.
        client_id: the client that it is for.
        subject, sid: the user and the session that ended.
        issuer: `iss`, as the client knows it.
        queued_at: when the session ended; Unix s.
        due_at: when it is tried next, Unix s; `NEVER` if there is no further try.
        expires_at: when it is forgotten, Unix s.
        tries: how many tries there were.
        failure: why the last try failed.
        state: `WAITING`, `REFUSED` or `GIVEN_UP`.
        version: the version that was read.
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
        """Reserve it for this process, so that no other one tries it for a while."""
        return replace(self, due_at=now + LEASE_S)

    def failed(self, failure: str, *, now: int) -> Delivery:
        """After a failed try: schedule the next one, or give up."""
        tries = self.tries + 1
        if tries > len(RETRY_AFTER_S):
            return self._over(GIVEN_UP, failure, now)
        return replace(self, tries=tries, failure=failure, due_at=now + RETRY_AFTER_S[tries - 1])

    def refused(self, failure: str, *, now: int) -> Delivery:
        """The client refuses it, and will not accept it later."""
        return self._over(REFUSED, failure, now)

    def again(self, *, now: int) -> Delivery:
        """Try it now, with all its tries before it."""
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
        """The members that an operator is shown."""
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
    """Read a delivery from a row. Unknown members are ignored."""
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
    """Create one for the client of a visit whose session ends now.

    Args:
        visit: the session, its user, and the client.
        issuer: the issuer that it was signed in under.
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
    """The address in a client's record that its logout tokens go to."""
    uri = body.get("backchannel_logout_uri")
    return uri if isinstance(uri, str) else None
