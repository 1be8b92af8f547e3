"""Consent: the built-in page, the app's own, and who is never asked."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import pytest

from tests.http.driver import refused
from tests.provider.browser import Browser, Landing, query_of
from tests.provider.conftest import ServeProvider
from tests.provider.driver import OTHER_CALLBACK, Provider
from tests.support.cases import each_of

CONSENT_URL = "https://app.example.com/consent"


@pytest.fixture
def browser(op: Provider) -> Browser:
    """A browser whose user is signed in."""
    browser = op.browser()
    op.app.sign_in(browser, claims={"name": "Ada <i>B</i>"})
    return browser


def _page(op: Provider, browser: Browser, **parameters: Any) -> Landing:
    return browser.go(op.rp("c-third").request(**parameters).url)


def test_a_first_party_client_is_not_asked_for(op: Provider, browser: Browser) -> None:
    """docs/sign-in.md: `first_party` skips consent."""
    assert (
        browser.ask("GET", op.rp().request(scope="openid email").url)
        .headers["Location"]
        .startswith("https://rp.")
    )


def test_prompt_consent_always_shows_it(op: Provider, browser: Browser) -> None:
    """prompt=consent shows the page even for a first party, and after a remembered yes (Core §3.1.2.1)."""
    for client_id in ("c-basic", "c-third", "c-third"):
        request = op.rp(client_id).request(prompt="consent")
        page = browser.go(request.url)
        assert page.is_page() and page.action
        assert "code" in op.answered(request, browser.submit(page, decision="allow"))


def test_the_page_says_who_asks_for_what(op: Provider, browser: Browser) -> None:
    """docs/conformance.md 4.7: name, logo, links, user and scopes in words, all escaped; two buttons; no script."""
    page = _page(op, browser, scope="openid email offline_access")
    assert page.is_page()
    assert "&lt;b&gt;Third &amp; Co&lt;/b&gt;" in page.text and "<b>Third" not in page.text
    assert "Ada &lt;i&gt;B&lt;/i&gt;" in page.text and "<i>B" not in page.text
    for shown in ("https://logo.example.net:8443/a.png", "https://third.example.org/privacy", "https://third.example.org/terms",
                  "see your email address", "stay connected"):  # fmt: skip
        assert shown in page.text
    assert "phone" not in page.text
    assert 'name="decision" value="allow"' in page.text and 'name="decision" value="deny"' in page.text
    assert "<script" not in page.text and "javascript:" not in page.text


def test_claims_asked_for_alone_are_said_too(op: Provider, browser: Browser) -> None:
    """What `claims` asks for is agreed to as its scope is, and not given without (Core §5.5)."""
    request = op.rp("c-third").request(claims=json.dumps({"userinfo": {"email": None}}))
    page = browser.go(request.url)
    assert "see your email address" in page.text
    code = op.answered(request, browser.submit(page, decision="allow"))["code"]
    assert op.rp("c-third").redeem(request, code).json()["scope"] == "openid"


def test_a_yes_gives_the_code_and_is_remembered(op: Provider, browser: Browser) -> None:
    """docs/sign-in.md: remembered grants skip the page, for this client and these scopes or fewer."""
    rp = op.rp("c-third")
    request = rp.request(scope="openid email")
    assert "code" in op.answered(request, browser.submit(browser.go(request.url), decision="allow"))
    fewer = rp.request(prompt="none", scope="openid")
    assert "code" in op.answered(fewer, browser.go(fewer.url))
    more = rp.request(prompt="none", scope="openid email phone")
    assert op.answered(more, browser.go(more.url))["error"] == "consent_required"


def test_consent_is_each_users_own(op: Provider, browser: Browser) -> None:
    """docs/sign-in.md: what one user allowed, another is asked for."""
    browser.submit(_page(op, browser), decision="allow")
    other = op.browser()
    op.app.sign_in(other, "bob")
    assert _page(op, other).is_page()


@each_of("decision", ["deny", "", "Allow", "yes"])
def test_anything_but_a_yes_is_a_no(op: Provider, browser: Browser, decision: str) -> None:
    """docs/conformance.md 2.18: access_denied with state and iss; nothing is remembered (RFC 6749 §4.1.2.1)."""
    request = op.rp("c-third").request()
    landing = browser.submit(browser.go(request.url), decision=decision)
    assert op.answered(request, landing)["error"] == "access_denied"
    assert not op.app.grants() and _page(op, browser).is_page()


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}],
)
def test_another_site_cannot_say_yes(op: Provider, browser: Browser, headers: dict[str, str]) -> None:
    """docs/security.md: the form passes a same-origin check, even with its token."""
    page = _page(op, browser)
    assert browser.go(page.action, form=page.fields | {"decision": "allow"}, headers=headers).is_page(403)
    assert not op.app.grants()


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "null"}, {"Origin": "https://id.example.com"}, {"Sec-Fetch-Site": "same-origin"}],
)
def test_a_browser_that_says_little_may(op: Provider, browser: Browser, headers: dict[str, str]) -> None:
    """docs/security.md: the check does not break on `Origin: null`: the one-time token decides."""
    page = _page(op, browser)
    assert browser.go(page.action, form=page.fields | {"decision": "allow"}, headers=headers).is_at(
        OTHER_CALLBACK
    )


@each_of("token", [None, "", "x", "é"])
def test_without_the_forms_token_nothing_is_agreed_to(
    op: Provider, browser: Browser, token: str | None
) -> None:
    """docs/security.md: the form answers its one-time token."""
    page = _page(op, browser)
    form = {"decision": "allow"} | ({} if token is None else {"form_token": token})
    assert browser.go(page.action, form=form).is_page(403)
    assert not op.app.grants()


def test_only_the_page_shown_last_counts(op: Provider, browser: Browser) -> None:
    """docs/security.md: showing the page again makes the first form's token worthless, also after the second was answered."""
    first = _page(op, browser)
    second = browser.go(first.action)
    assert browser.submit(first, decision="allow").is_page(403)
    assert browser.submit(second, decision="allow").is_at(OTHER_CALLBACK)
    assert browser.submit(first, decision="allow").is_page(400)


