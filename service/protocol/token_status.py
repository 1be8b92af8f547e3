"""What a token is worth now: userinfo, introspection, revocation.

Spec: OpenID Connect Core 1.0 §5.3; RFC 6750 §3.1; RFC 7662 §2; RFC 7009 §2
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from service.keyring import InvalidToken
from service.protocol.client_auth import ClientDirectory
from service.protocol.clients import Client
from service.protocol.errors import OAuthError
from service.protocol.grants import TokenIssuer, claims_now, may_be_offline, scope_now
from service.protocol.handles import hash_handle
from service.protocol.id_tokens import renamed, user_claims
from service.protocol.models import Session
from service.storage.interface import Kind, Record

_INACTIVE = {"active": False}


@dataclass(frozen=True)
class TokenStatus:
    """Answers about tokens.

    Attributes:
        tokens: the issuer of codes and tokens.
        session_of: finds the live session of a user and `sid`.
        minted_issuer: `iss` of minted tokens where it is not the issuer.
        clients: who is registered: the tokens of a client that is gone are worth nothing.
    """

    tokens: TokenIssuer
    session_of: Callable[[str, str, int], Session | None]
    minted_issuer: str | None
    clients: ClientDirectory

    def userinfo(self, unverified_token: str | None, *, issuer: str, now: int) -> dict[str, Any]:
        """The claims that an access token gives.

        Raises:
            OAuthError: `invalid_token`, or `insufficient_scope` without `openid`.
        """
        live = self._live(Kind.ACCESS_TOKEN, unverified_token, issuer, now)
        if live is None:
            raise OAuthError("invalid_token", "The access token is invalid, expired or revoked.")
        record, client = live
        scope = scope_now(record.body["scope"], client)
        if "openid" not in scope:
            raise OAuthError("insufficient_scope", "The scope openid was not granted.")
        user = self.tokens.user(record.subject, now=now)
        names = [*client.scopes.claims_of(scope), *claims_now(record.body["userinfo_claims"], client)]
        return {**renamed(user_claims(user, names), client), "sub": record.subject}

    def introspect(
        self, unverified_token: str, asker: Client | None, *, issuer: str, now: int
    ) -> Mapping[str, Any]:
        """What RFC 7662 tells of a token; `asker` is None for the operator, who may ask about any."""
        for kind in (Kind.ACCESS_TOKEN, Kind.REFRESH_TOKEN):
            live = self._live(kind, unverified_token, issuer, now)
            if live is not None:
                return self._of_record(*live, asker) if self._is_current(*live, now) else _INACTIVE
        return self._of_minted(unverified_token, asker, issuer, now)

    def revoke(self, unverified_token: str, client: Client, *, issuer: str, now: int) -> None:
        """End a token of this client; with a refresh token its whole grant. Silent about any other."""
        live = self._live(Kind.ACCESS_TOKEN, unverified_token, issuer, now)
        if live is not None:
            record, _ = live
            if record.client_id == client.client_id:
                self.tokens.store.take(Kind.ACCESS_TOKEN, record.id_hash, now=now)
            return
        live = self._live(Kind.REFRESH_TOKEN, unverified_token, issuer, now)
        if live is not None and live[0].client_id == client.client_id:
            self.tokens.revoke_grant(live[0].grant_id, now=now)

    def _live(
        self, kind: Kind, unverified_token: str | None, issuer: str, now: int
    ) -> tuple[Record, Client] | None:
        """The live token and its client."""
        if not unverified_token:
            return None
        record = self.tokens.store.get(kind, hash_handle(unverified_token), now=now)
        if record is None or record.body["issuer"] != issuer:
            return None
        # Every token is checked against its grant: revoking that reaches all of it at once.
        grant = self.tokens.store.get(Kind.GRANT, hash_handle(record.grant_id), now=now)
        client = self.clients.find(record.client_id, now=now)
        return None if grant is None or client is None else (record, client)

    @staticmethod
    def _is_current(record: Record, client: Client, now: int) -> bool:
        if record.kind is Kind.REFRESH_TOKEN and not may_be_offline(client):
            return False
        return record.spent_at is None and now < record.body.get("valid_until", record.expires_at)

    @staticmethod
    def _of_record(record: Record, client: Client, asker: Client | None) -> Mapping[str, Any]:
        body = record.body
        if asker is not None and record.client_id != asker.client_id:
            return _INACTIVE
        return {
            "active": True,
            "scope": " ".join(scope_now(body["scope"], client)),
            "client_id": record.client_id,
            "sub": record.subject,
            "iss": body["issuer"],
            "iat": body["iat"],
            "exp": body.get("valid_until", record.expires_at),
            **({"token_type": "Bearer"} if record.kind is Kind.ACCESS_TOKEN else {}),
        }

    def _of_minted(
        self, unverified_token: str, asker: Client | None, issuer: str, now: int
    ) -> Mapping[str, Any]:
        """A minted token is active while its session lives."""
        keys = self.tokens.keyring
        try:
            claims = keys.knowing(unverified_token).verify(unverified_token, alg=keys.mint_alg)
        except (InvalidToken, LookupError):
            return _INACTIVE
        if (
            claims.get("iss") != (self.minted_issuer or issuer)
            or "at_hash" in claims
            or claims.get("exp", 0) <= now
        ):
            return _INACTIVE
        if asker is not None and claims.get("aud") not in asker.resource_ids:
            return _INACTIVE
        if self.session_of(str(claims.get("sub")), str(claims.get("sid")), now) is None:
            return _INACTIVE
        return {"active": True, "token_type": "Bearer", **claims}
