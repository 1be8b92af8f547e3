"""PKCE, only S256 (RFC 7636)."""

from __future__ import annotations

import base64
import hashlib
import string

from hypothesis import given
from hypothesis import strategies as st

from service.protocol.pkce import is_challenge, verifies
from tests.support.cases import each_of

UNRESERVED = string.ascii_letters + string.digits + "-._~"
VERIFIERS = st.text(UNRESERVED, min_size=43, max_size=128)


def challenge(verifier: str) -> str:
    """RFC 7636 §4.2, by another hand."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def test_the_vector_of_the_specification() -> None:
    """RFC 7636 Appendix B."""
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert verifies(verifier, "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")


@given(VERIFIERS)
def test_a_verifier_belongs_to_its_challenge(verifier: str) -> None:
    """RFC 7636 §4.6: base64url of the verifier's SHA-256 is the challenge."""
    assert is_challenge(challenge(verifier))
    assert verifies(verifier, challenge(verifier))


@given(VERIFIERS, VERIFIERS)
def test_and_to_no_other(one: str, other: str) -> None:
    """RFC 7636 §4.6: another verifier fails."""
    assert verifies(other, challenge(one)) is (one == other)


@given(VERIFIERS)
def test_plain_is_not_known(verifier: str) -> None:
    """RFC 9700 §2.1.1: the challenge is never compared with the verifier itself."""
    assert not verifies(verifier, verifier)
    assert not verifies(challenge(verifier), challenge(verifier))


@each_of("size", [0, 1, 42, 129, 500])
def test_a_verifier_has_43_to_128_characters(size: int) -> None:
    """RFC 7636 §4.1: ABNF for code_verifier; a right hash does not help."""
    verifier = "v" * size
    assert not verifies(verifier, challenge(verifier))


@each_of("char", [" ", "+", "/", "=", "é", "\n", "\0", "%", "٣"])
def test_a_verifier_has_unreserved_characters_alone(char: str) -> None:
    """RFC 7636 §4.1: unreserved characters; a right hash does not help."""
    verifier = "v" * 50 + char
    assert not verifies(verifier, challenge(verifier))


def test_neither_goes_without_the_other() -> None:
    """RFC 7636 §4.6: a missing verifier fails, and one without a challenge too: somebody took it off (RFC 9700 §4.8.2)."""
    verifier = "v" * 43
    assert not verifies(None, challenge(verifier))
    assert not verifies(verifier, None)
    assert not verifies("", None)
    assert verifies(None, None)


@each_of(
    "value",
    [
        "",
        "x" * 42,
        "x" * 44,
        "x" * 42 + "=",
        "x" * 42 + "+",
        "x" * 42 + "/",
        "x" * 42 + "é",
        "x" * 43 + "\n",
        " " + "x" * 42,
    ],
)
def test_what_is_no_challenge(value: str) -> None:
    """RFC 7636 §4.2: 43 characters of base64url without padding."""
    assert not is_challenge(value)
