"""`/oidc/token`, `/oidc/userinfo`, `/oidc/introspect`, `/oidc/revoke`: for clients, without a browser.

Spec: RFC 6749 §3.2, OpenID Connect Core 1.0 §5.3, RFC 7662, RFC 7009
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import falcon

from service.policies.values import EXCHANGE_GRANT
from service.protocol.client_auth import authenticate_client
from service.protocol.errors import OAuthError
from service.protocol.grants import check_can_sign, exchange
from service.protocol.grants.base import TokenRequest
from service.protocol.grants.issuing import Issuing
from service.protocol.metadata import ENDPOINTS
from service.protocol.standing import Standing
from service.protocol.token_status import TokenStatus
from service.records.clients import Client
from service.records.revocations import RevokedTokens
from service.resources.parts import Parts, Resource
from service.web.auth import bearer_token
from service.web.bodies import read_body
from service.web.caching import send_preflight
from service.web.errors import ApiError
from service.web.mounts import Mount
from service.web.oauth import form_parameters, repeated, send_bearer_error, send_oauth_error
from service.web.params import is_form
from service.web.render import send_json

#: The parameters that name the audience may be repeated (RFC 8707 §2, RFC 8693 §2.1), `audience` only in an exchange.
#: Each grant type requires a single one.
_TARGETS: Final = ("resource", "audience")


class Token(Resource):
    """`POST /oidc/token`."""

    any_origin = True
    send_error = staticmethod(send_oauth_error)

    def __init__(self, parts: Parts, issuing: Issuing) -> None:
        super().__init__(parts)
        self._issuing = issuing

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Authenticate the client, then exchange its code, token or credentials."""
        now = req.context.now
        parameters = form_parameters(req, lists=_TARGETS)
        values = parameters.values
        if "audience" in parameters.several and values.get("grant_type") != EXCHANGE_GRANT:
            raise repeated()
        check_can_sign(values, self._issuing.keys)
        client = authenticated(req, values, self.parts, now=now)
        request = TokenRequest(
            client=client,
            parameters=values,
            issuer=req.context.issuer,
            now=now,
            method=req.method,
            headers=req.headers,
        )
        answer = exchange(request, self._issuing)
        send_json(resp, answer)
        resp.set_header("Pragma", "no-cache")

    def on_options(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a preflight."""
        send_preflight(req, resp, "POST, OPTIONS")


class Userinfo(Resource):
    """`/oidc/userinfo`: the token in the header, or in the body of a POST; never in the query."""

    any_origin = True
    send_error = staticmethod(send_bearer_error)

    def __init__(self, parts: Parts, status: TokenStatus) -> None:
        super().__init__(parts)
        self._status = status

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the claims."""
        self._answer(req, resp, bearer_token(req))

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the claims; two tokens at once are refused (RFC 6750 §2)."""
        in_header, in_body = bearer_token(req), None
        if is_form(req) or read_body(req):
            in_body = form_parameters(req).values.get("access_token")
        if in_header is not None and in_body is not None:
            raise OAuthError(
                "invalid_request", "There are two access tokens: send one.", cause="two_access_tokens"
            )
        self._answer(req, resp, in_header or in_body)

    def _answer(self, req: falcon.Request, resp: falcon.Response, token: str | None) -> None:
        if token is None:
            send_bearer_error(resp, None)
            return
        send_json(resp, self._status.userinfo(token, issuer=req.context.issuer, now=req.context.now))

    def on_options(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a preflight."""
        send_preflight(req, resp, "GET, HEAD, POST, OPTIONS")


class Introspect(Resource):
    """`POST /oidc/introspect`: for confidential clients, and for the operator's admin token."""

    send_error = staticmethod(send_oauth_error)

    def __init__(self, parts: Parts, status: TokenStatus) -> None:
        super().__init__(parts)
        self._status = status

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Report the state of a token. `token_type_hint` is ignored."""
        now = req.context.now
        values = form_parameters(req).values
        asker = self._asker(req, values, now=now)
        answer = self._status.introspect(_token(values), asker, issuer=req.context.issuer, now=now)
        send_json(resp, answer)

    def _asker(self, req: falcon.Request, values: Mapping[str, str], *, now: int) -> Client | None:
        if bearer_token(req) is not None:
            try:
                self.parts.admin.require(req)
            except ApiError:
                raise OAuthError(
                    "invalid_client", "The admin token is wrong.", cause="admin_token_wrong"
                ) from None
            return None
        client = authenticated(req, values, self.parts, now=now)
        if client.is_public:
            raise OAuthError(
                "unauthorized_client", "A public client may not ask about tokens.", cause="public_client_asks"
            )
        return client


class Revoke(Resource):
    """`POST /oidc/revoke`: a client revokes its own tokens. For other tokens the answer is the same, without effect."""

    any_origin = True
    send_error = staticmethod(send_oauth_error)

    def __init__(self, parts: Parts, status: TokenStatus) -> None:
        super().__init__(parts)
        self._status = status

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer 200 for any token."""
        now = req.context.now
        values = form_parameters(req).values
        client = authenticated(req, values, self.parts, now=now)
        self._status.revoke(_token(values), client, issuer=req.context.issuer, now=now)
        send_json(resp, {})

    def on_options(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a preflight."""
        send_preflight(req, resp, "POST, OPTIONS")


def authenticated(req: falcon.Request, values: Mapping[str, str], parts: Parts, *, now: int) -> Client:
    """Authenticate the client of the request, and put it into the log."""
    issuer = req.context.issuer
    client = authenticate_client(
        req.env.get("HTTP_AUTHORIZATION"),
        values,
        parts.clients,
        parts.assertions,
        issuer=issuer,
        token_endpoint=issuer + ENDPOINTS["token_endpoint"],
        now=now,
    )
    req.context.client_id = client.client_id
    return client


def _token(values: Mapping[str, str]) -> str:
    token: str | None = values.get("token")
    if token is None:
        raise OAuthError("invalid_request", "The parameter token is missing.", cause="token_missing")
    return token


def routes(parts: Parts) -> tuple[Mount, ...]:
    """Their paths."""
    sessions = parts.sessions
    standing = Standing(
        grants=parts.grants,
        keys=parts.keys,
        session_of=lambda user_id, sid, now: sessions.of_sid(user_id, sid, now=now),
        minted_issuer=parts.settings.jwt_issuer,
        clients=parts.clients,
        policies=parts.policies,
        revoked=RevokedTokens(parts.store),
    )
    issuing = Issuing(
        grants=parts.grants,
        devices=parts.devices,
        users=sessions,
        keys=parts.keys,
        lifetimes=parts.lifetimes,
        notices=parts.notices,
        events=parts.events,
        policies=parts.policies,
        statuses=parts.statuses,
        check_revocable=parts.store.check_revocable,
        standing=standing,
    )
    status = TokenStatus(standing=standing, users=sessions)
    return (
        Mount(ENDPOINTS["token_endpoint"], Token(parts, issuing)),
        Mount(ENDPOINTS["userinfo_endpoint"], Userinfo(parts, status)),
        Mount(ENDPOINTS["introspection_endpoint"], Introspect(parts, status)),
        Mount(ENDPOINTS["revocation_endpoint"], Revoke(parts, status)),
    )
