"""`/oidc/authorize` and `/oidc/interaction/{id}`: from a request to a code, through the app's own sign-in.

A responder reads and checks the request; `resources/sign_in.py` continues from there.
"""

from __future__ import annotations

from collections.abc import Callable

import falcon

from service.client_documents import RETRY_S, DocumentBusy
from service.protocol import authorize as rules
from service.protocol.authorize import Asked, AuthorizationRequest, build_request
from service.protocol.client_documents import DocumentRefused
from service.protocol.devices import is_of_device
from service.protocol.errors import NotOurClient, OAuthError, return_address
from service.protocol.id_tokens import read_hint
from service.protocol.metadata import ENDPOINTS
from service.protocol.sign_in import OVER, CameBack, Consented, Denied, Event, Reported, ShowPage
from service.protocol.sign_in import Asked as WasAsked
from service.records.clients import Client
from service.records.interactions import Interaction, State
from service.resources.browser import STYLESHEET_PATH, wanted_by_app
from service.resources.device_sign_in import OfDevice
from service.resources.form_again import answer_again
from service.resources.parts import Page, Parts
from service.resources.sign_in import Ending, Flow, Seen
from service.web.auth import is_own_form
from service.web.binding import bind, is_bound
from service.web.mounts import Mount
from service.web.params import MalformedParameters, Parameters, read_form, read_query
from service.web.redirects import send_redirect

_MALFORMED = "The request is malformed."
_NO_DOCUMENT = (
    "This server could not find out who sent you here: the service's own description is missing or wrong."
)
_BUSY = "This server is busy: it is looking up other services. Wait a few seconds, and try again."
_DOCUMENTS = "PYLON_OIDC_CLIENT_DOCUMENTS"
_NO_KEY = "This server cannot sign people in to other services: it has no key for that."


class Authorize(Page):
    """`/oidc/authorize`."""

    head_is_get = False  # a GET changes something

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._flow, self._ending = Flow(parts), Ending(parts)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Check the request, and continue with it."""
        now = req.context.now
        came = self._read(req, resp, read_query)

        def look() -> Seen | None:
            request = None if came is None else self._checked(req, resp, came, now=now)
            return None if request is None else Seen(request, WasAsked(), self._ending)

        self._flow.go_on(req, resp, look, now=now)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Check and store the request, and redirect to a GET, to which browsers send `Lax` cookies."""
        now, flow = req.context.now, self._flow
        came = self._read(req, resp, read_form)
        request = None if came is None else self._checked(req, resp, came, now=now)
        if request is not None:
            interaction, cookie = flow.begin(req, request, State(began_at=now), now=now)
            bind(req, resp, interaction.id, cookie, max_age_s=interaction.expires_at - now)
            send_redirect(resp, wanted_by_app(interaction)["return_to"])

    def _read(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        read: Callable[[falcon.Request], Parameters],
    ) -> Parameters | None:
        browser = self.parts.browser
        if not self.parts.keys.current().can_sign_id_tokens:
            detail, known = "PYLON_OIDC_KEYS=managed gives it one", {"setting": "PYLON_OIDC_KEYS"}
            browser.show_error(req, resp, _NO_KEY, cause="no_key", detail=detail, known=known, status=501)
            return None
        try:
            return read(req)
        except MalformedParameters as error:
            browser.show_error(req, resp, _MALFORMED, cause="malformed_parameters", status=error.status)
            return None

    def _asked(self, req: falcon.Request, parameters: Parameters, *, now: int) -> Asked:
        """The request, and what is known about it.

        Raises:
            DocumentRefused: if the client is to be known by its document, and is not.
        """
        values, parts, issuer = parameters.values, self.parts, req.context.issuer
        client, hint_subject = None, None
        if "client_id" in values and "client_id" not in parameters.repeated:
            address = parts.browser.address(req)
            client = parts.documents.find(values["client_id"], address=address, now=now)
        if "id_token_hint" in values:
            hint = read_hint(parts.keys, values["id_token_hint"], issuer=issuer)
            # It is only a hint (OpenID Connect Core §3.1.2.1): if its key is gone, it is ignored.
            hint_subject = None if hint is None else hint["sub"]
        return Asked(values, parameters.repeated, client, hint_subject, parts.policies, issuer)

    def _checked(
        self, req: falcon.Request, resp: falcon.Response, came: Parameters, *, now: int
    ) -> AuthorizationRequest | None:
        parts = self.parts
        try:
            asked = self._asked(req, came, now=now)
        except DocumentRefused as refused:
            self._show_refused_document(req, resp, came.values["client_id"], refused)
            return None
        _note_client(req, asked.client)
        try:
            rules.check_request(asked, rules.BEFORE_TRUST)
        except NotOurClient as error:
            known = _decided(asked, error.rule)
            parts.browser.show_error(
                req, resp, error.reason, cause=error.rule, detail=error.detail, known=known
            )
            return None
        try:
            rules.check_request(asked, rules.AFTER_TRUST)
        except OAuthError as error:
            known = {"error": error.error} | _decided(asked, error.rule)
            parts.browser.log_refusal(req, error.description, known)
            self._ending.send_error(req, resp, error, return_address(asked.parameters, asked.repeated))
            return None
        request = build_request(asked)
        if rules.is_unbound(asked):
            parts.notices.tell(
                "client_without_pkce_and_nonce", request.client.client_id, now=now, setting="require_pkce"
            )
        return request

    def _show_refused_document(
        self, req: falcon.Request, resp: falcon.Response, client_id: str, refused: DocumentRefused
    ) -> None:
        """Show one page for every cause. Only the log has the cause: others could ask us about hosts that only we reach."""
        known = {"rule": refused.cause, "url": client_id.partition("?")[0], "setting": _DOCUMENTS}
        self.parts.browser.log_refusal(req, refused.detail, known)
        resp.context.error, resp.context.cause = "invalid_request", refused.cause
        if isinstance(refused, DocumentBusy):
            resp.context.error = "temporarily_unavailable"
            resp.set_header("Retry-After", str(RETRY_S))
            self.show_failure(req, resp, _BUSY, status=503)
            return
        self.show_failure(req, resp, _NO_DOCUMENT, status=400)


