"""The test cases in a policy file: `[[case]]`, for `pylon-oidc policy test`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from service.policies.members import Member, Wrong, is_json, table_schema
from service.policies.values import CLIENT_CREDENTIALS, MINT, WAYS

_EXAMPLE: Final = '{user_id = "ada", roles = ["admin"]}'


@dataclass(frozen=True, slots=True)
class Case:
    """One case.

    Attributes:
        audience: the audience of the token.
        grant: the grant.
        user: the body of a session request; None for a client's own token.
        client: the id of the client; None if there is none.
        scope: the requested scope; None if there is none.
        expect: claims that the token must have with these values; None: it must be refused.
        refuse: the rule that must refuse it.
        line: its line in the file.
    """

    audience: str
    grant: str
    user: Mapping[str, Any] | None = None
    client: str | None = None
    scope: tuple[str, ...] | None = None
    expect: Mapping[str, Any] | None = None
    refuse: str | None = None
    line: int = 0


def _text(value: Any) -> str:
    if type(value) is not str or not value:
        raise Wrong(((), "is not text; write it in quotes"))
    return value


def _object(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise Wrong(((), f"is not a table; write {_EXAMPLE}"))
    return dict(value)


def _json_object(value: Any) -> dict[str, Any]:
    members = _object(value)
    if not all(map(is_json, members.values())):
        raise Wrong(
            (
                (),
                "contains a value that a claim cannot have; write strings, numbers, true, false, lists or tables of these",
            )
        )
    return members


def _way(value: Any) -> str:
    if value not in WAYS:
        raise Wrong(((), f"is not one of its values; write {' or '.join(WAYS)}"))
    return str(value)


def _words(value: Any) -> tuple[str, ...]:
    if type(value) is str:
        return tuple(filter(None, value.split(" ")))
    if type(value) is list and all(type(entry) is str for entry in value):
        return tuple(value)
    raise Wrong(((), 'is not a scope; write "reports:read reports:write"'))


_TEXT: Final = {"type": "string", "minLength": 1}
_STRINGS: Final = {"type": "array", "items": {"type": "string"}}

CASE: Final[Mapping[str, Member]] = {
    "audience": Member(_text, _TEXT, "The audience of the token: the name of a table of this file."),
    "grant": Member(
        _way,
        {"enum": list(WAYS)},
        "The grant. Default: mint with a user, client_credentials with only a client.",
    ),
    "user": Member(_object, {"type": "object"}, "The signed-in user: the body of a session request."),
    "client": Member(_text, _TEXT, "The id of the client."),
    "scope": Member(_words, {"anyOf": [{"type": "string"}, _STRINGS]}, "The requested scope."),
    "expect": Member(_json_object, {"type": "object"}, "Claims that the token must have, with these values."),
    "refuse": Member(_text, _TEXT, "The rule that must refuse it, such as require.acr."),
}
CASE_SCHEMA: Final = table_schema(CASE, whole=("audience",))


def make_case(values: Mapping[str, Any], line: int) -> Case:
    """Make a case from its members.

    Raises:
        Wrong: if they conflict.
    """
    if "audience" not in values:
        raise Wrong(((), "audience is missing; write the name of a table"))
    if ("expect" in values) == ("refuse" in values):
        raise Wrong(((), "does not have exactly one of expect and refuse; write one of them"))
    if "user" not in values and "client" not in values:
        raise Wrong(((), "has neither a user nor a client; write one of them"))
    given = {"grant": MINT if "user" in values else CLIENT_CREDENTIALS, "line": line}
    return Case(**{**given, **values})
