"""`authorization_code`: exchanges a code, once, for tokens.

Spec: RFC 6749 §4.1.2, §4.1.3; RFC 7636 §4.6; RFC 9700 §4.5; OpenID Connect Core 1.0 §3.1.3
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from service import handles
from service.events import CodeReused
from service.handles import new_grant_id, new_handle
from service.protocol.authorize import AuthorizationRequest
from service.protocol.grants.base import GrantType, TokenRequest, invalid_grant, reused
from service.protocol.grants.issuing import Issuing
from service.protocol.pkce import verifies
from service.records.clients import agreed_claims, is_offline, on_client, used
from service.records.grants import Code, Grant
from service.records.interactions import Beside
from service.records.lifetimes import Lifetimes
from service.records.sessions import Session, on_session
from service.records.visits import visited_at_code, visited_at_exchange


def new_code(
    request: AuthorizationRequest, session: Session, *, issuer: str, lifetimes: Lifetimes, now: int
) -> tuple[str, Beside]:
    """Create a grant and its code. Returns the code, which is not available later, and the record to store.

    Args:
        request: the request that the user agreed to.
        session: the user's session.
        issuer: the issuer of the code.
        lifetimes: the lifetimes of the code and its tokens.
        now: Unix s.
    """
    secret, grant_id = new_handle(), new_grant_id(now)
    code = Code(
        hash=handles.short_hash(secret),
        uri_hash=handles.short_hash(request.redirect_uri),
        challenge=request.code_challenge,
        nonce=request.nonce,
    )
    # A grant expires with its code until the code is redeemed.
    ends_at = now + lifetimes.code_s
    beside = new_grant(request, session, code, grant_id, issuer=issuer, expires_at=ends_at, now=now)
    return handles.with_secret("code", grant_id, secret), beside


def new_grant(
    request: AuthorizationRequest,
    session: Session,
    code: Code,
    grant_id: str,
    *,
    issuer: str,
    expires_at: int,
    now: int,
) -> Beside:
    """Create the grant of a code: the record to store, and what it depends on.

    Args:
        request: the request that the user agreed to.
        session: the user's session.
        code: how its code is recognised.
        grant_id: its id.
        issuer: its issuer.
        expires_at: when its code expires, Unix s.
        now: Unix s.
    """
    client = request.client
    grant = Grant(
        id=grant_id,
        subject=session.user_id,
        client_id=client.client_id,
        sid=session.sid,
        expires_at=expires_at,
        issuer=issuer,
        scope=request.scope,
        auth_time=session.auth_time,
        acr=session.acr,
        amr=session.amr,
        id_token_claims=agreed_claims(request.id_token_claims, request.disclosed, client),
        userinfo_claims=agreed_claims(request.userinfo_claims, request.disclosed, client),
        created_at=now,
        code=code,
    )
    return Beside(
        (grant.to_record(),),
        (*visited_at_code(grant, client), *used(client)),
        (on_session(session), *on_client(client)),
    )


@dataclass(frozen=True, slots=True)
class _Shown:
    """A code from a request, and the grant that it names."""

    handle: handles.Shown
    grant: Grant
    request: TokenRequest


def _is_known(shown: _Shown) -> None:
    if not handles.is_same(shown.handle.secret, shown.grant.code.hash):
        raise invalid_grant("code_unknown")


def _is_the_clients(shown: _Shown) -> None:
    if shown.grant.client_id != shown.request.client.client_id:
        raise invalid_grant("code_of_another_client")


def _is_of_this_issuer(shown: _Shown) -> None:
    if shown.grant.issuer != shown.request.issuer:
        raise invalid_grant("code_of_another_issuer")


def _has_its_redirect_uri(shown: _Shown) -> None:
    uri = shown.request.parameters.get("redirect_uri")
    if uri is None or not handles.is_same(uri, shown.grant.code.uri_hash):
        raise invalid_grant("redirect_uri_mismatch")
    if not shown.request.client.knows_redirect_uri(uri):
        raise invalid_grant("redirect_uri_no_longer_registered")


def _has_its_verifier(shown: _Shown) -> None:
    if not verifies(shown.request.parameters.get("code_verifier"), shown.grant.code.challenge):
        raise invalid_grant("verifier_mismatch")


def _is_unused(shown: _Shown) -> None:
    # RFC 6749 §4.1.2: a code that is used twice may be stolen, so its tokens are revoked.
    if shown.grant.code.spent_at is not None:
        raise reused(CodeReused, shown.grant)


#: The order matters: with another client, or a wrong verifier or redirect URI, the code stays unused and nothing ends.
CHECKS: Final[tuple[Callable[[_Shown], None], ...]] = (
    _is_known,
    _is_the_clients,
    _is_of_this_issuer,
    _has_its_redirect_uri,
    _has_its_verifier,
    _is_unused,
)


def exchange(request: TokenRequest, issuing: Issuing) -> dict[str, Any]:
    """Exchange a code for tokens.

    Raises:
        OAuthError: `invalid_request`, or `invalid_grant`. Using a code a second time revokes the tokens of the first use.
        Contended: if other requests were faster at every attempt.
    """
    handle = handles.read("code", request.required("code"))
    if handle is None:
        raise invalid_grant("code_malformed")

    def redeemed(grant: Grant | None) -> tuple[Grant, dict[str, Any]]:
        if grant is None:
            raise invalid_grant("code_unknown")
        shown = _Shown(handle, grant, request)
        for check in CHECKS:
            check(shown)
        return redeemed_grant(grant, request, issuing)

    return redeem(handle.grant_id, redeemed, request, issuing)


def redeem(
    grant_id: str,
    decide: Callable[[Grant | None], tuple[Grant, dict[str, Any]]],
    request: TokenRequest,
    issuing: Issuing,
) -> dict[str, Any]:
    """Store the first tokens of a grant, and that its client got tokens by the session. Returns the answer.

    `decide`: see `Grants.use`.

    Raises:
        Contended: if other requests were faster at every attempt.
    """
    return issuing.grants.use(
        grant_id, decide, beside=lambda grant: visited_at_exchange(grant, request.client), now=request.now
    )


def redeemed_grant(grant: Grant, request: TokenRequest, issuing: Issuing) -> tuple[Grant, dict[str, Any]]:
    """The grant with a used code and its first tokens, and the answer.

    Raises:
        OAuthError: `invalid_target`.
    """
    client, now, lifetimes = request.client, request.now, issuing.lifetimes
    offline = is_offline(grant.scope, client)
    nonce, code = grant.code.nonce, replace(grant.code, spent_at=now, nonce=None)
    # From now on it lives as long as the tokens that it may get.
    longest_s = max(lifetimes.access_token_s, issuing.longest_s(grant))
    ends_at = grant.created_at + lifetimes.refresh_max_s if offline else now + longest_s
    grant = replace(grant, code=code, expires_at=ends_at)
    target = issuing.target(grant, client, request.parameters.get("resource"), None, now=now)
    secret, refresh_token = new_handle(), None
    grant, access = issuing.with_access_token(grant, target, secret, now=now)
    if offline:
        changing, fixed = handles.new_id(), handles.new_id()
        grant = issuing.with_refresh_token(grant, changing, fixed, now=now)
        refresh_token = handles.rotating(grant.id, changing, fixed)
    return grant, issuing.answer(
        grant, client, target, access, refresh_token=refresh_token, nonce=nonce, now=now
    )


TYPE: Final = GrantType(
    "authorization_code", given_by_default=True, needs_id_token_key=True, exchange=exchange
)
