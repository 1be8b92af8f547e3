"""gunicorn's worker: slow clients wait in its poller, take no thread and delay no other client.

    connections.py receives -> answer -> connections.py sends

One loop waits for all clients. A request is answered once it has arrived completely: gunicorn's parser reads it from
memory, and its answer is written into memory. A request that is slow stops the loop only for a moment (`leading.py`).
"""

from __future__ import annotations

import contextlib
import resource
import selectors
import signal
import socket
import time
from collections import deque
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Final

from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, NoMoreData

from service.serving.answer import AnsweringWorker
from service.serving.connection import Connection, Exchange
from service.serving.connections import Connections
from service.serving.framing import Framing
from service.serving.leading import Lead
from service.serving.plan import SLOW_S, WARY_S, WRITERS, only_reads, writes_in_turn
from service.serving.request import Parser, keep_settings

#: Files that a worker needs in addition to its connections: listeners, pipes, the database.
_OTHER_FILES: Final = 64
#: How often deadlines are checked, and gunicorn's master gets a sign of life.
_LOOK_S: Final = 0.5
#: Requests that are answered in one turn of the loop.
_AT_A_TIME: Final = 8


class BufferingWorker(AnsweringWorker):
    """A worker like gunicorn's `gthread`, with its own way to wait for clients.

    Where one request writes at a time, because the database is a file, requests are answered in the loop itself, one
    after the other, like `sync`. Elsewhere those that may write have threads, and with more than one thread those that
    only read too. A request that is slow in the loop keeps its thread, and the loop continues in another one.
    """

    poller: selectors.BaseSelector
    tpool: Executor
    writers: Executor
    _connections: Connections
    _lead: Lead[Connection]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._look_at = 0.0
        #: When a worker that stops ends the connections that are left.
        self._ends_at: float | None = None
        #: The requests that other threads are answering, with their start, oldest first.
        self._under_way: dict[Connection, float] = {}
        #: Requests that wait for their turn in the loop.
        self._to_read: deque[Connection] = deque()
        #: Requests that may write: those that wait for their turn, and those in another thread, newest last.
        self._to_write: deque[Connection] = deque()
        self._writing: dict[Connection, float] = {}
        self._in_turn = self._reads_here = False
        self._was_slow_at = -WARY_S

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
        # Ours waits for a lock in its main thread, which a signal must interrupt.
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.siginterrupt(number, True)
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
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        most = max(1, min(self.cfg.worker_connections, files - _OTHER_FILES))
        self._connections = Connections(self.poller, most, self.cfg.keepalive, self.log)
        self._lead = Lead(self._turn, self._moved, WRITERS + 1)
        self._in_turn = writes_in_turn(self.wsgi)
        self._reads_here = self._in_turn or self.cfg.threads == 1
        self.poller.register(
            self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks
        )
        for listener in self.sockets:
            listener.setblocking(False)
        self.set_accept_enabled(True)
        self._lead.run()
        self._connections.close_all()
        self.tpool.shutdown(wait=False)
        self.writers.shutdown(wait=False)
        self.poller.close()
        # The queue stays open: a request that is still under way writes to its pipe, not to a file that has its number now.
        for listener in self.sockets:
            listener.close()

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection: gunicorn registers this."""
        self._connections.accept(listener)

    def _drains(self) -> bool:
        """Whether a worker that stops still has connections, and time for them."""
        if self._ends_at is None:
            self.set_accept_enabled(False)
            self._connections.hurry()
            self._ends_at = time.monotonic() + self.cfg.graceful_timeout
        return self._connections.number > 0 and time.monotonic() < self._ends_at

    def _turn(self) -> bool:
        """One turn of the loop. Returns whether another one follows, maybe in another thread."""
        is_busy = self._to_read or (self._to_write and self._writes_here(time.monotonic()))
        rest_s = 0 if is_busy else SLOW_S if self._to_write else _LOOK_S
        self.wait_for_and_dispatch_events(timeout=rest_s)
        now = time.monotonic()
        self._look(now)
        if not (self.alive or self._drains()):
            return False
        while self._connections.ready:
            self.enqueue_req(self._connections.ready.popleft())
        # One of those that may write, then some that only read: they wait for one write at most.
        if not self._let_write(now):
            return True
        for _ in range(min(len(self._to_read), _AT_A_TIME)):
            if not self._answer_here(self._to_read.popleft()):
                return True
        return self.alive or self._drains()

    def _look(self, now: float) -> None:
        """Do what is due at this time."""
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_S
        if now - next(iter(self._under_way.values()), now) < self.cfg.timeout:
            self.notify()  # without this, the master replaces the worker, because a request has hung
        self._connections.end_the_late(now)
        if self.alive and not self.is_parent_alive():
            self.alive = False

    # Answering

    def enqueue_req(self, conn: Connection) -> None:
        """Let a request wait for its turn, or give it to a thread."""
        conn.only_reads = only_reads(*conn.asked())
        if not conn.only_reads:
            self._to_write.append(conn)
            if not self._writes_here(time.monotonic()):
                self._connections.leave_alone(conn)
        elif self._reads_here:
            self._to_read.append(conn)
        else:
            self._answer_in(self.tpool, conn, time.monotonic())

    def _answer_here(self, conn: Connection) -> bool:
        """Answer a request in the loop. Returns whether this thread still leads."""
        if not self._lead.answer(conn, self._answer):
            self.method_queue.defer(self._answered, conn)
            return False
        self._connections.send(conn)
        return True

    def _writes_here(self, now: float) -> bool:
        """Whether the loop answers requests that may write: only where one writes at a time, and if none was slow."""
        return self._in_turn and not self._writing and now - self._was_slow_at >= WARY_S

    def _moved(self, conn: Connection, since: float) -> None:
        """Continue the loop without a request that is slow."""
        self._connections.leave_alone(conn)
        self._under_way[conn] = since
        if not conn.only_reads:
            self._writing[conn] = since
            self._was_slow_at = time.monotonic()
            for waiting in self._to_write:  # now they may wait for long, while their clients send more
                self._connections.leave_alone(waiting)

    def _let_write(self, now: float) -> bool:
        """Answer the next request that may write: here, or in a thread unless one has just started.

        One that waits for a lock stops no other. Returns whether this thread still leads.
        """
        if self._to_write and self._writes_here(now):
            return self._answer_here(self._to_write.popleft())
        while self._to_write and len(self._writing) < WRITERS:
            if self._in_turn and now - next(reversed(self._writing.values()), 0.0) < SLOW_S:
                break
            conn = self._to_write.popleft()
            self._writing[conn] = now
            self._answer_in(self.writers, conn, now)
        return True

    def _answer_in(self, pool: Executor, conn: Connection, now: float) -> None:
        self._connections.leave_alone(conn)
        self._under_way[conn] = now
        # If no thread can be started, the request waits in the pool's queue for one.
        with contextlib.suppress(RuntimeError):
            pool.submit(self._answer_there, conn)

    def _answer_there(self, conn: Connection) -> None:
        self._answer(conn)
        self.method_queue.defer(self._answered, conn)

    def _answer(self, conn: Connection) -> None:
        """Answer a request; raise nothing. Touches only this connection, so any thread may do it."""
        try:
            self.handle(conn)
        except BaseException:
            # SystemExit too: a request ends no worker, and in a thread its connection would stay open.
            self.log.exception("a request could not be answered")
            conn.unsent, conn.will_last = memoryview(b""), False

    def handle(self, conn: Connection) -> None:
        """Parse the request and call the application."""
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

    def _answered(self, conn: Connection) -> None:
        """Continue with a connection after another thread has answered its request."""
        del self._under_way[conn]
        since, now = self._writing.pop(conn, None), time.monotonic()
        if since is not None and now - since >= SLOW_S:
            self._was_slow_at = now
        self._connections.send(conn)
