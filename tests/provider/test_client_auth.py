"""Client authentication: Basic, by the body, or only by name; one answer whatever is wrong."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.provider.browser import FORM
from tests.provider.conftest import CLIENTS, ServeProvider
from tests.provider.driver import SECRET, Provider
from tests.support.cases import each_of
from tests.support.gunicorn import Answer

ENDPOINTS = each_of("path", ["/oidc/token", "/oidc/introspect", "/oidc/revoke"])
GRANT = {"grant_type": "authorization_code", "code": "x", "token": "x"}


def basic(client_id: str, secret: str) -> str:
    """The header of client_secret_basic, nothing encoded."""
    return "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()


def _ask(op: Provider, path: str, form: dict[str, str], authorization: str | None = None) -> Answer:
    headers = {} if authorization is None else {"Authorization": authorization}
    return op.ask("POST", path, headers=headers, body=urlencode(GRANT | form).encode(), content_type=FORM)


def _is_invalid_client(answer: Answer) -> None:
    assert (answer.status, answer.headers["Content-Type"]) == (401, "application/json")
    assert answer.json()["error"] == "invalid_client"
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="pylon-oidc"'
    assert answer.headers["Cache-Control"] == "no-store"


@ENDPOINTS
@each_of(
    "authorization",
    [
        basic("c-basic", "wrong" * 10), basic("c-basic", ""), basic("nobody", SECRET), basic("", SECRET), basic("", ""),
        basic("c-public", ""), basic("c-public", SECRET), basic("c-post", SECRET),
        "Basic", "Basic ", "Basic !", "Basic " + "A" * 5, "Basic " + base64.b64encode(b"c-basic").decode(),
        basic("c-basic", SECRET) + "=", basic("c-basic", SECRET).replace("=", "") + "\u00e9", basic("c-basic", SECRET) + " x",
        "Basic " + base64.b64encode(b"c-basic:\xff\xfe").decode(), "Basic " + base64.b64encode(b"\xff:x").decode(),
        basic("c-basic", "%FF%FE"), basic("%C3%28", SECRET), "Digest x", "Negotiate", "basic\t" + basic("c-basic", SECRET)[6:],
        "Basic " + base64.urlsafe_b64encode(b"c-basic:\xc3\xbf\xc3\xbf\xc3\xbf>>>").decode(),
    ],
)  # fmt: skip
def test_wrong_basic_credentials_are_invalid_client(op: Provider, path: str, authorization: str) -> None:
    """Strict base64, each half form-urldecoded, UTF-8; a wrong one is 401 invalid_client with the scheme, never 500 (RFC 6749 §5.2)."""
    _is_invalid_client(_ask(op, path, {}, authorization))


@ENDPOINTS
@each_of(
    "form",
    [
        {}, {"client_id": "nobody"}, {"client_id": "c-basic"}, {"client_id": "c-basic", "client_secret": ""},
        {"client_id": "c-basic", "client_secret": "wrong" * 10}, {"client_id": "c-public", "client_secret": SECRET},
        {"client_id": "c-only-basic", "client_secret": SECRET}, {"client_secret": SECRET}, {"client_id": "c-basic\0"},
        {"client_id": "c-basic", "client_secret": SECRET + "\0"}, {"client_id": "c-basic", "client_secret": "\u00e9" * 40},
    ],
)  # fmt: skip
def test_wrong_posted_credentials_are_invalid_client(op: Provider, path: str, form: dict[str, str]) -> None:
    """A wrong or missing secret, or a method that the client is not registered for (RFC 6749 §2.3.1, RFC 7591 §2)."""
    _is_invalid_client(_ask(op, path, form))


@ENDPOINTS
def test_two_methods_at_once_are_invalid_request(op: Provider, path: str) -> None:
    """Basic together with client_secret in the body (RFC 6749 §2.3)."""
    answer = _ask(op, path, {"client_id": "c-basic", "client_secret": SECRET}, basic("c-basic", SECRET))
    assert (answer.status, answer.json()["error"]) == (400, "invalid_request")


@ENDPOINTS
def test_another_client_id_beside_basic_is_invalid_request(op: Provider, path: str) -> None:
    """client_id in the body must be the one that authenticates (RFC 6749 §3.2.1)."""
    answer = _ask(op, path, {"client_id": "c-post"}, basic("c-basic", SECRET))
    assert (answer.status, answer.json()["error"]) == (400, "invalid_request")


@ENDPOINTS
def test_the_same_client_id_beside_basic_is_no_second_method(op: Provider, path: str) -> None:
    """client_id by itself authenticates nobody, so it may be sent with Basic (RFC 6749 §3.2.1)."""
    answer = _ask(op, path, {"client_id": "c-basic"}, basic("c-basic", SECRET))
    assert answer.json().get("error") in {None, "invalid_grant"} and answer.status in {200, 400}


@each_of("scheme", ["basic", "BASIC", "Basic"])
def test_the_scheme_has_no_case(op: Provider, scheme: str) -> None:
    """`basic` is the scheme too (RFC 9110 §11.1)."""
    answer = _ask(op, "/oidc/token", {}, scheme + basic("c-basic", SECRET)[5:])
    assert answer.json()["error"] == "invalid_grant"


def test_secrets_are_compared_in_constant_time(op: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/security.md: every secret that a client has is compared by `hmac.compare_digest`, over hashes of one length."""
    compared: list[tuple[str, str]] = []

    def spy(one: str, two: str) -> bool:
        compared.append((one, two))
        return one == two

    monkeypatch.setattr("service.records.clients.hmac.compare_digest", spy)
    _is_invalid_client(_ask(op, "/oidc/token", {"client_id": "c-basic", "client_secret": "short"}))
    assert [(len(one), len(two)) for one, two in compared] == [(64, 64)]


