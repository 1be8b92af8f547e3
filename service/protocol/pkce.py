"""Proof Key for Code Exchange, with S256 only.

Spec: RFC 7636 §4.1, §4.2, §4.6; RFC 9700 §2.1.1
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}", re.ASCII)


def is_challenge(value: str) -> bool:
    """Whether the value has the form of an S256 challenge."""
    return _CHALLENGE.fullmatch(value) is not None


def verifies(unverified_verifier: str | None, challenge: str | None) -> bool:
    """Whether the verifier belongs to the challenge.

    A challenge without a verifier fails. So does a verifier without a challenge, which someone may have removed.
    """
    if unverified_verifier is None or challenge is None:
        return unverified_verifier is None and challenge is None
    if not _VERIFIER.fullmatch(unverified_verifier):
        return False
    digest = hashlib.sha256(unverified_verifier.encode()).digest()
    return hmac.compare_digest(base64.urlsafe_b64encode(digest).rstrip(b"=").decode(), challenge)
