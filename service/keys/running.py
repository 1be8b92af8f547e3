"""The key ring of a running worker: its copy of the database's keys, how old that is, and the prepared keys.

Owns: when to read the ring again, the current keyring, the log of changes.
Never touches: when keys change (`rotation`), the document (`store`).

While there are requests, none of them waits for the ring to be read. The worker reads it in the background when its
copy reaches a quarter of the age at which a change must be known. After a pause, the first request reads it. A request
creates a key only if it is the first to need an algorithm, for example for the first client.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from service.events import HEARD, Events
from service.keys.memory import Recollection, RingMemory
from service.keys.opened import OpenedKeys
from service.keys.ring import KeyRecords, Margins, Ring, published, role, signer, turns_at
from service.keys.rotation import needs, straightened, without_private_parts_of_gone
from service.keys.sealing import Unsealable
from service.keys.signing import Keyring, Keys, PublicKey, unverified_kid
from service.keys.store import SAYS_EVERY_S, RingStore, Step
from service.keys.telling import Teller, tell_changes
from service.keys.telling import log as _log
from service.keys.timeline import coming, overdue
from service.logs import describe_error
from service.storage.interface import StoreUnavailable

#: As parts of `Margins.learn_s`: the age at which to read the ring in the background, and in a request.
_BESIDE: Final = 1 / 4
_BEFORE: Final = 2 / 3
#: Unknown kids from outside cause at most one read in this part of it.
_AGAIN: Final = 1 / 60


@dataclass(frozen=True, slots=True)
class _State:
    """The state of a worker.

    Attributes:
        ring: the document.
        keyring: the keyring built from it.
        unreadable: the algorithms whose signing key could not be decrypted.
        seen_at: when the store last confirmed the document; Unix s.
        built_at, turns_at: the period in which the keyring is valid.
    """

    ring: Ring
    keyring: Keyring
    unreadable: frozenset[str]
    seen_at: float
    built_at: float
    turns_at: float


def in_a_thread(work: Callable[[], None]) -> None:
    """Run the work in a background thread."""
    threading.Thread(target=work, name="keys", daemon=True).start()


class ManagedKeys(Keys):
    """`signing.Keys` for a ring in the database.

    Args:
        rings: the store of the ring.
        margins: the margins of a safe rotation.
        clock: returns Unix s.
        environment: what still comes from the environment: the algorithm of minted tokens, the HS256 key, and a key
            that is published here but signs elsewhere.
        beside: runs work in the background.
        first_step: applied to the ring at the start, or when the store is available for the first time.
        memory: what this host has seen of the ring.
        events: where changes of keys are reported.
    """

    def __init__(
        self,
        rings: RingStore,
        margins: Margins,
        clock: Callable[[], float],
        environment: Keyring,
        *,
        beside: Callable[[Callable[[], None]], None] = in_a_thread,
        first_step: Step | None = None,
        memory: RingMemory | None = None,
        events: Events = HEARD,
    ) -> None:
        super().__init__(environment)
        self._events = events
        self._rings = rings
        self._margins = margins
        self._clock = clock
        self._beside = beside
        self._first_step = first_step
        self._state: _State | None = None
        self._tried_at = float("-inf")
        self._asked_at = float("-inf")
        self._missed_at = float("-inf")
        self._looking = threading.Lock()
        self._waking = False
        self._changing = threading.RLock()
        self._opened = OpenedKeys(rings, environment)
        self._kept: tuple[str, ...] = tuple(rings.configured_algs)
        self._teller = Teller()
        self._said_at = float("-inf")
        self._begun = False
        self._recollection = Recollection(memory)
        self._refused = False

    # --- for requests ---

    @property
    def older(self) -> str | None:
        """The warning of the start, if the database has an older ring than this host has seen."""
        return self._recollection.older

    @property
    def published(self) -> tuple[PublicKey, ...]:
        """See `Keys.published`; empty if the ring was never read."""
        return () if self._state is None else self._state.keyring.published

    def current(self) -> Keyring:
        """See `Keys.current`.

        Raises:
            StoreUnavailable: if the ring was never read.
        """
        return self._now(self._clock()).keyring

    def to_sign(self, alg: str) -> Keyring:
        """See `Keys.to_sign`."""
        now = self._clock()
        state = self._now(now)
        if alg not in {"HS256", *state.keyring.signing, *state.unreadable}:
            state = self._now_with(alg, now)
        # If the ring was not read for long, it may have been rotated: our tokens could outlive the key in the published set.
        if alg != "HS256" and (self._is_old(state, now) or alg in state.unreadable):
            raise StoreUnavailable(f"whether the {alg} key may still sign is not known now")
        return state.keyring

    def knowing(self, unverified_token: str) -> Keyring:
        """See `Keys.knowing`."""
        now = self._clock()
        keyring = self._now(now).keyring
        kid = unverified_kid(unverified_token)
        if kid is None or keyring.knows(kid) or abs(now - self._asked_at) < self._margins.learn_s * _AGAIN:
            return keyring
        self._asked_at = now
        self._look_now(now)
        return self._now(now).keyring

    def max_age_s(self) -> int:
        """See `Keys.max_age_s`: never beyond the next change, so that no cache has an old set after it."""
        now = self._clock()
        state = self._now(now)
        if self._is_old(state, now):
            return 0
        return max(0, int(min(self._margins.max_age_s, state.turns_at - int(now))))

    def status(self) -> Mapping[str, Any]:
        """See `Keys.status`.

        Raises:
            StoreUnavailable: when the ring was never read.
        """
        time_of_day = self._clock()
        state, now = self._now(time_of_day), int(time_of_day)
        keys = state.ring.keys
        shown = [
            {"kid": key.kid, "alg": key.alg, "role": role(key, now), "age_s": max(0, now - key.published_at)}
            for key in published(keys, now)
        ]
        change = next(iter(coming(keys, now, self._margins)), None)
        return {
            "signing_keys": shown,
            "next_key_change": None
            if change is None
            else {"at": change.at, "alg": change.alg, "kid": change.kid, "what": change.what},
            "rotation_overdue": [key.kid for key in overdue(keys, self._kept, now, self._margins)],
            "keys_read_s_ago": max(0, int(time_of_day - state.seen_at)),
            **self._odd(state.ring),
        }

    def _odd(self, ring: Ring) -> Mapping[str, Any]:
        """Members for `readyz` if the database has an older ring than this process has seen, or one that is not ours."""
        told: dict[str, Any] = {"ring_refused": True} if self._refused else {}
        if (seen := self._recollection.newer(ring)) is not None:
            told["ring_older"] = {"version": ring.version, "seen": seen}
        return told

    # --- reading the ring ---

    def load(self) -> Ring:
        """Create missing keys according to the settings, read the ring, and test every key.

        Raises:
            StoreUnavailable: if the store is unavailable.
            Unsealable: if a key cannot be decrypted.
        """
        now = self._clock()
        moment = int(now)
        ring = self._begin(moment)
        self._opened.open_all(ring, moment)
        self._tried_at = now
        self._remembering(ring, moment)
        self._say(ring)
        return self._install(ring, now, now).ring

    def _begin(self, now: int) -> Ring:
        ring = self._rings.ensure(
            self._margins, now=now, step=lambda ring: self._first(ring, now), reschedule=True
        )
        self._begun = True
        return ring

    def _first(self, ring: Ring, now: int) -> KeyRecords:
        """Apply the first step, and remove keys that this host knows to be removed: an older ring may have been restored."""
        keys = ring.keys if self._first_step is None else self._first_step(ring)
        self._recollection.begin(ring)
        return self._recollection.without_taken_away(keys, now, self._margins)

    def _begun_late(self, ring: Ring | None, now: int) -> Ring:
        """Do what a start would have done. If that is refused, use the ring as it is, because others may sign with it."""
        try:
            return self._begin(now)
        except Unsealable as error:
            if ring is None:
                raise
            _log.error("keys_unreadable", detail=str(error))
            return ring

    def _is_old(self, state: _State, now: float) -> bool:
        return abs(now - state.seen_at) > self._margins.learn_s + self._margins.slack_s

    def _now(self, now: float) -> _State:
        learn_s, since_s = self._margins.learn_s, abs(now - self._tried_at)
        if self._state is None:
            self._look_first(now)
        elif since_s >= learn_s * _BEFORE:
            self._waking = True
            try:
                self._look_now(now)
            finally:
                self._waking = False
        elif since_s >= learn_s * _BESIDE:
            self._look_beside(now)
        elif self._waking:  # the first read after a long pause: our copy may be outdated
            with self._changing:
                pass
        state = self._state
        if state is None:  # pragma: no cover - `_look` has raised
            raise StoreUnavailable("the ring of keys was never read")
        if not state.built_at <= now < state.turns_at:
            with self._changing:
                state = self._state or state  # another thread may have read a newer one
                state = self._install(state.ring, state.seen_at, now)
        return state

    def _now_with(self, alg: str, now: float) -> _State:
        """Read the ring again for a missing algorithm. If the algorithm is in use, its first key is created now."""
        if abs(now - self._missed_at) >= self._margins.learn_s * _AGAIN:
            self._missed_at = now
            self._look_now(now)
            if alg in self._kept and alg not in self._now(now).keyring.signing:
                self._maintain()
        return self._now(now)

    def _look_first(self, now: float) -> None:
        try:
            self._look(now)
        except Unsealable as error:  # there is no other ring to use
            _log.error("keys_unreadable", detail=str(error))
            raise StoreUnavailable("the ring of keys in the database is refused") from None

    def _look_now(self, now: float) -> None:
        with self._told():
            self._look(now)

    def _look_beside(self, now: float) -> None:
        if not self._looking.acquire(blocking=False):
            return
        self._tried_at = now

        def look() -> None:
            try:
                with self._told():
                    self._look(now)
            except Exception as error:  # nothing waits for it, so the failure is logged
                _log.error("keys_read_failed", **describe_error(error))
            finally:
                self._looking.release()

        try:
            self._beside(look)
        except RuntimeError:
            # No thread can be started now: the next request tries again, or reads the ring itself.
            self._looking.release()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Log a failed read. The current ring stays in use, and changes by the clock."""
        try:
            yield
        except StoreUnavailable as error:
            _log.warning("keys_not_read", cause=type(error.__cause__).__name__, detail=error.reason)
        except Unsealable as error:
            _log.error("keys_unreadable", detail=str(error))

    def _look(self, now: float) -> None:
        with self._changing:  # otherwise an older document could replace a newer one
            self._read(now)

    def _read(self, now: float) -> None:
        self._tried_at = now
        try:
            ring = self._rings.load(now=int(now))
        except Unsealable:
            self._refused = True
            raise
        self._refused = False
        if ring is None or not self._begun:  # the service started without its database
            ring = self._begun_late(ring, int(now))
        ring = self._remembering(ring, int(now))
        state = self._state
        if state is not None and state.ring == ring:
            self._state = replace(state, seen_at=now)
        else:
            self._install(ring, now, now)
        self._kept = tuple(self._rings.algs(now=int(now)))
        if self._lacks_something(ring, int(now)):
            self._beside(self._maintain)
        self._tell(ring, int(now))
        if abs(now - self._said_at) >= SAYS_EVERY_S:
            self._beside(lambda: self._say(ring))

    def _say(self, ring: Ring) -> None:
        """Record this replica's settings for the ring in the database, only so that others can notice a difference."""
        self._said_at = now = self._clock()
        with contextlib.suppress(StoreUnavailable):
            self._rings.say(ring, self._margins, now=int(now))

    def _tell(self, ring: Ring, now: int) -> None:
        self._teller.overdue(overdue(ring.keys, self._kept, now, self._margins))
        mine = self._rings.keeping(self._margins, now=now)
        self._teller.differing(mine, self._rings.differing(ring, self._margins, now=now))

    def _remembering(self, ring: Ring, now: int) -> Ring:
        """The ring, without keys that were removed before: an older document may have been restored."""
        self._recollection.remember(ring, None if self._state is None else self._state.ring)
        keys = self._recollection.without_taken_away(ring.keys, now, self._margins)
        return ring if keys is ring.keys else replace(ring, keys=keys)

    def _lacks_something(self, ring: Ring, now: int) -> bool:
        if without_private_parts_of_gone(straightened(ring.keys, now, self._margins), now) != ring.keys:
            return True
        return bool(needs(ring.keys, self._kept, now, self._margins))

    def _maintain(self) -> None:
        """Create the keys that are due. If several workers and replicas try, one succeeds."""
        with self._told(), self._changing:
            now = self._clock()
            self._install(self._rings.ensure(self._margins, now=int(now)), now, now)

    # --- prepared keys ---

    def _install(self, ring: Ring, seen_at: float, now: float) -> _State:
        moment = int(now)
        before = self._state
        turns = turns_at(ring.keys, moment)
        keyring = self._opened.keyring(ring, moment)
        chosen = {key.alg for key in ring.keys if signer(ring.keys, key.alg, moment) is not None}
        state = _State(
            ring,
            keyring,
            frozenset(chosen - set(keyring.signing)),
            seen_at,
            now,
            float("inf") if turns is None else turns,
        )
        if before is not None:
            tell_changes(self._events, before.ring, int(before.built_at), ring, moment)
        self._state = state
        return state
