"""Runs granian by the same plan as gunicorn, and adds what granian lacks.

python -m service.launch.granian [--bind ADDRESS] [--workers N] [--threads N]

The application is loaded before the workers are forked, like gunicorn's `preload_app`: if the configuration is wrong,
the process exits before the port opens. granian's own class serves. Three things differ: requests need no event loop,
the master opens all sockets, and a worker that ends is always replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import logging
import os
import resource
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from granian._granian import ASGIWorker, CallbackScheduler, SocketHolder
from granian._signals import set_loop_signals
from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.common import WORKERS_METHODS
from granian.server.mp import MPServer, WorkerProcess

from service.launch.binding import check_binding
from service.serving.asgi import Bridge
from service.serving.framing import MAX_HEAD_BYTES
from service.serving.plan import BODY_S, GRACEFUL_S, HUNG_S, STOPPING_S, Address, Plan, parse_address, plan
from service.serving.steps import Nowhere, Steps

_BACKLOG: Final = 2048
#: The most connections of a worker, if its limit of open files allows that; and the files it needs for other things.
_MOST_CONNECTIONS: Final = 16_384
_OTHER_FILES: Final = 64
#: Longer than nginx's 10 s for an idle connection, so that nginx closes first. granian has one limit for both the
#: request head and an idle connection.
_WITHOUT_PLATFORM_S: Final = 13
_WATCH_S: Final = 0.5
#: A pause before a worker is replaced, so that one that always fails at once does not cause a busy loop.
_REST_S: Final = 0.5


class Server(MPServer):
    """granian's multi-process server, on sockets that are bound once, with workers that are always replaced."""

    def __init__(self, address: Address, **options: Any) -> None:
        super().__init__("service.wsgi:app", address.host or "", address.port, **options)
        self._address = address
        if address.path is not None:
            # granian removes the socket when it stops, and logs its path.
            self.bind_uds = Path(address.path).resolve()

    def _init_shared_socket(self) -> None:
        self._listening = listen(self._address, self.workers)

    def _spawn_worker(self, idx: int, *args: Any, **options: Any) -> Any:
        # A worker and the one that replaces it have the same socket, so what waits in its queue is not lost.
        self._sso = self._listening[idx % len(self._listening)]
        holder: Any = SocketHolder  # its type stubs are of an older version
        self._shd = holder(self._sso.fileno(), self._address.path is not None, _BACKLOG)
        return super()._spawn_worker(idx, *args, **options)

    def _drop_shared_socket(self) -> None:
        for sock in self._listening:
            sock.close()

    def _serve_loop(self, spawn_target: Any, target_loader: Any) -> None:
        while True:
            self.main_loop_interrupt.wait()
            self.main_loop_interrupt.clear()
            if self.interrupt_signal:
                return
            if self.reload_signal:
                self._reload(spawn_target, target_loader)
            if ended := list(dict.fromkeys(self.interrupt_children)):
                self.interrupt_children.clear()
                time.sleep(_REST_S)
                self._respawn_workers(ended, spawn_target, target_loader)

    def _respawn_workers(self, workers: Any, spawn_target: Any, target_loader: Any, delay: float = 0) -> None:
        old = [self.wrks[index] for index in workers]
        for index in workers:
            self.wrks[index] = self._spawn_worker(index, spawn_target, target_loader)
            self.wrks[index].start()
        self._end(old)

    def _stop_workers(self) -> None:
        self._end(self.wrks)
        self.wrks.clear()

    @staticmethod
    def _end(workers: list[Any]) -> None:
        """Stop workers gracefully: first close their idle connections after a last answer, then end the processes."""
        alive = [worker for worker in workers if worker.is_alive()]
        for worker in alive:
            worker.interrupt_by_parent = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.inner.pid, signal.SIGUSR1)
        if alive:
            time.sleep(STOPPING_S)
        for worker in alive:
            worker.terminate()
        end = time.monotonic() + GRACEFUL_S
        for worker in workers:
            worker.join(max(0.0, end - time.monotonic()))
            if worker.is_alive():
                worker.kill()
                worker.join()

    def shutdown(self, exit_code: int = 0) -> None:
        """Stop. A worker that had already ended does not make this a failure."""
        self.interrupt_children.clear()
        super().shutdown(exit_code)


