"""The state of tokens: userinfo, introspection, revocation.

Spec: OpenID Connect Core 1.0 §5.3; RFC 6750 §3.1; RFC 7662 §2; RFC 7009 §2
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from service import handles
from service.policies.pairs import pairs_now, told
from service.policies.values import NO_POLICIES, Policies
from service.protocol.errors import OAuthError
from service.protocol.id_tokens import renamed, user_claims
from service.protocol.standing import Jwt, Live, Standing
from service.protocol.tokens import JwtKind
from service.records.clients import Client, claims_now, may_be_offline, scope_now
from service.records.grants import AccessToken, Grant
from service.records.users import Users

_INACTIVE = {"active": False}


@dataclass(frozen=True)
class TokenStatus:
    """Answers about tokens.

    Attributes:
        standing: knows what each token depends on.
        users: what the app last reported about users.
    """

    standing: Standing
    users: Users

    def userinfo(self, unverified_token: str | None, *, issuer: str, now: int) -> dict[str, Any]:
        """The claims that an access token gives access to.

        Raises:
            OAuthError: `invalid_token`, or `insufficient_scope` without `openid`.
        """
        shown = handles.read("access token", unverified_token)
        live = None if shown is None else self.standing.grant(shown.grant_id, issuer, now, with_user=True)
        token = None if shown is None or live is None else _access_token(shown, live.grant, now)
        if live is None or token is None:
            raise OAuthError(
                "invalid_token",
                "The access token is invalid, expired or revoked.",
                cause="access_token_malformed" if shown is None else "access_token_ended",
            )
        grant, client = live.grant, live.client
        scope = scope_now(token.scope, client)
        if "openid" not in scope:
            raise OAuthError(
                "insufficient_scope", "The scope openid was not granted.", cause="openid_not_granted"
            )
        user = grant.user or self.users.user(grant.subject, now=now)
        names = [*client.scopes.claims_of(scope), *claims_now(grant.userinfo_claims, client)]
        return {**renamed(user_claims(user, names), client), "sub": grant.subject}

    def introspect(
        self, unverified_token: str, asker: Client | None, *, issuer: str, now: int
    ) -> Mapping[str, Any]:
        """The introspection response of RFC 7662. `asker` is None for the operator, who may ask about any token."""
        if (shown := handles.read("access token", unverified_token)) is not None:
            return self._of_access_token(shown, asker, issuer, now)
        if (shown := handles.read("refresh token", unverified_token)) is not None:
            return self._of_refresh_token(shown, asker, issuer, now)
        return self._of_jwt(unverified_token, asker, issuer, now)

    def revoke(self, unverified_token: str, client: Client, *, issuer: str, now: int) -> None:
        """Revoke a token of this client; a refresh token ends its whole grant. Any other token is ignored."""
        if (shown := handles.read("access token", unverified_token)) is not None:
            live = self._live(shown, issuer, now, client)
            if live is not None and live.grant.client_id == client.client_id:
                token_hash = handles.hash_bytes(shown.secret)
                self.standing.grants.revoke_access_token(shown.grant_id, token_hash, now=now)
        elif (shown := handles.read("refresh token", unverified_token)) is not None:
            live = self._live(shown, issuer, now, client)
            # A used refresh token belongs to the grant too.
            if live is not None and _is_of(shown, live.grant) and live.grant.client_id == client.client_id:
                self.standing.grants.end(shown.grant_id, now=now)
        elif (read := self.standing.jwt(unverified_token, issuer, now)) is not None:
            self._revoke_jwt(read, client, issuer, now)

    def _revoke_jwt(self, token: Jwt, client: Client, issuer: str, now: int) -> None:
        """Revoke a JWT: if it is of this client's own grant, all access tokens of the grant; otherwise this token, and those exchanged for it."""
        if token.kind is not JwtKind.ACCESS or token.claims["client_id"] != client.client_id:
            return
        if token.grant_id is not None:
            live = self.standing.grant(token.grant_id, issuer, now, client)
            # Someone with the HS256 secret of an audience can name any grant.
            if live is not None and live.grant.client_id == client.client_id:
                self.standing.grants.revoke_access_tokens(token.grant_id, now=now)
                return
        if token.grant_id is None or token.is_exchanged:
            self.standing.revoked.revoke(token.jti, until=int(token.claims["exp"]), now=now)

    def _live(self, shown: handles.Shown, issuer: str, now: int, asker: Client | None = None) -> Live | None:
        """The grant that a handle names, and its client. `asker` has already been found."""
        return self.standing.grant(shown.grant_id, issuer, now, asker)

    def _of_access_token(
        self, shown: handles.Shown, asker: Client | None, issuer: str, now: int
    ) -> Mapping[str, Any]:
        live = self._live(shown, issuer, now, asker)
        token = None if live is None else _access_token(shown, live.grant, now)
        if live is None or token is None or not _may_ask(live, asker):
            return _INACTIVE
        known = {"iat": token.made_at, "exp": token.ends_at, "token_type": "Bearer"}
        return _described(live, token.scope) | known

    def _of_refresh_token(
        self, shown: handles.Shown, asker: Client | None, issuer: str, now: int
    ) -> Mapping[str, Any]:
        live = self._live(shown, issuer, now, asker)
        if live is None or not _is_of(shown, live.grant) or not _may_ask(live, asker):
            return _INACTIVE
        token = live.grant.refresh
        if token is None or not handles.is_same(shown.secret, token.hash) or now >= token.valid_until:
            return _INACTIVE
        if not may_be_offline(live.client):
            return _INACTIVE
        return _described(live, live.grant.scope, self.standing.policies) | {
            "iat": token.made_at,
            "exp": token.valid_until,
        }

    def _of_jwt(
        self, unverified_token: str, asker: Client | None, issuer: str, now: int
    ) -> Mapping[str, Any]:
        """The response for a JWT: active while what it depends on is live."""
        read = self.standing.jwt(unverified_token, issuer, now)
        if read is None or not (asker is None or read.is_for(asker)):
            return _INACTIVE
        if self.standing.of_jwt(read, issuer, now) is None:
            return _INACTIVE
        return {"active": True, "token_type": "Bearer", **read.claims}


def _may_ask(live: Live, asker: Client | None) -> bool:
    return asker is None or asker.client_id == live.grant.client_id


def _described(live: Live, scope: Iterable[str], policies: Policies = NO_POLICIES) -> dict[str, Any]:
    return {
        "active": True,
        "scope": told((*scope_now(scope, live.client), *pairs_now(scope, live.client, policies))),
        "client_id": live.grant.client_id,
        "sub": live.grant.subject,
        "iss": live.grant.issuer,
    }


def _access_token(shown: handles.Shown, grant: Grant, now: int) -> AccessToken | None:
    return grant.access_token(handles.hash_bytes(shown.secret), now=now)


def _is_of(shown: handles.Shown, grant: Grant) -> bool:
    """Whether a refresh token belongs to the grant, current or used."""
    return grant.refresh is not None and handles.is_same(shown.fixed, grant.refresh.fixed_hash)
