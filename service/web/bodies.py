"""Request bodies: read once, at most 64 KiB, strict JSON, checked against a model."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from typing import Any, Final, TypeVar

import falcon
import msgspec

from service.web.errors import ApiError

MAX_BODY_BYTES: Final = 64 * 1024
_DRAIN_BYTES: Final = 1024 * 1024
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_PARAMETER: Final = re.compile(rf"[ \t]*;[ \t]*({_TOKEN})=({_TOKEN}|{_QUOTED})")
_MEDIA_TYPE: Final = re.compile(
    rf"({_TOKEN}/{_TOKEN})((?:[ \t]*;[ \t]*(?:{_TOKEN}=(?:{_TOKEN}|{_QUOTED}))?)*)", re.ASCII
)
#: How msgspec names a field that is missing or unknown, whatever its name is, and the place of a wrong value.
_NAMED_FIELD: Final = re.compile(r"Object (?:missing required|contains unknown) field `(.*)`", re.DOTALL)
_PLACE: Final = re.compile(r" - at `\$([^`]*)`\Z")
_QUOTED_PAIR: Final = re.compile(r"\\(.)")


class StrictModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A body without unknown fields, and with values of exactly the right JSON type. An omitted field is `UNSET`."""


_Model = TypeVar("_Model", bound=StrictModel)
#: The models whose parsers are built. msgspec builds one at its first use, and a thread that uses it meanwhile crashes the
#: process (msgspec 0.22: the type of a field is still null).
_built: Final[set[type[StrictModel]]] = set()
_building: Final = threading.Lock()


def read_body(req: falcon.Request) -> bytes:
    """Read the raw body.

    Raises:
        ApiError: `BODY_TOO_LARGE` above 64 KiB, `INVALID_REQUEST` if it is malformed or cut short.
    """
    announced = _announced(req)
    if announced == 0:
        return b""
    if announced is not None and announced > MAX_BODY_BYTES:
        raise ApiError("BODY_TOO_LARGE")
    body: bytes = _read(req, MAX_BODY_BYTES + 1)
    if len(body) > MAX_BODY_BYTES:
        raise ApiError("BODY_TOO_LARGE")
    req.context.body_read = True
    if len(body) < (announced or 0):  # RFC 9112 §6.3: a message that was cut short is incomplete
        raise ApiError("INVALID_REQUEST")
    return body


def drain_body(req: falcon.Request) -> None:
    """Read a body that was not used, so that the client can read the answer before the connection closes."""
    announced = _announced(req)
    # A body that is too large to drain is not waited for: a client that announces one is answered at once.
    if getattr(req.context, "body_read", False) or announced == 0 or (announced or 0) > _DRAIN_BYTES:
        return
    left = _DRAIN_BYTES
    # The answer is already decided, whatever is wrong with the rest of the request.
    with contextlib.suppress(ApiError):
        while left > 0 and (chunk := _read(req, min(left, 65536))):
            left -= len(chunk)


def _announced(req: falcon.Request) -> int | None:
    """Length of the body in bytes; None if it is chunked."""
    if "chunked" in req.env.get("HTTP_TRANSFER_ENCODING", "").lower():
        return None
    return req.content_length or 0


def _read(req: falcon.Request, most: int) -> bytes:
    stream = req.env["wsgi.input"] if _announced(req) is None else req.bounded_stream
    try:
        data: bytes = stream.read(most)
    except Exception:
        # Each server raises its own errors for a malformed chunk, which is the client's fault.
        raise ApiError("INVALID_REQUEST") from None
    return data


def media_type(req: falcon.Request) -> tuple[str, str]:
    """The type of the body and its `charset`, in lower case; empty if missing or malformed.

    Spec: RFC 9110 §8.3.1, §5.6.6
    """
    header = (req.content_type or "").strip(" \t")
    found = _MEDIA_TYPE.fullmatch(header)
    if found is None:
        return "", ""
    parameters = {name.lower(): value for name, value in _PARAMETER.findall(found[2])}
    charset = parameters.get("charset", "")
    if charset.startswith('"'):
        charset = _QUOTED_PAIR.sub(r"\1", charset[1:-1])
    return found[1].lower(), charset.lower()


def check_json_type(req: falcon.Request) -> None:
    """Refuse a request without `Content-Type: application/json`.

    Raises:
        ApiError: `UNSUPPORTED_MEDIA_TYPE` for another type, or none.
    """
    kind, charset = media_type(req)
    if kind != "application/json" or charset not in {"", "utf-8"}:
        raise ApiError("UNSUPPORTED_MEDIA_TYPE", hint="Send application/json in UTF-8.")


def parse_json_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object strictly: UTF-8, no repeated key, no `NaN`.

    Raises:
        ApiError: `INVALID_BODY`.

    Spec: RFC 8259 §4, §6, §8.1
    """
    try:
        value = _DECODER.decode(body.decode("utf-8"))
        if not isinstance(value, dict):
            raise ApiError("INVALID_BODY")
        if b"\\u" in body:  # a lone surrogate is not text: it could be neither stored nor sent back
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise ApiError("INVALID_BODY") from None
    return value


class _NotJson(float):
    """`NaN` or an infinity, until we know which field has it."""


def _strict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, member in pairs:
        if key in value or _holds_no_json(member):
            raise ApiError("INVALID_BODY", field=key)
        value[key] = member
    return value


def _holds_no_json(member: Any) -> bool:
    if isinstance(member, list):
        return any(map(_holds_no_json, member))
    return isinstance(member, _NotJson)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_strict, parse_constant=_NotJson)


def parse_model(model: type[_Model], body: bytes) -> _Model:
    """Parse a JSON body into a model.

    Raises:
        ApiError: `INVALID_BODY`, naming the first field that is unknown, missing or of the wrong type.
    """
    if model not in _built:
        with _building:
            msgspec.json.Decoder(model)
            _built.add(model)
    try:
        return msgspec.convert(parse_json_object(body), model)
    except msgspec.ValidationError as error:
        raise ApiError("INVALID_BODY", field=_field(str(error))) from None


def _field(fault: str) -> str | None:
    """The field that the library's message names, for example `claims.name` or `roles.0`."""
    if named := _NAMED_FIELD.fullmatch(fault):
        return named[1]
    placed = _PLACE.search(fault)
    return None if placed is None else placed[1].replace("[", ".").replace("]", "").strip(".") or None


def read_optional_json(req: falcon.Request, model: type[_Model]) -> _Model:
    """Like `read_json`, but no body means the same as `{}`."""
    body = read_body(req)
    if body:
        check_json_type(req)
    return parse_model(model, body or b"{}")


def read_json(req: falcon.Request, model: type[_Model]) -> _Model:
    """Read, check and parse a JSON body. The size is checked first (413), then the type (415), then the content (400)."""
    body = read_body(req)
    check_json_type(req)
    return parse_model(model, body)
