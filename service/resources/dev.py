"""For dev mode only: a page that shows what runs here, and a sign-in page where users type any id.

Both answer only a browser on this machine, without a proxy in between.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from typing import Final

import falcon

from service import __version__
from service.handles import new_handle
from service.records.claims import InvalidClaim, check_claims
from service.records.sessions import SignIn
from service.resources.parts import DEV_SIGN_IN, Page, Parts
from service.resources.sign_in_request import is_user_id
from service.web.auth import is_own_form
from service.web.cookies import cookie_values, set_cookie
from service.web.errors import ApiError
from service.web.mounts import Mount
from service.web.params import MalformedParameters, read_form, read_query
from service.web.redirects import send_redirect

_FORM_COOKIE = "pylon_dev_form"
#: Prefixes of headers that a proxy or a tunnel adds, in WSGI's notation; any X-Forwarded-… counts.
_FORWARDING = (
    "HTTP_X_FORWARDED_",
    "HTTP_FORWARDED",
    "HTTP_X_REAL_IP",
    "HTTP_VIA",
    "HTTP_CF_CONNECTING_IP",
    "HTTP_TRUE_CLIENT_IP",
)
_TYPED: Final = ("user_id", "name", "email")


def require_local(req: falcon.Request) -> None:
    """Refuse a peer that is not on this machine, or comes through a proxy.

    Raises:
        ApiError: `NOT_FOUND`, as if the page did not exist.
    """
    try:
        local = ipaddress.ip_address(req.env.get("REMOTE_ADDR", "")).is_loopback
    except ValueError:
        local = False
    if not local or any(name.startswith(_FORWARDING) for name in req.env):
        raise ApiError("NOT_FOUND")


class Home(Page):
    """`/`: what runs here."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Show it."""
        require_local(req)
        issuer = req.context.issuer
        session = self.parts.browser.session(req, now=req.context.now)
        links = [
            ("Discovery", f"{issuer}/.well-known/openid-configuration", "what a relying party reads first"),
            ("JWKS", f"{issuer}/oidc/jwks", "the public keys that verify tokens"),
            ("Quickstart", f"{issuer}/dev/quickstart", "from here to a relying party of your own"),
            ("Readiness", "/readyz", "whether database and keys are well"),
        ]
        self.parts.browser.show(
            req,
            resp,
            "home.html",
            issuer=issuer,
            version=__version__,
            links=links,
            signed_in_as=None if session is None else session.user_id,
            sign_in_url=issuer + DEV_SIGN_IN,
        )


class Quickstart(Page):
    """`/dev/quickstart`: the first steps, with this service's own address."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Show it."""
        require_local(req)
        self.parts.browser.show(req, resp, "quickstart.html", issuer=req.context.issuer)


class DevSignIn(Page):
    """`/dev/sign-in`: replaces the app's sign-in page, and signs users in with the shared cookie."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Show the form."""
        require_local(req)
        try:
            asked = read_query(req).values
        except MalformedParameters:
            asked = {}
        # Users always type the id themselves: a link cannot set it.
        begun = {name: asked[name] for name in ("interaction", "return_to") if name in asked}
        self._show(req, resp, begun, error=None)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Sign the user in, and go back to where they came from."""
        require_local(req)
        try:
            form = read_form(req).values
        except MalformedParameters:
            form = {}
        token = form.get("form_token", "").encode()
        cookies = [value.encode() for value in cookie_values(req, _FORM_COOKIE)]
        if not is_own_form(req) or not any(hmac.compare_digest(token, cookie) for cookie in cookies):
            self._show(req, resp, form, error="Please try once more.")
            return
        user_id = form.get("user_id", "")
        claims = {name: form[name] for name in ("name", "email") if name in form}
        if not is_user_id(user_id) or not _are_claims(claims):
            self._show(req, resp, form, error="A user id has no spaces: try alice.")
            return
        now = req.context.now
        given = frozenset({"claims"} if claims else ())
        new = self.parts.sessions.create(SignIn(user_id, claims=claims, amr=("dev",), given=given), now=now)
        self.parts.browser.signed_in.set_cookie(req, resp, new.token, max_age_s=new.session.expires_at - now)
        issuer = req.context.issuer
        back = form.get("return_to", "")
        own = back.startswith(f"{issuer}/oidc/interaction/")  # redirect nowhere else
        send_redirect(resp, back if own else f"{issuer}/")

    def _show(
        self,
        req: falcon.Request,
        resp: falcon.Response,
        filled: Mapping[str, str],
        *,
        error: str | None,
    ) -> None:
        token = new_handle()
        set_cookie(req, resp, _FORM_COOKIE, token, max_age_s=3600, same_site="Strict")
        self.parts.browser.show(
            req,
            resp,
            "dev_sign_in.html",
            interaction=filled.get("interaction"),
            return_to=filled.get("return_to"),
            filled={name: filled.get(name, "") for name in _TYPED},
            form_token=token,
            action=req.context.issuer + DEV_SIGN_IN,
            error=error,
            users=["alice", "bob"],
        )


def _are_claims(claims: dict[str, str]) -> bool:
    try:
        check_claims(claims)
    except InvalidClaim:
        return False
    return True


def routes(parts: Parts) -> tuple[Mount, ...]:
    """Their paths in dev mode; otherwise none."""
    if not parts.settings.dev_mode:
        return ()
    return (
        Mount("/", Home(parts)),
        Mount("/dev/quickstart", Quickstart(parts)),
        Mount(DEV_SIGN_IN, DevSignIn(parts)),
    )
