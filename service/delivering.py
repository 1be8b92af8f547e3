"""Sends logout tokens: one thread for each process, which passes each try to one of a few other threads.

Owns: when to read the queue, how many requests run at a time in total and for each host, the meaning of an answer.
Never touches: requests; none waits for this.

    queued in this process, at once      ─┐
    queued by other processes, every 5 s ─┴─> taken -> signed -> sent in a thread -> the result is stored

Only the one thread uses the store, so a process has one connection for it. While no client wants logout tokens, it
looks once a minute and keeps no connection.

Spec: OpenID Connect Back-Channel Logout 1.0 §2.5, §2.8
"""

from __future__ import annotations

import contextlib
import heapq
import os
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import structlog

from service.clients import Clients
from service.deliveries import Deliveries
from service.keys.signing import Keys
from service.logs import describe_error
from service.outbound.fetcher import Outbound, Unreachable
from service.protocol.logout_tokens import sign_logout_token
from service.records.deliveries import GIVEN_UP, LEASE_S, Delivery
from service.settings.table import Settings
from service.storage.interface import Store, StoreUnavailable

#: How often to read the queue for other processes' deliveries, in s; and while no client wants logout tokens.
POLL_S: Final = 5.0
IDLE_POLL_S: Final = 60.0
_BUSY_FOR_S: Final = 3600.0
_FIRST_S: Final = 0.5
#: How many tries run at a time: in total, for one host, and for a host that did not answer the last time, or took this
#: long, in s. All of the last kind use at most half of the threads, so that services that are down or slow delay nobody.
THREADS: Final = 16
OF_ONE_HOST: Final = 4
OF_ONE_THAT_IS_SLOW: Final = 1
SLOW_S: Final = 1.0
#: How long before another process may take a delivery its try must start, in s: a try takes at most 5 s.
_BEFORE_END_S: Final = 7
_AT_ONCE: Final = 32
_TOLD_EVERY_S: Final = 60.0

_log = structlog.get_logger("deliveries")


@dataclass(frozen=True, slots=True)
class _Host:
    """A host that gets logout tokens. Strangers may have as many as they like, so theirs count as slow."""

    netloc: str
    is_strangers: bool


@dataclass(frozen=True, slots=True)
class _Taken:
    """A delivery that only this process tries, until a time of the monotonic clock."""

    delivery: Delivery
    until: float


@dataclass(frozen=True, slots=True)
class _Tried:
    """The result of a try: a status, or why there is none; and whether it took long."""

    delivery: Delivery
    host: _Host
    status: int | None
    failure: str
    is_slow: bool = False


