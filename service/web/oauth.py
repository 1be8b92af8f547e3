"""Answers in the shapes of OAuth 2.0.

Spec: RFC 6749 §5.1, §5.2; RFC 6750 §3
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import falcon

from service.protocol.errors import OAuthError
from service.web.params import LISTS, MalformedParameters, Parameters, read_form
from service.web.render import send_json

#: Statuses of errors that are about the token; others get no challenge.
_CHALLENGED: Final = frozenset({400, 401, 403})
#: When a client may try again, in s.
_RETRY_AFTER_S: Final = "2"


def form_parameters(req: falcon.Request, *, lists: Collection[str] = LISTS) -> Parameters:
    """The parameters of a form body. Parameters in the query are ignored (RFC 6749 §3.2).

    Args:
        req: the request.
        lists: the parameters that may be repeated.

    Raises:
        ApiError: 415 for another media type.
        OAuthError: `invalid_request` if the form is malformed or too large (413), or repeats a parameter.
    """
    try:
        parameters = read_form(req, lists)
    except MalformedParameters as error:
        is_large = error.status == 413
        description = "The form is too large." if is_large else "The form is malformed."
        cause = "form_too_large" if is_large else "form_malformed"
        raise OAuthError("invalid_request", description, status=error.status, cause=cause) from None
    if parameters.repeated:
        raise repeated()
    return parameters


def repeated() -> OAuthError:
    """The error for a parameter that must not be repeated (RFC 6749 §3.2)."""
    return OAuthError("invalid_request", "A parameter is repeated.", cause="parameter_repeated")


def send_oauth_error(resp: falcon.Response, error: OAuthError) -> None:
    """Answer with an error. `invalid_client` also names the scheme, Basic (RFC 6749 §5.2)."""
    send_json(resp, error.parameters(), status=error.status)
    resp.context.error, resp.context.cause = error.error, error.cause
    if error.error == "invalid_client":
        resp.set_header("WWW-Authenticate", 'Basic realm="pylon-oidc"')
    if error.status == 503:
        resp.set_header("Retry-After", _RETRY_AFTER_S)


def send_bearer_error(resp: falcon.Response, error: OAuthError | None) -> None:
    """Answer 401 or 403 to a request with a bad token, or with none (RFC 6750 §3)."""
    if error is None:
        resp.context.error, resp.context.cause = "invalid_token", "no_access_token"
        send_json(
            resp, {"error": "invalid_token", "error_description": "An access token is required."}, status=401
        )
        resp.set_header("WWW-Authenticate", "Bearer")
        return
    send_json(resp, error.parameters(), status=error.status)
    resp.context.error, resp.context.cause = error.error, error.cause
    if error.status not in _CHALLENGED:
        return
    resp.set_header(
        "WWW-Authenticate", f'Bearer error="{error.error}", error_description="{error.description}"'
    )
