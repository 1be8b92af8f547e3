"""How a sign-in ends that was started on a device: with its user's decision, and a page. No client's address is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import falcon

from service.handles import device_id, hash_handle, new_grant_id, new_handle
from service.protocol.authorize import AuthorizationRequest
from service.protocol.devices import PAGE, checked_request, is_of_page, page_request
from service.protocol.errors import OAuthError
from service.protocol.grants.authorization_code import new_grant
from service.protocol.sign_in import Event, SendCode, SendError, ShowPage
from service.records.devices import LIFETIME_S, Decision, Device, decided, letters_of, shown
from service.records.grants import Code
from service.records.interactions import NOTHING, Beside, Interaction
from service.resources.sign_in import Ending, Seen
from service.storage.interface import Kind, Record
from service.web.redirects import send_redirect, with_parameters

#: How long a form for a code may be sent, in s.
_FORM_S: Final = 3_600
#: The path of the page for users of devices.
DEVICE_PAGE: Final = "/oidc/device"
#: Outcome -> the title and the text of its page.
_PAGES: Final[Mapping[str, tuple[str, str]]] = {
    "allowed": ("Your device is connected", "Go back to your device. You can close this page."),
    "denied": ("Your device is not connected", "The device gets no access. You can close this page."),
    "not_signed_in": (
        "You are not signed in",
        "No device was connected. To try again, enter the code again.",
    ),
}
_OUTCOME: Final = "outcome"


def code_form(token: str, sid: str, *, issuer: str, address: str = "", now: int) -> Record:
    """The record of a form for a code, which is shown in one session and may be sent several times.

    Args:
        token: the form's token.
        sid: the session.
        issuer: the issuer of its page.
        address: the browser's address; empty if not known.
        now: Unix s.
    """
    body = {"issuer": issuer}
    return Record(Kind.INTERACTION, form_hash(token), now + _FORM_S, address, session_id=sid, body=body)


def form_hash(unverified_token: str) -> str:
    """The id of a form's token, distinct from all other stored ids."""
    return hash_handle(f"device form\n{unverified_token}")


class OfDevice(Ending):
    """The ending of the page for devices: first somebody signs in, then they decide about the device of a code."""

    @property
    def consent_url(self) -> None:
        """Always our page: it shows the user code, which the app's own page does not know."""
        return

    def consent_page(self, interaction: Interaction) -> dict[str, Any]:
        """The page with the user code."""
        user_code = shown(letters_of(interaction.parameters["user_code"]))
        return {"template": "device_confirm.html", "user_code": user_code}

    def seen(
        self, interaction: Interaction, event: Event, verifier: str | None, *, now: int
    ) -> Seen | ShowPage:
        """Read the request of an interaction again: the device may be gone, and its client may have changed."""
        kept = dict(interaction.parameters)
        user_code = kept.pop("user_code", "")
        if is_of_page(kept):
            return Seen(page_request(user_code), event, self, interaction, verifier)
        device = self.parts.devices.of_user_code(user_code, issuer=interaction.issuer, now=now)
        if device is None or device.parameters != kept:
            return ShowPage("device_over", client_id=kept["client_id"])
        try:
            request = self.request_of(device, user_code, now=now)
        except OAuthError as error:
            return ShowPage(error.cause, client_id=device.client_id)
        return Seen(request, event, self, interaction, verifier)

    def request_of(self, device: Device, user_code: str, *, now: int) -> AuthorizationRequest:
        """The request of a device, checked with the client's current registration.

        Raises:
            OAuthError: if it may no longer be asked for.
        """
        parts = self.parts
        client = parts.clients.find(device.client_id, now=now)
        strangers = parts.settings.stranger_devices
        request = checked_request(
            device.parameters, client, parts.policies, device.issuer, strangers=strangers
        )
        return replace(request, parameters={**device.parameters, "user_code": user_code})

    def outcome(
        self, request: AuthorizationRequest, effect: SendCode | SendError, issuer: str, now: int
    ) -> tuple[Mapping[str, str], Beside]:
        """Which page comes next, and what is stored: the grant and the decision, if it is about a device."""
        if request.client is PAGE:
            if isinstance(effect, SendError):
                return {_OUTCOME: "not_signed_in"}, NOTHING
            token = new_handle()
            form = code_form(token, effect.session.sid, issuer=issuer, now=now)
            return {_OUTCOME: "signed_in", "form_token": token, **request.parameters}, Beside((form,))
        waiting = device_id(letters_of(request.parameters["user_code"]))
        if isinstance(effect, SendError):
            denied = decided(waiting, Decision.DENIED, now=now)
            return {_OUTCOME: "denied"}, Beside(changes=(denied,))
        grant_id = new_grant_id(now)
        beside = new_grant(
            effect.request,
            effect.session,
            # Only the device's own code finds the grant: no hash is empty.
            Code(hash="", uri_hash=""),
            grant_id,
            issuer=issuer,
            expires_at=now + LIFETIME_S,
            now=now,
        )
        allowed = decided(waiting, Decision.ALLOWED, grant_id=grant_id, now=now)
        return {_OUTCOME: "allowed"}, beside + Beside(changes=(allowed,))

    def send(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        redirect_uri: str,
        parameters: Mapping[str, str],
        response_mode: str,
    ) -> None:
        """Show the outcome; after a sign-in, the page itself."""
        outcome = parameters[_OUTCOME]
        if outcome == "signed_in":
            here = req.context.issuer + DEVICE_PAGE
            # The browser comes from the app's page, so only the token shows that its user meant to come here.
            names = ("user_code", "form_token") if "user_code" in parameters else ()
            send_redirect(resp, with_parameters(here, {name: parameters[name] for name in names}))
            return
        self.show_message(req, resp, *_PAGES[outcome])

    def show_message(
        self, req: falcon.Request, resp: falcon.Response, title: str, text: str, *, status: int = 200
    ) -> None:
        """Show a page with one message."""
        self.parts.browser.show(req, resp, "device_message.html", title=title, text=text, status=status)
