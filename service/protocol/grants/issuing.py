"""Access, ID and refresh tokens, as they are made of a grant.

Nothing is stored here: what is made goes into the grant, and the caller stores that before it answers.

Spec: RFC 6749 §5.1, §6; OpenID Connect Core 1.0 §3.1.3.3, §12
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from service import handles
from service.events import Events
from service.keys.signing import Keys
from service.notices import Notices
from service.policies.values import Policies
from service.protocol.id_tokens import mint_id_token
from service.records.clients import Client, claims_now
from service.records.grants import AccessToken, Grant, Grants, RefreshToken, Rotation
from service.records.lifetimes import Lifetimes
from service.records.users import Users


@dataclass(frozen=True)
class Issuing:
    """What tokens are made with.

    Attributes:
        grants: where grants are kept.
        users: know what was last said of a user.
        keys: sign ID tokens.
        lifetimes: of tokens.
        notices: tells the operator what a client lacks.
        events: tell what was stolen.
        policies: say what a token for an audience holds.
        check_revocable: refuses while what is given out could not be taken back.
    """

    grants: Grants
    users: Users
    keys: Keys
    lifetimes: Lifetimes
    notices: Notices
    events: Events
    policies: Policies
    check_revocable: Callable[[], None]

    def with_access_token(
        self, grant: Grant, scope: tuple[str, ...], secret: str, *, now: int
    ) -> tuple[Grant, AccessToken]:
        """The grant with an access token of that secret, and the token."""
        ends_at = min(now + self.lifetimes.access_token_s, grant.expires_at)
        token = AccessToken(handles.hash_bytes(secret), now, ends_at, scope)
        return grant.with_access(token, now=now), token

    def with_refresh_token(
        self, grant: Grant, changing: str, fixed: str, rotation: Rotation | None = None, *, now: int
    ) -> Grant:
        """The grant with that refresh token, in the place of the one before."""
        valid_until = min(now + self.lifetimes.refresh_idle_s, grant.expires_at)
        token = RefreshToken(
            handles.short_hash(fixed), handles.short_hash(changing), now, valid_until, rotation
        )
        return replace(grant, refresh=token)

    def answer(
        self,
        grant: Grant,
        client: Client,
        token: AccessToken,
        secret: str,
        *,
        refresh_token: str | None,
        nonce: str | None = None,
        now: int,
    ) -> dict[str, Any]:
        """The members of an answer.

        Args:
            grant: as it is from now on.
            client: whose it is.
            token: its access token.
            secret: of that.
            refresh_token: as it is shown, where there is one.
            nonce: of the request that the code came of; a refresh has none.
            now: Unix s.
        """
        access_token = handles.with_secret("access token", grant.id, secret)
        answer: dict[str, Any] = {
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": max(0, token.ends_at - now),
            "scope": " ".join(token.scope),
        }
        if "openid" in token.scope:
            answer["id_token"] = self._id_token(grant, client, token, access_token, nonce, now=now)
        if refresh_token is not None:
            answer["refresh_token"] = refresh_token
        return answer

    def _id_token(
        self,
        grant: Grant,
        client: Client,
        token: AccessToken,
        access_token: str,
        nonce: str | None,
        *,
        now: int,
    ) -> str:
        made = mint_id_token(
            self.keys.to_sign(client.id_token_signed_response_alg),
            self.users.user(grant.subject, now=now),
            {
                "auth_time": grant.auth_time,
                "sid": grant.sid,
                "acr": grant.acr,
                "amr": list(grant.amr),
                "nonce": nonce,
                "id_token_claims": claims_now(grant.id_token_claims, client),
            },
            client,
            issuer=grant.issuer,
            scope=token.scope,
            access_token=access_token,
            lifetime_s=self.lifetimes.id_token_s,
            now=now,
        )
        if made.left_out:
            self.notices.tell("id_token_cut", client.client_id, now=now, claims=list(made.left_out))
        return made.token
