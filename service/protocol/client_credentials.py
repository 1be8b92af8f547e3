"""Checks that the members of a client fit its authentication method.

Spec: RFC 7591 §2
"""

from __future__ import annotations

from typing import Final

from service.records.clients import KEY_METHOD, Client

#: Members that only a client with keys may have.
_OF_KEYS: Final = ("jwks", "jwks_uri", "token_endpoint_auth_signing_alg", "assertion_audience")


def credentials_fault(client: Client) -> tuple[str, str] | None:
    """The first member that does not fit the client's method, and what to write instead; None if all fit."""
    if client.jwks is not None and client.jwks_uri is not None:
        return "jwks", "is given together with jwks_uri; write one of the two"
    return _fault_with_keys(client) if client.has_keys else _fault_without_keys(client)


def _fault_with_keys(client: Client) -> tuple[str, str] | None:
    if client.jwks is None and client.jwks_uri is None:
        return (
            "token_endpoint_auth_method",
            f"{KEY_METHOD} needs the client's public keys; write jwks_uri or jwks",
        )
    if client.secrets:
        return "client_secret", f"is not used with {KEY_METHOD}; leave it out"
    return None


def _fault_without_keys(client: Client) -> tuple[str, str] | None:
    # A stranger may have keys for a purpose that we do not know: they are kept, and not used (RFC 7591 §2).
    for member in () if client.is_stranger else _OF_KEYS:
        if getattr(client, member) is not None:
            return member, f"is for clients whose token_endpoint_auth_method is {KEY_METHOD}; leave it out"
    if not client.secrets and not client.is_public:
        return (
            "token_endpoint_auth_method",
            "needs a client_secret; add it, or write none for a public client",
        )
    if client.secrets and client.is_public:
        return "client_secret", "a public client has no secret; leave it out"
    return None
