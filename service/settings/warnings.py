"""What is allowed, and odd: the service starts, and says so."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from service.settings.table import NAMES, Settings


def unknown_names(environ: Mapping[str, str]) -> Iterator[str]:
    """Names that look like a setting and are none, with the nearest one that exists."""
    known = {*NAMES, *(f"{name}_FILE" for name in NAMES)}
    for name in sorted(environ):
        if name.startswith("PYLON_") and name not in known:
            nearest = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.5)
            yield f"{name} is not a setting" + (f"; did you mean {nearest[0]}?" if nearest else "")


def oddities(settings: Settings, faulty: set[str]) -> Iterator[str]:
    """Settings that mean what nobody is likely to want.

    Args:
        settings: as far as they parsed.
        faulty: names that are told by a fault already.
    """
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
