"""The examples of RFC 7515, 7517, 7520, 7638, 7797 and 8037, and what must be refused, in one loop over a file."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, OctKey
from joserfc.jws import JWSRegistry

from service.keys.algorithms import ASYMMETRIC_ALGS, MINT_ALGS
from service.keys.material import (
    AsymmetricKey,
    KeyFault,
    generate_key,
    load_private_pem,
    load_public_jwk,
    public_jwk,
)
from service.keys.signing import InvalidToken, Keyring, PublicKey, SigningKey
from tests.support.cases import each_of

FILE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors/jose.json").read_text())
CASES = [
    pytest.param(kind, vector, id=f"{kind}: {vector['spec']} {vector['name']}")
    for kind in ("signatures", "thumbprints", "keys", "signed", "not_taken", "unoffered", "refused")
    for vector in FILE[kind]
]
CLAIMS = {"sub": "user-1", "at_hash": "x"}

#: RFC 8037 has it under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA")


@pytest.fixture(scope="module")
def ring() -> Keyring:
    """A ring with a key of each algorithm."""
    return _ring({alg: generate_key(alg) for alg in ASYMMETRIC_ALGS})


def _ring(keys: dict[str, AsymmetricKey]) -> Keyring:
    signing = {alg: SigningKey(f"kid-{alg}", key) for alg, key in keys.items()}
    shown = [
        PublicKey(each.kid, alg, public_jwk(each.key, kid=each.kid, alg=alg)) for alg, each in signing.items()
    ]
    verifying = {(key.kid, key.alg): load_public_jwk(key.jwk) for key in shown}
    return Keyring("ES256", None, signing, tuple(shown), verifying)


@pytest.fixture(scope="module")
def stranger() -> Keyring:
    """The same names, other keys."""
    return _ring({alg: generate_key(alg) for alg in ASYMMETRIC_ALGS})


@each_of(("kind", "vector"), CASES)
def test_a_vector_holds(kind: str, vector: dict[str, Any], ring: Keyring, stranger: Keyring) -> None:
    """Each vector names its specification."""
    match kind:
        case "signatures":
            _check_signature(vector)
        case "thumbprints":
            assert load_public_jwk(vector["jwk"]).thumbprint() == vector["thumbprint"]
        case "keys":
            _check_key(vector)
        case "signed":
            _check_signed(vector)
        case "not_taken":
            _check_not_taken(vector)
        case "unoffered":
            _check_unoffered(vector)
        case _:
            for alg in ASYMMETRIC_ALGS:
                _check_refused(vector, alg, ring, stranger)


def _check_signature(vector: dict[str, Any]) -> None:
    jwk, alg, text = vector["jwk"], vector["alg"], vector["jws"]
    key: Any = OctKey.import_key(jwk) if jwk["kty"] == "oct" else load_public_jwk(jwk)
    registry = JWSRegistry(algorithms=[alg])
    assert jws.deserialize_compact(text, key, registry=registry).headers()["alg"] == alg
    head, payload, signature = text.split(".")
    for changed in (
        f"{head}.{payload[:-2]}AA.{signature}",
        f"{head}.{payload}.{_flipped(signature)}",
        f"{head}.{payload}.",
    ):
        with pytest.raises((JoseError, ValueError)):
            jws.deserialize_compact(changed, key, registry=registry)


def _check_key(vector: dict[str, Any]) -> None:
    """It is published with exactly its own public members."""
    key = load_public_jwk(vector["jwk"] | {"d": "secret", "key_ops": ["verify"], "x5u": "https://a.example"})
    assert public_jwk(key, kid="1", alg=vector["alg"]) == vector["jwk"] | {
        "use": "sig",
        "alg": vector["alg"],
        "kid": "1",
    }


def _check_signed(vector: dict[str, Any]) -> None:
    """RSASSA-PKCS1-v1_5, HMAC and Ed25519 sign the same bytes always alike; an asymmetric key comes in as a PEM does."""
    private: Any = JWKRegistry.import_key(vector["jwk"])
    if vector["alg"] != "HS256":
        private, _ = load_private_pem(private.as_pem(private=True).decode(), vector["alg"])
    unsigned, _, signature = vector["jws"].rpartition(".")
    made = JWSRegistry.algorithms[vector["alg"]].sign(unsigned.encode(), private)
    assert _encode(made) == signature


def _check_not_taken(vector: dict[str, Any]) -> None:
    """Neither as a key to sign by, nor into the key set (RFC 7517 §9.2)."""
    key: Any = JWKRegistry.import_key(vector["jwk"])
    if vector["jwk"]["kty"] == "oct":
        with pytest.raises(LookupError):
            public_jwk(key, kid="1", alg="HS256")
        return
    for alg in (None, *ASYMMETRIC_ALGS):
        with pytest.raises(KeyFault):
            load_private_pem(key.as_pem(private=True).decode(), alg)


def _check_unoffered(vector: dict[str, Any]) -> None:
    """Refused by the very key that made it, whichever of our algorithms is due."""
    key: Any = JWKRegistry.import_key(vector["jwk"])
    if "alg" in vector:
        assert jws.deserialize_compact(vector["text"], key, registry=JWSRegistry(algorithms=[vector["alg"]]))
    kid = "bilbo.baggins@hobbiton.example"
    for alg in MINT_ALGS:
        if alg == "HS256":
            ring = Keyring(alg, secret=key if vector["jwk"]["kty"] == "oct" else OctKey.generate_key())
        else:
            ring = Keyring(alg, verifying={(name, alg): key for name in (kid, "")})
        with pytest.raises(InvalidToken):
            ring.verify(vector["text"], alg=alg)
        with pytest.raises(InvalidToken):
            ring.verify_hint(vector["text"])


def _check_refused(vector: dict[str, Any], alg: str, ring: Keyring, stranger: Keyring) -> None:
    good = ring.sign(CLAIMS, alg=alg)
    assert ring.verify(good, alg=alg) == ring.verify_hint(good) == CLAIMS
    token = _changed(vector, alg, ring, stranger)
    for verify in (lambda: ring.verify(token, alg=alg), lambda: ring.verify_hint(token)):
        with pytest.raises(InvalidToken):
            verify()


def _changed(vector: dict[str, Any], alg: str, ring: Keyring, stranger: Keyring) -> str:
    other = next(each for each in ASYMMETRIC_ALGS if each != alg)
    header: dict[str, Any] = {"alg": alg, "typ": "JWT", "kid": f"kid-{alg}"} | vector.get("header", {})
    header = {name: value for name, value in header.items() if value is not None}
    if header.get("kid") == "<other>":
        header["kid"] = f"kid-{other}"
    how = vector.get("sign", "own")
    key = (stranger if how == "other" else ring).signing[alg].key
    unsigned = f"{_encode(json.dumps(header).encode())}.{_encode(json.dumps(CLAIMS).encode())}"
    made = JWSRegistry.algorithms[alg].sign(unsigned.encode(), key)
    match how:
        case "none":
            made = b""
        case "zeros":
            made = bytes(len(made))
        case "der":
            half = len(made) // 2
            made = encode_dss_signature(int.from_bytes(made[:half]), int.from_bytes(made[half:]))
        case "longer":
            made += b"\0"
        case "flipped":
            made = bytes([made[0] ^ 1]) + made[1:]
    return f"{unsigned}.{_encode(made)}"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _flipped(text: str) -> str:
    return ("A" if text[0] != "A" else "B") + text[1:]
