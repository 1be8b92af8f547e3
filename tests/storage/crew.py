"""The tests' own processes, started once, which do what they are asked as often as they are asked."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Final, Self

#: Children of one process that has imported their module, and in which nothing else has begun.
CONTEXT: Final = multiprocessing.get_context("forkserver")
#: Nothing that they are asked to do takes so long, in s.
ANSWER_S: Final = 60.0

#: What a process runs: answers each order of its wire until that says None.
Serve = Callable[..., None]


class Crew:
    """The processes, while the context lasts.

    Args:
        serve: what each runs; its first argument is its wire.
        given: the other arguments of each.
    """

    def __init__(self, serve: Serve, given: Iterable[tuple[Any, ...]]) -> None:
        self._serve, self._given = serve, list(given)

    def __enter__(self) -> Self:
        CONTEXT.set_forkserver_preload([self._serve.__module__])
        self._wires: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for given in self._given:
            here, there = CONTEXT.Pipe()
            process = CONTEXT.Process(target=self._serve, args=(there, *given), daemon=True)
            process.start()
            there.close()
            self._wires.append(here)
            self._processes.append(process)
        return self

    def __exit__(self, *_: object) -> None:
        for wire, process in zip(self._wires, self._processes, strict=True):
            with suppress(BrokenPipeError):
                wire.send(None)
            process.join(10)
            process.kill()

    def told(self, orders: Iterable[Any]) -> list[Any]:
        """Give each its order, all of them at once; what they answered."""
        for wire, order in zip(self._wires, orders, strict=True):
            wire.send(order)
        answers = []
        for wire in self._wires:
            assert wire.poll(ANSWER_S), "a process gives no answer"
            answers.append(wire.recv())
        return answers
