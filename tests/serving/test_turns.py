"""Requests that may write take turns: one at a time while nothing is in their way, and none stops the next for long."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

import service.serving.turns as turns_module
from service.serving.turns import Turns


def test_one_job_at_a_time_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next job starts when the last one has ended, however many are waiting."""
    monkeypatch.setattr(turns_module, "SLOW_S", 2.0)  # a busy machine may make a job take longer than 20 ms
    turns, all_done = Turns(8), threading.Event()
    running, most, order = 0, 0, []

    def job(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.001)
        order.append(number)
        running -= 1
        if number == 99:
            all_done.set()

    for number in range(100):
        turns.submit(lambda number=number: job(number))
    assert all_done.wait(60)
    assert order == list(range(100))
    assert most == 1


def test_a_slow_job_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """While jobs wait for a lock, the next ones start, in as many threads as there are; and all jobs end."""
    slow_s = 0.3  # more than a thread waits for a processor on a busy machine
    monkeypatch.setattr(turns_module, "SLOW_S", slow_s)
    turns, lock, ended = Turns(3), threading.Event(), threading.Semaphore(0)
    started: list[float] = []

    def slow() -> None:
        started.append(time.monotonic())
        lock.wait(60)
        ended.release()

    for _ in range(5):
        turns.submit(slow)
    end = time.monotonic() + 60
    while len(started) < 3 and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(slow_s * 3)
    assert len(started) == 3
    assert min(later - sooner for sooner, later in itertools.pairwise(started)) >= slow_s / 2
    lock.set()
    assert all(ended.acquire(timeout=60) for _ in range(5))
    # And then they take turns as before.
    turns.submit(ended.release)
    assert ended.acquire(timeout=60)


def test_a_job_without_a_thread_is_refused_and_later_ones_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the machine has no thread left, a job that would start one is not kept. Later jobs run as before."""
    start, is_full = threading.Thread.start, True

    def started(thread: threading.Thread) -> None:
        if is_full:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", started)
    turns, ended, refused = Turns(3), threading.Semaphore(0), []
    for _ in range(2):
        with pytest.raises(RuntimeError, match="start new thread"):
            turns.submit(lambda: refused.append(True))
    is_full = False
    gate = threading.Event()
    turns.submit(lambda: (gate.wait(60), ended.release()))
    is_full = True
    turns.submit(ended.release)  # there is a thread now, which does one after the other
    gate.set()
    assert all(ended.acquire(timeout=60) for _ in range(2))
    assert not refused