# --- fingers ---


@pytest.mark.parametrize("mode", ["query", "form_post"])
@pytest.mark.parametrize("decision", ["allow", "deny"])
def test_a_second_press_gets_the_same_answer(
    op: Provider, browser: Browser, decision: str, mode: str
) -> None:
    """docs/sign-in.md: for 60 s the same form from the same browser is answered as before, whatever it says now."""
    page = _page(op, browser, response_mode=mode)
    first = browser.submit(page, decision=decision)
    told = first.parameters
    assert ("code" in told) is (decision == "allow")
    op.clock.advance(59)
    for again in (decision, "deny" if decision == "allow" else "allow"):
        second = browser.submit(page, decision=again)
        assert second.parameters == told and second.action == first.action
    assert len(op.app.grants()) == (1 if decision == "allow" else 0)
    op.clock.advance(1)
    assert browser.submit(page, decision=decision).is_page(400)


def test_a_code_that_was_used_is_not_sent_twice(op: Provider, browser: Browser) -> None:
    """RFC 6749 §4.1.2: its second use would end what came of it: a page says that it is over, with a way back."""
    rp = op.rp("c-third")
    request = rp.request()
    page = browser.go(request.url)
    code = op.answered(request, browser.submit(page, decision="allow"))["code"]
    tokens = rp.redeem(request, code).json()
    landing = browser.submit(page, decision="allow")
    assert landing.is_page(400) and 'href="https://other.example.org/"' in landing.text
    assert rp.userinfo(tokens["access_token"]).status == 200


def test_another_browser_gets_nothing_of_it(op: Provider, browser: Browser) -> None:
    """docs/security.md: not with only the form's token, not with only the interaction's cookie, not from another site."""
    page = _page(op, browser)
    other = op.browser()
    browser.submit(page, decision="allow")
    assert other.submit(page, decision="allow").is_page(400)
    for token in ("x", ""):
        fields = {"form_token": token, "decision": "allow"}
        assert browser.go(page.action, form=fields, headers={"Sec-Fetch-Site": "same-origin"}).is_page(400)
    form = page.fields | {"decision": "allow"}
    assert browser.go(page.action, form=form, headers={"Sec-Fetch-Site": "cross-site"}).is_page(400)


