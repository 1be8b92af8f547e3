"""The state of tokens: userinfo, introspection, revocation.

Spec: OpenID Connect Core 1.0 §5.3; RFC 6750 §3.1; RFC 7662 §2; RFC 7009 §2
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from service import handles
from service.keys.signing import Keys
from service.policies.deciding import Asked, Given, decide
from service.policies.pairs import audiences_of, pairs_now, told
from service.policies.values import CLIENT_CREDENTIALS, NO_POLICIES, Policies, Policy
from service.protocol.client_auth import ClientDirectory
from service.protocol.errors import OAuthError
from service.protocol.id_tokens import renamed, user_claims
from service.protocol.tokens import JwtKind, kind_of, read_token
from service.records.clients import Client, claims_now, may_be_offline, scope_now
from service.records.grants import AccessToken, Grant, Grants, is_grant_id
from service.records.revocations import RevokedTokens
from service.records.scopes import words_of
from service.records.sessions import Session
from service.records.users import Users

_INACTIVE = {"active": False}


@dataclass(frozen=True)
class TokenStatus:
    """Answers about tokens.

    Attributes:
        grants: the store of grants.
        users: what the app last reported about users.
        keys: verify minted tokens.
        session_of: finds the live session of a user and `sid`.
        minted_issuer: the `iss` of minted tokens, if it is not the issuer.
        policies: the policy of each audience.
        revoked: remembers revoked tokens that have neither a session nor a grant.
        clients: the registered clients: the tokens of a removed client do not work.
    """

    grants: Grants
    users: Users
    keys: Keys
    session_of: Callable[[str, str, int], Session | None]
    minted_issuer: str | None
    clients: ClientDirectory
    policies: Policies
    revoked: RevokedTokens

    def userinfo(self, unverified_token: str | None, *, issuer: str, now: int) -> dict[str, Any]:
        """The claims that an access token gives access to.

        Raises:
            OAuthError: `invalid_token`, or `insufficient_scope` without `openid`.
        """
        shown = handles.read("access token", unverified_token)
        live = None if shown is None else self._live(shown, issuer, now)
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
        user = self.users.user(grant.subject, now=now)
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
                self.grants.revoke_access_token(shown.grant_id, token_hash, now=now)
        elif (shown := handles.read("refresh token", unverified_token)) is not None:
            live = self._live(shown, issuer, now, client)
            # A used refresh token belongs to the grant too.
            if live is not None and _is_of(shown, live.grant) and live.grant.client_id == client.client_id:
                self.grants.end(shown.grant_id, now=now)
        elif (read := self._live_jwt(unverified_token, issuer, now)) is not None:
            claims = read.claims
            if read.kind is not JwtKind.ACCESS or claims["client_id"] != client.client_id:
                return
            if read.grant_id is None:
                self.revoked.revoke(str(claims["jti"]), until=int(claims["exp"]), now=now)
                return
            live = self._live_grant(read.grant_id, issuer, now, client)
            # Someone with the HS256 secret of an audience can name any grant.
            if live is not None and live.grant.client_id == client.client_id:
                self.grants.revoke_access_tokens(read.grant_id, now=now)

    def _live(self, shown: handles.Shown, issuer: str, now: int, asker: Client | None = None) -> _Live | None:
        """The grant that a handle names, and its client. `asker` has already been found."""
        return self._live_grant(shown.grant_id, issuer, now, asker)

    def _live_grant(self, grant_id: str, issuer: str, now: int, asker: Client | None = None) -> _Live | None:
        grant = self.grants.find(grant_id, now=now)
        if grant is None or grant.issuer != issuer:
            return None
        if asker is not None and asker.client_id == grant.client_id:
            return _Live(grant, asker)
        client = self.clients.find(grant.client_id, now=now)
        return None if client is None else _Live(grant, client)

    def _of_access_token(
        self, shown: handles.Shown, asker: Client | None, issuer: str, now: int
    ) -> Mapping[str, Any]:
        live = self._live(shown, issuer, now, asker)
        token = None if live is None else _access_token(shown, live.grant, now)
        if live is None or token is None or not live.may_ask(asker):
            return _INACTIVE
        known = {"iat": token.made_at, "exp": token.ends_at, "token_type": "Bearer"}
        return live.described(token.scope) | known

    def _of_refresh_token(
        self, shown: handles.Shown, asker: Client | None, issuer: str, now: int
    ) -> Mapping[str, Any]:
        live = self._live(shown, issuer, now, asker)
        if live is None or not _is_of(shown, live.grant) or not live.may_ask(asker):
            return _INACTIVE
        token = live.grant.refresh
        if token is None or not handles.is_same(shown.secret, token.hash) or now >= token.valid_until:
            return _INACTIVE
        if not may_be_offline(live.client):
            return _INACTIVE
        return live.described(live.grant.scope, self.policies) | {
            "iat": token.made_at,
            "exp": token.valid_until,
        }

    def _of_jwt(
        self, unverified_token: str, asker: Client | None, issuer: str, now: int
    ) -> Mapping[str, Any]:
        """The response for a JWT: active while its session is live, or while its client may have such a token."""
        read = self._live_jwt(unverified_token, issuer, now)
        if read is None or not read.may_ask(asker):
            return _INACTIVE
        if read.kind is JwtKind.MINTED:
            stands = self._session_stands(read, now)
        elif read.grant_id is None:
            stands = self._client_stands(read, now)
        else:
            stands = self._grant_stands(read, read.grant_id, issuer, now)
        if not stands:
            return _INACTIVE
        return {"active": True, "token_type": "Bearer", **read.claims}

    def _live_jwt(self, unverified_token: str, issuer: str, now: int) -> _Jwt | None:
        """A token for an audience that was issued here with this issuer and has not expired."""
        read = read_token(unverified_token, self.keys, self.policies)
        if read is None:
            return None
        policy, claims = read
        kind = kind_of(claims)
        if kind not in {JwtKind.MINTED, JwtKind.ACCESS} or claims.get("exp", 0) <= now:
            return None
        made_by = self.minted_issuer or issuer if kind is JwtKind.MINTED else issuer
        return _Jwt(policy, kind, claims) if claims.get("iss") == made_by else None

    def _session_stands(self, token: _Jwt, now: int) -> bool:
        claims = token.claims
        return self.session_of(str(claims.get("sub")), str(claims.get("sid")), now) is not None

    def _grant_stands(self, token: _Jwt, grant_id: str, issuer: str, now: int) -> bool:
        """Whether the grant still has this token, and the client may still have its content."""
        live = self._live_grant(grant_id, issuer, now)
        if live is None or live.grant.client_id != token.claims["client_id"]:
            return False
        secret = str(token.claims["jti"]).partition(".")[2]
        kept = live.grant.access_token(handles.hash_bytes(f"jwt {secret}"), now=now)
        if kept is None or audiences_of(kept.scope) != (token.policy.audience,):
            return False
        return set(kept.scope) <= set(pairs_now(kept.scope, live.client, self.policies))

    def _client_stands(self, token: _Jwt, now: int) -> bool:
        """Whether the client exists, would get such a token now, and has not revoked this one."""
        client = self.clients.find(str(token.claims["client_id"]), now=now)
        if client is None:
            return False
        scope = words_of(token.claims.get("scope")) or None
        asked = Asked(CLIENT_CREDENTIALS, "", now, client=client, scope=scope)
        return isinstance(decide(token.policy, asked), Given) and not self.revoked.has(
            str(token.claims["jti"]), now=now
        )


@dataclass(frozen=True, slots=True)
class _Jwt:
    """A verified token for an audience."""

    policy: Policy
    kind: JwtKind
    claims: Mapping[str, Any]

    @property
    def grant_id(self) -> str | None:
        """The grant that its `jti` names; None for a client's own token."""
        grant_id, dot, _ = str(self.claims["jti"]).partition(".")
        return grant_id if dot and is_grant_id(grant_id) else None

    def may_ask(self, asker: Client | None) -> bool:
        """Whether it is the operator, the client that the token was issued to, or a client that serves its audience."""
        if asker is None or self.claims.get("aud") in asker.resource_ids:
            return True
        return self.kind is JwtKind.ACCESS and self.claims["client_id"] == asker.client_id


@dataclass(frozen=True, slots=True)
class _Live:
    """A live grant and its client."""

    grant: Grant
    client: Client

    def may_ask(self, asker: Client | None) -> bool:
        return asker is None or asker.client_id == self.grant.client_id

    def described(self, scope: Iterable[str], policies: Policies = NO_POLICIES) -> dict[str, Any]:
        return {
            "active": True,
            "scope": told((*scope_now(scope, self.client), *pairs_now(scope, self.client, policies))),
            "client_id": self.grant.client_id,
            "sub": self.grant.subject,
            "iss": self.grant.issuer,
        }


def _access_token(shown: handles.Shown, grant: Grant, now: int) -> AccessToken | None:
    return grant.access_token(handles.hash_bytes(shown.secret), now=now)


def _is_of(shown: handles.Shown, grant: Grant) -> bool:
    """Whether a refresh token belongs to the grant, current or used."""
    return grant.refresh is not None and handles.is_same(shown.fixed, grant.refresh.fixed_hash)
