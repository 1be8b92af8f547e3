"""`/api/oidc/interactions/{id}`: the app's backend reports what the user did. Needs the admin token.

Every answer is a URL for the user's browser. The verifier in it works once.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import falcon
from msgspec import UNSET, Meta, UnsetType, structs

from service.handles import new_handle
from service.policies.pairs import agreed_entries, apis_of, required_acr, required_age_s, told
from service.policies.values import Policies
from service.protocol.authorize import Asked, build_request
from service.protocol.consent import about
from service.protocol.devices import PAGE, is_of_device, is_of_page
from service.records.clients import Client
from service.records.interactions import Interaction, Report, Step, on_interaction
from service.records.scopes import words_of
from service.records.sessions import Session
from service.resources.browser import wanted_by_app
from service.resources.parts import Parts, Resource
from service.resources.sign_in_request import SignInRequest, UserId
from service.storage.interface import NotStanding, Record
from service.web.bodies import StrictModel, read_json, read_optional_json
from service.web.errors import ApiError
from service.web.mounts import Mount
from service.web.redirects import with_parameters
from service.web.render import send_json

# RFC 6749 §4.1.2.1: %x20-21 / %x23-5B / %x5D-7E
_Printable = Annotated[str, Meta(pattern=r"^[\x20\x21\x23-\x5b\x5d-\x7e]{1,255}\Z")]
#: The claims of OpenID Connect Core §5.1 that a page shows of a user.
_DISPLAY_CLAIMS: Final = (
    "name", "given_name", "family_name", "nickname", "preferred_username", "picture", "email"
)  # fmt: skip


class _ConsentRequest(StrictModel, frozen=True):
    scope: Annotated[str, Meta(max_length=1024)] | UnsetType = UNSET
    remember: bool = True
    user_id: UserId | UnsetType = UNSET


class _Rejection(StrictModel, frozen=True):
    error: _Printable = "access_denied"
    error_description: _Printable = "The user, or the app on their behalf, denied the request."


class _Base(Resource):
    admin_only = True

    def _opened(self, interaction_id: str, *, now: int) -> Interaction:
        # The backend may use an internal address: the interaction knows its own issuer.
        interaction = self.parts.interactions.find(interaction_id, issuer=None, now=now)
        if interaction is None:
            raise ApiError("NOT_FOUND")
        return interaction

    def _answer(self, resp: falcon.Response, interaction: Interaction, report: Report, *, now: int) -> None:
        verifier = self.parts.interactions.report(interaction, report, now=now)
        if verifier is None:
            raise ApiError("NOT_FOUND")
        self._send(resp, interaction, verifier)

    @staticmethod
    def _send(resp: falcon.Response, interaction: Interaction, verifier: str) -> None:
        here = wanted_by_app(interaction)["return_to"]
        send_json(resp, {"redirect_to": with_parameters(here, {"verifier": verifier})})


class OneInteraction(_Base):
    """`GET /api/oidc/interactions/{id}`: what the app's page should show."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, interaction_id: str) -> None:
        """Answer with the request and its client."""
        now = req.context.now
        interaction = self._opened(interaction_id, now=now)
        client = self._client(interaction, now=now)
        if client is None:
            raise ApiError("NOT_FOUND")
        shown = _shown(interaction, client, self.parts.policies)
        if interaction.state.step is Step.CONSENT:
            shown |= self._asked_user(interaction, now=now)
        send_json(resp, shown)

    def _client(self, interaction: Interaction, *, now: int) -> Client | None:
        if is_of_page(interaction.parameters):
            return PAGE
        return self.parts.clients.find(interaction.parameters["client_id"], now=now)

    def _asked_user(self, interaction: Interaction, *, now: int) -> dict[str, Any]:
        """The user whose consent is needed, so that the app's page asks no one else."""
        claims = self.parts.sessions.user(interaction.state.asked_user_id, now=now).claims
        return {
            "user_id": interaction.state.asked_user_id,
            "sid": interaction.state.asked_sid,
            "claims": {name: claims[name] for name in _DISPLAY_CLAIMS if name in claims},
        }


