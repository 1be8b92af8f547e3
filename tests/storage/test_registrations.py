"""Registrations over a real store, on both databases: concurrent changes are not lost, and removed clients do not come back."""

from __future__ import annotations

import pytest

from service.clients import Clients
from service.events import UNHEARD
from service.protocol.errors import OAuthError
from service.records.clients import Client, on_client, used
from service.records.consents import remembering
from service.registrations import Registered, Registrations
from service.storage.interface import NEVER, Kind, NotStanding
from service.storage.sql import SqlStore
from tests.flows.polling import wait_until
from tests.storage.stores import NOW, record
from tests.support.statements import stopped

METADATA = {"redirect_uris": ["https://rp.example/cb"]}
DAY_S = 86_400


def _registrations(store: SqlStore) -> Registrations:
    clients = Clients((), store, minted_audience=None)
    return Registrations(store, clients, mode="open", idle_days=1, events=UNHEARD)


def _put(store: SqlStore, made: Registered, **members: object) -> Registered:
    given = {"client_id": made.client.client_id, **METADATA, **members}
    return _registrations(store).change(made.client.client_id, made.token, given, now=NOW)


def _known(store: SqlStore, made: Registered) -> Client:
    return _registrations(store).read(made.client.client_id, made.token, now=NOW)


def _sign_in(store: SqlStore, client: Client) -> bool:
    """What a first code stores for its client; whether it counts."""
    code = record(f"code {client.version}", kind=Kind.INTERACTION)
    try:
        return store.put(code, changes=used(client), standing_on=on_client(client), now=NOW)
    except NotStanding:
        return False


def _as_read(store: SqlStore, made: Registered) -> Client:
    """The client as a sign-in reads it."""
    client = Clients((), store, minted_audience=None).find(made.client.client_id, now=NOW)
    assert client is not None
    return client


@pytest.fixture
def made(store: SqlStore) -> Registered:
    """A client that has just registered itself."""
    return _registrations(store).register(METADATA, None, address="192.0.2.1", now=NOW)


def test_two_changes_at_once(store: SqlStore, second_store: SqlStore, made: Registered) -> None:
    """RFC 7592 §2.2: each change replaces everything; the one that lost the race is stored last, and the token still works."""
    with stopped(store, before="BEGIN", then=lambda: _put(second_store, made, client_name="first")):
        _put(store, made, contacts=["a@example.com"])
    client = _known(store, made)
    assert (client.client_name, client.contacts) == (None, ("a@example.com",))
    assert len(store.list(Kind.CLIENT, now=NOW)) == 1


def test_a_change_after_the_first_sign_in_keeps_it(
    store: SqlStore, second_store: SqlStore, made: Registered
) -> None:
    """A registration that is used never ends, also if its change was decided before."""
    with stopped(store, before="BEGIN", then=lambda: _sign_in(second_store, _as_read(second_store, made))):
        _put(store, made, client_name="B")
    (row,) = store.list(Kind.CLIENT, now=NOW + 2 * DAY_S)
    assert (row.expires_at, row.subject, row.body["client_name"]) == (NEVER, "", "B")


def test_a_sign_in_after_a_change_reads_the_client_again(store: SqlStore, made: Registered) -> None:
    """What was decided with the earlier metadata is not stored: its code could go to an address that is no longer registered."""
    before = _as_read(store, made)
    _put(store, made, redirect_uris=["https://elsewhere.example/cb"])
    assert not _sign_in(store, before)
    assert _sign_in(store, _as_read(store, made))
    assert _sign_in(store, _as_read(store, made))  # which changes nothing for its client
    assert _as_read(store, made).row_ends_at == NEVER


def test_a_client_that_is_removed_meanwhile(
    store: SqlStore, second_store: SqlStore, made: Registered
) -> None:
    """It does not come back by a change or by a sign-in."""
    client = _as_read(store, made)

    def remove() -> None:
        _registrations(second_store).remove(client.client_id, made.token, now=NOW)

    with stopped(store, before="BEGIN", then=remove), pytest.raises(OAuthError):
        _put(store, made, client_name="B")
    assert not _sign_in(store, client)
    assert store.list(Kind.CLIENT, now=NOW) == []


def test_consents_end_with_another_host_only(store: SqlStore, made: Registered) -> None:
    """docs/registration.md: those of this client, in the transaction of the change."""
    for client_id in (made.client.client_id, "other"):
        store.put(changes=[remembering("ada", client_id, "https://id.example", None, ["openid"])], now=NOW)
    _put(store, made, redirect_uris=["https://rp.example/another"])
    assert len(store.list(Kind.CONSENT, now=NOW)) == 2
    _put(store, made, redirect_uris=["https://elsewhere.example/cb"])
    assert [each.client_id for each in store.list(Kind.CONSENT, now=NOW)] == ["other"]


def test_each_that_ends_unused_is_told(store: SqlStore, made: Registered) -> None:
    """docs/registration.md: each is reported once, after the sweep or the limit has removed it; clients in use stay."""
    ended: list[str] = []
    store.sweeper.clients_ended = ended.extend
    used_one = _registrations(store).register(METADATA, None, address="192.0.2.1", now=NOW)
    assert _sign_in(store, _as_read(store, used_one))
    store.put(record("later", kind=Kind.INTERACTION, expires_at=NOW + 3 * DAY_S), now=NOW + DAY_S)
    wait_until(lambda: ended == [made.client.client_id])
    several = [
        _registrations(store).register(METADATA, None, address="192.0.2.1", now=NOW + n) for n in range(3)
    ]
    assert store.trim(Kind.CLIENT, most_of_one=1, most=100) == 2
    assert sorted(ended[1:]) == sorted(each.client.client_id for each in several[:2])
    assert _known(store, used_one).client_id == used_one.client.client_id
