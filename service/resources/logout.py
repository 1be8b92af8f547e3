"""`/oidc/logout`: signs a user out when a client requests it.

Spec: OpenID Connect RP-Initiated Logout 1.0 §2, §3
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import falcon

from service.handles import hash_handle, new_handle
from service.protocol.id_tokens import read_hint
from service.protocol.metadata import ENDPOINTS
from service.records.clients import Client
from service.records.waiting import as_kept, from_kept, is_too_large
from service.resources.browser import Shown
from service.resources.parts import Page, Parts
from service.storage.interface import Kind, Record
from service.web.auth import is_own_form
from service.web.mounts import Mount
from service.web.params import MalformedParameters, Parameters, read_form, read_query
from service.web.redirects import send_redirect, with_parameters

_FORM_S = 600
_DONE = "signed_out"
_POSTED = "posted"
_MALFORMED = "The request is malformed."
_UNFIT = "The request to sign you out does not fit its service."
_TOO_LARGE = "The request to sign you out is too large."
_TOO_OLD = "This page is too old."
_NOT_HERE = "Nobody was signed out: the session was not started in this browser. It ends in the browser that started it."


@dataclass(frozen=True, slots=True)
class _Wish:
    """The verified part of a request.

    Attributes:
        client: the client of the hint, or else of `client_id`.
        subject, sid: from a verified hint.
        uri: the registered URI to go to afterwards; None to stay.
        state: the `state` for that URI.
    """

    client: Client | None = None
    subject: str | None = None
    sid: str | None = None
    uri: str | None = None
    state: str | None = None

    @property
    def return_to(self) -> str | None:
        """The complete URL to go to."""
        if self.uri is None:
            return None
        return with_parameters(self.uri, {} if self.state is None else {"state": self.state})

    def is_of(self, shown: Shown) -> bool:
        """Whether the hint names the browser's own session, so that no confirmation is needed."""
        session = shown.session(self.sid)
        return self.subject is not None and (
            (session is not None and self.subject == session.user_id)
            or (self.subject, self.sid) in [(each.user_id, each.sid) for each in shown.sessions]
        )

    @property
    def kept(self) -> Mapping[str, str]:
        """The parameters to store. The content of the hint is stored separately."""
        client_id = None if self.client is None else self.client.client_id
        values = {"client_id": client_id, "post_logout_redirect_uri": self.uri, "state": self.state}
        return {name: value for name, value in values.items() if value is not None}


