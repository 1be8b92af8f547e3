"""Checks the policy file against the other settings: keys, secrets, clients, the issuer, scopes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from service.keys.algorithms import RSA_ALGS
from service.policies.values import Policy, names_issuer
from service.settings.cross_checks import CROSS_CHECKS, cross_check, secrets_of
from service.settings.faults import Fault
from service.settings.policies import SETTING, fault_of
from service.settings.table import Settings


@cross_check(SETTING)
def _the_secret_of_an_audience_has_one_purpose(settings: Settings) -> Iterator[Fault]:
    """Check each audience's secret. Sharing it with another audience or PYLON_JWT_SECRET only causes a warning."""
    others = {secret: name for name, secret in secrets_of(settings) if name != "PYLON_JWT_SECRET"}
    for audience, policy in _tables(settings):
        own = b"" if policy.secret is None else policy.secret.raw_value
        if own in others:
            text = f"its secret is the same as {others[own]}; write another: openssl rand -hex 32"
            yield _of_a_table(settings, audience, "", text)
        for client in settings.clients:
            if own and client.has_secret(own.decode("utf-8", "replace"), now=0):
                text = f"its secret is the same as that of the client {client.client_id}; write another: openssl rand -hex 32"
                yield _of_a_table(settings, audience, "", text)


@cross_check(
    SETTING,
    "PYLON_OIDC_PRIVATE_KEY",
    "PYLON_OIDC_KEY_PATH",
    "PYLON_OIDC_KEYS",
    "PYLON_OIDC_ALGS",
    "PYLON_JWT_ALG",
)
def _audiences_have_a_key(settings: Settings) -> Iterator[Fault]:
    wanted = [
        (audience, "alg" if alg == policy.alg else "migrate.to", alg)
        for audience, policy in _tables(settings)
        for alg in policy.algs
    ]
    for audience, member, alg in wanted:
        # A check of that setting reports it.
        if alg == "HS256" or (alg == settings.jwt_alg and not settings.managed):
            continue
        if settings.managed and alg not in settings.algs:
            all_algs = ",".join((*settings.algs, alg))
            text = f"{alg} is not among PYLON_OIDC_ALGS; write PYLON_OIDC_ALGS={all_algs}, or another algorithm here"
        elif not settings.managed and alg not in RSA_ALGS:
            text = f"{alg} cannot be signed with the RSA key of the environment; write RS256 or PS256, or PYLON_OIDC_KEYS=managed and PYLON_OIDC_ALGS={alg}"
        elif not settings.has_private_key:
            text = f"{alg} needs a private key; set PYLON_OIDC_PRIVATE_KEY (a PEM), PYLON_OIDC_KEY_PATH (a file, created if missing), or PYLON_OIDC_KEYS=managed"
        else:
            continue
        yield _of_a_table(settings, audience, member, text)


def _tables(settings: Settings) -> Iterator[tuple[str, Policy]]:
    """The tables of the policy file, by audience; none without a file."""
    if settings.policies is not None:
        yield from ((name, policy) for name, policy in settings.policies.tables.items() if name is not None)


@cross_check(SETTING, "PYLON_JWT_AUDIENCE")
def _the_default_audience_can_be_minted(settings: Settings) -> Iterator[Fault]:
    if settings.policies is None or settings.jwt_audience is None:
        return
    if settings.policies.to_mint(settings.jwt_audience) is None:
        names = [name for name, policy in _tables(settings) if settings.policies.to_mint(name)]
        write = f"write {' or '.join(names)}, " if names else ""
        yield Fault(
            "PYLON_JWT_AUDIENCE",
            f"names no table of PYLON_POLICIES whose grants has mint; {write}add its table, or unset it",
        )


@cross_check(SETTING, "PYLON_OIDC_CLIENTS")
def _no_audience_is_a_client(settings: Settings) -> Iterator[Fault]:
    # A token for such an audience could be used as an ID token (RFC 9700 §4.15).
    ids = {client.client_id for client in settings.clients}
    for audience, _ in _tables(settings):
        if audience in ids:
            yield _of_a_table(
                settings, audience, "", "is the id of a client; write another name for the audience"
            )


@cross_check(SETTING, "PYLON_OIDC_ISSUER")
def _no_audience_is_the_issuer(settings: Settings) -> Iterator[Fault]:
    for audience, _ in _tables(settings):
        if settings.issuer is not None and names_issuer(audience, settings.issuer):
            yield _of_a_table(
                settings, audience, "", "is the issuer, whose tokens are userinfo's; write the name of an API"
            )


@cross_check(SETTING, "PYLON_OIDC_SCOPES")
def _a_word_is_of_one_kind(settings: Settings) -> Iterator[Fault]:
    own = {} if settings.own_scopes is None else settings.own_scopes.own
    for audience, policy in _tables(settings):
        for word in policy.scopes:
            if word in own:
                yield _of_a_table(
                    settings,
                    audience,
                    "scopes",
                    f"{word} is a scope of PYLON_OIDC_SCOPES; write another word",
                )


def _of_a_table(settings: Settings, audience: str, member: str, text: str) -> Fault:
    return fault_of(settings.audiences, audience, member, text)


#: All checks of settings, including those here.
ALL_CHECKS: Final = CROSS_CHECKS
