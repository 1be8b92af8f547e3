"""Shared by the endpoints of a sign-in: read facts, apply the rules, store the result, then run its effect.

If another request was faster, everything is read again. No effect runs for a state that was not stored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import falcon

from service.events import ConsentGiven
from service.handles import new_handle
from service.protocol.authorize import AuthorizationRequest
from service.protocol.consent import identity
from service.protocol.errors import OAuthError
from service.protocol.grants.authorization_code import new_code
from service.protocol.sign_in import (
    AskConsent,
    Consented,
    Denied,
    Effect,
    Event,
    Facts,
    Reported,
    SendCode,
    SendError,
    ShowPage,
    ToSignIn,
    kept_with,
    preferred_sid,
    step,
)
from service.records.clients import on_client
from service.records.consents import on_consent, remembered_scope, remembering
from service.records.form_answers import ANSWERED_S, Answered
from service.records.interactions import NOTHING, Beside, Interaction, State
from service.records.sessions import Session, on_session
from service.resources.browser import wanted_by_app
from service.resources.consent_page import show_consent
from service.resources.parts import Parts
from service.storage.interface import Contended
from service.web.binding import bind, keep_on, unbind
from service.web.redirects import send_authorization_response, send_redirect, with_parameters

#: How often another request may be faster. In each round of a race, one request succeeds. So this many tabs can be
#: opened at once, for example when a browser restarts.
_ATTEMPTS: Final = 64
_WORD: Final = re.compile(r"[a-z_]{1,64}", re.ASCII)
_OVER: Final = "This sign-in is over, or was begun in another browser."
_DEVICE_OVER: Final = "This code has expired, or it was used already. Start again on your device."
_NO_PAGE: Final = "This server cannot sign people in to other services: it has no sign-in page."


@dataclass(frozen=True)
class Ending:
    """How a sign-in ends: with an answer to the redirect URI of its client."""

    parts: Parts

    @property
    def consent_url(self) -> str | None:
        """The app's own consent page; None: we show ours."""
        return self.parts.settings.consent_url

    def consent_page(self, _interaction: Interaction) -> dict[str, Any]:
        """The template of our consent page, and the values that only it has."""
        return {"template": "consent.html"}

    def outcome(
        self, request: AuthorizationRequest, effect: SendCode | SendError, issuer: str, now: int
    ) -> tuple[Mapping[str, str], Beside]:
        """The parameters for the client, and what is stored with them."""
        if isinstance(effect, SendError):
            return _told(effect.error.parameters(), request.state, issuer), NOTHING
        code, beside = new_code(
            effect.request, effect.session, issuer=issuer, lifetimes=self.parts.lifetimes, now=now
        )
        if effect.unasked:
            consent = on_consent(effect.session.user_id, request.client.client_id, issuer)
            beside += Beside(standing_on=(consent,))
        return _told({"code": code}, request.state, issuer), beside

    def send(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        redirect_uri: str,
        parameters: Mapping[str, str],
        response_mode: str,
    ) -> None:
        """Send the browser there with these parameters."""
        stylesheet = self.parts.browser.stylesheet(req)
        send_authorization_response(
            resp, redirect_uri, parameters, response_mode=response_mode, stylesheet=stylesheet
        )

    def send_error(
        self, req: falcon.Request, resp: falcon.Response, error: OAuthError, to: tuple[str, str | None, str]
    ) -> None:
        """Send an error to a trusted redirect URI (URI, `state`, response mode), always with `state` and `iss`."""
        redirect_uri, state, response_mode = to
        note(resp, error.error, error.cause)
        told = _told(error.parameters(), state, req.context.issuer)
        self.send(req, resp, redirect_uri, told, response_mode)


@dataclass(frozen=True, slots=True)
class Seen:
    """An incoming request, checked against the current state.

    Attributes:
        request: the authorization request, checked with the client's current registration.
        event: the event.
        interaction: its interaction; None for a new request.
        verifier: the verifier of the report that the browser brings.
        ending: how the sign-in ends.
    """

    request: AuthorizationRequest
    event: Event
    ending: Ending
    interaction: Interaction | None = None
    verifier: str | None = None

    @property
    def form_token(self) -> str | None:
        """The token of the answered form."""
        return self.event.unverified_token if isinstance(self.event, Consented | Denied) else None


Look = Callable[[], Seen | ShowPage | None]