def test_the_kept_answer_is_readable_to_nobody_else(op: Provider, browser: Browser) -> None:
    """docs/security.md: it is sealed under the form's token, of which the store has a hash."""
    page = _page(op, browser)
    code = browser.submit(page, decision="allow").parameters["code"]
    with sqlite3.connect(op.house.settings.data_dir / "pylon.db") as database:
        dump = "\n".join(database.iterdump())
    assert code not in dump and page.fields["form_token"] not in dump


def test_a_press_after_a_new_sign_in_was_due_signs_nobody_in(op: Provider, browser: Browser) -> None:
    """docs/security.md: a form that led to a sign-in instead of an answer has no answer to give again."""
    page = _page(op, browser, max_age="100")
    op.clock.advance(200)
    for _ in range(2):
        landing = browser.submit(page, decision="allow")
        assert "code" not in query_of(landing.url) and not op.app.grants()


def test_a_page_of_a_changed_client_leads_back(op: Provider, browser: Browser) -> None:
    """docs/sign-in.md: what is over leads back to the service where that is known: its own page, or its origin."""
    body = {
        "client_id": "c-db",
        "redirect_uris": [OTHER_CALLBACK],
        "client_uri": "https://wiki.example.org/start",
    }
    op.app.call("POST", "/api/oidc/clients", body)
    page = browser.go(op.rp("c-db", redirect_uri=OTHER_CALLBACK).request().url)
    op.app.call("PUT", "/api/oidc/clients/c-db", body | {"grant_types": ["refresh_token"]})
    landing = browser.go(page.action)
    assert landing.is_page(400) and 'href="https://wiki.example.org/start"' in landing.text


def test_the_page_outlives_a_sign_in_by_the_backend(op: Provider) -> None:
    """docs/sign-in.md: after way (b) the consent page is shown at its own address, without the verifier in it."""
    browser = op.browser()
    landing = _page(op, browser)
    landing = op.app.by_backend(browser, landing)
    assert landing.is_page() and "verifier" not in landing.url
    assert browser.submit(landing, decision="allow").is_at(OTHER_CALLBACK)


# --- the app's own page ---


@pytest.fixture
def apart(serve_provider: ServeProvider) -> Provider:
    """A provider whose app asks for consent itself."""
    return serve_provider(PYLON_CONSENT_URL=CONSENT_URL)


def _asked(op: Provider, browser: Browser, **parameters: Any) -> tuple[Any, Landing]:
    op.app.sign_in(browser)
    request = op.rp("c-third").request(**parameters)
    return request, browser.go(request.url)


def test_the_apps_page_has_the_same_hand_off(apart: Provider) -> None:
    """docs/sign-in.md: `PYLON_CONSENT_URL` with `interaction` and `return_to`; `…/consent` answers where to continue."""
    browser = apart.browser()
    request, landing = _asked(apart, browser)
    assert landing.is_at(CONSENT_URL) and set(query_of(landing.url)) == {"interaction", "return_to"}
    landing = browser.go(apart.app.report(apart.app.interaction(landing), "consent", {}))
    assert "code" in apart.answered(request, landing)


def test_the_app_may_grant_a_part(apart: Provider) -> None:
    """docs/sign-in.md: `{scope?}`: what the user left out is not granted."""
    browser = apart.browser()
    request, landing = _asked(apart, browser, scope="openid email phone")
    landing = browser.go(
        apart.app.report(apart.app.interaction(landing), "consent", {"scope": "openid phone"})
    )
    tokens = apart.rp("c-third").redeem(request, apart.answered(request, landing)["code"]).json()
    assert tokens["scope"] == "openid phone"


@pytest.mark.parametrize("remember", [True, False])
def test_the_app_says_whether_it_is_remembered(apart: Provider, remember: bool) -> None:
    """docs/sign-in.md: `{remember?}`."""
    browser = apart.browser()
    _, landing = _asked(apart, browser)
    browser.go(apart.app.report(apart.app.interaction(landing), "consent", {"remember": remember}))
    again = browser.go(apart.rp("c-third").request().url)
    assert again.is_at(OTHER_CALLBACK if remember else CONSENT_URL)


