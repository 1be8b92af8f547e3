"""What depends on others is stored during their end: two connections, one of them stopped between its statements.

Whichever is first, what is there at the end is the same: nothing stands on what has gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from msgspec.structs import replace as changed

from service.clients import Clients
from service.handles import hash_handle
from service.records.grants import AccessToken, Grant, Grants, RefreshToken, of_record
from service.records.sessions import SignIn
from service.sessions import LocalSessions, NewSession
from service.storage.interface import FALLS_WITH_CLIENT, NEVER, Change, Fitting, Kind, NotStanding, Record
from service.storage.sql import SqlStore
from tests.storage.racers import grant_of
from tests.storage.stores import NOW, id_of, open_url, record
from tests.support.statements import Call, at_once, stopped

CLIENT = {"client_id": "reports", "redirect_uris": ["https://rp.example/cb"]}
GRANTED = record("grant", kind=Kind.GRANT, subject="alice", session_id="sid", client_id="reports")
VISIT = record("visit", kind=Kind.VISIT, subject="alice", session_id="sid", client_id="reports")
#: Where it is known already, nothing changes.
VISITED = Change(Kind.VISIT, VISIT.id_hash, lambda known: known, new=VISIT)
ON_SESSION = Fitting(Kind.SESSION, subject="alice", session_id="sid")
ON_CLIENT = Fitting(Kind.CLIENT, id_hash=hash_handle("reports"))


def _sessions(store: SqlStore) -> LocalSessions:
    return LocalSessions(store, lifetime_s=60)


def _clients(store: SqlStore) -> Clients:
    return Clients((), store, minted_audience=None)


#: How what others stand on ends, and on what.
ENDINGS: dict[str, tuple[Callable[[SqlStore], object], Fitting]] = {
    "a sign-out": (lambda store: _sessions(store).end_one("alice", "sid", now=NOW), ON_SESSION),
    "a sign-out everywhere": (lambda store: _sessions(store).end_all("alice", now=NOW), ON_SESSION),
    "a lock-out": (lambda store: _sessions(store).lock_out("alice", now=NOW), ON_SESSION),
    "the removal of the client": (lambda store: _clients(store).remove("reports", now=NOW), ON_CLIENT),
}


@pytest.fixture
def store(store: SqlStore) -> SqlStore:
    """A store with a session of alice, and a client."""
    store.put(record("session", subject="alice", session_id="sid", body=_session_body()), now=NOW)
    _clients(store).add(CLIENT, now=NOW)
    return store


def _session_body() -> dict[str, object]:
    return {
        "token_prefix": "pylon_",
        "created_at": NOW,
        "lifetime_s": 60,
        "auth_time": NOW,
        "tenant_id": None,
        "roles": [],
        "claims": {},
        "device": None,
        "acr": None,
        "amr": [],
    }


def _put(store: SqlStore) -> bool:
    return store.put(GRANTED, changes=[VISITED], standing_on=[ON_SESSION, ON_CLIENT], now=NOW)


def _take(store: SqlStore) -> bool:
    interaction = hash_handle("interaction")
    standing = [ON_SESSION, ON_CLIENT]
    taken = store.take(
        Kind.INTERACTION, interaction, put=[GRANTED], changes=[VISITED], standing_on=standing, now=NOW
    )
    return taken is not None


def _left(store: SqlStore) -> list[Record]:
    """What is there at the end: a grant whose code nobody has redeemed, and that the client was visited."""
    return [found for kind in (Kind.GRANT, Kind.VISIT) for found in store.list(kind, now=NOW)]


def _prepare(store: SqlStore, verb: Callable[[SqlStore], bool]) -> None:
    """What is taken; and with it the case that the session has signed its user in to the client before."""
    store.put(record("interaction", kind=Kind.INTERACTION), *([VISIT] if verb is _take else []), now=NOW)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("verb", [_put, _take], ids=["put", "take"])
def test_an_end_waits_for_what_is_stored_and_then_finds_it(
    store: SqlStore, second_store: SqlStore, verb: Callable[[SqlStore], bool], ending: str
) -> None:
    """Who ends a session or a client while something is stored on it waits, and then ends that, too."""
    _prepare(store, verb)
    end = at_once(lambda: ENDINGS[ending][0](second_store))

    def begin_the_end() -> None:
        end.start()
        assert end.waits()

    with stopped(store, before="COMMIT", then=begin_the_end):
        assert verb(store)
    assert end.result()
    assert _left(store) == []


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("verb", [_put, _take], ids=["put", "take"])
def test_what_is_stored_waits_for_an_end_and_then_is_refused(
    store: SqlStore, second_store: SqlStore, verb: Callable[[SqlStore], bool], ending: str
) -> None:
    """Who stores something while that ends on which it stands waits, and then stores nothing, and takes nothing."""
    _prepare(store, verb)
    storing = at_once(lambda: verb(second_store))

    def begin_to_store() -> None:
        storing.start()
        assert storing.waits()

    with stopped(store, before="COMMIT", then=begin_to_store):
        assert ENDINGS[ending][0](store)
    with pytest.raises(NotStanding):
        storing.result()
    assert _left(store) == []
    assert store.get(Kind.INTERACTION, hash_handle("interaction"), now=NOW) is not None


def test_two_codes_of_one_session_at_once_are_one_visit(store: SqlStore, second_store: SqlStore) -> None:
    """The writer that stores the first visit during another one waits, and finds it: both codes are given."""
    second = at_once(
        lambda: second_store.put(
            replace(GRANTED, id_hash=record("second", kind=Kind.GRANT).id_hash), changes=[VISITED], now=NOW
        )
    )

    def begin_the_second() -> None:
        second.start()
        assert second.waits()

    with stopped(store, before="COMMIT", then=begin_the_second):
        assert store.put(GRANTED, changes=[VISITED], now=NOW) is True
    assert second.result() is True
    assert len(store.list(Kind.GRANT, now=NOW)) == 2
    assert store.list(Kind.VISIT, now=NOW) == [VISIT]


# --- the use of a grant during its end ---

#: What ends all that a grant has given; a sign-out leaves an offline grant, without its access tokens.
ENDS_ACCESS = ENDINGS | {
    "the end of the grant": (
        lambda store: Grants(store).end(id_of("grant", Kind.GRANT), now=NOW),
        Fitting(Kind.GRANT, id_hash=id_of("grant", Kind.GRANT)),
    )
}
OLD, NEW = (AccessToken(each * 16, NOW, NOW + 60, ("openid",)) for each in (b"o", b"n"))


def _grant(*, offline: bool) -> Record:
    refresh = RefreshToken("fixed", "changing", NOW, NOW + 60) if offline else None
    grant = of_record(grant_of("grant", refresh=refresh, access=(OLD,)))
    return changed(grant, subject="alice", sid="sid").to_record()


def _use(store: SqlStore) -> list[int]:
    """Add an access token, as a refresh does; how many there were each time that it was decided, -1 without a grant."""
    seen: list[int] = []

    def decide(grant: Grant | None) -> tuple[Grant | None, list[int]]:
        seen.append(-1 if grant is None else len(grant.access))
        return None if grant is None else grant.with_access(NEW, now=NOW), seen

    return Grants(store).use(id_of("grant", Kind.GRANT), decide, now=NOW)


@pytest.mark.parametrize("offline", [False, True], ids=["of the session", "offline"])
@pytest.mark.parametrize("ending", ENDS_ACCESS)
def test_an_end_between_the_read_and_the_write_of_a_use_is_seen(
    store: SqlStore, second_store: SqlStore, ending: str, offline: bool
) -> None:
    """What was decided of a grant before its end is not stored: it is decided again, from what the end has left."""
    store.put(_grant(offline=offline), now=NOW)
    with stopped(store, before="UPDATE oauth_grant", then=lambda: ENDS_ACCESS[ending][0](second_store)):
        seen = _use(store)
    stays = offline and "sign-out" in ending
    assert seen == [1, 0 if stays else -1]
    assert [found.access for found in Grants(store).of_user("alice", now=NOW)] == ([(NEW,)] if stays else [])


@pytest.mark.parametrize("offline", [False, True], ids=["of the session", "offline"])
@pytest.mark.parametrize("ending", ENDS_ACCESS)
def test_a_use_waits_for_an_end_and_then_sees_it(
    store: SqlStore, second_store: SqlStore, ending: str, offline: bool
) -> None:
    """So it is where the end has begun already: the use waits for it, and brings nothing back."""
    store.put(_grant(offline=offline), now=NOW)
    use = at_once(lambda: _use(second_store))

    def begin_the_use() -> None:
        use.start()
        assert use.waits()

    with stopped(store, before="COMMIT", then=begin_the_use):
        assert ENDS_ACCESS[ending][0](store)
    stays = offline and "sign-out" in ending
    assert use.result() == [1, 0 if stays else -1]
    assert [found.access for found in Grants(store).of_user("alice", now=NOW)] == ([(NEW,)] if stays else [])


# --- what is no end ---


def test_a_refresh_of_the_session_is_no_end(store: SqlStore, second_store: SqlStore) -> None:
    """A session that is refreshed during it, before or after, is still stood on: it is known by its `sid`."""
    sessions, others = _sessions(store), _sessions(second_store)
    new = sessions.create(SignIn("bob"), now=NOW)
    standing = Fitting(Kind.SESSION, subject="bob", session_id=new.session.sid)
    refresh: Call[NewSession | None] = at_once(lambda: others.refresh(new.session, now=NOW))

    def begin_to_refresh() -> None:
        refresh.start()
        assert refresh.waits()

    with stopped(store, before="COMMIT", then=begin_to_refresh):
        assert store.put(GRANTED, standing_on=[standing], now=NOW)
    refreshed = refresh.result()
    assert refreshed is not None

    put = at_once(lambda: store.put(VISIT, standing_on=[standing], now=NOW))

    def begin_to_put() -> None:
        put.start()
        assert put.waits()

    with stopped(second_store, before="COMMIT", then=begin_to_put):
        assert others.refresh(refreshed.session, now=NOW) is not None
    assert put.result() is True


def test_a_change_of_the_client_does_not_wait(postgres_url: str) -> None:
    """Metadata and secrets may change while something is stored on the client: it is there before and after.

    On SQLite one writes at a time.
    """
    store, second_store = open_url(postgres_url), open_url(postgres_url)
    store.migrate()
    _clients(store).add(CLIENT, now=NOW)
    rotate = at_once(lambda: _clients(second_store).rotate_secret("reports", now=NOW))

    def begin_to_rotate() -> None:
        rotate.start()
        assert not rotate.waits()

    with stopped(store, before="COMMIT", then=begin_to_rotate):
        assert store.put(GRANTED, standing_on=[ON_CLIENT], now=NOW)
    assert rotate.result() is not None
    store.close()
    second_store.close()


def test_a_client_that_came_under_the_same_id_is_not_stood_on(store: SqlStore) -> None:
    """What was read of one client is not granted to the next one of its id, nor to what it was changed into."""
    clients = _clients(store)
    first = clients.find("reports", now=NOW)
    assert first is not None
    clients.remove("reports", now=NOW)
    clients.add(CLIENT, now=NOW)
    second = clients.find("reports", now=NOW)
    assert second is not None
    as_first, as_second = (replace(ON_CLIENT, version=client.version) for client in (first, second))
    with pytest.raises(NotStanding):
        store.put(GRANTED, standing_on=[as_first], now=NOW)
    clients.rotate_secret("reports", now=NOW)
    with pytest.raises(NotStanding):
        store.put(GRANTED, standing_on=[as_second], now=NOW)
    assert store.list(Kind.GRANT, now=NOW) == []


# --- removing a client ---


def _held(client_id: str) -> list[Record]:
    """One of each kind that a client can hold."""
    return [
        record(f"{kind} of {client_id}", kind=kind, expires_at=NEVER, client_id=client_id)
        for kind in FALLS_WITH_CLIENT
    ]


def test_a_client_goes_with_all_that_it_holds(store: SqlStore) -> None:
    """Grants, consents, visits and logout tokens of a removed client are gone; those of another stay."""
    store.put(*_held("reports"), *_held("other"), now=NOW)
    assert _clients(store).remove("reports", now=NOW) is True
    assert all(store.get(each.kind, each.id_hash, now=NOW) is None for each in _held("reports"))
    assert [store.get(each.kind, each.id_hash, now=NOW) for each in _held("other")] == _held("other")


def test_the_removal_of_no_client_changes_nothing(store: SqlStore) -> None:
    """What is refused has changed nothing: grants of a client that stood in the environment stay."""
    store.put(*_held("gone"), now=NOW)
    assert _clients(store).remove("gone", now=NOW) is False
    assert [store.get(each.kind, each.id_hash, now=NOW) for each in _held("gone")] == _held("gone")


def test_a_removal_that_fails_half_way_has_not_happened(store: SqlStore) -> None:
    """Removing a client is one transaction."""

    def fail() -> None:
        raise OSError("power cut")

    store.put(*_held("reports"), now=NOW)
    with stopped(store, before="DELETE FROM consent", then=fail), pytest.raises(OSError, match="power"):
        _clients(store).remove("reports", now=NOW)
    assert _clients(store).find("reports", now=NOW) is not None
    assert [store.get(each.kind, each.id_hash, now=NOW) for each in _held("reports")] == _held("reports")
