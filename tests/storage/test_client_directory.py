"""The directory of clients over a real store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from service.clients import Clients
from service.records.clients import Client
from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase
from tests.storage.stores import NOW
from tests.support.statements import stopped

METADATA = {"client_id": "reports", "redirect_uris": ["https://rp.example/cb"]}


def test_a_client_registered_before_the_minted_audience_was_named_so_is_none(tmp_path: Path) -> None:
    """RFC 9700 §4.15: a client whose id becomes the audience of minted tokens is not served: its ID token is forgeable."""
    store = SqlStore(SqliteDatabase(tmp_path / "clients.db"))
    store.migrate()
    Clients((), store, minted_audience=None).add(METADATA, now=NOW)
    assert Clients((), store, minted_audience="other").find("reports", now=NOW) is not None
    assert Clients((), store, minted_audience="reports").find("reports", now=NOW) is None
    store.close()


# --- two operators at the same client ---


def _clients(store: SqlStore) -> Clients:
    return Clients((), store, minted_audience=None)


def _known(store: SqlStore) -> Client:
    client = _clients(store).find("reports", now=NOW)
    assert client is not None
    return client


def _rotate(store: SqlStore) -> str:
    secret = _clients(store).rotate_secret("reports", now=NOW)
    assert secret is not None
    return secret


def _rename(store: SqlStore) -> None:
    assert _clients(store).change("reports", {**METADATA, "client_name": "Reports"}, now=NOW) is not None


def _widen(store: SqlStore) -> None:
    assert _clients(store).update("reports", {"contacts": ["a@example.com"]}, now=NOW) is not None


OPERATORS = {"a rotation": _rotate, "a change": _rename, "an update": _widen}


@pytest.mark.parametrize("other", OPERATORS.values(), ids=OPERATORS)
@pytest.mark.parametrize("one", OPERATORS.values(), ids=OPERATORS)
def test_of_two_operators_neither_is_lost(
    store: SqlStore,
    second_store: SqlStore,
    one: Callable[[SqlStore], str | None],
    other: Callable[[SqlStore], str | None],
) -> None:
    """A writer that read the client before another one changed it loses nothing of that: each secret that was shown works,
    the first one for an hour only, and a new name or contact stays.
    """
    first = _clients(store).add(METADATA, now=NOW)[1]
    assert first is not None
    shown: list[str | None] = []
    with stopped(store, before="BEGIN", then=lambda: shown.append(other(second_store))):
        shown.append(one(store))
    client = _known(store)
    secrets = [secret for secret in shown if secret is not None]
    assert [client.has_secret(secret, now=NOW) for secret in secrets] == [True] * len(secrets)
    assert client.has_secret(first, now=NOW) is True
    assert client.has_secret(first, now=NOW + 3600) is (not secrets)
    assert len(client.secrets) == 1 + len(secrets)
    assert client.client_name == ("Reports" if _rename in (one, other) else None)
    # Who replaces all of the metadata last means all of it; the writer that was overtaken is the last.
    widened = _widen in (one, other) and one is not _rename
    assert client.contacts == (("a@example.com",) if widened else ())


def test_a_client_removed_meanwhile_does_not_come_back(store: SqlStore, second_store: SqlStore) -> None:
    """What was read of a client is not stored when it is gone by then, nor over the next one of its id."""
    _clients(store).add(METADATA, now=NOW)
    with stopped(store, before="BEGIN", then=lambda: _clients(second_store).remove("reports", now=NOW)):
        assert _clients(store).rotate_secret("reports", now=NOW) is None
    assert _clients(store).find("reports", now=NOW) is None
    _clients(store).add(METADATA, now=NOW)
    secrets: list[str | None] = []

    def another() -> None:
        _clients(second_store).remove("reports", now=NOW)
        secrets.append(_clients(second_store).add(METADATA, now=NOW)[1])

    with stopped(store, before="BEGIN", then=another):
        secrets.append(_rotate(store))
    client = _known(store)
    assert [client.has_secret(secret or "", now=NOW) for secret in secrets] == [True, True]
    assert len(client.secrets) == 2
