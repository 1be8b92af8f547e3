"""docs/endpoints.md: bodies are JSON objects of at most 64 KiB, strictly."""

from __future__ import annotations

import io
import json
from typing import Any

from tests.http.driver import House, refused
from tests.support.cases import each_of
from tests.support.gunicorn import Answer

SESSION = "/api/auth/session"
JWT = "/api/auth/jwt"
MOST = 65_536


def _begin(house: House, body: bytes, **options: Any) -> Answer:
    return house.ask("POST", SESSION, admin=True, body=body, **options)


def _mint(house: House, body: bytes, **options: Any) -> Answer:
    return house.ask("POST", JWT, token=house.sign_in()["token"], body=body, **options)


NOT_AN_OBJECT: dict[str, bytes] = {
    "cut off": b'{"user_id": "u"',
    "an array": b'[{"user_id": "u"}]',
    "a string": b'"user_id"',
    "a number": b"1",
    "null": b"null",
    "NaN": b'{"user_id": "u", "auth_time": NaN}',
    "Infinity": b'{"user_id": "u", "auth_time": Infinity}',
    "-Infinity": b'{"user_id": "u", "auth_time": -Infinity}',
    "NaN as the whole": b"NaN",
    "two objects": b'{"user_id": "u"}{}',
    "a BOM": b'\xef\xbb\xbf{"user_id": "u"}',
    "UTF-16": '{"user_id": "u"}'.encode("utf-16"),
    "UTF-32": '{"user_id": "u"}'.encode("utf-32"),
    "not UTF-8": b'{"user_id": "u", "device": "\xff"}',
    "overlong UTF-8": b'{"user_id": "u", "device": "\xc0\x80"}',
    "a surrogate in UTF-8": b'{"user_id": "u", "device": "\xed\xa0\x80"}',
    "a lone surrogate": b'{"user_id": "u", "device": "\\ud800"}',
    "a lone surrogate in a claim": b'{"user_id": "u", "claims": {"name": "\\ud800"}}',
    "a lone surrogate in an address": b'{"user_id": "u", "claims": {"address": {"country": "\\udc00x"}}}',
    "a lone surrogate as a key": b'{"user_id": "u", "\\udfff": 1}',
    "a comment": b'{"user_id": "u"} // x',
    "a trailing comma": b'{"user_id": "u",}',
    "single quotes": b"{'user_id': 'u'}",
    "a raw control character": b'{"user_id": "u", "device": "\x01"}',
    "deep nesting": b'{"user_id": "u", "claims": {"address": ' + b"[" * 30_000 + b"]" * 30_000 + b"}}",
    "deep nesting, cut off": b"[" * MOST,
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "5,000 digits": b'{"user_id": "u", "auth_time": ' + b"9" * 5000 + b"}",
    "form fields": b"user_id=u",
    "NUL": b"\0",
    "only blanks": b"  \n",
}


@each_of("body", NOT_AN_OBJECT.values(), ids=NOT_AN_OBJECT.keys())
def test_what_is_no_strict_json_object_is_refused(house: House, body: bytes) -> None:
    """Bodies are JSON objects; `NaN` is 400 `INVALID_BODY` (RFC 8259 §2, §8.1)."""
    refused(_begin(house, body), 400, "INVALID_BODY")
    refused(_mint(house, body), 400, "INVALID_BODY")


@each_of("value", [b"NaN", b"-Infinity", b"[1, NaN]"])
def test_a_number_that_json_has_not_is_refused_by_its_fields_name(house: House, value: bytes) -> None:
    """`NaN` is 400 `INVALID_BODY`, naming the field where there is one."""
    answer = _begin(house, b'{"user_id": "u", "auth_time": %b, "acr": "1"}' % value)
    assert "auth_time" in refused(answer, 400, "INVALID_BODY")["message"]


def test_an_empty_body_is_no_object(house: House) -> None:
    """Bodies are JSON objects; an empty one signs nobody in."""
    refused(_begin(house, b""), 400, "INVALID_BODY")
    refused(house.ask("POST", SESSION, admin=True, content_type="application/json"), 400, "INVALID_BODY")


