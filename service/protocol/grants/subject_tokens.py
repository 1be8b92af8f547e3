"""The token that a client shows to be exchanged: whether it counts for this client, what it holds and how long.

Nothing of it is believed but its signature and what it names: who the user is, how they signed in and what the client may
have is read from the session or the grant that it stands on, which must live now.

Spec: RFC 8693 §2.1, §3
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service import handles
from service.policies.deciding import Subject, actors_of
from service.policies.values import Policy
from service.protocol.errors import OAuthError
from service.protocol.grants.issuing import Issuing, facts_of
from service.protocol.id_tokens import read_hint
from service.protocol.standing import BY_ID_TOKEN, Jwt, Stands
from service.protocol.tokens import JwtKind
from service.records.clients import Client
from service.records.sessions import Session

ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"
#: RFC 8693 §3: of its types those that a token of ours has.
SUBJECT_TOKEN_TYPES: Final = (ACCESS_TOKEN, JWT, ID_TOKEN)


@dataclass(frozen=True, slots=True)
class SubjectToken:
    """A subject token that counts.

    Attributes:
        session: whose it is, and how they signed in.
        bounds: how far it goes.
        line: what the `jti` of the new token begins with.
    """

    session: Session
    bounds: Subject
    line: str


@dataclass(frozen=True, slots=True)
class SubjectTokens:
    """Reads subject tokens.

    Attributes:
        client: who shows them.
        issuer: under which issuer.
        now: Unix s.
        issuing: knows grants, sessions and users.
    """

    client: Client
    issuer: str
    now: int
    issuing: Issuing

    def read(self, unverified_token: str, kind: str, policy: Policy) -> SubjectToken:
        """The token as it counts for this client, to be exchanged for one of an audience.

        Args:
            unverified_token: as it was shown.
            kind: one of `SUBJECT_TOKEN_TYPES`.
            policy: of the audience that is asked for.

        Raises:
            OAuthError: `invalid_request`.
        """
        standing = self.issuing.standing
        if kind != ID_TOKEN:
            if (token := standing.jwt(unverified_token, self.issuer, self.now)) is not None:
                return self._of_jwt(token, policy)
            shown = handles.read("access token", unverified_token)
            if kind == ACCESS_TOKEN and shown is not None:
                return self._of_handle(shown, policy)
        if kind != ACCESS_TOKEN:
            return self._of_id_token(unverified_token)
        raise _invalid("subject_token_unknown")

    def _of_jwt(self, token: Jwt, policy: Policy) -> SubjectToken:
        """A minted token, or an access token of an audience."""
        if not token.is_for(self.client):
            raise _invalid("subject_token_of_another")
        if token.kind is JwtKind.ACCESS and token.grant_id is None and not token.is_exchanged:
            raise _invalid("subject_token_of_a_client")
        stands = self.issuing.standing.of_jwt(token, self.issuer, self.now)
        if stands is None:
            raise _invalid("subject_token_ended")
        actors = actors_of(token.claims.get("act"))
        if actors is None:
            raise _invalid("subject_token_unknown")
        held = self.issuing.standing.held(stands, policy)
        if token.kind is JwtKind.ACCESS and token.policy.audience == policy.audience:
            # For its own audience it never holds more than it says.
            held = tuple(
                word for word in token.scope if word in (policy.exchange_scopes if held is None else held)
            )
        ends = [int(token.claims["exp"]), *([stands.token.ends_at] if stands.token is not None else [])]
        bounds = Subject(held, min(ends), actors)
        return SubjectToken(self._session_of(stands), bounds, _line_of(token))

    def _of_handle(self, shown: handles.Shown, policy: Policy) -> SubjectToken:
        """An access token for userinfo: only of the client that it was issued to."""
        standing = self.issuing.standing
        live = standing.grant(shown.grant_id, self.issuer, self.now, self.client)
        token_hash = handles.hash_bytes(shown.secret)
        kept = None if live is None else standing.kept(live, token_hash, self.now)
        if live is None or kept is None:
            raise _invalid("subject_token_ended")
        if live.grant.client_id != self.client.client_id:
            raise _invalid("subject_token_of_another")
        stands = Stands(live, kept)
        bounds = Subject(standing.held(stands, policy), kept.ends_at)
        line = f"{shown.grant_id}.{handles.short_hash(shown.secret)}"
        return SubjectToken(self._session_of(stands), bounds, line)

    def _of_id_token(self, unverified_token: str) -> SubjectToken:
        """An ID token: while its session and a grant of this client in it live."""
        standing, now = self.issuing.standing, self.now
        claims = read_hint(self.issuing.keys, unverified_token, issuer=self.issuer)
        if claims is None:
            raise _invalid("subject_token_unknown")
        if claims.get("aud") != self.client.client_id:
            raise _invalid("subject_token_of_another")
        until, made_at = int(claims["exp"]), int(claims["iat"])
        session = (
            standing.session_of(str(claims["sub"]), str(claims.get("sid")), now) if until > now else None
        )
        if session is None:
            raise _invalid("subject_token_ended")
        live = standing.grant_of_session(session, self.client, self.issuer, before=made_at, now=now)
        if live is None:
            raise _invalid("subject_token_ended")
        bounds = Subject(until=min(until, live.grant.expires_at))
        return SubjectToken(session, bounds, f"{live.grant.id}.{BY_ID_TOKEN}")

    def _session_of(self, stands: Stands) -> Session:
        """How the user signed in, and what is known of them now."""
        if stands.session is not None:
            return stands.session
        if stands.grant is None:
            raise _invalid("subject_token_of_a_client")
        grant = stands.grant.grant
        return facts_of(grant, self.issuing.users.user(grant.subject, now=self.now))


def _line_of(token: Jwt) -> str:
    """What the `jti` of a token begins with that is given for this one; see `service.protocol.standing`."""
    if token.is_exchanged:
        return token.jti
    if token.kind is JwtKind.MINTED:
        return str(token.claims["sid"])
    return f"{token.grant_id}.{handles.short_hash('jwt ' + token.jti.partition('.')[2])}"


def _invalid(cause: str) -> OAuthError:
    """One answer to every subject token that does not count: it must not tell what is known from what is not."""
    words = "The subject token is invalid, expired, revoked, not of its type, or not for this client."
    return OAuthError("invalid_request", words, cause=cause)
