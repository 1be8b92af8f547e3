"""The claims of a user: the standard ones with their JSON types, and the names that nothing may set.

Spec: OpenID Connect Core 1.0 §2, §5.1, §5.1.1; RFC 8725 §3.11
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

_STRINGS = [
    "name",
    "given_name",
    "family_name",
    "middle_name",
    "nickname",
    "preferred_username",
    "profile",
    "picture",
    "website",
    "email",
    "gender",
    "birthdate",
    "zoneinfo",
    "locale",
    "phone_number",
]
_ADDRESS = ["formatted", "street_address", "locality", "region", "postal_code", "country"]

#: Claim -> JSON type. `sub` is missing on purpose: the user id gives it, and nothing else may.
STANDARD_CLAIMS: Final[Mapping[str, type]] = {
    **dict.fromkeys(_STRINGS, str),
    "email_verified": bool,
    "phone_number_verified": bool,
    "address": dict,
    "updated_at": int,
}


#: What the protocol itself says in some token or answer: no claim of the app's or the operator's has such a name.
PROTECTED_CLAIMS: Final = frozenset(
    {
        *(
            "iss",
            "sub",
            "aud",
            "exp",
            "iat",
            "nbf",
            "jti",
            "nonce",
            "azp",
            "acr",
            "amr",
            "auth_time",
            "sid",
            "cnf",
        ),
        *(
            "client_id",
            "scope",
            "at_hash",
            "c_hash",
            "s_hash",
            "act",
            "may_act",
            "status",
            "events",
            "active",
        ),
        *("token_type", "username", "typ", "_claim_names", "_claim_sources"),
    }
)
#: What a relying party decides by: only the app itself says these, never another claim under their name.
VERIFIED_CLAIMS: Final = frozenset({"email_verified", "phone_number_verified"})
_CLAIM_NAME: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}", re.ASCII)


def is_claim_name(name: Any) -> bool:
    """Whether a claim of a user may have this name."""
    return type(name) is str and _CLAIM_NAME.fullmatch(name) is not None and name not in PROTECTED_CLAIMS


class InvalidClaim(ValueError):
    """A claim that is not a standard one, or has the wrong JSON type; `path` names it."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def check_claims(claims: Mapping[str, Any]) -> None:
    """Check the standard claims of a user.

    Args:
        claims: as the app gave them; times are Unix s.

    Raises:
        InvalidClaim: naming the first member that is no standard claim or has the wrong type.
    """
    for name, value in claims.items():
        # `type(...) is`, for True is an int to isinstance.
        if type(value) is not STANDARD_CLAIMS.get(name):
            raise InvalidClaim(name)
        if isinstance(value, dict):
            _check_address(value)


def _check_address(address: Mapping[str, Any]) -> None:
    for name, value in address.items():
        if name not in _ADDRESS or type(value) is not str:
            raise InvalidClaim(f"address.{name}")