@dataclass(frozen=True, slots=True)
class _Stored:
    """What was stored, and what to send to the browser and the client.

    Attributes:
        interaction: its interaction; None if the request was answered at once.
        cookie: the cookie of a new interaction.
        handle: the handle of the provider's own session.
        told: the parameters for the client.
    """

    interaction: Interaction | None
    cookie: str | None = None
    handle: str | None = None
    told: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Flow:
    """Runs one step of a sign-in, for `Authorize` and `OpenInteraction`."""

    parts: Parts

    def go_on(self, req: falcon.Request, resp: falcon.Response, look: Look, *, now: int) -> None:
        """Read, decide, store, and only then run the effect. Starts again if another request was faster.

        Args:
            req: the request.
            resp: the answer.
            look: returns the checked request, or the page that says what is wrong; None if it has already answered.
            now: Unix s.

        Raises:
            Contended: if another request was faster at every attempt.
        """
        for _ in range(_ATTEMPTS):
            seen = look()
            if seen is None:
                return
            if isinstance(seen, ShowPage):
                self.show(req, resp, seen)
                return
            req.context.client_id = seen.request.client.client_id
            state = State(began_at=now) if seen.interaction is None else seen.interaction.state
            facts = self._facts(req, seen, state, now=now)
            after, effect = step(state, seen.event, facts, now=now)
            stored = self._store(req, seen, facts, state, after, effect, now=now)
            if stored is not None:
                self._tell(seen, facts, state, after)
                self._do(req, resp, seen, facts, effect, stored, now=now)
                return
        raise Contended

    def begin(
        self, req: falcon.Request, request: AuthorizationRequest, state: State, *, now: int
    ) -> tuple[Interaction, str]:
        """Store the request. Returns the value of the cookie that binds it to this browser."""
        return self.parts.interactions.begin(
            request.parameters,
            state,
            hint_subject=request.hint_subject,
            issuer=req.context.issuer,
            address=self.parts.browser.address(req),
            now=now,
        )

    # --- read ---

    def _facts(self, req: falcon.Request, seen: Seen, state: State, *, now: int) -> Facts:
        session = self._session(req, seen, state, now=now)
        client = seen.request.client
        remembered: tuple[str, ...] = ()
        if session is not None and not client.first_party:  # without a consent there is nothing to remember
            key = (session.user_id, client.client_id, req.context.issuer)
            remembered = remembered_scope(self.parts.browser.store, *key, identity(seen.request), now=now)
        opened_here = (req.uri_template or "").endswith("/oidc/interaction/{interaction_id}")
        shows_form = seen.ending.consent_url is None and opened_here and not req.query_string
        form_token = new_handle() if shows_form else None
        return Facts(seen.request, session, remembered, form_token, self.parts.login_url is not None)

    def _session(self, req: falcon.Request, seen: Seen, state: State, *, now: int) -> Session | None:
        report = seen.event.report if isinstance(seen.event, Reported) else None
        if report is not None and report.sid is not None and report.user_id is not None:
            session = self.parts.browser.sessions.of_sid(report.user_id, report.sid, now=now)
            if session is not None:
                return session
        return self.parts.browser.session(req, prefer_sid=preferred_sid(state, seen.event), now=now)

    # --- store ---

    def _store(
        self,
        req: falcon.Request,
        seen: Seen,
        facts: Facts,
        state: State,
        after: State,
        effect: Effect,
        *,
        now: int,
    ) -> _Stored | None:
        """Store the state and what its effect needs, in one transaction. Returns None if another request was faster."""
        issuer, request = req.context.issuer, seen.request
        beside, handle = NOTHING, None
        told: Mapping[str, str] | None = None
        kept = kept_with(state, after, seen.event, facts)
        if isinstance(effect, SendCode | SendError):
            told, beside = seen.ending.outcome(request, effect, issuer, now)
        if kept.remembered is not None and facts.session is not None:
            user_id, scope = kept.remembered
            change = remembering(user_id, request.client.client_id, issuer, identity(request), scope)
            beside += Beside((), (change,), (on_session(facts.session), *on_client(request.client)))
        if kept.signed_in is not None:
            record, handle = self.parts.browser.own_session(req, kept.signed_in, now=now)
            beside += Beside((record,), (), (on_session(kept.signed_in),))
        if seen.interaction is None:
            return self._store_first(req, request, after, effect, beside, told, now=now)
        answered = None
        if seen.form_token is not None and told is not None:
            answered = _answered(request, seen.interaction, seen.form_token, told)
        spent = seen.verifier if isinstance(seen.event, Reported) and seen.event.report is not None else None
        is_kept = self.parts.interactions.keep(
            seen.interaction, after, beside, unverified_verifier=spent, answered=answered, now=now
        )
        return _Stored(seen.interaction, None, handle, told) if is_kept else None

    def _store_first(
        self,
        req: falcon.Request,
        request: AuthorizationRequest,
        after: State,
        effect: Effect,
        beside: Beside,
        told: Mapping[str, str] | None,
        *,
        now: int,
    ) -> _Stored | None:
        if isinstance(effect, ToSignIn | AskConsent):
            return _Stored(*self.begin(req, request, after, now=now))
        # A request that is answered at once has no state to store.
        is_kept = beside == NOTHING or beside.put(self.parts.browser.store, now=now)
        return _Stored(None, told=told) if is_kept else None

    def _tell(self, seen: Seen, facts: Facts, state: State, after: State) -> None:
        """Report a consent, after it was stored."""
        given, session = after.consent, facts.session
        if given is None or given is state.consent or session is None:
            return
        kept = kept_with(state, after, seen.event, facts)
        self.parts.events.send(
            ConsentGiven(
                client_id=seen.request.client.client_id,
                subject=given.user_id,
                sid=session.sid,
                scope=given.scope,
                remembered=kept.remembered is not None,
            )
        )

    # --- run ---

    def _do(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        seen: Seen,
        facts: Facts,
        effect: Effect,
        stored: _Stored,
        *,
        now: int,
    ) -> None:
        interaction = stored.interaction
        if stored.handle is not None and facts.session is not None:
            self.parts.browser.give_own_session(req, resp, facts.session, stored.handle, now=now)
        if stored.cookie is not None and interaction is not None:
            bind(req, resp, interaction.id, stored.cookie, max_age_s=interaction.expires_at - now)
        if isinstance(effect, ShowPage):
            self.show(req, resp, effect)
        elif stored.told is not None:
            if isinstance(effect, SendError):
                note(resp, effect.error.error, effect.error.cause)
            if interaction is not None and seen.form_token is not None:
                keep_on(req, resp, interaction.id, interaction.is_browser, max_age_s=ANSWERED_S)
            elif interaction is not None:
                unbind(req, resp, interaction.id)
            request = seen.request
            seen.ending.send(req, resp, request.redirect_uri, stored.told, request.response_mode)
        elif isinstance(effect, ToSignIn) and interaction is not None and self.parts.login_url is not None:
            at = interaction.issuer if self.parts.login_url.startswith("/") else ""
            send_redirect(resp, with_parameters(at + self.parts.login_url, wanted_by_app(interaction)))
        elif isinstance(effect, AskConsent) and interaction is not None:
            self._ask_consent(req, resp, seen.ending, interaction, facts, effect)

    def _ask_consent(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        ending: Ending,
        interaction: Interaction,
        facts: Facts,
        effect: AskConsent,
    ) -> None:
        wanted, session = wanted_by_app(interaction), facts.session
        here = wanted["return_to"]
        if effect.form_token is None or session is None:
            url = ending.consent_url
            send_redirect(resp, here if url is None else with_parameters(url, wanted))
            return
        page = ending.consent_page(interaction)
        show_consent(self.parts, req, resp, facts.request, session, effect, action=here, **page)

    def show(self, req: falcon.Request, resp: falcon.Response, page: ShowPage) -> None:
        """Show an error page."""
        # Only for clients of the database, which the start could not know.
        text, detail = (_NO_PAGE, "PYLON_LOGIN_URL is unset") if page.status == 501 else (_OVER, "")
        text = _DEVICE_OVER if page.cause == "device_over" else text
        if page.client_id is not None:
            req.context.client_id = page.client_id
        self.parts.browser.show_error(
            req, resp, text, cause=page.cause, detail=detail, back=page.back, status=page.status
        )


def note(resp: falcon.Response, error: str, cause: str) -> None:
    """Put the error and the rule into the log. The app may have its own errors, so it is logged only if it is a plain word."""
    resp.context.error = error if _WORD.fullmatch(error) else "other"
    resp.context.cause = cause


def _told(parameters: Mapping[str, str], state: str | None, issuer: str) -> Mapping[str, str]:
    """The parameters for the client, always with its `state` and our `iss` (RFC 9207 §2)."""
    return {**parameters, **({} if state is None else {"state": state}), "iss": issuer}


def _answered(
    request: AuthorizationRequest, interaction: Interaction, form_token: str, told: Mapping[str, str]
) -> Answered:
    return Answered(
        interaction_id=interaction.id,
        issuer=interaction.issuer,
        form_token=form_token,
        browser_hash=interaction.browser_hash,
        client_id=request.client.client_id,
        redirect_uri=request.redirect_uri,
        response_mode=request.response_mode,
        parameters=told,
    )