class Deliverer:
    """Sends queued logout tokens.

    Args:
        deliveries: the queue.
        clients: the clients, with their addresses.
        keys: the signing keys.
        outbound: sends requests.
        clock: returns Unix s.
        poll_s: how often to read the queue, in s; None: often while a client wants logout tokens, otherwise rarely.
        threads: how many tries run at a time.
    """

    def __init__(
        self,
        deliveries: Deliveries,
        clients: Clients,
        keys: Keys,
        outbound: Outbound,
        clock: Callable[[], float],
        *,
        poll_s: float | None = None,
        threads: int = THREADS,
    ) -> None:
        self.deliveries, self._clients, self._keys, self._outbound = deliveries, clients, keys, outbound
        self._clock, self._poll_s, self._threads = clock, poll_s, threads
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._end: Callable[[], object] = lambda: None
        self._reset()

    def _reset(self) -> None:
        """Forget what is in progress: a fork has none of its parent's threads."""
        self.wake = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._handed: deque[_Taken] = deque()
        self._tried: deque[_Tried] = deque()
        self._under_way: Counter[_Host] = Counter()
        self._slow: set[_Host] = set()
        self._more, self._poll_at = False, 0.0
        self._own: list[float] = []
        self._busy_until = float("-inf")
        self._told_at = float("-inf")

    # --- its thread ---

    def begin(self) -> None:
        """Start sending in this process. Tries that began before a fork belong to the parent."""
        if self._pid != os.getpid() or self._thread is None:
            self._start()

    def send_at_once(self, deliveries: Sequence[Delivery]) -> None:
        """Send what this process has queued and reserved for a while. The caller does not wait."""
        self.begin()
        until = time.monotonic() + LEASE_S
        self._handed.extend(_Taken(delivery, until) for delivery in deliveries)
        self.wake.set()

    def look(self) -> None:
        """Read the queue now."""
        self.begin()
        self._poll_at = 0.0
        self.wake.set()

    def end(self) -> None:
        """Stop as soon as running tries have ended and their results are stored."""
        if self._pid == os.getpid():
            self._end()
        self._thread = None

    def _start(self) -> None:
        if self._pid != os.getpid():
            self._starting, self._pid, self._thread = threading.Lock(), os.getpid(), None
            self._reset()
        with self._starting:
            if self._thread is not None:
                return
            # Replicas and workers that start together do not read the queue at the same time.
            self._poll_at = time.monotonic() + _FIRST_S * self._spread()
            stop = threading.Event()
            thread = threading.Thread(
                target=_run, args=(weakref.ref(self), stop), name="deliveries", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # no thread can be started now: others find it in the queue
                return
            # Also when the process ends: its own threads have already ended.
            self._end = weakref.finalize(self, _stop, stop, self.wake, thread)
            self._thread = thread

    def rest_s(self) -> float:
        """How long to wait, in s, unless something is queued before."""
        at = min([self._poll_at, *self._own[:1]])
        return max(0.0, at - time.monotonic())

    def turn(self, *, last: bool = False) -> None:
        """Do one round of work; the last round only stores the results of tries."""
        try:
            self._store_tried()
            if not last:
                self._send_handed()
                if self._more or self.rest_s() == 0:
                    self._send_waiting()
        except StoreUnavailable as error:
            self._put_off()
            if time.monotonic() - self._told_at >= _TOLD_EVERY_S:
                self._told_at = time.monotonic()
                _log.warning("deliveries_not_read", cause=type(error.__cause__).__name__, detail=error.reason)
        except Exception as error:  # nobody waits for this, so the failure is logged
            self._put_off()
            _log.error("deliveries_failed", **describe_error(error))

    def close(self) -> None:
        """Collect finished tries, and store their results."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
            self._pool = None
        self.turn(last=True)
        self.deliveries.rest()

    def _put_off(self) -> None:
        self._more = False
        self._own.clear()
        self._poll_at = time.monotonic() + self._spread() * (self._poll_s or POLL_S)

    def _spread(self) -> float:
        """A factor from 0.8 to 1.2 that differs between processes."""
        return 0.8 + 0.4 * (os.getpid() % 97) / 96

    # --- what is sent ---

    def _send_handed(self) -> None:
        """Start what was queued in this process. What would wait for too long is left to any process that finds it in the queue."""
        for _ in range(len(self._handed)):
            taken = self._handed.popleft()
            self._busy_until = time.monotonic() + _BUSY_FOR_S
            if taken.until - time.monotonic() < _BEFORE_END_S:
                heapq.heappush(self._own, taken.until + 1)
            elif not self._try(taken.delivery):
                self._handed.append(taken)

    def _send_waiting(self) -> None:
        """Start what is due in the queue, from any process, as far as there is room."""
        now = int(self._clock())
        moment = time.monotonic()
        self._own = sorted(at for at in self._own if at > moment)
        held: set[str] = set()
        self._more = False
        while self._under_way.total() < self._threads:
            found = self.deliveries.waiting(most=_AT_ONCE, but=sorted(held), now=now)
            if found:
                self._busy_until = moment + _BUSY_FOR_S
            due = [each for each in found if each.due_at <= now]
            held |= self._take_each(due, held, now)
            if len(due) < _AT_ONCE:
                break
        else:
            self._more = True
        self._more = self._more or bool(held)
        often = self._poll_s or (POLL_S if self._is_wanted(moment, now) else IDLE_POLL_S)
        self._poll_at = moment + often * (1.0 if self._poll_s else self._spread())
        if often == IDLE_POLL_S:
            self.deliveries.rest()

    def _take_each(self, due: Sequence[Delivery], held: set[str], now: int) -> set[str]:
        """Take and try each delivery. Returns the clients for whose hosts there is no room now."""
        full: set[str] = set()
        for each in due:
            if each.client_id in held | full:
                continue
            if not self._try(each, take_at=now):
                full.add(each.client_id)
        return full

    def _is_wanted(self, moment: float, now: int) -> bool:
        """Whether some client wants logout tokens. A positive result is kept for an hour."""
        if moment < self._busy_until or self.deliveries.is_wanted_for_sure:
            return True
        if any(client.backchannel_logout_uri for client in self._clients.list(now=now)):
            self._busy_until = moment + _BUSY_FOR_S
        return moment < self._busy_until

    def _try(self, delivery: Delivery, *, take_at: int | None = None) -> bool:
        """Try a delivery if there is room for its host; False if there is none. With `take_at`, Unix s, it is taken first."""
        now = int(self._clock())
        client = self._clients.registered(delivery.client_id, now=now)
        uri = None if client is None else client.backchannel_logout_uri
        if client is None or uri is None:
            self.deliveries.remove(delivery.id, now=now)
            _log.info("delivery_dropped", delivery=delivery.id, client_id=delivery.client_id)
            return True
        host = _Host(urlsplit(uri).netloc, client.is_stranger)
        if not self._has_room(host):
            return False
        taken = delivery if take_at is None else self.deliveries.take(delivery, now=take_at)
        if taken is None:  # another process was faster
            return True
        try:
            token = sign_logout_token(taken, client, self._keys, now=now)
        except LookupError:
            self._store(_Tried(taken, host, None, "no key signs for this client"))
            return True
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="delivery")
        with contextlib.suppress(RuntimeError):  # the process is ending: others find it in the queue
            self._pool.submit(self._send, taken, host, uri, token, not client.is_stranger)
            self._under_way[host] += 1
        if count := self.deliveries.keep_small():
            _log.warning("deliveries_dropped", count=count)
        return True

    def _has_room(self, host: _Host) -> bool:
        under_way = self._under_way
        if under_way.total() >= self._threads:
            return False
        slow = {each for each in (host, *under_way) if each.is_strangers or each in self._slow}
        if host not in slow:
            return under_way[host] < OF_ONE_HOST
        to_slow = sum(under_way[each] for each in slow)
        return under_way[host] < OF_ONE_THAT_IS_SLOW and to_slow < self._threads // 2

    def _send(self, delivery: Delivery, host: _Host, uri: str, token: str, operators: bool) -> None:
        """Send it. This runs in a separate thread that does nothing else."""
        status, failure, began = None, "", time.monotonic()
        try:
            status = self._outbound.post(uri, {"logout_token": token}, operators=operators).status
        except Unreachable as error:
            failure = error.cause
        except Exception as error:  # a fault in this program: it is tried again, and logged
            failure = type(error).__name__
            _log.error("delivery_error", **describe_error(error))
        is_slow = status is None or time.monotonic() - began >= SLOW_S
        self._tried.append(_Tried(delivery, host, status, failure, is_slow))
        self.wake.set()

    # --- what became of it ---

    def _store_tried(self) -> None:
        while self._tried:
            tried = self._tried[0]
            self._store(tried)  # later again, if the store is unavailable now
            self._tried.popleft()
            self._under_way -= Counter((tried.host,))
            is_noted = tried.is_slow and not tried.host.is_strangers
            (self._slow.add if is_noted else self._slow.discard)(tried.host)

    def _store(self, tried: _Tried) -> None:
        now, delivery, status = int(self._clock()), tried.delivery, tried.status
        known: dict[str, Any] = {"delivery": delivery.id, "tries": delivery.tries + 1}
        known |= {"client_id": delivery.client_id, "sid": delivery.sid}
        if status is not None and 200 <= status < 300:
            self.deliveries.remove(delivery.id, now=now)
            _log.info("logout_delivered", **known)
            return
        failure = tried.failure if status is None else f"status {status}"
        if status == 400:  # §2.8: the client refuses this one, and will not accept it later
            if self.deliveries.keep(delivery.refused(failure, now=now), now=now):
                _log.warning("delivery_refused", failure=failure, **known)
            return
        after = delivery.failed(failure, now=now)
        if not self.deliveries.keep(after, now=now):
            return
        if after.state == GIVEN_UP:
            _log.error("delivery_given_up", failure=failure, **known)
            return
        heapq.heappush(self._own, time.monotonic() + after.due_at - now)
        _log.warning("delivery_failed", failure=failure, next_try_at=after.due_at, **known)


def deliverer_of(
    settings: Settings,
    store: Store,
    keys: Keys,
    clock: Callable[[], float],
    *,
    clients: Clients | None = None,
    poll_s: float | None = None,
) -> Deliverer:
    """The sender for these settings. It takes new deliveries of this process at once, unless another process sends all."""
    strangers = settings.admits_strangers
    deliveries = Deliveries(store, fixed=settings.clients, issuer=settings.issuer, strangers=strangers)
    clients = clients or Clients.of(settings, store)
    deliverer = Deliverer(deliveries, clients, keys, Outbound.of(settings), clock, poll_s=poll_s)
    if settings.deliveries == "workers":
        deliveries.taker = deliverer.send_at_once
    return deliverer


def _run(of: weakref.ref[Deliverer], stop: threading.Event) -> None:
    """The sending thread, which does not keep an idle process alive."""
    while True:
        deliverer = of()
        if deliverer is None:
            return
        if stop.is_set():
            deliverer.close()
            return
        wake, rest_s = deliverer.wake, deliverer.rest_s()
        del deliverer
        wake.wait(rest_s)
        wake.clear()
        deliverer = of()
        if deliverer is not None and not stop.is_set():
            deliverer.turn()


def _stop(stop: threading.Event, wake: threading.Event, thread: threading.Thread) -> None:
    stop.set()
    wake.set()
    if thread is not threading.current_thread():
        thread.join(10)
