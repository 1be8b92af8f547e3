"""The table of members: the values of each, in code for the parser and in JSON Schema for editors.

A test checks that both agree.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.keys.algorithms import MINT_ALGS
from service.policies.lines import Path
from service.policies.values import SIGN_IN_CLAIMS, WAYS, Migration, Require
from service.records.claims import (
    OUR_CLAIMS,
    PROTECTED_CLAIMS,
    VERIFIED_CLAIMS,
    is_claim_name,
)
from service.records.scopes import SCOPES

Schema = Mapping[str, Any]

_TEXT: Final = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]{1,255}$"
_NAME: Final = r"^[A-Za-z0-9_.:/-]{1,64}$"
_CLIENT_ID: Final = r"^[!-~]{1,128}$"
_ENV_NAME: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,254}$"
_TYP: Final = r"^(JWT|[a-z0-9!#&^_.+/-]{1,64})$"
#: `typ` of tokens that are not for an audience (RFC 8725 §3.11); and a spelling of `JWT` that is always a mistake.
_OTHER_TYPS: Final = (
    *("jwt", "application/jwt", "logout+jwt", "statuslist+jwt", "dpop+jwt", "oauth-authz-req+jwt"),
    *("client-authentication+jwt", "secevent+jwt", "token-introspection+jwt", "jwk+json", "jwk-set+json"),
)
_MOST: Final = 64
_MOST_CLIENTS: Final = 1000
_SAFE_INTEGER: Final = 2**53 - 1
_MOST_DEPTH: Final = 4
_OF_THE_SESSION: Final = ("roles", "tenant_id", *SIGN_IN_CLAIMS)
_NO_NAMES: Final = (PROTECTED_CLAIMS - set(SIGN_IN_CLAIMS)) | (OUR_CLAIMS - set(_OF_THE_SESSION))
_NO_TARGETS: Final = PROTECTED_CLAIMS | VERIFIED_CLAIMS


class Wrong(ValueError):
    """A value is wrong. For each fault, `faults` has its place in the value, what is wrong, and what to write instead."""

    def __init__(self, *faults: tuple[Path, str]) -> None:
        super().__init__("; ".join(text for _, text in faults))
        self.faults = faults


def _wrong(text: str, *within: str) -> Wrong:
    return Wrong((within, text))


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a table.

    Attributes:
        parse: turns its TOML value into the value of the policy; raises `Wrong`.
        schema: the same as a JSON Schema (draft 7).
        about: its description, for editors.
        by_default: whether `[default]` may have it.
    """

    parse: Callable[[Any], Any]
    schema: Schema
    about: str
    by_default: bool = True


Kind = tuple[Callable[[Any], Any], Schema]


def _matcher(pattern: str) -> Callable[[str], object]:
    """A matcher for a pattern of JSON Schema, in which `$` is the end of the text and not the end of a line."""
    return re.compile(pattern.removesuffix("$") + r"\Z").match


# --- kinds of values ---


def _one_of(*choices: str) -> Kind:
    def parse(value: Any) -> str:
        if type(value) is not str or value not in choices:
            raise _wrong(f"is not one of its values; write {' or '.join(choices)}")
        return value

    return parse, {"enum": list(choices)}


