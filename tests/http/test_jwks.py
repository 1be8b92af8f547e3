"""docs/endpoints.md: `/oidc/jwks` in each configuration of keys."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.http.conftest import Serve
from tests.http.driver import House, refused
from tests.support.cases import each_of
from tests.support.gunicorn import SECRET, rsa_pem

JWKS = "/oidc/jwks"
PRIVATE_MEMBERS = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


def b64(number: int) -> str:
    """Base64urlUInt (RFC 7518 §2)."""
    return (
        base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8, "big")).rstrip(b"=").decode()
    )


def numbers(pem: str) -> rsa.RSAPublicNumbers:
    """Modulus and exponent of a private key."""
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.public_key().public_numbers()


def thumbprint(pem: str) -> str:
    """RFC 7638 §3, computed by hand."""
    members = {"e": b64(numbers(pem).e), "kty": "RSA", "n": b64(numbers(pem).n)}
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()


def _jwk(pem: str, kid: str) -> dict[str, str]:
    return {
        "kty": "RSA",
        "use": "sig",
        "alg": "RS256",
        "kid": kid,
        "n": b64(numbers(pem).n),
        "e": b64(numbers(pem).e),
    }


def test_with_hs256_alone_there_is_no_key(house: House) -> None:
    """`{"keys": []}` when only HS256 is configured."""
    answer = house.ask("GET", JWKS)
    assert (answer.status, answer.json()) == (200, {"keys": []})


def test_with_no_key_at_all_there_is_none(serve: Serve) -> None:
    """`{"keys": []}`, also with a kid that no key has."""
    assert serve(PYLON_JWT_SECRET=None, PYLON_OIDC_JWKS_KID="x").ask("GET", JWKS).json() == {"keys": []}


def test_a_published_modulus_is_one_key_named_pylon_default(serve: Serve) -> None:
    """Else `pylon-default` when it is published by `…_RSA_N`; docs/settings.md: the exponent is AQAB."""
    house = serve(PYLON_OIDC_JWKS_RSA_N=b64(numbers(rsa_pem()).n))
    key = _jwk(rsa_pem(), "pylon-default")
    assert house.ask("GET", JWKS).json() == {"keys": [key]}
    assert key["e"] == "AQAB"
    assert house.ask("GET", "/.well-known/openid-configuration").json()[
        "id_token_signing_alg_values_supported"
    ] == ["RS256"]


def test_a_published_exponent_is_the_settings(serve: Serve) -> None:
    """docs/settings.md: `PYLON_OIDC_JWKS_RSA_E`: odd, at least 3."""
    house = serve(PYLON_OIDC_JWKS_RSA_N=b64(numbers(rsa_pem()).n), PYLON_OIDC_JWKS_RSA_E="Aw")
    (key,) = house.ask("GET", JWKS).json()["keys"]
    assert key["e"] == "Aw"


def test_a_private_key_is_published_under_its_thumbprint(serve: Serve) -> None:
    """Else the RFC 7638 thumbprint."""
    house = serve(PYLON_OIDC_PRIVATE_KEY=rsa_pem())
    assert house.ask("GET", JWKS).json() == {"keys": [_jwk(rsa_pem(), thumbprint(rsa_pem()))]}


@each_of(("published", "private"), [(True, False), (False, True), (True, True)])
def test_a_kid_of_the_settings_wins(serve: Serve, published: bool, private: bool) -> None:
    """`kid`: for the one key of the environment `PYLON_OIDC_JWKS_KID` where set."""
    house = serve(
        PYLON_OIDC_JWKS_KID="my-key",
        PYLON_OIDC_PRIVATE_KEY=rsa_pem() if private else None,
        PYLON_OIDC_JWKS_RSA_N=b64(numbers(rsa_pem()).n) if published else None,
    )
    assert house.ask("GET", JWKS).json() == {"keys": [_jwk(rsa_pem(), "my-key")]}


def test_the_same_key_given_twice_is_one_key(serve: Serve) -> None:
    """docs/settings.md: when they are equal they are one published key, named as published."""
    house = serve(PYLON_OIDC_PRIVATE_KEY=rsa_pem(), PYLON_OIDC_JWKS_RSA_N=b64(numbers(rsa_pem()).n))
    assert house.ask("GET", JWKS).json() == {"keys": [_jwk(rsa_pem(), "pylon-default")]}


def test_a_key_file_is_made_and_published(serve: Serve, tmp_path: Path) -> None:
    """docs/settings.md: `PYLON_OIDC_KEY_PATH`: made when the file is missing, and the same at the next start."""
    path = tmp_path / "key.pem"
    one = serve(PYLON_OIDC_KEY_PATH=str(path)).ask("GET", JWKS).json()
    assert one == {"keys": [_jwk(path.read_text(), thumbprint(path.read_text()))]}
    assert serve(PYLON_OIDC_KEY_PATH=str(path)).ask("GET", JWKS).json() == one


@each_of("alg", ["HS256", "RS256"])
def test_no_private_or_symmetric_member_is_ever_shown(serve: Serve, alg: str) -> None:
    """Never a private or symmetric member (RFC 7517 §9.2)."""
    answer = serve(PYLON_OIDC_PRIVATE_KEY=rsa_pem(), PYLON_JWT_ALG=alg).ask("GET", JWKS)
    for key in answer.json()["keys"]:
        assert set(key) == {"kty", "use", "alg", "kid", "n", "e"}
        assert not PRIVATE_MEMBERS & set(key)
    assert SECRET.encode() not in answer.body
    assert base64.urlsafe_b64encode(SECRET.encode()).rstrip(b"=") not in answer.body


@each_of("environ", [{}, {"PYLON_OIDC_ISSUER": "https://id.example.com"}])
def test_jwks_is_cached_for_300_seconds_whatever_the_issuer(serve: Serve, environ: dict[str, str]) -> None:
    """`Cache-Control: public, max-age=300`, `ETag`, CORS `*`: the keys are the same for every `Host`."""
    answer = serve(**environ).ask("GET", JWKS)
    assert answer.headers.all("Cache-Control") == ["public, max-age=300"]
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["ETag"]
    assert "Vary" not in answer.headers


def test_jwks_asks_for_a_good_host_too(house: House) -> None:
    """docs/settings.md: anything else: 400 `INVALID_HOST`; only health never looks at `Host`."""
    refused(house.ask("GET", JWKS, host="a b"), 400, "INVALID_HOST")
