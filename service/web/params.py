"""Parses query and form parameters strictly: each has one value, or is reported as repeated.

Spec: RFC 6749 §3.1, §3.2 (a parameter without a value is omitted), Appendix B
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

import falcon

from service.web.bodies import media_type, read_body
from service.web.errors import ApiError

_MAX_PARAMETERS: Final = 200
#: Parameters that may be repeated (RFC 8707 §2). Their values are URIs, without spaces, so they are joined with a space.
LISTS: Final = ("resource",)


class MalformedParameters(ValueError):
    """The text is not `application/x-www-form-urlencoded` in UTF-8, is cut short, or is too large.

    Args:
        status: 400 or 413, for the answer.
    """

    def __init__(self, status: int = 400) -> None:
        super().__init__()
        self.status = status


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parsed parameters: all values that are not empty, and the names that are repeated: those that must not be, and others."""

    values: Mapping[str, str] = field(default_factory=dict)
    repeated: frozenset[str] = frozenset()
    several: frozenset[str] = frozenset()


def parse_parameters(text: str, lists: Collection[str] = LISTS) -> Parameters:
    """Parse a query string or a form. `lists` are the parameters that may be repeated.

    Raises:
        MalformedParameters: if it is not UTF-8, or has more than 200 parameters.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise MalformedParameters from None
    values = {name: value for name, value in pairs if value}
    for name in values.keys() & set(lists):
        values[name] = " ".join(value for other, value in pairs if other == name and value)
    names = [name for name, _ in pairs]
    if len(names) == len(set(names)):
        return Parameters(values)
    several = frozenset(name for name in names if names.count(name) > 1)
    return Parameters(values, several - set(lists), several & set(lists))


def read_query(req: falcon.Request) -> Parameters:
    """The parameters of the query. Unescaped bytes in it, which WSGI passes as latin-1 (PEP 3333), are UTF-8 too.

    Raises:
        MalformedParameters: see `parse_parameters`.
    """
    try:
        return parse_parameters(req.query_string.encode("latin-1").decode("utf-8"))
    except ValueError:
        raise MalformedParameters from None


def read_form(req: falcon.Request, lists: Collection[str] = LISTS) -> Parameters:
    """The parameters of the body; empty if there is neither a body nor a `Content-Type`.

    Raises:
        ApiError: `UNSUPPORTED_MEDIA_TYPE` for anything but a form.
        MalformedParameters: see `parse_parameters`; also if the body is too large or cut short.
    """
    body = _form_body(req)
    if not body and req.content_type is None:
        return Parameters()
    if not is_form(req):
        raise ApiError("UNSUPPORTED_MEDIA_TYPE", hint="Send application/x-www-form-urlencoded.")
    try:
        return parse_parameters(body.decode("utf-8"), lists)
    except UnicodeDecodeError:
        raise MalformedParameters from None


def is_form(req: falcon.Request) -> bool:
    """Whether the `Content-Type` is that of a form."""
    return media_type(req)[0] == "application/x-www-form-urlencoded"


def _form_body(req: falcon.Request) -> bytes:
    # Each endpoint that takes a form has its own shape for an error in it.
    try:
        return read_body(req)
    except ApiError as error:
        raise MalformedParameters(error.status) from None
