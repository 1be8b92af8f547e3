"""Authenticates the client of a request: with Basic, with the body, with its key, or, for a public client, by its id only.

Spec: RFC 6749 §2.3, §3.2.1, §5.2; RFC 7521 §4.2; OpenID Connect Core 1.0 §9
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import unquote_to_bytes

from service.keys.others import Unverified, is_text, read_unverified
from service.protocol.assertions import ASSERTION_TYPE, Assertions
from service.protocol.errors import OAuthError, invalid_client
from service.records.clients import KEY_METHOD, Client

_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}", re.ASCII)


class ClientDirectory(Protocol):
    """Finds clients."""

    def find(self, client_id: str, *, now: int) -> Client | None:
        """The client of that id."""
        ...


@dataclass(frozen=True, slots=True)
class ShownCredentials:
    """The client credentials of a request, not yet verified."""

    method: str
    client_id: str
    unverified_secret: str
    assertion: Unverified | None = None


def authenticate_client(
    authorization: str | None,
    parameters: Mapping[str, str],
    clients: ClientDirectory,
    assertions: Assertions,
    *,
    issuer: str,
    token_endpoint: str,
    now: int,
) -> Client:
    """Find and authenticate the client of a request.

    Args:
        authorization: the `Authorization` header.
        parameters: the parameters of the body.
        clients: the registered clients.
        assertions: checks what clients with keys signed.
        issuer: of this request.
        token_endpoint: its address.
        now: Unix s.

    Raises:
        OAuthError: `invalid_request` for two methods at once; otherwise `invalid_client`, the same for all causes.
    """
    shown = _shown(authorization, parameters)
    client = clients.find(shown.client_id, now=now)
    if client is None:
        raise invalid_client("client_unknown")
    if not client.accepts_method(shown.method):
        raise invalid_client("auth_method_not_registered")
    if shown.assertion is not None:
        assertions.check(shown.assertion, client, issuer=issuer, token_endpoint=token_endpoint, now=now)
        return client
    if not client.is_public and not client.has_secret(shown.unverified_secret, now=now):
        raise invalid_client("client_secret_mismatch")
    return client


def _shown(authorization: str | None, parameters: Mapping[str, str]) -> ShownCredentials:
    in_body = "client_secret" in parameters
    by_key = "client_assertion" in parameters or "client_assertion_type" in parameters
    # RFC 6749 §2.3: MUST NOT use more than one authentication method in each request.
    if (authorization is not None) + in_body + by_key > 1:
        if authorization is not None:
            _basic(authorization)  # if it is malformed, that is the answer
        raise OAuthError(
            "invalid_request",
            "The client authenticates in two ways at once: use one.",
            cause="two_auth_methods",
        )
    if by_key:
        return _signed(parameters)
    if authorization is not None:
        shown = _basic(authorization)
        if parameters.get("client_id", shown.client_id) != shown.client_id:
            raise OAuthError(
                "invalid_request",
                "client_id is not the client that authenticates.",
                cause="client_id_mismatch",
            )
        return shown
    client_id = parameters.get("client_id")
    if client_id is None:
        raise invalid_client("client_id_missing")
    return ShownCredentials(
        "client_secret_post" if in_body else "none", client_id, parameters.get("client_secret", "")
    )


def _signed(parameters: Mapping[str, str]) -> ShownCredentials:
    """The client that an assertion names (RFC 7521 §4.2). Nothing of it is verified yet."""
    text = parameters.get("client_assertion")
    if text is None or "client_assertion_type" not in parameters:
        raise OAuthError(
            "invalid_request",
            "client_assertion and client_assertion_type need each other: send both.",
            cause="assertion_incomplete",
        )
    if parameters["client_assertion_type"] != ASSERTION_TYPE:
        raise invalid_client("assertion_type_unknown")
    unverified = read_unverified(text)
    client_id = None if unverified is None else unverified.claims.get("sub")
    if not isinstance(client_id, str) or not is_text(client_id):
        raise invalid_client("assertion_malformed")
    if parameters.get("client_id", client_id) != client_id:
        raise invalid_client("assertion_of_another_client")
    return ShownCredentials(KEY_METHOD, client_id, "", unverified)


def _basic(authorization: str) -> ShownCredentials:
    """Strict base64, then each half form-urldecoded (RFC 6749 §2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    encoded = encoded.lstrip(" ")  # RFC 9110 §11.4: credentials = auth-scheme 1*SP token68
    if scheme.lower() != "basic" or not _BASE64.fullmatch(encoded) or len(encoded) % 4:
        raise invalid_client("basic_malformed")
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")
        client_id, secret = _form_decoded(user), _form_decoded(password)
    except (binascii.Error, ValueError):
        raise invalid_client("basic_malformed") from None
    if not colon:
        raise invalid_client("basic_malformed")
    return ShownCredentials("client_secret_basic", client_id, secret)


def _form_decoded(value: str) -> str:
    return unquote_to_bytes(value.replace("+", " ")).decode("utf-8")
