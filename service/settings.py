"""Settings: one frozen object, read from the environment once, every fault told at once.

The only reader of the environment. `NAME_FILE` reads the value of `NAME` from a file. An empty value is unset.
Each setting is parsed by one small function into the value that the program uses; what two settings must agree
on stands below as `_CROSS_CHECKS`, which run on whatever parsed, so that one fault never hides another.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import ipaddress
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from joserfc.jwk import OctKey, RSAKey
from pydantic import Field, PlainValidator, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from service import issuer as issuers
from service import key_material as keys
from service.key_file import read_key_file
from service.keyring import MINT_ALGS, RSA_ALGS
from service.protocol.clients import Client, client_faults, is_client_id, parse_client
from service.protocol.key_ring import ASYMMETRIC_ALGS, DAY_S, Margins
from service.protocol.models import Lifetimes
from service.protocol.sealed_keys import KEY_BYTES, SealingKeys
from service.storage.urls import DatabaseUrl, parse_database_url

MAX_SESSION_SECS: Final = 90 * 86_400
_PREFIX: Final = "PYLON_"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 §5.6.2
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_STANDARD_BASE64 = str.maketrans("-_", "+/")
_TRAILING_NEWLINE = re.compile(r"\r?\n\Z")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: `NAME: what is wrong; what to write instead`. Never a secret's value."""

    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


