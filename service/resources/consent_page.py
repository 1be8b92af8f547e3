"""The built-in consent page.

The rules are in `protocol/consent.py` and `protocol/sign_in.py`, the form's answer goes to `resources/authorize.py`.
"""

from __future__ import annotations

from typing import Any

import falcon

from service.policies.pairs import apis_of, plain
from service.protocol.authorize import AuthorizationRequest
from service.protocol.consent import about
from service.protocol.sign_in import AskConsent
from service.records.sessions import Session
from service.resources.parts import Parts


def show_consent(
    parts: Parts,
    req: falcon.Request,
    resp: falcon.Response,
    request: AuthorizationRequest,
    session: Session,
    effect: AskConsent,
    *,
    action: str,
    template: str = "consent.html",
    **more: Any,
) -> None:
    """Show the page.

    Args:
        parts: the shared parts.
        req: the request.
        resp: the answer.
        request: the authorization request.
        session: of the user who is asked.
        effect: what to show, and the form's one-time token.
        action: where the form is sent.
        template: the page, or one that extends it.
        more: values that only that one has.
    """
    known = about(request)
    parts.browser.show(
        req,
        resp,
        template,
        client=request.client,
        about=known,
        logo_uri=known.logo_uri,
        scope=plain(effect.shown),
        apis=apis_of(effect.shown, request.client, parts.policies),
        descriptions=request.client.scopes.descriptions,
        user_name=session.claims.get("name") or session.user_id,
        form_token=effect.form_token,
        action=action,
        **more,
    )
