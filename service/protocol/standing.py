"""What a token depends on, and whether that is still live: a grant, a session, or a client.

The `jti` of an access token names it, so no record of the token is needed:

    <grant id>.<secret>                 an access token of a grant, which has its hash
    <grant id>.<hash>.<id>              exchanged for one of a grant: valid as long as that one
    <grant id>.id.<id>                  exchanged for an ID token: valid as long as the grant and the session
    <sid>.<id>                          exchanged for a minted token: valid as long as the session
    <id>                                a client's own token

A token that was exchanged for an exchanged one has the whole `jti` of that one, and one more id.

Spec: RFC 7662 §2.2; RFC 8693 §2.1; RFC 9068 §2.2
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from service import handles
from service.keys.signing import Keys
from service.policies.deciding import (
    Asked,
    Given,
    decide,
    exchange_refusal,
    exchanged_words,
)
from service.policies.pairs import audiences_of, is_pair, pairs_now, words_for
from service.policies.values import CLIENT_CREDENTIALS, Policies, Policy
from service.protocol.client_auth import ClientDirectory
from service.protocol.tokens import JwtKind, kind_of, read_token
from service.records.clients import Client
from service.records.grants import AccessToken, Grant, Grants, is_grant_id
from service.records.revocations import RevokedTokens
from service.records.scopes import words_of
from service.records.sessions import Session

#: No token lives longer, in s; and the clock of the replica that made it may be some minutes ahead.
_LONGEST_S: Final = 86_400 + 300

#: Instead of a hash, for a token that was exchanged for an ID token.
BY_ID_TOKEN: Final = "id"


@dataclass(frozen=True, slots=True)
class Live:
    """A live grant and its client."""

    grant: Grant
    client: Client


@dataclass(frozen=True, slots=True)
class Jwt:
    """A verified token for an audience."""

    policy: Policy
    kind: JwtKind
    claims: Mapping[str, Any]

    @property
    def jti(self) -> str:
        """Its id."""
        return str(self.claims["jti"])

    @property
    def scope(self) -> tuple[str, ...]:
        """Its scope."""
        return words_of(self.claims.get("scope"))

    @property
    def grant_id(self) -> str | None:
        """The grant that its `jti` names, if any."""
        grant_id, dot, _ = self.jti.partition(".")
        return grant_id if dot and is_grant_id(grant_id) else None

    @property
    def is_exchanged(self) -> bool:
        """Whether it was issued in exchange for another token."""
        if self.kind is not JwtKind.ACCESS:
            return False
        return self.jti.count(".") >= 2 if self.grant_id is not None else "." in self.jti

    @property
    def lineage(self) -> Iterator[str]:
        """Its own `jti`, and those of the exchanged tokens that it came from."""
        parts = self.jti.split(".")
        first = 3 if self.grant_id is not None else 2
        return (".".join(parts[:count]) for count in range(len(parts), first - 1, -1))

    def is_for(self, client: Client) -> bool:
        """Whether it was issued to this client, or is for an audience that this client serves."""
        if self.claims.get("aud") in client.resource_ids:
            return True
        return self.kind is JwtKind.ACCESS and self.claims["client_id"] == client.client_id


@dataclass(frozen=True, slots=True)
class Stands:
    """What a token depends on, as it is now.

    Attributes:
        grant: the grant and its client; None if it depends only on a session or a client.
        token: the grant's record of it, or of the access token that it was exchanged for.
        session: the session, if it depends on one.
    """

    grant: Live | None = None
    token: AccessToken | None = None
    session: Session | None = None


@dataclass(frozen=True)
class Standing:
    """Finds what tokens depend on.

    Attributes:
        grants: the store of grants.
        keys: verify tokens.
        session_of: finds the live session of a user and `sid`.
        minted_issuer: the `iss` of minted tokens, if it is not the issuer.
        policies: the policy of each audience.
        revoked: remembers revoked tokens that have no record.
        clients: the registered clients: the tokens of a removed client do not work.
    """

    grants: Grants
    keys: Keys
    session_of: Callable[[str, str, int], Session | None]
    minted_issuer: str | None
    clients: ClientDirectory
    policies: Policies
    revoked: RevokedTokens

    def grant(
        self, grant_id: str, issuer: str, now: int, known: Client | None = None, *, with_user: bool = False
    ) -> Live | None:
        """The live grant of that id and issuer, perhaps with its user, and its client. `known` is a client that has already been found."""
        grant = self.grants.find(grant_id, with_user=with_user, now=now)
        if grant is None or grant.issuer != issuer:
            return None
        if known is not None and known.client_id == grant.client_id:
            return Live(grant, known)
        client = self.clients.find(grant.client_id, now=now)
        return None if client is None else Live(grant, client)

    def grant_of_session(
        self, session: Session, client: Client, issuer: str, *, before: int, now: int
    ) -> Live | None:
        """The client's longest-lived grant in a session that existed at `before` (Unix s)."""
        grants = [
            grant
            for grant in self.grants.of_session(session.user_id, session.sid, now=now)
            if grant.client_id == client.client_id
            and grant.issuer == issuer
            and grant.created_at <= before
            and grant.code.spent_at is not None
        ]
        latest = max(grants, key=lambda grant: grant.expires_at, default=None)
        return None if latest is None else Live(latest, client)

    def jwt(self, unverified_token: str, issuer: str, now: int) -> Jwt | None:
        """A token for an audience that was issued here with this issuer and has not expired."""
        read = read_token(unverified_token, self.keys, self.policies)
        if read is None:
            return None
        policy, claims = read
        kind = kind_of(claims)
        # Who has the HS256 secret of an audience can write any `exp`.
        if kind not in {JwtKind.MINTED, JwtKind.ACCESS} or not now < claims.get("exp", 0) <= now + _LONGEST_S:
            return None
        made_by = self.minted_issuer or issuer if kind is JwtKind.MINTED else issuer
        return Jwt(policy, kind, claims) if claims.get("iss") == made_by else None

    def of_jwt(self, token: Jwt, issuer: str, now: int) -> Stands | None:
        """What a token depends on; None if that is gone, or no longer allows it."""
        if token.kind is JwtKind.MINTED:
            session = self._session(token, now)
            return None if session is None else Stands(session=session)
        if token.is_exchanged:
            return self._of_exchanged(token, issuer, now)
        if token.grant_id is not None:
            return self._of_grant(token, token.grant_id, issuer, now)
        return self._of_client(token, now)

    def _session(self, token: Jwt, now: int) -> Session | None:
        return self.session_of(str(token.claims.get("sub")), str(token.claims.get("sid")), now)

    def _of_grant(self, token: Jwt, grant_id: str, issuer: str, now: int) -> Stands | None:
        """The grant, if it still has this token, and the client may still have its content."""
        live = self.grant(grant_id, issuer, now)
        if live is None or live.grant.client_id != token.claims["client_id"]:
            return None
        secret = token.jti.partition(".")[2]
        kept = self.kept(live, handles.hash_bytes(f"jwt {secret}"), now)
        if kept is None or audiences_of(kept.scope) != (token.policy.audience,):
            return None
        return Stands(live, kept)

    def kept(self, live: Live, token_hash: bytes, now: int) -> AccessToken | None:
        """A grant's record of a live access token, if the client may still have its audience and scope."""
        kept = live.grant.access_token(token_hash, now=now)
        if kept is None:
            return None
        of_apis = set(filter(is_pair, kept.scope))
        return kept if of_apis <= set(pairs_now(kept.scope, live.client, self.policies)) else None

    def _of_exchanged(self, token: Jwt, issuer: str, now: int) -> Stands | None:
        """What the subject token depends on, if that is live, and the client may still have the content of this one."""
        client = self.clients.find(str(token.claims["client_id"]), now=now)
        if client is None or exchange_refusal(token.policy, client):
            return None
        stands = self._of_origin(token, issuer, now)
        if stands is None:
            return None
        allowed = exchanged_words(token.policy, client, self.held(stands, token.policy))
        if not set(token.scope) <= set(allowed):
            return None
        return None if any(self.revoked.has(jti, now=now) for jti in token.lineage) else stands

    def _of_origin(self, token: Jwt, issuer: str, now: int) -> Stands | None:
        """What the first token of its lineage depends on."""
        if token.grant_id is None:
            session = self._session(token, now)
            named = session is not None and token.jti.startswith(f"{session.sid}.")
            return Stands(session=session) if named else None
        live = self.grant(token.grant_id, issuer, now)
        if live is None or live.grant.subject != token.claims.get("sub"):
            return None
        origin = token.jti.split(".")[1]
        if origin == BY_ID_TOKEN:
            session = self._session(token, now)
            return None if session is None or session.sid != live.grant.sid else Stands(live, None, session)
        kept = self.kept(live, handles.of_short_hash(origin), now)
        return None if kept is None else Stands(live, kept)

    def held(self, stands: Stands, policy: Policy) -> tuple[str, ...] | None:
        """The scope that a token has for an audience when it is exchanged; None for the policy's `exchange_scopes`.

        For the audience of the grant's own access token it is the scope of that token, which may be cut: an exchange for
        another audience and back gives no more.
        """
        if stands.grant is None or stands.session is not None:
            return None
        audience = policy.audience or ""
        pairs = pairs_now(stands.grant.grant.scope, stands.grant.client, self.policies)
        words = words_for(pairs, audience)
        if stands.token is None or audience not in audiences_of(stands.token.scope):
            return words
        return tuple(word for word in words_for(stands.token.scope, audience) if word in words)

    def _of_client(self, token: Jwt, now: int) -> Stands | None:
        """Whether the client exists, would get such a token now, and has not revoked this one."""
        client = self.clients.find(str(token.claims["client_id"]), now=now)
        if client is None:
            return None
        asked = Asked(CLIENT_CREDENTIALS, "", now, client=client, scope=token.scope or None)
        given = isinstance(decide(token.policy, asked), Given)
        return Stands() if given and not self.revoked.has(token.jti, now=now) else None
