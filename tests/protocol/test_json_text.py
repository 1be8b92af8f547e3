"""JSON as it is written where every request passes: what one writes, everybody reads."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service import json_text

TEXT = st.text(st.characters(codec="utf-8"))
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(value=VALUES)
def test_what_is_written_is_read_by_everybody(value: object) -> None:
    """By the standard library too, and what that writes is read here."""
    assert json.loads(json_text.to_bytes(value)) == value
    assert json_text.read(json_text.to_ascii(value)) == value
    assert json_text.read(json.dumps(value)) == value
    text = json_text.to_ascii(value)
    assert text.isascii() and len(text.splitlines()) == 1


def test_a_lone_surrogate_is_no_answer_and_no_broken_line() -> None:
    """The log escapes it, as the standard library does; an answer is not made."""
    assert json.loads(json_text.to_ascii({"event": "\ud800", "ts": datetime.now(UTC)}))["event"] == "\ud800"
    assert json_text.read('"\\ud800"') == "\ud800"
    with pytest.raises(UnicodeEncodeError):
        json_text.to_bytes("\ud800")


@pytest.mark.parametrize("text", ["", "{", "nope", '{"a":1}x'])
def test_what_is_no_json_is_refused(text: str) -> None:
    """By a `ValueError`, as the standard library does."""
    with pytest.raises(ValueError, match=""):
        json_text.read(text)
