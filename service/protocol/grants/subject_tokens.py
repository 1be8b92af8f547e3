"""The token that a client sends to exchange: whether it is valid for this client, what it allows and for how long.

Only its signature and the session or grant that it names are trusted. The user, their sign-in and the client's rights are
read from that session or grant, which must be live.

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
#: The types of RFC 8693 §3 that our tokens have.
SUBJECT_TOKEN_TYPES: Final = (ACCESS_TOKEN, JWT, ID_TOKEN)


@dataclass(frozen=True, slots=True)
class SubjectToken:
    """A valid subject token.

    Attributes:
        session: its user, and how they signed in.
        bounds: its limits for the new token.
        line: the first part of the new token's `jti`.
    """

    session: Session
    bounds: Subject
    line: str


@dataclass(frozen=True, slots=True)
class SubjectTokens:
    """Reads subject tokens.

    Attributes:
        client: the client that sends them.
        issuer: the issuer of the request.
        now: Unix s.
        issuing: has grants, sessions and users.
    """

    client: Client
    issuer: str
    now: int
    issuing: Issuing

    def read(self, unverified_token: str, kind: str, policy: Policy) -> SubjectToken:
        """Read a token that this client may exchange for one of an audience.

        Args:
            unverified_token: the token as it was sent.
            kind: one of `SUBJECT_TOKEN_TYPES`.
            policy: the policy of the requested audience.

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
            # For its own audience it never allows more than it says.
            held = tuple(
                word for word in token.scope if word in (policy.exchange_scopes if held is None else held)
            )
        ends = [int(token.claims["exp"]), *([stands.token.ends_at] if stands.token is not None else [])]
        bounds = Subject(held, min(ends), actors)
        return SubjectToken(self._session_of(stands), bounds, _line_of(token))

    def _of_handle(self, shown: handles.Shown, policy: Policy) -> SubjectToken:
        """An access token for userinfo, only from the client that it was issued to."""
        standing = self.issuing.standing
        live = standing.grant(shown.grant_id, self.issuer, self.now, self.client, with_user=True)
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
        """An ID token, while its session and a grant of this client in it are live."""
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
        return facts_of(grant, grant.user or self.issuing.users.user(grant.subject, now=self.now))


def _line_of(token: Jwt) -> str:
    """The first part of the `jti` of a token that is exchanged for this one; see `service.protocol.standing`."""
    if token.is_exchanged:
        return token.jti
    if token.kind is JwtKind.MINTED:
        return str(token.claims["sid"])
    return f"{token.grant_id}.{handles.short_hash('jwt ' + token.jti.partition('.')[2])}"


def _invalid(cause: str) -> OAuthError:
    """The same answer for every invalid subject token, so that it does not reveal which ones exist."""
    words = "The subject token is invalid, expired, revoked, not of its type, or not for this client."
    return OAuthError("invalid_request", words, cause=cause)
