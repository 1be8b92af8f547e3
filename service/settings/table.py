"""The table of the settings: name, parser, default; and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from joserfc.jwk import OctKey, RSAKey
from pydantic import Field, PlainValidator, ValidationInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from service.issuer import AllowedHost, parse_issuer
from service.keys.algorithms import ASYMMETRIC_ALGS, MINT_ALGS
from service.keys.material import load_private_key, load_public_key
from service.keys.ring import DAY_S, Margins
from service.keys.sealing import SealingKeys
from service.records.clients import Client
from service.records.lifetimes import Lifetimes
from service.records.scopes import STANDARD_SCOPES, UNREAD_SCOPES, Scopes
from service.records.sessions import MAX_SESSION_S
from service.settings import parsers
from service.storage.urls import DatabaseUrl, parse_database_url


def _clients_beside_scopes(value: str, others: ValidationInfo) -> tuple[Client, ...]:
    return parsers.clients(value, others.data.get("own_scopes", UNREAD_SCOPES) or STANDARD_SCOPES)


class Settings(BaseSettings):
    """Every setting, parsed. What each means is told in `docs/settings.md`."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        validate_default=False,  # defaults are values already, and the parsers take text
    )

    # issuer
    issuer: Annotated[str | None, PlainValidator(parse_issuer)] = Field(None, alias="PYLON_OIDC_ISSUER")
    allowed_hosts: Annotated[tuple[AllowedHost, ...], PlainValidator(parsers.allowed_hosts)] = Field(
        (), alias="PYLON_ALLOWED_HOSTS"
    )
    dev_mode: Annotated[bool, PlainValidator(parsers.boolean)] = Field(False, alias="PYLON_DEV_MODE")

    # minted tokens
    jwt_secret: Annotated[OctKey | None, PlainValidator(parsers.jwt_secret)] = Field(
        None, alias="PYLON_JWT_SECRET", repr=False
    )
    jwt_alg: Annotated[str, PlainValidator(parsers.one_of(*MINT_ALGS))] = Field(
        "HS256", alias="PYLON_JWT_ALG"
    )
    jwt_issuer: Annotated[str | None, PlainValidator(parsers.text)] = Field(None, alias="PYLON_JWT_ISSUER")
    jwt_audience: Annotated[str | None, PlainValidator(parsers.text)] = Field(
        None, alias="PYLON_JWT_AUDIENCE"
    )
    jwt_lifetime_s: Annotated[int, PlainValidator(parsers.integer(1, 86_400))] = Field(
        3600, alias="PYLON_JWT_LIFETIME_SECS"
    )

    # signing keys
    jwks_rsa_n: Annotated[int | None, PlainValidator(parsers.modulus)] = Field(
        None, alias="PYLON_OIDC_JWKS_RSA_N"
    )
    jwks_rsa_e: Annotated[int, PlainValidator(parsers.exponent)] = Field(65537, alias="PYLON_OIDC_JWKS_RSA_E")
    jwks_kid: Annotated[str | None, PlainValidator(parsers.key_id)] = Field(None, alias="PYLON_OIDC_JWKS_KID")
    private_key: Annotated[RSAKey | None, PlainValidator(load_private_key)] = Field(
        None, alias="PYLON_OIDC_PRIVATE_KEY", repr=False
    )
    key_file: Annotated[parsers.KeyFile | None, PlainValidator(parsers.key_file)] = Field(
        None, alias="PYLON_OIDC_KEY_PATH", repr=False
    )
    key_source: Annotated[Literal["managed"] | None, PlainValidator(parsers.one_of("managed"))] = Field(
        None, alias="PYLON_OIDC_KEYS"
    )
    key_encryption: Annotated[SealingKeys | None, PlainValidator(parsers.encryption_keys)] = Field(
        None, alias="PYLON_KEY_ENCRYPTION_KEY", repr=False
    )
    algs: Annotated[tuple[str, ...], PlainValidator(parsers.algs)] = Field(
        ("RS256",), alias="PYLON_OIDC_ALGS"
    )
    key_rotation_days: Annotated[int, PlainValidator(parsers.integer(0, 3650, "days"))] = Field(
        90, alias="PYLON_OIDC_KEY_ROTATION_DAYS"
    )

    # storage
    database_url: Annotated[DatabaseUrl | None, PlainValidator(parse_database_url)] = Field(
        None, alias="DATABASE_URL", repr=False
    )
    prepared_statements: Annotated[bool, PlainValidator(parsers.boolean)] = Field(
        False, alias="PYLON_PREPARED_STATEMENTS"
    )
    data_dir: Annotated[Path, PlainValidator(parsers.path)] = Field(Path("data"), alias="PYLON_DATA_DIR")

    # sessions
    admin_token: Annotated[parsers.Secret | None, PlainValidator(parsers.admin_token)] = Field(
        None, alias="PYLON_ADMIN_TOKEN", repr=False
    )
    trusted_secret: Annotated[parsers.Secret | None, PlainValidator(parsers.strong_secret)] = Field(
        None, alias="PYLON_TRUSTED_SECRET", repr=False
    )
    trusted_origins: Annotated[frozenset[str], PlainValidator(parsers.origins)] = Field(
        frozenset(), alias="PYLON_TRUSTED_ORIGINS"
    )
    session_lifetime_s: Annotated[int, PlainValidator(parsers.integer(1, MAX_SESSION_S))] = Field(
        2_592_000, alias="PYLON_SESSION_LIFETIME_SECS"
    )
    cookie_name: Annotated[str, PlainValidator(parsers.cookie_name)] = Field(
        "pylon_session", alias="PYLON_COOKIE_NAME"
    )
    cookie_domain: Annotated[str | None, PlainValidator(parsers.cookie_domain)] = Field(
        None, alias="PYLON_COOKIE_DOMAIN"
    )
    cookie_same_site: Annotated[
        Literal["lax", "strict", "none"], PlainValidator(parsers.one_of("lax", "strict", "none"))
    ] = Field("lax", alias="PYLON_COOKIE_SAME_SITE")

    # provider
    own_scopes: Annotated[Scopes | None, PlainValidator(parsers.scopes)] = Field(
        None, alias="PYLON_OIDC_SCOPES"
    )
    # After the scopes: a client's scope is checked by what there is.
    clients: Annotated[tuple[Client, ...], PlainValidator(_clients_beside_scopes)] = Field(
        (), alias="PYLON_OIDC_CLIENTS", repr=False
    )
    login_url: Annotated[str | None, PlainValidator(parsers.page_url)] = Field(None, alias="PYLON_LOGIN_URL")
    consent_url: Annotated[str | None, PlainValidator(parsers.page_url)] = Field(
        None, alias="PYLON_CONSENT_URL"
    )
    logout_url: Annotated[str | None, PlainValidator(parsers.page_url)] = Field(
        None, alias="PYLON_LOGOUT_URL"
    )
    brand_name: Annotated[str | None, PlainValidator(parsers.brand_name)] = Field(
        None, alias="PYLON_BRAND_NAME"
    )
    code_s: Annotated[int, PlainValidator(parsers.integer(1, 60))] = Field(
        60, alias="PYLON_OIDC_CODE_LIFETIME_SECS"
    )
    id_token_s: Annotated[int, PlainValidator(parsers.integer(1, 86_400))] = Field(
        600, alias="PYLON_OIDC_ID_TOKEN_LIFETIME_SECS"
    )
    access_token_s: Annotated[int, PlainValidator(parsers.integer(1, 86_400))] = Field(
        3600, alias="PYLON_OIDC_ACCESS_TOKEN_LIFETIME_SECS"
    )
    refresh_idle_s: Annotated[int, PlainValidator(parsers.integer(1, 31_536_000))] = Field(
        2_592_000, alias="PYLON_OIDC_REFRESH_IDLE_LIFETIME_SECS"
    )
    refresh_max_s: Annotated[int, PlainValidator(parsers.integer(1, 31_536_000))] = Field(
        7_776_000, alias="PYLON_OIDC_REFRESH_MAX_LIFETIME_SECS"
    )
    interaction_s: Annotated[int, PlainValidator(parsers.integer(1, 86_400))] = Field(
        3600, alias="PYLON_OIDC_INTERACTION_LIFETIME_SECS"
    )
    refresh_grace_s: Annotated[int, PlainValidator(parsers.integer(0, 300))] = Field(
        30, alias="PYLON_OIDC_REFRESH_GRACE_SECS"
    )

    # log and proxies
    log_level: Annotated[str, PlainValidator(parsers.one_of("debug", "info", "warning", "error"))] = Field(
        "info", alias="PYLON_LOG_LEVEL"
    )
    log_format: Annotated[str | None, PlainValidator(parsers.one_of("json", "console"))] = Field(
        None, alias="PYLON_LOG_FORMAT"
    )
    forwarded_allow_ips: Annotated[tuple[str, ...], PlainValidator(parsers.forwarded_allow_ips)] = Field(
        ("127.0.0.1", "::1"), alias="FORWARDED_ALLOW_IPS"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what `read_settings` gives, and nothing else: it has resolved `NAME_FILE` and dropped blanks."""
        return (init_settings,)

    @property
    def scopes(self) -> Scopes:
        """What there is to ask for."""
        return self.own_scopes or STANDARD_SCOPES

    @property
    def lifetimes(self) -> Lifetimes:
        """How long what the provider gives out lives."""
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
    def lacks_minted_audience(self) -> bool:
        """Whether nothing would tell an ID token from a minted one: the same key, and no `aud` in the one."""
        return self.jwt_alg != "HS256" and self.jwt_audience is None

    @property
    def public_key(self) -> RSAKey | None:
        """The key to publish, of `PYLON_OIDC_JWKS_RSA_N`."""
        return None if self.jwks_rsa_n is None else load_public_key(self.jwks_rsa_n, self.jwks_rsa_e)

    @property
    def managed(self) -> bool:
        """Whether the signing keys live in the database."""
        return self.key_source == "managed"

    @property
    def has_private_key(self) -> bool:
        """Whether there is a key that ID tokens can be signed by."""
        return self.private_key is not None or self.key_file is not None or self.managed

    @property
    def sealing(self) -> SealingKeys:
        """What private keys are sealed under."""
        if self.key_encryption is None and self.dev_mode:
            return SealingKeys.of_dev_mode()
        return self.key_encryption or SealingKeys()

    @property
    def margins(self) -> Margins:
        """What keeps a rotation safe, with what the settings say of its length and of tokens."""
        longest_s = max(self.jwt_lifetime_s, self.id_token_s, self.access_token_s)
        return Margins(rotation_s=self.key_rotation_days * DAY_S, longest_token_s=longest_s)

    @property
    def id_token_algs(self) -> tuple[str, ...]:
        """By what a client may have its ID tokens signed; RS256 is always there for it."""
        return tuple(alg for alg in ASYMMETRIC_ALGS if alg == "RS256" or (self.managed and alg in self.algs))

    @property
    def database(self) -> DatabaseUrl:
        """Where the state lives: `DATABASE_URL`, else SQLite in the data folder."""
        return self.database_url or DatabaseUrl.sqlite(self.data_dir / "pylon.db")


#: Environment name -> field of `Settings`.
NAMES: Final[Mapping[str, str]] = {str(info.alias): field for field, info in Settings.model_fields.items()}
