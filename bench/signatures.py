"""The raw signature rate: what no token service on this machine can exceed."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

#: As long as the signing input of a minted token.
_INPUT = b"x" * 300


def _per_second(sign: Callable[[], object], seconds: float) -> float:
    """How many in a second of CPU, so that other programs on the machine do not count."""
    count, start = 0, time.process_time()
    while (taken := time.process_time() - start) < seconds:
        for _ in range(16):
            sign()
        count += 16
    return count / taken


class Signer:
    """Signs as fast as one core can, through `cryptography` and the standard library."""

    def __init__(self) -> None:
        self._rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._secret = hashlib.sha256(b"bench").digest()

    def rsa_2048(self, seconds: float) -> float:
        """RSA-2048 signatures (PKCS#1 v1.5, SHA-256) a second."""
        scheme, digest = padding.PKCS1v15(), hashes.SHA256()
        return _per_second(lambda: self._rsa.sign(_INPUT, scheme, digest), seconds)

    def hmac_sha256(self, seconds: float) -> float:
        """HMAC-SHA256 tags a second."""
        return _per_second(lambda: hmac.digest(self._secret, _INPUT, "sha256"), seconds)
