"""Two processes of one service: what is asked of both at once is done by threads of theirs, at the same moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing.connection import Connection
from typing import Any, Final

import structlog

from tests.storage.crew import ANSWER_S, Crew
from tests.storage.stores import open_url
from tests.storage.worlds import ACTS, Done, Scene, World, world_on

#: Until both have got their orders, in s.
_AHEAD_S: Final = 0.03


def _act(world: World, scene: Scene, act: str, at: float) -> Done:
    time.sleep(max(0.0, at - time.time()))
    return ACTS[act](world, scene)


def _serve(wire: Connection, url: str) -> None:
    """One of the processes: takes orders until there are no more."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with closing(open_url(url)) as store, ThreadPoolExecutor(8) as pool:
        world = world_on(store, url)
        while (order := wire.recv()) is not None:
            scene, acts, at = order
            world.provider.clock.now = scene.now
            calls = [pool.submit(_act, world, scene, act, at) for act in acts]
            results: list[Any] = []
            for call in calls:
                try:
                    results.append(call.result(ANSWER_S))
                except Exception as error:
                    results.append(repr(error))
            wire.send(results)


class Twins(Crew):
    """The two, on the database of a URL."""

    def __init__(self, url: str) -> None:
        super().__init__(_serve, [(url,)] * 2)

    def run(self, scene: Scene, acts: Sequence[str]) -> list[Done]:
        """What came of each act, done by one process and the other in turn, all at once."""
        at = time.time() + _AHEAD_S
        halves = [acts[0::2], acts[1::2]]
        results: list[list[Any]] = self.told([(scene, half, at) for half in halves])
        done = [results[number % 2][number // 2] for number in range(len(acts))]
        assert all(isinstance(each, Done) for each in done), done
        return done
