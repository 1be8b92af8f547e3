"""Which keys are refused although they are well-formed: by data, `tests/vectors/weak_keys.json`.

Spec: FIPS 186-5 §A.1.1, RFC 4055 §1.2, RFC 8725 §3.5
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from service.keys.material import (
    KeyFault,
    load_private_bytes,
    load_private_key,
    load_private_pem,
    load_public_key,
)
from service.keys.strength import WeakKey, check_rsa_private, check_rsa_public
from tests.settings.conftest import Run, run  # noqa: F401 - a fixture
from tests.settings.reading import read
from tests.support.cases import each_of

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "weak_keys.json").read_text())
NUMBERS: list[dict[str, Any]] = VECTORS["numbers"]
SEALING = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def _key(vector: dict[str, Any]) -> rsa.RSAPrivateKey:
    p, q, e = int(vector["p"], 16), int(vector["q"], 16), vector["e"]
    d = pow(e, -1, math.lcm(p - 1, q - 1))
    crt = (d % (p - 1), d % (q - 1), rsa.rsa_crt_iqmp(p, q))
    numbers = rsa.RSAPrivateNumbers(p, q, d, *crt, rsa.RSAPublicNumbers(e, p * q))
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


def _pem(key: Any) -> str:
    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return text.decode()


def _why(load: Any, *arguments: Any) -> str | None:
    try:
        load(*arguments)
    except KeyFault as fault:
        return str(fault)
    return None


@each_of("vector", NUMBERS, ids=lambda vector: vector["name"])
def test_a_weak_key_is_refused_wherever_it_comes_from(vector: dict[str, Any]) -> None:
    """RFC 8725 §3.5: in the environment, by import, out of the ring, and where only its public part is published."""
    key = _key(vector)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_numbers()
    found = {
        "environment": (_why(load_private_key, _pem(key)), vector["refused_private"]),
        "import": (_why(load_private_pem, _pem(key), "PS256"), vector["refused_private"]),
        "ring": (_why(load_private_bytes, der, "RS256"), vector["refused_private"]),
        "published": (_why(load_public_key, public.n, public.e), vector["refused_public"]),
    }
    for where, (told, words) in found.items():
        if words is None:
            assert told is None, where
        else:
            assert told is not None and words in told and "; " in told, where
            assert vector["p"][2:50] not in told and str(public.n)[:40] not in told


@each_of("vector", VECTORS["pems"], ids=lambda vector: vector["name"])
def test_a_key_of_another_form_is_refused(vector: dict[str, Any]) -> None:
    """RFC 4055 §1.2: a key for RSASSA-PSS is not used by RS256; one of three primes is not used at all."""
    pem = vector["pem"]
    for alg in (None, "RS256", "PS256"):
        assert (_why(load_private_pem, pem, alg) is None) == (alg in vector["for"]), alg
    for written in (pem, pem.replace("\n", "\\n"), f"Bag Attributes\n{pem}"):
        assert _why(load_private_key, written) is not None
        assert _why(load_private_pem, written, None) is not None


def test_numbers_that_no_file_can_hold_are_refused() -> None:
    """FIPS 186-5 §A.1.1; what Go, Java, OpenSSL and WebCrypto would refuse: its length, its exponent, its factors."""
    good = next(each for each in NUMBERS if each["refused_private"] is None and each["e"] == 65537)
    p, q = int(good["p"], 16), int(good["q"], 16)
    for modulus, exponent, words in (
        (p * q, 65536, "even"),
        (p * q, 1, "less than 3"),
        (p * q, (1 << 31) + 1, "exponent above"),
        (p * q * 2, 65537, "multiple of 8"),
        (p * q * 256, 65537, "is even"),
        (p * p, 65537, "close to each other"),
        (p * 3, 65537, "the minimum is 2048"),
        (p * q * ((1 << 14400) + 1), 65537, "16384"),
        (int(_PRIME_OF_2048_BITS, 16), 65537, "is a prime"),
    ):
        with pytest.raises(WeakKey, match=words):
            check_rsa_public(modulus, exponent)
    with pytest.raises(WeakKey, match="more than two"):
        check_rsa_private(p, q, p * q + (1 << 100), 65537)
    check_rsa_public(p * q, 65537)
    check_rsa_private(p, q, p * q, 65537)


def test_a_placeholder_is_no_key_of_a_curve() -> None:
    """RFC 8725 §3.5: a private part of zeros, or of one byte again and again, is known to everybody."""
    for key in (
        ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)),
        ed25519.Ed25519PrivateKey.from_private_bytes(b"\x07" * 32),
        ec.derive_private_key(1, ec.SECP256R1()),
    ):
        assert "placeholder" in str(_why(load_private_pem, _pem(key), None))
    assert _why(load_private_pem, _pem(ed25519.Ed25519PrivateKey.generate()), None) is None


def test_a_weak_key_keeps_the_service_from_starting(tmp_path: Path, run: Run) -> None:  # noqa: F811 - the fixture
    """RFC 8725 §3.5: a fault of its setting, with what to write; `keys import` takes it neither."""
    pss = VECTORS["pems"][1]["pem"]
    weak = _pem(_key(NUMBERS[0]))
    path = tmp_path / "key.pem"
    for pem, words in ((pss, "id-RSASSA-PSS"), (weak, "much smaller")):
        path.write_text(pem)
        path.chmod(0o600)
        for name, value in (("PYLON_OIDC_PRIVATE_KEY", pem), ("PYLON_OIDC_KEY_PATH", str(path))):
            (fault,) = read(tmp_path, **{name: value}).faults
            assert fault.name == name and words in fault.text
        managed = {"PYLON_OIDC_KEYS": "managed", "PYLON_KEY_ENCRYPTION_KEY": SEALING}
        run.have_database()
        refused = run("keys", "import", str(path), **managed)
        assert (refused.exit_code, words in refused.stderr) == (1, True)
        assert "no key ring" in run("keys", "plan", **managed).stderr


_PRIME_OF_2048_BITS = "C1BC635DF5C7B01CB81B8D2EE8CDF8B649384E3CB425501F82078B14EE086DF34E16AA8C6958FD1D129C809B39B360829CA410238576592D76C18C93B0D666958342CB43BDE806C45B66AAB29EF0B3134D748BF7EE53B359A1E2E9F1801EE4E7C5A336851D3F0691810E34E92AABC12484D883E1C40A1B93940EAC93430EF6E6C6E78DFF1BCD1336CB2399AA659B156A0926A7C029639CD705B1E0BB557755CEACADEF1D94941017F63B148E3AFFB61001B1756A2CC189AA84930EB9D6CB0BC754A9BE2A75B2016E63019A41134B64810D27C5EF84BFA57AE8097FE54AC5C26D15E78A0598C978B6A9DE29B4B184369212EE781ADC58B2C37F6164FA429C2535"
