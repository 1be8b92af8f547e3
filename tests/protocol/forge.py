"""Forges tokens by hand, without the library under test: a good token of ours with its parts changed."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from service.keys.material import load_private_key, load_secret
from service.keys.signing import Keyring, build_keyring
from tests.support.gunicorn import SECRET, rsa_pem

CLAIMS = {"iss": "https://id.example.test", "sub": "user-1"}
#: Claims that are the protocol's own: no app may set them.
OWN_CLAIMS = (
    "iss", "sub", "aud", "exp", "iat", "nbf", "jti", "nonce", "azp", "acr", "amr", "auth_time", "sid", "cnf", "client_id",
    "scope",
)  # fmt: skip


@functools.cache
def ring(mint_alg: str = "HS256") -> Keyring:
    """A ring with both kinds of key."""
    return build_keyring(
        mint_alg=mint_alg, secret=load_secret(SECRET.encode()), private_key=load_private_key(rsa_pem())
    )


def b64(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """The bytes of base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@functools.cache
def _private(number: int = 0) -> rsa.RSAPrivateKey:
    pem = rsa_pem(number=number) if number else rsa_pem()
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def _jwk_of_the_stranger() -> dict[str, str]:
    numbers = _private(1).public_key().public_numbers()
    return {"kty": "RSA", "n": b64(numbers.n.to_bytes(256, "big")), "e": "AQAB", "alg": "RS256", "use": "sig"}


_LARGE = {"@64KiB": "k" * 65_536, "@1MiB": "A" * 2**20, "@nested": b64(b'{"a":' * 5000 + b"1" + b"}" * 5000)}


def _value(value: Any) -> Any:
    return (
        _jwk_of_the_stranger()
        if value == "@other"
        else _LARGE.get(value, value)
        if isinstance(value, str)
        else value
    )


def _hmac_key(kind: str) -> bytes:
    public = _private().public_key()
    return {
        "public-pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "public-der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "modulus": public.public_numbers().n.to_bytes(256, "big"),
        "empty": b"",
        "kid": b"pylon-default",
    }[kind]


def sign(how: str, alg: str, data: bytes, *, kept: str = "") -> bytes:
    """The signature over `data`, made as a vector says."""
    how = f"own-{alg.lower()}" if how == "own" else how
    if how.startswith("hs256:"):
        return hmac.digest(_hmac_key(how.removeprefix("hs256:")), data, "sha256")
    match how:
        case "none":
            return b""
        case "kept":
            return unb64(kept)
        case "own-hs256" | "own-hs512":
            return hmac.new(SECRET.encode(), data, getattr(hashlib, f"sha{how[-3:]}")).digest()
        case "own-ps256":
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256.digest_size)
            return _private().sign(data, pss, hashes.SHA256())
        case "own-rs256" | "own-rs512":
            return _private().sign(data, padding.PKCS1v15(), getattr(hashes, f"SHA{how[-3:]}")())
        case "other":
            return _private(1).sign(data, padding.PKCS1v15(), hashes.SHA256())
    raise AssertionError(how)


def forge(vector: dict[str, Any]) -> str:
    """The token of a vector."""
    good = ring().sign(CLAIMS, alg=vector["alg"])
    header_part, payload_part, signature_part = good.split(".")
    header = json.loads(unb64(header_part)) | {
        name: _value(value) for name, value in vector.get("header", {}).items()
    }
    header = {name: value for name, value in header.items() if value is not None}
    raw = {name: _value(value) for name, value in vector.get("raw", {}).items()}
    data = f"{raw.get('header', b64(json.dumps(header).encode()))}.{raw.get('payload', payload_part)}"
    signature = b64(sign(vector["sign"], vector["alg"], data.encode(), kept=signature_part))
    return f"{data}.{raw.get('signature', signature)}"
