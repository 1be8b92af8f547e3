"""`/oidc/device_authorization`, where a device without a browser starts; `/oidc/device`, where its user enters the code.

Spec: RFC 8628 §3.1, §3.2, §3.3
"""

from __future__ import annotations

from typing import Final

import falcon

from service.events import DeviceCodesLocked
from service.handles import is_user_code, new_handle
from service.policies.values import DEVICE_GRANT
from service.protocol.devices import checked_request, page_request
from service.protocol.errors import OAuthError
from service.protocol.grants import check_can_sign
from service.protocol.metadata import ENDPOINTS
from service.protocol.sign_in import Asked, ShowPage
from service.records.devices import INTERVAL_S, LIFETIME_S, Device, letters_of, shown
from service.records.guesses import Guesses, Locked
from service.records.sessions import Session
from service.resources.device_sign_in import DEVICE_PAGE, OfDevice, code_form, form_hash
from service.resources.parts import Page, Parts, Resource
from service.resources.sign_in import Flow, Seen
from service.resources.token import authenticated
from service.storage.interface import Kind
from service.web.auth import is_of_other_site, is_own_form
from service.web.caching import send_preflight
from service.web.mounts import Mount
from service.web.oauth import form_parameters, send_oauth_error
from service.web.params import MalformedParameters, Parameters, read_form, read_query
from service.web.redirects import with_parameters
from service.web.render import send_json

#: A code has 8 letters; more than this is no code, and is not stored while its user signs in.
_MOST_CHARS: Final = 64
_MALFORMED: Final = "The request is malformed."
_NOT_VALID: Final = "This code is not valid. Check that it is the code that your device shows now."
_TOO_OLD: Final = "This page was too old. Enter the code again."


class DeviceAuthorization(Resource):
    """`POST /oidc/device_authorization`."""

    any_origin = True
    send_error = staticmethod(send_oauth_error)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Authenticate the client, check what its device asks for, and answer with both codes."""
        parts, now, issuer = self.parts, req.context.now, req.context.issuer
        values = form_parameters(req).values
        check_can_sign({"grant_type": DEVICE_GRANT}, parts.keys)
        client = authenticated(req, values, parts, now=now)
        strangers = parts.settings.stranger_devices
        request = checked_request(values, client, parts.policies, issuer, strangers=strangers)
        codes = parts.devices.begin(
            request.parameters, issuer=issuer, address=parts.browser.address(req), now=now
        )
        page = issuer + DEVICE_PAGE
        user_code = shown(codes.user_code)
        answer = {
            "device_code": codes.device_code,
            "user_code": user_code,
            "verification_uri": page,
            "verification_uri_complete": with_parameters(page, {"user_code": user_code}),
            "expires_in": LIFETIME_S,
            "interval": INTERVAL_S,
        }
        send_json(resp, answer)
        resp.set_header("Pragma", "no-cache")

    def on_options(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a preflight."""
        send_preflight(req, resp, "POST, OPTIONS")