class Logout(Page):
    """The end-session endpoint."""

    head_is_get = False  # a GET changes something

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Sign out at once if a verified hint names the user; otherwise ask."""
        now = req.context.now
        try:
            parameters = read_query(req)
        except MalformedParameters:
            self.parts.browser.show_error(req, resp, _MALFORMED, cause="malformed_query")
            return
        if _is_way_back(req.query_string):
            self._go_back(req, resp, parameters.values.get(_DONE, ""), now=now)
            return
        if _POSTED in parameters.values and not parameters.repeated:
            wish = self._posted(req, resp, parameters.values[_POSTED], now=now)
        else:
            wish = self._asked(req, resp, parameters, now=now)
        if wish is None:
            return
        shown = self.parts.browser.look(req, now=now)
        if wish.subject is None and not shown.sessions:  # without a hint, never redirect without asking (§2)
            self._leave(req, resp, replace(wish, uri=None), now=now)
        elif self._is_certain(req, wish, shown, now=now):
            self._sign_out(req, resp, wish, shown, now=now)
        else:
            self._ask(req, resp, wish, shown, now=now)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Take the answer of the confirm form. Any other POST is redirected to a GET, to which browsers send `Lax` cookies."""
        now = req.context.now
        try:
            form = read_form(req)
        except MalformedParameters as error:
            self.parts.browser.show_error(req, resp, _MALFORMED, cause="malformed_form", status=error.status)
            return
        if "form_token" not in form.values or form.repeated:
            wish = self._asked(req, resp, form, now=now)
            if wish is not None:
                found_by = self._keep(req, wish, now=now)
                send_redirect(resp, with_parameters(f"{req.context.issuer}/oidc/logout", found_by))
            return
        store, id_hash = self.parts.browser.store, _form_hash(form.values["form_token"])
        asked = store.get(Kind.INTERACTION, id_hash, now=now)
        shown = self.parts.browser.look(req, now=now)
        sids = {session.sid for session in shown.sessions}
        if asked is None or not is_own_form(req) or (sids and asked.session_id not in sids):
            self.parts.browser.show_error(req, resp, _TOO_OLD, cause="not_the_form_shown", status=403)
            return
        wish = self._kept(req, asked, now=now) or _Wish()
        is_yes = form.values.get("decision") == "allow"
        if is_yes and asked.session_id not in {sid for _, sid in shown.ends}:
            back = wish.return_to
            self.parts.browser.show_error(
                req, resp, _NOT_HERE, cause="not_this_browser", status=403, back=back
            )
        # Use the token up only for a valid answer: a form that another site sends must stay valid for the user.
        elif store.take(Kind.INTERACTION, id_hash, now=now) is None:
            self.parts.browser.show_error(req, resp, _TOO_OLD, cause="not_the_form_shown", status=403)
        elif not is_yes:
            self.parts.browser.show(
                req, resp, "logged_out.html", issuer=req.context.issuer, signed_out=not sids
            )
        else:
            self._sign_out(req, resp, wish, shown, now=now)

    def _is_certain(self, req: falcon.Request, wish: _Wish, shown: Shown, *, now: int) -> bool:
        """Whether the hint is enough to sign out without asking.

        If its session is not in this browser, the hint is enough only for a client with a backend, which keeps the ID
        token secret; in browsers, ID tokens appear in URLs. A session that has already ended needs no question.
        """
        if shown.sessions:
            return wish.is_of(shown)
        if wish.subject is None or wish.sid is None:
            return False
        if self.parts.browser.sessions.of_sid(wish.subject, wish.sid, now=now) is None:
            return True
        return wish.client is not None and wish.client.logout_by_hint and not self.parts.browser.is_one(req)

    # --- the request ---

    def _asked(
        self, req: falcon.Request, resp: falcon.Response, parameters: Parameters, *, now: int
    ) -> _Wish | None:
        """The verified part of a request; None if an error page was sent."""
        wish = None if parameters.repeated else self._wish(req, parameters.values, now=now)
        if wish is None:
            cause = "no_repeats" if parameters.repeated else "logout_request_unfit"
            self.parts.browser.show_error(req, resp, _UNFIT, cause=cause)
        elif is_too_large(wish.kept):
            self.parts.browser.show_error(req, resp, _TOO_LARGE, cause="size")
        else:
            return wish
        return None

    def _wish(self, req: falcon.Request, values: Mapping[str, str], *, now: int) -> _Wish | None:
        hint = None
        if "id_token_hint" in values:
            hint = read_hint(self.parts.keys, values["id_token_hint"], issuer=req.context.issuer)
        if hint is None:
            return self._believed(values, None, None, now=now)
        client_id = str(hint["aud"])
        if values.get("client_id") not in (None, client_id):
            return None
        return self._believed({**values, "client_id": client_id}, hint["sub"], hint.get("sid"), now=now)

    def _believed(
        self, values: Mapping[str, str], subject: str | None, sid: str | None, *, now: int
    ) -> _Wish | None:
        """The part that the client may request; None if the parameters contradict each other."""
        client = self.parts.clients.find(values["client_id"], now=now) if "client_id" in values else None
        uri = values.get("post_logout_redirect_uri")
        # Exactly as registered for this client; otherwise there is no redirect (§3).
        registered = client is not None and uri in client.post_logout_redirect_uris
        if subject is not None and (client is None or not (uri is None or registered)):
            return None
        if not registered:
            return _Wish(client, subject, sid)
        return _Wish(client, subject, sid, uri, values.get("state"))

    # --- stored requests ---

    def _keep(self, req: falcon.Request, wish: _Wish, *, now: int) -> Mapping[str, str]:
        """Store a POST, which may be longer than a URL. Returns the parameters of the GET that finds it.

        Without a hint or a client there is nothing to store: the user is asked anyway.
        """
        if wish.client is None:
            return {}
        handle = new_handle()
        self.parts.waiting.keep(
            self._to_record(req, wish, _request_hash(handle), now=now), ending=True, now=now
        )
        return {_POSTED: handle}

    def _posted(
        self, req: falcon.Request, resp: falcon.Response, unverified_handle: str, *, now: int
    ) -> _Wish | None:
        """Read the stored POST; None if an error page was sent. It stays stored, because the page may be reloaded."""
        record = self.parts.browser.store.get(Kind.INTERACTION, _request_hash(unverified_handle), now=now)
        if record is None or record.body["issuer"] != req.context.issuer:
            self.parts.browser.show_error(req, resp, _TOO_OLD, cause="logout_request_over")
            return None
        wish = self._kept(req, record, now=now)
        if wish is None:  # its client has changed
            self.parts.browser.show_error(req, resp, _UNFIT, cause="logout_request_unfit")
        return wish

    def _to_record(self, req: falcon.Request, wish: _Wish, id_hash: str, *, now: int) -> Record:
        body = {
            "issuer": req.context.issuer,
            "request": as_kept(wish.kept),
            "subject": wish.subject,
            "sid": wish.sid,
        }
        return Record(Kind.INTERACTION, id_hash, now + _FORM_S, self.parts.browser.address(req), body=body)

    def _kept(self, req: falcon.Request, record: Record, *, now: int) -> _Wish | None:
        body = record.body
        if body["issuer"] != req.context.issuer:
            return None
        return self._believed(from_kept(body["request"]), body["subject"], body["sid"], now=now)

    # --- effects ---

    def _ask(
        self, req: falcon.Request, resp: falcon.Response, wish: _Wish, shown: Shown, *, now: int
    ) -> None:
        # With only a hint, the page asks about that session and shows nothing of its user. The answer counts only if the
        # browser has the session then, because an ID token is not secret.
        names = {session.user_id: session.claims.get("name") or session.user_id for session in shown.sessions}
        sid = shown.sessions[0].sid if shown.sessions else wish.sid
        token = new_handle()
        form = self._to_record(req, wish, _form_hash(token), now=now)
        self.parts.waiting.keep(replace(form, session_id=sid or ""), ending=True, now=now)
        self.parts.browser.show(
            req,
            resp,
            "logout_confirm.html",
            user_names=list(names.values()),
            client_name=None if wish.client is None else wish.client.name,
            form_token=token,
            action=f"{req.context.issuer}/oidc/logout",
        )

    def _sign_out(
        self, req: falcon.Request, resp: falcon.Response, wish: _Wish, shown: Shown, *, now: int
    ) -> None:
        """End all sessions of the browser, and the hint's session if it belongs to the same user."""
        hinted = [] if wish.subject is None or wish.sid is None else [(wish.subject, wish.sid)]
        if shown.sessions and wish.subject not in {user_id for user_id, _ in shown.ends}:
            hinted = []
        self.parts.browser.end(shown, *hinted, now=now)
        self._leave(req, resp, wish, now=now)

    def _leave(self, req: falcon.Request, resp: falcon.Response, wish: _Wish, *, now: int) -> None:
        """Delete the cookies and redirect: first to the app's page, which redirects back to us."""
        self.parts.browser.sign_out(req, resp)
        issuer = req.context.issuer
        if self.parts.settings.logout_url is not None:
            back = f"{issuer}/oidc/logout?{_DONE}"
            if wish.return_to is not None:
                handle = new_handle()
                self.parts.waiting.keep(self._to_record(req, wish, _back_hash(handle), now=now), now=now)
                back = f"{back}={handle}"
            send_redirect(resp, with_parameters(self.parts.settings.logout_url, {"return_to": back}))
        elif wish.return_to is not None:
            send_redirect(resp, wish.return_to)
        else:
            self.parts.browser.show(req, resp, "logged_out.html", issuer=issuer, signed_out=True)

    def _go_back(
        self, req: falcon.Request, resp: falcon.Response, unverified_handle: str, *, now: int
    ) -> None:
        """Handle the redirect back from the app's sign-out page. It ends nothing, and may be repeated."""
        record = self.parts.browser.store.get(Kind.INTERACTION, _back_hash(unverified_handle), now=now)
        wish = None if record is None else self._kept(req, record, now=now)
        if wish is not None and wish.return_to is not None:
            send_redirect(resp, wish.return_to)
            return
        nobody = not self.parts.browser.look(req, now=now).sessions
        self.parts.browser.show(req, resp, "logged_out.html", issuer=req.context.issuer, signed_out=nobody)


def _is_way_back(query: str) -> bool:
    """Whether the query has `signed_out`, with or without a handle."""
    return any(part.partition("=")[0] == _DONE for part in query.split("&"))


def _back_hash(unverified_handle: str) -> str:
    """The id of a stored way back, distinct from all other stored ids."""
    return hash_handle(f"logout way back\n{unverified_handle}")


def _form_hash(unverified_token: str) -> str:
    """The id of a form's token, distinct from all other stored ids."""
    return hash_handle(f"logout form\n{unverified_token}")


def _request_hash(unverified_handle: str) -> str:
    """The id of a stored POST, distinct from all other stored ids."""
    return hash_handle(f"logout request\n{unverified_handle}")


def routes(parts: Parts) -> tuple[Mount, ...]:
    """Its path."""
    return (Mount(ENDPOINTS["end_session_endpoint"], Logout(parts)),)
