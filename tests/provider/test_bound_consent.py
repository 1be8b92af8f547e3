"""A consent belongs to the user who gave it and to what was shown; what is granted is cut to what the client may have now."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.provider.browser import Browser, Landing, query_of
from tests.provider.conftest import CLIENTS, ServeProvider
from tests.provider.driver import LOGIN_URL, OTHER_CALLBACK, Provider, RelyingParty, Request

CONSENT_URL = "https://app.example.com/consent"
PAGES = pytest.mark.parametrize("op", [None, CONSENT_URL], indirect=True, ids=["built-in page", "app's page"])


@pytest.fixture
def op(request: pytest.FixtureRequest, serve_provider: ServeProvider) -> Provider:
    """A provider with its own consent page, or with the app's."""
    return serve_provider([*CLIENTS], PYLON_CONSENT_URL=getattr(request, "param", None))


def _is_asked(landing: Landing) -> bool:
    return landing.is_at(CONSENT_URL) or (landing.is_page() and "decision" in landing.text)


def _agree(op: Provider, browser: Browser, landing: Landing, **body: Any) -> Landing:
    """Say yes, on whichever page asks."""
    assert _is_asked(landing), landing
    if landing.is_page():
        return browser.submit(landing, decision="allow")
    return browser.go(op.app.report(op.app.interaction(landing), "consent", body))


# --- who gave it ---


@PAGES
@pytest.mark.parametrize("way", ["backend", "cookie"])
@pytest.mark.parametrize("prompt", [None, "consent"])
def test_a_yes_is_not_the_next_users(op: Provider, way: str, prompt: str | None) -> None:
    """OpenID Connect Core §3.1.2.4: one agrees too late for max_age, another signs in: the other one is asked."""
    browser = op.browser()
    op.app.sign_in(browser, "ada")
    request = op.rp("c-third").request(max_age="100", scope="openid email", prompt=prompt)
    landing = browser.go(request.url)
    op.clock.advance(200)
    landing = _agree(op, browser, landing)
    assert landing.is_at(LOGIN_URL)
    sign_in = op.app.by_backend if way == "backend" else op.app.by_cookie
    landing = sign_in(browser, landing, "bob")
    assert _is_asked(landing) and not op.app.grants("bob")
    if landing.is_page():
        assert "bob" in landing.text and "ada" not in landing.text
    rp = op.rp("c-third")
    tokens = rp.redeem(request, op.answered(request, _agree(op, browser, landing))["code"]).json()
    assert rp.verified(tokens["id_token"])["sub"] == "bob"


@PAGES
def test_a_yes_is_still_the_same_users_after_a_new_sign_in(op: Provider) -> None:
    """OpenID Connect Core §3.1.2.4: who agreed and then had to sign in again is not asked twice."""
    browser = op.browser()
    op.app.sign_in(browser, "ada")
    request = op.rp("c-third").request(max_age="100", prompt="consent")
    landing = browser.go(request.url)
    op.clock.advance(200)
    landing = _agree(op, browser, landing)
    assert "code" in op.answered(request, op.app.by_backend(browser, landing, "ada"))


@PAGES
def test_a_yes_is_remembered_for_who_gave_it(op: Provider) -> None:
    """docs/security.md: and for nobody else, also where another one signed in before the code was there."""
    browser = op.browser()
    op.app.sign_in(browser, "ada")
    landing = browser.go(op.rp("c-third").request(max_age="100").url)
    op.clock.advance(200)
    op.app.by_backend(browser, _agree(op, browser, landing), "bob")
    for user, known in (("ada", True), ("bob", False)):
        other = op.browser()
        op.app.sign_in(other, user)
        request = op.rp("c-third").request(prompt="none")
        assert ("code" in op.answered(request, other.go(request.url))) is known, user


@pytest.mark.parametrize("op", [CONSENT_URL], indirect=True)
def test_an_apps_yes_is_of_who_was_asked_then(op: Provider) -> None:
    """docs/security.md: reported for one, and brought back when another had been asked in the same browser: it does not count."""
    browser = op.browser()
    op.app.sign_in(browser, "ada")
    landing = browser.go(op.rp("c-third").request().url)
    redirect_to = op.app.report(op.app.interaction(landing), "consent", {})
    op.app.sign_in(browser, "bob", auth_time=int(op.clock()) + 1)
    assert _is_asked(browser.go(query_of(landing.url)["return_to"]))  # bob is asked
    assert _is_asked(browser.go(redirect_to))
    assert not op.app.grants("ada") and not op.app.grants("bob")


# --- what was shown ---


def _client(op: Provider, **metadata: Any) -> RelyingParty:
    answer = op.app.call(
        "POST", "/api/oidc/clients", {"client_id": "c-db", "redirect_uris": [OTHER_CALLBACK], **metadata}
    )
    assert answer.status == 201, answer
    return RelyingParty(op.house, "c-db", secret=answer.json()["client_secret"], redirect_uri=OTHER_CALLBACK)


