"""An order of statements that a test says: of several threads one runs at a time, from one statement to the next."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase
from tests.support.statements import watch_store

#: Who has not come to the next statement by then waits for a lock that another one holds, in s.
_BLOCKED_S: Final = 0.05
_LONG_S: Final = 60.0


class _Actor:
    """One call, in a thread of its own, and where it stands."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.thread: threading.Thread | None = None
        #: The statement that it is about to run; None: it runs, or waits for a lock.
        self.next: str | None = "(begin)"
        self.is_over = False
        self.writes = False
        self.result: Any = None
        self.error: BaseException | None = None


class Schedule:
    """Runs calls that use a store, in the order that `choices` say.

    Args:
        store: what they use; each thread has a connection of its own.
    """

    def __init__(self, store: SqlStore) -> None:
        self._changed = threading.Condition()
        self._actors: dict[int, _Actor] = {}
        # There one writes at a time: who would wait is not let on.
        self._one_writer = isinstance(store._database, SqliteDatabase)
        watch_store(store, self._before)

    def _before(self, sql: str) -> None:
        actor = self._actors.get(threading.get_ident())
        if actor is None:  # no thread of ours
            return
        with self._changed:
            actor.next = sql
            self._changed.notify_all()
            while actor.next is not None:
                self._changed.wait(_LONG_S)
        if sql.startswith("BEGIN"):
            actor.writes = True
        if sql.startswith(("COMMIT", "ROLLBACK")):
            actor.writes = False

    def _run(self, actor: _Actor) -> None:
        with self._changed:
            self._actors[threading.get_ident()] = actor
        self._before("(begin)")
        try:
            actor.result = actor.call()
        except BaseException as error:
            actor.error = error
        with self._changed:
            del self._actors[threading.get_ident()]
            actor.is_over, actor.writes = True, False
            self._changed.notify_all()

    def run(self, calls: Sequence[Callable[[], Any]], choices: Iterator[int]) -> list[Any]:
        """What became of each call; raises what one of them raised."""
        actors = [_Actor(call) for call in calls]
        for actor in actors:
            actor.next = None
            actor.thread = threading.Thread(target=self._run, args=(actor,), daemon=True)
            actor.thread.start()
        ends_at = time.monotonic() + _LONG_S
        while not all(actor.is_over for actor in actors):
            assert time.monotonic() < ends_at, [actor.next for actor in actors]
            self._step(actors, choices)
        for actor in actors:
            if actor.thread is not None:
                actor.thread.join(_LONG_S)
            if actor.error is not None:
                raise actor.error
        return [actor.result for actor in actors]

    def _step(self, actors: Sequence[_Actor], choices: Iterator[int]) -> None:
        with self._changed:
            ready = [actor for actor in actors if not actor.is_over and self._may_go_on(actor, actors)]
            if not ready:
                self._changed.wait(_BLOCKED_S)
                return
            actor = ready[next(choices) % len(ready)]
            actor.next = None
            self._changed.notify_all()
            self._changed.wait_for(lambda: actor.is_over or actor.next is not None, _BLOCKED_S)

    def _may_go_on(self, actor: _Actor, actors: Sequence[_Actor]) -> bool:
        if actor.next is None:
            return False
        others_write = any(other.writes for other in actors if other is not actor)
        return not (self._one_writer and others_write and actor.next.startswith("BEGIN"))