class ConfigurationError(Exception):
    """The configuration is wrong; `faults` says every fault of it."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


class Secret:
    """Bytes that must not be shown: neither `repr` nor `str` tells them."""

    __slots__ = ("value",)

    def __init__(self, value: bytes) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "Secret(…)"


# --- one parser a setting: str in, value out, ValueError("what is wrong; what to write instead") ---


def _integer(least: int, most: int, unit: str = "seconds") -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,12}", value, re.ASCII) or not least <= int(value) <= most:
            raise ValueError(
                f"is not a whole number of {unit} from {least} to {most}; write digits alone, as {most}"
            )
        return int(value)

    return parse


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"is none of its values; write {' or '.join(choices)}")
        return value

    return parse


def _boolean(value: str) -> bool:
    try:
        return {"0": False, "1": True, "false": False, "true": True}[value.lower()]
    except KeyError:
        raise ValueError("is neither on nor off; write 1 or 0") from None


def _text(value: str) -> str:
    if not value.isprintable() or len(value) > 255:
        raise ValueError("holds a control character, or more than 255; write one line of text")
    return value


def _allowed_hosts(value: str) -> tuple[issuers.AllowedHost, ...]:
    example = "write names alone, as id.example.com,id.example.com:8443,.example.com:*"
    try:
        hosts = tuple(issuers.parse_allowed_host(entry) for entry in issuers.parse_list(value))
    except issuers.InvalidHost:
        raise ValueError(f"an entry is not a host; {example}") from None
    if not hosts:  # an empty list would allow every host
        raise ValueError(f"names no host; {example}")
    return hosts


def _origins(value: str) -> frozenset[str]:
    return frozenset(issuers.parse_origin(entry) for entry in issuers.parse_list(value))


def _jwt_secret(value: str) -> OctKey:
    return keys.load_secret(_utf8(value))


def _strong_secret(value: str) -> Secret:
    secret = _utf8(value)
    keys.check_secret_strength(secret)
    return Secret(secret)


def _utf8(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8; write a random one: openssl rand -hex 32") from None


def _admin_token(value: str) -> Secret:
    if not _VISIBLE.fullmatch(value):
        raise ValueError("holds a character that no bearer token has; write: openssl rand -hex 32")
    return _strong_secret(value)


def _exponent(value: str) -> int:
    exponent = keys.parse_base64url_uint(value)
    if exponent < 3 or exponent % 2 == 0 or exponent.bit_length() > 64:
        raise ValueError("is no RSA exponent; write AQAB")
    return exponent


def _modulus(value: str) -> int:
    modulus = keys.parse_base64url_uint(value)
    keys.load_public_key(modulus, 65537)
    return modulus


def _key_id(value: str) -> str:
    if not _VISIBLE.fullmatch(value) or len(value) > 255:
        raise ValueError("is no key id; write 1 to 255 visible ASCII characters")
    return value


def _algs(value: str) -> tuple[str, ...]:
    wanted = set(issuers.parse_list(value))
    if not wanted or not wanted <= set(ASYMMETRIC_ALGS):
        raise ValueError(f"an entry is no algorithm of ours; write some of {','.join(ASYMMETRIC_ALGS)}")
    return tuple(alg for alg in ASYMMETRIC_ALGS if alg in wanted)


def _encryption_keys(value: str) -> SealingKeys:
    example = "write 32 random bytes in base64: openssl rand -base64 32"
    secrets = []
    for number, entry in enumerate(value.split(","), 1):
        try:
            bare = entry.strip().translate(_STANDARD_BASE64).rstrip("=")
            secret = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"key {number} is not base64; {example}") from None
        if len(secret) != KEY_BYTES:
            raise ValueError(f"key {number} has {len(secret)} bytes and not {KEY_BYTES}; {example}")
        if len(set(secret)) < 8:  # of random bytes so few differ once in 10^40 times
            raise ValueError(f"key {number} is a placeholder; {example}")
        if secret in secrets:
            raise ValueError(f"key {number} is there twice; write each once")
        secrets.append(secret)
    return SealingKeys(tuple(secrets))


def _cookie_name(value: str) -> str:
    if not _TOKEN.fullmatch(value):
        raise ValueError("is no cookie name; write letters, digits, - and _ alone, as pylon_session")
    return value


def _cookie_domain(value: str) -> str:
    try:
        host = issuers.parse_host(value.removeprefix("."))
    except issuers.InvalidHost:
        raise ValueError("is no domain; write it as example.com") from None
    if host.port is not None or host.name.startswith("[") or host.name[-1].isdigit():
        raise ValueError("is no domain; write it without a port, as example.com")
    return host.name


def _forwarded_allow_ips(value: str) -> tuple[str, ...]:
    entries = tuple(issuers.parse_list(value))
    for entry in entries:
        try:
            if entry != "*":
                ipaddress.ip_network(entry)
        except ValueError:
            raise ValueError(
                "an entry is no IP address or network; write them as 127.0.0.1,10.0.0.0/8"
            ) from None
    return entries


def _path(value: str) -> Path:
    if not value.isprintable():
        raise ValueError("holds a control character; write a plain path")
    return Path(value)


def _clients(value: str) -> tuple[Client, ...]:
    try:
        entries = json.loads(value)
    except (ValueError, RecursionError):
        entries = None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError('is no JSON array of clients; write [{"client_id": "…", "redirect_uris": ["…"]}]')
    ids = [entry.get("client_id") for entry in entries]
    names = [f"client {n} ({i})" if is_client_id(i) else f"client {n}" for n, i in enumerate(ids, 1)]
    faults = [
        f"{name}, {fault}"
        for name, entry in zip(names, entries, strict=True)
        for fault in client_faults(entry)
    ]
    faults += [
        f"{name}, client_id: is the id of another one; write each once"
        for number, (name, client_id) in enumerate(zip(names, ids, strict=True))
        if client_id is not None and client_id in ids[:number]
    ]
    if faults:
        raise ValueError("\n".join(faults))
    return tuple(parse_client(entry, source="environment") for entry in entries)


def _page_url(value: str) -> str:
    """An address of the app's that browsers are sent to: https, or http on this machine."""
    example = "write it as https://app.example.com/sign-in"
    if not _VISIBLE.fullmatch(value) or "#" in value or "@" in value.split("?", maxsplit=1)[0]:
        raise ValueError(f"is no plain address; {example}")
    scheme, separator, rest = value.partition("://")
    try:
        host = issuers.parse_host(re.split(r"[/?]", rest, maxsplit=1)[0])
    except issuers.InvalidHost:
        raise ValueError(f"has no well-formed host; {example}") from None
    if not separator or scheme not in {"https", "http"} or (scheme == "http" and not host.is_loopback):
        raise ValueError(f"is not https; {example}")
    return value


@dataclass(frozen=True, slots=True)
class KeyFile:
    """The file of the signing key, and the key in it; None while the file is missing and still to be made."""

    path: Path
    key: RSAKey | None


def _key_file(value: str) -> KeyFile:
    path = _path(value)
    try:
        return KeyFile(path, read_key_file(path))
    except FileNotFoundError:
        if fault := _folder_fault(path.parent):
            raise ValueError(
                f"the file is missing and cannot be made ({fault}); write a path in a folder of the service's user"
            ) from None
        return KeyFile(path, None)


