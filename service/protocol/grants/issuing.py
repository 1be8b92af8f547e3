"""Issues access, ID and refresh tokens from a grant.

Nothing is stored here: new tokens are added to the grant, and the caller stores it before it answers.

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
from service.policies.deciding import Asked, Given, Refused, decide
from service.policies.pairs import audiences_of, pair, pairs_now, plain, told, words_for
from service.policies.values import AUTHORIZATION_CODE, Policies, Policy, names_issuer
from service.protocol.errors import OAuthError
from service.protocol.id_tokens import mint_id_token
from service.protocol.standing import Standing
from service.protocol.tokens import NoKey, sign_token
from service.records.clients import Client, claims_now, scope_now
from service.records.devices import Devices
from service.records.grants import AccessToken, Grant, Grants, RefreshToken, Rotation
from service.records.lifetimes import Lifetimes
from service.records.scopes import words_of
from service.records.sessions import Session
from service.records.users import User, Users
from service.status_lists import StatusLists


@dataclass(frozen=True, slots=True)
class Target:
    """What an access token is for.

    Attributes:
        scope: its part of the grant's scope.
        given: the content of a token for an API; None for a token for userinfo.
    """

    scope: tuple[str, ...]
    given: Given | None = None

    def hash_of(self, secret: str) -> bytes:
        """The hash to store. The secret of a JWT is its `jti`, which is public and differs from every secret of a handle."""
        return handles.hash_bytes(secret if self.given is None else f"jwt {secret}")


@dataclass(frozen=True, slots=True)
class Access:
    """An access token: the stored part, and the text for the client."""

    token: AccessToken
    shown: str


@dataclass(frozen=True)
class Issuing:
    """Everything that is needed to issue tokens.

    Attributes:
        grants: the store of grants.
        devices: the store of devices.
        users: what the app last reported about users.
        keys: sign ID tokens.
        lifetimes: the lifetimes of tokens.
        notices: tells the operator about problems of a client.
        statuses: the places of grants in status lists.
        events: where stolen codes and tokens are reported.
        policies: the content of tokens for each audience.
        check_revocable: refuses while a new token could not be revoked.
        standing: knows what a subject token depends on.
    """

    grants: Grants
    devices: Devices
    users: Users
    keys: Keys
    lifetimes: Lifetimes
    notices: Notices
    statuses: StatusLists
    events: Events
    policies: Policies
    check_revocable: Callable[[], None]
    standing: Standing

    def target(
        self, grant: Grant, client: Client, resource: str | None, wanted: tuple[str, ...] | None, *, now: int
    ) -> Target:
        """Decide what an access token of a grant is for, and which part of the grant it has.

        Args:
            grant: the grant that the token will be added to.
            client: its client.
            resource: the parameter of the request; None: the only granted audience, or else userinfo.
            wanted: the requested scope; None: all.
            now: Unix s.

        Raises:
            OAuthError: `invalid_target`, `invalid_scope`.

        Spec: RFC 8707 §2.2
        """
        policy = self._policy_asked(grant, client, resource)
        if policy is None:
            return Target(_of_granted(plain(grant.scope), wanted, client))
        audience = policy.audience or ""
        words = words_for(pairs_now(grant.scope, client, self.policies), audience)
        if wanted is not None:
            _check_granted(wanted, words_for(grant.scope, audience))
            words = tuple(word for word in words if word in wanted)
        user = grant.user or self.users.user(grant.subject, now=now)
        asked = Asked(
            AUTHORIZATION_CODE,
            grant.issuer,
            now,
            session=facts_of(grant, user),
            client=client,
            scope=words,
            granted=scope_now(plain(grant.scope), client),
        )
        decided = decide(policy, asked)
        if isinstance(decided, Refused):
            words_of_rule = f"The policy of this resource refuses the token: {decided.rule}."
            raise OAuthError("invalid_target", words_of_rule, cause=decided.rule.replace(".", "_"))
        scope = (pair(audience), *(pair(audience, word) for word in words))
        return Target(scope, decided)

    def longest_s(self, grant: Grant) -> int:
        """The longest lifetime of a token for an API of this grant, in s."""
        policies = (self.policies.tables.get(audience) for audience in audiences_of(grant.scope))
        return max((policy.lifetime_s for policy in policies if policy is not None), default=0)

    def _policy_asked(self, grant: Grant, client: Client, resource: str | None) -> Policy | None:
        """The policy of the requested audience; None for userinfo."""
        named, granted = words_of(resource), audiences_of(grant.scope)
        if len(named) > 1:
            raise _no_target("more_than_one_resource")
        if not named and len(granted) != 1:
            if granted and "openid" not in grant.scope:
                raise _no_target("resource_missing")
            return None
        one = named[0] if named else granted[0]
        if names_issuer(one, grant.issuer):
            if not plain(grant.scope):
                raise _no_target("nothing_for_userinfo")
            return None
        policy = self.policies.of_resource(one)
        if policy is None or pair(policy.audience or "") not in pairs_now(grant.scope, client, self.policies):
            raise _no_target("resource_not_granted")
        return policy

    def with_access_token(
        self, grant: Grant, target: Target, secret: str, *, now: int
    ) -> tuple[Grant, Access]:
        """The grant with an access token of that secret, and the token."""
        ends_at = min(now + self.lifetimes.access_token_s, grant.expires_at)
        if target.given is not None:
            ends_at = target.given.expires_at
        token = AccessToken(target.hash_of(secret), now, ends_at, target.scope)
        if grant.status is None or not any(each.ends_at > now for each in grant.access):
            # After a revocation no token is alive, and the bit of the old place is set.
            grant = replace(grant, status=self.statuses.next_place(now=now))
        return grant.with_access(token, now=now), self.access(grant, target, token, secret)

    def access(self, grant: Grant, target: Target, token: AccessToken, secret: str) -> Access:
        """Make the access token for the client: a handle for userinfo, a JWT for an API.

        Raises:
            OAuthError: `invalid_target` if there is no key for the API.
        """
        if target.given is None:
            return Access(token, handles.with_secret("access token", grant.id, secret))
        claims = target.given.claims | {"iat": token.made_at, "exp": token.ends_at}
        status = self.statuses.claim(grant.issuer, grant.status)
        jti = f"{grant.id}.{secret}"
        try:
            signed = sign_token(replace(target.given, claims=claims), self.keys, jti=jti, status=status)
        except NoKey:
            raise _no_target("no_key_for_the_audience") from None
        return Access(token, signed.token)

    def with_refresh_token(
        self, grant: Grant, changing: str, fixed: str, rotation: Rotation | None = None, *, now: int
    ) -> Grant:
        """The grant with that refresh token instead of the earlier one."""
        valid_until = min(now + self.lifetimes.refresh_idle_s, grant.expires_at)
        token = RefreshToken(
            handles.short_hash(fixed), handles.short_hash(changing), now, valid_until, rotation
        )
        return replace(grant, refresh=token)

    def answer(
        self,
        grant: Grant,
        client: Client,
        target: Target,
        access: Access,
        *,
        refresh_token: str | None,
        nonce: str | None = None,
        now: int,
    ) -> dict[str, Any]:
        """The members of an answer.

        Args:
            grant: the grant with its new tokens.
            client: its client.
            target: what the access token is for.
            access: the access token.
            refresh_token: the refresh token for the client, if there is one.
            nonce: from the authorization request; a refresh has none.
            now: Unix s.
        """
        token = access.token
        answer: dict[str, Any] = {
            "access_token": access.shown,
            "token_type": "Bearer",
            "expires_in": max(0, token.ends_at - now),
        }
        if target.given is None or target.given.scope:
            answer["scope"] = told(token.scope)
        # The content of an ID token depends on what was granted, not on the API.
        scope = token.scope if target.given is None else scope_now(grant.scope, client)
        if "openid" in scope:
            user = grant.user or self.users.user(grant.subject, now=now)
            answer["id_token"] = self._id_token(grant, client, user, scope, access.shown, nonce, now=now)
        if refresh_token is not None:
            answer["refresh_token"] = refresh_token
        return answer

    def _id_token(
        self,
        grant: Grant,
        client: Client,
        user: User,
        scope: tuple[str, ...],
        access_token: str,
        nonce: str | None,
        *,
        now: int,
    ) -> str:
        made = mint_id_token(
            self.keys.to_sign(client.id_token_signed_response_alg),
            user,
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
            scope=scope,
            access_token=access_token,
            lifetime_s=self.lifetimes.id_token_s,
            now=now,
        )
        if made.left_out:
            self.notices.tell("id_token_cut", client.client_id, now=now, claims=list(made.left_out))
        return made.token


def facts_of(grant: Grant, user: User) -> Session:
    """The grant as a session that ends with it: how the user signed in, and what is known of them now."""
    return Session(
        sid=grant.sid,
        token_hash="",
        token_prefix="",
        user_id=grant.subject,
        created_at=grant.created_at,
        expires_at=grant.expires_at,
        lifetime_s=0,
        auth_time=grant.auth_time,
        tenant_id=user.tenant_id,
        roles=user.roles,
        claims=user.claims,
        acr=grant.acr,
        amr=grant.amr,
        attributes=user.attributes,
        status=grant.status,
    )


def _of_granted(granted: tuple[str, ...], wanted: tuple[str, ...] | None, client: Client) -> tuple[str, ...]:
    """The requested part of the scope that was granted and that the client may still have; by default all of it."""
    if wanted is None:
        return scope_now(granted, client)
    _check_granted(wanted, granted)
    return scope_now((word for word in granted if word in wanted), client)


def _check_granted(wanted: tuple[str, ...], granted: tuple[str, ...]) -> None:
    if not wanted or not set(wanted) <= set(granted):
        raise OAuthError(
            "invalid_scope", "The request has a scope that was not granted.", cause="scope_not_granted"
        )


def _no_target(cause: str) -> OAuthError:
    words = "The resource is missing or unknown, or was not granted to this client."
    return OAuthError("invalid_target", words, cause=cause)
