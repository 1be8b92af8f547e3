"""What a request costs, by count: statements, commits, hashes, JSON, calls. A busy machine does not blur that.

Figures are printed (`pytest -rP`). A bound on calls is what they were, and a tenth more: who adds a dozen to each request
should know that they did.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest

from bench import in_process
from bench.in_process import FLOWS, Service
from service import handles
from service.handles import new_grant_id
from service.logs import configure_logging
from service.storage.sweeping import Sweeper
from tests.storage.stores import migrate
from tests.support.statements import watch_store


@dataclass(frozen=True)
class Cost:
    """What one request may cost.

    Attributes:
        reads: statements that change nothing.
        writes: statements that change something.
        commits: transactions that change something.
        hashes: SHA-256, of handles, secrets and what is checked.
        decoded: JSON that is read; of a user or a client that did not change it is not.
        encoded: JSON that is written: rows, tokens, the answer, the line of the log.
        calls: of functions, Python's and C's, at most.
    """

    reads: int
    writes: int
    commits: int
    hashes: int
    decoded: int
    encoded: int
    calls: int


#: With a client of the environment; one of the database is one read more where it is asked for.
COSTS: Final = {
    "mint": Cost(1, 0, 0, 1, 1, 3, 320),
    "authorize": Cost(3, 1, 1, 5, 2, 2, 1170),
    "code exchange": Cost(1, 1, 1, 11, 1, 4, 900),
    "refresh": Cost(1, 1, 1, 11, 1, 4, 880),
    "userinfo": Cost(1, 0, 0, 2, 1, 2, 300),
    "introspection": Cost(1, 0, 0, 3, 1, 2, 370),
}
OF_REGISTERED: Final = ("code exchange", "refresh", "userinfo", "introspection")


@pytest.fixture(autouse=True)
def no_sweep(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is counted is the requests' own; each has its line in the log."""
    monkeypatch.setattr(Sweeper, "begin", lambda _sweeper, _now: None)
    yield
    configure_logging("error", "json")


def _asked(service: Service, flow: str) -> list[str]:
    """The statements of one request, the first of its connection left out."""
    told: list[str] = []
    *before, request = FLOWS[flow](service, 3)
    watch_store(service.store, told.append)
    for each in before:
        in_process.ask(service.app, each)
    told.clear()
    in_process.ask(service.app, request)
    return [sql.split()[0] for sql in told]


def _statements(service: Service, flow: str) -> tuple[int, int, int]:
    """How many statements read, how many write, and how many transactions that is."""
    kinds = Counter(_asked(service, flow))
    writes = sum(kinds[kind] for kind in ("INSERT", "UPDATE", "DELETE"))
    return kinds["SELECT"], writes, kinds["COMMIT"] or writes


def _called(work: Callable[[], object]) -> Counter[str]:
    """Which functions are called how often, Python's and C's."""
    called: Counter[str] = Counter()

    def look(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            called[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            called[f"c {getattr(argument, '__qualname__', argument)}"] += 1

    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(None)
    return called


def test_statements_are_few(tmp_path: Path, database_url: str, subtests: pytest.Subtests) -> None:
    """On both databases: an exchange and a refresh are one read and one statement that commits by itself."""
    migrate(database_url)
    service = Service("RS256", tmp_path, database_url=database_url)
    with closing(service.store):
        for flow, cost in COSTS.items():
            with subtests.test(flow):
                assert _statements(service, flow) == (cost.reads, cost.writes, cost.commits)
    registered = Service("RS256", tmp_path, database_url=database_url, registered=True)
    with closing(registered.store):
        for flow in OF_REGISTERED:
            with subtests.test(f"{flow}, client in the database"):
                cost = COSTS[flow]
                assert _statements(registered, flow) == (cost.reads + 1, cost.writes, cost.commits)


def test_a_made_up_token_costs_no_more(tmp_path: Path, database_url: str) -> None:
    """At userinfo, a token of a grant that does not exist is the same one statement, one of no form is none."""
    migrate(database_url)
    service = Service("RS256", tmp_path, database_url=database_url)
    told: list[str] = []
    with closing(service.store):
        *_, request = service.userinfos(1)
        token = request["HTTP_AUTHORIZATION"].removeprefix("Bearer ")
        shown = handles.read("access token", token)
        assert shown is not None
        nobodys = handles.with_secret("access token", new_grant_id(int(time.time())), shown.secret)
        watch_store(service.store, told.append)
        service.answered(request, "200")  # opens the connection
        answers = []
        for made_up, statements in ((nobodys, 1), (token[:-1], 0)):
            told.clear()
            asked = in_process.environ("GET", "/oidc/userinfo", {"Authorization": f"Bearer {made_up}"})
            answers.append(service.answered(asked, "401").body)
            assert len(told) == statements, told
        assert answers[0] == answers[1]


def test_nothing_is_done_twice(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """Hashes, JSON and calls of each flow; a client of the database is neither hashed nor read again while it is the same."""
    service = Service("RS256", tmp_path / "environment")
    registered = Service("RS256", tmp_path / "database", registered=True)
    with closing(service.store), closing(registered.store):
        for place, flow in [(service, flow) for flow in COSTS] + [
            (registered, flow) for flow in OF_REGISTERED
        ]:
            cost = COSTS[flow]
            *before, request = FLOWS[flow](place, 3)
            for each in before:
                in_process.ask(place.app, each)
            called = _called(lambda place=place, request=request: in_process.ask(place.app, request))
            name = flow if place is service else f"{flow}, client in the database"
            hashes = called["c openssl_sha256"]
            decoded, encoded = called["c Decoder.decode"], called["c Encoder.encode"]
            print(f"{name}: {called.total()} calls, {hashes} hashes, {decoded} decoded, {encoded} encoded")
            with subtests.test(name):
                assert (hashes, decoded, encoded) == (cost.hashes, cost.decoded, cost.encoded)
                assert called["Client.__init__"] == 0
                assert called.total() <= cost.calls + (40 if place is registered else 0)
