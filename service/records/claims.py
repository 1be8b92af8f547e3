"""The claims of a user: the standard ones with their JSON types, and the names that nothing may set.

Spec: OpenID Connect Core 1.0 §2, §5.1, §5.1.1; RFC 8725 §3.11
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

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


#: Names that the protocol itself uses in some token or answer: no claim of the app or the operator may have one.
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
#: Claims that relying parties base decisions on: only the app sets these, and no other claim is renamed to them.
VERIFIED_CLAIMS: Final = frozenset({"email_verified", "phone_number_verified"})
#: Our own claims of a user.
OUR_CLAIMS: Final = frozenset({"roles", "groups", "tenant_id"})
MAX_ATTRIBUTES: Final = 64
MAX_ATTRIBUTES_BYTES: Final = 8 * 1024
_CLAIM_NAME: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}", re.ASCII)


def is_claim_name(name: Any) -> bool:
    """Whether a claim of a user may have this name."""
    return type(name) is str and _CLAIM_NAME.fullmatch(name) is not None and name not in PROTECTED_CLAIMS


def is_attribute_name(name: Any) -> bool:
    """Whether an attribute may have this name: it must not be a claim that already has a meaning."""
    return is_claim_name(name) and name not in STANDARD_CLAIMS and name not in OUR_CLAIMS


class InvalidClaim(ValueError):
    """A claim is not a standard one, or has the wrong JSON type; `path` names it."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def check_claims(claims: Mapping[str, Any]) -> None:
    """Check the standard claims of a user.

    Args:
        claims: the app's claims; times are Unix s.

    Raises:
        InvalidClaim: names the first member that is not a standard claim or has the wrong type.
    """
    for name, value in claims.items():
        # `type(...) is`, because isinstance accepts True as an int.
        if type(value) is not STANDARD_CLAIMS.get(name):
            raise InvalidClaim(name)
        if isinstance(value, dict):
            _check_address(value)


def _check_address(address: Mapping[str, Any]) -> None:
    for name, value in address.items():
        if name not in _ADDRESS or type(value) is not str:
            raise InvalidClaim(f"address.{name}")


class InvalidAttributes(ValueError):
    """Attributes cannot be stored.

    Args:
        name: the wrong one; None if all together are wrong.
        reason: what is wrong, and what to do instead.
    """

    def __init__(self, name: str | None, reason: str) -> None:
        super().__init__(reason)
        self.name = name
        self.reason = reason


def check_attributes(attributes: Mapping[str, Any]) -> None:
    """Check the app's own data about a user.

    Args:
        attributes: the app's attributes.

    Raises:
        InvalidAttributes: names the first that is not allowed, or says that there are too many or they are too large.
    """
    for name, value in attributes.items():
        if not is_attribute_name(name):
            if name in STANDARD_CLAIMS:
                raise InvalidAttributes(name, "It is a standard claim: send it in claims.")
            raise InvalidAttributes(
                name,
                "The name is not allowed: use 1 to 64 of A-Z a-z 0-9 _ . : / - and no name that has a meaning in the protocol or here.",
            )
        if not _is_attribute(value):
            raise InvalidAttributes(
                name, "The value is not allowed: send a string, a number, true, false, or a list of strings."
            )
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidAttributes(None, f"There are too many: send at most {MAX_ATTRIBUTES}.")
    if len(json.dumps(attributes, ensure_ascii=False, separators=(",", ":")).encode()) > MAX_ATTRIBUTES_BYTES:
        raise InvalidAttributes(
            None, f"They are too large: send at most {MAX_ATTRIBUTES_BYTES} bytes of JSON."
        )


def _is_attribute(value: Any) -> bool:
    if type(value) is list:
        return all(type(entry) is str for entry in value)
    if type(value) is float:
        return math.isfinite(value)
    return type(value) in {str, int, bool}


# --- the `claims` parameter of a request, OpenID Connect Core §5.5 ---


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """The request for one claim: whether it is essential, and which values are accepted (none: any)."""

    essential: bool = False
    values: tuple[Any, ...] = ()


def parse_claim_requests(text: str) -> dict[str, dict[str, ClaimRequest]]:
    """Parse the claims that are requested one by one, for `id_token` and for `userinfo`.

    Raises:
        ValueError: if the form is wrong.
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if type(value) is not dict:
        raise ValueError("not an object")
    parsed: dict[str, dict[str, ClaimRequest]] = {"id_token": {}, "userinfo": {}}
    for place, wanted in parsed.items():
        members = value.get(place)
        if members is not None and type(members) is not dict:
            raise ValueError("not an object of claims")
        wanted.update({name: _claim_request(detail) for name, detail in (members or {}).items()})
    return parsed


def _claim_request(detail: object) -> ClaimRequest:
    if detail is None:
        return ClaimRequest()
    if type(detail) is not dict or type(detail.get("essential", False)) is not bool:
        raise ValueError("not a claim request")
    values = detail.get("values", [detail["value"]] if "value" in detail else [])
    if type(values) is not list:
        raise ValueError("not a list of values")
    return ClaimRequest(detail.get("essential", False), tuple(values))


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"not JSON: {constant}")
