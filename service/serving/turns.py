"""Threads for requests that may write to a database with one writer. They take turns, which costs the least there."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from service.serving.plan import SLOW_S
from service.serving.steps import Job


class Turns:
    """Threads that start the next job when the last one has ended, or has taken `SLOW_S`.

    One thread does job after job. If a job takes too long, because it waits for a lock, another thread takes over. A job
    raises nothing.

    Args:
        threads: how many jobs may run at the same time.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads)
        self._lock = threading.Lock()
        self._jobs: deque[Job] = deque()
        #: Names the thread that started the last job, as long as that one does job after job; 0 if none does.
        self._turn = 0
        self._turns = 0
        self._started_at = 0.0
        self._is_watched = False

    def submit(self, job: Job, /) -> None:
        """Run a job when it is its turn.

        Raises:
            RuntimeError: if it would be the only one, and no thread can be started. It does not run then.
        """
        with self._lock:
            self._jobs.append(job)
            if self._turn:
                self._watch()
                return
            turn = self._next_turn()
            try:
                self._threads.submit(self._work, turn)
            except RuntimeError:
                self._jobs.clear()
                self._turn = 0
                raise

    def _next_turn(self) -> int:
        self._turns += 1
        self._turn = self._turns
        self._started_at = time.monotonic()
        return self._turn

    def _watch(self) -> None:
        """Let a thread take over if the last job takes too long."""
        if not self._is_watched:
            # If no thread can be started, the jobs still run, in the one that there is.
            with contextlib.suppress(RuntimeError):
                self._threads.submit(self._take_over)
                self._is_watched = True

    def _work(self, turn: int) -> None:
        """Do jobs, until there is none or another thread has taken over."""
        while True:
            with self._lock:
                if self._turn != turn:
                    return
                if not self._jobs:
                    self._turn = 0
                    return
                job = self._jobs.popleft()
                self._started_at = time.monotonic()
            job()

    def _take_over(self) -> None:
        while True:
            with self._lock:
                rest_s = self._started_at + SLOW_S - time.monotonic()
                if not self._jobs:
                    self._is_watched = False
                    return
                if rest_s <= 0:
                    self._is_watched = False
                    turn = self._next_turn()
                    if len(self._jobs) > 1:
                        self._watch()
                    break
            time.sleep(rest_s)
        self._work(turn)