def listen(address: Address, workers: int) -> list[socket.socket]:
    """Open listening sockets, for this process and the workers that it forks.

    Returns:
        One for each worker, between which the system divides new connections; one for all if it is a Unix socket.

    Raises:
        OSError: if it cannot be bound.
    """
    if address.path is None:
        host, port = address.host or "", address.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        found: list[socket.socket] = []
        with _one_at_a_time(port):
            # This one fails if another process listens there; those that follow would share the address with it.
            socket.create_server((host, port), family=family).close()
            for _ in range(workers):
                found.append(
                    socket.create_server((host, port), family=family, backlog=_BACKLOG, reuse_port=True)
                )
                port = found[0].getsockname()[1]
        return found
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(Path(address.path).stat().st_mode):
            Path(address.path).unlink()
    sock = socket.socket(socket.AF_UNIX)
    before = os.umask(0)  # anyone who can reach its folder can connect, as with gunicorn
    try:
        sock.bind(address.path)
    finally:
        os.umask(before)
    sock.listen(_BACKLOG)
    return [sock]


@contextlib.contextmanager
def _one_at_a_time(port: int) -> Iterator[None]:
    """Wait while another instance on this machine takes the same port, but not for long: anyone may use the name."""
    with socket.socket(socket.AF_UNIX) as lock:
        for _ in range(100):
            try:
                lock.bind(f"\0pylon-oidc listens on {port}")
            except OSError:
                time.sleep(0.01)
            else:
                break
        yield


def _serve(
    number: int,
    begin: Callable[[Any], None],
    sock: tuple[Any, Any],
    ipc: Any,
    loop: asyncio.AbstractEventLoop,
    runtime_mode: RuntimeModes,
    *options: Any,
) -> None:
    """Serve in a worker, like granian's own function for ASGI, but with no event loop between its threads and ours.

    granian has one thread for all that is Python. That thread would pass each request, and each part of a body, to a loop
    in another thread. Here it answers the request itself, and the loop only waits for signals.
    """
    *runtime, _task, http, http1, http2, websockets, static, _log, tls, _scope, metrics = options
    make: dict[str, Any] = {
        "worker": ASGIWorker,
        "scheduler": CallbackScheduler,
    }  # type stubs of an older version
    signalled = set_loop_signals(loop)
    ended = asyncio.Event()
    signalled.add_cb(lambda: loop.call_soon_threadsafe(ended.set))
    worker = make["worker"](
        number, sock, ipc, *runtime, http, http1, http2, websockets, static, *tls, metrics
    )
    scheduler = make["scheduler"](Nowhere, None, None, None, None)
    scheduler._schedule_fn = begin
    serve = getattr(worker, WORKERS_METHODS[runtime_mode][(sock[0] or sock[1]).is_uds()])
    serve(scheduler, Nowhere, signalled)
    loop.run_until_complete(ended.wait())


class _Loader:
    """Gives a worker the application, and makes sure that the worker ends when it must.

    Args:
        bridge: the application.
        begin_work: starts its background work.
    """

    def __init__(self, bridge: Bridge, begin_work: Callable[[], None]) -> None:
        self._bridge = bridge
        self._begin_work = begin_work
        self._main = os.getpid()
        self._steps = Steps(BODY_S)

    def __call__(self) -> Callable[[Any], None]:
        """Prepare the worker, before it serves. Returns what begins to answer a request."""
        gc.enable()
        signal.signal(signal.SIGUSR1, self._take_leave)
        threading.Thread(target=self._watch, daemon=True).start()
        self._begin_work()
        return self._begin

    def _begin(self, request: Any) -> None:
        client = request.proto
        self._steps.begin(self._bridge(request.scope, client.receive, client.send), request)

    def _take_leave(self, _number: int, _frame: object) -> None:
        self._bridge.takes_leave = True
        _listen_no_more()

    def _watch(self) -> None:
        """End this process if its parent has ended or a request has hung, and late requests. granian checks none of these."""
        while True:
            time.sleep(_WATCH_S)
            self._steps.end_the_late(time.monotonic())
            if os.getppid() != self._main:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(GRACEFUL_S)
                os._exit(1)
            if self._bridge.has_hung(time.monotonic()):
                logging.getLogger("_granian").critical("a request has taken more than %d s", HUNG_S)
                os._exit(1)


