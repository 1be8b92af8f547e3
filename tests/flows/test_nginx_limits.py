"""How much one credential, and one address, may ask; the bursts are the shipped ones, the rates are slowed down."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

import pytest

from tests.support.cases import each_of
from tests.support.nginx import (
    BACKEND,
    OUTSIDER,
    NginxSite,
    Reply,
    Seen,
    StubUpstream,
    assert_refused,
    assert_refused_by_oauth,
)

#: So slow that a test gets nothing but the burst, however slow the machine.
SLOW = {f"rate={rate}r/s": "rate=1r/m" for rate in (100, 1000, 20, 1)}
BURST = 200
ADDRESS_BURST = 2000


@pytest.fixture
def site(stub: StubUpstream) -> Iterator[NginxSite]:
    stub.forget()
    with NginxSite(stub.address, edits=SLOW) as running:
        yield running


def flood(
    site: NginxSite,
    count: int,
    *lines: str,
    method: str = "GET",
    target: str = "/x",
    source: str = BACKEND,
) -> Counter[int]:
    """Send the same request many times; `{n}` in a line is its number.

    Returns:
        How often each status came.
    """
    statuses: Counter[int] = Counter()
    for start in range(0, count, 500):
        numbers = range(start, min(start + 500, count))
        payload = "".join(
            "\r\n".join(
                [
                    f"{method} {target} HTTP/1.1",
                    f"Host: {site.authority}",
                    *(line.format(n=n) for line in lines),
                    "Connection: close" if n == numbers[-1] else "Connection: keep-alive",
                    "",
                    "",
                ]
            )
            for n in numbers
        )
        answers = site.exchange(payload.encode(), source=source)
        assert len(answers) == len(numbers)
        statuses.update(answer.status for answer in answers)
    return statuses


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("Authorization: Bearer one", "Authorization: Bearer two"),
        ("Cookie: a=b; pylon_session=one", "Cookie: a=b; pylon_session=two"),
        ("Authorization: Bearer " + "x" * 900 + "one", "Authorization: Bearer " + "x" * 900 + "two"),
        ("Authorization: Basic b25lOg==", "Cookie: pylon_session=one"),
    ],
    ids=["bearer", "cookie", "long token", "basic, and a cookie"],
)
def test_a_credential_is_limited_and_another_is_not(site: NginxSite, line: str, other: str) -> None:
    """Beyond its burst a credential gets 429; one of the same address that is different still passes."""
    assert flood(site, BURST + 21, line) == {200: BURST + 1, 429: 20}
    assert flood(site, 5, other) == {200: 5}


def test_without_a_credential_the_address_is_limited(site: NginxSite) -> None:
    """Requests without one count together for their address, and only for that."""
    assert flood(site, BURST + 21) == {200: BURST + 1, 429: 20}
    assert flood(site, 5, source=OUTSIDER) == {200: 5}
    assert flood(site, 5, "Authorization: Bearer one") == {200: 5}


def test_a_cookie_does_not_refresh_an_authorization_header(site: NginxSite) -> None:
    """The header is what counts when there is one, as it is for the application."""
    line = "Authorization: Bearer one"
    assert flood(site, BURST + 1, line, "Cookie: pylon_session={n}") == {200: BURST + 1}
    assert flood(site, 5, line, "Cookie: pylon_session=new") == {429: 5}


def test_new_credentials_do_not_get_around_the_limit(site: NginxSite) -> None:
    """A client that makes up a credential for every request meets the limit of its address."""
    statuses = flood(site, ADDRESS_BURST + 51, "Authorization: Bearer made-up-{n}")
    assert statuses == {200: ADDRESS_BURST + 1, 429: 50}


def test_the_refusal_says_when_to_come_back(site: NginxSite) -> None:
    """429 in the shape of our errors, with Retry-After."""
    flood(site, BURST + 5)
    answer = site.call("GET", "/x")
    assert_refused(answer, 429)
    assert answer.headers["retry-after"] == "1"


def test_registering_is_limited_by_address(site: NginxSite) -> None:
    """Whatever credential is made up, and however the path is spelled, an address gets a burst of 20."""
    statuses: Counter[int] = Counter()
    for target in ("/oidc/register", "/tenant/oidc/register", "/oidc/register/r_1", "/OIDC/Register"):
        line = "Authorization: Bearer made-up-{n}"
        statuses += flood(site, 7, line, method="POST", target=target, source=OUTSIDER)
    assert statuses == {200: 21, 429: 7}
    assert_refused_by_oauth(
        site.call("POST", "/oidc/register", source=OUTSIDER), 429, "temporarily_unavailable"
    )
    assert flood(site, 5, method="POST", target="/oidc/register") == {200: 5}


@each_of(
    "target",
    ["/oidc/jwks", "/.well-known/openid-configuration", "/tenant/oidc/jwks", "/readyz", "/api/oidc/clients"],
)
def test_public_documents_and_backends_are_not_limited_by_credential(site: NginxSite, target: str) -> None:
    """Documents are nginx's to answer, and the backends' paths are closed to everybody else."""
    assert flood(site, BURST + 50, target=target) == {200: BURST + 50}


def test_other_refusals_are_not_counted(site: NginxSite) -> None:
    """The error body is sent however often it is needed, and its shape is the same."""
    for _ in range(2):
        assert flood(site, BURST + 20, target="/dev/sign-in") == {404: BURST + 20}


def test_a_credential_may_not_hold_more_than_64_requests_at_once(site: NginxSite, stub: StubUpstream) -> None:
    """The 65th request under way is refused, and another credential's is not."""
    released = threading.Event()

    def reply_when_released(_seen: Seen) -> Reply:
        released.wait(20)
        return Reply()

    def ask(credential: str) -> tuple[str, int]:
        return credential, site.call("GET", "/x", headers={"Authorization": credential}).status

    stub.reply = reply_when_released
    with ThreadPoolExecutor(76) as pool:
        asked = as_completed([pool.submit(ask, name) for name in ["Bearer one"] * 72 + ["Bearer two"] * 4])
        refused = [next(asked).result() for _ in range(8)]
        released.set()
        answered = Counter(future.result() for future in asked)
    assert refused == [("Bearer one", 429)] * 8
    assert answered == {("Bearer one", 200): 64, ("Bearer two", 200): 4}


