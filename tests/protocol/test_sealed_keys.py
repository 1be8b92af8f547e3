"""Private keys at rest: bound to what they are, and each fault has its own message. docs/keys.md."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.keys.sealing import (
    Binding,
    NoSealingKey,
    SealBroken,
    SealedForAnother,
    SealingKeys,
    Unsealable,
    WrongSealingKey,
)
from tests.support.cases import each_of

ONE, TWO = bytes(range(32)), bytes(range(32, 64))
KEYS = SealingKeys((ONE,))
WHAT = Binding("kid-1", "RS256", "db-1")
PRIVATE = b"a private key, canary7f3a"


def test_what_is_sealed_is_opened_by_the_same_key() -> None:
    """AES-256-GCM; nothing of the key is in what is kept."""
    sealed = KEYS.seal(PRIVATE, WHAT)
    assert KEYS.unseal(sealed, WHAT) == PRIVATE
    assert PRIVATE not in base64.b64decode(sealed["data"])
    assert ONE.hex() not in str(sealed) and base64.b64encode(ONE).decode() not in str(sealed)


def test_sealing_twice_is_never_the_same() -> None:
    """SP 800-38D §8: a nonce is used once."""
    assert KEYS.seal(PRIVATE, WHAT)["data"] != KEYS.seal(PRIVATE, WHAT)["data"]


def test_the_first_key_seals_and_all_open() -> None:
    """docs/settings.md: several, comma-separated, the first seals."""
    both, other = SealingKeys((TWO, ONE)), SealingKeys((TWO,))
    old = KEYS.seal(PRIVATE, WHAT)
    assert both.unseal(old, WHAT) == PRIVATE
    assert old["by"] != both.names[0]
    new = both.seal(PRIVATE, WHAT)
    assert other.unseal(new, WHAT) == PRIVATE
    assert new["by"] == both.names[0]


def test_without_a_key_nothing_is_sealed() -> None:
    """Fail closed."""
    with pytest.raises(NoSealingKey):
        SealingKeys().seal(PRIVATE, WHAT)


FAILURES: dict[str, tuple[SealingKeys, Binding, dict[str, Any], type[Unsealable], str]] = {
    "missing": (
        SealingKeys(),
        WHAT,
        {},
        NoSealingKey,
        "but there is no encryption key; set PYLON_KEY_ENCRYPTION_KEY",
    ),
    "wrong": (SealingKeys((TWO,)), WHAT, {}, WrongSealingKey, "sealed under the key"),
    "sealed in dev mode": (
        KEYS,
        WHAT,
        {"by": SealingKeys.of_dev_mode().names[0]},
        WrongSealingKey,
        "dev mode",
    ),
    "another kid": (
        KEYS,
        replace(WHAT, kid="kid-2"),
        {},
        SealedForAnother,
        "another key or another database",
    ),
    "another algorithm": (KEYS, replace(WHAT, alg="PS256"), {}, SealedForAnother, "another key or another"),
    "another database": (KEYS, replace(WHAT, database_id="db-2"), {}, SealedForAnother, "another database"),
    "a version to come": (KEYS, WHAT, {"v": 2}, SealBroken, "changed"),
    "no base64": (KEYS, WHAT, {"data": "!"}, SealBroken, "changed"),
    "empty": (KEYS, WHAT, {"data": ""}, SealBroken, "changed"),
    "no text": (KEYS, WHAT, {"data": None}, SealBroken, "changed"),
    "swapped, and said to be right": (
        KEYS,
        replace(WHAT, kid="kid-2"),
        {"for": replace(WHAT, kid="kid-2").digest},
        SealBroken,
        "changed",
    ),
}


@each_of(("keys", "binding", "change", "error", "told"), FAILURES.values(), ids=FAILURES)
def test_what_is_wrong_is_told_apart(
    keys: SealingKeys, binding: Binding, change: dict[str, Any], error: type[Unsealable], told: str
) -> None:
    """A missing, a wrong and a swapped key, and a change, are four errors; each names the remedy and no secret."""
    sealed = KEYS.seal(PRIVATE, WHAT) | change
    with pytest.raises(error) as caught:
        keys.unseal(sealed, binding)
    assert type(caught.value) is error
    assert told in str(caught.value) and "; " in str(caught.value)
    assert "canary7f3a" not in str(caught.value)
    assert not any(secret.hex() in str(caught.value) for secret in (ONE, TWO))


def test_every_encryption_key_that_is_missing_is_named() -> None:
    """docs/cli.md: a start without an encryption key is a fault that says which one; all of them at once."""
    three, both = bytes(range(64, 96)), SealingKeys((TWO, ONE))
    sealed = {
        kid: SealingKeys((secret,)).seal(PRIVATE, replace(WHAT, kid=kid))
        for kid, secret in {"a": ONE, "b": TWO, "c": three, "d": three}.items()
    }
    first, second, third = (SealingKeys((secret,)).names[0] for secret in (ONE, TWO, three))
    with pytest.raises(WrongSealingKey) as caught:
        both.check_here(sealed)
    assert str(caught.value).startswith(
        f"the keys c, d were sealed under the key {third}, but this service has {second}, {first}; "
    )
    with pytest.raises(WrongSealingKey) as caught:
        KEYS.check_here(sealed)
    assert (
        f"the key b was sealed under the key {second}, the keys c, d were sealed under the key {third}"
        in str(caught.value)
    )
    SealingKeys((three, TWO, ONE)).check_here(sealed)
    with pytest.raises(NoSealingKey):
        SealingKeys().check_here(sealed)


@given(st.integers(0, (12 + len(PRIVATE) + 16) * 8 - 1))
def test_every_flipped_bit_is_found(bit: int) -> None:
    """GCM: nonce, text and tag."""
    sealed = KEYS.seal(PRIVATE, WHAT)
    data = bytearray(base64.b64decode(sealed["data"]))
    data[bit // 8] ^= 1 << (bit % 8)
    with pytest.raises(SealBroken):
        KEYS.unseal(sealed | {"data": base64.b64encode(bytes(data)).decode()}, WHAT)


def test_keys_for_other_uses_are_others() -> None:
    """A key per purpose: the name tells nothing that opens."""
    (name,) = KEYS.names
    assert name not in KEYS.seal(PRIVATE, WHAT)["data"]
    with pytest.raises(WrongSealingKey):
        SealingKeys((bytes.fromhex(name) * 4,)).unseal(KEYS.seal(PRIVATE, WHAT), WHAT)


def test_the_encryption_keys_are_not_shown() -> None:
    """docs/security.md: no secret is shown."""
    assert ONE.hex() not in repr(KEYS) and repr(ONE) not in repr(KEYS)


@each_of("kid", ['a", "RS256', "a\n", "ключ", ""])
def test_no_two_bindings_look_the_same(kid: str) -> None:
    """Associated data is unambiguous, whatever a name holds."""
    assert Binding(kid, "RS256", "x").data != Binding("a", "RS256", "x").data
