"""Errors of the protocol: one tree, each with a constant public description.

    OAuthError            an error for the client, RFC 6749 §5.2 and §4.1.2.1
      Reused              the same for a stolen code or token: its grant ends, and the operator is warned
    NotOurClient          before the redirect URI is trusted: shown only on a page

Descriptions keep to %x20-21 / %x23-5B / %x5D-7E (RFC 6749 §4.1.2.1) and repeat nothing of the request.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from service.events import CodeReused, RefreshTokenReused
from service.records.waiting import is_too_large

#: Error -> status at the token endpoint and similar endpoints.
_STATUS: Final = {
    "invalid_client": 401,
    "invalid_token": 401,
    "insufficient_scope": 403,
    "temporarily_unavailable": 503,
}
_NO_WORD: Final = re.compile(r"[^a-z0-9]+")


class OAuthError(Exception):
    """An error of OAuth 2.0 or OpenID Connect.

    Args:
        error: its registered code.
        description: constant text for the client's developer.
        status: the HTTP status of a JSON answer; None for that of the code.
        cause: one word for the log that names the rule; by default made from the description.
    """

    def __init__(
        self, error: str, description: str, *, status: int | None = None, cause: str | None = None
    ) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.rule = ""  # the name of the check that refused, if any
        self.status = _STATUS.get(error, 400) if status is None else status
        self._cause = cause

    @property
    def cause(self) -> str:
        """The rule that refused, as one constant word without anything of the request."""
        return self._cause or self.rule or _NO_WORD.sub("_", self.description.lower()).strip("_")[:64]

    def parameters(self) -> dict[str, str]:
        """The members of the answer."""
        return {"error": self.error, "error_description": self.description}


def invalid_client(cause: str) -> OAuthError:
    """The answer to every failed authentication; `cause` is for the log."""
    return OAuthError(
        "invalid_client",
        "The client is unknown, or did not authenticate as it is registered to.",
        cause=cause,
    )


class Reused(OAuthError):
    """A code or refresh token was used a second time: it may be stolen, and its grant ends.

    Spec: RFC 6749 §4.1.2, RFC 9700 §4.14.2

    Args:
        description: constant text for the client's developer, the same as for every `invalid_grant`.
        grant_id: the grant.
        event: sent once the grant has ended; its name is the cause.
    """

    def __init__(self, description: str, *, grant_id: str, event: CodeReused | RefreshTokenReused) -> None:
        super().__init__("invalid_grant", description, cause=event.name)
        self.grant_id = grant_id
        self.event = event


class NotOurClient(Exception):
    """The client or redirect URI is unknown, so the error is shown on a page and not sent by redirect.

    Args:
        reason: constant text for the user.
        detail: for the operator: what to compare and what to change, without secrets or anything of the request.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail
        self.rule = ""  # the name of the check that refused


# --- where to send an error ---


def return_address(parameters: Mapping[str, str], repeated: frozenset[str]) -> tuple[str, str | None, str]:
    """Where to send an error once the redirect URI is trusted: redirect URI, `state`, response mode. An oversized `state` is dropped."""
    said = {**_unsigned_object(parameters, repeated), **parameters}
    state = None if "state" in repeated else said.get("state")
    if state is not None and is_too_large({"state": state}):
        state = None
    is_form = said.get("response_mode") == "form_post" and "response_mode" not in repeated
    return parameters["redirect_uri"], state, "form_post" if is_form else "query"


def _unsigned_object(parameters: Mapping[str, str], repeated: frozenset[str]) -> Mapping[str, str]:
    """The members of an unsigned request object that say how to send its refusal. A signed one is ignored.

    Spec: OpenID Connect Core §6.1, RFC 7519 §6
    """
    try:
        head, payload, signature = parameters["request"].split(".")
        if "request" in repeated or signature or _json_of(head).get("alg") != "none":
            return {}
        claims = _json_of(payload)
    except (KeyError, ValueError, RecursionError):
        return {}
    wanted = {name: claims.get(name) for name in ("state", "response_mode")}
    return {name: value for name, value in wanted.items() if isinstance(value, str) and value}


def _json_of(part: str) -> Mapping[str, Any]:
    if not part.isascii():
        raise ValueError("not base64url")
    value = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value
