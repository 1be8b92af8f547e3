"""Scopes and their claims: those of the specification, ours, and the operator's own.

Spec: OpenID Connect Core 1.0 §5.4; RFC 6749 §3.3
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from service.records.claims import PROTECTED_CLAIMS, is_attribute_name

SCOPES: Final = ("openid", "profile", "email", "address", "phone", "offline_access", "roles", "groups")

#: Scope -> its claims. `roles` and `groups` are ours: the same claim under two names.
SCOPE_CLAIMS: Final[Mapping[str, tuple[str, ...]]] = {
    "profile": (
        "name", "family_name", "given_name", "middle_name", "nickname", "preferred_username", "profile", "picture",
        "website", "gender", "birthdate", "zoneinfo", "locale", "updated_at",
    ),
    "email": ("email", "email_verified"),
    "address": ("address",),
    "phone": ("phone_number", "phone_number_verified"),
    "roles": ("roles", "tenant_id"),
    "groups": ("groups",),
}  # fmt: skip
#: The scopes that a stranger may have by default.
FOR_STRANGERS: Final = ("openid", "profile", "email", "offline_access")
_WORD: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}", re.ASCII)
_MOST: Final = 64
#: How many own scopes an operator may define: together with the others 64, the limit of a grant.
MOST_OWN: Final = 64 - len(SCOPES)


def words_of(text: str | None) -> tuple[str, ...]:
    """Split a list such as `scope` or `prompt` at spaces, and only at spaces (RFC 6749 §3.3)."""
    return tuple(filter(None, (text or "").split(" ")))


class InvalidScope(ValueError):
    """An entry of the operator's scopes is wrong. The message says which, and what to write instead."""


@dataclass(frozen=True, slots=True)
class OwnScope:
    """An operator's own scope: its attributes, and its description on the consent page."""

    claims: tuple[str, ...]
    description: str


@dataclass(frozen=True)
class Scopes:
    """Every scope of a service.

    Attributes:
        own: the operator's own scopes, by name.
        unread: the operator's scopes could not be read, so no scope can be called unknown.
        of_apis: the scopes of APIs, which are valid only together with a resource (RFC 8707).
        of_strangers: all that clients may have that the operator did not register.
    """

    own: Mapping[str, OwnScope] = field(default_factory=dict)
    unread: bool = False
    of_apis: tuple[str, ...] = ()
    of_strangers: tuple[str, ...] = FOR_STRANGERS

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The names of all scopes, in the order in which they are shown."""
        return (*SCOPES, *self.own)

    @cached_property
    def known(self) -> tuple[str, ...]:
        """All scopes that a client may have, including those of APIs."""
        return (*self.words, *(word for word in self.of_apis if word not in self.own))

    @cached_property
    def _claims(self) -> Mapping[str, tuple[str, ...]]:
        return {**SCOPE_CLAIMS, **{word: scope.claims for word, scope in self.own.items()}}

    @cached_property
    def descriptions(self) -> Mapping[str, str]:
        """The description of each own scope."""
        return {word: scope.description for word, scope in self.own.items()}

    def claims_of(self, scope: Iterable[str]) -> list[str]:
        """The claims of the scopes; none for an unknown scope."""
        return [name for word in scope for name in self._claims.get(word, ())]


#: The scopes if the operator has defined none.
STANDARD_SCOPES: Final = Scopes()
#: The scopes if the operator's could not be read.
UNREAD_SCOPES: Final = Scopes(unread=True)


def parse_own_scope(word: str, value: Any) -> OwnScope:
    """Check one entry of the operator's scopes.

    Raises:
        InvalidScope: says what is wrong, and what to write instead.
    """
    if not _WORD.fullmatch(word):
        raise InvalidScope("a scope: is not a name; write 1 to 64 of A-Z a-z 0-9 _ . : / -")
    if word in SCOPES or word in PROTECTED_CLAIMS:
        raise InvalidScope(f"{word}: already has a meaning; write another name")
    if not isinstance(value, dict) or set(value) != {"claims", "description"}:
        raise InvalidScope(
            f'{word}: is not of its form; write {{"claims": ["department"], "description": "see your department"}}'
        )
    claims, description = value["claims"], value["description"]
    if (
        not isinstance(claims, list)
        or not 1 <= len(claims) <= _MOST
        or not all(map(is_attribute_name, claims))
    ):
        raise InvalidScope(
            f"{word}, claims: is not a list of attributes; write names that your app sends in attributes, "
            "not those of standard claims or of the protocol"
        )
    if type(description) is not str or not 1 <= len(description) <= 255 or not description.isprintable():
        raise InvalidScope(
            f"{word}, description: is not a line of text; write what the user lets the service do"
        )
    return OwnScope(tuple(dict.fromkeys(claims)), description)
