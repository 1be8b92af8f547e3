"""The user's browser: its session, its cookies, and the pages for it.

For users whom the app's backend has signed in, the provider keeps its own session, with a cookie for this host only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import falcon
import structlog

from service.handles import hash_handle, new_handle
from service.issuer import issuer_path
from service.records.interactions import Interaction
from service.records.sessions import Session
from service.resources.signed_in import SignedIn, only_one
from service.sessions import LocalSessions
from service.storage.interface import Kind, Record, Store
from service.web import binding
from service.web.cookies import MOST_DROPPED, cookie_values, drop_cookie, protected_name, set_cookie
from service.web.middleware import ClientAddress
from service.web.pages import send_page

PROVIDER_COOKIE: Final = "pylon_provider"
_MAX_EARLIER: Final = 20
STYLESHEET_PATH: Final = "/oidc/style.css"

_NOTHING: Final[Mapping[str, str]] = {}

_log = structlog.get_logger("browser")


@dataclass(frozen=True, slots=True)
class Shown:
    """The sessions of a browser.

    Attributes:
        by_app: live sessions of the app's cookie; more than one if it has several values.
        by_own: live sessions of the provider's own cookie.
        earlier: earlier sessions of the provider's own cookie, live or not: user id and `sid`.
    """

    by_app: tuple[Session, ...]
    by_own: tuple[Session, ...]
    earlier: tuple[tuple[str, str], ...]

    @property
    def sessions(self) -> tuple[Session, ...]:
        """All live sessions."""
        return (*self.by_app, *self.by_own)

    @property
    def ends(self) -> tuple[tuple[str, str], ...]:
        """The sessions that end when this browser signs out: user id and `sid`."""
        return (*((session.user_id, session.sid) for session in self.sessions), *self.earlier)

    def session(self, prefer_sid: str | None = None) -> Session | None:
        """The session to use: the app's or the provider's own.

        If one cookie has two live sessions, none is used, unless both are of the same user in the provider's own cookie.
        Between the two cookies, the preferred session is used, or else the one that signed in last.
        """
        own = _last(self.by_own) if len({session.user_id for session in self.by_own}) == 1 else None
        found = [session for session in (only_one(self.by_app), own) if session is not None]
        for session in found:
            if session.sid == prefer_sid:
                return session
        return _last(found)


def _last(sessions: Iterable[Session]) -> Session | None:
    return max(sessions, key=lambda session: session.auth_time, default=None)


@dataclass(frozen=True)
class Browser:
    """Sessions, cookies and pages of browsers.

    Attributes:
        store: the store of the provider's own sessions.
        sessions: the sessions of signed-in users.
        signed_in: finds the app's session by the app's cookie.
        addresses: finds the address of a request.
        stylesheet_version: part of the stylesheet's URL.
        brand_name: the name of this service on pages; None shows the issuer.
    """

    store: Store
    sessions: LocalSessions
    signed_in: SignedIn
    addresses: ClientAddress
    stylesheet_version: str
    brand_name: str | None = None

    def address(self, req: falcon.Request) -> str:
        """The address of the browser; empty if it is not known."""
        return self.addresses.network(req.env)

    # --- who is signed in ---

    def session(self, req: falcon.Request, *, prefer_sid: str | None = None, now: int) -> Session | None:
        """The session of this browser; see `Shown.session`."""
        return self.look(req, now=now).session(prefer_sid)

    def look(self, req: falcon.Request, *, now: int) -> Shown:
        """Read all sessions of the browser."""
        records = self._own_records(req, now)
        own = [self.sessions.of_sid(record.subject, record.session_id, now=now) for record in records]
        return Shown(
            by_app=tuple(self.signed_in.shown(req, now=now)),
            by_own=tuple(session for session in own if session is not None),
            earlier=tuple(pair for record in records for pair in _signed_in_by(record)),
        )

    def _own_records(self, req: falcon.Request, now: int) -> list[Record]:
        handles = cookie_values(req, protected_name(req, PROVIDER_COOKIE))
        found = [self.store.get(Kind.PROVIDER_SESSION, hash_handle(handle), now=now) for handle in handles]
        return [record for record in found if record and record.body["issuer"] == req.context.issuer]

    def own_session(self, req: falcon.Request, session: Session, *, now: int) -> tuple[Record, str]:
        """Create the provider's own session for the browser, new at each sign-in. It includes the earlier ones.

        Returns:
            The record to store if the session is still live, and the handle that finds it.
        """
        earlier = [list(pair) for record in self._own_records(req, now) for pair in _signed_in_by(record)]
        handle = new_handle()
        body = {"issuer": req.context.issuer, "earlier": earlier[-_MAX_EARLIER:]}
        record = Record(
            Kind.PROVIDER_SESSION,
            hash_handle(handle),
            session.expires_at,
            session.user_id,
            session_id=session.sid,
            body=body,
        )
        return record, handle

    def give_own_session(
        self, req: falcon.Request, resp: falcon.Response, session: Session, handle: str, *, now: int
    ) -> None:
        """Set the cookie of the provider's own session, after it was stored."""
        name = protected_name(req, PROVIDER_COOKIE)
        set_cookie(req, resp, name, handle, max_age_s=session.expires_at - now)

    def end(self, shown: Shown, *more: tuple[str, str], now: int) -> None:
        """End all sessions of the browser, its earlier ones, and more (user id, `sid`)."""
        for user_id, sid in dict.fromkeys((*shown.ends, *more)):
            self.sessions.end_one(user_id, sid, now=now)

    def is_one(self, req: falcon.Request) -> bool:
        """Whether the request looks like a browser's: it has headers that only browsers send, or one of our cookies."""
        ours = (self.signed_in.cookie_name, protected_name(req, PROVIDER_COOKIE))
        prefix = binding.prefix(req)
        return any(name.startswith("HTTP_SEC_FETCH_") for name in req.env) or any(
            name in ours or name.startswith(prefix) for name in req.cookies
        )

    def sign_out(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Delete both session cookies."""
        dropped = self.signed_in.clear_cookie(req, resp)
        drop_cookie(req, resp, protected_name(req, PROVIDER_COOKIE), at_most=MOST_DROPPED - dropped)

    # --- pages ---

    def show(
        self, req: falcon.Request, resp: falcon.Response, template: str, *, status: int = 200, **values: Any
    ) -> None:
        """Show a page."""
        send_page(
            resp,
            template,
            stylesheet=self.stylesheet(req),
            status=status,
            request_id=req.context.request_id,
            brand_name=self.brand_name,
            **values,
        )

    def stylesheet(self, req: falcon.Request) -> str:
        """The stylesheet's URL, for a page of this request."""
        return f"{issuer_path(req.context.issuer)}{STYLESHEET_PATH}?v={self.stylesheet_version}"

    def show_error(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        text: str,
        *,
        cause: str,
        detail: str = "",
        back: str | None = None,
        status: int = 400,
        known: Mapping[str, str] = _NOTHING,
    ) -> None:
        """Show the error page. It has the request id, with which the operator finds more in the log.

        Args:
            req: the request.
            resp: the answer.
            text: for the user.
            cause: one constant word for the log that names the rule.
            detail: for the operator, on the page and in the log, without secrets or anything of the request.
            back: where the user can go back to, if known.
            status: HTTP status.
            known: for the log: `rule`, and, if known, `client_id` and `setting`.
        """
        self.log_refusal(req, detail or text, known)
        resp.context.error = "server_error" if status >= 500 else "invalid_request"
        resp.context.cause = cause
        self.show_failure(req, resp, text, status=status, detail=detail, back=back)

    def log_refusal(self, req: falcon.Request, detail: str, known: Mapping[str, str]) -> None:
        """Log what was refused, and how the operator can change that."""
        _log.warning("refused", route=req.uri_template, detail=detail, **known)

    def show_failure(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        text: str,
        *,
        status: int,
        detail: str = "",
        back: str | None = None,
    ) -> None:
        """Show the error page for a failure that is not the request's fault. It is already logged."""
        self.show(
            req,
            resp,
            "error.html",
            status=status,
            title="This did not work",
            text=text,
            detail=detail,
            back=back,
        )


def _signed_in_by(record: Record) -> list[tuple[str, str]]:
    """The sessions of a provider session, earlier ones first: user id and `sid`."""
    return [*((user_id, sid) for user_id, sid in record.body["earlier"]), (record.subject, record.session_id)]


def wanted_by_app(interaction: Interaction) -> Mapping[str, str]:
    """The query parameters about an interaction for the app's pages."""
    return {
        "interaction": interaction.id,
        "return_to": f"{interaction.issuer}/oidc/interaction/{interaction.id}",
    }
