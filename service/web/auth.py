"""Reads the session token or admin token of a request, and checks that no other site caused it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import falcon

from service.issuer import issuer_origin
from service.web.cookies import cookie_values
from service.web.errors import ApiError


@dataclass(frozen=True, slots=True)
class Credential:
    """The session tokens that a request sends, before they are verified.

    Attributes:
        unverified_tokens: the session token; more than one if several cookies have the same name.
        by_cookie: whether they came in cookies.
    """

    unverified_tokens: tuple[str, ...]
    by_cookie: bool


def session_credential(req: falcon.Request, cookie_name: str) -> Credential:
    """Read the session token. If there is an `Authorization` header, even one that is not Bearer, cookies are ignored.

    Spec: RFC 6750 §2.1
    """
    authorization = req.env.get("HTTP_AUTHORIZATION")
    if authorization is not None:
        token = _bearer(authorization)
        return Credential(() if token is None else (token,), by_cookie=False)
    if "HTTP_COOKIE" not in req.env:
        return Credential((), by_cookie=False)
    return Credential(cookie_values(req, cookie_name), by_cookie=True)


def _bearer(authorization: str) -> str | None:
    scheme, _, token = authorization.partition(" ")
    return token.strip(" ") if scheme.lower() == "bearer" else None


def bearer_token(req: falcon.Request) -> str | None:
    """The token in `Authorization: Bearer`, or None if there is no such header (RFC 6750 §2.1)."""
    return _bearer(req.env.get("HTTP_AUTHORIZATION", ""))


class AdminAuth:
    """Checks the admin token, of which only a hash is kept.

    Args:
        tokens: the admin tokens that count, the current one and the one before it; without any, the admin API is closed.
    """

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self._expected = [hashlib.sha256(token).digest() for token in tokens]

    def require(self, req: falcon.Request) -> None:
        """Refuse a request without the admin token.

        Raises:
            ApiError: `FORBIDDEN`.
        """
        if not self._expected:
            raise ApiError("FORBIDDEN", hint="Set PYLON_ADMIN_TOKEN to open the admin API.")
        shown = (bearer_token(req) or "").encode("latin-1", "replace")
        # Both sides have the same length, and all are compared, so that this always takes the same time.
        digest = hashlib.sha256(shown).digest()
        matching = [hmac.compare_digest(digest, expected) for expected in self._expected]
        if not any(matching):
            raise ApiError("FORBIDDEN")


def check_same_origin(req: falcon.Request, *, own_origin: str, trusted_origins: frozenset[str]) -> None:
    """Refuse a change that another site made the browser send with the user's cookie.

    Args:
        req: the request, authenticated by its cookie.
        own_origin: the issuer's origin.
        trusted_origins: the app's front ends.

    Raises:
        ApiError: `CROSS_SITE`.

    Spec: W3C Fetch Metadata §2.1, RFC 6454 §7. No browser omits both headers.
    """
    site, origin = req.env.get("HTTP_SEC_FETCH_SITE"), req.env.get("HTTP_ORIGIN")
    if site is None:
        allowed = origin is None or origin == own_origin or origin in trusted_origins
    elif site == "same-site":
        allowed = origin in trusted_origins
    else:
        allowed = site in {"same-origin", "none"}
    if not allowed:
        raise ApiError("CROSS_SITE")


def is_of_other_site(req: falcon.Request) -> bool:
    """Whether a page of another origin led the browser here, or sent it back here; also one of the same site."""
    return req.env.get("HTTP_SEC_FETCH_SITE") in {"cross-site", "same-site"}


def is_own_form(req: falcon.Request) -> bool:
    """Whether a page of ours posted the form. A private window may send `Origin: null`: then the one-time token decides."""
    site, origin = req.env.get("HTTP_SEC_FETCH_SITE"), req.env.get("HTTP_ORIGIN")
    if site is not None:
        return site in {"same-origin", "none"}
    return origin in (None, "null", issuer_origin(req.context.issuer))
