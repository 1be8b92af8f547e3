"""docs/security.md: the grace's answer is sealed under a key derived from the token that it answered."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.records.sealing import Unreadable, seal, unseal

TOKEN = "t" * 43
ANSWER = {"access_token": "secret-a", "refresh_token": "secret-r", "expires_in": 3600, "scope": "openid é"}


def test_what_was_sealed_can_be_read_with_the_token() -> None:
    """The same answer again."""
    assert unseal(seal(ANSWER, TOKEN, purpose="x"), TOKEN, purpose="x") == ANSWER


@given(st.text(min_size=1, max_size=60))
def test_with_another_token_it_cannot(token: str) -> None:
    """Nothing readable is at rest: only the token opens it."""
    sealed = seal(ANSWER, TOKEN, purpose="x")
    if token != TOKEN:
        with pytest.raises(Unreadable):
            unseal(sealed, token, purpose="x")


def test_for_another_purpose_it_cannot() -> None:
    """RFC 5869 §3.2: the keys of two uses are kept apart."""
    with pytest.raises(Unreadable):
        unseal(seal(ANSWER, TOKEN, purpose="x"), TOKEN, purpose="y")


def test_a_changed_text_is_refused() -> None:
    """SP 800-38D: every byte is authenticated."""
    data = base64.b64decode(seal(ANSWER, TOKEN, purpose="x"))
    for index in range(len(data)):
        changed = data[:index] + bytes([data[index] ^ 1]) + data[index + 1 :]
        with pytest.raises(Unreadable):
            unseal(base64.b64encode(changed).decode(), TOKEN, purpose="x")


def test_a_cut_text_is_refused() -> None:
    """SP 800-38D: nor may anything be missing."""
    data = base64.b64decode(seal(ANSWER, TOKEN, purpose="x"))
    with pytest.raises(Unreadable):
        unseal(base64.b64encode(data[:-1]).decode(), TOKEN, purpose="x")


def test_no_two_are_alike() -> None:
    """SP 800-38D §8: a fresh nonce each time, even for the same token and answer."""
    assert len({seal(ANSWER, TOKEN, purpose="x") for _ in range(50)}) == 50


def test_nothing_of_the_answer_shows() -> None:
    """Nothing readable is at rest."""
    sealed = base64.b64decode(seal(ANSWER, TOKEN, purpose="x"))
    assert b"secret" not in sealed and b"openid" not in sealed
