"""Grants, and what hangs on them: codes, access tokens, refresh tokens.

Spending a code or a refresh token and storing what comes of it is one transaction of the store; whoever comes second is
told by what is kept of the first.

Spec: RFC 6749 §4.1.2, §4.1.3, §5, §6, §10.4; RFC 9700 §2.2.2, §4.14; OpenID Connect Core 1.0 §3.1.3, §12
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from service.keyring import Keys
from service.protocol.authorize import AuthorizationRequest
from service.protocol.clients import Client
from service.protocol.errors import OAuthError
from service.protocol.handles import hash_handle, new_handle, new_id
from service.protocol.id_tokens import mint_id_token
from service.protocol.models import Lifetimes, Session, User
from service.protocol.notices import Notices
from service.protocol.pkce import verifies
from service.protocol.scopes import words_of
from service.protocol.sealing import Unreadable, seal, unseal
from service.protocol.standing import on_client, on_session
from service.storage.interface import Fitting, Kind, Record, Store

_GRACE: Final = "refresh answer"
FALLS_WITH_GRANT: Final = (Kind.GRANT, Kind.CODE, Kind.ACCESS_TOKEN, Kind.REFRESH_TOKEN)


def _invalid_grant() -> OAuthError:
    # One answer for all: it must not tell a code that is known from one that is not.
    return OAuthError(
        "invalid_grant", "The code or refresh token is invalid, expired, used, or not for this client."
    )


@dataclass(frozen=True, slots=True)
class NewCode:
    """A code, given out once, the records to be stored together, and what must be there for them then."""

    code: str
    records: tuple[Record, ...]
    standing_on: tuple[Fitting, ...]


def new_code(
    request: AuthorizationRequest, session: Session, *, issuer: str, lifetimes: Lifetimes, now: int
) -> NewCode:
    """Make a grant and its code.

    Args:
        request: what the user agreed to.
        session: who he is.
        issuer: under which issuer it is good.
        lifetimes: of the code and of all that may come of it.
        now: Unix s.
    """
    code, grant_id = new_handle(), new_id()
    # Until it is redeemed, a grant ends with its code.
    ends_at = now + lifetimes.code_s
    context: dict[str, Any] = {
        "issuer": issuer,
        "scope": list(request.scope),
        "auth_time": session.auth_time,
        "sid": session.sid,
        "acr": session.acr,
        "amr": list(session.amr),
        "id_token_claims": _agreed(request.id_token_claims, request.disclosed, request.client),
        "userinfo_claims": _agreed(request.userinfo_claims, request.disclosed, request.client),
        "created_at": now,
        "last_used_at": now,
    }
    hangs_on: dict[str, Any] = {
        "subject": session.user_id,
        "grant_id": grant_id,
        "session_id": session.sid,
        "client_id": request.client.client_id,
    }
    grant = Record(Kind.GRANT, hash_handle(grant_id), ends_at, body=context, **hangs_on)
    body = {
        "redirect_uri": request.redirect_uri,
        "code_challenge": request.code_challenge,
        "nonce": request.nonce,
        "valid_until": ends_at,
    }
    record = Record(Kind.CODE, hash_handle(code), ends_at, body=body, **hangs_on)
    return NewCode(code, (grant, record), (on_session(session), *on_client(request.client)))


@dataclass(frozen=True)
class TokenIssuer:
    """Turns codes and refresh tokens into tokens.

    Attributes:
        store: where they live.
        keyring: signs ID tokens.
        lifetimes: how long they live.
        notices: tells the operator what a client lacks.
    """

    store: Store
    keyring: Keys
    lifetimes: Lifetimes
    notices: Notices

    def redeem_code(
        self, parameters: Mapping[str, str], client: Client, *, issuer: str, now: int
    ) -> dict[str, Any]:
        """Exchange a code.

        Raises:
            OAuthError: `invalid_request`, or `invalid_grant`. By another client, or with a wrong verifier or redirect
                URI, nothing is spent; a code that comes a second time ends what came of the first.
        """
        code = _required(parameters, "code")
        record = self.store.get(Kind.CODE, hash_handle(code), now=now)
        grant = None if record is None else self._grant(record.grant_id, now=now)
        if record is None or grant is None or not _belongs(grant, client, issuer):
            raise _invalid_grant()
        if parameters.get("redirect_uri") != record.body["redirect_uri"]:
            raise _invalid_grant()
        if not client.knows_redirect_uri(record.body["redirect_uri"]):
            raise _invalid_grant()
        if not verifies(parameters.get("code_verifier"), record.body["code_challenge"]):
            raise _invalid_grant()
        if record.spent_at is None and now < record.body["valid_until"]:
            context = {**grant.body, "nonce": record.body["nonce"]}
            used = self._redeemed(grant, client, now=now)
            scope = scope_now(grant.body["scope"], client)
            answer, records = self._tokens(used, context, client, scope, now=now)
            spent = self.store.spend(
                Kind.CODE, record.id_hash, grant=used, body=record.body, put=records, now=now
            )
            if spent.won:
                return answer
            record = spent.record
        if record is not None and record.spent_at is not None:
            self.revoke_grant(grant.grant_id, now=now)  # RFC 6749 §4.1.2: a code that comes twice was stolen
        raise _invalid_grant()

    def refresh(
        self, parameters: Mapping[str, str], client: Client, *, issuer: str, now: int
    ) -> dict[str, Any]:
        """Exchange a refresh token for the next one.

        Within the grace the immediate predecessor gets the same answer again, for the same client, scope and resource;
        any other reuse ends the grant.

        Raises:
            OAuthError: `invalid_request`, `invalid_scope` or `invalid_grant`.
        """
        token = _required(parameters, "refresh_token")
        record = self.store.get(Kind.REFRESH_TOKEN, hash_handle(token), now=now)
        grant = None if record is None else self._grant(record.grant_id, now=now)
        if record is None or grant is None or grant.body["issuer"] != issuer:
            raise _invalid_grant()
        if _belongs(grant, client, issuer) and not is_offline(grant.body["scope"], client):
            raise _invalid_grant()
        asked = _asked(parameters, client, grant.body["scope"])
        if record.spent_at is not None:
            return self._again(token, record, asked, client, now=now)
        if not _belongs(grant, client, issuer):
            raise _invalid_grant()
        scope = scope_now(_narrowed(parameters.get("scope"), grant.body["scope"]), client)
        if not scope:
            raise OAuthError("invalid_scope", "This client may no longer have the scope that it asks for.")
        if now >= record.body["valid_until"]:
            raise _invalid_grant()
        answer, records = self._tokens(grant, grant.body, client, scope, now=now)
        successor = records[-1]
        body = {
            **record.body,
            "asked": asked,
            "successor": successor.id_hash,
            "answer": seal(answer, token, purpose=_GRACE),
        }
        spent = self.store.spend(
            Kind.REFRESH_TOKEN, record.id_hash, grant=_used(grant, now), body=body, put=records, now=now
        )
        if spent.won:
            return answer
        if spent.record is None:
            raise _invalid_grant()
        return self._again(token, spent.record, asked, client, now=now)

    def _again(
        self, token: str, spent: Record, asked: list[Any], client: Client, *, now: int
    ) -> dict[str, Any]:
        """The same answer to the same request, while its successor is unused and the grace lasts; else the end of the grant."""
        successor = self.store.get(Kind.REFRESH_TOKEN, spent.body.get("successor", ""), now=now)
        within = spent.spent_at is not None and now < spent.spent_at + self.lifetimes.refresh_grace_s
        again = within and successor is not None and successor.spent_at is None
        if again and asked == spent.body["asked"]:
            try:
                return _cut(unseal(spent.body["answer"], token, purpose=_GRACE), client)
            except Unreadable:
                raise _invalid_grant() from None
        self.revoke_grant(spent.grant_id, now=now)
        raise _invalid_grant()

    def revoke_grant(self, grant_id: str, *, now: int) -> None:
        """End a grant and all that hangs on it; the grant's row first, which a refresh beside it waits for."""
        self.store.delete(*FALLS_WITH_GRANT, grant_id=grant_id, now=now)

    def end_grant(self, grant_id: str, *, now: int) -> bool:
        """End a grant at the operator's wish; the user is asked again before the next one. Whether there was such a one."""
        grant = self._grant(grant_id, now=now)
        if grant is None:
            return False
        consent = consent_id(grant.subject, grant.client_id, grant.body["issuer"])
        falling = [Fitting(kind, grant_id=grant_id) for kind in FALLS_WITH_GRANT[1:]]
        falling.append(Fitting(Kind.CONSENT, id_hash=consent))
        return self.store.take(Kind.GRANT, grant.id_hash, falling=falling, now=now) is not None

    def user(self, user_id: str, *, now: int) -> User:
        """What is known of the user."""
        record = self.store.get(Kind.USER, hash_handle(user_id), now=now)
        return User.of_body(user_id, {} if record is None else record.body)

    def _redeemed(self, grant: Record, client: Client, *, now: int) -> Record:
        """The grant from the exchange of its code on: it lives as long as the tokens that may come of it."""
        offline = is_offline(grant.body["scope"], client)
        lifetimes = self.lifetimes
        ends_at = (
            grant.body["created_at"] + lifetimes.refresh_max_s if offline else now + lifetimes.access_token_s
        )
        return replace(_used(grant, now), expires_at=ends_at)

    def _grant(self, grant_id: str, *, now: int) -> Record | None:
        return self.store.get(Kind.GRANT, hash_handle(grant_id), now=now)

    def _tokens(
        self, grant: Record, context: Mapping[str, Any], client: Client, scope: tuple[str, ...], *, now: int
    ) -> tuple[dict[str, Any], list[Record]]:
        """The answer, and the records of the tokens in it; the refresh token's, where there is one, comes last."""
        lifetimes, sid = self.lifetimes, grant.session_id
        access_token = new_handle()
        lives_until = min(now + lifetimes.access_token_s, grant.expires_at)
        answer: dict[str, Any] = {
            "access_token": access_token,
            "token_type": "Bearer",
            "expires_in": lives_until - now,
            "scope": " ".join(scope),
        }
        body = {"scope": list(scope), "issuer": context["issuer"], "iat": now}
        records = [
            Record(
                Kind.ACCESS_TOKEN,
                hash_handle(access_token),
                lives_until,
                grant.subject,
                grant.grant_id,
                sid,
                client_id=grant.client_id,
                body={**body, "userinfo_claims": context["userinfo_claims"]},
            )
        ]
        if "openid" in scope:
            made = mint_id_token(
                self.keyring.to_sign(client.id_token_signed_response_alg),
                self.user(grant.subject, now=now),
                {**context, "id_token_claims": claims_now(context["id_token_claims"], client)},
                client,
                issuer=context["issuer"],
                scope=scope,
                access_token=access_token,
                lifetime_s=lifetimes.id_token_s,
                now=now,
            )
            answer["id_token"] = made.token
            if made.left_out:
                self.notices.tell("id_token_cut", client.client_id, now=now, claims=list(made.left_out))
        if is_offline(context["scope"], client):
            refresh_token = new_handle()
            answer["refresh_token"] = refresh_token
            valid_until = min(now + lifetimes.refresh_idle_s, grant.expires_at)
            # It does not hang on the session: that is what offline means.
            records.append(
                Record(
                    Kind.REFRESH_TOKEN,
                    hash_handle(refresh_token),
                    grant.expires_at,
                    grant.subject,
                    grant.grant_id,
                    client_id=grant.client_id,
                    body={**body, "valid_until": valid_until},
                )
            )
        return answer, records


