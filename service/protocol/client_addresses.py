"""Addresses of a client that this service sends requests to: whether it would send any there.

Spec: OpenID Connect Back-Channel Logout 1.0 §2.2
"""

from __future__ import annotations

from typing import Final

from service.outbound.fetcher import Outbound, Unreachable
from service.protocol.clients import InvalidClientMetadata
from service.records.clients import Client

_REASONS: Final = {
    "not_https": "http is only for hosts that PYLON_OUTBOUND_ALLOW names; write https://…",
    "address_not_public": "is no public address; write a name, or allow the address in PYLON_OUTBOUND_ALLOW",
    "address_through_proxy": "is an address, and the proxy knows only names; write a name",
}
_MALFORMED: Final = "is no web address; write https://…"


def check_addresses(client: Client, outbound: Outbound) -> None:
    """Check where logout tokens of a client of the operator's would go.

    Raises:
        InvalidClientMetadata: if no request is sent there, whatever the name leads to.
    """
    uri = client.backchannel_logout_uri
    if uri is None:
        return
    try:
        outbound.check(uri, operators=True)
    except Unreachable as error:
        raise InvalidClientMetadata("backchannel_logout_uri", _REASONS.get(error.cause, _MALFORMED)) from None