class DevicePage(Page):
    """`/oidc/device`: a user who has signed in enters the code of a device, and is then asked about that device."""

    head_is_get = False  # a GET with a code counts as an attempt

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._flow, self._ending, self._guesses = Flow(parts), OfDevice(parts), Guesses(parts.store)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Have the user sign in. Then ask for the code, or look up the one of the URL."""
        now = req.context.now
        try:
            query = read_query(req)
            code = _code_of(query)
        except MalformedParameters as error:
            self.parts.browser.show_error(req, resp, _MALFORMED, cause="malformed_query", status=error.status)
            return
        session = self.parts.browser.session(req, now=now)
        if session is None:
            self._sign_in(req, resp, code, now=now)
        elif code and (not is_of_other_site(req) or self._has_token(req, query, session, now=now)):
            self._enter(req, resp, session, code, now=now)
        else:  # wrong codes in links of other sites would lock the page, so their user sends the code
            self._ask_code(req, resp, session, code=code, now=now)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Look up the code of our form."""
        now = req.context.now
        try:
            form = read_form(req)
            code = _code_of(form)
        except MalformedParameters as error:
            self.parts.browser.show_error(req, resp, _MALFORMED, cause="malformed_form", status=error.status)
            return
        session = self.parts.browser.session(req, now=now)
        if session is None:
            self._sign_in(req, resp, code if is_own_form(req) else "", now=now)
        elif not self._is_our_form(req, form, session, now=now):
            resp.context.error, resp.context.cause = "invalid_request", "not_the_form_shown"
            self._ask_code(req, resp, session, problem=_TOO_OLD, status=403, now=now)
        else:
            self._enter(req, resp, session, code, now=now)

    # --- the sign-in ---

    def _sign_in(self, req: falcon.Request, resp: falcon.Response, code: str, *, now: int) -> None:
        request = page_request(code)
        self._flow.go_on(req, resp, lambda: Seen(request, Asked(), self._ending), now=now)

    # --- the code ---

    def _ask_code(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        session: Session,
        *,
        code: str = "",
        problem: str | None = None,
        status: int = 200,
        now: int,
    ) -> None:
        token = new_handle()
        address = self.parts.browser.address(req)
        form = code_form(token, session.sid, issuer=req.context.issuer, address=address, now=now)
        self.parts.waiting.keep(form, now=now)
        self.parts.browser.show(
            req,
            resp,
            "device_code.html",
            status=status,
            user_name=session.claims.get("name") or session.user_id,
            form_token=token,
            action=req.context.issuer + DEVICE_PAGE,
            code=shown(letters) if is_user_code(letters := letters_of(code)) else "",
            problem=problem,
        )

    def _is_our_form(self, req: falcon.Request, form: Parameters, session: Session, *, now: int) -> bool:
        """Whether this form was shown in this session. It may be sent again, with another code."""
        return is_own_form(req) and self._has_token(req, form, session, now=now)

    def _has_token(self, req: falcon.Request, form: Parameters, session: Session, *, now: int) -> bool:
        token = form.values.get("form_token")
        if token is None:
            return False
        shown_form = self.parts.store.get(Kind.INTERACTION, form_hash(token), now=now)
        return (
            shown_form is not None
            and shown_form.session_id == session.sid
            and shown_form.body["issuer"] == req.context.issuer
        )

    def _enter(
        self, req: falcon.Request, resp: falcon.Response, session: Session, code: str, *, now: int
    ) -> None:
        """Count the attempt, and only then look up the code. Too many wrong ones lock the page, also for right ones."""
        req.context.user = session.user_id
        try:
            attempt = self._guesses.count(session.user_id, self.parts.browser.address(req), now=now)
        except Locked as locked:
            self._show_locked(req, resp, locked)
            return
        device = self.parts.devices.of_user_code(code, issuer=req.context.issuer, now=now)
        if device is None:
            if attempt.locks is not None:
                self.parts.events.send(
                    DeviceCodesLocked(subject=session.user_id, sid=session.sid, by=attempt.locks)
                )
            resp.context.error, resp.context.cause = "invalid_request", "user_code_unknown"
            self._ask_code(req, resp, session, problem=_NOT_VALID, status=400, now=now)
            return
        self._guesses.take_back(attempt)
        self._flow.go_on(req, resp, lambda: self._look(device, code, now=now), now=now)

    def _look(self, device: Device, code: str, *, now: int) -> Seen | ShowPage:
        try:
            request = self._ending.request_of(device, code, now=now)
        except OAuthError as error:
            return ShowPage(error.cause, client_id=device.client_id)
        return Seen(request, Asked(), self._ending)

    def _show_locked(self, req: falcon.Request, resp: falcon.Response, locked: Locked) -> None:
        resp.context.error, resp.context.cause = "access_denied", f"too_many_wrong_codes_of_{locked.by}"
        minutes = -(-locked.wait_s // 60)
        text = f"There were too many wrong codes. Wait {minutes} minute{'s' * (minutes > 1)}, then try again."
        self._ending.show_message(req, resp, "Please wait", text, status=429)
        resp.set_header("Retry-After", str(locked.wait_s))


def _code_of(parameters: Parameters) -> str:
    """The user code; empty if there is none.

    Raises:
        MalformedParameters: if there is more than one, or it is too long for one.
    """
    code = parameters.values.get("user_code", "")
    if "user_code" in parameters.repeated or len(code) > _MOST_CHARS:
        raise MalformedParameters
    return code


def routes(parts: Parts) -> tuple[Mount, ...]:
    """Their paths."""
    return (
        Mount(ENDPOINTS["device_authorization_endpoint"], DeviceAuthorization(parts)),
        Mount(DEVICE_PAGE, DevicePage(parts)),
    )
