"""Logout tokens: what one says, and that it is signed as the ID tokens of its client are.

Spec: OpenID Connect Back-Channel Logout 1.0 §2.4, §2.6; RFC 8725 §3.11
"""

from __future__ import annotations

from typing import Final

from service.keys.signing import Keys
from service.records.clients import Client
from service.records.deliveries import Delivery

TYP: Final = "logout+jwt"
#: How long one is good, in s.
LIFETIME_S: Final = 120
#: The one member of `events`; its value is an empty object (§2.4).
EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"


def sign_logout_token(delivery: Delivery, client: Client, keys: Keys, *, now: int) -> str:
    """Sign what is delivered: by today's key, at this time, always under the same `jti`.

    Args:
        delivery: says it.
        client: whom it is for.
        keys: sign.
        now: Unix s.

    Raises:
        LookupError: when there is no key for the algorithm of the client's ID tokens.
        StoreUnavailable: when nobody knows whether the key still may sign.
    """
    alg = client.id_token_signed_response_alg
    claims = {
        "iss": delivery.issuer,
        "aud": client.client_id,
        "iat": now,
        "exp": now + LIFETIME_S,
        "jti": delivery.id,
        "events": {EVENT: {}},
        "sub": delivery.subject,
        "sid": delivery.sid,
    }
    return keys.to_sign(alg).sign(claims, alg=alg, typ=TYP)
