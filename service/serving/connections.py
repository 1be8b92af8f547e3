"""All connections of a worker: each waits in the poller, with one deadline for each state.

    accept -> receive -> (ready: it is answered) -> send -> receive the next request, or close

Nothing here blocks. If there are too many connections, the one that has made no progress for the longest time is closed.

Spec: RFC 9110 §10.1.1 (100-continue), §15.5.9 (408); RFC 9112 §9.3 (persistence), §9.6 (closing)
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from collections import deque
from typing import Any, Final

from gunicorn import util

from service.serving.connection import Connection, Exchange, State
from service.serving.plan import BODY_S, HEAD_S, STOPPING_S

ANSWER_S: Final = 10.0
LEAVE_S: Final = 2.0
_READ_BYTES: Final = 65536
#: How much is read from a client after its last answer, so that it can read that answer.
_LEAVE_BYTES: Final = 1024 * 1024
_TOLD_EVERY_S: Final = 60.0


class Connections:
    """The connections of a worker. Only the thread that runs the worker's loop uses this.

    Args:
        poller: calls what is registered with it.
        most: how many connections there may be.
        keepalive_s: how long an idle connection is kept.
        log: gunicorn's.

    Attributes:
        ready: those whose request has arrived completely, oldest first.
        number: how many there are, with those that are being answered.
    """

    def __init__(self, poller: selectors.BaseSelector, most: int, keepalive_s: float, log: Any) -> None:
        self._poller = poller
        self._most = most
        self._log = log
        self.ready: deque[Connection] = deque()
        self.number = 0
        # In each state, the first connection has waited the longest: all of them have the same time limit.
        self._waiting: dict[State, dict[Connection, None]] = {state: {} for state in State}
        self._limits = {
            State.IDLE: keepalive_s,
            State.HEAD: HEAD_S,
            State.BODY: BODY_S,
            State.ANSWER: ANSWER_S,
            State.LEAVE: LEAVE_S,
        }
        self._dropped = 0
        self._told_at = -_TOLD_EVERY_S

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection, and read what has already arrived on it."""
        try:
            wire, client = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._make_room()
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                raise
            return
        wire.setblocking(False)
        self.number += 1
        conn = Connection(wire, client, listener.getsockname())
        self._wait(conn, State.HEAD, 0)
        if self.number > self._most:
            self._make_room()
        if conn.state is not None:
            self._receive(conn)

    # Receiving

    def _receive(self, conn: Connection) -> None:
        """Read what has arrived, and answer the request if it is complete."""
        data = self._read_now(conn)
        if data is not None:
            conn.received += data
            conn.ended = not data
            self._go_on(conn)

    def _read_now(self, conn: Connection) -> bytes | None:
        """Read what has arrived; empty at the end. None if it is waited for, or the connection was lost and is closed."""
        try:
            return conn.socket.recv(_READ_BYTES)
        except BlockingIOError:
            self._watch(conn, selectors.EVENT_READ)
        except OSError:
            self._close(conn)
        return None

    def _go_on(self, conn: Connection) -> None:
        """Check whether a whole request has arrived, and otherwise how long to wait for the rest."""
        framing = conn.framing
        if not conn.received and conn.ended:
            self._close(conn)
        elif conn.received and framing.look(conn.received, is_all=conn.ended):
            self._stop_waiting(conn)
            self.ready.append(conn)
        elif framing.body_at is not None:
            if conn.state is not State.BODY:
                self._wait(conn, State.BODY, selectors.EVENT_READ)
                if framing.awaits_continue and len(conn.received) == framing.body_at:
                    self._send_now(conn, b"HTTP/1.1 100 Continue\r\n\r\n")
        elif conn.received and conn.state is not State.HEAD:
            self._wait(conn, State.HEAD, selectors.EVENT_READ)
        else:
            self._watch(conn, selectors.EVENT_READ)

    # Sending

    def send(self, conn: Connection) -> None:
        """Send as much of the answer as the client takes. When all is sent, continue with its next request."""
        while conn.unsent:
            sent = self._send_now(conn, conn.unsent)
            if sent is None:
                return
            conn.unsent = conn.unsent[sent:]
            if not sent:
                break
        if conn.unsent:
            if conn.state is not State.ANSWER:
                self._wait(conn, State.ANSWER, selectors.EVENT_WRITE)
        elif not conn.will_last:
            self._leave(conn)
        else:
            self._wait(conn, State.IDLE, conn.watched)
            self._go_on(conn)

    def _send_now(self, conn: Connection, data: bytes | memoryview) -> int | None:
        """Send what fits now. Returns the number of bytes, or None if the connection was lost and is closed."""
        try:
            return conn.socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            self._close(conn)
            return None

    def _leave(self, conn: Connection) -> None:
        """Stop sending, and let the client read the answer before the connection is closed."""
        try:
            conn.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
            return
        conn.received.clear()
        if conn.ended:
            self._close(conn)
            return
        self._wait(conn, State.LEAVE, conn.watched)
        self._see_off(conn)

    def _see_off(self, conn: Connection) -> None:
        data = self._read_now(conn)
        if data is None:
            return
        conn.left += len(data)
        if not data or conn.left > _LEAVE_BYTES:
            self._close(conn)
        else:
            self._watch(conn, selectors.EVENT_READ)

    # Waiting

    def leave_alone(self, conn: Connection) -> None:
        """Expect nothing of a connection whose request is answered in another thread, until `send`."""
        self._watch(conn, 0)

    def hurry(self) -> None:
        """Wait only shortly for requests on idle connections, because the worker stops."""
        self._limits[State.IDLE] = STOPPING_S
        for conn in [*self._waiting[State.IDLE], *self._waiting[State.HEAD]]:
            # A request may be on its way: give it a moment, however little time was left.
            if not conn.received:
                self._wait(conn, State.IDLE, conn.watched)

    def close_all(self) -> None:
        """Close all connections that wait for their client."""
        for state in State:
            for conn in list(self._waiting[state]):
                self._close(conn)

    def _wait(self, conn: Connection, state: State, events: int) -> None:
        """Put the connection into a state, and start the deadline of that state."""
        self._stop_waiting(conn)
        conn.state = state
        conn.since = time.monotonic()
        self._waiting[state][conn] = None
        self._watch(conn, events)

    def _stop_waiting(self, conn: Connection) -> None:
        if conn.state is not None:
            del self._waiting[conn.state][conn]
            conn.state = None

    def _watch(self, conn: Connection, events: int) -> None:
        if events == conn.watched:
            return
        if not events:
            self._poller.unregister(conn.socket)
        elif conn.watched:
            self._poller.modify(conn.socket, events, lambda _socket: self._on_event(conn))
        else:
            self._poller.register(conn.socket, events, lambda _socket: self._on_event(conn))
        conn.watched = events

    def _on_event(self, conn: Connection) -> None:
        if conn.state is State.ANSWER:
            self.send(conn)
        elif conn.state is State.LEAVE:
            self._see_off(conn)
        elif conn.state is not None:
            self._receive(conn)

    def _close(self, conn: Connection) -> None:
        self._stop_waiting(conn)
        self._watch(conn, 0)
        self.number -= 1
        util.close(conn.socket)

    # Deadlines

    def end_the_late(self, now: float) -> None:
        """Close, or answer with 408, what has waited for longer than its state allows. `now` is of the monotonic clock."""
        for state, limit in self._limits.items():
            waiting = self._waiting[state]
            while waiting and (conn := next(iter(waiting))).since + limit <= now:
                if conn.received and state in (State.HEAD, State.BODY):
                    self._refuse_late(conn)
                else:
                    self._close(conn)

    def _refuse_late(self, conn: Connection) -> None:
        exchange = Exchange(b"")
        util.write_error(exchange, 408, "Request Timeout", "")
        self._stop_waiting(conn)
        conn.unsent = memoryview(exchange.answer)
        conn.will_last = False
        self.send(conn)

    def _make_room(self) -> None:
        """Close the connection that has made no progress for the longest time."""
        oldest = [next(iter(waiting)) for waiting in self._waiting.values() if waiting]
        if not oldest:
            return
        self._close(min(oldest, key=lambda conn: conn.since))
        self._dropped += 1
        now = time.monotonic()
        if now - self._told_at >= _TOLD_EVERY_S:
            self._log.warning(
                "%d connections made room for others: a worker holds %d", self._dropped, self._most
            )
            self._told_at, self._dropped = now, 0
