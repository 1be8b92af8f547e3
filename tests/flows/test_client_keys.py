"""Clients with keys of their own, on real servers: nobody waits for the URL of another.

Spec: RFC 7523 §3; docs/security.md
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any, Final
from urllib.parse import urlencode

import pytest

from tests.flows.polling import wait_until
from tests.flows.provider_setup import fresh_database
from tests.outbound.attacking import Attacker
from tests.provider.test_private_key_jwt import TYPE, assertion, public
from tests.support.gunicorn import Answer, Gunicorn, Headers, on, rsa_pem
from tests.support.pace import in_time

ISSUER: Final = "https://id.example.com"
HOST: Final = "id.example.com"
FORM: Final = "application/x-www-form-urlencoded"
CASES: Final = ("sqlite on gunicorn", "postgres on granian")
#: Clients whose URLs do not answer, one for each form of the request.
HANGING: Final = ("plain", "encoded", "chunked", "token")
#: More than a worker has threads.
MANY: Final = 12
#: A request that waits for nobody is answered in that time, in s; one that waits for the URL takes 5 s.
AT_ONCE_S: Final = 2.5


@pytest.fixture
def hanging() -> Iterator[Attacker]:
    """The host of the URLs that never answer."""
    over = threading.Event()
    with Attacker(lambda _wire: over.wait(20) and None) as host:
        yield host
        over.set()


@pytest.fixture(params=CASES)
def server(request: pytest.FixtureRequest, hanging: Attacker) -> Iterator[Gunicorn]:
    """One worker, and clients whose URLs never answer."""
    with ExitStack() as stack:
        usual = {"token_endpoint_auth_method": "private_key_jwt", "grant_types": ["client_credentials"]}
        clients: list[dict[str, Any]] = [usual | {"client_id": "c-keys", "jwks": public("ec")}]
        for name in HANGING:
            clients.append(usual | {"client_id": name, "jwks_uri": f"http://127.0.0.1:{hanging.port}/{name}"})
        settings: dict[str, Any] = on(request.param) | {
            "PYLON_OIDC_ISSUER": ISSUER,
            "PYLON_LOGIN_URL": "https://app.example.com/sign-in",
            "PYLON_OIDC_PRIVATE_KEY": rsa_pem(),
            "PYLON_OIDC_CLIENTS": json.dumps(clients),
            "PYLON_OUTBOUND_ALLOW": "127.0.0.1",
            "DATABASE_URL": stack.enter_context(fresh_database(request, request.param)),
        }
        yield stack.enter_context(Gunicorn(WEB_CONCURRENCY="1", **settings))


def _ask(server: Gunicorn, path: str, body: bytes) -> Answer:
    return server.call("POST", path, host=HOST, headers={"Content-Type": FORM}, body=body)


def _form(text: str) -> bytes:
    return urlencode({"client_assertion": text, "client_assertion_type": TYPE, "token": "x"}).encode()


def _waits(server: Gunicorn, name: str) -> Answer:
    """One request that waits for a client's keys, in a form of its own."""
    body = _form(assertion(time.time(), client_id=name))
    match name:
        case "encoded":
            body = body.replace(b"client_a", b"client%5F%61")
        case "chunked":
            return _in_chunks(server, (body[:11], body[11:]))
        case "token":
            return _ask(server, "/oidc/token", body + b"&grant_type=client_credentials")
    return _ask(server, "/oidc/introspect", body)


def _in_chunks(server: Gunicorn, chunks: tuple[bytes, ...]) -> Answer:
    with closing(server.connection()) as connection:
        headers = {"Content-Type": FORM, "Host": HOST}
        connection.request("POST", "/oidc/introspect", iter(chunks), headers, encode_chunked=True)
        got = connection.getresponse()
        return Answer(got.status, Headers(got.getheaders()), got.read())


def test_a_url_that_hangs_holds_up_nobody(server: Gunicorn, hanging: Attacker) -> None:
    """docs/security.md: while requests wait for a client's keys the only worker answers others, whatever their form."""
    with ThreadPoolExecutor(len(HANGING) + MANY) as threads:
        waiting = [threads.submit(_waits, server, name) for name in HANGING[:3]]
        wait_until(lambda: hanging.met == 3)
        waiting += [threads.submit(_waits, server, "token") for _ in range(MANY)]
        time.sleep(1.3)
        began = time.monotonic()
        assert server.call("GET", "/healthz").status == 200
        assert server.call("GET", "/oidc/jwks", host=HOST).status == 200
        free = _form(assertion(time.time()))
        assert _ask(server, "/oidc/revoke", free).status == 200
        assert in_time(time.monotonic() - began, AT_ONCE_S)
        answers = [each.result() for each in waiting]
    assert [each.status for each in answers[:3]] == [401] * 3
    busy = [each for each in answers if each.status == 503]
    assert busy
    assert all(each.json()["error"] == "temporarily_unavailable" for each in busy)
    assert all(each.headers["Retry-After"] == "2" for each in busy)
