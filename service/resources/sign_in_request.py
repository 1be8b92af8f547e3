"""The body with which an app reports that it has signed a user in."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, UnsetType

from service.records.claims import (
    STANDARD_CLAIMS,
    InvalidAttributes,
    InvalidClaim,
    check_attributes,
    check_claims,
)
from service.records.sessions import SignIn
from service.web.bodies import StrictModel
from service.web.errors import ApiError, is_harmless

_USER_ID: Final = r"^[\x21-\x7e]{1,255}\Z"
UserId = Annotated[str, Meta(pattern=_USER_ID)]
Word = Annotated[str, Meta(min_length=1, max_length=255)]
_CLOCK_SKEW_S: Final = 60
_NO_CLAIM: Final = "It is not a standard claim of OpenID Connect: send the app's own facts in attributes."
_IS_USER_ID: Final = re.compile(_USER_ID)


def is_user_id(value: str) -> bool:
    """Whether the value may be a user id: 1 to 255 visible ASCII characters."""
    return _IS_USER_ID.match(value) is not None


def standard_claims(claims: dict[str, Any]) -> dict[str, Any]:
    """Check the claims of a body.

    Raises:
        ApiError: `INVALID_BODY`, which names the claim.
    """
    try:
        check_claims(claims)
    except InvalidClaim as error:
        known = error.path.partition(".")[0] in STANDARD_CLAIMS
        raise ApiError(
            "INVALID_BODY", field=f"claims.{error.path}", hint=None if known else _NO_CLAIM
        ) from None
    return claims


def own_facts(attributes: dict[str, Any]) -> dict[str, Any]:
    """Check the attributes of a body.

    Raises:
        ApiError: `INVALID_BODY`, which names the attribute, or `attributes` if its name cannot be shown.
    """
    try:
        check_attributes(attributes)
    except InvalidAttributes as error:
        one = error.name if error.name and is_harmless(f"attributes.{error.name}") else None
        field = "attributes" if one is None else f"attributes.{one}"
        raise ApiError("INVALID_BODY", field=field, hint=error.reason) from None
    return attributes


class AboutUser(StrictModel, frozen=True, kw_only=True):
    """The app's report about a user. Fields that are left out do not change."""

    claims: dict[str, Any] | UnsetType = UNSET
    roles: list[Word] | UnsetType = UNSET
    tenant_id: Word | UnsetType = UNSET
    attributes: dict[str, Any] | UnsetType = UNSET

    def __post_init__(self) -> None:
        """Check what types cannot express."""
        standard_claims(self.claims or {})
        own_facts(self.attributes or {})

    def about(self, user_id: str) -> SignIn:
        """The value that the rules speak of."""
        names = ("claims", "roles", "tenant_id", "attributes")
        return SignIn(
            user_id=user_id,
            tenant_id=self.tenant_id or None,
            roles=tuple(self.roles or ()),
            claims=self.claims or {},
            attributes=self.attributes or {},
            given=frozenset(name for name in names if getattr(self, name) is not UNSET),
        )


class SignInRequest(AboutUser, frozen=True, kw_only=True):
    """`POST /api/auth/session` and similar endpoints."""

    user_id: UserId
    device: Annotated[str, Meta(min_length=1, max_length=512)] | UnsetType = UNSET
    auth_time: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    acr: Word | UnsetType = UNSET
    amr: list[Word] | UnsetType = UNSET
    expires_in: Annotated[int, Meta(ge=1)] | UnsetType = UNSET

    def sign_in(self, *, now: int, max_lifetime_s: int) -> SignIn:
        """The value that the rules speak of.

        Raises:
            ApiError: `INVALID_BODY` if a time is out of range.
        """
        if self.auth_time is not UNSET and self.auth_time > now + _CLOCK_SKEW_S:
            raise ApiError("INVALID_BODY", field="auth_time")
        if self.expires_in is not UNSET and self.expires_in > max_lifetime_s:
            raise ApiError("INVALID_BODY", field="expires_in")
        return replace(
            self.about(self.user_id),
            device=self.device or None,
            auth_time=None if self.auth_time is UNSET else self.auth_time,
            acr=self.acr or None,
            amr=tuple(self.amr or ()),
            expires_in=self.expires_in or None,
        )


class TrustedMintRequest(SignInRequest, frozen=True, kw_only=True):
    """The same, with an optional member that makes otherwise equal bodies differ."""

    nonce: Word | UnsetType = UNSET
