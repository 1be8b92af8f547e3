"""`refresh_token`: exchanges a refresh token for new tokens and the next refresh token.

Within the grace period, the previous refresh token returns the same tokens again. They are derived from it and from a
salt in the row, so no answer is stored. Any other reuse counts as theft, and ends the grant.

Spec: RFC 6749 §6, §10.4; RFC 9700 §2.2.2, §4.14; OpenID Connect Core 1.0 §12
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from msgspec.structs import replace

from service import handles
from service.events import RefreshTokenReused
from service.protocol.errors import OAuthError
from service.protocol.grants.base import GrantType, TokenRequest, invalid_grant, reused
from service.protocol.grants.issuing import Access, Issuing, Target
from service.records.clients import is_offline
from service.records.grants import AccessToken, Grant, RefreshToken, Rotation
from service.records.scopes import words_of


def exchange(request: TokenRequest, issuing: Issuing) -> dict[str, Any]:
    """Exchange a refresh token for new tokens.

    Raises:
        OAuthError: `invalid_request`, `invalid_scope` or `invalid_grant`.
        Contended: if other requests were faster at every attempt.
    """
    handle = handles.read("refresh token", request.required("refresh_token"))
    if handle is None:
        raise invalid_grant("refresh_token_malformed")

    def refreshed(grant: Grant | None) -> tuple[Grant | None, dict[str, Any]]:
        if grant is None or grant.refresh is None:
            raise invalid_grant("refresh_token_unknown")
        if not handles.is_same(handle.fixed, grant.refresh.fixed_hash):
            raise invalid_grant("refresh_token_unknown")
        if grant.issuer != request.issuer:
            raise invalid_grant("refresh_token_of_another_issuer")
        is_the_clients = grant.client_id == request.client.client_id
        if is_the_clients and not is_offline(grant.scope, request.client):
            raise invalid_grant("no_offline_access_now")
        if not handles.is_same(handle.secret, grant.refresh.hash):
            return None, _again(handle, grant, grant.refresh, request, issuing)
        if not is_the_clients:
            raise invalid_grant("refresh_token_of_another_client")
        return _rotated(handle, grant, grant.refresh, request, issuing)

    return issuing.grants.use(handle.grant_id, refreshed, now=request.now)


def _rotated(
    handle: handles.Shown, grant: Grant, token: RefreshToken, request: TokenRequest, issuing: Issuing
) -> tuple[Grant, dict[str, Any]]:
    """The grant with the next refresh token and one more access token, and the answer."""
    target = _target(request, grant, issuing)
    if request.now >= token.valid_until:
        raise invalid_grant("refresh_token_expired")
    salt = handles.new_id()
    rotation = Rotation(token.hash, salt, _asked_hash(request, grant.scope))
    secret, changing = _derived(handle, salt)
    grant, access = issuing.with_access_token(grant, target, secret, now=request.now)
    grant = issuing.with_refresh_token(grant, changing, handle.fixed, rotation, now=request.now)
    return grant, _answer(grant, target, access, changing, handle.fixed, request, issuing)


def _again(
    handle: handles.Shown, grant: Grant, token: RefreshToken, request: TokenRequest, issuing: Issuing
) -> dict[str, Any]:
    """The same tokens for the same request, within the grace period and before the successor is used; otherwise end the grant."""
    rotation = token.rotation
    if (
        rotation is None
        or not handles.is_same(handle.secret, rotation.hash)
        or request.now >= token.made_at + issuing.lifetimes.refresh_grace_s
        or _asked_hash(request, grant.scope) != rotation.asked_hash
    ):
        raise reused(RefreshTokenReused, grant)
    secret, changing = _derived(handle, rotation.salt)
    target = _target(request, grant, issuing)
    scope, token_hash = target.scope, target.hash_of(secret)
    kept = grant.access_token(token_hash, now=request.now)
    if kept is None:  # it was revoked in the meantime, or its session has ended
        kept = AccessToken(token_hash, token.made_at, request.now, scope)
    kept = replace(kept, scope=tuple(word for word in kept.scope if word in scope))
    access = issuing.access(grant, target, kept, secret)
    return _answer(grant, target, access, changing, handle.fixed, request, issuing)


def _derived(handle: handles.Shown, salt: str) -> tuple[str, str]:
    """Derive from a refresh token and a salt: the access token's secret, and the changing part of the next refresh token."""
    return handles.derived(handle, salt, "access token"), handles.derived(handle, salt, "refresh token")


def _answer(
    grant: Grant,
    target: Target,
    access: Access,
    changing: str,
    fixed: str,
    request: TokenRequest,
    issuing: Issuing,
) -> dict[str, Any]:
    refresh_token = handles.rotating(grant.id, changing, fixed)
    return issuing.answer(grant, request.client, target, access, refresh_token=refresh_token, now=request.now)


def _target(request: TokenRequest, grant: Grant, issuing: Issuing) -> Target:
    """What the token is for, within the scope that was granted and that the client may still have."""
    parameters = request.parameters
    wanted = words_of(parameters["scope"]) if "scope" in parameters else None
    target = issuing.target(grant, request.client, parameters.get("resource"), wanted, now=request.now)
    if not target.scope:
        raise OAuthError(
            "invalid_scope",
            "This client may no longer have the scope that it requests.",
            cause="scope_taken_away",
        )
    return target


def _asked_hash(request: TokenRequest, granted: Iterable[str]) -> str:
    """A hash of everything that two refresh requests must have in common to get the same answer."""
    parameters = request.parameters
    scope = words_of(parameters["scope"]) if "scope" in parameters else granted
    resource = words_of(parameters.get("resource"))
    asked = [request.client.client_id, sorted(set(scope)), sorted(set(resource))]
    return handles.short_hash(json.dumps(asked))


TYPE: Final = GrantType("refresh_token", given_by_default=True, needs_id_token_key=True, exchange=exchange)
