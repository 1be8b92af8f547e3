"""The queue of logout tokens: filled in the transaction that ends a session, emptied by the sender (`delivering`).

Owns: which clients are notified of the end of a session, and which process may try a delivery now.
Never touches: keys, addresses, threads.

Spec: OpenID Connect Back-Channel Logout 1.0 §2.3, §2.5
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from service.records.clients import STRANGERS, Client
from service.records.deliveries import LEASE_S, Delivery, logout_uri, of_record, queued
from service.storage.interface import NEVER, Fitting, Kind, Record, Store

#: How many an operator is shown at most.
MOST_SHOWN: Final = 1_000
#: How many may wait or be kept: for one user, and in total. Beyond that, the oldest of the user with the most are dropped.
MOST_OF_ONE_USER: Final = 1_000
MOST_IN_ALL: Final = 100_000
#: After how many tries the queue is trimmed. Each that is queued is tried once at least, by whichever process sends.
TRIM_EVERY: Final = 500


class Ending:
    """What the end of sessions causes: a delivery for each client that was signed in to and wants logout tokens.

    Attributes:
        deliveries: the latest result.
    """

    def __init__(self, queue: Deliveries, now: int) -> None:
        self._queue = queue
        self._now = now
        self.deliveries: list[Delivery] = []

    def leaving(self, gone: Sequence[tuple[Record, Sequence[Mapping[str, Any]]]]) -> list[Record]:
        """See `storage.interface.Leaving`; it may be called again, for the same visits."""
        notified = {
            (visit.session_id, visit.client_id, issuer): visit
            for visit, rows in gone
            if (issuer := self._queue.issuer_of(visit)) and self._queue.wants(visit.client_id, rows)
        }
        due_at = self._now if self._queue.taker is None else self._now + LEASE_S
        self.deliveries = [
            queued(visit, issuer, now=self._now, due_at=due_at) for (*_, issuer), visit in notified.items()
        ]
        return [delivery.to_record() for delivery in self.deliveries]


class Deliveries:
    """The queue.

    Args:
        store: the store of the queue.
        fixed: the clients of the environment, which take precedence over those of the store. None: they cannot be read; then
            every client that the store does not know may want to be notified.
        issuer: the configured one, for visits without an issuer; None: those are left out.
        strangers: whether clients can add themselves.
    """

    def __init__(
        self,
        store: Store,
        *,
        fixed: Iterable[Client] | None = (),
        issuer: str | None = None,
        strangers: bool = False,
    ) -> None:
        self._strangers = strangers
        self._store = store
        self._fixed = {client.client_id: client.backchannel_logout_uri for client in fixed or ()}
        self._knows_fixed = fixed is not None
        self._issuer = issuer
        #: The sender in this process that takes new deliveries at once; None if there is none.
        self.taker: Callable[[Sequence[Delivery]], None] | None = None
        self._tries = 0

    # --- who is notified ---

    def ending(self, *, now: int) -> Ending:
        """What to store when sessions end now. Pass it to `queued` once it is stored."""
        return Ending(self, now)

    def hand_over(self, ending: Ending) -> None:
        """Report that it was stored: if this process has a sender, it sends at once."""
        if ending.deliveries and self.taker is not None:
            self.taker(ending.deliveries)

    def issuer_of(self, visit: Record) -> str | None:
        """The issuer of a visit; an older version did not record it."""
        issuer = visit.body.get("issuer", self._issuer)
        return issuer if isinstance(issuer, str) else None

    def wants(self, client_id: str, bodies: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a client wants logout tokens; `bodies`: those of its records, of which the operator's counts."""
        if client_id in self._fixed:
            return self._fixed[client_id] is not None
        if not bodies:
            return not self._knows_fixed
        return logout_uri(min(bodies, key=lambda body: body.get("source") in STRANGERS)) is not None

    @property
    def is_wanted_for_sure(self) -> bool:
        """Whether a client of the environment wants logout tokens; or one that adds itself may: there may be thousands to ask."""
        return self._strangers or any(uri is not None for uri in self._fixed.values())

    # --- who sends ---

    def waiting(self, *, most: int, but: Sequence[str] = (), now: int) -> list[Delivery]:
        """The waiting ones, the earliest due first, without those for some clients. One read."""
        # few different lengths, so few different statements
        padded = list(but) + list(but[-1:]) * (_power_of_two(len(but)) - len(but))
        found = self._store.due(Kind.DELIVERY, until=NEVER - 1, most=most, but=padded, now=now)
        return list(map(of_record, found))

    def take(self, delivery: Delivery, *, now: int) -> Delivery | None:
        """Take one to try it. Returns None if another process was faster."""
        taken = delivery.taken(now)
        if not self._store.swap(taken.to_record(), now=now):
            return None
        return replace(taken, version=taken.version + 1)

    def keep(self, delivery: Delivery, *, now: int) -> bool:
        """Store the result of a try. Returns False if another process has tried it since, or it is gone."""
        return self._store.swap(delivery.to_record(), now=now)

    def remove(self, delivery_id: str, *, now: int) -> bool:
        """Remove one that was delivered, or whose client is gone. Returns whether it existed."""
        return self._store.delete(Fitting(Kind.DELIVERY, id_hash=delivery_id), now=now) > 0

    def keep_small(self) -> int:
        """One more is tried: trim the queue now and then; how many went."""
        self._tries += 1
        return self.trim() if self._tries % TRIM_EVERY == 0 else 0

    def trim(self) -> int:
        """Keep the queue small. Returns how many were dropped."""
        return self._store.trim(Kind.DELIVERY, most_of_one=MOST_OF_ONE_USER, most=MOST_IN_ALL)

    def rest(self) -> None:
        """Disconnect from the store for a while."""
        self._store.rest()

    # --- what an operator does ---

    def shown(self, *, now: int) -> list[Delivery]:
        """The first of them, up to a number: the waiting ones, the earliest due first, then the others."""
        found = self._store.due(Kind.DELIVERY, until=NEVER, most=MOST_SHOWN, now=now)
        return list(map(of_record, found))

    def all(self, *, now: int) -> Iterator[Delivery]:
        """All of them."""
        return map(of_record, self._store.list(Kind.DELIVERY, now=now))

    def retry(self, delivery_id: str, *, now: int) -> bool:
        """Have one tried now, with all its tries before it. Returns whether it exists."""

        def again(record: Record) -> Record:
            return of_record(record).again(now=now).to_record()

        return self._store.change(Kind.DELIVERY, delivery_id, again, now=now) is not None


def _power_of_two(count: int) -> int:
    return 0 if count == 0 else 1 << (count - 1).bit_length()
