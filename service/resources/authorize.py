"""`/oidc/authorize` and `/oidc/interaction/{id}`: from a request to a code, through the app's own sign-in.

A responder parses, asks the rules what comes next, and does that one thing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import falcon

from service.clients import Clients
from service.handles import hash_handle, new_handle
from service.keys.signing import Keys
from service.notices import Notices
from service.protocol import authorize as rules
from service.protocol.authorize import Asked, AuthorizationRequest
from service.protocol.errors import NotOurClient, OAuthError
from service.protocol.grants.authorization_code import new_code
from service.protocol.id_tokens import read_hint
from service.records.clients import Client
from service.records.consents import on_consent
from service.records.interactions import Answered, Interaction, Interactions, Progress, Report, Step, advance
from service.records.lifetimes import Lifetimes
from service.records.sessions import Session
from service.resources.browser import Browser, wanted_by_app
from service.storage.interface import NotStanding
from service.web.auth import is_own_form
from service.web.params import MalformedParameters, Parameters, read_form, read_query
from service.web.redirects import send_authorization_response, send_redirect, with_parameters

_WORD = re.compile(r"[a-z_]{1,64}", re.ASCII)
_OVER = "This sign-in is over, or was begun in another browser."
_MALFORMED = "The request is malformed."
_NO_PAGE = "This server cannot sign people in to other services: it has no sign-in page."
_NO_KEY = "This server cannot sign people in to other services: it has no key for that."


@dataclass(frozen=True)
class Flow:
    """Takes a request one step further; what `Authorize` and `OpenInteraction` share.

    Attributes:
        browser: who is in front of us.
        clients: who is registered.
        interactions: what waits.
        keyring: reads hints; without a signing key nothing begins.
        lifetimes: of codes.
        clock: Unix s.
        notices: tells the operator what a client lacks.
        login_url: the app's sign-in page, or the path of a page of ours; None: nobody can sign in.
        consent_url: the app's consent page; None means the built-in one.
    """

    browser: Browser
    clients: Clients
    interactions: Interactions
    keyring: Keys
    lifetimes: Lifetimes
    clock: Callable[[], float]
    notices: Notices
    login_url: str | None
    consent_url: str | None

    def asked(self, parameters: Parameters, *, issuer: str, now: int) -> Asked:
        """What came in, and what is known about it."""
        values = parameters.values
        client = self.clients.find(values["client_id"], now=now) if "client_id" in values else None
        hint_subject = None
        if "id_token_hint" in values:
            hint = read_hint(self.keyring, values["id_token_hint"], issuer=issuer)
            # It is a hint (OpenID Connect Core §3.1.2.1): one whose key has gone says nothing, and refuses nothing.
            hint_subject = None if hint is None else hint["sub"]
        return Asked(values, parameters.repeated, client, hint_subject)

    def go_on(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        request: AuthorizationRequest,
        interaction: Interaction | None,
        session: Session | None,
        *,
        form_token: str | None = None,
        now: int,
    ) -> None:
        """Do what the rules say comes next: sign in, consent, or the code; with the token of the form that was answered."""
        sid = None if session is None else session.sid
        if interaction is not None and interaction.progress.sign_in_attempts == 0:
            interaction = advance(interaction, sid_before=sid)  # a POST began it, which showed no session
        progress = Progress(began_at=now, sid_before=sid) if interaction is None else interaction.progress
        issuer = req.context.issuer
        remembered: tuple[str, ...] = ()
        if session is not None and not request.client.first_party:  # who is not asked has nothing to remember
            client_id = request.client.client_id
            remembered = self.interactions.remembered_scope(session.user_id, client_id, issuer, now=now)
        try:
            step = rules.next_step(request, progress, session, remembered, now=now)
        except OAuthError as error:
            self.refuse(req, resp, request, error, interaction, form_token=form_token, now=now)
            return
        if step is Step.ISSUE and session is not None:
            self._issue(req, resp, request, interaction, session, form_token=form_token, now=now)
            return
        if step is Step.LOGIN or session is None:
            if self.login_url is None:  # clients of the database alone: the start could not know of them
                self.browser.show_error(
                    req, resp, _NO_PAGE, cause="no_login_url", detail="PYLON_LOGIN_URL is unset", status=501
                )
                return
            interaction = interaction or self.begin(req, resp, request, session, now=now)
            self._send_to_login(resp, interaction, self.login_url, now=now)
        else:
            interaction = interaction or self.begin(req, resp, request, session, now=now)
            self._ask_consent(req, resp, request, interaction, session, now=now)

    def begin(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        request: AuthorizationRequest,
        session: Session | None,
        *,
        now: int,
    ) -> Interaction:
        """Keep the request, bound to this browser."""
        sid = None if session is None else session.sid
        interaction, cookie = self.interactions.begin(
            request.parameters,
            hint_subject=request.hint_subject,
            issuer=req.context.issuer,
            address=self.browser.address(req),
            sid_before=sid,
            now=now,
        )
        self.browser.bind(req, resp, interaction, cookie, now=now)
        return interaction

    def refuse(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        request: AuthorizationRequest,
        error: OAuthError,
        interaction: Interaction | None,
        *,
        form_token: str | None = None,
        now: int,
    ) -> None:
        """Send the error to the client; the interaction is over."""
        state = {} if request.state is None else {"state": request.state}
        parameters = error.parameters() | state | {"iss": req.context.issuer}
        if interaction is not None and form_token is not None:
            answered = _answered(request, interaction, form_token, parameters)
            if not self.interactions.finish(interaction, None, answered, now=now) and self.again(
                req, resp, interaction.id, form_token, now=now
            ):
                return
            self.browser.keep_a_minute(req, resp, interaction)
        elif interaction is not None:
            self.interactions.finish(interaction, None, now=now)
            self.browser.unbind(req, resp, interaction)
        _note(resp, error.error, error.cause)
        self._send(req, resp, request.redirect_uri, parameters, request.response_mode)

    def again(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        interaction_id: str,
        unverified_token: str,
        *,
        now: int,
    ) -> bool:
        """Answer a form again that this browser sent within the minute, with the same; whether it was one.

        A code that was used since is not sent twice: then a page says that it is over.
        """
        answered = self.interactions.answered(
            interaction_id, unverified_token, issuer=req.context.issuer, now=now
        )
        if answered is None or not self.browser.is_of(req, interaction_id, answered.browser_hash):
            return False
        req.context.client_id = answered.client_id
        if answered.parameters:
            if "error" in answered.parameters:
                _note(resp, answered.parameters["error"], "answered_before")
            self._send(req, resp, answered.redirect_uri, answered.parameters, answered.response_mode)
            return True
        client = self.clients.find(answered.client_id, now=now)
        back = None if client is None else client.home(answered.redirect_uri)
        self.browser.show_error(req, resp, _OVER, cause="interaction_over", back=back)
        return True

    def send_error(
        self, req: falcon.Request, resp: falcon.Response, error: OAuthError, to: tuple[str, str | None, str]
    ) -> None:
        """Send an error to a trusted redirect URI (URI, `state`, response mode): always with `state` and `iss`."""
        redirect_uri, state, response_mode = to
        parameters = (
            error.parameters() | ({} if state is None else {"state": state}) | {"iss": req.context.issuer}
        )
        _note(resp, error.error, error.cause)
        self._send(req, resp, redirect_uri, parameters, response_mode)

    def _send(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        redirect_uri: str,
        parameters: Mapping[str, str],
        response_mode: str,
    ) -> None:
        send_authorization_response(
            resp,
            redirect_uri,
            parameters,
            response_mode=response_mode,
            stylesheet=self.browser.stylesheet(req),
        )

    def _issue(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        request: AuthorizationRequest,
        interaction: Interaction | None,
        session: Session,
        *,
        form_token: str | None,
        now: int,
    ) -> None:
        issuer = req.context.issuer
        agreed = None if interaction is None else interaction.progress.agreed_by(session.user_id)
        if agreed is not None:
            request = rules.cut_to(request, agreed)
            if not request.scope:
                error = OAuthError("invalid_scope", "The client may no longer have what the user agreed to.")
                self.refuse(req, resp, request, error, interaction, form_token=form_token, now=now)
                return
        unasked = agreed is None and not request.client.first_party
        new = new_code(request, session, issuer=issuer, lifetimes=self.lifetimes, now=now)
        if unasked:  # what was remembered is why
            consent = on_consent(session.user_id, request.client.client_id, issuer)
            new = replace(new, standing_on=(*new.standing_on, consent))
        state = {} if request.state is None else {"state": request.state}
        parameters = {"code": new.code, **state, "iss": issuer}
        try:
            if interaction is None:
                self.browser.store.put(
                    *new.records, changes=new.changes, standing_on=new.standing_on, now=now
                )
            elif form_token is None:
                if not self.interactions.finish(interaction, new, now=now):
                    self.browser.show_error(req, resp, _OVER, cause="interaction_over")
                    return
                self.browser.unbind(req, resp, interaction)
            else:
                answered = _answered(request, interaction, form_token, parameters)
                if not self.interactions.finish(interaction, new, answered, now=now):
                    if not self.again(req, resp, interaction.id, form_token, now=now):
                        self.browser.show_error(req, resp, _OVER, cause="interaction_over")
                    return
                self.browser.keep_a_minute(req, resp, interaction)
        except NotStanding:
            # The session has ended meanwhile, the client is another, or the consent is gone: all is looked at again.
            kept = interaction or self.begin(req, resp, request, session, now=now)
            send_redirect(resp, wanted_by_app(kept)["return_to"])
            return
        self._send(req, resp, request.redirect_uri, parameters, request.response_mode)

    def _send_to_login(
        self, resp: falcon.Response, interaction: Interaction, login_url: str, *, now: int
    ) -> None:
        sid_before = interaction.progress.sid_before

        def sent(known: Interaction) -> Interaction:
            attempts = known.progress.sign_in_attempts + 1
            return replace(advance(known, sid_before=sid_before, sign_in_attempts=attempts), step=Step.LOGIN)

        self.interactions.change(interaction, sent, now=now)
        if login_url.startswith("/"):
            login_url = interaction.issuer + login_url
        send_redirect(resp, with_parameters(login_url, wanted_by_app(interaction)))

    def _ask_consent(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        request: AuthorizationRequest,
        interaction: Interaction,
        session: Session,
        *,
        now: int,
    ) -> None:
        here = wanted_by_app(interaction)["return_to"]
        opened_here = (req.uri_template or "").endswith(
            "/oidc/interaction/{interaction_id}"
        ) and not req.query_string
        is_own_page = self.consent_url is None and opened_here
        token, sid_before = new_handle(), interaction.progress.sid_before

        def asked(known: Interaction) -> Interaction:
            # A form that was shown to somebody else answers nothing from now on.
            form_token_hash = hash_handle(token) if is_own_page else ""
            known = advance(known, sid_before=sid_before)
            shown = request.disclosed
            if (
                known.asked_user_id == session.user_id
            ):  # a page that still lies open has shown no more than this
                shown = tuple(word for word in known.shown if word in shown)
            return replace(
                known,
                step=Step.CONSENT,
                asked_sid=session.sid,
                asked_user_id=session.user_id,
                shown=shown,
                form_token_hash=form_token_hash,
            )

        kept = self.interactions.change(interaction, asked, now=now)
        if kept is None:
            self.browser.show_error(req, resp, _OVER, cause="interaction_over")
            return
        if not is_own_page:
            consent_url = self.consent_url
            send_redirect(
                resp,
                here if consent_url is None else with_parameters(consent_url, wanted_by_app(interaction)),
            )
            return
        client = request.client
        self.browser.show(
            req,
            resp,
            "consent.html",
            client=client,
            logo_uri=client.logo_uri,
            scope=kept.shown,
            descriptions=client.scopes.descriptions,
            user_name=session.claims.get("name") or session.user_id,
            form_token=token,
            action=here,
        )


class Authorize:
    """`/oidc/authorize`."""

    head_is_get = False  # nobody looks at this without doing it

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self.show_failure = flow.browser.show_failure

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Check the request, and go on with it."""
        now = int(self._flow.clock())
        request = self._checked(req, resp, read_query, now=now)
        if request is not None:
            session = self._flow.browser.session(req, now=now)
            self._flow.go_on(req, resp, request, None, session, now=now)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Check the request, keep it, and come back with a GET, where `Lax` cookies come along."""
        now = int(self._flow.clock())
        request = self._checked(req, resp, read_form, now=now)
        if request is not None:
            interaction = self._flow.begin(req, resp, request, None, now=now)
            send_redirect(resp, wanted_by_app(interaction)["return_to"])

    def _checked(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        read: Callable[[falcon.Request], Parameters],
        *,
        now: int,
    ) -> AuthorizationRequest | None:
        flow = self._flow
        if not flow.keyring.current().can_sign_id_tokens:
            detail, known = "PYLON_OIDC_KEYS=managed gives it one", {"setting": "PYLON_OIDC_KEYS"}
            flow.browser.show_error(
                req, resp, _NO_KEY, cause="no_key", detail=detail, known=known, status=501
            )
            return None
        try:
            asked = flow.asked(read(req), issuer=req.context.issuer, now=now)
            _note_client(req, asked.client)
            rules.check_request(asked, rules.BEFORE_TRUST)
        except MalformedParameters as error:
            flow.browser.show_error(req, resp, _MALFORMED, cause="malformed_parameters", status=error.status)
            return None
        except NotOurClient as error:
            flow.browser.show_error(
                req,
                resp,
                error.reason,
                cause=error.rule,
                detail=error.detail,
                known=_decided(asked, error.rule),
            )
            return None
        try:
            rules.check_request(asked, rules.AFTER_TRUST)
        except OAuthError as error:
            flow.browser.log_refusal(
                req, error.description, {"error": error.error} | _decided(asked, error.rule)
            )
            flow.send_error(req, resp, error, rules.return_address(asked))
            return None
        request = rules.build_request(asked)
        if rules.is_unbound(asked):
            flow.notices.tell(
                "client_without_pkce_and_nonce", request.client.client_id, now=now, setting="require_pkce"
            )
        return request


def _note(resp: falcon.Response, error: str, cause: str) -> None:
    """For the log: the error that is answered, as far as it is a word (the app has errors of its own), and which rule refused."""
    resp.context.error = error if _WORD.fullmatch(error) else "other"
    resp.context.cause = cause


def _note_client(req: falcon.Request, client: Client | None) -> None:
    """For the log: whose request it is, where that is a client of ours."""
    if client is not None:
        req.context.client_id = client.client_id


def _decided(asked: Asked, rule: str) -> dict[str, str]:
    """Which rule refused; whose registration decided, where the client is known, and which member of it."""
    known = {"rule": rule}
    if asked.client is not None:
        known["client_id"] = asked.client.client_id
    if rule in rules.DECIDED_BY:
        known["setting"] = rules.DECIDED_BY[rule]
    return known


class OpenInteraction:
    """`/oidc/interaction/{id}`: where the browser comes back to, and where the built-in consent form is."""

    head_is_get = False  # nobody looks at this without doing it

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self.show_failure = flow.browser.show_failure

    def on_get(self, req: falcon.Request, resp: falcon.Response, interaction_id: str) -> None:
        """Go on, for the browser that began it."""
        flow, now = self._flow, int(self._flow.clock())
        opened = self._opened(req, resp, interaction_id, now=now)
        if opened is None:
            return
        interaction, request = opened
        try:
            verifier = read_query(req).values.get("verifier")
        except MalformedParameters:
            flow.browser.show_error(req, resp, _MALFORMED, cause="malformed_parameters")
            return
        session = None
        if verifier is not None:
            report = flow.interactions.take_report(interaction, verifier, now=now)
            if report is None:
                flow.browser.show_error(req, resp, _OVER, cause="verifier_over")
                return
            if report.error:
                words = report.error["error"], report.error["error_description"]
                error = OAuthError(*words, cause="rejected_by_app")
                flow.refuse(req, resp, request, error, interaction, now=now)
                return
            interaction, session = self._apply(req, resp, request, interaction, report, now=now)
        if session is None:
            session = flow.browser.session(req, prefer_sid=interaction.progress.signed_in_sid, now=now)
        flow.go_on(req, resp, request, interaction, session, now=now)

    def on_post(self, req: falcon.Request, resp: falcon.Response, interaction_id: str) -> None:
        """Take the answer of the built-in consent form."""
        flow, now = self._flow, int(self._flow.clock())
        try:
            form = read_form(req).values
        except MalformedParameters as error:
            flow.browser.show_error(req, resp, _MALFORMED, cause="malformed_form", status=error.status)
            return
        token = form.get("form_token", "") if is_own_form(req) else ""
        opened = self._opened(req, resp, interaction_id, form_token=token, now=now)
        if opened is None:
            return
        interaction, request = opened
        if not answers_form(token, interaction.form_token_hash):
            flow.browser.show_error(req, resp, _OVER, cause="not_the_form_shown", status=403)
            return
        session = flow.browser.session(req, prefer_sid=interaction.asked_sid, now=now)
        if session is None or session.sid != interaction.asked_sid:  # somebody else was asked
            flow.go_on(req, resp, request, interaction, session, now=now)
            return
        if form.get("decision") != "allow":
            denied = OAuthError("access_denied", "The user said no.", cause="denied_by_user")
            flow.refuse(req, resp, request, denied, interaction, form_token=token, now=now)
            return
        agreed = flow.interactions.consent(
            interaction, session, request.client, interaction.shown, remember=True, now=now
        )
        if agreed is not None:
            flow.go_on(req, resp, request, agreed, session, form_token=token, now=now)
        elif not flow.again(req, resp, interaction.id, token, now=now):
            # What was asked has changed meanwhile: all is looked at again.
            send_redirect(resp, wanted_by_app(interaction)["return_to"])

    def _opened(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        interaction_id: str,
        *,
        form_token: str = "",
        now: int,
    ) -> tuple[Interaction, AuthorizationRequest] | None:
        """The interaction, for the browser that began it alone, and its request, checked again.

        Of one that is over, the form that ended it is answered again for a minute.
        """
        flow = self._flow
        interaction = flow.interactions.find(interaction_id, issuer=req.context.issuer, now=now)
        if interaction is None or not flow.browser.began(req, interaction):
            if not form_token or not flow.again(req, resp, interaction_id, form_token, now=now):
                flow.browser.show_error(req, resp, _OVER, cause="interaction_over")
            return None
        flow.browser.drop_oldest(req, resp, interaction)
        parameters = interaction.parameters
        client = flow.clients.find(parameters["client_id"], now=now)
        _note_client(req, client)
        asked = Asked(parameters, frozenset(), client, interaction.hint_subject)
        try:  # a client may have changed, or gone, meanwhile
            rules.check_request(asked, rules.BEFORE_TRUST + rules.AFTER_TRUST)
        except (NotOurClient, OAuthError) as error:
            back = None if client is None else client.home(parameters["redirect_uri"])
            flow.browser.show_error(req, resp, _OVER, cause=error.rule, back=back)
            return None
        return interaction, rules.build_request(asked)

    def _apply(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        request: AuthorizationRequest,
        interaction: Interaction,
        report: Report,
        *,
        now: int,
    ) -> tuple[Interaction, Session | None]:
        flow = self._flow
        if report.sid is not None and report.user_id is not None:
            session = flow.browser.sessions.of_sid(report.user_id, report.sid, now=now)
            if session is not None and not flow.browser.sign_in(req, resp, session, now=now):
                session = None
            changed = flow.interactions.change(
                interaction, lambda known: advance(known, signed_in_sid=report.sid), now=now
            )
            return changed or interaction, session
        session = flow.browser.session(req, prefer_sid=interaction.asked_sid, now=now)
        asked = (interaction.asked_user_id, interaction.asked_sid)
        if report.scope is None or session is None or (session.user_id, session.sid) != asked:
            return interaction, session
        # To nothing of what was asked: that is no consent.
        if report.user_id != session.user_id or not report.scope:
            return interaction, session
        # That they are known to the client at all is what every sign-in is about: openid is not taken out.
        scope = tuple(word for word in interaction.shown if word in ("openid", *report.scope))
        agreed = flow.interactions.consent(
            interaction, session, request.client, scope, remember=report.remember, now=now
        )
        return agreed or interaction, session


def _answered(
    request: AuthorizationRequest, interaction: Interaction, form_token: str, parameters: Mapping[str, str]
) -> Answered:
    return Answered(
        form_token,
        interaction.browser_hash,
        request.client.client_id,
        request.redirect_uri,
        request.response_mode,
        parameters,
    )


def answers_form(unverified_token: str | None, token_hash: str) -> bool:
    """Whether the one-time token is the one of the form that was shown last."""
    return bool(token_hash) and unverified_token is not None and hash_handle(unverified_token) == token_hash
