"""The body by which an app says that it has signed a user in."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError

from service.records.claims import (
    STANDARD_CLAIMS,
    InvalidAttributes,
    InvalidClaim,
    check_attributes,
    check_claims,
)
from service.records.sessions import SignIn
from service.web.bodies import StrictModel, may_be_absent
from service.web.errors import ApiError, is_harmless

UserId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,255}$")]
Word = Annotated[str, StringConstraints(min_length=1, max_length=255)]
_CLOCK_SKEW_S = 60
_NO_CLAIM = "It is no standard claim of OpenID Connect; give the app's own facts in attributes."
_USER_ID: TypeAdapter[str] = TypeAdapter(UserId)


def is_user_id(value: str) -> bool:
    """Whether the value may be a user's id: 1 to 255 visible ASCII characters."""
    try:
        _USER_ID.validate_python(value)
    except ValidationError:
        return False
    return True


def standard_claims(claims: dict[str, Any]) -> dict[str, Any]:
    """Check the claims of a body.

    Raises:
        ApiError: `INVALID_BODY`, naming the claim.
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
        ApiError: `INVALID_BODY`, naming the attribute, or all of them where its name cannot be shown.
    """
    try:
        check_attributes(attributes)
    except InvalidAttributes as error:
        one = error.name if error.name and is_harmless(f"attributes.{error.name}") else None
        field = "attributes" if one is None else f"attributes.{one}"
        raise ApiError("INVALID_BODY", field=field, hint=error.reason) from None
    return attributes


Attributes = Annotated[dict[str, Any], AfterValidator(own_facts)]


class SignInRequest(StrictModel):
    """`POST /api/auth/session` and its kin."""

    user_id: UserId
    tenant_id: Word = may_be_absent()
    roles: list[Word] = Field(default_factory=list)
    claims: Annotated[dict[str, Any], AfterValidator(standard_claims)] = Field(default_factory=dict)
    device: Annotated[str, StringConstraints(min_length=1, max_length=512)] = may_be_absent()
    auth_time: Annotated[int, Field(ge=0)] = may_be_absent()
    acr: Word = may_be_absent()
    amr: list[Word] = Field(default_factory=list)
    attributes: Attributes = Field(default_factory=dict)
    expires_in: Annotated[int, Field(ge=1)] = may_be_absent()

    def sign_in(self, *, now: int, max_lifetime_s: int) -> SignIn:
        """The value that the rules speak of.

        Raises:
            ApiError: `INVALID_BODY` when a time is out of its range.
        """
        if self.auth_time is not None and self.auth_time > now + _CLOCK_SKEW_S:
            raise ApiError("INVALID_BODY", field="auth_time")
        if self.expires_in is not None and self.expires_in > max_lifetime_s:
            raise ApiError("INVALID_BODY", field="expires_in")
        return SignIn(
            user_id=self.user_id,
            tenant_id=self.tenant_id,
            roles=tuple(self.roles),
            claims=self.claims,
            device=self.device,
            auth_time=self.auth_time,
            acr=self.acr,
            amr=tuple(self.amr),
            expires_in=self.expires_in,
            given=frozenset(self.model_fields_set & {"claims", "roles", "tenant_id", "attributes"}),
            attributes=self.attributes,
        )


class TrustedMintRequest(SignInRequest):
    """The same, and whatever makes two bodies differ that say the same."""

    nonce: Word = may_be_absent()
