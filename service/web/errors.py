"""Errors of the API: one table of codes, one JSON shape, and one place that turns exceptions into answers.

    ApiError                  what we refuse, with its code
    OAuthError                what an OAuth endpoint refuses, in OAuth's shape
    falcon.HTTPError          what Falcon refuses (no such route, method, …), mapped to a code
    StoreUnavailable          503 STORE_UNAVAILABLE
    Exception                 500 INTERNAL; the log has the cause under the request id

Each code has a constant message. It repeats nothing of the request except the name of a field, if that name is
harmless.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

import falcon
import structlog

from service.logs import describe_error, without_tokens
from service.protocol.errors import OAuthError
from service.storage.interface import StoreUnavailable
from service.subjects import IsAClient

#: Code -> status and constant message.
ERRORS: Final[Mapping[str, tuple[int, str]]] = {
    "INVALID_HOST": (400, "The Host header is missing, malformed, or names a host that is not served here."),
    "INVALID_BODY": (400, "The body is not the JSON object that this endpoint takes."),
    "INVALID_REQUEST": (400, "The request is malformed."),
    "INVALID_CLIENT_METADATA": (400, "A member of the client's metadata is missing, unknown or not allowed."),
    "UNKNOWN_AUDIENCE": (400, "Tokens are not minted for this audience."),
    "AUTH_REQUIRED": (401, "A live session is required."),
    "MISSING_TIMESTAMP": (401, "The header X-Pylon-Trusted-Timestamp is missing."),
    "MISSING_SIGNATURE": (401, "The header X-Pylon-Trusted-Signature is missing."),
    "STALE_TIMESTAMP": (401, "The timestamp is not within 300 seconds of this server's clock."),
    "BAD_SIGNATURE": (401, "The signature does not match the timestamp and the body."),
    "REPLAYED": (401, "This signature was used before."),
    "FORBIDDEN": (403, "The admin token is missing or wrong."),
    "POLICY_REFUSED": (403, "The policy of this audience refuses this session."),
    "CROSS_SITE": (403, "A change made with the session cookie must come from the same origin."),
    "NOT_FOUND": (404, "There is nothing here."),
    "METHOD_NOT_ALLOWED": (405, "This method is not allowed here."),
    "CLIENT_EXISTS": (409, "A client with this id already exists."),
    "CLIENT_READ_ONLY": (
        409,
        "This client is in the environment, or known by its document; change it there.",
    ),
    "WRONG_USER": (409, "The answer is from a user other than the one who was asked."),
    "WRONG_STEP": (409, "The interaction does not wait for this."),
    "BODY_TOO_LARGE": (413, "The body is larger than 64 KiB."),
    "UNSUPPORTED_MEDIA_TYPE": (415, "The body does not have the media type that this endpoint takes."),
    "INTERNAL": (500, "Something went wrong here. The log has details under the request id."),
    "JWT_NOT_CONFIGURED": (501, "There is no key to sign tokens with."),
    "STORE_UNAVAILABLE": (503, "The database cannot be reached. Try again shortly."),
}

_FIELD = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_FALCON_CODES = {
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    413: "BODY_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
}

_log = structlog.get_logger("web")


def is_harmless(field: str) -> bool:
    """Whether an answer may repeat the name of a field."""
    return _FIELD.fullmatch(field) is not None


class ApiError(Exception):
    """A refusal.

    Args:
        code: a key of `ERRORS`.
        field: the field of the body that is wrong; named in the answer only if its name is harmless.
        hint: what the operator can do.
        headers: more headers for the answer.
        cause: one word for the log that names the rule; by default the code.
        more: more members for the answer.
    """

    def __init__(
        self,
        code: str,
        *,
        cause: str | None = None,
        field: str | None = None,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.field = field if field is not None and is_harmless(field) else None
        self.hint = hint
        self.headers = headers or {}
        self.more = more or {}
        self.cause = cause or code.lower()

    @property
    def status(self) -> int:
        """The HTTP status of the code."""
        return ERRORS[self.code][0]


def add_error_handlers(app: falcon.App[Any, Any]) -> None:
    """Turn every exception into an answer in the documented shape."""
    app.resp_options.xml_error_serialization = False
    # An answer with a body names its type; an empty one has none.
    app.resp_options.default_media_type = None  # type: ignore[assignment]
    app.add_error_handler(Exception, _on_unknown)
    app.add_error_handler(falcon.HTTPError, _on_http_error)
    app.add_error_handler(StoreUnavailable, _on_store_unavailable)
    app.add_error_handler(ApiError, _on_api_error)
    app.add_error_handler(OAuthError, _on_oauth_error)
    app.add_error_handler(IsAClient, _on_a_client)


def _on_api_error(
    req: falcon.Request, resp: falcon.Response, error: ApiError, _params: Mapping[str, Any]
) -> None:
    status, message = ERRORS[error.code]
    send = getattr(req.context, "send_error", None)
    if send is not None and error.code != "NOT_FOUND":  # another spelling of the path is not the endpoint
        send(resp, _as_oauth(error))
        resp.set_headers(dict(error.headers))
        return
    resp.context.error, resp.context.cause = error.code, error.cause
    if error.field is not None:
        message += f" See the field {error.field}."
    if status == 401:
        resp.set_header("WWW-Authenticate", "Bearer")
    for name, value in error.headers.items():
        resp.set_header(name, value)
    detail: dict[str, Any] = {"code": error.code, "message": message}
    if error.hint is not None:
        detail["hint"] = error.hint
    detail |= error.more
    detail["request_id"] = getattr(req.context, "request_id", "")
    resp.status_code = status
    resp.content_type = "application/json"
    resp.data = json.dumps({"error": detail}).encode()


def _on_a_client(
    req: falcon.Request, resp: falcon.Response, _error: IsAClient, params: Mapping[str, Any]
) -> None:
    hint = "It is the id of a client, and an API could confuse the two: give the user another id."
    _on_api_error(req, resp, ApiError("INVALID_BODY", field="user_id", hint=hint), params)


def _on_oauth_error(
    req: falcon.Request, resp: falcon.Response, error: OAuthError, params: Mapping[str, Any]
) -> None:
    """Answer in the endpoint's own shape."""
    send = getattr(req.context, "send_error", None)
    if send is None:  # the client cannot read that shape
        _on_unknown(req, resp, error, params)
        return
    send(resp, error)


