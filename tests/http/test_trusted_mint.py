"""docs/sessions.md: `POST /api/auth/sessions/trusted-mint`: a session begun by a signature."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from service.storage.interface import StoreUnavailable
from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase
from tests.http.broken_store import BrokenStore
from tests.http.conftest import Serve
from tests.http.driver import START, House, refused
from tests.support.cases import each_of
from tests.support.gunicorn import TRUSTED, Answer

PATH = "/api/auth/sessions/trusted-mint"
BODY = b'{"user_id": "user-1"}'


def mac(timestamp: str, body: bytes, *, key: str = TRUSTED) -> str:
    """Hex HMAC-SHA256 over `<timestamp>.<raw body>`."""
    return hmac.new(key.encode(), timestamp.encode("latin-1") + b"." + body, hashlib.sha256).hexdigest()


def post(
    house: House,
    body: bytes = BODY,
    *,
    timestamp: str | None = str(START),
    signature: str | None = "",
    **options: Any,
) -> Answer:
    """Send a body; the signature is the right one unless given, None leaves a header out."""
    headers = {}
    if timestamp is not None:
        headers["X-Pylon-Trusted-Timestamp"] = timestamp
    if signature is not None:
        headers["X-Pylon-Trusted-Signature"] = signature or mac(timestamp or "", body)
    return house.ask("POST", PATH, body=body, headers=headers, **options)


def test_a_signed_body_begins_a_session(house: House) -> None:
    """201 as `POST /api/auth/session`: `{token, sid, user_id, expires_at}`, and no cookie."""
    answer = post(house, b'{"user_id": "user-1", "tenant_id": "acme", "expires_in": 60}')
    assert answer.status == 201
    assert set(answer.json()) == {"token", "sid", "user_id", "expires_at"}
    assert answer.json()["expires_at"] == START + 60
    assert house.me(answer.json()["token"]).json()["tenant_id"] == "acme"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers


def test_no_admin_token_is_needed_and_none_helps(house: House) -> None:
    """Its auth is the signature."""
    assert post(house).status == 201
    refused(post(house, signature=None, admin=True), 401, "MISSING_SIGNATURE")


@each_of("body", [BODY, b"{", b"x" * 70_000])
def test_it_is_404_while_the_secret_is_unset(serve: Serve, body: bytes) -> None:
    """404 while the secret is unset."""
    house = serve(PYLON_TRUSTED_SECRET=None)
    refused(post(house, body), 404, "NOT_FOUND")
    refused(post(house, body, signature=mac(str(START), body, key="")), 404, "NOT_FOUND")


GOOD, STALE = str(START), str(START - 301)
ORDER: list[tuple[str | None, str | None, str]] = [
    (None, None, "MISSING_TIMESTAMP"),
    (None, "00" * 32, "MISSING_TIMESTAMP"),
    (STALE, None, "MISSING_SIGNATURE"),
    (GOOD, None, "MISSING_SIGNATURE"),
    (STALE, "00" * 32, "STALE_TIMESTAMP"),
    (STALE, "", "STALE_TIMESTAMP"),
    (GOOD, "00" * 32, "BAD_SIGNATURE"),
]


@each_of(("timestamp", "signature", "code"), ORDER)
def test_the_401s_come_in_their_order(
    house: House, timestamp: str | None, signature: str | None, code: str
) -> None:
    """`MISSING_TIMESTAMP`, `MISSING_SIGNATURE`, `STALE_TIMESTAMP`, `BAD_SIGNATURE`, `REPLAYED`."""
    refused(post(house, timestamp=timestamp, signature=signature), 401, code)


@each_of(("off_s", "status"), [(-300, 201), (300, 201), (-301, 401), (301, 401), (0, 201)])
def test_a_timestamp_may_be_300_seconds_off(house: House, off_s: int, status: int) -> None:
    """`STALE_TIMESTAMP` (more than 300 s off), both ways."""
    answer = post(house, timestamp=str(START + off_s))
    assert answer.status == status
    if status == 401:
        refused(answer, 401, "STALE_TIMESTAMP")


@each_of(
    "timestamp",
    [
        f"{START}.0",
        f"+{START}",
        f"-{START}",
        f" {START}",
        f"{START} ",
        "0x6b49d200",
        "now",
        "1" * 13,
        "\xb2" * 10,
        "1e9",
        "1_800_000_000",
        "NaN",
    ],
)
def test_a_timestamp_of_another_form_is_stale(house: House, timestamp: str) -> None:
    """A timestamp that is not 1–12 ASCII digits is stale."""
    refused(post(house, timestamp=timestamp), 401, "STALE_TIMESTAMP")


def test_twelve_digits_are_a_timestamp(house: House) -> None:
    """1–12 ASCII digits; the signature is over the very text."""
    assert post(house, timestamp=f"00{START}").status == 201
    refused(post(house, timestamp=f"00{START}", signature=mac(str(START), BODY)), 401, "BAD_SIGNATURE")


WRONG_SIGNATURES: dict[str, str] = {
    "another key": mac(GOOD, BODY, key="x" * 32),
    "another body": mac(GOOD, BODY + b" "),
    "another time": mac(str(START - 1), BODY),
    "no dot": hmac.new(TRUSTED.encode(), GOOD.encode() + BODY, hashlib.sha256).hexdigest(),
    "sha1": hmac.new(TRUSTED.encode(), GOOD.encode() + b"." + BODY, hashlib.sha1).hexdigest(),
    "truncated": mac(GOOD, BODY)[:-2],
    "longer": mac(GOOD, BODY) + "00",
    "prefixed": "sha256=" + mac(GOOD, BODY),
    "spaces": " " + mac(GOOD, BODY),
    "inner spaces": " ".join(mac(GOOD, BODY)),
    "no hex": "zz" * 32,
    "odd": "0" * 63,
    "non-ASCII": "\xe9" * 64,
}


@each_of("signature", WRONG_SIGNATURES.values(), ids=WRONG_SIGNATURES.keys())
def test_any_other_signature_is_bad(house: House, signature: str) -> None:
    """Hex HMAC-SHA256 over `<timestamp>.<raw body>`, and nothing else."""
    refused(post(house, signature=signature), 401, "BAD_SIGNATURE")


def test_a_signature_is_good_once(house: House) -> None:
    """`REPLAYED`: a MAC is good once."""
    assert post(house).status == 201
    refused(post(house), 401, "REPLAYED")
    assert len(house.ask("GET", "/api/auth/users/user-1/sessions", admin=True).json()["sessions"]) == 1


@each_of("spelling", [str.upper, str.title])
def test_upper_case_hex_is_the_same_mac(serve: Serve, spelling: Callable[[str], str]) -> None:
    """A MAC, by its bytes, is good once."""
    house = serve()
    assert post(house).status == 201
    refused(post(house, signature=spelling(mac(GOOD, BODY))), 401, "REPLAYED")


def test_upper_case_hex_is_a_signature(house: House) -> None:
    """Hex, in either case."""
    assert post(house, signature=mac(GOOD, BODY).upper()).status == 201


def test_a_nonce_lets_the_same_user_in_twice_in_a_second(house: House) -> None:
    """The same body, and optionally `nonce`."""
    for nonce in ("1", "2"):
        assert post(house, json.dumps({"user_id": "user-1", "nonce": nonce}).encode()).status == 201
    wrong = post(house, b'{"user_id": "user-1", "nonce": 1}')
    assert "nonce" in refused(wrong, 400, "INVALID_BODY")["message"]


def test_the_session_request_takes_no_nonce(house: House) -> None:
    """An unknown field is 400: only trusted-mint has `nonce`."""
    answer = house.ask("POST", "/api/auth/session", admin=True, json={"user_id": "u", "nonce": "1"})
    assert "nonce" in refused(answer, 400, "INVALID_BODY")["message"]


@each_of("at_s", [0, 1, 300, 599, 600])
@each_of("ahead_s", [0, 300])
def test_a_replay_is_refused_for_as_long_as_its_timestamp_is_fresh(
    serve: Serve, at_s: int, ahead_s: int
) -> None:
    """Markers are kept 600 s: as long as a timestamp that was 300 s ahead stays fresh, sweeps between
    or not.
    """
    house = serve()
    timestamp = str(START + ahead_s)
    assert post(house, timestamp=timestamp).status == 201
    house.clock.advance(at_s)
    store = SqlStore(SqliteDatabase(house.settings.database.path))
    store.delete_expired(now=int(house.clock.now), limit=100)
    store.close()
    assert post(house, timestamp=timestamp).json()["error"]["code"] in {"REPLAYED", "STALE_TIMESTAMP"}
    if START + at_s <= START + ahead_s + 300:
        refused(post(house, timestamp=timestamp), 401, "REPLAYED")


def test_of_many_replays_at_once_one_succeeds(house: House) -> None:
    """A MAC is good once, also in parallel."""
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(house), range(16)))
    assert sorted(answer.status for answer in answers) == [201] + [401] * 15
    assert {a.json()["error"]["code"] for a in answers if a.status == 401} == {"REPLAYED"}


@each_of(
    ("first", "field"),
    [
        (b'{"user_id": 1}', "user_id"),
        (b'{"user_id": "u", "auth_time": 1800000061}', "auth_time"),
        (b"{", ""),
        (b"", ""),
    ],
)
def test_an_invalid_body_does_not_spend_the_signature(house: House, first: bytes, field: str) -> None:
    """`INVALID_BODY` after the signature and without spending it: it is never `REPLAYED`."""
    for _ in range(2):
        assert field in refused(post(house, first), 400, "INVALID_BODY")["message"]


def test_a_body_that_has_become_valid_is_taken(house: House) -> None:
    """Without spending it: the very same request is good once its `auth_time` is."""
    body = json.dumps({"user_id": "u", "auth_time": START + 61}).encode()
    refused(post(house, body), 400, "INVALID_BODY")
    house.clock.advance(1)
    assert post(house, body).status == 201


def test_an_invalid_body_with_a_bad_signature_is_401(house: House) -> None:
    """`INVALID_BODY` after the signature."""
    refused(post(house, b"{", signature="00" * 32), 401, "BAD_SIGNATURE")


@each_of("signed", [True, False])
def test_413_and_415_come_before_the_signature(house: House, signed: bool) -> None:
    """413 and 415 come before."""
    options: dict[str, Any] = {} if signed else {"timestamp": None, "signature": None}
    refused(post(house, b" " * 65_537, **options), 413, "BODY_TOO_LARGE")
    refused(post(house, b" " * 65_537, content_type="text/plain", **options), 413, "BODY_TOO_LARGE")
    refused(post(house, content_type="text/plain", **options), 415, "UNSUPPORTED_MEDIA_TYPE")
    refused(post(house, content_type=None, **options), 415, "UNSUPPORTED_MEDIA_TYPE")


def test_a_store_that_cannot_be_reached_is_503(serve: Serve) -> None:
    """docs/errors.md: a store that cannot be reached is 503 `STORE_UNAVAILABLE`; what was refused before needs none."""
    house = serve(store_of=lambda _: BrokenStore(StoreUnavailable()))
    refused(post(house), 503, "STORE_UNAVAILABLE")
    refused(post(house, signature="00" * 32), 401, "BAD_SIGNATURE")


def test_an_invalid_host_comes_first(house: House) -> None:
    """Checked in this order: `INVALID_HOST` first."""
    refused(post(house, b" " * 65_537, host="a b"), 400, "INVALID_HOST")


def test_the_signature_is_over_the_raw_bytes(house: House) -> None:
    """Over the raw body: another spelling of the same JSON is another body."""
    refused(post(house, b'{"user_id":"user-1"}', signature=mac(GOOD, BODY)), 401, "BAD_SIGNATURE")
    assert post(house, b' {"user_id":\n"user-1"}').status == 201
