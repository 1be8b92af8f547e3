"""Reads the settings from the environment. No other module reads it.

`NAME_FILE` reads the value of `NAME` from a file. An empty value counts as unset. The cross-checks run on all settings
that could be parsed, so that one fault never hides another.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from service.settings.carried import carried, without_newline
from service.settings.env_file import read_env_file
from service.settings.faults import Fault
from service.settings.parsers import FaultsOfAFile
from service.settings.policies import named_secrets, with_secrets
from service.settings.policy_checks import ALL_CHECKS
from service.settings.table import NAMES, TABLE, Settings
from service.settings.warnings import oddities, unknown_names

#: A PEM consists of lines, and each ends with a newline (RFC 7468 §3).
_MAY_END: Final = {"PYLON_OIDC_PRIVATE_KEY": "\r\n"}


@dataclass(frozen=True)
class Reading:
    """The result of reading the environment: the settings that could be parsed, faults and warnings."""

    settings: Settings
    faults: list[Fault]
    warnings: list[str]


def read_settings(environ: Mapping[str, str] | None = None, *, policies: Path | None = None) -> Reading:
    """Read and check every setting.

    Args:
        environ: the environment; the process's own by default.
        policies: a policy file to use instead of the one that the environment names.

    Returns:
        The settings, with all faults and warnings. A wrong setting has its default. Never raises.
    """
    environ = os.environ if environ is None else environ
    values, faults = _resolve(environ)
    if policies is not None:
        values["PYLON_POLICIES"] = str(policies)
        faults = [fault for fault in faults if fault.setting != "PYLON_POLICIES"]
    faults += _platform_faults(environ)
    settings, parse_faults = _parse(values)
    faults += parse_faults
    if settings.policies is not None:
        settings, secret_faults = with_secrets(settings, settings.policies, environ)
        faults += secret_faults
    faulty = {fault.setting for fault in faults}
    for check in ALL_CHECKS:
        if not faulty.intersection(check.names):
            faults += check.run(settings)
    unknown = unknown_names(environ, also=named_secrets(settings.policies))
    return Reading(settings, in_order(faults), [*unknown, *oddities(settings, faulty)])


def use_env_file(path: Path) -> None:
    """Put the settings of a systemd-style environment file into this process's environment, replacing existing ones.

    Raises:
        OSError: if it cannot be read.
        MalformedEnvFile: if it is not such a file.
    """
    os.environ.update(read_env_file(path))


def given_names(environ: Mapping[str, str] | None = None) -> list[str]:
    """The settings that the environment sets, in either form, in the order of the settings."""
    environ = os.environ if environ is None else environ
    return [given for name in NAMES for given in (name, f"{name}_FILE") if environ.get(given)]


def in_order(faults: Sequence[Fault]) -> list[Fault]:
    """The faults in the order of the settings."""
    place = {name: number for number, name in enumerate(NAMES)}
    return sorted(faults, key=lambda fault: place.get(fault.setting, 0))


def _resolve(environ: Mapping[str, str]) -> tuple[dict[str, str], list[Fault]]:
    values: dict[str, str] = {}
    faults: list[Fault] = []
    for name in NAMES:
        direct, path = environ.get(name, ""), environ.get(f"{name}_FILE", "")
        if direct and path:
            faults.append(Fault(name, f"{name} and {name}_FILE are both set; keep one of them"))
            continue
        if path:
            direct, fault = _read_file(path)
            if fault is not None:
                faults.append(Fault(f"{name}_FILE", fault))
        if added := carried(direct, may_end=_MAY_END.get(name, "")):
            faults.append(
                Fault(f"{name}_FILE" if path else name, f"the file's text {added}" if path else added)
            )
        elif direct:
            values[name] = direct
    return values, faults


def platform_port() -> int | None:
    """The port that a platform sets, if it is valid."""
    value = os.environ.get("PORT", "")
    return int(value) if re.fullmatch(r"[0-9]{1,5}", value, re.ASCII) else None


def _read_file(path: str) -> tuple[str, str | None]:
    """The text of the file that `NAME_FILE` names, and what is wrong with it or its path."""
    if added := carried(path):
        return "", added
    try:
        return without_newline(Path(path).read_bytes()), None
    except (OSError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or "it is not UTF-8 text"
        return "", f"the file cannot be read ({reason}); write the path of a readable file"


def _platform_faults(environ: Mapping[str, str]) -> Iterator[Fault]:
    """Faults of the variables that a platform sets for gunicorn, reported here together with all others."""
    for name, most, example in (("PORT", 65_535, "4321"), ("WEB_CONCURRENCY", 1024, "2")):
        value = environ.get(name, "")
        if added := carried(value):
            yield Fault(name, added)
        elif value and not (re.fullmatch(r"[0-9]{1,5}", value, re.ASCII) and 1 <= int(value) <= most):
            yield Fault(name, f"is not a whole number from 1 to {most}; write only digits, such as {example}")


def _parse(values: Mapping[str, str]) -> tuple[Settings, list[Fault]]:
    parsed: dict[str, Any] = {}
    faults: list[Fault] = []
    for field, row in TABLE.items():
        if (value := values.get(row.name)) is None:
            continue
        try:
            parsed[field] = row.parse(value, *(parsed.get(other) for other in row.beside))
        except FaultsOfAFile as error:
            faults += [Fault(row.name, text, line) for line, text in error.found]
            parsed[field] = row.instead
        except ValueError as error:
            faults += [Fault(row.name, text) for text in str(error).split("\n")]
            parsed[field] = row.instead
    return Settings(**parsed), faults
