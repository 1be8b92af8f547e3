"""Bodies are parsed by many threads at once, also the first ones of a process."""

from __future__ import annotations

import subprocess
import sys

from tests.support.gunicorn import PROJECT, clean_environment

#: Each model is one that nobody has parsed with before, as every model is when a worker starts.
_PARSING = """
import sys, threading
from typing import Annotated, Any
from msgspec import UNSET, Meta, UnsetType
from service.web.bodies import StrictModel, parse_model

sys.setswitchinterval(1e-6)
Word = Annotated[str, Meta(min_length=1, max_length=255)]
parsed = []
for _ in range(400):
    class Model(StrictModel, frozen=True):
        a: Word
        b: list[Word] | UnsetType = UNSET
        c: dict[str, Any] | UnsetType = UNSET
        d: Annotated[int, Meta(ge=0)] | UnsetType = UNSET

    start = threading.Barrier(8)

    def parse():
        start.wait()
        parsed.append(parse_model(Model, b'{"a": "x", "b": ["y"], "d": 1}').a)

    threads = [threading.Thread(target=parse) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(len(parsed))
"""


def test_the_first_bodies_of_a_worker_may_come_at_once() -> None:
    """A worker that got its first two bodies in two threads crashed, with all requests that it had."""
    done = subprocess.run(
        [sys.executable, "-c", _PARSING],
        cwd=PROJECT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "3200"), done.stderr
