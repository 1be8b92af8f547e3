"""`/oidc/logout`: signing out at a client's wish.

Spec: OpenID Connect RP-Initiated Logout 1.0 §2, §3
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import falcon

from service.clients import Clients
from service.keyring import Keys
from service.protocol.clients import Client
from service.protocol.handles import hash_handle, new_handle
from service.protocol.id_tokens import read_hint
from service.protocol.models import Session
from service.resources.browser import Browser
from service.storage.interface import Kind, Record
from service.web.auth import is_own_form
from service.web.params import MalformedParameters, read_form, read_query
from service.web.redirects import send_redirect, with_parameters

_FORM_S = 600
_DONE = "signed_out"
_POSTED = "posted"
_MALFORMED = "The request is malformed."
_UNFIT = "The request to sign you out does not fit its service."
_TOO_OLD = "This page is too old."
_KEPT = ("id_token_hint", "client_id", "post_logout_redirect_uri", "state", "logout_hint", "ui_locales")


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a request asks for, as far as it may be believed.

    Attributes:
        client: the client of the hint, else of `client_id`.
        subject, sid: of a genuine hint.
        return_to: where to go afterwards: registered, with `state`; None to stay.
    """

    client: Client | None
    subject: str | None
    sid: str | None
    return_to: str | None