def _change(op: Provider, **metadata: Any) -> None:
    body = {"redirect_uris": [OTHER_CALLBACK], **metadata}
    assert op.app.call("PUT", "/api/oidc/clients/c-db", body).status == 200


def _signed_in(op: Provider) -> Browser:
    browser = op.browser()
    op.app.sign_in(browser, "ada", claims={"name": "Ada", "email": "ada@example.com", "phone_number": "1"})
    return browser


def _scope(rp: RelyingParty, op: Provider, request: Request, landing: Landing) -> str:
    answer = rp.redeem(request, op.answered(request, landing)["code"])
    assert answer.status == 200, answer
    return str(answer.json()["scope"])


@PAGES
@pytest.mark.parametrize("looked_again", [False, True])
def test_a_client_that_grows_gets_what_was_shown(op: Provider, looked_again: bool) -> None:
    """docs/security.md: its scope grows while the page is open: what it was not shown to have it does not get."""
    rp, browser = _client(op, scope="openid"), _signed_in(op)
    request = rp.request(scope="openid email phone")
    landing = browser.go(request.url)
    _change(op, scope="openid email phone")
    if looked_again and landing.is_at(
        CONSENT_URL
    ):  # the app's page asks once more what to show, and shows it
        shown = op.app.call("GET", f"/api/oidc/interactions/{op.app.interaction(landing)}").json()
        assert shown["scope"] == "openid"
    elif looked_again:
        landing = browser.go(landing.action)
        assert "email" not in landing.text
    assert _scope(rp, op, request, _agree(op, browser, landing)) == "openid"
    later = rp.request(scope="openid email phone", prompt="none")
    assert op.answered(later, browser.go(later.url))["error"] == "consent_required"


@pytest.mark.parametrize("op", [CONSENT_URL], indirect=True)
@pytest.mark.parametrize("scope", [None, "openid email"])
def test_an_apps_page_that_lay_open_agrees_to_what_it_showed(op: Provider, scope: str | None) -> None:
    """docs/security.md: also where the browser came by once more in between, in another tab, and whatever the report says."""
    rp, browser = _client(op, scope="openid"), _signed_in(op)
    request = rp.request(scope="openid email")
    landing = browser.go(request.url)
    _change(op, scope="openid email")
    browser.go(query_of(landing.url)["return_to"])
    landing = _agree(op, browser, landing, **({} if scope is None else {"scope": scope}))
    assert _scope(rp, op, request, landing) == "openid"


@PAGES
def test_a_client_that_shrinks_gets_what_it_may_have(op: Provider) -> None:
    """docs/security.md: what was shown and agreed to is cut to what the client may have at that time."""
    rp, browser = _client(op, scope="openid email phone"), _signed_in(op)
    request = rp.request(scope="openid email phone")
    landing = browser.go(request.url)
    _change(op, scope="openid phone")
    assert _scope(rp, op, request, _agree(op, browser, landing)) == "openid phone"


@PAGES
def test_a_client_that_may_have_nothing_of_it_any_more_is_told(op: Provider) -> None:
    """docs/security.md: nothing is left of what was agreed to: an error, and no code without a scope."""
    rp, browser = _client(op, scope="email"), _signed_in(op)
    request = rp.request(scope="email phone")
    landing = browser.go(request.url)
    _change(op, scope="phone")
    assert op.answered(request, _agree(op, browser, landing))["error"] == "invalid_scope"
    assert not op.app.grants("ada")


@PAGES
def test_claims_that_were_not_shown_are_not_given(op: Provider) -> None:
    """OpenID Connect Core §5.5: a claim that is asked for by name belongs to a scope that the page has listed."""
    rp, browser = _client(op, scope="openid"), _signed_in(op)
    wanted = json.dumps({"userinfo": {"email": None}, "id_token": {"email": None}})
    request = rp.request(claims=wanted)
    landing = browser.go(request.url)
    _change(op, scope="openid email")
    tokens = rp.redeem(request, op.answered(request, _agree(op, browser, landing))["code"]).json()
    assert "email" not in rp.userinfo(tokens["access_token"]).json()
    assert "email" not in rp.verified(tokens["id_token"])


@PAGES
def test_openid_is_not_slipped_in(op: Provider) -> None:
    """docs/security.md: openid stays in an answer that leaves it out only where the page has listed it."""
    rp, browser = _client(op, scope="email"), _signed_in(op)
    request = rp.request(scope="openid email")
    landing = browser.go(request.url)
    _change(op, scope="openid email")
    assert _scope(rp, op, request, _agree(op, browser, landing)) == "email"
