"""One thread leads a loop at any time; a slow item keeps its thread and not the loop; nothing is answered twice or lost."""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import service.serving.leading as leading
from service.serving.leading import Lead
from tests.flows.polling import wait_until

#: More than a thread waits for a processor on a busy machine, where a test needs items that are not slow.
_LONG_S = 1.0


class _Loop:
    """A loop that answers items in the order of their arrival, and notes who does what.

    Args:
        threads: how many threads there may be.
        job: what is done with an item.
    """

    def __init__(self, threads: int, job: Callable[[int], None]) -> None:
        self.lead: Lead[int] = Lead(self._turn, self._moved, threads)
        self._job = job
        self.waiting: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.moved: list[int] = []
        self.answered_here: list[int] = []
        self.answered_there: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.leaders: Counter[int] = Counter()
        self._inside = threading.Lock()
        self.error: BaseException | None = None

    def _turn(self) -> bool:
        assert self._inside.acquire(blocking=False), "two threads lead"
        item = self.waiting.get()
        self.leaders[threading.get_ident()] += 1
        self._inside.release()
        if item is None:
            return False
        if self.lead.answer(item, self._job):
            assert self._inside.acquire(blocking=False), "two threads lead"
            self.answered_here.append(item)
            self._inside.release()
        else:
            self.answered_there.put(item)
        return True

    def _moved(self, item: int, since: float) -> None:
        assert self._inside.acquire(blocking=False), "somebody leads already"
        assert 0 <= time.monotonic() - since < 60
        self.moved.append(item)
        self._inside.release()

    def _run(self) -> None:
        try:
            self.lead.run()
        except BaseException as error:
            self.error = error

    @contextmanager
    def running(self) -> Iterator[threading.Thread]:
        """Run it during the block, and to its end. Then it leaves no thread behind."""
        before = {*threading.enumerate()}
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield thread
        finally:
            self.waiting.put(None)
            thread.join(60)
        assert not thread.is_alive()
        assert self.error is None
        wait_until(lambda: {*threading.enumerate()} <= before)


def test_while_nothing_is_slow_one_thread_does_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop never moves, however often it is looked at meanwhile."""
    monkeypatch.setattr(leading, "PATIENT_S", _LONG_S)
    loop = _Loop(3, lambda _item: time.sleep(0.01))
    with loop.running():
        for item in range(130):
            loop.waiting.put(item)
    assert loop.answered_here == list(range(130))
    assert loop.moved == []
    assert len(loop.leaders) == 1


def test_a_slow_item_keeps_its_thread_and_not_the_loop() -> None:
    """Those after it are answered while it is still at it; and it is answered too, without the lead."""
    ends = threading.Event()

    def job(item: int) -> None:
        if item == 0:
            ends.wait(60)

    loop = _Loop(3, job)
    with loop.running():
        for item in range(50):
            loop.waiting.put(item)
        wait_until(lambda: {*range(1, 50)} <= {*loop.answered_here, *loop.moved})
        assert set(range(1, 50)) - set(loop.moved) <= set(loop.answered_here)
        assert 0 in loop.moved
        assert 0 not in loop.answered_here
        ends.set()
        assert loop.answered_there.get(timeout=60) == 0


def test_an_item_that_ends_as_the_loop_would_move_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch has just seen that it is slow: no second thread leads."""
    ends = threading.Event()
    loop = _Loop(3, lambda _item: ends.wait(60))

    class Clock:
        @staticmethod
        def monotonic() -> float:
            if threading.current_thread() is watch and not ends.is_set():
                ends.set()
                wait_until(lambda: loop.answered_here)
            return time.monotonic() + (_LONG_S if threading.current_thread() is watch else 0)

    monkeypatch.setattr(leading, "time", Clock)
    with loop.running() as watch:
        loop.waiting.put(0)
        wait_until(lambda: loop.answered_here)
    assert loop.answered_here == [0]
    assert loop.moved == []


def test_when_all_threads_are_slow_the_loop_waits_for_one() -> None:
    """As many items as there are threads wait for something. Then the loop stands still, and continues afterwards."""
    ends = threading.Event()
    begun: list[int] = []

    def job(item: int) -> None:
        begun.append(item)
        ends.wait(60)

    loop = _Loop(3, job)
    with loop.running():
        for item in range(6):
            loop.waiting.put(item)
        wait_until(lambda: len(begun) == 3)
        time.sleep(leading.PATIENT_S * 10)
        assert begun == [0, 1, 2]
        assert loop.moved == [0, 1]
        ends.set()
    assert sorted([*loop.answered_here, *(loop.answered_there.get(timeout=60) for _ in loop.moved)]) == [
        *range(6)
    ]


