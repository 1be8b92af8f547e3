"""Waiting for what must come about by itself, with an end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

_Value = TypeVar("_Value")


def wait_until(ask: Callable[[], _Value], timeout_s: float = 60.0) -> _Value:
    """Ask again and again until the answer is true.

    Args:
        ask: What must become true. What it raises is not caught, except failures to connect.
        timeout_s: Seconds after which to give up.

    Returns:
        The first true answer.

    Raises:
        AssertionError: When it has not become true by then; the message holds the last answer.
    """
    end = time.monotonic() + timeout_s
    last: object = None
    while time.monotonic() < end:
        try:
            if value := ask():
                return value
            last = value
        except OSError as error:
            last = error
        time.sleep(0.02)
    raise AssertionError(f"it did not come about within {timeout_s:g} s; last: {last!r}")


@contextlib.contextmanager
def working(*work: Callable[[], None], until: threading.Event) -> Iterator[None]:
    """Each of them in a thread of its own while the context lasts; then `until` is set, and they are waited for."""
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        until.set()
        for thread in threads:
            thread.join()
