"""The body by which an app says that it has signed a user in."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter, ValidationError

from service.protocol.claims import InvalidClaim, check_claims
from service.protocol.models import SignIn
from service.web.bodies import StrictModel, may_be_absent
from service.web.errors import ApiError

UserId = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,255}$")]
Word = Annotated[str, StringConstraints(min_length=1, max_length=255)]
_CLOCK_SKEW_S = 60
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
        raise ApiError("INVALID_BODY", field=f"claims.{error.path}") from None
    return claims


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
            given=frozenset(self.model_fields_set & {"claims", "roles", "tenant_id"}),
        )


class TrustedMintRequest(SignInRequest):
    """The same, and whatever makes two bodies differ that say the same."""

    nonce: Word = may_be_absent()