def test_without_another_thread_the_leader_keeps_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the machine has no thread left, a slow item delays the others, and all are answered."""
    loop = _Loop(3, lambda item: time.sleep(leading.PATIENT_S * 10 if item in (1, 3) else 0))
    start, refused = threading.Thread.start, []

    def started(thread: threading.Thread) -> None:
        if loop.answered_here == [0]:
            refused.append(thread)
            raise RuntimeError("can't start new thread")
        start(thread)

    with loop.running():
        loop.waiting.put(0)
        while loop.answered_here != [0]:
            time.sleep(0.001)
        monkeypatch.setattr(threading.Thread, "start", started)
        for item in range(1, 6):
            loop.waiting.put(item)
    assert refused
    assert 1 in loop.answered_here
    assert sorted([*loop.answered_here, *(loop.answered_there.get(timeout=60) for _ in loop.moved)]) == [
        *range(6)
    ]


def test_a_thread_that_has_ended_its_item_leads_again() -> None:
    """There are no more threads than were slow at once; each is used again, and counted once."""
    ends = threading.Event()

    def job(item: int) -> None:
        if item == 0:
            time.sleep(leading.PATIENT_S * 10)
        elif item < 3:
            ends.wait(60)

    loop, before = _Loop(9, job), threading.active_count()
    with loop.running():
        loop.waiting.put(0)
        assert loop.answered_there.get(timeout=60) == 0
        for item in (1, 2, 3):
            loop.waiting.put(item)
        try:
            wait_until(lambda: 3 in {*loop.answered_here, *loop.moved})
            assert threading.active_count() - before <= 4 + len({3} & {*loop.moved})
        finally:
            ends.set()


def test_a_thread_that_could_not_be_started_is_not_counted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the machine has threads again, the loop continues next to as many slow items as before."""
    ends, start, refused = threading.Event(), threading.Thread.start, threading.Event()

    def job(item: int) -> None:
        if item in (0, 1):
            time.sleep(leading.PATIENT_S * 10)
        elif item in (2, 3):
            ends.wait(60)

    def started(thread: threading.Thread) -> None:
        if not refused.is_set():
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    loop = _Loop(4, job)
    with loop.running():
        loop.waiting.put(6)
        wait_until(lambda: loop.leaders)
        monkeypatch.setattr(threading.Thread, "start", started)
        for item in range(6):
            loop.waiting.put(item)
        try:
            wait_until(lambda: {4, 5} <= {*loop.answered_here, *loop.moved})
        finally:
            ends.set()
    assert refused.is_set()


@pytest.mark.parametrize("raised", [ZeroDivisionError, SystemExit])
def test_what_a_turn_raises_ends_the_loop(raised: type[BaseException]) -> None:
    """The thread that watches raises it."""

    def turn() -> bool:
        raise raised

    with pytest.raises(raised):
        Lead[int](turn, lambda _item, _since: None, 2).run()


def test_a_signal_arrives_while_an_item_is_slow_and_may_end_the_watch() -> None:
    """Its handler runs in the thread that watches; what it raises ends the loop after its turn."""
    assert threading.current_thread() is threading.main_thread()
    turned, last = threading.Event(), []

    def turn() -> bool:
        time.sleep(0.002)
        turned.set()
        last.append(time.monotonic())
        return True

    def handler(_number: int, _frame: object) -> None:
        raise SystemExit(3)

    before = signal.signal(signal.SIGUSR2, handler)
    try:
        threading.Thread(target=lambda: turned.wait(60) and os.kill(os.getpid(), signal.SIGUSR2)).start()
        with pytest.raises(SystemExit):
            Lead[int](turn, lambda _item, _since: None, 2).run()
    finally:
        signal.signal(signal.SIGUSR2, before)
    time.sleep(0.1)
    turns = len(last)
    time.sleep(0.2)
    assert len(last) == turns


def test_after_the_end_of_the_watch_no_other_item_begins() -> None:
    """A signal ends the watch while an item is slow: this one ends, and those that wait in the same turn never begin."""
    assert threading.current_thread() is threading.main_thread()
    begun: list[int] = []
    ends, over = threading.Event(), threading.Event()

    def job(item: int) -> None:
        begun.append(item)
        os.kill(os.getpid(), signal.SIGUSR2)
        ends.wait(60)

    def turn() -> bool:
        for item in range(3):
            if not lead.answer(item, job):
                over.set()
                break
        return True

    def handler(_number: int, _frame: object) -> None:
        raise SystemExit(3)

    lead: Lead[int] = Lead(turn, lambda _item, _since: None, 1)
    before = signal.signal(signal.SIGUSR2, handler)
    try:
        with pytest.raises(SystemExit):
            lead.run()
        ends.set()
        assert over.wait(60)
    finally:
        ends.set()
        signal.signal(signal.SIGUSR2, before)
    assert begun == [0]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(
        st.sampled_from([0, 0.0005, 0.0019, 0.002, 0.0021, 0.004, 0.01]), min_size=1, max_size=60
    )
)
def test_every_item_is_answered_once_however_long_it_takes(
    monkeypatch: pytest.MonkeyPatch, lengths: list[float]
) -> None:
    """Items that end just as another thread begins to lead: `_Loop` fails if two threads lead at once."""
    monkeypatch.setattr(leading, "PATIENT_S", 0.002)
    loop = _Loop(4, lambda item: time.sleep(lengths[item]))
    with loop.running():
        for item in range(len(lengths)):
            loop.waiting.put(item)
    there = [loop.answered_there.get(timeout=60) for _ in loop.moved]
    assert sorted(there) == sorted(loop.moved)
    assert sorted([*loop.answered_here, *there]) == list(range(len(lengths)))