BROWSERS = [
    "/oidc/authorize?x=1", "/oidc/logout", "/oidc/interaction/abc", "/id/one/oidc/authorize",
    "/oidc/device?user_code=BBBB-BBBB", "/oidc/device_authorization",
]  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_browsers_pages_are_limited_by_address_alone(site: NginxSite, method: str) -> None:
    """Neither a made-up credential nor another page is a way around; another address is not concerned."""
    lines = "Authorization: Bearer made-up-{n}", "Cookie: pylon_session=made-up-{n}", "Content-Length: 0"
    passed = 0
    for target in BROWSERS:
        passed += flood(site, 50, *lines, method=method, target=target)[200]
    assert passed == BURST + 1
    answer = site.call("GET", BROWSERS[0], headers={"Authorization": "Bearer new"})
    assert_refused(answer, 429)
    assert answer.headers["retry-after"] == "1"
    assert_refused_by_oauth(site.call("POST", BROWSERS[-1]), 429, "temporarily_unavailable")
    assert flood(site, 5, method=method, target=BROWSERS[0], source=OUTSIDER) == {200: 5}
    assert flood(site, 5, target="/oidc/token") == {200: 5}


def test_an_ipv6_network_counts_as_one_address(stub: StubUpstream) -> None:
    """The last 64 bits are the client's own to choose; the first ones tell two apart, and so does all of IPv4."""
    stub.forget()
    told = "set_real_ip_from 127.0.0.0/8; real_ip_header X-Test-Address;"
    with NginxSite(stub.address, edits=SLOW, more=told) as site:

        def passed(*addresses: str) -> int:
            return sum(
                flood(site, 60, f"X-Test-Address: {address}", target="/oidc/authorize")[200]
                for address in addresses
            )

        assert (
            passed("2001:db8::1", "2001:db8:0:0:1:2:3:4", "2001:db8::a:0:0:1", "2001:db8::ffff:a0a:a0a")
            == BURST + 1
        )
        assert passed("2001:db8:0:1::1", "2001:db8:0:2::1", "2001:db8:0:a0a::a0a") == 180
        assert passed("192.0.2.1", "192.0.2.2", "::ffff:192.0.2.3", "::ffff:192.0.2.4", "10.10.10.10") == 300


PREFLIGHT = (
    "Origin: https://spa.example",
    "Access-Control-Request-Method: POST",
    "Access-Control-Request-Headers: authorization,content-type, dpop",
)


@each_of("path", ["/oidc/token", "/oidc/userinfo", "/oidc/revoke"])
def test_preflights_are_not_one_client(site: NginxSite, path: str) -> None:
    """They carry no credential: those of all pages behind one address do not count as one credential's."""
    assert flood(site, BURST + 50, *PREFLIGHT, method="OPTIONS", target=path) == {200: BURST + 50}


def test_a_preflight_beyond_the_limit_lets_the_page_see_it(site: NginxSite, stub: StubUpstream) -> None:
    """Beyond the limit of its address nginx answers it by itself: the request behind it is a 429 that the page can read."""
    assert flood(site, ADDRESS_BURST + 1, "Authorization: Bearer made-up-{n}") == {200: ADDRESS_BURST + 1}
    stub.seen.clear()
    asked = dict(line.split(": ", 1) for line in PREFLIGHT)
    answer = site.call("OPTIONS", "/oidc/token", headers=asked)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization,content-type, dpop"
    refused = site.call("POST", "/oidc/token", headers={"Origin": asked["Origin"]}, body=b"x=y")
    assert_refused_by_oauth(refused, 429, "temporarily_unavailable")
    assert refused.headers["retry-after"] == "1"
    assert refused.headers["access-control-allow-origin"] == "*"
    assert "Retry-After" in refused.headers["access-control-expose-headers"]
    odd = site.call("OPTIONS", "/oidc/token", headers=asked | {"Access-Control-Request-Headers": 'a"b, c'})
    assert "access-control-allow-headers" not in odd.headers
    # Where pages elsewhere may not ask at all, it is a refusal like any other; and so is one that is no preflight.
    assert_refused(site.call("OPTIONS", "/api/auth/jwt", headers=asked), 429)
    assert_refused_by_oauth(site.call("OPTIONS", "/oidc/token"), 429, "temporarily_unavailable")
    assert stub.seen == []
