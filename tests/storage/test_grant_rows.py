"""A grant's row: all of the grant comes back from it, whatever it is, and what a newer version put there stays."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace as changed

from service.records.grants import (
    MOST_ACCESS_TOKENS,
    MOST_WORDS,
    AccessToken,
    Code,
    Grant,
    Grants,
    RefreshToken,
    Rotation,
    of_record,
)
from service.records.scopes import MOST_OWN
from service.settings import read_settings
from service.storage.interface import Record
from service.storage.sql import SqlStore
from tests.storage.racers import grant_of
from tests.storage.stores import NOW

TEXT = st.text(max_size=20)
SECONDS = st.integers(0, 2**32 - 1)
#: Of a scope; any words do.
WORDS = st.integers(0, MOST_WORDS).map(lambda count: tuple(f"word-{number}" for number in range(count)))
NAMES = st.lists(TEXT, max_size=2).map(tuple)
CODES = st.builds(Code, TEXT, TEXT, st.none() | TEXT, st.none() | TEXT, st.none() | SECONDS)
ROTATIONS = st.builds(Rotation, TEXT, TEXT, TEXT)
REFRESH_TOKENS = st.builds(RefreshToken, TEXT, TEXT, SECONDS, SECONDS, st.none() | ROTATIONS)
#: What a later version may put into a row.
UNKNOWN = st.dictionaries(
    TEXT.map(lambda name: f"x_{name}"),
    st.recursive(st.none() | st.booleans() | st.integers() | TEXT, lambda more: st.lists(more, max_size=3)),
    max_size=3,
)


@st.composite
def grants(draw: st.DrawFn) -> Grant:
    """Any grant; its access tokens have some of its words, in their order."""
    scope = draw(WORDS)
    some = st.sets(st.sampled_from(scope)) if scope else st.just(set[str]())
    in_order = some.map(lambda words: tuple(word for word in scope if word in words))
    tokens = st.builds(AccessToken, st.binary(min_size=16, max_size=16), SECONDS, SECONDS, in_order)
    return Grant(
        id=draw(TEXT),
        subject=draw(TEXT),
        client_id=draw(TEXT),
        sid=draw(TEXT),
        expires_at=draw(SECONDS),
        issuer=draw(TEXT),
        scope=scope,
        auth_time=draw(SECONDS),
        created_at=draw(SECONDS),
        code=draw(CODES),
        acr=draw(st.none() | TEXT),
        amr=draw(NAMES),
        id_token_claims=draw(NAMES),
        userinfo_claims=draw(NAMES),
        refresh=draw(st.none() | REFRESH_TOKENS),
        access=tuple(draw(st.lists(tokens, max_size=MOST_ACCESS_TOKENS))),
        version=draw(st.integers(1, 2**62)),
        unknown=draw(UNKNOWN),
    )


def _stored(record: Record) -> Record:
    """As it comes back from a database: its body was JSON in between."""
    return replace(record, body=json.loads(json.dumps(record.body)))


@given(grants())
def test_all_of_it_comes_back(grant: Grant) -> None:
    """Of any grant, with the version that it was read in; whether it outlives its session is what its refresh token says."""
    record = _stored(grant.to_record())
    assert of_record(record) == grant
    assert record.outlives_session is (grant.refresh is not None)
    assert len(record.tokens) == 32 * len(grant.access)


@given(grants(), UNKNOWN)
def test_what_is_not_known_is_kept(grant: Grant, unknown: dict[str, object]) -> None:
    """Members that a newer version has put into the row stay where an older one uses the grant."""
    record = grant.to_record()
    read = of_record(_stored(replace(record, body={**record.body, **unknown})))
    token = AccessToken(b"n" * 16, NOW, NOW + 60, grant.scope)
    used = changed(read, code=changed(read.code, spent_at=NOW)).with_access(token, now=NOW)
    body = _stored(used.to_record()).body
    assert {name: body[name] for name in {**grant.unknown, **unknown}} == {**grant.unknown, **unknown}


def test_every_scope_of_a_service_fits(store: SqlStore) -> None:
    """As many scopes of their own as an operator may name, with all the standard ones; one more is refused at the start."""
    entry = {"claims": ["department"], "description": "see your department"}
    named = {f"own-{number}": entry for number in range(MOST_OWN)}
    reading = read_settings({"PYLON_OIDC_SCOPES": json.dumps(named)})
    assert reading.faults == []
    words = reading.settings.scopes.words
    assert len(words) == MOST_WORDS
    token = AccessToken(b"t" * 16, NOW, NOW + 60, words)
    store.put(grant_of("one", scope=words, access=(token,)), now=NOW)
    (grant,) = Grants(store).of_user("one", now=NOW)
    assert (grant.scope, grant.access) == (words, (token,))
    (fault,) = read_settings({"PYLON_OIDC_SCOPES": json.dumps(named | {"more": entry})}).faults
    assert f"more than {MOST_OWN} scopes" in str(fault)


def _token(number: int, ends_at: int) -> AccessToken:
    return AccessToken(number.to_bytes(16), NOW, ends_at, ("openid",))


@given(st.lists(st.sampled_from([NOW - 1, NOW, NOW + 1, NOW + 60]), max_size=MOST_ACCESS_TOKENS + 8))
def test_a_further_access_token_ends_the_oldest(ends: list[int]) -> None:
    """A grant has 32 that live at most, the newest of all that it was given; what has ended takes no place."""
    grant = of_record(grant_of("one"))
    for number, ends_at in enumerate(ends):
        # Those that end are given before; one that has ended by then is never the newest.
        grant = grant.with_access(_token(number, ends_at), now=NOW - 10)
    grant = grant.with_access(newest := _token(99, NOW + 60), now=NOW)
    kept_before = [_token(number, ends_at) for number, ends_at in enumerate(ends)][-MOST_ACCESS_TOKENS:]
    living = [token for token in kept_before if token.ends_at > NOW]
    assert list(grant.access) == [*living, newest][-MOST_ACCESS_TOKENS:]
    assert len(of_record(_stored(grant.to_record())).access) <= MOST_ACCESS_TOKENS
    assert grant.access_token(newest.hash, now=NOW) == newest
    assert grant.access_token(newest.hash, now=NOW + 60) is None


def test_the_oldest_is_not_found_once_there_are_too_many(store: SqlStore) -> None:
    """The same in a database: the 33rd access token lives, the first one is gone, the grant is as it was."""
    handle = "one"
    store.put(grant_of(handle), now=NOW)
    kept = Grants(store)
    tokens = [_token(number, NOW + 60) for number in range(MOST_ACCESS_TOKENS + 1)]
    (grant,) = kept.of_user(handle, now=NOW)
    for token in tokens:
        kept.use(
            grant.id,
            lambda known, token=token: (known.with_access(token, now=NOW), None),  # type: ignore[misc]
            now=NOW,
        )
    found = kept.find(grant.id, now=NOW)
    assert found is not None
    assert found.access == tuple(tokens[1:])
    assert changed(found, access=(), version=1) == grant
    assert found.version == 1 + len(tokens)


def test_one_access_token_is_ended_and_no_other(store: SqlStore) -> None:
    """Of one that is not there, or of no grant, nothing is changed."""
    one, two = _token(1, NOW + 60), _token(2, NOW + 60)
    store.put(grant_of("one", access=(one, two)), now=NOW)
    kept = Grants(store)
    (grant,) = kept.of_user("one", now=NOW)
    kept.revoke_access_token(grant.id, b"x" * 16, now=NOW)
    kept.revoke_access_token(grant.id[::-1], one.hash, now=NOW)
    assert kept.find(grant.id, now=NOW) == grant
    kept.revoke_access_token(grant.id, one.hash, now=NOW)
    found = kept.find(grant.id, now=NOW)
    assert found is not None
    assert found.access == (two,)