def scope_now(granted: Iterable[str], client: Client) -> tuple[str, ...]:
    """The words that were granted and that the client may still have."""
    return tuple(word for word in granted if word in client.scope and word in client.scopes.words)


def claims_now(agreed: Iterable[str], client: Client) -> list[str]:
    """The claims that were agreed to one by one and that a scope of the client may still give."""
    return _agreed(agreed, client.scope, client)


def is_offline(granted: Iterable[str], client: Client) -> bool:
    """Whether the client may, now, use the refresh tokens of a grant of this scope."""
    return "offline_access" in granted and may_be_offline(client)


def may_be_offline(client: Client) -> bool:
    """Whether the client may have refresh tokens at all."""
    return "offline_access" in client.scope and "refresh_token" in client.grant_types


def _cut(answer: dict[str, Any], client: Client) -> dict[str, Any]:
    """An answer that was made before, without what the client may no longer have."""
    before = answer["scope"].split()
    scope = scope_now(before, client)
    if len(scope) == len(before):
        return answer
    # What its ID token says cannot be taken out of it.
    return {name: value for name, value in answer.items() if name != "id_token"} | {"scope": " ".join(scope)}


def consent_id(user_id: str, client_id: str, issuer: str) -> str:
    """The id of what a user let a client remember under an issuer."""
    return hash_handle("\n".join((user_id, client_id, issuer)))


