"""The shipped site in front of an application that reports what reaches it; a module that needs another site makes its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.nginx import NginxSite, StubUpstream


@pytest.fixture(scope="module")
def stub() -> Iterator[StubUpstream]:
    """Takes the place of the service, and remembers what reaches it."""
    with StubUpstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def site(stub: StubUpstream) -> Iterator[NginxSite]:
    """The site as it is shipped, before `stub`."""
    with NginxSite(stub.address) as running:
        yield running


@pytest.fixture
def fresh(stub: StubUpstream) -> None:
    """`stub` has seen nothing yet, and answers as at the start."""
    stub.forget()
