"""A policy: the tokens for one audience; and all policies of a service. Both are frozen.

Spec: RFC 8707 §2 (a resource is an absolute URI), RFC 9068 §2.1 (`at+jwt`)
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from service.keys.material import HmacKey
from service.policies.lines import Path, line_of

#: The grants that can issue a token.
MINT: Final = "mint"
CLIENT_CREDENTIALS: Final = "client_credentials"
AUTHORIZATION_CODE: Final = "authorization_code"
TOKEN_EXCHANGE: Final = "token_exchange"
WAYS: Final = (MINT, AUTHORIZATION_CODE, CLIENT_CREDENTIALS, TOKEN_EXCHANGE)
#: The grants that clients use.
CLIENT_WAYS: Final = frozenset(WAYS[1:])
#: The name of the exchange in a client's `grant_types` and in a request (RFC 8693 §2.1); the other grants have one name.
EXCHANGE_GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
#: The same for devices (RFC 8628 §3.4), whose tokens are those of the code flow.
DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
#: Claims of a sign-in, which every token in a user's name has. A policy may name them although they belong to the protocol:
#: their meaning does not change.
SIGN_IN_CLAIMS: Final = ("acr", "amr", "auth_time")
_ABSOLUTE_URI: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:[\x21\x23-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e]+"
)
_ORIGIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]+")


def is_resource(audience: str) -> bool:
    """Whether a client can name the audience: an absolute URI without a fragment (RFC 8707 §2)."""
    return _ABSOLUTE_URI.fullmatch(audience) is not None and "#" not in audience


def names_issuer(resource: str, issuer: str) -> bool:
    """Whether a resource is the issuer, which stands for userinfo. An origin may have a slash at its end, as in `of_resource`."""
    return resource == issuer or (resource == f"{issuer}/" and _ORIGIN.fullmatch(issuer) is not None)


@dataclass(frozen=True, slots=True)
class Require:
    """The requirements for a sign-in and its user.

    Attributes:
        acr: one of these.
        amr: all of these.
        max_session_age_s: the longest time since the sign-in, in s, from `auth_time`.
        roles: any of these.
        tenant_id: one of these.
        email_verified: whether the email address must be verified.
    """

    acr: tuple[str, ...] = ()
    amr: tuple[str, ...] = ()
    max_session_age_s: int | None = None
    roles: tuple[str, ...] = ()
    tenant_id: tuple[str, ...] = ()
    email_verified: bool = False


NOTHING_REQUIRED: Final = Require()


@dataclass(frozen=True, slots=True)
class Migration:
    """The algorithm that an audience moves to, and the percentage of callers whose tokens it already signs."""

    to: str
    percent: int

    def has_moved(self, caller: str) -> bool:
        """Whether this caller has moved; once moved, it stays so while the percentage grows.

        Args:
            caller: the `sid` of a session, or the id of a client that acts for itself.
        """
        return zlib.crc32(caller.encode()) * 100 >> 32 < self.percent


@dataclass(frozen=True)
class Policy:
    """The tokens for one audience.

    Attributes:
        audience: its `aud`; None if the service has no policies and no audience.
        alg: their signature algorithm.
        lifetime_s: their longest lifetime, in s.
        grants: the grants that issue it.
        clients: the clients that may request them; None: those that the operator registered.
        strangers: whether clients that the operator did not register may request them.
        scopes: the scopes of this API.
        scope_descriptions: their descriptions on the consent page.
        exchange_scopes: the scopes that a minted token or an ID token counts as having when it is exchanged.
        claims: the claims of the user that they contain.
        rename: claim -> the name that it has in the token.
        static: claims that they always contain.
        require: the requirements for a token.
        typ: the header's `typ`; None: the default of the grant.
        migrate: the move to another algorithm.
        left: algorithm that no longer signs -> when the last of its tokens expires, Unix s.
        secret_file, secret_env: the source of this audience's own HS256 secret.
        secret: that secret; None: that of the service.
    """

    audience: str | None
    alg: str
    lifetime_s: int
    grants: tuple[str, ...] = (MINT,)
    clients: tuple[str, ...] | None = None
    strangers: bool = False
    scopes: tuple[str, ...] = ()
    scope_descriptions: Mapping[str, str] = field(default_factory=dict)
    exchange_scopes: tuple[str, ...] = ()
    claims: tuple[str, ...] = ("roles", "tenant_id")
    rename: Mapping[str, str] = field(default_factory=dict)
    static: Mapping[str, Any] = field(default_factory=dict)
    require: Require = NOTHING_REQUIRED
    typ: str | None = None
    migrate: Migration | None = None
    left: Mapping[str, int] = field(default_factory=dict)
    secret_file: str | None = None
    secret_env: str | None = None
    secret: HmacKey | None = field(default=None, repr=False)

    @cached_property
    def named_claims(self) -> tuple[tuple[str, str], ...]:
        """Each claim of the user in the token, with its name there."""
        return tuple((claim, self.rename.get(claim, claim)) for claim in self.claims)

    def alg_for(self, caller: str) -> str:
        """The signature algorithm for a caller; see `Migration.has_moved`."""
        if self.migrate is None or not self.migrate.has_moved(caller):
            return self.alg
        return self.migrate.to

    @cached_property
    def algs(self) -> tuple[str, ...]:
        """The algorithms that may sign its tokens: its own, and the one that it moves to."""
        return (self.alg,) if self.migrate is None else (self.alg, self.migrate.to)

    @cached_property
    def signing_algs(self) -> tuple[str, ...]:
        """Those of them that sign tokens now."""
        if self.migrate is None or self.migrate.percent == 0:
            return (self.alg,)
        return (self.migrate.to,) if self.migrate.percent == 100 else self.algs

    @cached_property
    def algs_of_shown(self) -> tuple[str, ...]:
        """The algorithms of tokens that may still be in use, including those of `left`."""
        return tuple(dict.fromkeys((*self.algs, *self.left)))

    def may_live(self, alg: str, expires_at: int) -> bool:
        """Whether there can be a token of that algorithm that expires at this time, Unix s."""
        return alg in self.algs or expires_at <= self.left.get(alg, 0)

    def typ_by(self, way: str) -> str:
        """The header's `typ` of a token of this grant."""
        return self.typ or ("at+jwt" if way in CLIENT_WAYS else "JWT")

    @cached_property
    def typs(self) -> frozenset[str]:
        """Every `typ` of its tokens."""
        return frozenset(self.typ_by(way) for way in self.grants)