@pytest.mark.parametrize(
    "body",
    [
        {"scope": ""},
        {"scope": "nonsense"},
        {"scope": ["openid"]},
        {"remember": "yes"},
        {"other": 1},
        {"scope": None},
        [],
        "x",
    ],
)
def test_a_malformed_consent_is_refused(apart: Provider, body: Any) -> None:
    """docs/sign-in.md: 400 INVALID_BODY, and nothing is agreed to: an empty scope does not count as consent."""
    _, landing = _asked(apart, apart.browser())
    answer = apart.app.call("POST", f"/api/oidc/interactions/{apart.app.interaction(landing)}/consent", body)
    refused(answer, 400, "INVALID_BODY")


def test_a_consent_to_nothing_that_was_asked_is_none(apart: Provider) -> None:
    """docs/sign-in.md: agreed to `phone` where `openid` was asked: no code without a scope comes of it."""
    browser = apart.browser()
    _, landing = _asked(apart, browser)
    landing = browser.go(apart.app.report(apart.app.interaction(landing), "consent", {"scope": "phone"}))
    assert landing.is_at(CONSENT_URL) and not apart.app.grants()


def test_consent_comes_after_sign_in(apart: Provider) -> None:
    """docs/sign-in.md: an interaction that waits for its sign-in takes no consent."""
    landing = apart.browser().go(apart.rp("c-third").request().url)
    answer = apart.app.call("POST", f"/api/oidc/interactions/{apart.app.interaction(landing)}/consent", {})
    refused(answer, 409, "WRONG_STEP")


def test_a_no_by_the_app_is_told_to_the_client(apart: Provider) -> None:
    """docs/sign-in.md: `…/reject` from the consent step."""
    browser = apart.browser()
    request, landing = _asked(apart, browser)
    landing = browser.go(apart.app.report(apart.app.interaction(landing), "reject", {}))
    assert apart.answered(request, landing)["error"] == "access_denied"


# --- programs on the user's device ---


@each_of(
    ("redirect_uri", "warning", "kind"),
    [
        ("http://127.0.0.1:49152/cb", "a program on this computer", "loopback"),
        ("http://localhost:49152/cb", "a program on this computer", "loopback"),
        ("com.example.app:/cb", "an app on this device", "app"),
        ("https://rp.example.org/callback", None, None),
    ],
)
def test_an_answer_to_the_users_device_is_warned_of_and_asked_for_each_time(
    serve_provider: ServeProvider, redirect_uri: str, warning: str | None, kind: str | None
) -> None:
    """RFC 8252 §8.6: a public client is a program that any other may pretend to be; a web redirect URI of it is remembered."""
    uris = [
        "http://127.0.0.1/cb",
        "http://localhost/cb",
        "com.example.app:/cb",
        "https://rp.example.org/callback",
    ]
    op = serve_provider([{"client_id": "c-tool", "redirect_uris": uris}])
    browser = op.browser()
    op.app.sign_in(browser)
    rp = op.rp("c-tool", secret=None, redirect_uri=redirect_uri)
    for _ in range(2 if warning else 1):
        request = rp.request()
        page = browser.go(request.url)
        said = [
            words for words in ("a program on this computer", "an app on this device") if words in page.text
        ]
        assert said == ([warning] if warning else [])
        assert ("We will remember your answer" in page.text) is (warning is None)
        assert "code" in op.answered(request, browser.submit(page, decision="allow"))
    silent = rp.request(prompt="none")
    answer = op.answered(silent, browser.go(silent.url))
    assert answer.get("error") == ("consent_required" if warning else None)


def test_the_apps_page_is_told_of_it(serve_provider: ServeProvider) -> None:
    """docs/endpoints.md: `origin` is there where a page must say where the answer goes, and `remember` changes nothing."""
    op = serve_provider(
        [{"client_id": "c-tool", "redirect_uris": ["http://localhost/cb"]}], PYLON_CONSENT_URL=CONSENT_URL
    )
    browser = op.browser()
    op.app.sign_in(browser)
    for _ in range(2):
        landing = browser.go(op.rp("c-tool", secret=None, redirect_uri="http://localhost:5/cb").request().url)
        assert landing.is_at(CONSENT_URL)
        interaction = op.app.interaction(landing)
        assert op.app.call("GET", f"/api/oidc/interactions/{interaction}").json()["origin"] == {
            "stranger": False, "client_host": None, "redirect_kind": "loopback", "redirect_host": "localhost",
            "remembered": False,
        }  # fmt: skip
        browser.go(op.app.report(interaction, "consent", {"remember": True}))
