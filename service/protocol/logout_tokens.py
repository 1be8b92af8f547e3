"""Logout tokens: their content, signed with the algorithm of the client's ID tokens.

Spec: OpenID Connect Back-Channel Logout 1.0 §2.4, §2.6; RFC 8725 §3.11
"""

from __future__ import annotations

from typing import Final

from service.keys.signing import Keys
from service.records.clients import Client
from service.records.deliveries import Delivery

TYP: Final = "logout+jwt"
#: The lifetime of one, in s.
LIFETIME_S: Final = 120
#: The one member of `events`; its value is an empty object (§2.4).
EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"


def sign_logout_token(delivery: Delivery, client: Client, keys: Keys, *, now: int) -> str:
    """Sign a logout token, with the current key and time, and always the same `jti`.

    Args:
        delivery: its content.
        client: the client that it is for.
        keys: the signing keys.
        now: Unix s.

    Raises:
        LookupError: if there is no key for the algorithm of the client's ID tokens.
        StoreUnavailable: if it is not known whether the key may still sign.
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