def _note_client(req: falcon.Request, client: Client | None) -> None:
    """Put the client into the log, if it is registered."""
    if client is not None:
        req.context.client_id = client.client_id


def _decided(asked: Asked, rule: str) -> dict[str, str]:
    """For the log: the rule that refused; and, if the client is known, the client and the member that decided."""
    known = {"rule": rule}
    if asked.client is not None:
        known["client_id"] = asked.client.client_id
    if rule in rules.DECIDED_BY:
        known["setting"] = rules.DECIDED_BY[rule]
    return known


class OpenInteraction(Page):
    """`/oidc/interaction/{id}`: the browser comes back here, and the built-in consent form is here."""

    head_is_get = False  # a GET changes something

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._flow, self._ending, self._of_device = Flow(parts), Ending(parts), OfDevice(parts)

    def on_get(self, req: falcon.Request, resp: falcon.Response, interaction_id: str) -> None:
        """Continue, for the browser that started it."""
        flow, parts, now = self._flow, self.parts, req.context.now
        try:
            verifier = read_query(req).values.get("verifier")
        except MalformedParameters:
            parts.browser.show_error(req, resp, _MALFORMED, cause="malformed_parameters")
            return

        def look() -> Seen | ShowPage:
            interaction = parts.interactions.find(interaction_id, issuer=req.context.issuer, now=now)
            if interaction is None or not is_bound(req, resp, interaction.id, interaction.is_browser):
                return OVER
            if verifier is None:
                return self._seen(interaction, CameBack(), now=now)
            report = parts.interactions.find_report(interaction, verifier, now=now)
            return self._seen(interaction, Reported(report), verifier, now=now)

        flow.go_on(req, resp, look, now=now)

    def on_post(self, req: falcon.Request, resp: falcon.Response, interaction_id: str) -> None:
        """Take the answer of the built-in consent form. For a minute, the same form gets the same answer again."""
        flow, parts, now = self._flow, self.parts, req.context.now
        try:
            form = read_form(req).values
        except MalformedParameters as error:
            parts.browser.show_error(req, resp, _MALFORMED, cause="malformed_form", status=error.status)
            return
        token = form.get("form_token", "") if is_own_form(req) else ""
        event = Consented(token) if form.get("decision") == "allow" else Denied(token)

        def look() -> Seen | ShowPage | None:
            interaction = parts.interactions.find(interaction_id, issuer=req.context.issuer, now=now)
            if interaction is not None and is_bound(req, resp, interaction.id, interaction.is_browser):
                return self._seen(interaction, event, now=now)
            again = bool(token) and answer_again(
                req, resp, interaction_id, token, flow=flow, ending_of=self._ending_of, now=now
            )
            return None if again else OVER

        flow.go_on(req, resp, look, now=now)

    def _seen(
        self, interaction: Interaction, event: Event, verifier: str | None = None, *, now: int
    ) -> Seen | ShowPage:
        """Read the interaction and check its request again, because its client may have changed."""
        parameters = interaction.parameters
        if is_of_device(parameters):
            return self._of_device.seen(interaction, event, verifier, now=now)
        client = self.parts.clients.find(parameters["client_id"], now=now)
        policies, hint_subject = self.parts.policies, interaction.hint_subject
        asked = Asked(parameters, frozenset(), client, hint_subject, policies, interaction.issuer)
        try:
            rules.check_request(asked, rules.BEFORE_TRUST + rules.AFTER_TRUST)
        except (NotOurClient, OAuthError) as error:
            if client is None:
                return ShowPage(error.rule)
            return ShowPage(
                error.rule, back=client.home(parameters["redirect_uri"]), client_id=client.client_id
            )
        return Seen(build_request(asked), event, self._ending, interaction, verifier)

    def _ending_of(self, redirect_uri: str) -> Ending:
        return self._ending if redirect_uri else self._of_device


def routes(parts: Parts) -> tuple[Mount, ...]:
    """Their paths, and that of the stylesheet of their pages."""
    return (
        Mount(ENDPOINTS["authorization_endpoint"], Authorize(parts)),
        Mount("/oidc/interaction/{interaction_id}", OpenInteraction(parts)),
        Mount(STYLESHEET_PATH, parts.stylesheet),
    )