def test_an_unsupported_grant_type_is_told(op: Provider) -> None:
    """RFC 6749 §5.2: unsupported_grant_type; client_credentials and password are none of ours here."""
    for grant_type in (
        "client_credentials",
        "password",
        "implicit",
    ):
        answer = op.rp().post("/oidc/token", {"grant_type": grant_type})
        assert (answer.status, answer.json()["error"]) == (400, "unsupported_grant_type")


def test_a_grant_type_that_the_client_lacks_is_unauthorized_client(op: Provider) -> None:
    """`grant_types` decides (RFC 6749 §5.2)."""
    answer = op.rp("c-no-refresh").refresh("x")
    assert (answer.status, answer.json()["error"]) == (400, "unauthorized_client")
    answer = op.rp("c-no-code").redeem(op.rp("c-no-code").request(), "x")
    assert (answer.status, answer.json()["error"]) == (400, "unauthorized_client")


def test_the_log_names_the_client_and_no_secret(op: Provider) -> None:
    """docs/security.md: the line of the request has `client_id`; secrets, codes and tokens stand nowhere."""
    signed = op.sign_in(scope="openid offline_access")
    op.rp().refresh(signed.tokens["refresh_token"])
    line = [line for line in op.house.requests_logged if line["route"] == "/oidc/token"][-1]
    assert line["client_id"] == "c-basic"
    text = op.house.log.getvalue()
    for secret in (
        SECRET,
        signed.code,
        *map(str, (signed.tokens[name] for name in ("access_token", "refresh_token", "id_token"))),
    ):
        assert secret not in text


@pytest.mark.parametrize("length", [31, 32])
def test_a_secret_has_32_characters_at_least(serve_provider: ServeProvider, length: int) -> None:
    """docs/settings.md: secrets have 32 characters at least."""
    client: dict[str, Any] = dict(CLIENTS[0]) | {
        "client_secret": "s3cret-"[:7] + "x1y2" * 6 + "z" * (length - 31)
    }
    assert len(client["client_secret"]) == length
    if length < 32:
        with pytest.raises(AssertionError, match="client_secret"):
            serve_provider([client])
    else:
        assert serve_provider([client]).sign_in().claims["sub"] == "ada"