class Logout:
    """The end-session endpoint.

    Args:
        browser: who is in front of us.
        clients: who is registered.
        keyring: reads hints.
        clock: Unix s.
        logout_url: the app's own sign-out page, gone to afterwards.
    """

    head_is_get = False  # nobody looks at this without doing it

    def __init__(
        self,
        browser: Browser,
        clients: Clients,
        keyring: Keys,
        clock: Callable[[], float],
        *,
        logout_url: str | None,
    ) -> None:
        self._browser = browser
        self.show_failure = browser.show_failure
        self._clients = clients
        self._keyring = keyring
        self._clock = clock
        self._logout_url = logout_url

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Sign out at once where a genuine hint names the user; ask where it does not."""
        now = int(self._clock())
        try:
            parameters = read_query(req)
        except MalformedParameters:
            self._browser.show_error(req, resp, _MALFORMED)
            return
        if _DONE in parameters.values:  # back from the app's own sign-out page
            nobody = self._browser.session(req, now=now) is None
            self._browser.show(req, resp, "logged_out.html", issuer=req.context.issuer, signed_out=nobody)
            return
        values: Mapping[str, str] | None = parameters.values
        if _POSTED in parameters.values:
            values = self._posted(parameters.values[_POSTED], now=now)
        if values is None:
            self._browser.show_error(req, resp, _TOO_OLD)
            return
        wish = None if parameters.repeated else self._wish(req, values, now=now)
        if wish is None:
            self._browser.show_error(req, resp, _UNFIT)
            return
        session = self._browser.session(req, prefer_sid=wish.sid, now=now)
        if session is None:  # without a hint nobody is sent on unasked (§2)
            self._leave(req, resp, wish if wish.subject is not None else replace(wish, return_to=None))
        elif wish.subject == session.user_id:
            self._sign_out(req, resp, wish, session, now=now)
        else:
            self._ask(req, resp, wish, session, values, now=now)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Take the answer of the confirm form; any other POST comes back as a GET, where cookies come along."""
        now = int(self._clock())
        try:
            form = read_form(req)
        except MalformedParameters as error:
            self._browser.show_error(req, resp, _MALFORMED, status=error.status)
            return
        if form.repeated:
            self._browser.show_error(req, resp, _UNFIT)
            return
        if "form_token" not in form.values:
            address = self._keep(form.values, now=now)
            send_redirect(resp, with_parameters(f"{req.context.issuer}/oidc/logout", address))
            return
        asked = self._browser.store.take(Kind.VERIFIER, _form_hash(form.values["form_token"]), now=now)
        session = self._browser.session(req, now=now)
        if asked is None or not is_own_form(req) or (session is not None and asked.session_id != session.sid):
            self._browser.show_error(req, resp, _TOO_OLD, status=403)
            return
        wish = self._wish(req, asked.body["parameters"], now=now) or _Wish(None, None, None, None)
        if form.values.get("decision") != "allow":
            self._browser.show(
                req, resp, "logged_out.html", issuer=req.context.issuer, signed_out=session is None
            )
        elif session is None:
            self._leave(req, resp, wish)
        else:
            self._sign_out(req, resp, wish, session, now=now)

    def _keep(self, values: Mapping[str, str], *, now: int) -> Mapping[str, str]:
        """Keep what was posted, which may be longer than an address; the parameters of the GET that finds it."""
        kept = {name: values[name] for name in _KEPT if name in values}
        if not kept:
            return {}
        handle = new_handle()
        record = Record(Kind.VERIFIER, _request_hash(handle), now + _FORM_S, body={"parameters": kept})
        self._browser.store.put(record, now=now)
        return {_POSTED: handle}

    def _posted(self, unverified_handle: str, *, now: int) -> Mapping[str, str] | None:
        """What was posted; None when it is over. Not taken, for a page may be loaded anew."""
        record = self._browser.store.get(Kind.VERIFIER, _request_hash(unverified_handle), now=now)
        return None if record is None else record.body["parameters"]

    def _wish(self, req: falcon.Request, values: Mapping[str, str], *, now: int) -> _Wish | None:
        """What may be believed of a request; None when its parts contradict each other."""
        hint = None
        if "id_token_hint" in values:
            hint = read_hint(self._keyring, values["id_token_hint"], issuer=req.context.issuer)
        client_id = values.get("client_id") if hint is None else str(hint["aud"])
        if values.get("client_id") not in (None, client_id):
            return None
        client = None if client_id is None else self._clients.find(client_id, now=now)
        if hint is not None and client is None:
            return None
        return_to = None
        wanted = values.get("post_logout_redirect_uri")
        if wanted is not None:
            # Exactly as it is registered, for this very client; else nobody is sent anywhere (§3).
            if client is None or wanted not in client.post_logout_redirect_uris:
                if hint is not None:
                    return None
            else:
                state = {"state": values["state"]} if "state" in values else {}
                return_to = with_parameters(wanted, state)
        if hint is None:
            return _Wish(client, None, None, return_to)
        return _Wish(client, hint["sub"], hint.get("sid"), return_to)

    def _ask(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        wish: _Wish,
        session: Session,
        values: Mapping[str, str],
        *,
        now: int,
    ) -> None:
        token = new_handle()
        kept = {name: values[name] for name in _KEPT if name in values}
        self._browser.store.put(
            Record(
                Kind.VERIFIER,
                _form_hash(token),
                now + _FORM_S,
                session_id=session.sid,
                body={"parameters": kept},
            ),
            now=now,
        )
        self._browser.show(
            req,
            resp,
            "logout_confirm.html",
            user_name=session.claims.get("name") or session.user_id,
            client_name=None if wish.client is None else wish.client.name,
            form_token=token,
            action=f"{req.context.issuer}/oidc/logout",
        )

    def _sign_out(
        self, req: falcon.Request, resp: falcon.Response, wish: _Wish, session: Session, *, now: int
    ) -> None:
        self._browser.end(req, session, now=now)
        self._leave(req, resp, wish)

    def _leave(self, req: falcon.Request, resp: falcon.Response, wish: _Wish) -> None:
        self._browser.sign_out(req, resp)
        issuer = req.context.issuer
        if self._logout_url is not None:
            back = wish.return_to or f"{issuer}/oidc/logout?{_DONE}=1"
            send_redirect(resp, with_parameters(self._logout_url, {"return_to": back}))
        elif wish.return_to is not None:
            send_redirect(resp, wish.return_to)
        else:
            self._browser.show(req, resp, "logged_out.html", issuer=issuer, signed_out=True)


def _form_hash(unverified_token: str) -> str:
    """The id of a form's token, which no verifier of an interaction has."""
    return hash_handle(f"logout form\n{unverified_token}")


def _request_hash(unverified_handle: str) -> str:
    """The id of a request that was posted, which neither a form nor an interaction has."""
    return hash_handle(f"logout request\n{unverified_handle}")