def _listen_no_more() -> None:
    """Leave new connections to the other workers on the socket: one accepted while this worker ends would be lost.

    granian keeps using the descriptor, so it is replaced by a socket that no client knows.
    """
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind("")  # the system picks the name
        mute.listen()
        mute.setblocking(False)
        for number in [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]:
            with contextlib.suppress(OSError):  # the descriptor of the listing itself is already closed
                if stat.S_ISSOCK(os.fstat(number).st_mode) and _is_listening(number):
                    os.dup2(mute.fileno(), number)


def _is_listening(number: int) -> bool:
    with socket.socket(fileno=os.dup(number)) as wire:
        return bool(wire.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _end_where_nobody_listens() -> None:
    """Give a forked worker the default signal handlers, so that a SIGTERM before it sets its own is not lost."""
    ends = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}

    def in_child() -> None:
        if threading.current_thread() is threading.main_thread():
            for number in ends:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ends)

    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ends),
        after_in_parent=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, ends),
        after_in_child=in_child,
    )


def server_of(planned: Plan) -> Server:
    """Build the server of a plan. Nothing is bound yet."""
    files = _allowed_files()
    level = logging.getLogger("gunicorn.error").level or logging.INFO
    return Server(
        planned.address,
        interface=Interfaces.ASGINL,
        workers=planned.workers,
        http=HTTPModes.http1,
        websockets=False,
        loop=Loops.asyncio,
        backlog=_BACKLOG,
        backpressure=max(1, min(_MOST_CONNECTIONS, files - _OTHER_FILES)),
        http1_settings=HTTP1Settings(
            header_read_timeout=1000 * max(_WITHOUT_PLATFORM_S, planned.keepalive_s),
            max_buffer_size=MAX_HEAD_BYTES,
        ),
        log_level=LogLevels(logging.getLevelName(level).lower()),
        # Its log lines go to our log, in our format.
        log_dictconfig={"incremental": True, "handlers": {}, "formatters": {}, "loggers": {"_granian": {}}},
    )


def _allowed_files() -> int:
    """Raise the limit of open files as far as needed and allowed, and return it. Each connection needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_CONNECTIONS + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # systemd's filter denies it: LimitNOFILE= sets the limit there
        return soft
    return wanted


def main() -> None:
    """Load the application, then serve it."""
    parser = argparse.ArgumentParser(prog="python -m service.launch.granian")
    parser.add_argument("--bind", type=parse_address)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("app", nargs="?", default="service.wsgi:app")
    given = parser.parse_args()
    of_environment = plan()
    planned = replace(
        of_environment,
        address=given.bind or of_environment.address,
        workers=given.workers or of_environment.workers,
        threads=given.threads or of_environment.threads,
    )
    gc.disable()  # loading creates many objects and no garbage
    module, _, name = given.app.partition(":")
    app = getattr(importlib.import_module(module), name.removesuffix("()"))
    if name.endswith("()"):
        app = app()
    check_binding([str(planned.address)], "granian")
    bridge = Bridge(app, threads=planned.threads, workers=planned.workers)
    server = server_of(planned)
    _end_where_nobody_listens()
    gc.collect()
    gc.freeze()
    try:
        loader = _Loader(bridge, getattr(app, "begin_work", lambda: None))
        server.serve(WorkerProcess.wrap_target(_serve), loader, wrap_loader=False)
    except OSError as error:
        print(f"{planned.address}: cannot be listened on ({error.strerror})", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
