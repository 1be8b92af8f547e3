"""docs/settings.md, docs/endpoints.md: which keys are taken, under which name they are published, and what signs."""

from __future__ import annotations

import base64
import functools
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from service.keys.material import (
    KeyFault,
    load_private_key,
    load_public_key,
    load_secret,
    parse_base64url_uint,
    public_numbers,
)
from service.keys.signing import Keyring, build_keyring
from tests.support.cases import each_of
from tests.support.gunicorn import SECRET, rsa_pem


@functools.cache
def _private(number: int = 0) -> rsa.RSAPrivateKey:
    key = load_pem_private_key((rsa_pem(number=number) if number else rsa_pem()).encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def _pem(key: Any, form: PrivateFormat = PrivateFormat.PKCS8, password: bytes | None = None) -> str:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    text: bytes = key.private_bytes(Encoding.PEM, form, encryption)
    return text.decode()


# --- secrets ---

STRONG = [
    SECRET.encode(),
    bytes(range(32)),
    "ключ-который-никто-не-угадает".encode(),
    b"correct horse battery staple and more",
    base64.b64encode(bytes(range(40))),
]
WEAK: dict[str, bytes] = {
    "empty": b"",
    "31 bytes": SECRET.encode()[:31],
    "one character": b"a" * 64,
    "two characters": b"ab" * 32,
    "a repeated word": b"secret" * 8,
    "a repeated word, cut": b"password" * 4 + b"pass",
    "zeros": bytes(64),
    "changeme": b"changeme-changeme-changeme-1234567890",
    "CHANGEME": b"please-CHANGEME-0123456789-abcdefghij",
    "change-me": b"change-me-0123456789-abcdefghijklmnop",
    "placeholder": b"this-is-a-placeholder-for-a-real-secret",
    "your-secret": b"your-secret-key-goes-here-0123456789",
    "replace-me": b"replace-me-0123456789-abcdefghijklmno",
}


@each_of("secret", STRONG)
def test_a_strong_secret_signs(secret: bytes) -> None:
    """At least 32 bytes, no placeholder."""
    ring = build_keyring(mint_alg="HS256", secret=load_secret(secret))
    assert ring.can_mint
    assert ring.verify(ring.sign({"a": 1}, alg="HS256"), alg="HS256") == {"a": 1}


@each_of("secret", WEAK.values(), ids=WEAK.keys())
def test_a_weak_secret_is_refused_untold(secret: bytes) -> None:
    """RFC 7518 §3.2: HMAC keys below 32 bytes and placeholder secrets refuse to start; the message has nothing of
    them.
    """
    with pytest.raises(KeyFault) as caught:
        load_secret(secret)
    assert "; write " in str(caught.value)
    assert not secret or secret.decode() not in str(caught.value)


@each_of("form", ["private", "public", "indented"])
def test_a_pem_is_no_hmac_secret(form: str) -> None:
    """RFC 8725 §3.1, CVE-2026-28802: an RSA key is never an HMAC secret."""
    public = _private().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text = {"private": rsa_pem().encode(), "public": public, "indented": b"  \n" + public}[form]
    with pytest.raises(KeyFault):
        load_secret(text)


# --- private keys ---


@each_of("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@each_of("written", ["as it is", "escaped", "padded", "CRLF"])
def test_a_pem_may_be_written_in_several_ways(form: PrivateFormat, written: str) -> None:
    r"""PEM (PKCS#8 or PKCS#1, RSA); `\n` may be written as two characters."""
    pem = _pem(_private(), form)
    pem = {
        "as it is": pem,
        "escaped": pem.replace("\n", "\\n"),
        "padded": f"\n {pem}\n\n",
        "CRLF": pem.replace("\n", "\r\n"),
    }[written]
    assert public_numbers(load_private_key(pem)) == _private().public_key().public_numbers()


@pytest.fixture(scope="module")
def wrong_pems() -> dict[str, str]:
    """Everything that is no RSA private key of 2,048 bits."""
    public = _private().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    lines = rsa_pem().splitlines()
    return {
        "empty": "",
        "text": "not a key",
        "public": public,
        "1024 bits": rsa_pem(1024),
        "2047 bits": _pem(rsa.generate_private_key(65537, 2047)),
        "EC": _pem(ec.generate_private_key(ec.SECP256R1())),
        "Ed25519": _pem(ed25519.Ed25519PrivateKey.generate()),
        "a passphrase": _pem(_private(), password=b"hunter22hunter22"),
        "cut off": "\n".join(lines[:-4]),
        "no end": "\n".join(lines[:-1]),
        "broken base64": rsa_pem().replace(lines[3], "!" * 64),
        "another label": rsa_pem().replace("PRIVATE KEY", "CERTIFICATE"),
        "a JWK": '{"kty": "RSA"}',
        "surrogates": "\ud800",
        "NUL": "\0",
    }


NAMES_OF_WRONG_PEMS = [
    "empty",
    "text",
    "public",
    "1024 bits",
    "2047 bits",
    "EC",
    "Ed25519",
    "a passphrase",
    "cut off",
    "no end",
    "broken base64",
    "another label",
    "a JWK",
    "surrogates",
    "NUL",
]


@each_of("name", NAMES_OF_WRONG_PEMS)
def test_anything_else_is_no_signing_key(wrong_pems: dict[str, str], name: str) -> None:
    """PEM (PKCS#8 or PKCS#1, RSA of 2,048 bits at least) of the signing key."""
    assert set(wrong_pems) == set(NAMES_OF_WRONG_PEMS)
    with pytest.raises(KeyFault) as caught:
        load_private_key(wrong_pems[name])
    message = str(caught.value)
    assert "; " in message and "write" in message
    assert not any(line in message for line in wrong_pems[name].splitlines() if len(line) > 20)


@given(
    st.text() | st.text().map(lambda text: f"-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----")
)
def test_no_text_makes_another_failure(text: str) -> None:
    """docs/cli.md: a wrong configuration is a fault, never a traceback."""
    with pytest.raises(KeyFault):
        load_private_key(text)


# --- published keys ---


@each_of("value", ["AQAB", "Aw", "AQ", "_w", "-_8"])
def test_a_minimal_base64url_number_is_read(value: str) -> None:
    """RFC 7518 §2: Base64urlUInt."""
    data = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    assert parse_base64url_uint(value) == int.from_bytes(data, "big")


@each_of(
    "value",
    ["", "AA", "AAEAAQ", "AQAB=", "AQAB\n", "A", "AQA+", "AQA/", "65537", "0x10001", "AQ AB", "é", "Ax"],
)
def test_any_other_spelling_is_refused(value: str) -> None:
    """RFC 7518 §2: no padding, no leading zero byte, no stray bits; relying parties would compute another
    key.
    """
    if value == "65537":  # it is base64url of five characters, which no number has
        assert len(value) % 4 == 1
    with pytest.raises(KeyFault):
        parse_base64url_uint(value)


@given(st.integers(1, 2**64))
def test_every_number_has_one_spelling(number: int) -> None:
    """RFC 7518 §2: the minimum number of octets."""
    text = (
        base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()
    )
    assert parse_base64url_uint(text) == number


@given(st.text())
def test_no_number_makes_another_failure(text: str) -> None:
    """docs/cli.md: a wrong configuration is a fault, never a traceback."""
    try:
        assert parse_base64url_uint(text) > 0
    except KeyFault as fault:
        assert not text or len(text) < 4 or text not in str(fault)


def test_a_published_key_has_2048_bits_and_is_odd() -> None:
    """Base64url modulus of 2,048 bits at least; exponent odd, at least 3."""
    modulus = _private().public_key().public_numbers().n
    assert public_numbers(load_public_key(modulus, 65537)).n == modulus
    for wrong, exponent in [
        (modulus >> 1 | 1, 65537),
        (modulus - 1, 65537),
        (1, 65537),
        (modulus, 1),
        (modulus, 2),
        (modulus, 4),
    ]:
        with pytest.raises(KeyFault):
            load_public_key(wrong, exponent)


# --- rings ---


def _public(number: int = 0) -> Any:
    numbers = _private(number).public_key().public_numbers()
    return load_public_key(numbers.n, numbers.e)


@each_of(
    ("private", "public", "kid", "published_as"),
    [
        (False, False, None, []),
        (False, False, "mine", []),
        (True, False, None, ["thumbprint"]),
        (True, False, "mine", ["mine"]),
        (False, True, None, ["pylon-default"]),
        (False, True, "mine", ["mine"]),
        (True, True, None, ["pylon-default"]),
        (True, True, "mine", ["mine"]),
    ],
)
def test_a_key_is_published_once_under_its_name(
    private: bool, public: bool, kid: str | None, published_as: list[str]
) -> None:
    """docs/endpoints.md: `kid`: the setting, else `pylon-default` when published by `…_RSA_N`, else the RFC 7638
    thumbprint (RFC 7517 §4.5).
    """
    ring = build_keyring(
        mint_alg="HS256",
        private_key=load_private_key(rsa_pem()) if private else None,
        public_key=_public() if public else None,
        kid=kid,
    )
    names = [
        load_private_key(rsa_pem()).thumbprint() if name == "thumbprint" else name for name in published_as
    ]
    assert [key["kid"] for key in ring.jwks()["keys"]] == names
    assert ring.advertised_algs == (["RS256"] if names else ["HS256"])


def test_two_different_keys_make_no_ring() -> None:
    """A private key and `PYLON_OIDC_JWKS_RSA_N` that differ are a start-up fault."""
    with pytest.raises(KeyFault):
        build_keyring(mint_alg="RS256", private_key=load_private_key(rsa_pem()), public_key=_public(1))


@each_of(
    ("alg", "secret", "private", "can"),
    [
        ("HS256", True, False, True),
        ("HS256", False, True, False),
        ("RS256", True, False, False),
        ("RS256", False, True, True),
    ],
)
def test_a_ring_can_mint_with_the_key_of_its_algorithm(
    alg: str, secret: bool, private: bool, can: bool
) -> None:
    """docs/endpoints.md: 501 while there is no key for the algorithm; no other key is used instead."""
    ring = build_keyring(
        mint_alg=alg,
        secret=load_secret(SECRET.encode()) if secret else None,
        private_key=load_private_key(rsa_pem()) if private else None,
    )
    assert ring.can_mint is can


def test_a_jwks_has_public_members_alone() -> None:
    """RFC 7517 §9.2: JWKS never holds private or symmetric members; kids unique."""
    ring = build_keyring(
        mint_alg="RS256", secret=load_secret(SECRET.encode()), private_key=load_private_key(rsa_pem())
    )
    keys = ring.jwks()["keys"]
    assert [set(key) for key in keys] == [{"kty", "use", "alg", "kid", "n", "e"}]
    assert len({key["kid"] for key in keys}) == len(keys)


def test_a_ring_shows_no_key() -> None:
    """docs/security.md: neither `repr` nor `str` tells a secret."""
    ring = build_keyring(
        mint_alg="RS256", secret=load_secret(SECRET.encode()), private_key=load_private_key(rsa_pem())
    )
    assert "secret" not in repr(ring) and "private_key" not in repr(ring)
    assert SECRET not in repr(ring)


def test_a_key_that_does_not_verify_what_it_signs_is_a_fault() -> None:
    """docs/keys.md: real keys are tried at start-up: load, sign, verify."""

    class _Broken(Keyring):
        def sign(self, claims: Any, *, alg: str, typ: str = "JWT") -> str:
            return super().sign({"probe": "another"}, alg=alg, typ=typ)

    from service.keys import signing

    with pytest.raises(KeyFault):
        signing.try_key(_Broken("HS256", load_secret(SECRET.encode())), "HS256")
