"""Clients by document on real servers: openid-client completes the code flow, and slow hosts stop nobody else.

Set `PYLON_TESTS_ATTEMPTS=10000` for a long attack (docs/client-documents.md).
"""

from __future__ import annotations

import os
import socket
import sqlite3
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import pytest
import requests
from joserfc.jwk import ECKey

from tests.flows.provider_setup import OWN, Provider, Visitor, fresh_database
from tests.flows.test_provider_clients import run_flow
from tests.outbound.attacking import Answering, Attacker
from tests.support.app import direct, with_query
from tests.support.documents import Publisher
from tests.support.pace import in_time

ATTEMPTS: Final = int(os.environ.get("PYLON_TESTS_ATTEMPTS", "100"))
KEY: Final = ECKey.generate_key("P-256", private=True)
#: What an honest request takes at most on a busy machine, in s; a fetch takes 5.
AT_ONCE_S: Final = 3.0


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Publisher]:
    """A host of documents."""
    with Publisher(tmp_path) as publisher:
        yield publisher


def _authorize(
    provider: Provider, client_id: str, redirect_uri: str = "https://rp.example.org/"
) -> requests.Response:
    asked = {
        "response_type": "code", "client_id": client_id, "redirect_uri": redirect_uri, "scope": "openid",
        "code_challenge": "x" * 43, "code_challenge_method": "S256",
    }  # fmt: skip
    url = with_query(f"{provider.issuer}/oidc/authorize", asked)
    return direct().get(url, allow_redirects=False, timeout=30)


@pytest.mark.parametrize("database", ["postgres"])
def test_openid_client_completes_the_code_flow(
    request: pytest.FixtureRequest, host: Publisher, database: str
) -> None:
    """Unmodified, with a document instead of a registration: public, and with a key; two workers fetch it once."""
    with (
        fresh_database(request, database) as url,
        Provider(url, clients=lambda _origin: [], **host.environ) as provider,
    ):
        origin, keyed = provider.party.origin, KEY.as_dict(private=False) | {"kid": "k", "alg": "ES256"}
        uris = {
            "redirect_uris": [provider.party.redirect_uri],
            "post_logout_redirect_uris": [f"{origin}/out"],
        }
        by_key = {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [keyed]}}
        for path, members in (("/public.json", {}), ("/keyed.json", by_key)):
            asked: dict[str, Any] = {
                "issuer": provider.issuer,
                "client_id": host.publish(path, **uris, **members),
                "method": members.get("token_endpoint_auth_method", "none"),
                "private_jwk": KEY.as_dict(private=True) | {"alg": "ES256", "kid": "k"} if members else None,
                "redirect_uri": provider.party.redirect_uri,
                "post_logout_redirect_uri": f"{origin}/out",
            }
            user_id = f"user-{path[1:-5]}"
            done = run_flow("code_flow.mjs", asked, provider, Visitor(provider), user_id, asks=True)
            assert done["claims"]["sub"] == done["userinfo"]["sub"] == user_id
            assert done["claims"]["aud"] == asked["client_id"] and done["rotated"] is True
            assert done["activeAfter"] is (False if members else None)
        assert host.asked == ["/public.json", "/keyed.json"]


def _slow(address: str, over: threading.Event) -> Attacker:
    """A host that accepts connections and says nothing."""
    return Attacker(lambda _wire: over.wait(20) and None, address=address)


def test_slow_hosts_stop_nobody_else(request: pytest.FixtureRequest, host: Publisher) -> None:
    """docs/client-documents.md: four hosts that hang, the only worker; further documents get 503, everybody else signs in."""
    over = threading.Event()
    with ExitStack() as stack:
        url = stack.enter_context(fresh_database(request, "sqlite"))
        settings: dict[str, Any] = {**host.environ, "WEB_CONCURRENCY": "1"}
        provider = stack.enter_context(Provider(url, **settings))
        slow = [stack.enter_context(_slow(f"127.0.0.{number}", over)) for number in range(2, 7)]
        stack.callback(over.set)
        known = host.publish()
        assert _authorize(provider, known, "https://rp.example.org/callback").status_code == 303
        threads = stack.enter_context(ThreadPoolExecutor(32))
        urls = [f"https://127.0.0.{number}:{each.port}/a" for number, each in enumerate(slow, 2)]
        first = [threads.submit(_authorize, provider, url) for url in urls[:4]]
        _wait_for(slow[:4])
        more = [threads.submit(_authorize, provider, url) for url in urls * 4]
        began = time.monotonic()
        for answer in [each.result() for each in more]:
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5"), answer.text
        assert _authorize(provider, known, "https://rp.example.org/callback").status_code == 303
        assert provider.tokens(OWN)["id_token"]
        assert in_time(time.monotonic() - began, AT_ONCE_S + 1)
        assert not any(each.done() for each in first)
        assert [each.result().status_code for each in first] == [400] * 4
        assert [each.met for each in slow] == [1, 1, 1, 1, 0]


def _wait_for(hosts: list[Attacker]) -> None:
    for _ in range(3000):
        if all(each.met for each in hosts):
            return
        time.sleep(0.01)
    raise AssertionError("not all hosts were asked")


def test_an_attack_leaves_nothing(request: pytest.FixtureRequest, host: Publisher) -> None:
    """docs/client-documents.md: made-up URLs at hosts that refuse, hang and never end: few requests at once, no rows."""
    over, guard = threading.Event(), threading.Lock()
    under_way, most = 0, 0
    endless = Answering(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", endless=b" " * 1024)

    def counted(wire: socket.socket) -> None:
        nonlocal under_way, most
        with guard:
            under_way, most = under_way + 1, max(most, under_way + 1)
        try:
            endless(wire) if isinstance(wire, ssl.SSLSocket) else over.wait(0.2)
        finally:
            with guard:
                under_way -= 1

    with ExitStack() as stack:
        url = stack.enter_context(fresh_database(request, "sqlite"))
        provider = stack.enter_context(Provider(url, **host.environ, WEB_CONCURRENCY="2"))
        stack.callback(over.set)
        tls = host.authority.server("127.0.0.2")
        hosts = [
            stack.enter_context(Attacker(counted, tls if number == 2 else None, address=f"127.0.0.{number}"))
            for number in range(2, 10)
        ]
        threads = stack.enter_context(ThreadPoolExecutor(24))

        def attempt(number: int) -> int:
            if number % 10 == 0:
                where = host.origin
            elif number % 10 == 1:
                where = f"https://127.0.0.77:{hosts[0].port}"
            else:
                where = f"https://127.0.0.{2 + number % 8}:{hosts[number % 8].port}"
            return _authorize(provider, f"{where}/{number}").status_code

        attacking = [threads.submit(attempt, number) for number in range(ATTEMPTS)]
        signed_in = 0
        while not all(each.done() for each in attacking):
            began = time.monotonic()
            assert provider.tokens(OWN)["id_token"]
            assert in_time(time.monotonic() - began, AT_ONCE_S)
            signed_in += 1
        assert {each.result() for each in attacking} <= {400, 503}
        assert signed_in > 0
        # Two processes with four each; a host notices a moment later that a request has ended.
        assert most <= 2 * 4 + 3
        assert _authorize(provider, f"https://127.0.0.2:{hosts[0].port}/alone").status_code == 400
        assert endless.seen
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
            assert database.execute("SELECT count(*) FROM client").fetchone() == (0,)
