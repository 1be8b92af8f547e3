"""The two endpoints that discovery must name before the provider behind them exists."""

from __future__ import annotations

import falcon

from service.web.pages import send_page
from service.web.render import send_json


class Authorize:
    """`/oidc/authorize`: a page, for a browser comes here."""

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Say that nobody can be signed in here yet."""
        send_page(
            resp,
            "error.html",
            status=501,
            title="Sign-in is not available here",
            text="This service does not sign people in to other services yet.",
            request_id=req.context.request_id,
        )

    on_post = on_get


class Token:
    """`/oidc/token`: no grant is supported.

    Spec: RFC 6749 §5.2
    """

    def on_post(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Refuse every grant type."""
        send_json(
            resp,
            {"error": "unsupported_grant_type", "error_description": "No grant type is supported yet."},
            status=400,
        )
