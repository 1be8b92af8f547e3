"""An application that does what its path says: tells the length of the body, answers at length, or takes its time."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from typing import IO, Any

_under_way: list[dict[str, Any]] = []
_open: list[IO[bytes]] = []
_start = threading.Thread.start


def app(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
    """`/length`, `/large/<bytes>`, `/slow/<s>[/…]`, `/together/<s>`, `/exit/<s>`, `/open/<s>`, `/threads/none`, `/threads/some`; the answer to all else is the process id."""
    what, _, number = environ["PATH_INFO"].strip("/").partition("/")
    answer = str(os.getpid()).encode()
    if what == "length":
        answer = str(len(environ["wsgi.input"].read())).encode()
    elif what == "large":
        answer = b"x" * int(number)
    elif what == "slow":
        time.sleep(float(number.partition("/")[0]))
        answer = b"done"
    elif what == "together":
        _under_way.append(environ)
        answer = str(len(_under_way)).encode()
        time.sleep(float(number))
        _under_way.remove(environ)
    elif what == "open":
        time.sleep(float(number))
        _open.extend(tempfile.TemporaryFile() for _ in range(20))  # noqa: SIM115
        threading.Thread(target=_tell_what_was_written, args=[environ["wsgi.errors"]]).start()
    elif what == "threads":
        threading.Thread.start = _refuse if number == "none" else _start  # type: ignore[method-assign]
    elif what == "exit":
        time.sleep(float(number))
        raise SystemExit(1)
    start("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]


def _refuse(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def _tell_what_was_written(errors: IO[str]) -> None:
    """Tell, a moment later, what somebody else has written to our files."""
    time.sleep(0.3)
    written = sum(os.fstat(file.fileno()).st_size for file in _open)
    errors.write(f"others wrote {written} bytes\n")
    errors.flush()


class _InTurn:
    """The same, for a database with one writer."""

    writes_in_turn = True
    __call__ = staticmethod(app)


in_turn = _InTurn()
