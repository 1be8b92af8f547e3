"""What a client may have now of what was granted: every token is cut to that, whenever it is made or looked at.

Spec: RFC 6749 §3.3, §6; OpenID Connect Core 1.0 §11
"""

from __future__ import annotations

from collections.abc import Iterable

from service.records.clients import Client


def scope_now(granted: Iterable[str], client: Client) -> tuple[str, ...]:
    """The words that were granted and that the client may still have."""
    return tuple(word for word in granted if word in client.scope and word in client.scopes.words)


def agreed_claims(names: Iterable[str], disclosed: Iterable[str], client: Client) -> tuple[str, ...]:
    """Of the claims asked for one by one, those of scopes that the user agreed to."""
    known = set(client.scopes.claims_of(disclosed))
    return tuple(name for name in names if name in known)


def claims_now(agreed: Iterable[str], client: Client) -> tuple[str, ...]:
    """The claims that were agreed to one by one and that a scope of the client may still give."""
    return agreed_claims(agreed, client.scope, client)


def is_offline(granted: Iterable[str], client: Client) -> bool:
    """Whether the client may, now, use the refresh tokens of a grant of this scope."""
    return "offline_access" in granted and may_be_offline(client)


def may_be_offline(client: Client) -> bool:
    """Whether the client may have refresh tokens at all."""
    return "offline_access" in client.scope and "refresh_token" in client.grant_types
