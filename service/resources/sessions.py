"""`/api/auth/*`: sessions are begun by the app, and seen, refreshed and ended by their users."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import falcon

from service.records.sessions import Session
from service.resources.sign_in_request import SignInRequest, TrustedMintRequest
from service.resources.signed_in import SignedIn
from service.sessions import LocalSessions, NewSession, Replayed
from service.web.auth import AdminAuth
from service.web.bodies import check_json_type, parse_model, read_body, read_json
from service.web.errors import ApiError
from service.web.render import send_json

Clock = Callable[[], float]
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


class OneSession:
    """`/api/auth/session`: the app begins one with the admin token; its user ends it."""

    def __init__(self, sessions: LocalSessions, signed_in: SignedIn, admin: AdminAuth, clock: Clock) -> None:
        self._sessions = sessions
        self._signed_in = signed_in
        self._admin = admin
        self._clock = clock

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """403, then 413, 415 and 400."""
        self._admin.require(req)
        now = int(self._clock())
        sign_in = read_json(req, SignInRequest).sign_in(now=now, max_lifetime_s=self._sessions.lifetime_s)
        req.context.user = sign_in.user_id
        send_json(resp, _begun(self._sessions.create(sign_in, now=now)), status=201)

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        """End the session, or all that the browser shows; saying so twice is no mistake."""
        now = int(self._clock())
        for token in self._signed_in.require_tokens(req):
            self._sessions.end(token, now=now)
        self._signed_in.clear_cookie(req, resp)
        send_json(resp, {"revoked": True})


class TrustedMint:
    """`POST /api/auth/sessions/trusted-mint`: the app begins a session by a signature instead of a token."""

    def __init__(self, sessions: LocalSessions, secret: bytes | None, clock: Clock) -> None:
        self._sessions = sessions
        self._secret = secret
        self._clock = clock

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """404, 413, 415, then the 401s in their order, then 400 without spending the signature, then 401 REPLAYED."""
        if self._secret is None:
            raise ApiError("NOT_FOUND")
        now = int(self._clock())
        body = read_body(req)
        check_json_type(req)
        mac = _checked_mac(req, body, self._secret, now=now)
        sign_in = parse_model(TrustedMintRequest, body).sign_in(
            now=now, max_lifetime_s=self._sessions.lifetime_s
        )
        req.context.user = sign_in.user_id
        try:
            new = self._sessions.create(sign_in, now=now, single_use_proof=mac)
        except Replayed:
            raise ApiError("REPLAYED") from None
        send_json(resp, _begun(new), status=201)


def _checked_mac(req: falcon.Request, body: bytes, secret: bytes, *, now: int) -> bytes:
    timestamp = req.env.get("HTTP_X_PYLON_TRUSTED_TIMESTAMP")
    if not timestamp:
        raise ApiError("MISSING_TIMESTAMP")
    signature = req.env.get("HTTP_X_PYLON_TRUSTED_SIGNATURE")
    if not signature:
        raise ApiError("MISSING_SIGNATURE")
    if not _TIMESTAMP.fullmatch(timestamp) or abs(now - int(timestamp)) > TIMESTAMP_WINDOW_S:
        raise ApiError("STALE_TIMESTAMP")
    expected = hmac.digest(secret, timestamp.encode() + b"." + body, "sha256")
    if not _HEX_MAC.fullmatch(signature) or not hmac.compare_digest(bytes.fromhex(signature), expected):
        raise ApiError("BAD_SIGNATURE")
    return expected


class Me:
    """`GET /api/auth/me`: what the session says of its user."""

    def __init__(self, signed_in: SignedIn, clock: Clock) -> None:
        self._signed_in = signed_in
        self._clock = clock

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """An absent scalar is null."""
        session = self._signed_in.require(req, now=int(self._clock()), change=False)
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


class Refresh:
    """`POST /api/auth/refresh`: a new token for the same session."""

    def __init__(self, sessions: LocalSessions, signed_in: SignedIn, clock: Clock) -> None:
        self._sessions = sessions
        self._signed_in = signed_in
        self._clock = clock

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """A browser that came with the cookie gets the new one."""
        now = int(self._clock())
        session = self._signed_in.require(req, now=now, change=True)
        new = self._sessions.refresh(session, now=now)
        if new is None:
            raise ApiError("AUTH_REQUIRED")
        if self._signed_in.came_by_cookie(req):
            self._signed_in.set_cookie(req, resp, new.token, max_age_s=new.session.expires_at - now)
        send_json(resp, _begun(new))


class OwnSessions:
    """`/api/auth/sessions`: where else its user is signed in."""

    def __init__(self, sessions: LocalSessions, signed_in: SignedIn, clock: Clock) -> None:
        self._sessions = sessions
        self._signed_in = signed_in
        self._clock = clock

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List them."""
        now = int(self._clock())
        session = self._signed_in.require(req, now=now, change=False)
        send_json(resp, _listed(self._sessions.list(session.user_id, now=now), current_sid=session.sid))

    def on_delete(self, req: falcon.Request, resp: falcon.Response) -> None:
        """End all but the current."""
        now = int(self._clock())
        session = self._signed_in.require(req, now=now, change=True)
        send_json(
            resp, {"revoked_count": self._sessions.end_all(session.user_id, keep_sid=session.sid, now=now)}
        )


class OwnSession:
    """`DELETE /api/auth/sessions/{sid}`: sign one device out."""

    def __init__(self, sessions: LocalSessions, signed_in: SignedIn, clock: Clock) -> None:
        self._sessions = sessions
        self._signed_in = signed_in
        self._clock = clock

    def on_delete(self, req: falcon.Request, resp: falcon.Response, sid: str) -> None:
        """404 for another's, as for none."""
        now = int(self._clock())
        session = self._signed_in.require(req, now=now, change=True)
        if not self._sessions.end_one(session.user_id, sid, now=now):
            raise ApiError("NOT_FOUND")
        send_json(resp, {"revoked": True})


class UserSessions:
    """`/api/auth/users/{user_id}/sessions`: how an app locks somebody out."""

    def __init__(self, sessions: LocalSessions, admin: AdminAuth, clock: Clock) -> None:
        self._sessions = sessions
        self._admin = admin
        self._clock = clock

    def on_get(self, req: falcon.Request, resp: falcon.Response, user_id: str) -> None:
        """List them all; none for an unknown user."""
        self._admin.require(req)
        sessions = self._sessions.list(user_id, now=int(self._clock()))
        send_json(resp, _listed(sessions, current_sid=None))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, user_id: str) -> None:
        """End them all."""
        self._admin.require(req)
        count = self._sessions.lock_out(user_id, now=int(self._clock()))
        send_json(resp, {"revoked_count": count})
