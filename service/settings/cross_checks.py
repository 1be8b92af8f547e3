"""Checks that settings do not conflict. Each check reads the settings that it names, and yields faults."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from joserfc.jwk import RSAKey

from service import issuer as issuers
from service.keys import material as keys
from service.keys.algorithms import RSA_ALGS
from service.outbound.fetcher import Outbound
from service.protocol.client_addresses import check_addresses
from service.protocol.clients import InvalidClientMetadata, MintedAudienceMissing
from service.records.scopes import STANDARD_SCOPES
from service.settings.faults import Fault
from service.settings.parsers import folder_fault
from service.settings.table import Settings
from service.storage.urls import DatabaseUrl

Check = Callable[[Settings], Iterator[Fault]]


@dataclass(frozen=True)
class CrossCheck:
    """A check, and the settings that it reads. It runs if all of them could be parsed."""

    names: tuple[str, ...]
    run: Check


CROSS_CHECKS: list[CrossCheck] = []


def cross_check(*names: str) -> Callable[[Check], Check]:
    """Register a check of these settings."""

    def register(run: Check) -> Check:
        CROSS_CHECKS.append(CrossCheck(names, run))
        return run

    return register


@cross_check("PYLON_STATUS_LIST", "PYLON_OIDC_PRIVATE_KEY", "PYLON_OIDC_KEY_PATH", "PYLON_OIDC_KEYS")
def _status_lists_need_a_key(settings: Settings) -> Iterator[Fault]:
    if settings.status_list and not settings.has_private_key:
        yield Fault(
            "PYLON_STATUS_LIST",
            "needs an asymmetric signing key; set PYLON_OIDC_PRIVATE_KEY (a PEM), PYLON_OIDC_KEY_PATH (a file, created if missing), or PYLON_OIDC_KEYS=managed",
        )


@cross_check("PYLON_DEV_MODE", "PYLON_OIDC_ISSUER")
def _dev_mode_is_loopback(settings: Settings) -> Iterator[Fault]:
    if settings.dev_mode and settings.issuer and not issuers.is_loopback_issuer(settings.issuer):
        yield Fault("PYLON_DEV_MODE", "is on with a public PYLON_OIDC_ISSUER; write 0, or unset the issuer")


@cross_check()  # a wrong setting has its default, and is not compared
def _each_secret_has_one_purpose(settings: Settings) -> Iterator[Fault]:
    seen: dict[bytes, str] = {}
    for name, secret in secrets_of(settings):
        if (other := seen.setdefault(secret, name)) != name:
            instead = (
                "unset it, or write the secret that was there before"
                if name == f"{other}_PREVIOUS"
                else "write another: openssl rand -hex 32"
            )
            yield Fault(name, f"is the same secret as {other}; {instead}")
    for number, client in enumerate(settings.clients, 1):
        for secret, other in seen.items():
            if client.has_secret(secret.decode("utf-8", "replace"), now=0):
                yield Fault(
                    "PYLON_OIDC_CLIENTS",
                    f"client {number} ({client.client_id}), client_secret: is the same secret as {other}; write another: openssl rand -hex 32",
                )


def secrets_of(settings: Settings) -> Iterator[tuple[str, bytes]]:
    """Every secret in text form, with its setting; encryption keys in their most common notation."""
    for sealing in () if settings.key_encryption is None else settings.key_encryption.secrets:
        text = base64.b64encode(sealing)
        yield from (("PYLON_KEY_ENCRYPTION_KEY", each) for each in (text, text.rstrip(b"=")))
    keys_of_jwts = (
        ("PYLON_JWT_SECRET", settings.jwt_secret),
        ("PYLON_JWT_SECRET_PREVIOUS", settings.jwt_secret_previous),
    )
    yield from ((name, key.raw_value) for name, key in keys_of_jwts if key is not None)
    words = (
        ("PYLON_ADMIN_TOKEN", settings.admin_token),
        ("PYLON_ADMIN_TOKEN_PREVIOUS", settings.admin_token_previous),
        ("PYLON_TRUSTED_SECRET", settings.trusted_secret),
        ("PYLON_TRUSTED_SECRET_PREVIOUS", settings.trusted_secret_previous),
    )
    yield from ((name, word.value) for name, word in words if word is not None)


@cross_check("PYLON_OIDC_PRIVATE_KEY", "PYLON_OIDC_KEY_PATH")
def _one_private_key(settings: Settings) -> Iterator[Fault]:
    if settings.private_key and settings.key_file:
        yield Fault("PYLON_OIDC_KEY_PATH", "is set together with PYLON_OIDC_PRIVATE_KEY; keep one of them")


@cross_check("PYLON_OIDC_KEYS", "PYLON_KEY_ENCRYPTION_KEY", "PYLON_DEV_MODE")
def _keys_are_sealed(settings: Settings) -> Iterator[Fault]:
    if settings.managed and not settings.sealing.secrets:
        yield Fault(
            "PYLON_KEY_ENCRYPTION_KEY",
            "is unset, and PYLON_OIDC_KEYS=managed keeps private keys in the database; write 32 random bytes in base64: openssl rand -base64 32",
        )


@cross_check("PYLON_OIDC_KEYS", "PYLON_OIDC_JWKS_KID")
def _managed_keys_name_themselves(settings: Settings) -> Iterator[Fault]:
    if settings.managed and settings.jwks_kid is not None:
        yield Fault(
            "PYLON_OIDC_JWKS_KID",
            "is set together with PYLON_OIDC_KEYS=managed, where each key has its own kid; unset it, and give an old key its kid with pylon-oidc keys import --kid",
        )


@cross_check("PYLON_OIDC_KEY_PATH", "DATABASE_URL")
def _replicas_share_the_key(settings: Settings) -> Iterator[Fault]:
    if settings.managed:
        return
    if settings.key_file and settings.key_file.key is None and not settings.database.is_sqlite:
        yield Fault(
            "PYLON_OIDC_KEY_PATH",
            "the file is missing, and with PostgreSQL each replica would create a different key; create the key once, or set PYLON_OIDC_PRIVATE_KEY",
        )


@cross_check("PYLON_JWT_ALG", "PYLON_OIDC_PRIVATE_KEY", "PYLON_OIDC_KEY_PATH", "PYLON_OIDC_KEYS")
def _asymmetric_needs_a_key(settings: Settings) -> Iterator[Fault]:
    if settings.jwt_alg == "HS256" or settings.managed:
        return
    if settings.jwt_alg not in RSA_ALGS:
        yield Fault(
            "PYLON_JWT_ALG",
            f"{settings.jwt_alg} cannot be signed with the RSA key of the environment; write RS256 or PS256, or PYLON_OIDC_KEYS=managed",
        )
    elif settings.private_key is None and settings.key_file is None:
        yield Fault(
            "PYLON_JWT_ALG",
            f"{settings.jwt_alg} needs a private key; set PYLON_OIDC_PRIVATE_KEY (a PEM), PYLON_OIDC_PRIVATE_KEY_FILE, PYLON_OIDC_KEY_PATH (a file, created if missing), or PYLON_OIDC_KEYS=managed",
        )


@cross_check("PYLON_JWT_ALG", "PYLON_OIDC_KEYS", "PYLON_OIDC_ALGS")
def _minting_has_a_kept_key(settings: Settings) -> Iterator[Fault]:
    if settings.managed and settings.jwt_alg != "HS256" and settings.jwt_alg not in settings.algs:
        yield Fault(
            "PYLON_JWT_ALG",
            f"{settings.jwt_alg} is not among PYLON_OIDC_ALGS; write PYLON_OIDC_ALGS={','.join((*settings.algs, settings.jwt_alg))}",
        )


@cross_check("PYLON_OIDC_JWKS_RSA_N", "PYLON_OIDC_JWKS_RSA_E")
def _modulus_and_exponent(settings: Settings) -> Iterator[Fault]:
    if settings.jwks_rsa_n is not None:
        try:
            keys.load_public_key(settings.jwks_rsa_n, settings.jwks_rsa_e)
        except keys.KeyFault as exc:
            yield Fault("PYLON_OIDC_JWKS_RSA_E", str(exc))


@cross_check("PYLON_OIDC_JWKS_RSA_N", "PYLON_OIDC_PRIVATE_KEY")
def _published_key_is_the_private_key(settings: Settings) -> Iterator[Fault]:
    if settings.private_key is not None:
        yield from _published_key_is(settings.private_key, settings)


@cross_check("PYLON_OIDC_JWKS_RSA_N", "PYLON_OIDC_KEY_PATH")
def _published_key_is_the_key_file(settings: Settings) -> Iterator[Fault]:
    if settings.jwks_rsa_n is None or settings.key_file is None or settings.private_key is not None:
        return
    if settings.key_file.key is None:
        yield Fault(
            "PYLON_OIDC_JWKS_RSA_N",
            "is set, and the key file that it belongs to is missing; unset it, or put the key there",
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
            "differs from the private key; unset it, because the public part is published automatically",
        )


def _setting_of_clients(settings: Settings) -> str:
    """The setting by which there are clients. No check waits for all three: a wrong one has its default, which is no client."""
    if settings.clients:
        return "PYLON_OIDC_CLIENTS"
    return "PYLON_OIDC_CLIENT_DOCUMENTS" if settings.registration == "off" else "PYLON_OIDC_REGISTRATION"


def _whose(settings: Settings) -> str:
    return "there are clients" if settings.clients else f"{_setting_of_clients(settings)} is on"


# Browsers use http only on this machine: with a loopback issuer, or in dev mode without an issuer.


@cross_check("PYLON_COOKIE_SAME_SITE", "PYLON_OIDC_ISSUER")
def _same_site_none_needs_https(settings: Settings) -> Iterator[Fault]:
    if settings.cookie_same_site == "none" and (settings.issuer or "").startswith("http:"):
        yield Fault("PYLON_COOKIE_SAME_SITE", "is none, which needs https; write lax")


@cross_check("PYLON_COOKIE_SAME_SITE", "PYLON_OIDC_ISSUER", "PYLON_DEV_MODE")
def _same_site_none_needs_no_dev_mode(settings: Settings) -> Iterator[Fault]:
    if settings.cookie_same_site == "none" and settings.issuer is None and settings.dev_mode:
        yield Fault("PYLON_COOKIE_SAME_SITE", "is none, which needs https; write lax")


@cross_check("PYLON_COOKIE_DOMAIN", "PYLON_OIDC_ISSUER")
def _cookie_domain_covers_the_issuer(settings: Settings) -> Iterator[Fault]:
    if settings.cookie_domain is None or settings.issuer is None:
        return
    name = issuers.parse_host(issuers.issuer_origin(settings.issuer).partition("://")[2]).name
    if name != settings.cookie_domain and not name.endswith("." + settings.cookie_domain):
        yield Fault(
            "PYLON_COOKIE_DOMAIN",
            "does not cover the issuer's host, so browsers would drop the cookie; write a parent domain of it",
        )


@cross_check("PYLON_COOKIE_NAME", "PYLON_OIDC_ISSUER")
def _cookie_prefix_needs_https(settings: Settings) -> Iterator[Fault]:
    if _has_prefix(settings) and (settings.issuer or "").startswith("http:"):
        yield Fault("PYLON_COOKIE_NAME", "has a prefix that needs https; remove the prefix")


@cross_check("PYLON_COOKIE_NAME", "PYLON_OIDC_ISSUER", "PYLON_DEV_MODE")
def _cookie_prefix_needs_no_dev_mode(settings: Settings) -> Iterator[Fault]:
    if _has_prefix(settings) and settings.issuer is None and settings.dev_mode:
        yield Fault("PYLON_COOKIE_NAME", "has a prefix that needs https; remove the prefix")


@cross_check("PYLON_COOKIE_NAME", "PYLON_COOKIE_DOMAIN")
def _host_prefix_allows_no_domain(settings: Settings) -> Iterator[Fault]:
    if _has_prefix(settings, "__host-") and settings.cookie_domain:
        yield Fault(
            "PYLON_COOKIE_NAME",
            "has the prefix __Host-, which does not allow PYLON_COOKIE_DOMAIN; remove one of them",
        )


@cross_check("PYLON_COOKIE_NAME", "PYLON_OIDC_ISSUER")
def _host_prefix_allows_no_path(settings: Settings) -> Iterator[Fault]:
    if _has_prefix(settings, "__host-") and issuers.issuer_path(settings.issuer or ""):
        yield Fault(
            "PYLON_COOKIE_NAME",
            "has the prefix __Host-, which does not allow an issuer with a path; remove the prefix",
        )


def _has_prefix(settings: Settings, *prefixes: str) -> bool:
    return settings.cookie_name.lower().startswith(prefixes or ("__host-", "__secure-"))


@cross_check("DATABASE_URL")
def _database_can_be_made(settings: Settings) -> Iterator[Fault]:
    if settings.database_url is not None:
        yield from _sqlite_faults("DATABASE_URL", settings.database)


@cross_check("PYLON_OIDC_ISSUER", "PYLON_DEV_MODE")
def _clients_need_an_issuer(settings: Settings) -> Iterator[Fault]:
    if settings.has_clients and not settings.dev_mode and settings.issuer is None:
        yield Fault(
            "PYLON_OIDC_ISSUER",
            f"is unset, and {_whose(settings)}; write the public address, such as https://id.example.com",
        )


@cross_check("PYLON_LOGIN_URL", "PYLON_DEV_MODE")
def _clients_need_a_sign_in_page(settings: Settings) -> Iterator[Fault]:
    if settings.has_clients and not settings.dev_mode and settings.login_url is None:
        yield Fault(
            "PYLON_LOGIN_URL",
            f"is unset, and {_whose(settings)}; write the address of the app's sign-in page",
        )


@cross_check(
    "PYLON_OIDC_PRIVATE_KEY",
    "PYLON_OIDC_KEY_PATH",
    "PYLON_OIDC_KEYS",
    "PYLON_DEV_MODE",
)
def _clients_need_a_key(settings: Settings) -> Iterator[Fault]:
    if settings.has_clients and not settings.dev_mode and not settings.has_private_key:
        yield Fault(
            _setting_of_clients(settings),
            "needs an asymmetric signing key; set PYLON_OIDC_PRIVATE_KEY (a PEM), PYLON_OIDC_KEY_PATH (a file, created if missing), or PYLON_OIDC_KEYS=managed",
        )


@cross_check("PYLON_OIDC_CLIENTS", "PYLON_OIDC_KEYS", "PYLON_OIDC_ALGS")
def _clients_have_a_kept_key(settings: Settings) -> Iterator[Fault]:
    for number, client in enumerate(settings.clients, 1):
        if client.id_token_signed_response_alg not in settings.id_token_algs:
            yield Fault(
                "PYLON_OIDC_CLIENTS",
                f"client {number}, id_token_signed_response_alg: there is no key for it; write {' or '.join(settings.id_token_algs)}, or add one with PYLON_OIDC_KEYS=managed and PYLON_OIDC_ALGS",
            )


@cross_check("PYLON_OIDC_CLIENTS", "PYLON_OUTBOUND_ALLOW", "PYLON_OUTBOUND_PROXY")
def _clients_have_addresses_that_can_be_asked(settings: Settings) -> Iterator[Fault]:
    outbound = Outbound.of(settings)
    for number, client in enumerate(settings.clients, 1):
        try:
            check_addresses(client, outbound)
        except InvalidClientMetadata as error:
            where = f"client {number} ({client.client_id}), {error.member}"
            yield Fault("PYLON_OIDC_CLIENTS", f"{where}: {error.reason}")


@cross_check("PYLON_COOKIE_SAME_SITE")
def _strict_cookies_never_arrive(settings: Settings) -> Iterator[Fault]:
    if settings.has_clients and settings.cookie_same_site == "strict":
        yield Fault(
            "PYLON_COOKIE_SAME_SITE",
            "is strict, so a browser that comes from a client's site does not send the cookie; write lax",
        )


@cross_check("PYLON_OIDC_CLIENTS", "PYLON_JWT_AUDIENCE")
def _minted_audience_is_no_client(settings: Settings) -> Iterator[Fault]:
    # A minted token could be used as an ID token (RFC 9700 §4.15).
    if any(client.client_id == settings.jwt_audience for client in settings.clients):
        yield Fault("PYLON_JWT_AUDIENCE", "is the id of a client; write another name for the audience")


@cross_check("PYLON_JWT_ALG", "PYLON_JWT_AUDIENCE")
def _clients_need_a_minted_audience(settings: Settings) -> Iterator[Fault]:
    if settings.has_clients and settings.lacks_minted_audience:
        yield no_minted_audience(settings)


@cross_check("PYLON_OIDC_REGISTRATION_SCOPES", "PYLON_OIDC_SCOPES")
def _scopes_of_strangers_exist(settings: Settings) -> Iterator[Fault]:
    known = (settings.own_scopes or STANDARD_SCOPES).words
    for word in settings.registration_scopes:
        if word not in known:
            yield Fault(
                "PYLON_OIDC_REGISTRATION_SCOPES",
                f"holds a scope that there is not; write some of {' '.join(known)}",
            )
            return


def no_minted_audience(settings: Settings) -> Fault:
    """The fault if there are clients, registered in any way, and `lacks_minted_audience`."""
    missing = MintedAudienceMissing(settings.jwt_alg)
    return Fault(missing.member, missing.reason)


@cross_check("PYLON_DATA_DIR", "DATABASE_URL")
def _data_can_be_made(settings: Settings) -> Iterator[Fault]:
    if settings.database_url is None:
        yield from _sqlite_faults("PYLON_DATA_DIR", settings.database)


def _sqlite_faults(name: str, database: DatabaseUrl) -> Iterator[Fault]:
    if not database.is_sqlite:
        return
    if database.path.is_dir():
        yield Fault(name, "the database's path is a folder; write the path of a file")
    elif fault := folder_fault(database.path.parent):
        yield Fault(
            name, f"the folder cannot be used ({fault}); write one that the service's user may write in"
        )
