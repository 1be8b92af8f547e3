"""Scopes, and the claims that each gives.

Spec: OpenID Connect Core 1.0 §5.4
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

SCOPES: Final = ("openid", "profile", "email", "address", "phone", "offline_access", "roles", "groups")

#: Scope -> the claims that it gives; `roles` and `groups` are ours: the same, by the name that a client knows.
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


def claims_of_scope(scope: Iterable[str]) -> list[str]:
    """The claims that the scopes give."""
    return [name for word in scope for name in SCOPE_CLAIMS.get(word, ())]