def _shown(interaction: Interaction, client: Client, policies: Policies) -> dict[str, Any]:
    asked = interaction.parameters
    # What the user has to agree to, including the scopes of claims that are requested one by one.
    request = build_request(Asked(asked, frozenset(), client, policies=policies, issuer=interaction.issuer))
    scope, known = request.disclosed, about(request)
    if interaction.state.step is Step.CONSENT:
        scope = tuple(word for word in interaction.state.shown if word in scope)
    shown: dict[str, Any] = {
        "id": interaction.id,
        "client": {
            "client_id": client.client_id,
            "client_name": client.client_name,
            "logo_uri": known.logo_uri,
            "policy_uri": client.policy_uri,
            "tos_uri": client.tos_uri,
            "first_party": client.first_party,
        },
        "scope": told(scope),
        "prompt": asked.get("prompt"),
        "max_age": required_age_s(request.audiences, request.max_age),
        "acr_values": required_acr(request.audiences, asked.get("acr_values")),
        "login_hint": asked.get("login_hint"),
        "ui_locales": asked.get("ui_locales"),
        "expires_at": interaction.expires_at,
        "step": interaction.state.step,
    }
    if resources := [api.as_json() for api in apis_of(scope, client, policies)]:
        shown["resources"] = resources
    if known.is_warned_of:
        shown["origin"] = known.as_json()
    return shown


class ReportLogin(_Base):
    """`POST …/login`: the app has signed a user in for this interaction."""

    def on_post(self, req: falcon.Request, resp: falcon.Response, interaction_id: str) -> None:
        """Start the user's session, whose token is never shown, and store the report, in one transaction."""
        now = req.context.now
        interaction = self._opened(interaction_id, now=now)
        sign_in = read_json(req, SignInRequest).sign_in(
            now=now, max_lifetime_s=self.parts.sessions.lifetime_s
        )
        req.context.user = sign_in.user_id
        verifier = new_handle()

        def reported(session: Session) -> Record:
            report = Report(sid=session.sid, user_id=session.user_id)
            return self.parts.interactions.verifier_record(interaction, verifier, report, now=now)

        try:
            self.parts.sessions.create(
                sign_in, beside=reported, standing_on=[on_interaction(interaction)], now=now
            )
        except NotStanding:
            raise ApiError("NOT_FOUND") from None
        self._send(resp, interaction, verifier)


class ReportConsent(_Base):
    """`POST …/consent`: the user has agreed on the app's own page."""

    def on_post(self, req: falcon.Request, resp: falcon.Response, interaction_id: str) -> None:
        """Store the consent to the whole request, or to a part of it."""
        now = req.context.now
        interaction = self._opened(interaction_id, now=now)
        consent = read_optional_json(req, _ConsentRequest)
        # Only our page shows the code of a device.
        if interaction.state.step is not Step.CONSENT or is_of_device(interaction.parameters):
            raise ApiError("WRONG_STEP")
        if consent.user_id is not UNSET and consent.user_id != interaction.state.asked_user_id:
            raise ApiError("WRONG_USER")
        words = self.parts.clients.scopes.known
        scope = words if consent.scope is UNSET else words_of(consent.scope)
        if not scope or not set(scope) <= {*words, *words_of(interaction.parameters.get("scope"))}:
            raise ApiError("INVALID_BODY", field="scope")
        agreed = agreed_entries(interaction.state.shown, scope)
        report = Report(user_id=interaction.state.asked_user_id, scope=agreed, remember=consent.remember)
        self._answer(resp, interaction, report, now=now)


class ReportRejection(_Base):
    """`POST …/reject`: the user did not sign in, or did not agree."""

    def on_post(self, req: falcon.Request, resp: falcon.Response, interaction_id: str) -> None:
        """Send the client an error."""
        now = req.context.now
        interaction = self._opened(interaction_id, now=now)
        rejection = read_optional_json(req, _Rejection)
        self._answer(resp, interaction, Report(error=structs.asdict(rejection)), now=now)


def routes(parts: Parts) -> tuple[Mount, ...]:
    """Their paths."""
    one = "/api/oidc/interactions/{interaction_id}"
    return (
        Mount(one, OneInteraction(parts)),
        Mount(f"{one}/login", ReportLogin(parts)),
        Mount(f"{one}/consent", ReportConsent(parts)),
        Mount(f"{one}/reject", ReportRejection(parts)),
    )
