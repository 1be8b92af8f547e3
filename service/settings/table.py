"""The table of the settings: name, parser, default; and values that follow from them."""

# ruff: noqa: RUF009 - what is called makes a field

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from joserfc.jwk import OctKey, RSAKey

from service.issuer import AllowedHost, parse_issuer
from service.keys.algorithms import ASYMMETRIC_ALGS, MINT_ALGS
from service.keys.material import load_private_key, load_public_key
from service.keys.ring import DAY_S, Margins
from service.keys.sealing import SealingKeys
from service.outbound.addresses import Allowed
from service.outbound.reading import Proxy, parse_allowed, parse_ca_file, parse_proxy
from service.policies.values import Policies, Policy
from service.protocol.client_documents import HostPattern
from service.records.clients import Client
from service.records.lifetimes import Lifetimes
from service.records.scopes import FOR_STRANGERS, UNREAD_SCOPES, Scopes
from service.records.sessions import MAX_SESSION_S
from service.settings import parsers, strangers
from service.storage.urls import DatabaseUrl, parse_database_url

T = TypeVar("T")
D = TypeVar("D")

_ROW: Final = "row"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the table.

    Attributes:
        name: the name in the environment.
        parse: turns its text into its value; raises ValueError with its faults, one to a line.
        instead: its value if it is wrong.
        beside: earlier fields whose values its parser also gets; None for an unset one.
    """

    name: str
    parse: Callable[..., Any]
    instead: Any
    beside: tuple[str, ...] = ()


def _setting(
    name: str,
    parse: Callable[..., T],
    default: D,
    *,
    secret: bool = False,
    beside: tuple[str, ...] = (),
    instead: Any = None,
) -> T | D:
    row = Row(name, parse, default if instead is None else instead, beside)
    made: Any = field(default=default, repr=not secret, metadata={_ROW: row})
    return made  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Settings:
    """All settings, parsed. `docs/settings.md` explains each of them."""

    # issuer
    issuer: str | None = _setting("PYLON_OIDC_ISSUER", parse_issuer, None)
    allowed_hosts: tuple[AllowedHost, ...] = _setting("PYLON_ALLOWED_HOSTS", parsers.allowed_hosts, ())
    dev_mode: bool = _setting("PYLON_DEV_MODE", parsers.boolean, False)

    # minted tokens
    jwt_secret: OctKey | None = _setting("PYLON_JWT_SECRET", parsers.jwt_secret, None, secret=True)
    jwt_secret_previous: OctKey | None = _setting(
        "PYLON_JWT_SECRET_PREVIOUS", parsers.jwt_secret, None, secret=True
    )
    jwt_alg: str = _setting("PYLON_JWT_ALG", parsers.one_of(*MINT_ALGS), parsers.DEFAULT_MINT_ALG)
    jwt_issuer: str | None = _setting("PYLON_JWT_ISSUER", parsers.text, None)
    jwt_audience: str | None = _setting("PYLON_JWT_AUDIENCE", parsers.text, None)
    jwt_lifetime_s: int = _setting(
        "PYLON_JWT_LIFETIME_SECS", parsers.integer(1, 86_400), parsers.DEFAULT_MINT_LIFETIME_S
    )
    policies: Policies | None = _setting(
        "PYLON_POLICIES",
        parsers.policies,
        None,
        beside=("jwt_alg", "jwt_lifetime_s"),
        instead=Policies({}, unread=True),
    )

    status_list: bool = _setting("PYLON_STATUS_LIST", parsers.boolean, False)

    # signing keys
    jwks_rsa_n: int | None = _setting("PYLON_OIDC_JWKS_RSA_N", parsers.modulus, None)
    jwks_rsa_e: int = _setting("PYLON_OIDC_JWKS_RSA_E", parsers.exponent, 65537)
    jwks_kid: str | None = _setting("PYLON_OIDC_JWKS_KID", parsers.key_id, None)
    private_key: RSAKey | None = _setting("PYLON_OIDC_PRIVATE_KEY", load_private_key, None, secret=True)
    key_file: parsers.KeyFile | None = _setting("PYLON_OIDC_KEY_PATH", parsers.key_file, None, secret=True)
    key_source: str | None = _setting("PYLON_OIDC_KEYS", parsers.one_of("managed"), None)
    key_encryption: SealingKeys | None = _setting(
        "PYLON_KEY_ENCRYPTION_KEY", parsers.encryption_keys, None, secret=True
    )
    algs: tuple[str, ...] = _setting("PYLON_OIDC_ALGS", parsers.algs, ("RS256",))
    key_rotation_days: int = _setting("PYLON_OIDC_KEY_ROTATION_DAYS", parsers.integer(0, 3650, "days"), 90)

    # storage
    database_url: DatabaseUrl | None = _setting("DATABASE_URL", parse_database_url, None, secret=True)
    prepared_statements: bool = _setting("PYLON_PREPARED_STATEMENTS", parsers.boolean, False)
    data_dir: Path = _setting("PYLON_DATA_DIR", parsers.path, Path("data"))

    # sessions
    admin_token: parsers.Secret | None = _setting("PYLON_ADMIN_TOKEN", parsers.admin_token, None, secret=True)
    admin_token_previous: parsers.Secret | None = _setting(
        "PYLON_ADMIN_TOKEN_PREVIOUS", parsers.admin_token, None, secret=True
    )
    trusted_secret: parsers.Secret | None = _setting(
        "PYLON_TRUSTED_SECRET", parsers.strong_secret, None, secret=True
    )
    trusted_secret_previous: parsers.Secret | None = _setting(
        "PYLON_TRUSTED_SECRET_PREVIOUS", parsers.strong_secret, None, secret=True
    )
    trusted_origins: frozenset[str] = _setting("PYLON_TRUSTED_ORIGINS", parsers.origins, frozenset())
    session_lifetime_s: int = _setting(
        "PYLON_SESSION_LIFETIME_SECS", parsers.integer(1, MAX_SESSION_S), 2_592_000
    )
    cookie_name: str = _setting("PYLON_COOKIE_NAME", parsers.cookie_name, "pylon_session")
    cookie_domain: str | None = _setting("PYLON_COOKIE_DOMAIN", parsers.cookie_domain, None)
    cookie_same_site: Literal["lax", "strict", "none"] = _setting(
        "PYLON_COOKIE_SAME_SITE", parsers.one_of("lax", "strict", "none"), "lax"
    )

    # provider
    own_scopes: Scopes | None = _setting("PYLON_OIDC_SCOPES", parsers.scopes, None, instead=UNREAD_SCOPES)
    # After the scopes: a client may use only existing scopes.
    clients: tuple[Client, ...] = _setting(
        "PYLON_OIDC_CLIENTS", parsers.clients, (), secret=True, beside=("own_scopes", "policies")
    )
    login_url: str | None = _setting("PYLON_LOGIN_URL", parsers.page_url, None)
    consent_url: str | None = _setting("PYLON_CONSENT_URL", parsers.page_url, None)
    logout_url: str | None = _setting("PYLON_LOGOUT_URL", parsers.page_url, None)
    brand_name: str | None = _setting("PYLON_BRAND_NAME", parsers.brand_name, None)
    code_s: int = _setting("PYLON_OIDC_CODE_LIFETIME_SECS", parsers.integer(1, 60), 60)
    id_token_s: int = _setting("PYLON_OIDC_ID_TOKEN_LIFETIME_SECS", parsers.integer(1, 86_400), 600)
    access_token_s: int = _setting("PYLON_OIDC_ACCESS_TOKEN_LIFETIME_SECS", parsers.integer(1, 86_400), 3600)
    refresh_idle_s: int = _setting(
        "PYLON_OIDC_REFRESH_IDLE_LIFETIME_SECS", parsers.integer(1, 31_536_000), 2_592_000
    )
    refresh_max_s: int = _setting(
        "PYLON_OIDC_REFRESH_MAX_LIFETIME_SECS", parsers.integer(1, 31_536_000), 7_776_000
    )
    interaction_s: int = _setting("PYLON_OIDC_INTERACTION_LIFETIME_SECS", parsers.integer(1, 86_400), 3600)
    deliveries: Literal["workers", "watch"] = _setting(
        "PYLON_DELIVERIES", parsers.one_of("workers", "watch"), "workers"
    )
    refresh_grace_s: int = _setting("PYLON_OIDC_REFRESH_GRACE_SECS", parsers.integer(0, 300), 30)

    # clients that the operator did not register
    registration: Literal["off", "token", "open"] = _setting(
        "PYLON_OIDC_REGISTRATION", parsers.one_of("off", "token", "open"), "off"
    )
    registration_scopes: tuple[str, ...] = _setting(
        "PYLON_OIDC_REGISTRATION_SCOPES", strangers.scopes, FOR_STRANGERS
    )
    registration_idle_days: int = _setting(
        "PYLON_OIDC_REGISTRATION_IDLE_DAYS", parsers.integer(1, 3650, "days"), 30
    )
    client_documents: bool | tuple[HostPattern, ...] = _setting(
        "PYLON_OIDC_CLIENT_DOCUMENTS", strangers.client_documents, False
    )
    stranger_devices: bool = _setting("PYLON_OIDC_STRANGER_DEVICES", parsers.boolean, False)

    # requests of ours
    outbound_allow: Allowed | None = _setting("PYLON_OUTBOUND_ALLOW", parse_allowed, None)
    outbound_ca_file: Path | None = _setting("PYLON_OUTBOUND_CA_FILE", parse_ca_file, None)
    outbound_proxy: Proxy | None = _setting("PYLON_OUTBOUND_PROXY", parse_proxy, None, secret=True)

    # log and proxies
    log_level: str = _setting("PYLON_LOG_LEVEL", parsers.one_of("debug", "info", "warning", "error"), "info")
    log_format: str | None = _setting("PYLON_LOG_FORMAT", parsers.one_of("json", "console"), None)
    forwarded_allow_ips: tuple[str, ...] = _setting(
        "FORWARDED_ALLOW_IPS", parsers.forwarded_allow_ips, ("127.0.0.1", "::1")
    )

    @property
    def scopes(self) -> Scopes:
        """The available scopes."""
        known = parsers.with_scopes_of_apis(self.own_scopes, self.policies)
        opened = (*self.registration_scopes, *self.audiences.scopes_of_strangers)
        return replace(known, of_strangers=tuple(dict.fromkeys(opened)))

    @property
    def admits_strangers(self) -> bool:
        """Whether there may be clients that the operator did not register."""
        return self.registration != "off" or self.client_documents is not False

    @property
    def has_clients(self) -> bool:
        """Whether there are clients by these settings, or may be some."""
        return bool(self.clients) or self.admits_strangers

    @property
    def audiences(self) -> Policies:
        """The policy of each audience; without a file, one policy from the other settings."""
        if self.policies is not None:
            return self.policies
        return Policies({self.jwt_audience: Policy(self.jwt_audience, self.jwt_alg, self.jwt_lifetime_s)})

    @property
    def mint_algs(self) -> frozenset[str]:
        """All algorithms that sign for an audience."""
        return self.audiences.algs

    @property
    def lifetimes(self) -> Lifetimes:
        """The lifetimes of the provider's codes and tokens."""
        return Lifetimes(
            code_s=self.code_s,
            id_token_s=self.id_token_s,
            access_token_s=self.access_token_s,
            refresh_idle_s=self.refresh_idle_s,
            refresh_max_s=self.refresh_max_s,
            refresh_grace_s=self.refresh_grace_s,
            interaction_s=self.interaction_s,
        )

    @property
    def admin_tokens(self) -> tuple[bytes, ...]:
        """The tokens that open the admin API: the current one, and the one before it; none if there is no current one."""
        return _current_and_previous(self.admin_token, self.admin_token_previous)

    @property
    def trusted_secrets(self) -> tuple[bytes, ...]:
        """The secrets that a trusted mint may be signed with; none if there is no current one."""
        return _current_and_previous(self.trusted_secret, self.trusted_secret_previous)

    @property
    def lacks_minted_audience(self) -> bool:
        """Whether minted tokens and ID tokens could be confused: they have the same key, and minted ones have no `aud`."""
        return self.policies is None and self.jwt_alg != "HS256" and self.jwt_audience is None

    @property
    def public_key(self) -> RSAKey | None:
        """The key to publish, from `PYLON_OIDC_JWKS_RSA_N`."""
        return None if self.jwks_rsa_n is None else load_public_key(self.jwks_rsa_n, self.jwks_rsa_e)

    @property
    def managed(self) -> bool:
        """Whether the signing keys are in the database."""
        return self.key_source == "managed"

    @property
    def has_private_key(self) -> bool:
        """Whether there is a key to sign ID tokens with."""
        return self.private_key is not None or self.key_file is not None or self.managed

    @property
    def sealing(self) -> SealingKeys:
        """The encryption keys for private keys."""
        if self.key_encryption is None and self.dev_mode:
            return SealingKeys.of_dev_mode()
        return self.key_encryption or SealingKeys()

    @property
    def margins(self) -> Margins:
        """The margins of a safe rotation, with the configured rotation period and token lifetimes."""
        longest_s = max(self.audiences.longest_s, self.id_token_s, self.access_token_s)
        return Margins(rotation_s=self.key_rotation_days * DAY_S, longest_token_s=longest_s)

    @property
    def id_token_algs(self) -> tuple[str, ...]:
        """The algorithms that a client may choose for its ID tokens; RS256 is always one of them."""
        return tuple(alg for alg in ASYMMETRIC_ALGS if alg == "RS256" or (self.managed and alg in self.algs))

    @property
    def database(self) -> DatabaseUrl:
        """The database: `DATABASE_URL`, or else SQLite in the data folder."""
        return self.database_url or DatabaseUrl.sqlite(self.data_dir / "pylon.db")


def _current_and_previous(
    current: parsers.Secret | None, previous: parsers.Secret | None
) -> tuple[bytes, ...]:
    if current is None:
        return ()
    return (current.value,) if previous is None else (current.value, previous.value)


#: Field of `Settings` -> its row, in their order.
TABLE: Final[Mapping[str, Row]] = {each.name: each.metadata[_ROW] for each in fields(Settings)}

#: Environment name -> field of `Settings`.
NAMES: Final[Mapping[str, str]] = {row.name: field for field, row in TABLE.items()}
