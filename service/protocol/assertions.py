"""Checks the assertion by which a client authenticates with its key (`private_key_jwt`).

Spec: RFC 7523 §2.2, §3 (with the audience of draft-ietf-oauth-rfc7523bis), RFC 7521 §4.2, OpenID Connect Core 1.0 §9
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from service.keys.others import OthersKey, Unverified, is_signed_by, is_text, same_alg
from service.protocol.errors import OAuthError, invalid_client
from service.records.assertions import TooManyAssertions
from service.records.clients import Client

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
#: The latest expiry of an assertion, in s from now.
MOST_LIFE_S: Final = 300
#: How far a client's clock may be ahead, in s.
SKEW_S: Final = 30
#: Its `typ`, where it has one.
_TYPES: Final = frozenset({"jwt", "client-authentication+jwt"})
_MOST_JTI_CHARS: Final = 512


class KeysOfClients(Protocol):
    """Finds the keys of clients."""

    def current(self, client: Client, *, now: int) -> Sequence[OthersKey]:
        """The known keys."""
        ...

    def again(self, client: Client, *, now: int) -> Sequence[OthersKey]:
        """The keys, fetched again if that is allowed now; otherwise empty."""
        ...


class UsedOnce(Protocol):
    """Remembers which assertions were used."""

    def use(self, client: Client, jti: str, *, until: int, now: int) -> bool:
        """Use it. Returns whether it was not used before. Raises `TooManyAssertions` if too many are remembered."""
        ...


@dataclass(frozen=True, slots=True)
class Assertions:
    """Authenticates clients with their keys.

    Attributes:
        keys: the keys of clients.
        used: the assertions that were used.
    """

    keys: KeysOfClients
    used: UsedOnce

    def check(
        self, unverified: Unverified, client: Client, *, issuer: str, token_endpoint: str, now: int
    ) -> None:
        """Check an assertion whose `sub` is this client, and use it up.

        Args:
            unverified: the assertion.
            client: registered for `private_key_jwt`.
            issuer: the issuer of this request; the audience.
            token_endpoint: its address; also an audience, if the client is registered for that.
            now: Unix s.

        Raises:
            OAuthError: `invalid_client`, the same for all causes; `temporarily_unavailable`.
        """
        _check_header(unverified, client)
        is_more = client.assertion_audience == "token_endpoint" and not client.is_stranger
        audiences = {issuer, token_endpoint} if is_more else {issuer}
        until = _check_claims(unverified, client, audiences, now=now)
        if not is_signed_by(unverified, self.keys.current(client, now=now)) and not is_signed_by(
            unverified, self.keys.again(client, now=now)
        ):
            raise invalid_client("assertion_signature_wrong")
        # Last, so that only the client can use up its ids.
        try:
            is_first = self.used.use(client, unverified.claims["jti"], until=until, now=now)
        except TooManyAssertions:
            words = "The client has used too many assertions in the last minutes: wait."
            raise OAuthError("temporarily_unavailable", words, cause="assertions_too_many") from None
        if not is_first:
            raise invalid_client("assertion_used_again")


def _check_header(unverified: Unverified, client: Client) -> None:
    alg, registered = unverified.alg, client.token_endpoint_auth_signing_alg
    if alg is None or (registered is not None and alg != same_alg(registered)):
        raise invalid_client("assertion_algorithm_refused")
    typ = unverified.header.get("typ", "JWT")
    # RFC 7515 §4.1.9: a media type, so in any case, and with or without `application/`.
    if not isinstance(typ, str) or typ.lower().removeprefix("application/") not in _TYPES:
        raise invalid_client("assertion_of_another_type")
    if "crit" in unverified.header:
        raise invalid_client("assertion_critical_header")


def _check_claims(unverified: Unverified, client: Client, audiences: set[str], *, now: int) -> int:
    """Check the claims; return when it stops being valid."""
    claims = unverified.claims
    if claims.get("iss") != client.client_id or claims.get("sub") != client.client_id:
        raise invalid_client("assertion_of_another_client")
    audience = claims.get("aud")
    if isinstance(audience, list) and len(audience) == 1:
        audience = audience[0]
    if not isinstance(audience, str) or audience not in audiences:
        raise invalid_client("assertion_audience_wrong")
    until = _number(claims, "exp")
    if until is None or until <= now:
        raise invalid_client("assertion_expired")
    if until > now + MOST_LIFE_S:
        raise invalid_client("assertion_lives_too_long")
    for name in ("iat", "nbf"):
        if name in claims and ((moment := _number(claims, name)) is None or moment > now + SKEW_S):
            raise invalid_client("assertion_from_the_future")
    jti = claims.get("jti")
    # An escape in JSON can be half a character, which is not text.
    if not isinstance(jti, str) or not 1 <= len(jti) <= _MOST_JTI_CHARS or not is_text(jti):
        raise invalid_client("assertion_without_jti")
    return math.ceil(until)


def _number(claims: Any, name: str) -> float | None:
    """A NumericDate (RFC 7519 §2), which may have a fraction; None for anything else."""
    value = claims.get(name)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
