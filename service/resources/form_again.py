"""Answers a form that is sent again: people double-click. For a minute, it gets the same answer."""

from __future__ import annotations

from collections.abc import Callable

import falcon

from service.protocol.sign_in import ShowPage
from service.records.form_answers import find_answer
from service.resources.sign_in import Ending, Flow, note
from service.web.binding import shown


def answer_again(
    req: falcon.Request,
    resp: falcon.Response,
    interaction_id: str,
    unverified_token: str,
    *,
    flow: Flow,
    ending_of: Callable[[str], Ending],
    now: int,
) -> bool:
    """Repeat the answer to a form that this browser sent within the last minute. Returns whether it was such a form.

    If its code has been used in the meantime, a page says that the sign-in is over.

    Args:
        req: the request.
        resp: the answer.
        interaction_id: the interaction that the form has ended.
        unverified_token: the form's one-time token.
        flow: the flow of sign-ins.
        ending_of: how a sign-in with this redirect URI ends.
        now: Unix s.
    """
    parts, issuer = flow.parts, req.context.issuer
    answered = find_answer(parts.browser.store, interaction_id, unverified_token, issuer=issuer, now=now)
    if answered is None or not any(map(answered.is_browser, shown(req, interaction_id))):
        return False
    req.context.client_id = answered.client_id
    uri = answered.redirect_uri
    if answered.parameters:
        if "error" in answered.parameters:
            note(resp, answered.parameters["error"], "answered_before")
        ending_of(uri).send(req, resp, uri, answered.parameters, answered.response_mode)
        return True
    client = parts.clients.find(answered.client_id, now=now)
    flow.show(req, resp, ShowPage("interaction_over", back=None if client is None else client.home(uri)))
    return True