def _as_oauth(error: ApiError) -> OAuthError:
    """The OAuth error for it. There, a body that is not a form is a malformed request (RFC 6749 §5.2)."""
    status, message = ERRORS[error.code]
    code = {500: "server_error", 503: "temporarily_unavailable"}.get(status, "invalid_request")
    return OAuthError(code, message, status=400 if status == 415 else status, cause=error.cause)


def _on_http_error(
    req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: Mapping[str, Any]
) -> None:
    headers = dict(error.headers or {})
    allow = {name: value for name, value in headers.items() if name.lower() == "allow"}
    code = _FALCON_CODES.get(error.status_code, "INVALID_REQUEST")
    if error.status_code >= 500:
        code = "INTERNAL"
        _log_failure(req, error)
    _on_api_error(req, resp, ApiError(code, headers=allow), params)


def _on_store_unavailable(
    req: falcon.Request, resp: falcon.Response, error: StoreUnavailable, params: Mapping[str, Any]
) -> None:
    _log.error(
        "store_unavailable",
        cause=type(error.__cause__).__name__,
        detail=without_tokens(error.reason),
    )
    _on_failure(req, resp, ApiError("STORE_UNAVAILABLE", headers={"Retry-After": "2"}), params)


def _on_unknown(
    req: falcon.Request, resp: falcon.Response, error: Exception, params: Mapping[str, Any]
) -> None:
    _log_failure(req, error)
    _on_failure(req, resp, ApiError("INTERNAL"), params)


def _on_failure(
    req: falcon.Request, resp: falcon.Response, error: ApiError, params: Mapping[str, Any]
) -> None:
    """Answer a failure that is not the client's fault: in the API's shape, or as a page in a browser."""
    _on_api_error(req, resp, error, params)
    show = getattr(req.context, "show_failure", None)
    if show is None:
        return
    try:
        show(req, resp, f"{ERRORS[error.code][1]} ({error.code})", status=error.status)
    except Exception as failure:  # the page itself may be what fails: keep the answer as it is
        _log_failure(req, failure)


def _log_failure(req: falcon.Request, error: Exception) -> None:
    _log.error("request_failed", route=req.uri_template, **describe_error(error))
