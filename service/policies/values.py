"""A policy: what tokens for one audience are, and all policies of a service; frozen.

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
#: Those by which a client asks.
CLIENT_WAYS: Final = frozenset(WAYS[1:])
#: How a client's `grant_types` and a request name the exchange (RFC 8693 §2.1); the other ways have one name.
EXCHANGE_GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
#: The same for devices (RFC 8628 §3.4), whose tokens are those of the code flow.
DEVICE_GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
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
    """What a sign-in must have been, and its user must be.

    Attributes:
        acr: one of these.
        amr: all of these.
        max_session_age_s: at most so long ago, in s, counted from `auth_time`.
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
    """To which algorithm an audience moves, and how many of a hundred callers get tokens that it signs already."""

    to: str
    percent: int

    def has_moved(self, caller: str) -> bool:
        """Whether this caller is among them; one who is stays so while the share grows.

        Args:
            caller: the `sid` of a session, or the id of a client that asks for itself.
        """
        return zlib.crc32(caller.encode()) * 100 >> 32 < self.percent


@dataclass(frozen=True)
class Policy:
    """What a token for one audience is.

    Attributes:
        audience: its `aud`; None where the service has no policies and no audience.
        alg: it is signed by that.
        lifetime_s: lives so long at most, in s.
        grants: the grants that issue it.
        clients: which may ask, for the ways that have a client; None: those that the operator registered.
        strangers: whether clients may ask that the operator did not register.
        scopes: the words of this API.
        scope_descriptions: what the consent page says of each.
        exchange_scopes: the words that a minted token or an ID token counts as holding when it is exchanged.
        claims: which claims of the user go in.
        rename: claim -> the name that it has in the token.
        static: claims that are always there.
        require: what must hold for it.
        typ: the header's `typ`; None: by the way.
        migrate: where it moves to.
        left: algorithm that signs its tokens no more -> when the last of those ends, Unix s.
        secret_file, secret_env: where the HS256 secret of this audience is.
        secret: that secret; None: the one of the service.
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
        """Each claim of the user that goes in, with the name that it has there."""
        return tuple((claim, self.rename.get(claim, claim)) for claim in self.claims)

    def alg_for(self, caller: str) -> str:
        """The signature algorithm for a caller; see `Migration.has_moved`."""
        if self.migrate is None or not self.migrate.has_moved(caller):
            return self.alg
        return self.migrate.to

    @cached_property
    def algs(self) -> tuple[str, ...]:
        """The algorithms by which its tokens may be signed: its own, and the one that it moves to."""
        return (self.alg,) if self.migrate is None else (self.alg, self.migrate.to)

    @cached_property
    def signing_algs(self) -> tuple[str, ...]:
        """Those of them by which somebody gets a token now."""
        if self.migrate is None or self.migrate.percent == 0:
            return (self.alg,)
        return (self.migrate.to,) if self.migrate.percent == 100 else self.algs

    @cached_property
    def algs_of_shown(self) -> tuple[str, ...]:
        """The algorithms of the tokens that somebody may show: also those of `left`."""
        return tuple(dict.fromkeys((*self.algs, *self.left)))

    def may_live(self, alg: str, expires_at: int) -> bool:
        """Whether there can be a token of that algorithm which ends then, Unix s."""
        return alg in self.algs or expires_at <= self.left.get(alg, 0)

    def typ_by(self, way: str) -> str:
        """The header's `typ` of a token that was had by this way."""
        return self.typ or ("at+jwt" if way in CLIENT_WAYS else "JWT")

    @cached_property
    def typs(self) -> frozenset[str]:
        """Every `typ` that its tokens have."""
        return frozenset(self.typ_by(way) for way in self.grants)


@dataclass(frozen=True)
class Policies:
    """The policies of a service.

    Attributes:
        tables: audience -> its policy, in the order of the file.
        cases: what the file says that must come of it, as `service.policies.cases` reads it.
        file: its path; empty where there is none.
        lines: on which line each key of it stands.
        unread: the file could not be read: nothing can be called unknown.
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
        """The policy of a resource; an origin is named with a slash too, nothing else is another spelling.

        Spec: RFC 8707 §2
        """
        policy = self.tables.get(resource)
        if policy is None and resource.endswith("/") and _ORIGIN.fullmatch(resource[:-1]):
            policy = self.tables.get(resource[:-1])
        return policy if policy is not None and is_resource(resource) else None

    @property
    def sole(self) -> Policy | None:
        """The policy of all tokens where there is no file."""
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
        """Those that clients may ask for that the operator did not register: all that discovery names of APIs."""
        return tuple(
            policy
            for audience, policy in self.tables.items()
            if policy.strangers and AUTHORIZATION_CODE in policy.grants and is_resource(audience or "")
        )

    @cached_property
    def scopes(self) -> tuple[str, ...]:
        """The words of every API, each once."""
        return tuple(dict.fromkeys(word for policy in self.tables.values() for word in policy.scopes))

    @cached_property
    def scopes_of_strangers(self) -> tuple[str, ...]:
        """The words of the APIs that strangers may use, each once."""
        opened = (policy for policy in self.tables.values() if policy.strangers)
        return tuple(dict.fromkeys(word for policy in opened for word in policy.scopes))

    @cached_property
    def algs(self) -> frozenset[str]:
        """Every algorithm that signs for an audience, or will."""
        return frozenset(alg for policy in self.tables.values() for alg in policy.algs)

    @cached_property
    def longest_s(self) -> int:
        """The longest life of a token, in s."""
        return max((policy.lifetime_s for policy in self.tables.values()), default=0)

    def place(self, audience: str, *member: str) -> tuple[int, str]:
        """The line of a member of an audience's table, where it is said for it or by default; and its name in words."""
        own: Path = ("audience", audience, *member)
        default: Path = ("default", *member)
        at = default if member and own[:3] not in self.lines and default[:2] in self.lines else own
        return line_of(self.lines, at), named(table_name(audience), member)


#: There is no audience at all.
NO_POLICIES: Final = Policies({})


def named(table: str, member: Sequence[str | int]) -> str:
    """A table and a member of it, in words."""
    return ", ".join([table, ".".join(map(str, member))] if member else [table])


def table_name(audience: str) -> str:
    """How an audience's table is headed in the file."""
    return '[audience."' + audience.replace("\\", "\\\\").replace('"', '\\"') + '"]'