class Settings(BaseSettings):
    """Every setting, parsed. The description of each is what `docs/settings.md` must tell."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        validate_default=False,
    )

    issuer: Annotated[str | None, PlainValidator(issuers.parse_issuer)] = Field(
        None, alias="PYLON_OIDC_ISSUER"
    )
    allowed_hosts: Annotated[tuple[issuers.AllowedHost, ...], PlainValidator(_allowed_hosts)] = Field(
        (), alias="PYLON_ALLOWED_HOSTS"
    )
    dev_mode: Annotated[bool, PlainValidator(_boolean)] = Field(False, alias="PYLON_DEV_MODE")
    jwt_secret: Annotated[OctKey | None, PlainValidator(_jwt_secret)] = Field(
        None, alias="PYLON_JWT_SECRET", repr=False
    )
    jwt_alg: Annotated[str, PlainValidator(_one_of(*MINT_ALGS))] = Field("HS256", alias="PYLON_JWT_ALG")
    jwt_issuer: Annotated[str | None, PlainValidator(_text)] = Field(None, alias="PYLON_JWT_ISSUER")
    jwt_audience: Annotated[str | None, PlainValidator(_text)] = Field(None, alias="PYLON_JWT_AUDIENCE")
    jwt_lifetime_s: Annotated[int, PlainValidator(_integer(1, 86_400))] = Field(
        3600, alias="PYLON_JWT_LIFETIME_SECS"
    )
    jwks_rsa_n: Annotated[int | None, PlainValidator(_modulus)] = Field(None, alias="PYLON_OIDC_JWKS_RSA_N")
    jwks_rsa_e: Annotated[int, PlainValidator(_exponent)] = Field(65537, alias="PYLON_OIDC_JWKS_RSA_E")
    jwks_kid: Annotated[str | None, PlainValidator(_key_id)] = Field(None, alias="PYLON_OIDC_JWKS_KID")
    private_key: Annotated[RSAKey | None, PlainValidator(keys.load_private_key)] = Field(
        None, alias="PYLON_OIDC_PRIVATE_KEY", repr=False
    )
    key_file: Annotated[KeyFile | None, PlainValidator(_key_file)] = Field(
        None, alias="PYLON_OIDC_KEY_PATH", repr=False
    )
    key_source: Annotated[Literal["managed"] | None, PlainValidator(_one_of("managed"))] = Field(
        None, alias="PYLON_OIDC_KEYS"
    )
    key_encryption: Annotated[SealingKeys | None, PlainValidator(_encryption_keys)] = Field(
        None, alias="PYLON_KEY_ENCRYPTION_KEY", repr=False
    )
    algs: Annotated[tuple[str, ...], PlainValidator(_algs)] = Field(("RS256",), alias="PYLON_OIDC_ALGS")
    key_rotation_days: Annotated[int, PlainValidator(_integer(0, 3650, "days"))] = Field(
        90, alias="PYLON_OIDC_KEY_ROTATION_DAYS"
    )
    database_url: Annotated[DatabaseUrl | None, PlainValidator(parse_database_url)] = Field(
        None, alias="DATABASE_URL", repr=False
    )
    data_dir: Annotated[Path, PlainValidator(_path)] = Field(Path("data"), alias="PYLON_DATA_DIR")
    admin_token: Annotated[Secret | None, PlainValidator(_admin_token)] = Field(
        None, alias="PYLON_ADMIN_TOKEN", repr=False
    )
    trusted_secret: Annotated[Secret | None, PlainValidator(_strong_secret)] = Field(
        None, alias="PYLON_TRUSTED_SECRET", repr=False
    )
    trusted_origins: Annotated[frozenset[str], PlainValidator(_origins)] = Field(
        frozenset(), alias="PYLON_TRUSTED_ORIGINS"
    )
    session_lifetime_s: Annotated[int, PlainValidator(_integer(1, MAX_SESSION_SECS))] = Field(
        2_592_000, alias="PYLON_SESSION_LIFETIME_SECS"
    )
    cookie_name: Annotated[str, PlainValidator(_cookie_name)] = Field(
        "pylon_session", alias="PYLON_COOKIE_NAME"
    )
    cookie_domain: Annotated[str | None, PlainValidator(_cookie_domain)] = Field(
        None, alias="PYLON_COOKIE_DOMAIN"
    )
    cookie_same_site: Annotated[
        Literal["lax", "strict", "none"], PlainValidator(_one_of("lax", "strict", "none"))
    ] = Field("lax", alias="PYLON_COOKIE_SAME_SITE")
    clients: Annotated[tuple[Client, ...], PlainValidator(_clients)] = Field(
        (), alias="PYLON_OIDC_CLIENTS", repr=False
    )
    login_url: Annotated[str | None, PlainValidator(_page_url)] = Field(None, alias="PYLON_LOGIN_URL")
    consent_url: Annotated[str | None, PlainValidator(_page_url)] = Field(None, alias="PYLON_CONSENT_URL")
    logout_url: Annotated[str | None, PlainValidator(_page_url)] = Field(None, alias="PYLON_LOGOUT_URL")
    code_s: Annotated[int, PlainValidator(_integer(1, 60))] = Field(60, alias="PYLON_OIDC_CODE_LIFETIME_SECS")
    id_token_s: Annotated[int, PlainValidator(_integer(1, 86_400))] = Field(
        600, alias="PYLON_OIDC_ID_TOKEN_LIFETIME_SECS"
    )
    access_token_s: Annotated[int, PlainValidator(_integer(1, 86_400))] = Field(
        3600, alias="PYLON_OIDC_ACCESS_TOKEN_LIFETIME_SECS"
    )
    refresh_idle_s: Annotated[int, PlainValidator(_integer(1, 31_536_000))] = Field(
        2_592_000, alias="PYLON_OIDC_REFRESH_IDLE_LIFETIME_SECS"
    )
    refresh_max_s: Annotated[int, PlainValidator(_integer(1, 31_536_000))] = Field(
        7_776_000, alias="PYLON_OIDC_REFRESH_MAX_LIFETIME_SECS"
    )
    interaction_s: Annotated[int, PlainValidator(_integer(1, 86_400))] = Field(
        3600, alias="PYLON_OIDC_INTERACTION_LIFETIME_SECS"
    )
    refresh_grace_s: Annotated[int, PlainValidator(_integer(0, 300))] = Field(
        30, alias="PYLON_OIDC_REFRESH_GRACE_SECS"
    )
    log_level: Annotated[str, PlainValidator(_one_of("debug", "info", "warning", "error"))] = Field(
        "info", alias="PYLON_LOG_LEVEL"
    )
    log_format: Annotated[str | None, PlainValidator(_one_of("json", "console"))] = Field(
        None, alias="PYLON_LOG_FORMAT"
    )
    forwarded_allow_ips: Annotated[tuple[str, ...], PlainValidator(_forwarded_allow_ips)] = Field(
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
    def public_key(self) -> RSAKey | None:
        """The key to publish, of `PYLON_OIDC_JWKS_RSA_N`."""
        return None if self.jwks_rsa_n is None else keys.load_public_key(self.jwks_rsa_n, self.jwks_rsa_e)

    @property
    def managed(self) -> bool:
        """Whether the signing keys live in the database."""
        return self.key_source == "managed"

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


@dataclass(frozen=True)
class Reading:
    """What the environment says: the settings as far as they parsed, what is wrong, what is odd."""

    settings: Settings
    faults: list[Fault]
    warnings: list[str]


def read_settings(environ: Mapping[str, str] | None = None) -> Reading:
    """Read and check every setting.

    Args:
        environ: the environment; the process's own by default.

    Returns:
        The settings, where a faulty one stands at its default, with all faults and warnings. Never raises.
    """
    environ = os.environ if environ is None else environ
    values, faults = _resolve(environ)
    faults += _platform_faults(environ)
    faulty = {fault.name.removesuffix("_FILE") for fault in faults} | {fault.name for fault in faults}
    settings, parse_faults = _parse({name: value for name, value in values.items() if name not in faulty})
    faults += parse_faults
    faulty |= {fault.name for fault in parse_faults}
    for check in _CROSS_CHECKS:
        if not faulty.intersection(check.names):
            faults += check.run(settings)
    order = list(NAMES)
    faults.sort(
        key=lambda fault: (
            order.index(fault.name.removesuffix("_FILE")) if fault.name.removesuffix("_FILE") in order else 0
        )
    )
    return Reading(settings, faults, [*_unknown_names(environ), *_oddities(settings, faulty)])


def _resolve(environ: Mapping[str, str]) -> tuple[dict[str, str], list[Fault]]:
    values: dict[str, str] = {}
    faults: list[Fault] = []
    for name in NAMES:
        direct, path = environ.get(name, ""), environ.get(f"{name}_FILE", "")
        if direct and path:
            faults.append(Fault(name, f"{name} and {name}_FILE are both set; keep one of them"))
        elif path:
            try:
                direct = _TRAILING_NEWLINE.sub("", Path(path).read_bytes().decode())
            except (OSError, ValueError) as exc:
                reason = getattr(exc, "strerror", None) or "it is not UTF-8 text"
                faults.append(
                    Fault(
                        f"{name}_FILE",
                        f"the file cannot be read ({reason}); write the path of a readable file",
                    )
                )
        if direct:
            values[name] = direct
    return values, faults


def _platform_faults(environ: Mapping[str, str]) -> Iterator[Fault]:
    """What a platform says to gunicorn, whose configuration acts on it; told here, with all the rest."""
    for name, most, example in (("PORT", 65_535, "4321"), ("WEB_CONCURRENCY", 1024, "2")):
        value = environ.get(name, "")
        if value and not (re.fullmatch(r"[0-9]{1,5}", value, re.ASCII) and 1 <= int(value) <= most):
            yield Fault(name, f"is not a whole number from 1 to {most}; write digits alone, as {example}")


def _parse(values: dict[str, str]) -> tuple[Settings, list[Fault]]:
    try:
        return Settings(**values), []  # type: ignore[arg-type]
    except ValidationError as error:
        faults = [
            Fault(str(detail["loc"][0]), text)
            for detail in error.errors()
            for text in str(detail.get("ctx", {}).get("error", detail["msg"])).split("\n")  # one fault a line
        ]
    wrong = {fault.name for fault in faults}
    return Settings(**{name: value for name, value in values.items() if name not in wrong}), faults  # type: ignore[arg-type]


# --- what settings must agree on ---


@dataclass(frozen=True)
class _CrossCheck:
    names: tuple[str, ...]
    run: Callable[[Settings], Iterator[Fault]]


_CROSS_CHECKS: list[_CrossCheck] = []


def _cross_check(
    *names: str,
) -> Callable[[Callable[[Settings], Iterator[Fault]]], Callable[[Settings], Iterator[Fault]]]:
    """Register a check that runs when all the settings that it names have parsed."""

    def register(run: Callable[[Settings], Iterator[Fault]]) -> Callable[[Settings], Iterator[Fault]]:
        _CROSS_CHECKS.append(_CrossCheck(names, run))
        return run

    return register


@_cross_check("PYLON_DEV_MODE", "PYLON_OIDC_ISSUER")
def _dev_mode_is_loopback(settings: Settings) -> Iterator[Fault]:
    if settings.dev_mode and settings.issuer and not issuers.is_loopback_issuer(settings.issuer):
        yield Fault("PYLON_DEV_MODE", "is on with a public PYLON_OIDC_ISSUER; write 0, or unset the issuer")


@_cross_check("PYLON_OIDC_PRIVATE_KEY", "PYLON_OIDC_KEY_PATH")
def _one_private_key(settings: Settings) -> Iterator[Fault]:
    if settings.private_key and settings.key_file:
        yield Fault("PYLON_OIDC_KEY_PATH", "is set beside PYLON_OIDC_PRIVATE_KEY; keep one of them")


@_cross_check("PYLON_OIDC_KEYS", "PYLON_KEY_ENCRYPTION_KEY", "PYLON_DEV_MODE")
def _keys_are_sealed(settings: Settings) -> Iterator[Fault]:
    if settings.managed and not settings.sealing.secrets:
        yield Fault(
            "PYLON_KEY_ENCRYPTION_KEY",
            "is unset, and PYLON_OIDC_KEYS=managed keeps private keys in the database; write 32 random bytes in base64: openssl rand -base64 32",
        )


@_cross_check("PYLON_OIDC_KEYS", "PYLON_OIDC_JWKS_KID")
def _managed_keys_name_themselves(settings: Settings) -> Iterator[Fault]:
    if settings.managed and settings.jwks_kid is not None:
        yield Fault(
            "PYLON_OIDC_JWKS_KID",
            "is set beside PYLON_OIDC_KEYS=managed, where each key has a kid of its own; unset it, and give an old key its kid by pylon-oidc keys import --kid",
        )


@_cross_check("PYLON_OIDC_KEY_PATH", "DATABASE_URL")
def _replicas_share_the_key(settings: Settings) -> Iterator[Fault]:
    if settings.managed:
        return
    if settings.key_file and settings.key_file.key is None and not settings.database.is_sqlite:
        yield Fault(
            "PYLON_OIDC_KEY_PATH",
            "the file is missing, and with PostgreSQL each replica would make its own; make the key once, or give PYLON_OIDC_PRIVATE_KEY",
        )


@_cross_check("PYLON_JWT_ALG", "PYLON_OIDC_PRIVATE_KEY", "PYLON_OIDC_KEY_PATH", "PYLON_OIDC_KEYS")
def _asymmetric_needs_a_key(settings: Settings) -> Iterator[Fault]:
    if settings.jwt_alg == "HS256" or settings.managed:
        return
    if settings.jwt_alg not in RSA_ALGS:
        yield Fault(
            "PYLON_JWT_ALG",
            f"{settings.jwt_alg} is not signed by the RSA key of the environment; write RS256 or PS256, or PYLON_OIDC_KEYS=managed",
        )
    elif settings.private_key is None and settings.key_file is None:
        yield Fault(
            "PYLON_JWT_ALG",
            f"{settings.jwt_alg} needs a private key; give PYLON_OIDC_PRIVATE_KEY (a PEM), PYLON_OIDC_PRIVATE_KEY_FILE, PYLON_OIDC_KEY_PATH (a file, made when missing), or PYLON_OIDC_KEYS=managed",
        )


@_cross_check("PYLON_JWT_ALG", "PYLON_OIDC_KEYS", "PYLON_OIDC_ALGS")
def _minting_has_a_kept_key(settings: Settings) -> Iterator[Fault]:
    if settings.managed and settings.jwt_alg != "HS256" and settings.jwt_alg not in settings.algs:
        yield Fault(
            "PYLON_JWT_ALG",
            f"{settings.jwt_alg} is not among PYLON_OIDC_ALGS; write PYLON_OIDC_ALGS={','.join((*settings.algs, settings.jwt_alg))}",
        )


@_cross_check("PYLON_OIDC_JWKS_RSA_N", "PYLON_OIDC_JWKS_RSA_E")
def _modulus_and_exponent(settings: Settings) -> Iterator[Fault]:
    if settings.jwks_rsa_n is not None:
        try:
            keys.load_public_key(settings.jwks_rsa_n, settings.jwks_rsa_e)
        except keys.KeyFault as exc:
            yield Fault("PYLON_OIDC_JWKS_RSA_E", str(exc))


@_cross_check("PYLON_OIDC_JWKS_RSA_N", "PYLON_OIDC_PRIVATE_KEY")
def _published_key_is_the_private_key(settings: Settings) -> Iterator[Fault]:
    if settings.private_key is not None:
        yield from _published_key_is(settings.private_key, settings)


@_cross_check("PYLON_OIDC_JWKS_RSA_N", "PYLON_OIDC_KEY_PATH")
def _published_key_is_the_key_file(settings: Settings) -> Iterator[Fault]:
    if settings.jwks_rsa_n is None or settings.key_file is None or settings.private_key is not None:
        return
    if settings.key_file.key is None:
        yield Fault(
            "PYLON_OIDC_JWKS_RSA_N",
            "is set, and the key file that it should belong to is missing; unset it, or put the key there",
        )
    else:
        yield from _published_key_is(settings.key_file.key, settings)


def _published_key_is(private_key: RSAKey, settings: Settings) -> Iterator[Fault]:
    numbers = keys.public_numbers(private_key)
    if settings.jwks_rsa_n is not None and (numbers.n, numbers.e) != (
        settings.jwks_rsa_n,
        settings.jwks_rsa_e,
    ):
        yield Fault(
            "PYLON_OIDC_JWKS_RSA_N",
            "is another key than the private key; unset it, the public part is published by itself",
        )


# Browsers meet us over http on this machine alone: at such an issuer, or in dev mode without one.


@_cross_check("PYLON_COOKIE_SAME_SITE", "PYLON_OIDC_ISSUER")
def _same_site_none_needs_https(settings: Settings) -> Iterator[Fault]:
    if settings.cookie_same_site == "none" and (settings.issuer or "").startswith("http:"):
        yield Fault("PYLON_COOKIE_SAME_SITE", "none needs https; write lax")


@_cross_check("PYLON_COOKIE_SAME_SITE", "PYLON_OIDC_ISSUER", "PYLON_DEV_MODE")
def _same_site_none_needs_no_dev_mode(settings: Settings) -> Iterator[Fault]:
    if settings.cookie_same_site == "none" and settings.issuer is None and settings.dev_mode:
        yield Fault("PYLON_COOKIE_SAME_SITE", "none needs https; write lax")


@_cross_check("PYLON_COOKIE_DOMAIN", "PYLON_OIDC_ISSUER")
def _cookie_domain_covers_the_issuer(settings: Settings) -> Iterator[Fault]:
    if settings.cookie_domain is None or settings.issuer is None:
        return
    name = issuers.parse_host(issuers.issuer_origin(settings.issuer).partition("://")[2]).name
    if name != settings.cookie_domain and not name.endswith("." + settings.cookie_domain):
        yield Fault(
            "PYLON_COOKIE_DOMAIN",
            "does not cover the issuer's host, so browsers would drop the cookie; write a parent domain of it",
        )


@_cross_check("PYLON_COOKIE_NAME", "PYLON_OIDC_ISSUER")
def _cookie_prefix_needs_https(settings: Settings) -> Iterator[Fault]:
    if _has_prefix(settings) and (settings.issuer or "").startswith("http:"):
        yield Fault("PYLON_COOKIE_NAME", "the prefix needs https; drop it")


@_cross_check("PYLON_COOKIE_NAME", "PYLON_OIDC_ISSUER", "PYLON_DEV_MODE")
def _cookie_prefix_needs_no_dev_mode(settings: Settings) -> Iterator[Fault]:
    if _has_prefix(settings) and settings.issuer is None and settings.dev_mode:
        yield Fault("PYLON_COOKIE_NAME", "the prefix needs https; drop it")


@_cross_check("PYLON_COOKIE_NAME", "PYLON_COOKIE_DOMAIN")
def _host_prefix_allows_no_domain(settings: Settings) -> Iterator[Fault]:
    if _has_prefix(settings, "__host-") and settings.cookie_domain:
        yield Fault("PYLON_COOKIE_NAME", "the prefix __Host- allows no domain; drop one of them")


@_cross_check("PYLON_COOKIE_NAME", "PYLON_OIDC_ISSUER")
def _host_prefix_allows_no_path(settings: Settings) -> Iterator[Fault]:
    if _has_prefix(settings, "__host-") and issuers.issuer_path(settings.issuer or ""):
        yield Fault("PYLON_COOKIE_NAME", "the prefix __Host- allows no issuer with a path; drop the prefix")


def _has_prefix(settings: Settings, *prefixes: str) -> bool:
    return settings.cookie_name.lower().startswith(prefixes or ("__host-", "__secure-"))


@_cross_check("DATABASE_URL")
def _database_can_be_made(settings: Settings) -> Iterator[Fault]:
    if settings.database_url is not None:
        yield from _sqlite_faults("DATABASE_URL", settings.database)


@_cross_check("PYLON_OIDC_CLIENTS", "PYLON_OIDC_ISSUER", "PYLON_DEV_MODE")
def _clients_need_an_issuer(settings: Settings) -> Iterator[Fault]:
    if settings.clients and not settings.dev_mode and settings.issuer is None:
        yield Fault(
            "PYLON_OIDC_ISSUER",
            "is unset, and there are clients; write the public address, as https://id.example.com",
        )


@_cross_check("PYLON_OIDC_CLIENTS", "PYLON_LOGIN_URL", "PYLON_DEV_MODE")
def _clients_need_a_sign_in_page(settings: Settings) -> Iterator[Fault]:
    if settings.clients and not settings.dev_mode and settings.login_url is None:
        yield Fault(
            "PYLON_LOGIN_URL", "is unset, and there are clients; write the address of the app's sign-in page"
        )


@_cross_check(
    "PYLON_OIDC_CLIENTS",
    "PYLON_OIDC_PRIVATE_KEY",
    "PYLON_OIDC_KEY_PATH",
    "PYLON_OIDC_KEYS",
    "PYLON_DEV_MODE",
)
def _clients_need_a_key(settings: Settings) -> Iterator[Fault]:
    has_key = settings.private_key is not None or settings.key_file is not None or settings.managed
    if settings.clients and not settings.dev_mode and not has_key:
        yield Fault(
            "PYLON_OIDC_CLIENTS",
            "needs an asymmetric signing key; give PYLON_OIDC_PRIVATE_KEY (a PEM), PYLON_OIDC_KEY_PATH (a file, made when missing), or PYLON_OIDC_KEYS=managed",
        )


@_cross_check("PYLON_OIDC_CLIENTS", "PYLON_OIDC_KEYS", "PYLON_OIDC_ALGS")
def _clients_have_a_kept_key(settings: Settings) -> Iterator[Fault]:
    for number, client in enumerate(settings.clients, 1):
        if client.id_token_signed_response_alg not in settings.id_token_algs:
            yield Fault(
                "PYLON_OIDC_CLIENTS",
                f"client {number}, id_token_signed_response_alg: there is no key for it; write {' or '.join(settings.id_token_algs)}, or keep one by PYLON_OIDC_KEYS=managed and PYLON_OIDC_ALGS",
            )


@_cross_check("PYLON_OIDC_CLIENTS", "PYLON_COOKIE_SAME_SITE")
def _strict_cookies_never_arrive(settings: Settings) -> Iterator[Fault]:
    if settings.clients and settings.cookie_same_site == "strict":
        yield Fault(
            "PYLON_COOKIE_SAME_SITE", "strict cookies do not come along from a client's site; write lax"
        )


@_cross_check("PYLON_OIDC_CLIENTS", "PYLON_JWT_AUDIENCE")
def _minted_audience_is_no_client(settings: Settings) -> Iterator[Fault]:
    # An ID token would be forged by a minted one (RFC 9700 §4.15).
    if any(client.client_id == settings.jwt_audience for client in settings.clients):
        yield Fault("PYLON_JWT_AUDIENCE", "is the id of a client; write another name for the audience")


@_cross_check("PYLON_DATA_DIR", "DATABASE_URL")
def _data_can_be_made(settings: Settings) -> Iterator[Fault]:
    if settings.database_url is None:
        yield from _sqlite_faults("PYLON_DATA_DIR", settings.database)


def _sqlite_faults(name: str, database: DatabaseUrl) -> Iterator[Fault]:
    if not database.is_sqlite:
        return
    if database.path.is_dir():
        yield Fault(name, "the database's path is a folder; write the path of a file")
    elif fault := _folder_fault(database.path.parent):
        yield Fault(
            name, f"the folder cannot be used ({fault}); write one that the service's user may write in"
        )


def _folder_fault(folder: Path) -> str | None:
    """Why nothing can be made in the folder (which itself may have to be made), or None. Makes nothing."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            return "not a folder"
    except OSError as exc:
        return exc.strerror or "unreadable"
    return None if os.access(folder, os.W_OK | os.X_OK) else "no right to write"


