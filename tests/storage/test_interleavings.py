"""Administration during use, statement by statement in any order: no change is lost, nothing lives after its end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.storage.outages import migrated_database
from tests.storage.scheduling import Schedule
from tests.storage.stores import open_url
from tests.storage.twins import Twins
from tests.storage.worlds import ACTS, ADMINISTRATION, USES, World, check, new_scene, world_on

ANY = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])


pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(params=["sqlite", "postgres"], scope="module")
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database with its schema."""
    with migrated_database(request) as (url, _):
        yield url


@pytest.fixture(scope="module")
def scheduled(url: str) -> Iterator[tuple[World, Schedule]]:
    """A provider whose statements run in an order that a test says."""
    with closing(open_url(url)) as store:
        yield world_on(store, url), Schedule(store)


MIXED = st.builds(
    lambda use, administration, more: [use, administration, *more],
    st.sampled_from(sorted(USES)),
    st.sampled_from(sorted(ADMINISTRATION)),
    st.lists(st.sampled_from(sorted(ACTS)), max_size=2),
)


@pytest.fixture(scope="module")
def twins(url: str) -> Iterator[Twins]:
    """Two processes of the service."""
    with Twins(url) as twins:
        yield twins


def _beside(*acts: str) -> Any:
    """An example in which each runs for one statement in turn."""
    return example(acts=list(acts), first_party=True, order=[])


@_beside("authorize", "lock out")
@_beside("authorize", "remove the client")
@_beside("redeem", "sign out")
@_beside("set claims", "set roles", "set the tenant", "report a sign-in")
@_beside("rotate the secret", "rotate the secret", "rename the client")
@_beside("trusted mint", "trusted mint", "take the signing key", "take the signing key")
@ANY
@given(acts=MIXED, first_party=st.booleans(), order=st.lists(st.integers(0, 3), max_size=80))
def test_whatever_comes_in_between(
    scheduled: tuple[World, Schedule], acts: list[str], first_party: bool, order: list[int]
) -> None:
    """Two to four of them, in threads that stop before each statement and continue as `order` says."""
    world, schedule = scheduled
    scene = new_scene(world, first_party=first_party)
    choices = itertools.chain(order, itertools.count())
    done = schedule.run([partial(ACTS[act], world, scene) for act in acts], choices)
    check(world, scene, acts, done)


@settings(ANY, max_examples=ANY.max_examples // 2)
@given(acts=MIXED, more=st.lists(st.sampled_from(sorted(ACTS)), max_size=4), first_party=st.booleans())
def test_whatever_two_processes_do_at_once(
    scheduled: tuple[World, Schedule], twins: Twins, acts: list[str], more: list[str], first_party: bool
) -> None:
    """Two to eight of them, in threads of two processes, all at the same moment."""
    world, _ = scheduled
    scene = new_scene(world, first_party=first_party)
    done = twins.run(scene, acts + more)
    check(world, scene, acts + more, done)
