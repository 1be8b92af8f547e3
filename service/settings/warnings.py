"""Warns about settings that are allowed, but probably not intended. The service starts anyway."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from service.settings.policies import policy_oddities
from service.settings.table import NAMES, Settings

#: Variables that Kubernetes sets in every container if a Service's name begins with "pylon".
_SERVICE_LINK: Final = re.compile(
    r"PYLON_(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)
_LINKED_PORT: Final = re.compile(r"(?:tcp|udp|sctp)://.*")


def unknown_names(environ: Mapping[str, str], *, also: Collection[str] = ()) -> Iterator[str]:
    """Names that look like a setting but are not, with the most similar setting. `also` are known from elsewhere."""
    known = {*NAMES, *(f"{name}_FILE" for name in NAMES), *also}
    for name in sorted(environ):
        if name.startswith("PYLON_") and name not in known and not _is_service_link(name, environ[name]):
            import difflib  # needed only for a warning

            nearest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.5)
            yield f"{name} is not a setting" + (f"; did you mean {nearest[0]}?" if nearest else "")


def _is_service_link(name: str, value: str) -> bool:
    # Someone may write PYLON_PORT instead of PORT; the value from Kubernetes is an address.
    if name.endswith("_PORT") and not name.endswith(
        ("_SERVICE_PORT", "_TCP_PORT", "_UDP_PORT", "_SCTP_PORT")
    ):
        return _SERVICE_LINK.fullmatch(name) is not None and _LINKED_PORT.fullmatch(value) is not None
    return _SERVICE_LINK.fullmatch(name) is not None


def oddities(settings: Settings, faulty: set[str]) -> Iterator[str]:
    """Yield a warning for each setting that has an effect that is probably not intended.

    Args:
        settings: the settings that could be parsed.
        faulty: names that already have a fault.
    """
    if settings.issuer is None and not settings.dev_mode and "PYLON_OIDC_ISSUER" not in faulty:
        yield (
            "PYLON_OIDC_ISSUER is unset: the issuer comes from each request's Host, "
            "so a token that is minted through an internal address has that address as iss"
        )
    if settings.jwt_issuer is not None and settings.jwt_issuer != settings.issuer:
        yield "PYLON_JWT_ISSUER is not the issuer: verifiers that follow discovery will refuse minted tokens"
    if (
        settings.jwks_kid is not None
        and settings.jwks_rsa_n is None
        and not (settings.private_key or settings.key_file or settings.managed)
    ):
        yield "PYLON_OIDC_JWKS_KID is set, but there is no key to publish under it"
    if settings.outbound_proxy is not None:
        yield (
            "PYLON_OUTBOUND_PROXY is set: the proxy looks up the names, so the proxy must refuse private addresses"
        )
    yield from _odd_keys(settings)
    yield from _previous_alone(settings)
    yield from _shared_client_secrets(settings)
    if settings.policies is not None and "PYLON_POLICIES" not in faulty:
        yield from policy_oddities(settings.policies, secret=settings.jwt_secret)
    if settings.issuer is not None and settings.allowed_hosts:
        yield "PYLON_ALLOWED_HOSTS has no effect while PYLON_OIDC_ISSUER is set"


def _previous_alone(settings: Settings) -> Iterator[str]:
    for name, current, previous in (
        ("PYLON_JWT_SECRET", settings.jwt_secret, settings.jwt_secret_previous),
        ("PYLON_ADMIN_TOKEN", settings.admin_token, settings.admin_token_previous),
        ("PYLON_TRUSTED_SECRET", settings.trusted_secret, settings.trusted_secret_previous),
    ):
        if current is None and previous is not None:
            yield f"{name}_PREVIOUS has no effect without {name}"


def _shared_client_secrets(settings: Settings) -> Iterator[str]:
    of_secret: dict[str, list[str]] = {}
    for client in settings.clients:
        for secret in client.secrets:
            of_secret.setdefault(secret.hash, []).append(client.client_id)
    for ids in of_secret.values():
        if len(ids) > 1:
            yield f"PYLON_OIDC_CLIENTS: the clients {', '.join(ids)} share one secret, so each can act for the others; give each a different one"


def _odd_keys(settings: Settings) -> Iterator[str]:
    if settings.managed:
        if settings.key_file is not None and settings.key_file.key is None:
            yield "PYLON_OIDC_KEY_PATH: the file is missing, and with PYLON_OIDC_KEYS=managed it is not created; unset it"
        if settings.key_encryption is None and settings.dev_mode:
            yield "PYLON_KEY_ENCRYPTION_KEY is unset: in dev mode private keys are encrypted with a publicly known key"
        return
    if settings.key_encryption is not None:
        yield "PYLON_KEY_ENCRYPTION_KEY has no effect without PYLON_OIDC_KEYS=managed"
    if settings.algs != ("RS256",):
        yield "PYLON_OIDC_ALGS has no effect without PYLON_OIDC_KEYS=managed"
    if settings.key_rotation_days != 90:
        yield "PYLON_OIDC_KEY_ROTATION_DAYS has no effect without PYLON_OIDC_KEYS=managed"
