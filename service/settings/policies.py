"""The policy file as a setting: reads the secrets that it names, and warns about its content."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from service.keys import material as keys
from service.policies.values import Policies, Policy, table_name
from service.settings.carried import carried, without_newline
from service.settings.faults import Fault
from service.settings.table import Settings

SETTING: Final = "PYLON_POLICIES"


def fault_of(policies: Policies, audience: str, member: str, text: str) -> Fault:
    """A fault of a member of an audience's table, or of the table if no member is given; with file, line and table.

    Args:
        policies: the file.
        audience: the audience.
        member: the member, such as `alg` or `migrate.to`.
        text: what is wrong; what to write instead.
    """
    line, place = policies.place(audience, *(member.split(".") if member else []))
    return Fault(SETTING, f"{policies.file}, line {line}: {place}: {text}", line)


def named_secrets(policies: Policies | None) -> frozenset[str]:
    """The environment variables that the tables name for secrets."""
    tables = () if policies is None else policies.tables.values()
    return frozenset(policy.secret_env for policy in tables if policy.secret_env is not None)


def with_secrets(
    settings: Settings, policies: Policies, environ: Mapping[str, str]
) -> tuple[Settings, list[Fault]]:
    """The settings with each audience's own secret, from its file or environment variable; and faults about them."""
    faults: list[Fault] = []
    tables = dict(policies.tables)
    for audience, policy in policies.tables.items():
        member = "secret_file" if policy.secret_file is not None else "secret_env"
        try:
            text = _secret_of(policy, policies.file, environ)
            if text is not None:
                tables[audience] = replace(policy, secret=keys.load_secret(text))
        except ValueError as error:
            faults.append(fault_of(policies, audience or "", member, str(error)))
    return replace(settings, policies=replace(policies, tables=tables)), faults


def _secret_of(policy: Policy, file: str, environ: Mapping[str, str]) -> bytes | None:
    """The secret that a table names.

    Raises:
        ValueError: says what is wrong, and what to write instead.
    """
    if policy.secret_file is not None:
        path = Path(file).parent / policy.secret_file
        try:
            text = without_newline(path.read_bytes())
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or "it is not UTF-8 text"
            raise ValueError(
                f"the file cannot be read ({reason}); write the path of a readable file, from the folder of this one"
            ) from None
    elif policy.secret_env is not None:
        text = environ.get(policy.secret_env, "")
    else:
        return None
    if not text:
        raise ValueError("is empty; write at least 32 random bytes there: openssl rand -hex 32")
    if added := carried(text):
        raise ValueError(f"the secret there {added}")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            "the secret there is not UTF-8; put a random one there: openssl rand -hex 32"
        ) from None


def policy_oddities(policies: Policies, *, secret: keys.HmacKey | None) -> Iterator[str]:
    """Warnings about things in a policy file that are allowed, but probably not intended.

    Args:
        policies: the file.
        secret: `PYLON_JWT_SECRET`.
    """
    named = {audience: policy for audience, policy in policies.tables.items() if audience is not None}
    for audience, policy in named.items():
        if "HS256" in policy.algs and policy.secret is None and secret is None:
            yield _odd(
                policies,
                audience,
                "",
                "HS256 has no secret: no token is signed until secret_file, secret_env or PYLON_JWT_SECRET is set",
            )
    shared: dict[bytes, list[str]] = {}
    for audience, policy in named.items():
        if "HS256" in policy.algs and (own := policy.secret or secret) is not None:
            shared.setdefault(own.raw_value, []).append(audience)
    for value, audiences in shared.items():
        if len(audiences) > 1:
            tables = ", ".join(map(table_name, audiences))
            whose = "PYLON_JWT_SECRET" if secret is not None and value == secret.raw_value else "one secret"
            yield (
                f"{SETTING}: {policies.file}: {tables} share {whose}, so each service can make tokens for the others; "
                "write secret_file in each"
            )


def _odd(policies: Policies, audience: str, member: str, text: str) -> str:
    return str(fault_of(policies, audience, member, text))
