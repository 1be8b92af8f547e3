"""docs/security.md: a canary put in every secret, token and cookie appears in no log line, whatever fails."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from service.storage.interface import StoreUnavailable
from tests.http.broken_store import BrokenStore
from tests.http.conftest import Serve
from tests.http.driver import START, House
from tests.support.cases import each_of
from tests.support.gunicorn import rsa_pem

SECRET = "canary0secret-" + "x9K" * 12
ADMIN = "canary0admin-" + "q7P" * 12
TRUSTED = "canary0trusted-" + "w5L" * 12
GUESS = "canary0guess-" + "0a1b" * 10
BASIC = {"Authorization": "Basic " + base64.b64encode(f"x:{GUESS}".encode()).decode()}
FORM = {"method": "POST", "content_type": "application/x-www-form-urlencoded"}
UNKNOWN = "pylon_" + "c0ffee0" * 9 + "a"
QUERY = "code=canary0query-abcdefghijklmnop"
BODY = b'{"user_id": "user-1", "nonce": "canary0nonce"}'
MAC = hmac.new(TRUSTED.encode(), f"{START}.".encode() + BODY, hashlib.sha256).hexdigest()


@pytest.fixture
def libraries_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the libraries log, at every level."""
    with caplog.at_level(logging.DEBUG):
        yield caplog


def _requests(token: str) -> list[dict[str, Any]]:
    """Requests that carry a canary everywhere where a secret may stand, well and ill."""
    trusted = {"X-Pylon-Trusted-Timestamp": str(START), "X-Pylon-Trusted-Signature": MAC}
    admin = {"Authorization": f"Bearer {ADMIN}"}
    session, minted = {"path": "/api/auth/session"}, {"method": "POST", "path": "/api/auth/jwt"}
    return [
        {"method": "POST", **session, "headers": admin, "json": {"user_id": "user-1"}},
        {"method": "POST", **session, "headers": admin, "body": b'{"user_id": "canary0body", '},
        {"method": "POST", **session, "headers": admin, "json": {"user_id": "u", "other_field": GUESS}},
        {
            "method": "POST",
            **session,
            "headers": {"Authorization": f"Bearer {GUESS}"},
            "json": {"user_id": "u"},
        },
        {"method": "POST", "path": "/api/auth/sessions/trusted-mint", "headers": trusted, "body": BODY},
        {"method": "POST", "path": "/api/auth/sessions/trusted-mint", "headers": trusted, "body": BODY},
        {
            "method": "POST",
            "path": "/api/auth/sessions/trusted-mint",
            "headers": trusted,
            "body": BODY + b" ",
        },
        {"method": "GET", "path": "/api/auth/me", "token": token, "query": QUERY},
        {"method": "GET", "path": "/api/auth/me", "cookie": token},
        {"method": "GET", "path": "/api/auth/me", "cookie": f"pylon_session={token}; pylon_session={GUESS}"},
        {"method": "GET", "path": "/api/auth/me", "token": UNKNOWN},
        {"method": "GET", "path": "/api/auth/me", "headers": {"Authorization": f"Basic {GUESS}"}},
        {**minted, "token": token},
        {**minted, "cookie": token, "headers": {"Sec-Fetch-Site": "cross-site"}},
        {**minted, "token": token, "json": {"audience": GUESS}},
        {"method": "GET", "path": f"/{GUESS}", "query": QUERY},
        {"method": "GET", "path": f"/api/auth/users/{GUESS}/sessions", "headers": admin},
        {"method": "DELETE", "path": f"/api/auth/sessions/{GUESS}", "token": token},
        {"method": "GET", "path": "/oidc/authorize", "query": QUERY},
        {
            "method": "GET",
            "path": "/oidc/authorize",
            "query": f"client_id=x&state={GUESS}&id_token_hint={GUESS}",
        },
        {"method": "GET", "path": f"/oidc/interaction/{GUESS}", "query": f"verifier={GUESS}"},
        {"method": "GET", "path": "/oidc/logout", "query": f"id_token_hint={GUESS}", "cookie": token},
        {"method": "GET", "path": "/oidc/userinfo", "token": GUESS, "query": f"access_token={GUESS}"},
        {
            "method": "POST",
            "path": "/oidc/token",
            "body": f"client_secret={GUESS}".encode(),
            "content_type": "a/b",
        },
        {**FORM, "path": "/oidc/token", "body": f"client_id=x&client_secret={GUESS}&code={GUESS}".encode()},
        {**FORM, "path": "/oidc/revoke", "body": f"token={GUESS}&client_id=x".encode(), "headers": BASIC},
        {**FORM, "path": "/oidc/introspect", "body": f"token={token}".encode(), "headers": admin},
        {
            "method": "POST",
            "path": "/api/oidc/clients",
            "headers": admin,
            "json": {"redirect_uris": ["https://rp.example"], "client_secret": GUESS},
        },
        {"method": "POST", "path": f"/api/oidc/clients/{GUESS}/secret", "headers": admin},
        {
            "method": "PUT",
            "path": f"/api/auth/users/{GUESS}",
            "headers": admin,
            "json": {"claims": {"name": GUESS}},
        },
        {"method": "GET", "path": "/api/auth/sessions", "token": token, "host": GUESS + "_"},
        {"method": "POST", "path": "/api/auth/refresh", "cookie": token},
        {"method": "DELETE", "path": "/api/auth/session", "token": UNKNOWN},
    ]


