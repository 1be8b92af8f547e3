"""docs/endpoints.md: `/healthz` and `/readyz`."""

from __future__ import annotations

from typing import Any

from service.storage.interface import Store, StoreUnavailable
from tests.http.broken_store import BrokenStore
from tests.http.conftest import Serve
from tests.http.driver import House, refused
from tests.support.cases import each_of


class _Schema:
    """A store whose schema is in some state."""

    def __init__(self, store: Store, state: str) -> None:
        self._store, self._state = store, state

    def schema_state(self) -> str:
        """The state given."""
        return self._state

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def test_healthz_is_ok_while_the_process_lives(serve: Serve) -> None:
    """`GET /healthz` 200 `ok` while the process lives, whatever else does not."""
    for house in (serve(), serve(store_of=lambda _: BrokenStore(StoreUnavailable()), PYLON_JWT_SECRET=None)):
        answer = house.ask("GET", "/healthz")
        assert (answer.status, answer.body) == (200, b"ok")
        assert answer.headers["Cache-Control"] == "no-store"
        assert house.ask("HEAD", "/healthz").status == 200


def test_readyz_tells_each_part(house: House) -> None:
    """`GET /readyz` 200 JSON with each part (database, schema, keys)."""
    answer = house.ask("GET", "/readyz")
    assert answer.status == 200
    assert answer.json() == {"status": "ok", "database": "ok", "schema": "ok", "keys": "ok"}
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert house.ask("HEAD", "/readyz").status == 200


def test_readyz_is_503_without_a_database(serve: Serve) -> None:
    """`GET /readyz` 503 JSON with each part."""
    answer = serve(store_of=lambda _: BrokenStore(StoreUnavailable())).ask("GET", "/readyz")
    assert answer.status == 503
    assert answer.json() == {
        "status": "unavailable",
        "database": "unavailable",
        "schema": "unknown",
        "keys": "ok",
    }


@each_of(("state", "status"), [("current", 200), ("ahead", 200), ("behind", 503)])
def test_readyz_looks_at_the_schema(serve: Serve, state: str, status: int) -> None:
    """docs/deploy.md: a schema behind is not ready; one ahead is a rolling deployment, and serves."""
    answer = serve(store_of=lambda store: _Schema(store, state)).ask("GET", "/readyz")
    assert answer.status == status
    assert answer.json()["schema"] == ("ok" if state == "current" else state)
    assert answer.json()["database"] == "ok"


def test_readyz_tells_that_no_key_is_configured(serve: Serve) -> None:
    """Each part: without a key nothing can be minted, and all else works."""
    answer = serve(PYLON_JWT_SECRET=None).ask("GET", "/readyz")
    assert answer.json()["keys"] != "ok"


def test_readyz_with_a_strange_failure_is_500_in_shape(serve: Serve) -> None:
    """An unknown failure is 500 `INTERNAL`."""
    refused(serve(store_of=lambda _: BrokenStore(ZeroDivisionError())).ask("GET", "/readyz"), 500, "INTERNAL")
