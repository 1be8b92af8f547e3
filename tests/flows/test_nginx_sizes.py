"""One limit on the whole way: what the site lets in, the application keeps or refuses, and its answer comes through."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.flows.behind_nginx import OUT, Behind, Visitor, behind_nginx
from tests.support.app import query_of
from tests.support.cases import each_of

#: Each is refused nowhere, or at the first step; what comes back with the code is what was sent.
STATES = {
    "short": "s",
    "1,900 of four bytes": "𝒳" * 590,
    "7,500": "x" * 7500,
    "2,450 that an address escapes": '"' * 2450,
    "2,450 percent signs": "%" * 2450,
}


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Behind]:
    path = tmp_path_factory.mktemp("data") / "pylon.db"
    with behind_nginx(f"sqlite:///{path}") as running:
        yield running


@each_of("name", STATES)
@each_of("method", ["GET", "POST"])
def test_a_long_state_comes_back_with_the_code(behind: Behind, method: str, name: str) -> None:
    """What passes the first step passes the last one: a redirect with all of it comes through nginx."""
    state = STATES[name]
    if method == "GET" and len(quote(state)) > 7000:
        state = state[: len(state) * 9 // 10]  # the whole request line has 8 KiB
    answer = Visitor(behind).sign_in(method, state=state)
    assert answer.status == 303, (answer.status, answer.body)
    came = query_of(answer.headers["location"])
    assert came["state"] == state
    assert Visitor(behind).redeem(came["code"]).status == 200


@each_of("size", [8_500, 20_000, 60_000])
@each_of("character", ["x", '"'])
def test_a_state_that_is_too_long_is_refused_before_the_sign_in(
    behind: Behind, size: int, character: str
) -> None:
    """By the application, in the shape of the endpoint: by a redirect, or by a page if the form is not one that we accept."""
    answer = Visitor(behind).ask(
        "POST",
        "/oidc/authorize",
        f"response_type=code&client_id=wiki&redirect_uri={quote('https://wiki.example.com/callback')}"
        f"&scope=openid&nonce=n&state={character * size}",
    )
    assert answer.status in {303, 400, 413}, (answer.status, answer.body)
    if answer.status == 303:
        came = query_of(answer.headers["location"])
        assert (came["error"], "state" in came) == ("invalid_request", False)
    else:
        assert answer.headers["content-type"].startswith("text/html")


@each_of("size", [10, 7_500, 20_000, 60_000])
def test_a_long_state_at_logout_is_answered_by_the_application(behind: Behind, size: int) -> None:
    """Each is kept whole, dropped, or refused on a page; the way on leads through nginx."""
    visitor = Visitor(behind)
    form = {"client_id": "wiki", "post_logout_redirect_uri": OUT, "state": "x" * size}
    answer = visitor.ask("POST", "/oidc/logout", form)
    for _ in range(3):
        assert answer.status in {200, 303, 400, 413}, (answer.status, answer.body)
        if answer.status != 303 or not answer.headers["location"].startswith(behind.site.origin):
            break
        answer = visitor.ask("GET", answer.headers["location"])
    assert answer.status != 303 or answer.headers["location"].startswith(OUT)


def test_a_body_beyond_the_sites_own_limit_is_refused_by_it(behind: Behind) -> None:
    """64 KiB: at a page for browsers too it is nginx that says so, and no 502."""
    answer = Visitor(behind).ask("POST", "/oidc/authorize", {"state": "x" * 70_000})
    assert answer.status == 413