def _whole(least: int, most: int, what: str) -> Kind:
    def parse(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise _wrong(
                f"is not a whole number of {what} from {least} to {most}; write only digits, such as {most}"
            )
        return value

    return parse, {"type": "integer", "minimum": least, "maximum": most}


def _flag() -> Kind:
    def parse(value: Any) -> bool:
        if type(value) is not bool:
            raise _wrong("is neither true nor false; write true or false")
        return value

    return parse, {"type": "boolean"}


def _always_true() -> Kind:
    def parse(value: Any) -> bool:
        if value is not True:
            raise _wrong("is not true; write true, or leave it out")
        return True

    return parse, {"const": True}


def _text(pattern: str, example: str) -> Kind:
    matches = _matcher(pattern)

    def parse(value: Any) -> str:
        if type(value) is not str or not matches(value):
            raise _wrong(f"does not have the right form; write {example}")
        return value

    return parse, {"type": "string", "pattern": pattern}


def _typ() -> Kind:
    read, schema = _text(_TYP, "at+jwt, or another media type in lower case")

    def parse(value: Any) -> str:
        typ: str = read(value)
        if typ in _OTHER_TYPS:
            raise _wrong("is the type of other tokens; write at+jwt or JWT")
        return typ

    return parse, {**schema, "not": {"enum": list(_OTHER_TYPS)}}


def _names(
    pattern: str, example: str, *, refused: Mapping[str, str] | None = None, least: int = 0, most: int = _MOST
) -> Kind:
    """A list of different words. `refused`: words that it must not contain, with what to write instead."""
    matches = _matcher(pattern)
    refused = refused or {}

    def parse(value: Any) -> tuple[str, ...]:
        if type(value) is not list or not all(type(entry) is str and matches(entry) for entry in value):
            raise _wrong(f"is not a list of words of the right form; write {example}")
        if not least <= len(value) <= most:
            raise _wrong(f"does not have {least} to {most} entries; write {example}")
        if len(set(value)) < len(value):
            raise _wrong("has one entry twice; write each once")
        for entry in value:
            if entry in refused:
                raise _wrong(f"{entry} {refused[entry]}")
        return tuple(value)

    items: dict[str, Any] = {"type": "string", "pattern": pattern}
    if refused:
        items["not"] = {"enum": sorted(refused)}
    size = {"minItems": least} if least else {}
    return parse, {"type": "array", "items": items, "uniqueItems": True, "maxItems": most, **size}


def _ways() -> Kind:
    example = 'some of ["mint", "authorization_code", "client_credentials", "token_exchange"]'

    def parse(value: Any) -> tuple[str, ...]:
        is_list = type(value) is list and all(type(entry) is str for entry in value)
        if not is_list or not value or len(set(value)) < len(value) or not set(value) <= set(WAYS):
            raise _wrong(f"is not a list of different grants; write {example}")
        return tuple(value)

    return parse, {"type": "array", "items": {"enum": list(WAYS)}, "uniqueItems": True, "minItems": 1}


def _claims() -> Kind:
    refused = dict.fromkeys(_NO_NAMES, "is always in the token, or belongs to the protocol; leave it out")
    refused["groups"] = 'is not a claim of the user; write "roles", and rename = {roles = "groups"}'
    example = '["email", "roles"], with names of standard claims, roles, tenant_id, acr, amr, auth_time or of attributes'
    return _names(_NAME, example, refused=refused)


def _scopes() -> Kind:
    refused = dict.fromkeys((*PROTECTED_CLAIMS, *SCOPES), "already has a meaning; write another word")
    return _names(_NAME, '["reports:read"], words of 1 to 64 of A-Z a-z 0-9 _ . : / -', refused=refused)


def _rename() -> Kind:
    def parse(value: Any) -> dict[str, str]:
        if type(value) is not dict or len(value) > _MOST:
            raise _wrong('is not a table of names; write {roles = "groups"}')
        faults: list[tuple[Path, str]] = []
        for name, new in value.items():
            if name not in SIGN_IN_CLAIMS and not is_claim_name(name):
                faults.append(((name,), "is not a claim of the user, so it cannot be renamed; leave it out"))
            elif not is_claim_name(new) or new in VERIFIED_CLAIMS:
                text = "cannot have this name; write 1 to 64 of A-Z a-z 0-9 _ . : / - and no name of the protocol's"
                faults.append(((name,), text))
        if faults:
            raise Wrong(*faults)
        return dict(value)

    return parse, {
        "type": "object",
        "maxProperties": _MOST,
        "propertyNames": {"pattern": _NAME, "not": {"enum": sorted(PROTECTED_CLAIMS - set(SIGN_IN_CLAIMS))}},
        "additionalProperties": {"type": "string", "pattern": _NAME, "not": {"enum": sorted(_NO_TARGETS)}},
    }


def _static() -> Kind:
    def parse(value: Any) -> dict[str, Any]:
        if type(value) is not dict or len(value) > _MOST:
            raise _wrong('is not a table of claims; write {env = "production"}')
        faults: list[tuple[Path, str]] = []
        for name, content in value.items():
            if not is_claim_name(name) or name in VERIFIED_CLAIMS:
                text = "is not a name for a fixed claim; write 1 to 64 of A-Z a-z 0-9 _ . : / - and no name of the protocol's"
                faults.append(((name,), text))
            elif not is_json(content):
                text = "is not JSON; write strings, numbers, true, false, lists or tables of these"
                faults.append(((name,), text))
        if faults:
            raise Wrong(*faults)
        return dict(value)

    return parse, {
        "type": "object",
        "maxProperties": _MOST,
        "propertyNames": {"pattern": _NAME, "not": {"enum": sorted(_NO_TARGETS)}},
    }


def is_json(value: Any, depth: int = _MOST_DEPTH) -> bool:
    """Whether a TOML value is JSON that all parsers read in the same way: no dates, infinities or huge numbers."""
    if type(value) in {str, bool}:
        return True
    if type(value) is int:
        return abs(value) <= _SAFE_INTEGER
    if type(value) is float:
        return math.isfinite(value)
    within = value.values() if type(value) is dict else value if type(value) is list else None
    return within is not None and depth > 0 and all(is_json(each, depth - 1) for each in within)


def _descriptions() -> Kind:
    matches = _matcher(_TEXT)

    def parse(value: Any) -> dict[str, str]:
        if type(value) is not dict:
            raise _wrong('is not a table; write {"reports:read" = "read your reports"}')
        faults: list[tuple[Path, str]] = [
            ((word,), "is not a line of text; write what the user lets the service do")
            for word, text in value.items()
            if type(text) is not str or not matches(text)
        ]
        if faults:
            raise Wrong(*faults)
        return dict(value)

    return parse, {"type": "object", "additionalProperties": {"type": "string", "pattern": _TEXT}}


def _table(members: Mapping[str, Member], make: Callable[..., Any], *, whole: Sequence[str] = ()) -> Kind:
    """A table of members. `whole`: the required ones."""

    def parse(value: Any) -> Any:
        values, faults = read_members(value, members)
        faults += [
            ((), f"{name} is missing; write it")
            for name in whole
            if type(value) is dict and name not in value
        ]
        if faults:
            raise Wrong(*faults)
        return make(**values)

    return parse, table_schema(members, whole=whole)


def read_members(value: Any, members: Mapping[str, Member]) -> tuple[dict[str, Any], list[tuple[Path, str]]]:
    """The members of a table that could be parsed, and the faults of the others with their places."""
    if type(value) is not dict:
        return {}, [((), f"is not a table; write members of {', '.join(members)}")]
    values: dict[str, Any] = {}
    faults: list[tuple[Path, str]] = []
    for name, content in value.items():
        if name not in members:
            faults.append(((name,), f"is not a member; {nearest(name, members)}"))
            continue
        try:
            values[name] = members[name].parse(content)
        except Wrong as wrong:
            faults += [((name, *within), text) for within, text in wrong.faults]
    return values, faults


def nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    """A suggestion for an unknown name."""
    import difflib  # needed only for a fault

    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"write one of {', '.join(known)}"


def table_schema(members: Mapping[str, Member], *, whole: Sequence[str] = ()) -> Schema:
    """The JSON Schema of a table of members."""
    properties = {name: {"description": member.about, **member.schema} for name, member in members.items()}
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | ({"required": list(whole)} if whole else {})


# --- the tables ---


def _member(kind: Kind, about: str, *, by_default: bool = True) -> Member:
    return Member(*kind, about, by_default)


_WORDS: Final = _names(_TEXT, '["mfa"]', least=1)

REQUIRE: Final[Mapping[str, Member]] = {
    "acr": _member(_WORDS, "The sign-in's acr is one of these."),
    "amr": _member(_WORDS, "The sign-in used all of these methods."),
    "max_session_age_s": _member(
        _whole(1, 7_776_000, "seconds"), "The user signed in (auth_time) at most this many seconds ago."
    ),
    "roles": _member(_WORDS, "The user has one of these roles."),
    "tenant_id": _member(_WORDS, "The user belongs to one of these tenants."),
    "email_verified": _member(_always_true(), "The user's email address is verified."),
}

MIGRATE: Final[Mapping[str, Member]] = {
    "to": _member(_one_of(*MINT_ALGS), "The new algorithm."),
    "percent": _member(_whole(0, 100, "percent"), "The percentage of new tokens that are signed with it."),
}

#: The members of `[audience."…"]`, and of `[default]` except those that only a single audience may have.
AUDIENCE: Final[Mapping[str, Member]] = {
    "alg": _member(_one_of(*MINT_ALGS), "The signature algorithm of its tokens. Default: PYLON_JWT_ALG."),
    "secret_file": _member(
        _text(r"^[^\u0000-\u001f\u007f]{1,4096}$", "the path of a file with the secret"),
        "The file of this audience's own HS256 secret. Default: PYLON_JWT_SECRET.",
        by_default=False,
    ),
    "secret_env": _member(
        _text(_ENV_NAME, "the name of the environment variable with the secret, such as API_SECRET"),
        "The environment variable of this audience's own HS256 secret. Default: PYLON_JWT_SECRET.",
        by_default=False,
    ),
    "lifetime_s": _member(
        _whole(1, 86_400, "seconds"),
        "The longest lifetime of a token, in seconds. Default: PYLON_JWT_LIFETIME_SECS.",
    ),
    "grants": _member(_ways(), 'The grants that issue its tokens. Default: ["mint"].'),
    "clients": _member(
        _names(_CLIENT_ID, '["nightly"], ids of clients', most=_MOST_CLIENTS),
        "The clients that may request tokens. Default: all that the operator registered.",
    ),
    "strangers": _member(
        _flag(), "Whether clients that the operator did not register may request tokens. Default: false."
    ),
    "scopes": _member(_scopes(), "The scopes of this API. Default: none."),
    "scope_descriptions": _member(
        _descriptions(),
        "The description of each scope on the consent page: what the user lets the service do.",
    ),
    "exchange_scopes": _member(
        _names(_NAME, '["reports:read"], some of scopes'),
        "The scopes that a minted token or an ID token has when it is exchanged. Default: none.",
    ),
    "claims": _member(
        _claims(),
        'The claims of the user in the token. Default: ["roles", "tenant_id"]; with strangers none.',
    ),
    "rename": _member(_rename(), 'Claims under other names: {roles = "groups"}.'),
    "static": _member(_static(), "Claims that every token has, with fixed values."),
    "require": _member(_table(REQUIRE, Require), "The conditions for a token."),
    "typ": _member(_typ(), "The typ of the header. Default: JWT for mint, at+jwt for tokens of clients."),
    "migrate": _member(
        _table(MIGRATE, Migration, whole=tuple(MIGRATE)),
        "The move to another algorithm, and its progress.",
    ),
}
DEFAULT: Final[Mapping[str, Member]] = {
    name: member for name, member in AUDIENCE.items() if member.by_default
}
