"""Consent: for which requests it is remembered, and what its page must show about the client.

Spec: RFC 8252 §8.6; draft-ietf-oauth-client-id-metadata-document (security considerations)
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from service.handles import hash_handle
from service.protocol.authorize import AuthorizationRequest
from service.records.redirects import Destination, destination


@dataclass(frozen=True, slots=True)
class About:
    """What a consent page shows about the client of a request, in addition to the names that it gives itself.

    Attributes:
        is_stranger: whether no operator has registered it, so that its name and links are only its own claims.
        client_host: the host of its client id, if that is the URL of its document.
        logo_uri: its logo; None for a stranger, who could show another one's.
        redirect: where the answer goes.
        is_remembered: whether the user is not asked again.
    """

    is_stranger: bool
    client_host: str | None
    logo_uri: str | None
    redirect: Destination
    is_remembered: bool

    @property
    def is_warned_of(self) -> bool:
        """Whether the page says where the request comes from and where the answer goes."""
        return self.is_stranger or self.redirect.is_on_device

    def as_json(self) -> dict[str, Any]:
        """The same as JSON, for the app's own page."""
        return {
            "stranger": self.is_stranger,
            "client_host": self.client_host,
            "redirect_kind": self.redirect.kind,
            "redirect_host": self.redirect.host,
            "remembered": self.is_remembered,
        }


def about(request: AuthorizationRequest) -> About:
    """What a consent page for this request shows about its client."""
    client = request.client
    return About(
        is_stranger=client.is_stranger,
        client_host=client.document_host,
        logo_uri=None if client.is_stranger else client.logo_uri,
        redirect=destination(request.redirect_uri),
        is_remembered=can_be_remembered(request),
    )


def can_be_remembered(request: AuthorizationRequest) -> bool:
    """Whether an earlier consent counts for this request, and this one for later requests.

    RFC 8252 §8.6: the server SHOULD NOT process requests of a public native client without the user's interaction,
    because any program on the device can send them and receive the code. RFC 8628 §5.4: somebody else may have started
    a device, which has no redirect URI.
    """
    if not request.redirect_uri:
        return False
    return not (request.client.is_public and destination(request.redirect_uri).is_on_device)


def identity(request: AuthorizationRequest) -> str | None:
    """What identifies a stranger for a consent: where its answer goes, how it authenticates, and its keys.

    A consent is valid only as long as these are the same, because the owner of its document may change them.
    None for the operator's clients, whose changes the operator makes.
    """
    client = request.client
    if not client.is_stranger:
        return None
    redirect = destination(request.redirect_uri)
    keys = client.jwks_uri or (json.dumps(client.jwks, sort_keys=True) if client.jwks is not None else "")
    method = client.token_endpoint_auth_method or ""
    return hash_handle("\n".join((redirect.kind, redirect.host, method, keys)))