def on_consent(user_id: str, client_id: str, issuer: str) -> Fitting:
    """What is granted unasked stands on what the user lets the client remember."""
    return Fitting(Kind.CONSENT, id_hash=consent_id(user_id, client_id, issuer))


def _agreed(names: Iterable[str], disclosed: tuple[str, ...], client: Client) -> list[str]:
    """Of the claims asked for one by one, those of scopes that the user agreed to."""
    known = set(client.scopes.claims_of(disclosed))
    return [name for name in names if name in known]


def _required(parameters: Mapping[str, str], name: str) -> str:
    value = parameters.get(name)
    if value is None:
        raise OAuthError("invalid_request", f"The parameter {name} is missing.")
    return value


def _belongs(grant: Record, client: Client, issuer: str) -> bool:
    return bool(grant.client_id == client.client_id and grant.body["issuer"] == issuer)


def _used(grant: Record, now: int) -> Record:
    return replace(grant, body={**grant.body, "last_used_at": now})


def _asked(parameters: Mapping[str, str], client: Client, granted: Iterable[str]) -> list[Any]:
    """What one refresh has to have in common with another one to get the same answer."""
    scope = words_of(parameters["scope"]) if "scope" in parameters else granted
    return [client.client_id, sorted(set(scope)), sorted(set(words_of(parameters.get("resource"))))]


def _narrowed(wanted: str | None, granted: list[str]) -> tuple[str, ...]:
    if wanted is None:
        return tuple(granted)
    words = words_of(wanted)
    if not words or not set(words) <= set(granted):
        raise OAuthError("invalid_scope", "A scope is asked for that was not granted.")
    return tuple(word for word in granted if word in words)
