"""The confirm page of sign-out: a one-time token, this browser's, and a same-origin check."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from tests.provider.browser import FORM, Browser, Landing, query_of
from tests.provider.driver import Provider
from tests.support.cases import each_of

YES = {"decision": "allow"}


@pytest.fixture
def browser(op: Provider) -> Browser:
    """A browser with a user signed in."""
    browser = op.browser()
    op.sign_in(browser)
    return browser


def _page(op: Provider, browser: Browser) -> Landing:
    landing = browser.go(f"{op.issuer}/oidc/logout")
    assert landing.is_page() and landing.action == f"{op.issuer}/oidc/logout"
    return landing


def _is_signed_in(op: Provider, browser: Browser) -> bool:
    request = op.rp().request(prompt="none")
    return "code" in op.answered(request, browser.go(request.url))


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"},
     {"Sec-Fetch-Site": "cross-site", "Origin": "null"}, {"Origin": "https://id.example.com.evil.example"}],
)  # fmt: skip
def test_another_site_cannot_press_the_button(
    op: Provider, browser: Browser, headers: dict[str, str]
) -> None:
    """docs/security.md: the form passes a same-origin check, in addition to its one-time token."""
    page = _page(op, browser)
    assert browser.go(page.action, form=page.fields | YES, headers=headers).is_page(403)
    assert _is_signed_in(op, browser)


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "null"}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": "https://id.example.com"}],
)
def test_a_browser_that_says_little_may(op: Provider, browser: Browser, headers: dict[str, str]) -> None:
    """docs/security.md: the check does not break on `Origin: null`, nor without both headers."""
    page = _page(op, browser)
    assert browser.go(page.action, form=page.fields | YES, headers=headers).is_page(200)
    assert not _is_signed_in(op, browser)


@each_of("token", ["x", "\0", "é"])
def test_a_made_up_token_is_refused(op: Provider, browser: Browser, token: str) -> None:
    """docs/security.md: the form answers its own one-time token."""
    page = _page(op, browser)
    assert browser.go(page.action, form={"form_token": token} | YES).is_page(403)
    assert _is_signed_in(op, browser)


def test_the_token_is_good_once(op: Provider, browser: Browser) -> None:
    """docs/security.md: one-time: a second press is too late."""
    page = _page(op, browser)
    browser.submit(page, decision="deny")
    assert browser.submit(page, decision="allow").is_page(403)
    assert _is_signed_in(op, browser)


def test_the_token_is_this_sessions(op: Provider, browser: Browser) -> None:
    """docs/security.md: another user's token does not sign this one out."""
    other = op.browser()
    op.sign_in(other, user="bob")
    token = _page(op, other).fields["form_token"]
    assert browser.go(f"{op.issuer}/oidc/logout", form={"form_token": token} | YES).is_page(403)
    assert _is_signed_in(op, browser)


def test_the_token_ends(op: Provider, browser: Browser) -> None:
    """docs/security.md: a page that lay about for long is too old."""
    page = _page(op, browser)
    op.clock.advance(86_400)
    assert browser.submit(page, decision="allow").is_page(403)


@pytest.mark.parametrize("signed_in", [True, False])
def test_an_interactions_verifier_is_no_form_token(op: Provider, signed_in: bool) -> None:
    """docs/security.md: a verifier shown to the logout form is refused as any other value, and is not spent by it."""
    browser, form_browser = op.browser(), op.browser()
    if signed_in:
        op.sign_in(form_browser)
    landing = browser.go(op.rp().request().url)
    redirect_to = op.app.report(op.app.interaction(landing), "login", {"user_id": "ada"})
    form = {"form_token": query_of(redirect_to)["verifier"]} | YES
    assert form_browser.go(f"{op.issuer}/oidc/logout", form=form).is_page(403)
    assert "code" in query_of(browser.go(redirect_to).url)


def test_the_page_after_the_apps_says_what_is_true(op: Provider, browser: Browser) -> None:
    """docs/security.md: the address of the logged-out page signs nobody out, and does not say so to a user who is signed in."""
    landing = browser.go(f"{op.issuer}/oidc/logout?signed_out=1")
    assert landing.is_page() and "You are signed out" not in landing.text
    assert _is_signed_in(op, browser)


@each_of(("body", "status"), [(b"\xff", 400), (b"x" * 70_000, 413), (b"&".join([b"a=1"] * 300), 400)])
def test_a_malformed_form_is_refused(op: Provider, body: bytes, status: int) -> None:
    """docs/errors.md: a page, 413 included; never 500."""
    answer = op.ask("POST", "/oidc/logout", body=body, content_type=FORM)
    assert answer.status == status and answer.headers["Content-Type"].startswith("text/html")


def test_a_malformed_query_is_a_page(op: Provider) -> None:
    """docs/errors.md: an HTML page before anything is trusted."""
    for query in ("id_token_hint=%FF", urlencode([(f"p{n}", "1") for n in range(201)])):
        assert op.browser().go(f"{op.issuer}/oidc/logout?{query}").is_page(400)