@dataclass(frozen=True)
class Policies:
    """The policies of a service.

    Attributes:
        tables: audience -> its policy, in the order of the file.
        cases: the test cases of the file, as `service.policies.cases` reads them.
        file: its path; empty if there is none.
        lines: the line of each key in it.
        unread: whether the file could not be read, so that nothing can be called unknown.
    """

    tables: Mapping[str | None, Policy]
    cases: Sequence[Any] = ()
    file: str = ""
    lines: Mapping[Path, int] = field(default_factory=dict, repr=False)
    unread: bool = False

    def to_mint(self, audience: str | None) -> Policy | None:
        """The policy of an audience that a session may mint for; None for any other."""
        policy = self.tables.get(audience)
        return policy if policy is not None and MINT in policy.grants else None

    def of_resource(self, resource: str) -> Policy | None:
        """The policy of a resource. An origin may also end with a slash; there is no other second spelling.

        Spec: RFC 8707 §2
        """
        policy = self.tables.get(resource)
        if policy is None and resource.endswith("/") and _ORIGIN.fullmatch(resource[:-1]):
            policy = self.tables.get(resource[:-1])
        return policy if policy is not None and is_resource(resource) else None

    @property
    def sole(self) -> Policy | None:
        """The policy of all tokens if there is no file."""
        return None if self.file else next(iter(self.tables.values()), None)

    def served_by(self, way: str) -> bool:
        """Whether this grant can issue a token for any audience."""
        return any(way in policy.grants for policy in self.tables.values())

    @cached_property
    def audiences(self) -> frozenset[str]:
        """Every audience that has a name."""
        return frozenset(audience for audience in self.tables if audience is not None)

    @cached_property
    def open_to_strangers(self) -> tuple[Policy, ...]:
        """The audiences that strangers may request: the APIs that discovery names."""
        return tuple(
            policy
            for audience, policy in self.tables.items()
            if policy.strangers and AUTHORIZATION_CODE in policy.grants and is_resource(audience or "")
        )

    @cached_property
    def scopes(self) -> tuple[str, ...]:
        """The scopes of all APIs, without duplicates."""
        return tuple(dict.fromkeys(word for policy in self.tables.values() for word in policy.scopes))

    @cached_property
    def scopes_of_strangers(self) -> tuple[str, ...]:
        """The scopes of the APIs that strangers may use, without duplicates."""
        opened = (policy for policy in self.tables.values() if policy.strangers)
        return tuple(dict.fromkeys(word for policy in opened for word in policy.scopes))

    @cached_property
    def algs(self) -> frozenset[str]:
        """Every algorithm that signs, or will sign, for an audience."""
        return frozenset(alg for policy in self.tables.values() for alg in policy.algs)

    @cached_property
    def longest_s(self) -> int:
        """The longest lifetime of a token, in s."""
        return max((policy.lifetime_s for policy in self.tables.values()), default=0)

    def place(self, audience: str, *member: str) -> tuple[int, str]:
        """The line of a member of an audience's table, or of `[default]`; and its name in words."""
        own: Path = ("audience", audience, *member)
        default: Path = ("default", *member)
        at = default if member and own[:3] not in self.lines and default[:2] in self.lines else own
        return line_of(self.lines, at), named(table_name(audience), member)


#: There are no audiences.
NO_POLICIES: Final = Policies({})


def named(table: str, member: Sequence[str | int]) -> str:
    """A table and a member of it, in words."""
    return ", ".join([table, ".".join(map(str, member))] if member else [table])


def table_name(audience: str) -> str:
    """The header of an audience's table in the file."""
    return '[audience."' + audience.replace("\\", "\\\\").replace('"', '\\"') + '"]'
