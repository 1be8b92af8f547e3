"""How much one credential, and one address, may ask; the bursts are the shipped ones, the rates are slowed down."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed

import pytest

from tests.support.nginx import BACKEND, OUTSIDER, NginxSite, Reply, Seen, StubUpstream, assert_refused

#: So slow that a test gets nothing but the burst, however slow the machine.
SLOW = {"rate=100r/s": "rate=1r/m", "rate=1000r/s": "rate=1r/m"}
BURST = 200
ADDRESS_BURST = 2000


@pytest.fixture
def site(stub: StubUpstream) -> Iterator[NginxSite]:
    stub.forget()
    with NginxSite(stub.address, edits=SLOW) as running:
        yield running


def flood(
    site: NginxSite, count: int, *lines: str, target: str = "/x", source: str = BACKEND
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
                    f"GET {target} HTTP/1.1",
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
    """Requests without one count together for their address, and for that alone."""
    assert flood(site, BURST + 21) == {200: BURST + 1, 429: 20}
    assert flood(site, 5, source=OUTSIDER) == {200: 5}
    assert flood(site, 5, "Authorization: Bearer one") == {200: 5}


def test_a_cookie_does_not_refresh_an_authorization_header(site: NginxSite) -> None:
    """The header is what counts when there is one, as it is for the application."""
    line = "Authorization: Bearer one"
    assert flood(site, BURST + 1, line, "Cookie: pylon_session={n}") == {200: BURST + 1}
    assert flood(site, 5, line, "Cookie: pylon_session=new") == {429: 5}


def test_new_credentials_do_not_get_around_the_limit(site: NginxSite) -> None:
    """Whoever makes up a credential for every request meets the limit of the address."""
    statuses = flood(site, ADDRESS_BURST + 51, "Authorization: Bearer made-up-{n}")
    assert statuses == {200: ADDRESS_BURST + 1, 429: 50}


def test_the_refusal_says_when_to_come_back(site: NginxSite) -> None:
    """429 in the shape of our errors, with Retry-After."""
    flood(site, BURST + 5)
    answer = site.call("GET", "/x")
    assert_refused(answer, 429)
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
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
