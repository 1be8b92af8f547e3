"""Reads an environment made of nothing but what a test says."""

from __future__ import annotations

import base64
import functools
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from service.settings import Reading, read_settings
from tests.support.gunicorn import rsa_pem

STRONG = "k7Jq2mZx9Lw4Rt6Yb1Nc8Vd3Fg5Hs0Pa"


def read(folder: Path, **environ: str) -> Reading:
    """What the settings say; the data folder is in `folder` unless given."""
    return read_settings({"PYLON_DATA_DIR": str(folder / "data")} | environ)


def named(reading: Reading) -> list[str]:
    """The names of the faults, in their order."""
    return [fault.name for fault in reading.faults]


@functools.cache
def modulus(pem: str | None = None) -> str:
    """The base64url modulus of a private key."""
    key = load_pem_private_key((pem or rsa_pem()).encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    number = key.public_key().public_numbers().n
    return base64.urlsafe_b64encode(number.to_bytes(key.key_size // 8, "big")).rstrip(b"=").decode()
