"""gunicorn's worker: slow clients wait in its poller, take no thread and delay no other client.

    accept -> receive -> answer -> send -> receive the next request, or close

One loop waits for all clients, and never blocks. A request is answered once it has arrived completely: gunicorn's
parser reads it from memory, and its answer is written into memory. Each state has one deadline, not one for each byte.
If there are too many connections, the one that has made no progress for the longest time is closed.

Spec: RFC 9110 §10.1.1 (100-continue), §15.5.9 (408); RFC 9112 §9.3 (persistence), §9.6 (closing)
"""

from __future__ import annotations

import errno
import resource
import selectors
import signal
import socket
import time
from collections import deque
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Final

from gunicorn import util
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, NoMoreData

from service.serving.answer import AnsweringWorker
from service.serving.connection import Connection, Exchange, State
from service.serving.framing import Framing
from service.serving.plan import BODY_S, HEAD_S, SLOW_S, STOPPING_S, WRITERS, only_reads, writes_in_turn
from service.serving.request import Parser, keep_settings

ANSWER_S: Final = 10.0
LEAVE_S: Final = 2.0
_READ_BYTES: Final = 65536
#: How much is read from a client after its last answer, so that it can read that answer.
_LEAVE_BYTES: Final = 1024 * 1024
#: Files that a worker needs in addition to its connections: listeners, pipes, the database.
_OTHER_FILES: Final = 64
_TOLD_EVERY_S: Final = 60.0
#: How often deadlines are checked, and gunicorn's master gets a sign of life.
_LOOK_S: Final = 0.5
#: Requests that are answered before connections are checked again.
_AT_A_TIME: Final = 8


