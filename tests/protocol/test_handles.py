"""docs/security.md: what is given out, and what is kept of it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from service.handles import hash_handle, is_session_token, new_id, new_request_id, new_session_token
from tests.support.cases import each_of


def test_a_session_token_is_pylon_and_64_hex_characters() -> None:
    """A session token is `pylon_` + 64 hex characters: 256 random bits (RFC 6749 §10.10)."""
    assert re.fullmatch(r"pylon_[0-9a-f]{64}", new_session_token())
    assert is_session_token(new_session_token())


@each_of(
    "value",
    [
        "",
        "pylon_",
        "0" * 64,
        "pylon_" + "0" * 63,
        "pylon_" + "0" * 65,
        "pylon_" + "g" * 64,
        "pylon_" + "A" * 64,
        "PYLON_" + "0" * 64,
        " pylon_" + "0" * 64,
        "pylon_" + "0" * 64 + "\n",
        "pylon-" + "0" * 64,
        "pylon_" + "٠" * 64,
        "pylon_" + "0" * 32 + "\n" + "0" * 31,
    ],
)
def test_nothing_else_has_the_form_of_one(value: str) -> None:
    """`pylon_` + 64 hex characters, to the letter."""
    assert not is_session_token(value)


@each_of(
    ("make", "form"),
    [
        (new_session_token, r"pylon_[0-9a-f]{64}"),
        (new_id, r"[A-Za-z0-9_-]{22}"),
        (new_request_id, r"[A-Za-z0-9._-]{8,64}"),
    ],
)
def test_handles_are_random(make: Callable[[], str], form: str) -> None:
    """RFC 6749 §10.10: handles cannot be guessed: none comes twice, no character stands still."""
    made = {make() for _ in range(500)}
    assert len(made) == 500
    assert all(re.fullmatch(form, handle) for handle in made)
    prefix = len("pylon_") if make is new_session_token else 0
    for place in range(prefix, min(map(len, made)) - 1):
        assert len({handle[place] for handle in made}) > 4


@given(st.text() | st.binary())
def test_what_is_kept_is_the_sha_256(value: str | bytes) -> None:
    """Stored as a SHA-256 hash."""
    try:
        data = value.encode() if isinstance(value, str) else value
    except UnicodeEncodeError:
        return
    assert hash_handle(value) == hashlib.sha256(data).hexdigest()