# --- what is allowed, and odd ---


def _unknown_names(environ: Mapping[str, str]) -> Iterator[str]:
    known = {*NAMES, *(f"{name}_FILE" for name in NAMES)}
    for name in sorted(environ):
        if name.startswith(_PREFIX) and name not in known:
            nearest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.5)
            yield f"{name} is not a setting" + (f"; did you mean {nearest[0]}?" if nearest else "")


def _oddities(settings: Settings, faulty: set[str]) -> Iterator[str]:
    if settings.issuer is None and not settings.dev_mode and "PYLON_OIDC_ISSUER" not in faulty:
        yield (
            "PYLON_OIDC_ISSUER is unset: the issuer comes from each request's Host, "
            "so a token minted over an internal address carries that address as iss"
        )
    if settings.jwt_issuer is not None and settings.jwt_issuer != settings.issuer:
        yield "PYLON_JWT_ISSUER is not the issuer: verifiers that follow discovery will refuse minted tokens"
    if (
        settings.jwks_kid is not None
        and settings.jwks_rsa_n is None
        and not (settings.private_key or settings.key_file or settings.managed)
    ):
        yield "PYLON_OIDC_JWKS_KID is set, and there is no key to publish under it"
    yield from _odd_keys(settings)
    if settings.issuer is not None and settings.allowed_hosts:
        yield "PYLON_ALLOWED_HOSTS has no effect while PYLON_OIDC_ISSUER is set"


def _odd_keys(settings: Settings) -> Iterator[str]:
    if settings.managed:
        if settings.key_file is not None and settings.key_file.key is None:
            yield "PYLON_OIDC_KEY_PATH: the file is missing, and with PYLON_OIDC_KEYS=managed none is made; unset it"
        if settings.key_encryption is None and settings.dev_mode:
            yield "PYLON_KEY_ENCRYPTION_KEY is unset: in dev mode private keys are sealed under a key that everybody knows"
        return
    if settings.key_encryption is not None:
        yield "PYLON_KEY_ENCRYPTION_KEY has no effect without PYLON_OIDC_KEYS=managed"
    if settings.algs != ("RS256",):
        yield "PYLON_OIDC_ALGS has no effect without PYLON_OIDC_KEYS=managed"
    if settings.key_rotation_days != 90:
        yield "PYLON_OIDC_KEY_ROTATION_DAYS has no effect without PYLON_OIDC_KEYS=managed"
