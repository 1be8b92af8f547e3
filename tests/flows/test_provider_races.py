"""One code, one refresh token, and many hands that reach for it: 32 threads of 4 processes behind one port."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest

from tests.flows.polling import wait_until
from tests.flows.provider_setup import OTHER, OWN, PUBLIC, Provider, Visitor, fresh_database
from tests.support.app import query_of

PROCESSES, THREADS = 4, 8
RACERS = PROCESSES * THREADS
ROUNDS = 3
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def provider(request: pytest.FixtureRequest) -> Iterator[Provider]:
    """A provider of 4 workers with 8 threads each."""
    with (
        fresh_database(request, request.param) as url,
        Provider(url, argv=("--workers", str(PROCESSES), "--threads", str(THREADS))) as running,
    ):
        wait_until(lambda: len(running.server.worker_pids()) == PROCESSES)
        yield running


@dataclass(frozen=True)
class Told:
    """One racer's answer."""

    status: int
    body: dict[str, Any]


def race(provider: Provider, form: Mapping[str, str]) -> list[Told]:
    """Send one token request 32 times at once: all but the last byte first, then all last bytes."""
    body = urlencode({"client_id": PUBLIC, **form}).encode()
    head = (
        f"POST /oidc/token HTTP/1.1\r\nHost: localhost:{provider.port}\r\nConnection: close\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    with contextlib.ExitStack() as stack:
        wires = []
        for _ in range(RACERS):
            wire = stack.enter_context(socket.create_connection(("127.0.0.1", provider.port), 30))
            wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire.sendall(head + body[:-1])
            wires.append(wire)
        for wire in wires:
            wire.sendall(body[-1:])
        with ThreadPoolExecutor(RACERS) as readers:
            return list(readers.map(_read_answer, wires))


def _read_answer(wire: socket.socket) -> Told:
    """Not to the end of the connection: a gunicorn with threads closes it when it likes."""
    answer = http.client.HTTPResponse(wire)
    answer.begin()
    return Told(answer.status, json.loads(answer.read()))


def _code(provider: Provider, user_id: str) -> dict[str, str]:
    """The parameters that redeem a fresh code."""
    visitor = Visitor(provider)
    request, url = provider.party.begin(PUBLIC)
    answer = visitor.answer(provider.app.login(visitor.begin(url), user_id))
    return provider.party.code_grant(request, answer["code"])


def _refreshing(tokens: Mapping[str, str]) -> dict[str, str]:
    return {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}


@pytest.mark.parametrize("attempt", range(ROUNDS))
def test_one_of_32_redeems_a_code(provider: Provider, attempt: int) -> None:
    """Of 32 requests at once one gets tokens, every other one `invalid_grant` (RFC 6749 §4.1.2)."""
    told = race(provider, _code(provider, f"code-{attempt}"))
    assert sorted(each.status for each in told) == [200] + [400] * (RACERS - 1)
    assert {each.body["error"] for each in told if each.status == 400} == {"invalid_grant"}


@pytest.mark.parametrize("attempt", range(ROUNDS))
def test_a_code_that_many_redeemed_leaves_nothing_alive(provider: Provider, attempt: int) -> None:
    """The reuse ends what the winner got: access token, refresh token and grant (RFC 6749 §4.1.2)."""
    user_id = f"reuse-{attempt}"
    told = race(provider, _code(provider, user_id))
    won = next(each.body for each in told if each.status == 200)
    assert provider.party.userinfo(won["access_token"]).status_code == 401
    assert provider.party.refresh(PUBLIC, won["refresh_token"]).json()["error"] == "invalid_grant"
    assert provider.app.grants(user_id) == []


@pytest.mark.parametrize("attempt", range(ROUNDS))
def test_32_that_refresh_at_once_get_one_answer(provider: Provider, attempt: int) -> None:
    """Within the grace every request for the same token gets the same tokens, and they work (docs/security.md)."""
    user_id = f"refresh-{attempt}"
    tokens = provider.tokens(PUBLIC, user_id)
    told = race(provider, _refreshing(tokens))
    assert [each.status for each in told] == [200] * RACERS
    assert len({each.body["access_token"] for each in told}) == 1
    assert len({each.body["refresh_token"] for each in told}) == 1
    assert provider.party.userinfo(told[0].body["access_token"]).json()["sub"] == user_id
    assert len(provider.app.grants(user_id)) == 1


def test_reuse_after_the_successor_was_used_ends_the_grant(provider: Provider) -> None:
    """A token whose successor has been used ends all: 32 at once are refused, and the newest is dead (RFC 9700 §4.14.2)."""
    first = provider.tokens(PUBLIC, "reuse")
    second = race(provider, _refreshing(first))[0].body
    third = race(provider, _refreshing(second))[0].body
    assert {each.body["error"] for each in race(provider, _refreshing(first))} == {"invalid_grant"}
    assert provider.party.userinfo(third["access_token"]).status_code == 401
    assert provider.party.refresh(PUBLIC, third["refresh_token"]).json()["error"] == "invalid_grant"
    assert provider.app.grants("reuse") == []


def test_one_of_32_gets_the_tokens_of_a_device(provider: Provider) -> None:
    """RFC 8628 §3.5: of 32 requests at once one gets tokens, which stay good, every other one `invalid_grant`."""
    metadata = {"client_id": "screen", "grant_types": [DEVICE_GRANT], "token_endpoint_auth_method": "none"}
    provider.app.call("POST", "/api/oidc/clients", metadata)
    provider.party.clients["screen"] = None
    codes = provider.party.post("screen", "/oidc/device_authorization", scope="openid").json()
    form = {"client_id": "screen", "grant_type": DEVICE_GRANT, "device_code": codes["device_code"]}
    assert {each.body["error"] for each in race(provider, form)} == {"authorization_pending", "slow_down"}
    visitor = Visitor(provider)
    page = visitor.open(provider.app.login(visitor.begin(codes["verification_uri_complete"]), "viewer"))
    token = _between(page.text, 'name="form_token" value="', '"')
    done = visitor.http.post(page.url, data={"form_token": token, "decision": "allow"}, timeout=30)
    assert "Your device is connected" in done.text
    told = race(provider, form)
    assert sorted(each.status for each in told) == [200] + [400] * (RACERS - 1)
    assert {each.body["error"] for each in told if each.status == 400} == {"invalid_grant"}
    won = next(each.body for each in told if each.status == 200)
    assert provider.party.userinfo(won["access_token"]).json()["sub"] == "viewer"


def test_5_of_32_that_guess_at_once_may(provider: Provider) -> None:
    """RFC 8628 §5.1: wrong codes are counted before they are looked up, by all processes together."""
    visitor = Visitor(provider)
    visitor.http.cookies.set("pylon_session", provider.app.session("guessing"))

    def guess(_: int) -> int:
        url = f"{provider.issuer}/oidc/device?user_code=BBBB-BBBB"
        return visitor.http.get(url, allow_redirects=False, timeout=30).status_code

    with ThreadPoolExecutor(RACERS) as threads:
        assert sorted(threads.map(guess, range(RACERS))) == [400] * 5 + [429] * (RACERS - 5)


def test_32_that_press_allow_at_once_make_one_grant(provider: Provider) -> None:
    """A consent form that is sent 32 times gives one code, to each of them; no second grant comes of it."""
    visitor = Visitor(provider)
    _, url = provider.party.begin(OTHER)
    page = visitor.open(provider.app.login(visitor.begin(url), "eager"))
    form = {"form_token": _between(page.text, 'name="form_token" value="', '"'), "decision": "allow"}

    def press(_: int) -> str:
        answer = visitor.http.post(page.url, data=form, allow_redirects=False, timeout=30)
        return answer.headers.get("Location", "")

    with ThreadPoolExecutor(RACERS) as threads:
        told = [query_of(location) for location in threads.map(press, range(RACERS))]
    assert "code" in told[0] and told == told[:1] * RACERS
    assert len(provider.app.grants("eager")) == 1


def test_32_that_open_the_consent_page_at_once_see_it(provider: Provider) -> None:
    """Each is shown a form; the one that was shown last counts, and no other."""
    visitor = Visitor(provider)
    _, url = provider.party.begin(OTHER)
    page = visitor.open(provider.app.login(visitor.begin(url), "looking"))

    def look(_: int) -> str:
        answer = visitor.http.get(page.url, allow_redirects=False, timeout=30)
        assert answer.status_code == 200, answer.text
        return _between(answer.text, 'name="form_token" value="', '"')

    with ThreadPoolExecutor(RACERS) as threads:
        tokens = list(threads.map(look, range(RACERS)))
    told = [
        visitor.http.post(
            page.url, data={"form_token": token, "decision": "allow"}, allow_redirects=False, timeout=30
        ).status_code
        for token in tokens
    ]
    assert told.count(303) == 1 and set(told) <= {303, 400, 403}
    assert len(provider.app.grants("looking")) == 1


def _between(text: str, start: str, end: str) -> str:
    return text.partition(start)[2].partition(end)[0]


def test_32_that_come_back_at_once_make_one_grant(provider: Provider) -> None:
    """An address to continue at, opened 32 times in the browser that began, gives one code."""
    visitor = Visitor(provider)
    _, url = provider.party.begin(OWN)
    redirect_to = provider.app.login(visitor.begin(url), "twice")

    def go_on(_: int) -> str:
        return visitor.http.get(redirect_to, allow_redirects=False, timeout=30).headers.get("Location", "")

    with ThreadPoolExecutor(RACERS) as threads:
        told = [query_of(location) for location in threads.map(go_on, range(RACERS))]
    assert len({each["code"] for each in told if "code" in each}) == 1
    assert len(provider.app.grants("twice")) == 1


def test_the_racers_reach_every_process(provider: Provider) -> None:
    """All 4 processes take part: each has used the processor since it began."""
    before = {pid: sum(psutil.Process(pid).cpu_times()[:2]) for pid in provider.server.worker_pids()}
    wait_until(
        lambda: (
            race(provider, {"grant_type": "refresh_token", "refresh_token": "x"})
            and all(sum(psutil.Process(pid).cpu_times()[:2]) > spent for pid, spent in before.items())
        )
    )
