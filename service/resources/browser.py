"""The browser in front of us: its session, its cookies, the pages it is shown.

The provider keeps a session of its own for those whom the app's backend signed in: its cookie goes to this host alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import falcon
import structlog

from service.issuer import issuer_path
from service.protocol.handles import hash_handle, new_handle
from service.protocol.interactions import Interaction
from service.protocol.models import Session
from service.protocol.standing import on_session
from service.resources.signed_in import SignedIn
from service.sessions import LocalSessions
from service.storage.interface import Kind, NotStanding, Record, Store
from service.web.cookies import one_cookie, set_cookie
from service.web.middleware import ClientAddress
from service.web.pages import send_page

PROVIDER_COOKIE: Final = "pylon_provider"
_INTERACTION_COOKIE: Final = "pylon_interaction_"
_MAX_INTERACTIONS: Final = 8
_MAX_EARLIER: Final = 20
STYLESHEET_PATH: Final = "/oidc/style.css"

_log = structlog.get_logger("browser")


@dataclass(frozen=True)
class Browser:
    """What we know of browsers.

    Attributes:
        store: where the provider's own sessions live.
        sessions: who is signed in.
        signed_in: finds the app's session by the app's cookie.
        addresses: whose request it is.
        stylesheet_version: part of the stylesheet's address.
        brand_name: what people know this service by; None shows the issuer.
    """

    store: Store
    sessions: LocalSessions
    signed_in: SignedIn
    addresses: ClientAddress
    stylesheet_version: str
    brand_name: str | None = None

    def address(self, req: falcon.Request) -> str:
        """From which address the browser comes; empty where nobody knows."""
        return self.addresses.network(req.env)

    # --- who is signed in ---

    def session(self, req: falcon.Request, *, prefer_sid: str | None = None, now: int) -> Session | None:
        """The session of this browser: the app's, by the shared cookie, or the provider's own.

        Of two live ones the preferred one counts, else the one that signed in last.
        """
        found = [session for session in (self._app_session(req, now), self._own_session(req, now)) if session]
        for session in found:
            if session.sid == prefer_sid:
                return session
        return max(found, key=lambda session: session.auth_time, default=None)

    def _app_session(self, req: falcon.Request, now: int) -> Session | None:
        return self.sessions.find(self.signed_in.cookie_value(req), now=now)

    def _own_session(self, req: falcon.Request, now: int) -> Session | None:
        record = self._own_record(req, now)
        return None if record is None else self.sessions.of_sid(record.subject, record.session_id, now=now)

    def _own_record(self, req: falcon.Request, now: int) -> Record | None:
        handle = one_cookie(req, PROVIDER_COOKIE)
        if handle is None:
            return None
        record = self.store.get(Kind.PROVIDER_SESSION, hash_handle(handle), now=now)
        return None if record is None or record.body["issuer"] != req.context.issuer else record

    def sign_in(self, req: falcon.Request, resp: falcon.Response, session: Session, *, now: int) -> bool:
        """Give the browser a provider session of its own, new at each sign-in; it remembers the ones before.

        Returns:
            False where the session has ended meanwhile.
        """
        before = self._own_record(req, now)
        earlier = [] if before is None else [*before.body["earlier"], [before.subject, before.session_id]]
        handle = new_handle()
        record = Record(
            Kind.PROVIDER_SESSION,
            hash_handle(handle),
            session.expires_at,
            session.user_id,
            session_id=session.sid,
            body={"issuer": req.context.issuer, "earlier": earlier[-_MAX_EARLIER:]},
        )
        try:
            self.store.put(record, standing_on=[on_session(session)], now=now)
        except NotStanding:
            return False
        set_cookie(req, resp, PROVIDER_COOKIE, handle, max_age_s=session.expires_at - now)
        return True

    def end(self, req: falcon.Request, session: Session, *, now: int) -> None:
        """End the session, and those that this browser had before it signed in anew."""
        record = self._own_record(req, now)
        for user_id, sid in [] if record is None else record.body["earlier"]:
            self.sessions.end_one(user_id, sid, now=now)
        self.sessions.end_one(session.user_id, session.sid, now=now)

    def sign_out(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Take both session cookies from the browser."""
        set_cookie(req, resp, PROVIDER_COOKIE, "", max_age_s=0)
        self.signed_in.clear_cookie(req, resp)

    # --- which interactions it began ---

    def bind(
        self, req: falcon.Request, resp: falcon.Response, interaction: Interaction, cookie: str, *, now: int
    ) -> None:
        """Bind an interaction to this browser, by a cookie of its own; the oldest beyond eight are dropped."""
        self.drop_oldest(req, resp, interaction)
        max_age_s = interaction.expires_at - now
        set_cookie(req, resp, _INTERACTION_COOKIE + interaction.id, cookie, max_age_s=max_age_s)

    def drop_oldest(self, req: falcon.Request, resp: falcon.Response, interaction: Interaction) -> None:
        """Leave seven besides this one: a POST from another site, which shows none, may have begun any number."""
        others = [name for name in req.cookies if name.startswith(_INTERACTION_COOKIE)]
        others = [name for name in others if name != _INTERACTION_COOKIE + interaction.id]
        for name in others[: max(0, len(others) - _MAX_INTERACTIONS + 1)]:
            set_cookie(req, resp, name, "", max_age_s=0)

    def unbind(self, req: falcon.Request, resp: falcon.Response, interaction: Interaction) -> None:
        """Drop the cookie of an interaction that is over."""
        set_cookie(req, resp, _INTERACTION_COOKIE + interaction.id, "", max_age_s=0)

    def began(self, req: falcon.Request, interaction: Interaction) -> bool:
        """Whether this browser began the interaction."""
        return interaction.is_browser(one_cookie(req, _INTERACTION_COOKIE + interaction.id))

    # --- what it is shown ---

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
        """The stylesheet's address, for a page of this request."""
        return f"{issuer_path(req.context.issuer)}{STYLESHEET_PATH}?v={self.stylesheet_version}"

    def show_error(
        self, req: falcon.Request, resp: falcon.Response, text: str, *, detail: str = "", status: int = 400
    ) -> None:
        """Show the error page; the operator finds the detail in the log by the request id that it names."""
        _log.warning(
            "refused", request_id=req.context.request_id, route=req.uri_template, detail=detail or text
        )
        self.show_failure(req, resp, text, status=status)

    def show_failure(self, req: falcon.Request, resp: falcon.Response, text: str, *, status: int) -> None:
        """Show the error page for what is no fault of the request; the log has it already."""
        self.show(req, resp, "error.html", status=status, title="This did not work", text=text)


def wanted_by_app(interaction: Interaction) -> Mapping[str, str]:
    """What the app's pages are told of an interaction in their address."""
    return {
        "interaction": interaction.id,
        "return_to": f"{interaction.issuer}/oidc/interaction/{interaction.id}",
    }
