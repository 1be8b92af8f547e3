"""The sessions of signed-in users, in the local store.

Owns: the record of a session, its lifetime, and the token that finds it.
Never touches: requests, cookies, SQL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from service.deliveries import Deliveries
from service.events import UNHEARD, Events, SessionEnded, SignedIn, UserLockedOut
from service.handles import hash_handle, is_session_token, new_session_token
from service.records.sessions import (
    MAX_SESSION_S,
    TOKEN_PREFIX_LENGTH,
    Session,
    SignIn,
    new_session,
    of_record,
    to_record,
)
from service.records.users import User, remembered
from service.status_lists import StatusLists
from service.storage.interface import (
    FALLS_WITH_SESSION,
    FALLS_WITH_USER,
    Fitting,
    Kind,
    Record,
    Store,
)
from service.subjects import IsAClient, Subjects

#: A timestamp may be 300 s ahead, and is valid until 300 s after, including that second. The marker outlives both.
REPLAY_MARKER_S: Final = 601


class Replayed(Exception):
    """The proof of this sign-in was used before."""


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session and its token. The token is not available later."""

    token: str
    session: Session


class LocalSessions:
    """Sessions in the store.

    Args:
        store: the store.
        lifetime_s: the lifetime in s, unless the sign-in sets a shorter one.
        events: where sign-ins and sign-outs are reported.
        subjects: knows the ids of clients.
        statuses: the places of new sessions in status lists.
        deliveries: queues the logout tokens of clients when sessions end.
    """

    def __init__(
        self,
        store: Store,
        *,
        lifetime_s: int,
        events: Events = UNHEARD,
        subjects: Subjects | None = None,
        deliveries: Deliveries | None = None,
        statuses: StatusLists | None = None,
    ) -> None:
        self._store = store
        self._statuses = statuses or StatusLists(store, enabled=False)
        self._deliveries = deliveries or Deliveries(store)
        self._subjects = subjects or Subjects(store, (), apart=False)
        self._events = events
        self.lifetime_s = lifetime_s

    def create(
        self,
        sign_in: SignIn,
        *,
        now: int,
        single_use_proof: bytes | None = None,
        beside: Callable[[Session], Record] | None = None,
        standing_on: Sequence[Fitting] = (),
    ) -> NewSession:
        """Start a session, and store what the app reports about its user, in one transaction.

        Args:
            sign_in: the app's report about the user.
            now: Unix s.
            single_use_proof: bytes that may start only one session (a MAC). If the sign-in fails, the proof is still
                unused; if it is refused, nothing has changed.
            beside: records to store together with the session.
            standing_on: records that must exist.

        Raises:
            IsAClient: if a client has this id; nothing was changed.
            Replayed: if the proof was used before.
            NotStanding: if a required record is gone.
            StoreUnavailable: if the store is unavailable.
        """
        if self._subjects.is_client(sign_in.user_id, now=now):
            raise IsAClient
        token = new_session_token()
        status = self._statuses.next_place(now=now)
        session = new_session(sign_in, lifetime_s=self.lifetime_s, now=now, token=token, status=status)
        records = [to_record(session)]
        if single_use_proof is not None:
            records.insert(
                0, Record(Kind.REPLAY_MARKER, hash_handle(single_use_proof), now + REPLAY_MARKER_S)
            )
        if beside is not None:
            records.append(beside(session))
        changes = [remembered(sign_in)] if sign_in.given else []
        if not self._store.put(*records, changes=changes, standing_on=standing_on, now=now):
            raise Replayed
        if self._subjects.is_client(sign_in.user_id, now=now):  # it was registered in the meantime
            self.end_one(session.user_id, session.sid, now=now)
            raise IsAClient
        self._events.send(SignedIn(subject=session.user_id, sid=session.sid))
        return NewSession(token, session)

    def remember_user(self, user: SignIn, *, now: int) -> User:
        """Update what is known of a user with what the app reports, and keep the rest.

        Raises:
            IsAClient: if a client has this id.
        """
        if self._subjects.is_client(user.user_id, now=now):
            raise IsAClient
        if not user.given:
            return self.user(user.user_id, now=now)
        wanted = remembered(user)
        record = self._store.change(Kind.USER, wanted.id_hash, wanted.decide, new=wanted.new, now=now)
        return User.of_body(user.user_id, {} if record is None else record.body)

    def user(self, user_id: str, *, now: int) -> User:
        """What the app last reported about a user."""
        record = self._store.get(Kind.USER, hash_handle(user_id), now=now)
        return User.of_body(user_id, {} if record is None else record.body)

    def find(self, unverified_token: str | None, *, now: int) -> Session | None:
        """The live session of a token, or None. This is one read of the store."""
        if unverified_token is None or not is_session_token(unverified_token):
            return None
        record = self._store.get(Kind.SESSION, hash_handle(unverified_token), now=now)
        return None if record is None else of_record(record)

    def refresh(self, session: Session, *, now: int) -> NewSession | None:
        """Give the session a new token and a new lifetime. The old token stops working in the same transaction.

        Returns:
            The new session and token, or None if the session has ended or was refreshed by another request.
        """
        token = new_session_token()
        successor = replace(
            session,
            token_hash=hash_handle(token),
            token_prefix=token[:TOKEN_PREFIX_LENGTH],
            expires_at=min(now + session.lifetime_s, session.created_at + MAX_SESSION_S),
            # It may have begun before there were status lists.
            status=session.status or self._statuses.next_place(now=now),
        )
        if not self._store.replace(Kind.SESSION, session.token_hash, to_record(successor), now=now):
            return None
        return NewSession(token, successor)

    def end(self, unverified_token: str, *, now: int) -> None:
        """End the session of a token, if there is one, and everything that depends on it."""
        record = self._store.get(Kind.SESSION, hash_handle(unverified_token), now=now)
        if record is not None:
            self.end_one(record.subject, record.session_id, now=now)

    def list(self, user_id: str, *, now: int) -> list[Session]:
        """The user's live sessions, newest first."""
        sessions = [of_record(record) for record in self._store.list(Kind.SESSION, subject=user_id, now=now)]
        return sorted(sessions, key=lambda session: session.created_at, reverse=True)

    def of_sid(self, user_id: str, sid: str, *, now: int) -> Session | None:
        """The user's live session of that `sid`."""
        records = self._store.list(Kind.SESSION, subject=user_id, session_id=sid, now=now)
        return of_record(records[0]) if records else None

    def end_one(self, user_id: str, sid: str, *, now: int) -> bool:
        """End one session of the user, and everything that depends on it. Returns whether it existed."""
        return self._end(user_id, sid=sid, now=now) > 0

    def end_all(self, user_id: str, *, keep_sid: str | None = None, now: int) -> int:
        """End all sessions of the user except the one to keep, and everything that depends on them. Returns their number.

        Offline grants stay, because they do not depend on a session.
        """
        return self._end(user_id, keep_sid=keep_sid, now=now)

    def _end(self, user_id: str, *, sid: str | None = None, keep_sid: str | None = None, now: int) -> int:
        def fitting(kind: Kind, *, outlives: bool | None = None) -> Fitting:
            return Fitting(
                kind, subject=user_id, session_id=sid, keep_session_id=keep_sid, outlives_session=outlives
            )

        # A redeemed code stays with its offline grant: using it again must still end the grant (RFC 6749 §4.1.2).
        falling = [
            fitting(kind, outlives=False if kind is Kind.GRANT else None) for kind in FALLS_WITH_SESSION
        ]
        count = self._delete(*falling, without_tokens=[fitting(Kind.GRANT, outlives=True)], now=now)
        if count:
            self._events.send(SessionEnded(subject=user_id, sid=sid, kept_sid=keep_sid, count=count))
        return count

    def lock_out(self, user_id: str, *, now: int) -> int:
        """End all sessions and grants of the user. Returns the number of sessions."""
        count = self._delete(*(Fitting(kind, subject=user_id) for kind in FALLS_WITH_USER), now=now)
        self._events.send(UserLockedOut(subject=user_id, count=count))
        return count

    def _delete(self, *fitting: Fitting, without_tokens: Sequence[Fitting] = (), now: int) -> int:
        """End sessions, and queue logout tokens in the same transaction. Returns the number of sessions."""
        ending = self._deliveries.ending(now=now)
        count = self._store.delete(*fitting, without_tokens=without_tokens, leaving=ending.leaving, now=now)
        self._deliveries.hand_over(ending)
        return count
