"""`/api/auth/*`: the app starts sessions; users list, refresh and end them."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import falcon

from service.records.sessions import Session
from service.resources.parts import Parts, Resource
from service.resources.sign_in_request import SignInRequest, TrustedMintRequest
from service.sessions import NewSession, Replayed
from service.web.bodies import check_json_type, parse_model, read_body, read_json
from service.web.errors import ApiError
from service.web.mounts import Mount
from service.web.render import send_json

TIMESTAMP_WINDOW_S: Final = 300
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)
_HEX_MAC = re.compile(r"[0-9A-Fa-f]{64}", re.ASCII)


def _begun(new: NewSession) -> dict[str, Any]:
    session = new.session
    return {
        "token": new.token,
        "sid": session.sid,
        "user_id": session.user_id,
        "expires_at": session.expires_at,
    }


def _listed(sessions: Iterable[Session], *, current_sid: str | None) -> dict[str, Any]:
    return {
        "sessions": [
            {
                "sid": session.sid,
                "token_prefix": session.token_prefix,
                "device": session.device,
                "created_at": session.created_at,
                "expires_at": session.expires_at,
                "current": session.sid == current_sid,
            }
            for session in sessions
        ]
    }


class OneSession(Resource):
    """`/api/auth/session`: the app starts a session with the admin token; its user ends it."""

    admin_only = frozenset({"POST"})

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Start a session. The order of errors is 403, then 413, 415 and 400."""
        now = req.context.now
        sign_in = read_json(req, SignInRequest).sign_in(
            now=now, max_lifetime_s=self.parts.sessions.lifetime_s
        )
        req.context.user = sign_in.user_id
        send_json(resp, _begun(self.parts.sessions.create(sign_in, now=now)), status=201)

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        """End the session, or all sessions of the browser's cookies. Doing it twice is not an error."""
        now = req.context.now
        for token in self.parts.signed_in.require_tokens(req):
            self.parts.sessions.end(token, now=now)
        self.parts.signed_in.clear_cookie(req, resp)
        send_json(resp, {"revoked": True})


class TrustedMint(Resource):
    """`POST /api/auth/sessions/trusted-mint`: the app starts a session with a signature instead of a token."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._secrets = parts.settings.trusted_secrets

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Start a session. The order of errors is 404, 413, 415, the 401s, 400 (the signature stays unused), 401 REPLAYED."""
        if not self._secrets:
            raise ApiError("NOT_FOUND")
        now = req.context.now
        body = read_body(req)
        check_json_type(req)
        mac = _checked_mac(req, body, self._secrets, now=now)
        sign_in = parse_model(TrustedMintRequest, body).sign_in(
            now=now, max_lifetime_s=self.parts.sessions.lifetime_s
        )
        req.context.user = sign_in.user_id
        try:
            new = self.parts.sessions.create(sign_in, now=now, single_use_proof=mac)
        except Replayed:
            raise ApiError("REPLAYED") from None
        send_json(resp, _begun(new), status=201)


def _checked_mac(req: falcon.Request, body: bytes, secrets: Sequence[bytes], *, now: int) -> bytes:
    timestamp = req.env.get("HTTP_X_PYLON_TRUSTED_TIMESTAMP")
    if not timestamp:
        raise ApiError("MISSING_TIMESTAMP")
    signature = req.env.get("HTTP_X_PYLON_TRUSTED_SIGNATURE")
    if not signature:
        raise ApiError("MISSING_SIGNATURE")
    if not _TIMESTAMP.fullmatch(timestamp) or abs(now - int(timestamp)) > TIMESTAMP_WINDOW_S:
        raise ApiError("STALE_TIMESTAMP")
    shown = bytes.fromhex(signature) if _HEX_MAC.fullmatch(signature) else b""
    signed = timestamp.encode() + b"." + body
    # All are compared, so that this always takes the same time.
    macs = [hmac.digest(secret, signed, "sha256") for secret in secrets]
    matching = [mac for mac in macs if hmac.compare_digest(shown, mac)]
    if not matching:
        raise ApiError("BAD_SIGNATURE")
    return matching[0]


class Me(Resource):
    """`GET /api/auth/me`: the session and its user."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with them. An absent scalar is null."""
        session = self.parts.signed_in.require(req, now=req.context.now, change=False)
        send_json(
            resp,
            {
                "user_id": session.user_id,
                "sid": session.sid,
                "tenant_id": session.tenant_id,
                "roles": list(session.roles),
                "claims": session.claims,
                "attributes": session.attributes,
                "device": session.device,
                "auth_time": session.auth_time,
                "acr": session.acr,
                "amr": list(session.amr),
                "expires_at": session.expires_at,
            },
        )


class Refresh(Resource):
    """`POST /api/auth/refresh`: a new token for the same session."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Refresh the session. If the token came in the cookie, the cookie is set again."""
        now = req.context.now
        session = self.parts.signed_in.require(req, now=now, change=True)
        new = self.parts.sessions.refresh(session, now=now)
        if new is None:
            raise ApiError("AUTH_REQUIRED")
        if self.parts.signed_in.came_by_cookie(req):
            self.parts.signed_in.set_cookie(req, resp, new.token, max_age_s=new.session.expires_at - now)
        send_json(resp, _begun(new))


class OwnSessions(Resource):
    """`/api/auth/sessions`: all sessions of the user."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List them."""
        now = req.context.now
        session = self.parts.signed_in.require(req, now=now, change=False)
        send_json(resp, _listed(self.parts.sessions.list(session.user_id, now=now), current_sid=session.sid))

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        """End all sessions except the current one."""
        now = req.context.now
        session = self.parts.signed_in.require(req, now=now, change=True)
        send_json(
            resp,
            {"revoked_count": self.parts.sessions.end_all(session.user_id, keep_sid=session.sid, now=now)},
        )


class OwnSession(Resource):
    """`DELETE /api/auth/sessions/{sid}`: sign one device out."""

    def on_delete(self, req: falcon.Request, resp: falcon.Response, sid: str) -> None:
        """End the session. The answer for another user's session is 404, as if it did not exist."""
        now = req.context.now
        session = self.parts.signed_in.require(req, now=now, change=True)
        if not self.parts.sessions.end_one(session.user_id, sid, now=now):
            raise ApiError("NOT_FOUND")
        send_json(resp, {"revoked": True})


class UserSessions(Resource):
    """`/api/auth/users/{user_id}/sessions`: the app lists a user's sessions, or locks the user out."""

    admin_only = True

    def on_get(self, req: falcon.Request, resp: falcon.Response, user_id: str) -> None:
        """List all of them; empty for an unknown user."""
        sessions = self.parts.sessions.list(user_id, now=req.context.now)
        send_json(resp, _listed(sessions, current_sid=None))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, user_id: str) -> None:
        """End all of them."""
        count = self.parts.sessions.lock_out(user_id, now=req.context.now)
        send_json(resp, {"revoked_count": count})


def routes(parts: Parts) -> tuple[Mount, ...]:
    """Their paths."""
    return (
        Mount("/api/auth/me", Me(parts)),
        Mount("/api/auth/refresh", Refresh(parts)),
        Mount("/api/auth/session", OneSession(parts)),
        Mount("/api/auth/sessions", OwnSessions(parts)),
        Mount("/api/auth/sessions/trusted-mint", TrustedMint(parts)),
        Mount("/api/auth/sessions/{sid}", OwnSession(parts)),
        Mount("/api/auth/users/{user_id}/sessions", UserSessions(parts), named_by_others=True),
    )