def _serve(serve: Serve, **options: Any) -> House:
    return serve(
        PYLON_JWT_SECRET=SECRET,
        PYLON_ADMIN_TOKEN=ADMIN,
        PYLON_TRUSTED_SECRET=TRUSTED,
        PYLON_OIDC_PRIVATE_KEY=rsa_pem(),
        **options,
    )


def _secrets_of(value: Any) -> Iterator[str]:
    """Tokens that an answer gave out."""
    if isinstance(value, dict) and isinstance(value.get("token"), str):
        yield value["token"]


def _check(house: House, libraries_log: pytest.LogCaptureFixture, given_out: list[str]) -> None:
    logging.getLogger("authlib").info("a library speaks")
    assert "a library speaks" in libraries_log.text
    text = house.log.getvalue() + libraries_log.text + "".join(str(vars(r)) for r in libraries_log.records)
    pem_line = rsa_pem().splitlines()[2]
    known = [SECRET, ADMIN, TRUSTED, GUESS, UNKNOWN, MAC, pem_line, *given_out]
    for secret in [*known, *(base64.b64encode(each.encode()).decode() for each in known)]:
        assert secret not in text
        assert secret.removeprefix("pylon_")[:24] not in text
    assert "canary0" not in text
    assert len(house.lines) > 20


@each_of("alg", ["HS256", "RS256"])
def test_no_secret_is_logged_when_all_goes_its_way(
    serve: Serve, libraries_log: pytest.LogCaptureFixture, alg: str
) -> None:
    """docs/security.md: a canary in every secret, token and cookie appears in no log line, at debug level, of libraries
    either.
    """
    house = _serve(serve, PYLON_JWT_ALG=alg)
    begun = house.ask(
        "POST", "/api/auth/session", headers={"Authorization": f"Bearer {ADMIN}"}, json={"user_id": "user-1"}
    )
    given_out = [begun.json()["token"]]
    for request in _requests(given_out[0]):
        answer = house.ask(**request)
        if answer.body.startswith(b"{"):
            given_out += _secrets_of(answer.json())
    assert len(given_out) >= 5
    _check(house, libraries_log, given_out)


def _errors(token: str) -> list[Exception]:
    # Its reason is logged: who raises it leaves the secrets out. Its cause, the driver's own error, may hold them.
    chained = StoreUnavailable("the database does not answer")
    chained.__cause__ = OSError(f"cannot connect with {GUESS} {token}")
    return [
        chained,
        RuntimeError(f"token {token} secret {SECRET}"),
        ValueError({"Authorization": f"Bearer {token}", "key": SECRET}),
        OperationalError("SELECT ?", {"id": token, "admin": ADMIN}, Exception(f"param {token}")),
        KeyError(token),
        UnicodeDecodeError("utf-8", token.encode(), 0, 1, TRUSTED),
    ]


@each_of("number", range(6))
def test_no_secret_is_logged_when_the_handlers_raise(
    serve: Serve, libraries_log: pytest.LogCaptureFixture, number: int
) -> None:
    """docs/security.md: nor where a failure has the secret in its own words."""
    error = _errors(UNKNOWN)[number]
    house = _serve(serve, store_of=lambda _: BrokenStore(error))
    answers = [house.ask(**request) for request in _requests(UNKNOWN)]
    assert {500, 503} & {answer.status for answer in answers}
    _check(house, libraries_log, [])
    for answer in answers:
        assert b"canary0" not in answer.body
        assert UNKNOWN.encode() not in answer.body


def test_no_secret_stands_in_a_repr() -> None:
    """docs/settings.md: what holds a secret does not show it, so that no traceback or debug line does."""
    from service.settings import read_settings

    reading = read_settings(
        {
            "PYLON_JWT_SECRET": SECRET,
            "PYLON_ADMIN_TOKEN": ADMIN,
            "PYLON_TRUSTED_SECRET": TRUSTED,
            "PYLON_OIDC_PRIVATE_KEY": rsa_pem(),
            "DATABASE_URL": f"postgresql://user:{GUESS}@db/pylon",
        }
    )
    assert not reading.faults
    text = repr(reading) + str(reading.settings) + json.dumps(str(reading.settings.database))
    assert "canary0" not in text
    assert rsa_pem().splitlines()[2] not in text
