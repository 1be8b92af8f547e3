"""Addresses of a client that this service sends requests to: whether it would send any there.

Spec: OpenID Connect Back-Channel Logout 1.0 §2.2; RFC 7591 §2 (`jwks_uri`)
"""

from __future__ import annotations

from typing import Final

from service.outbound.fetcher import Outbound, Unreachable
from service.protocol.clients import InvalidClientMetadata
from service.records.clients import Client

_REASONS: Final = {
    "not_https": "http is only for hosts that PYLON_OUTBOUND_ALLOW names; write https://…",
    "address_not_public": "is not a public address; write a name, or allow the address in PYLON_OUTBOUND_ALLOW",
    "address_through_proxy": "is an address, and the proxy knows only names; write a name",
}
_MALFORMED: Final = "is not a web address; write https://…"
_REFUSED_TO_STRANGERS: Final = "is not a public address; write https://… with a host name"


def check_addresses(client: Client, outbound: Outbound) -> None:
    """Check the addresses of a client: of its keys, and for its logout tokens. The operator's list is not for strangers.

    Raises:
        InvalidClientMetadata: if no request is sent there, whatever the name leads to.
    """
    for member in ("jwks_uri", "backchannel_logout_uri"):
        uri: str | None = getattr(client, member)
        try:
            if uri is not None:
                outbound.check(uri, operators=not client.is_stranger)
        except Unreachable as error:
            reason = _REFUSED_TO_STRANGERS if client.is_stranger else _REASONS.get(error.cause, _MALFORMED)
            raise InvalidClientMetadata(member, reason) from None
    if client.is_stranger:
        _check_pages(client, outbound)


def _check_pages(client: Client, outbound: Outbound) -> None:
    """Check the pages of a stranger, which people are sent to: not to a machine that only they can reach."""
    for member in ("client_uri", "logo_uri", "policy_uri", "tos_uri"):
        uri: str | None = getattr(client, member)
        try:
            if uri is not None:
                outbound.check_host(uri, operators=False)
        except Unreachable:
            raise InvalidClientMetadata(member, _REFUSED_TO_STRANGERS) from None