class BufferingWorker(AnsweringWorker):
    """A worker like gunicorn's `gthread`, with its own way to wait for clients.

    With one thread, requests that only read are answered in the loop itself, one after the other, like `sync`. Requests
    that may wait for another request's write have separate threads.
    """

    poller: selectors.BaseSelector
    tpool: Executor
    writers: Executor

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = max(1, min(self.cfg.worker_connections, files - _OTHER_FILES))
        # In each state, the first connection has waited the longest: all of them have the same time limit.
        self._waiting: dict[State, dict[Connection, None]] = {state: {} for state in State}
        self._limits = {
            State.IDLE: float(self.cfg.keepalive),
            State.HEAD: HEAD_S,
            State.BODY: BODY_S,
            State.ANSWER: ANSWER_S,
            State.LEAVE: LEAVE_S,
        }
        self._ready: deque[Connection] = deque()
        self._look_at = 0.0
        #: The requests that threads are answering, with their start, oldest first.
        self._under_way: dict[Connection, float] = {}
        #: Requests that may write: those that wait for their turn, and those in a thread, newest last.
        self._to_write: deque[Connection] = deque()
        self._writing: dict[Connection, float] = {}
        self._in_turn = False
        self._dropped = 0
        self._told_at = -_TOLD_EVERY_S

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Raise a `RuntimeError` for TLS, which this worker does not support."""
        if cfg.is_ssl:
            raise RuntimeError(
                "this worker serves plain HTTP; terminate TLS at a proxy, or use --worker-class gthread"
            )

    def init_signals(self) -> None:
        """Handle the signals that came since the fork, which the master's handler has only queued."""
        handler = signal.getsignal(signal.SIGTERM)
        super().init_signals()
        queued = getattr(getattr(handler, "__self__", None), "SIG_QUEUE", None)
        while queued is not None and not queued.empty():
            if queued.get_nowait() in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                self.alive = False

    def init_process(self) -> None:
        """Start in the worker: threads do not survive a fork."""
        self.writers = ThreadPoolExecutor(WRITERS)
        keep_settings(self.cfg)
        super().init_process()

    # The loop

    def run(self) -> None:
        """Serve until a stop is requested, then finish running requests within the graceful timeout."""
        self._in_turn = writes_in_turn(self.wsgi)
        self.poller.register(
            self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks
        )
        for listener in self.sockets:
            listener.setblocking(False)
        self.set_accept_enabled(True)
        while self.alive:
            self._turn()
            if not self.is_parent_alive():
                break
        self.set_accept_enabled(False)
        self._limits[State.IDLE] = STOPPING_S
        for conn in [*self._waiting[State.IDLE], *self._waiting[State.HEAD]]:
            # A request may be on its way: give it a moment, however little time was left.
            if not conn.received:
                self._wait(conn, State.IDLE, conn.watched)
        end = time.monotonic() + self.cfg.graceful_timeout
        while self.nr_conns > 0 and time.monotonic() < end:
            self._turn()
        for state in State:
            for conn in list(self._waiting[state]):
                self._close(conn)
        self.tpool.shutdown(wait=False)
        self.writers.shutdown(wait=False)
        self.poller.close()
        self.method_queue.close()
        for listener in self.sockets:
            listener.close()

    def _turn(self) -> None:
        rest_s = 0 if self._ready else SLOW_S if self._to_write else _LOOK_S
        self.wait_for_and_dispatch_events(timeout=rest_s)
        for _ in range(min(len(self._ready), _AT_A_TIME)):
            self.enqueue_req(self._ready.popleft())
        now = time.monotonic()
        self._let_write(now)
        if now >= self._look_at:
            self._look_at = now + _LOOK_S
            if now - next(iter(self._under_way.values()), now) < self.cfg.timeout:
                self.notify()  # without this, the master replaces the worker, because a request has hung
            self._end_the_late(now)

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
        self.nr_conns += 1
        conn = Connection(wire, client, listener.getsockname())
        self._wait(conn, State.HEAD, 0)
        if self.nr_conns > self._most:
            self._make_room()
        if conn.state is not None:
            self._receive(conn)

    # Receiving

    def _receive(self, conn: Connection) -> None:
        """Read what has arrived, and answer the request if it is complete."""
        try:
            data = conn.socket.recv(_READ_BYTES)
        except BlockingIOError:
            self._watch(conn, selectors.EVENT_READ)
            return
        except OSError:
            self._close(conn)
            return
        conn.received += data
        conn.ended = not data
        self._go_on(conn)

    def _go_on(self, conn: Connection) -> None:
        """Check whether a whole request has arrived, and otherwise how long to wait for the rest."""
        framing = conn.framing
        if not conn.received and conn.ended:
            self._close(conn)
        elif conn.received and framing.look(conn.received, is_all=conn.ended):
            self._stop_waiting(conn)
            self._ready.append(conn)
        elif framing.body_at is not None:
            if conn.state is not State.BODY:
                self._wait(conn, State.BODY, selectors.EVENT_READ)
                if framing.awaits_continue and len(conn.received) == framing.body_at:
                    self._send_now(conn, b"HTTP/1.1 100 Continue\r\n\r\n")
        elif conn.received and conn.state is not State.HEAD:
            self._wait(conn, State.HEAD, selectors.EVENT_READ)
        else:
            self._watch(conn, selectors.EVENT_READ)

    # Answering

    def enqueue_req(self, conn: Connection) -> None:
        """Answer the request in a thread; or here, if it only reads and there is only one thread."""
        reads = only_reads(*conn.asked())
        if reads and self.cfg.threads == 1:
            self.handle(conn)
            self._send(conn)
            return
        self._watch(conn, 0)
        if reads:
            self._answer_in(self.tpool, conn, time.monotonic())
        else:
            self._to_write.append(conn)

    def _let_write(self, now: float) -> None:
        """Start the next request that may write, unless one has just started. One that waits for a lock stops no other."""
        while self._to_write and len(self._writing) < WRITERS:
            if self._in_turn and now - next(reversed(self._writing.values()), 0.0) < SLOW_S:
                return
            conn = self._to_write.popleft()
            self._writing[conn] = now
            self._answer_in(self.writers, conn, now)

    def _answer_in(self, pool: Executor, conn: Connection, now: float) -> None:
        self._under_way[conn] = now
        answered = pool.submit(self.handle, conn)
        answered.add_done_callback(lambda future: self.method_queue.defer(self.finish_request, conn, future))

    def handle(self, conn: Connection) -> None:
        """Parse the request and call the application. Touches only this connection, so it may run in a thread."""
        framing = conn.framing
        exchange = conn.sock = Exchange(bytes(conn.received[: framing.end]))
        del conn.received[: framing.end]
        conn.framing = Framing()
        request = None
        conn.will_last = False
        try:
            if framing.line_too_long:
                raise LimitRequestLine("request line")
            if framing.head_too_large:
                raise LimitRequestHeaders("request head")
            parser = Parser(self.cfg, exchange, conn.client)
            request = next(parser)
            if framing.is_last:
                request.force_close()
            if self.handle_request(request, conn) and not framing.is_last and parser.finish_body():
                conn.will_last = exchange.is_used_up() and not parser.unreader.take_buffered()
        except (NoMoreData, StopIteration):
            pass  # the client is gone, or closed too early to get an answer
        except Exception as error:  # like gunicorn's workers: this answers malformed requests
            self.handle_error(request, exchange, conn.client, error)
        conn.unsent = memoryview(exchange.answer)
        conn.sock = None

    def finish_request(self, conn: Connection, fs: Future[None]) -> None:
        """Continue with a connection after a thread has answered its request."""
        self._under_way.pop(conn, None)
        self._writing.pop(conn, None)
        if fs.cancelled() or fs.exception() is not None:
            self._close(conn)
        else:
            self._send(conn)

    # Sending

    def _send(self, conn: Connection) -> None:
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
        try:
            data = conn.socket.recv(_READ_BYTES)
        except BlockingIOError:
            self._watch(conn, selectors.EVENT_READ)
            return
        except OSError:
            data = b""
        conn.left += len(data)
        if not data or conn.left > _LEAVE_BYTES:
            self._close(conn)
        else:
            self._watch(conn, selectors.EVENT_READ)

    # Waiting

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
            self.poller.unregister(conn.socket)
        elif conn.watched:
            self.poller.modify(conn.socket, events, lambda _socket: self._on_event(conn))
        else:
            self.poller.register(conn.socket, events, lambda _socket: self._on_event(conn))
        conn.watched = events

    def _on_event(self, conn: Connection) -> None:
        if conn.state is State.ANSWER:
            self._send(conn)
        elif conn.state is State.LEAVE:
            self._see_off(conn)
        elif conn.state is not None:
            self._receive(conn)

    def _close(self, conn: Connection) -> None:
        self._stop_waiting(conn)
        self._watch(conn, 0)
        self.nr_conns -= 1
        util.close(conn.socket)

    # Deadlines

    def _end_the_late(self, now: float) -> None:
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
        self._send(conn)

    def _make_room(self) -> None:
        """Close the connection that has made no progress for the longest time."""
        oldest = [next(iter(waiting)) for waiting in self._waiting.values() if waiting]
        if not oldest:
            return
        self._close(min(oldest, key=lambda conn: conn.since))
        self._dropped += 1
        now = time.monotonic()
        if now - self._told_at >= _TOLD_EVERY_S:
            self.log.warning(
                "%d connections made room for others: a worker holds %d", self._dropped, self._most
            )
            self._told_at, self._dropped = now, 0