# Field, and JSON values that it does not take.
WRONG: dict[str, list[Any]] = {
    "user_id": [None, 1, True, [], {}, ["u"]],
    "tenant_id": [None, 1, False, [], {}, "", "a" * 256],
    "roles": [None, "admin", {}, [1], [None], [["a"]], [""], ["a" * 256]],
    "claims": [None, "x", [], 1, {"sub": "x"}, {"iss": "x"}],
    "device": [None, 1, [], {}, "", "a" * 513],
    "auth_time": [None, "1", 1.5, 1.0, True, [], -1, 10**30],
    "acr": [None, 2, [], {}, ""],
    "amr": [None, "pwd", [1], {}, [None]],
    "expires_in": [None, "60", 60.5, 60.0, True, 0, -1, 10**30, []],
}


@each_of(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_a_wrong_type_is_refused_by_its_name(house: House, field: str, value: Any) -> None:
    """A wrong type is 400 `INVALID_BODY`, naming the field."""
    answer = house.ask("POST", SESSION, admin=True, json={"user_id": "u", field: value})
    assert field in refused(answer, 400, "INVALID_BODY")["message"]


@each_of("field", ["user", "User_id", "user-id", "sid", "token", "nonce", "_", "exp"])
def test_an_unknown_field_is_refused_by_its_name(house: House, field: str) -> None:
    """An unknown field is 400 `INVALID_BODY`, naming the field."""
    answer = house.ask("POST", SESSION, admin=True, json={"user_id": "u", field: "x"})
    assert f" {field}." in refused(answer, 400, "INVALID_BODY")["message"]


def test_a_missing_user_id_is_refused_by_its_name(house: House) -> None:
    """`user_id` is the one field that must be there."""
    answer = house.ask("POST", SESSION, admin=True, json={})
    assert "user_id" in refused(answer, 400, "INVALID_BODY")["message"]


@each_of(
    ("body", "field"),
    [
        (b'{"user_id": "a", "user_id": "b"}', "user_id"),
        (b'{"user_id": "a", "user_id": "a"}', "user_id"),
        (b'{"user_id": "a", "\\u0075ser_id": "b"}', "user_id"),
        (b'{"user_id": "a", "claims": {"name": "a", "name": "b"}}', "name"),
    ],
)
def test_a_repeated_key_is_refused_by_its_name(house: House, body: bytes, field: str) -> None:
    """A repeated key is 400 `INVALID_BODY`, naming the field, however it is spelled and wherever it
    stands.
    """
    assert field in refused(_begin(house, body), 400, "INVALID_BODY")["message"]


@each_of("name", ["<script>alert(1)</script>", "a b", "\n", "é", "x" * 65, "a\0", '"', "%s", "\x1b[31m"])
def test_a_hostile_field_name_is_not_echoed(house: House, name: str) -> None:
    """docs/errors.md: no echo of hostile input."""
    for body in ({"user_id": "u", name: 1}, {"user_id": "u", "claims": {name: 1}}):
        answer = house.ask("POST", SESSION, admin=True, json=body)
        message = refused(answer, 400, "INVALID_BODY")["message"]
        assert name not in message.replace(" ", "") if name == " " else name not in message
        assert json.dumps(name)[1:-1].encode() not in answer.body


@each_of("name", ["user_id`", "user_id` - at `$.claims", "device`x", "`"])
def test_a_field_whose_name_looks_like_a_message_names_no_other_field(house: House, name: str) -> None:
    """docs/errors.md: the field that is said to be at fault is that one, or none."""
    answer = house.ask("POST", SESSION, admin=True, json={"user_id": "u", name: 1})
    assert "field" not in refused(answer, 400, "INVALID_BODY")["message"]


@each_of(
    ("claim", "value"),
    [("sub", "x"), ("aud", "x"), ("name", 1), ("email_verified", "true"), ("updated_at", True)],
)
def test_claims_outside_the_standard_are_refused_by_name(house: House, claim: str, value: Any) -> None:
    """A member of `claims` outside OpenID Connect Core §5.1 is refused; they are type-checked (docs/endpoints.md)."""
    answer = house.ask("POST", SESSION, admin=True, json={"user_id": "u", "claims": {claim: value}})
    assert f"claims.{claim}" in refused(answer, 400, "INVALID_BODY")["message"]


def _padded(size: int) -> bytes:
    return b'{"user_id": "u"}'.ljust(size)


@each_of("chunked", [False, True])
def test_64_kib_are_taken_and_one_byte_more_is_not(house: House, chunked: bool) -> None:
    """At most 64 KiB (413 `BODY_TOO_LARGE`), announced or chunked."""
    for size, status in [(MOST, 201), (MOST + 1, 413)]:
        environ = {"CONTENT_LENGTH": None, "HTTP_TRANSFER_ENCODING": "chunked"} if chunked else {}
        answer = _begin(house, _padded(size), environ=environ)
        assert answer.status == status
        if status == 413:
            refused(answer, 413, "BODY_TOO_LARGE")


def test_a_mint_takes_64_kib_and_not_one_byte_more(house: House) -> None:
    """Body: none, or an object; checked in this order: 401, 413."""
    assert _mint(house, b"{}".ljust(MOST)).status == 200
    refused(_mint(house, b"{}".ljust(MOST + 1)), 413, "BODY_TOO_LARGE")


def test_a_chunked_body_is_a_body(house: House) -> None:
    """RFC 9112 §7.1: a chunked body counts as one with a length."""
    environ = {"CONTENT_LENGTH": None, "HTTP_TRANSFER_ENCODING": "chunked"}
    assert _begin(house, b'{"user_id": "u"}', environ=environ).status == 201
    refused(_begin(house, b"{", environ=environ), 400, "INVALID_BODY")
    assert _mint(house, b"", environ=environ).status == 200
    refused(_mint(house, b'{"x": 1}', environ=environ), 400, "INVALID_BODY")


def test_a_body_shorter_than_announced_is_refused(house: House) -> None:
    """RFC 9112 §8: an incomplete message signs nobody in."""
    environ = {"CONTENT_LENGTH": "100", "wsgi.input": io.BytesIO(b'{"user_id": "u"}')}
    answer = house.ask("POST", SESSION, admin=True, content_type="application/json", environ=environ)
    refused(answer, 400, "INVALID_REQUEST")


GOOD_TYPES = [
    "application/json",
    "Application/JSON",
    "application/json; charset=utf-8",
    'application/json;charset="UTF-8"',
    "application/json;",
]
OTHER_TYPES = [
    None,
    "",
    "text/plain",
    "text/json",
    "application/jsonp",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/json-patch+json",
    "application/ld+json",
    "application/json; charset=latin-1",
    "application/json, text/plain",
    "application",
    "\xff",
]


@each_of("content_type", GOOD_TYPES)
def test_json_may_name_its_charset(house: House, content_type: str) -> None:
    """RFC 9110 §8.3.1: media types are case-insensitive; RFC 8259 §8.1: UTF-8."""
    assert _begin(house, b'{"user_id": "u"}', content_type=content_type).status == 201
    assert _mint(house, b"{}", content_type=content_type).status == 200


@each_of("content_type", OTHER_TYPES)
def test_another_content_type_is_415(house: House, content_type: str | None) -> None:
    """Another `Content-Type` 415."""
    refused(_begin(house, b'{"user_id": "u"}', content_type=content_type), 415, "UNSUPPORTED_MEDIA_TYPE")
    refused(_mint(house, b"{}", content_type=content_type), 415, "UNSUPPORTED_MEDIA_TYPE")


def test_413_comes_before_415_and_415_before_400(house: House) -> None:
    """Checked in this order: 413/415/400."""
    refused(_begin(house, b"x" * (MOST + 1), content_type="text/plain"), 413, "BODY_TOO_LARGE")
    refused(_begin(house, b"{", content_type="text/plain"), 415, "UNSUPPORTED_MEDIA_TYPE")


def test_text_of_every_script_is_kept(house: House) -> None:
    """What the sign-in said, `/me` says, to the character; NUL and unpaired escapes of pairs included."""
    said = {"device": "Привет 👋 \u0000 \u2028", "tenant_id": "テナント", "claims": {"name": "Zoë\u202e"}}
    token = house.sign_in(**said)["token"]
    me = house.me(token).json()
    assert {name: me[name] for name in said} == said


def test_a_huge_whole_number_in_a_claim_is_no_failure(house: House) -> None:
    """docs/errors.md: no input makes a 500: a number of 4,000 digits is kept or refused."""
    body = b'{"user_id": "u", "claims": {"updated_at": ' + b"9" * 4000 + b"}}"
    answer = _begin(house, body)
    assert answer.status in {201, 400}
    if answer.status == 201:
        assert house.me(answer.json()["token"]).status == 200
