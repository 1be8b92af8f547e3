"""The signed status list: which tokens of a list were revoked.

Spec: draft-ietf-oauth-status-list §4.2 (the list), §5.1 (the token)
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable
from typing import Any, Final

from service.keys.signing import Keys
from service.records.statuses import PLACES

MEDIA_TYPE: Final = "application/statuslist+jwt"
TYP: Final = "statuslist+jwt"
#: ID tokens are signed with it, unless a client asks for another.
_ALG: Final = "RS256"
#: How long a verifier may use a list before it asks again, in s.
TTL_S: Final = 60
#: How long a list is valid at all, in s: for verifiers that cannot get a new one.
LIFETIME_S: Final = 600


def compressed(revoked: Iterable[int]) -> str:
    """The bits of a list, one for each place, compressed and in base64url. Bit 0 is the least significant of byte 0."""
    bits = bytearray(PLACES // 8)
    for index in revoked:
        bits[index >> 3] |= 1 << (index & 7)
    return base64.urlsafe_b64encode(zlib.compress(bytes(bits), 9)).rstrip(b"=").decode()


def status_list_token(uri: str, revoked: Iterable[int], keys: Keys, *, now: int) -> str:
    """Sign a status list, as ID tokens are signed by default.

    Args:
        uri: its address, which the tokens name.
        revoked: the places whose bit is set.
        keys: the signing keys.
        now: Unix s.

    Raises:
        LookupError: if there is no asymmetric key.
        StoreUnavailable: if it is not known whether the key may still sign.
    """
    claims: dict[str, Any] = {
        "sub": uri,
        "iat": now,
        "exp": now + LIFETIME_S,
        "ttl": TTL_S,
        "status_list": {"bits": 1, "lst": compressed(revoked)},
    }
    return keys.to_sign(_ALG).sign(claims, alg=_ALG, typ=TYP)
