"""The session of a request: finds and requires it, refuses other sites, sets and clears its cookie."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import falcon

from service.handles import is_session_token
from service.issuer import issuer_origin
from service.records.sessions import Session
from service.sessions import LocalSessions
from service.web.auth import check_same_origin, session_credential
from service.web.cookies import MOST_DROPPED, cookie_values, drop_cookie, set_cookie
from service.web.errors import ApiError


@dataclass(frozen=True, slots=True)
class SessionCookie:
    """The name and attributes of the app's session cookie, from the settings."""

    name: str
    domain: str | None
    same_site: str


class SignedIn:
    """Finds the session of a request.

    Args:
        sessions: the store of sessions.
        cookie: the app's session cookie.
        trusted_origins: the app's front ends on other hosts.
    """

    def __init__(
        self, sessions: LocalSessions, cookie: SessionCookie, trusted_origins: frozenset[str]
    ) -> None:
        self._sessions = sessions
        self._cookie = cookie
        self._trusted_origins = trusted_origins

    def require(self, req: falcon.Request, *, now: int, change: bool) -> Session:
        """The live session of the request.

        Args:
            req: the request.
            now: Unix s.
            change: whether the request changes something, so that its cookie is accepted only from the same origin.

        Raises:
            ApiError: `AUTH_REQUIRED`, the same answer for every fault of the session; `CROSS_SITE`.
        """
        credential = session_credential(req, self._cookie.name)
        session = only_one(self._live(credential.unverified_tokens, now))
        if session is None:
            raise ApiError("AUTH_REQUIRED")
        req.context.user = session.user_id
        if change and credential.by_cookie:
            self._check_same_origin(req)
        return session

    def require_tokens(self, req: falcon.Request) -> list[str]:
        """The well-formed session tokens, even if their sessions have ended; for signing out.

        Raises:
            ApiError: `AUTH_REQUIRED` if there is none, `CROSS_SITE`.
        """
        credential = session_credential(req, self._cookie.name)
        tokens = [token for token in credential.unverified_tokens if is_session_token(token)]
        if not tokens:
            raise ApiError("AUTH_REQUIRED")
        if credential.by_cookie:
            self._check_same_origin(req)
        return tokens

    @property
    def cookie_name(self) -> str:
        """The name of the app's cookie."""
        return self._cookie.name

    def shown(self, req: falcon.Request, *, now: int) -> list[Session]:
        """The live sessions of the cookie; other credentials are ignored. For pages that only browsers open."""
        return self._live(cookie_values(req, self._cookie.name), now)

    def came_by_cookie(self, req: falcon.Request) -> bool:
        """Whether the session token of the request came in the cookie."""
        return session_credential(req, self._cookie.name).by_cookie

    def set_cookie(self, req: falcon.Request, resp: falcon.Response, token: str, *, max_age_s: int) -> None:
        """Set the session cookie."""
        set_cookie(
            req,
            resp,
            self._cookie.name,
            token,
            max_age_s=max_age_s,
            same_site=self._cookie.same_site.capitalize(),
            domain=self._cookie.domain,
        )

    def clear_cookie(self, req: falcon.Request, resp: falcon.Response) -> int:
        """Delete the session cookie. Returns the number of deletions, which leave room for one more."""
        cookie, at_most = self._cookie, MOST_DROPPED - 1
        same_site = cookie.same_site.capitalize()
        return drop_cookie(req, resp, cookie.name, same_site=same_site, domain=cookie.domain, at_most=at_most)

    def _live(self, unverified_tokens: Iterable[str], now: int) -> list[Session]:
        found = (self._sessions.find(token, now=now) for token in unverified_tokens)
        return [session for session in found if session is not None]

    def _check_same_origin(self, req: falcon.Request) -> None:
        check_same_origin(
            req, own_origin=issuer_origin(req.context.issuer), trusted_origins=self._trusted_origins
        )


def only_one(live: Sequence[Session]) -> Session | None:
    """The session to use if several tokens were sent: with two live sessions, none."""
    return live[0] if len(live) == 1 else None
