"""The sign-in hand-off: bound to the browser that began, single use, and over when it is over."""

from __future__ import annotations

import sqlite3

from tests.http.driver import refused
from tests.provider.browser import Browser, Landing, query_of
from tests.provider.conftest import CLIENTS, ServeProvider
from tests.provider.driver import CALLBACK, ISSUER, LOGIN_URL, OTHER_CALLBACK, Provider, RelyingParty
from tests.support.cases import each_of

CONSENT_URL = "https://app.example.com/consent"
PREFIX = "__Host-pylon_interaction_"
PROVIDER = "__Host-pylon_provider"


def _begun(op: Provider, browser: Browser, client_id: str = "c-basic", **parameters: str) -> tuple[str, str]:
    """Begin; the interaction's id and its `return_to`."""
    told = query_of(browser.go(op.rp(client_id).request(**parameters).url).url)
    return told["interaction"], told["return_to"]


def _has_no_code(landing: Landing) -> bool:
    return (
        "code" not in query_of(landing.url)
        and not landing.is_at(CALLBACK)
        and not landing.is_at(OTHER_CALLBACK)
    )


def test_another_who_signs_in_by_the_backend_gives_the_first_browser_nothing(op: Provider) -> None:
    """Way (b): one begins, another signs in; the second browser has no cookie of it, the first has no verifier (RFC 9700 §4.7)."""
    first, other = op.browser(), op.browser()
    interaction, return_to = _begun(op, first)
    redirect_to = op.app.report(interaction, "login", {"user_id": "victim"})
    assert other.go(redirect_to).is_page(400)
    assert not other.cookie_names()
    assert _has_no_code(first.go(return_to))


def test_another_who_signs_in_by_the_cookie_gives_the_first_browser_nothing(op: Provider) -> None:
    """docs/security.md: way (a): one begins, another signs in and goes to return_to: an error page there, and no session for the first."""
    first, other = op.browser(), op.browser()
    _, return_to = _begun(op, first)
    op.app.sign_in(other, "victim")
    assert other.go(return_to).is_page(400)
    landing = first.go(return_to)
    assert landing.is_at(LOGIN_URL) and _has_no_code(landing)


@each_of("way", ["backend", "cookie"])
def test_another_who_agrees_gives_the_first_browser_nothing(serve_provider: ServeProvider, way: str) -> None:
    """docs/security.md: by consent: one begins and is asked, another agrees on the app's page; nobody gets a code."""
    op = serve_provider(PYLON_CONSENT_URL=CONSENT_URL)
    first, other = op.browser(), op.browser()
    op.sign_in(first, way=way)
    op.sign_in(other, user="victim", way=way)
    interaction, return_to = _begun(op, first, "c-third")
    redirect_to = op.app.report(interaction, "consent", {})
    assert other.go(redirect_to).is_page(400)
    assert first.go(return_to).is_at(CONSENT_URL)
    assert [grant["client_id"] for grant in op.app.grants("victim")] == ["c-basic"]


def test_another_who_agrees_on_the_built_in_page_gives_nothing(op: Provider) -> None:
    """docs/security.md: the built-in form, with its token, does not work in another browser."""
    first, other = op.browser(), op.browser()
    op.sign_in(first)
    op.sign_in(other, user="victim")
    page = first.go(op.rp("c-third").request().url)
    assert other.submit(page, decision="allow").is_page(400)
    assert not [
        grant
        for user in ("ada", "victim")
        for grant in op.app.grants(user)
        if grant["client_id"] == "c-third"
    ]


def test_who_is_asked_must_be_who_agrees(op: Provider) -> None:
    """docs/security.md: when somebody else signs in on this browser meanwhile, they are asked themselves, with their own form."""
    browser = op.browser()
    op.app.sign_in(browser, "ada")
    page = browser.go(op.rp("c-third").request().url)
    op.app.sign_in(browser, "bob", auth_time=int(op.clock()) + 1)
    page = browser.submit(page, decision="allow")
    assert page.is_page() and "bob" in page.text
    assert not op.app.grants("ada") and not op.app.grants("bob")


@each_of("way", ["backend", "cookie"])
def test_another_who_refuses_ends_nothing_of_the_first_browsers(op: Provider, way: str) -> None:
    """docs/security.md: by reject: the rejection goes with its verifier to the browser that the app saw; there it is an error page."""
    first, other = op.browser(), op.browser()
    interaction, return_to = _begun(op, first)
    redirect_to = op.app.report(interaction, "reject", {})
    assert other.go(redirect_to).is_page(400)
    landing = first.go(return_to)
    assert landing.is_at(LOGIN_URL)
    assert "code" in query_of(op.finish(first, landing, way=way).url)


def test_the_verifier_is_good_once(op: Provider) -> None:
    """docs/sign-in.md: the verifier is single-use."""
    browser = op.browser()
    interaction, _ = _begun(op, browser, "c-third")
    redirect_to = op.app.report(interaction, "login", {"user_id": "ada"})
    assert browser.go(redirect_to).is_page(200)
    assert browser.go(redirect_to).is_page(400)


def test_the_verifier_is_not_spent_without_the_cookie(op: Provider) -> None:
    """docs/sign-in.md: without the cookie it is not spent, so that nobody can take it from whom it is for."""
    browser, other = op.browser(), op.browser()
    interaction, _ = _begun(op, browser)
    redirect_to = op.app.report(interaction, "login", {"user_id": "ada"})
    assert other.go(redirect_to).is_page(400)
    assert browser.go(redirect_to).is_at(CALLBACK)


@each_of(("age_s", "good"), [(0, True), (59, True), (60, False), (3000, False)])
def test_the_verifier_lives_60_seconds(op: Provider, age_s: int, good: bool) -> None:
    """docs/sign-in.md: `verifier` is good for 60 s, to the second."""
    browser = op.browser()
    interaction, _ = _begun(op, browser)
    redirect_to = op.app.report(interaction, "login", {"user_id": "ada"})
    op.clock.advance(age_s)
    landing = browser.go(redirect_to)
    assert landing.is_at(CALLBACK) if good else landing.is_page(400)


def test_the_verifier_of_one_interaction_is_worth_nothing_in_another(op: Provider) -> None:
    """docs/security.md: a verifier belongs to its interaction, and trying it elsewhere does not spend it."""
    browser = op.browser()
    mine, _ = _begun(op, browser)
    _, other_return_to = _begun(op, browser)
    redirect_to = op.app.report(mine, "login", {"user_id": "ada"})
    verifier = query_of(redirect_to)["verifier"]
    assert browser.go(f"{other_return_to}?verifier={verifier}").is_page(400)
    assert browser.go(redirect_to).is_at(CALLBACK)


def test_the_cookie_of_one_interaction_is_worth_nothing_in_another(op: Provider) -> None:
    """docs/security.md: each interaction has a separate cookie; a wrong or repeated value does not count."""
    browser = op.browser()
    (first, first_return), (second, _) = _begun(op, browser), _begun(op, browser)
    mine = browser.cookies[PREFIX + first, "/"]
    mine.value = browser.cookies[PREFIX + second, "/"].value
    assert browser.go(first_return).is_page(400)


def test_the_verifier_has_256_bits(op: Provider) -> None:
    """docs/sign-in.md: a fresh 256-bit verifier each time; `redirect_to` is the way back with it and nothing else."""
    interaction, return_to = _begun(op, op.browser())
    one, two = (op.app.report(interaction, "login", {"user_id": "ada"}) for _ in range(2))
    assert one.startswith(f"{return_to}?verifier=") and len(query_of(one)["verifier"]) == 43
    assert list(query_of(one)) == ["verifier"] and one != two


@each_of(("age_s", "good"), [(3599, True), (3600, False)])
@each_of("way", ["backend", "cookie"])
def test_an_interaction_lives_60_minutes(op: Provider, way: str, age_s: int, good: bool) -> None:
    """docs/sign-in.md: the request is kept 60 min; afterwards an error page, and 404 to the app."""
    browser = op.browser()
    landing = browser.go(op.rp().request().url)
    op.clock.advance(age_s)
    if good:
        assert op.finish(browser, landing, way=way).is_at(CALLBACK)
        return
    interaction = op.app.interaction(landing)
    refused(op.app.call("GET", f"/api/oidc/interactions/{interaction}"), 404, "NOT_FOUND")
    refused(
        op.app.call("POST", f"/api/oidc/interactions/{interaction}/login", {"user_id": "ada"}),
        404,
        "NOT_FOUND",
    )
    assert browser.go(query_of(landing.url)["return_to"]).is_page(400)


def test_how_long_it_lives_is_a_setting(serve_provider: ServeProvider) -> None:
    """docs/sign-in.md: `PYLON_OIDC_INTERACTION_LIFETIME_SECS`."""
    op = serve_provider(PYLON_OIDC_INTERACTION_LIFETIME_SECS="2")
    browser = op.browser()
    landing = browser.go(op.rp().request().url)
    op.clock.advance(2)
    assert browser.go(query_of(landing.url)["return_to"]).is_page(400)


def test_an_interaction_of_another_issuer_is_none(serve_provider: ServeProvider) -> None:
    """docs/sign-in.md: an interaction belongs to its issuer, and is unknown under another one."""
    op = serve_provider([], PYLON_OIDC_ISSUER=None)
    op.app.call("POST", "/api/oidc/clients", {"client_id": "c-db", "redirect_uris": [CALLBACK]})
    browser = op.browser(ISSUER)
    landing = browser.go(op.rp("c-db").request().url)
    there = query_of(landing.url)["return_to"].replace("//id.", "//other.")
    assert browser.ask("GET", there).status == 400
    assert browser.go(query_of(landing.url)["return_to"]).is_at(LOGIN_URL)


def test_the_provider_session_stays_on_its_host(serve_provider: ServeProvider) -> None:
    """docs/sign-in.md: a host-only cookie, even where the app's cookie has a domain."""
    op = serve_provider(PYLON_COOKIE_DOMAIN="example.com")
    browser = op.browser()
    op.sign_in(browser)
    assert "domain" not in browser.cookies[PROVIDER, "/"].attributes


def test_a_finished_interaction_is_over(op: Provider) -> None:
    """docs/security.md: after the code there is nothing left: its cookie is taken, its address an error page, 404 to the app."""
    browser = op.browser()
    landing = browser.go(op.rp().request().url)
    assert op.finish(browser, landing).is_at(CALLBACK)
    assert not browser.cookie_names(PREFIX)
    assert browser.go(query_of(landing.url)["return_to"]).is_page(400)
    refused(op.app.call("GET", f"/api/oidc/interactions/{op.app.interaction(landing)}"), 404, "NOT_FOUND")


@each_of("method", ["GET", "POST"])
def test_a_browser_keeps_eight_interactions(op: Provider, method: str) -> None:
    """docs/sign-in.md: at most 8 at once; the ninth drops the oldest, and the newest eight continue."""
    browser, begun = op.browser(), []
    for _ in range(11):
        request = op.rp().request()
        url = f"{op.issuer}/oidc/authorize"
        landing = (
            browser.go(request.url)
            if method == "GET"
            else browser.go(url, form=request.parameters, cross_site=True)
        )
        begun.append(query_of(landing.url)["interaction"])
        assert len(browser.cookie_names(PREFIX)) <= 8, method
    assert browser.cookie_names(PREFIX) == [PREFIX + interaction for interaction in begun[-8:]]


def test_the_cookies_are_for_this_host_and_no_script(op: Provider) -> None:
    """docs/sign-in.md: HttpOnly, Secure, SameSite=Lax, no Domain; their path is the issuer's, /."""
    browser = op.browser()
    interaction, _ = _begun(op, browser)
    cookie = browser.cookies[PREFIX + interaction, "/"]
    assert cookie.attributes == {
        "path": "/",
        "max-age": "3600",
        "httponly": True,
        "secure": True,
        "samesite": "Lax",
    }
    browser.go(op.app.report(interaction, "login", {"user_id": "ada", "expires_in": 500}))
    provider = browser.cookies[PROVIDER, "/"]
    assert provider.attributes == {
        "path": "/",
        "max-age": "500",
        "httponly": True,
        "secure": True,
        "samesite": "Lax",
    }


def test_the_provider_session_is_new_at_each_sign_in(op: Provider) -> None:
    """docs/sign-in.md: a cookie from before the sign-in is never taken over (session fixation)."""
    browser = op.browser()
    browser.set_cookie(PROVIDER, "planted")
    op.sign_in(browser)
    first = browser.cookies[PROVIDER, "/"].value
    op.sign_in(browser, prompt="login")
    assert len({"planted", first, browser.cookies[PROVIDER, "/"].value}) == 3


@each_of("way", ["backend", "cookie"])
def test_an_interaction_survives_a_restart(op: Provider, serve_provider: ServeProvider, way: str) -> None:
    """docs/security.md: a restart in the middle: what was asked is on the server, and the user finishes."""
    browser, rp = op.browser(), op.rp()
    request = rp.request(scope="openid email")
    landing = browser.go(request.url)
    later = serve_provider(PYLON_DATA_DIR=str(op.house.settings.data_dir))
    moved = later.browser()
    moved.cookies = browser.cookies
    code = later.answered(request, later.finish(moved, landing, way=way))["code"]
    assert later.rp().redeem(request, code).json()["scope"] == "openid email"


def test_what_was_asked_cannot_change_on_the_way(op: Provider) -> None:
    """docs/security.md: parameters on the way back count for nothing: scope, redirect URI and challenge are kept on the server."""
    browser, rp = op.browser(), op.rp()
    request = rp.request()
    landing = browser.go(request.url)
    redirect_to = op.app.report(op.app.interaction(landing), "login", {"user_id": "ada"})
    landing = browser.go(
        f"{redirect_to}&scope=openid+phone&redirect_uri=https://evil.example/&code_challenge=x&state=y"
    )
    tokens = rp.redeem(request, op.answered(request, landing)["code"]).json()
    assert tokens["scope"] == "openid"


def test_a_client_that_is_gone_meanwhile_gets_nothing(op: Provider, serve_provider: ServeProvider) -> None:
    """docs/security.md: the kept request passes the checks again: a client that was removed, or whose redirect URI changed, gets no code."""
    browser = op.browser()
    landing = browser.go(op.rp().request().url)
    changed = [*CLIENTS[1:], dict(CLIENTS[0]) | {"redirect_uris": ["https://rp.example.org/moved"]}]
    for clients in (CLIENTS[1:], changed):
        later = serve_provider(clients, PYLON_DATA_DIR=str(op.house.settings.data_dir))
        moved = later.browser()
        moved.cookies = browser.cookies
        later.app.sign_in(moved)
        assert moved.go(query_of(landing.url)["return_to"]).is_page(400)


def test_nothing_that_is_given_out_is_kept_readable(op: Provider) -> None:
    """docs/sign-in.md: codes, tokens, verifiers and cookies are hashes at rest, and the grace's answer is sealed."""
    browser, rp = op.browser(), op.rp()
    interaction, _ = _begun(op, browser)
    verifier = query_of(op.app.report(interaction, "login", {"user_id": "ada"}))["verifier"]
    signed = op.sign_in(browser, scope="openid offline_access")
    refreshed = rp.refresh(signed.tokens["refresh_token"]).json()
    given_out = [verifier, signed.code, *(cookie.value for cookie in browser.cookies.values())]
    given_out += [
        tokens[name]
        for tokens in (signed.tokens, refreshed)
        for name in ("access_token", "refresh_token", "id_token")
    ]
    with sqlite3.connect(op.house.settings.data_dir / "pylon.db") as database:
        dump = "\n".join(database.iterdump())
    assert "ada" in dump
    for secret in filter(None, given_out):
        assert secret not in dump and secret not in op.house.log.getvalue()


def test_the_provider_session_is_of_its_issuer(serve_provider: ServeProvider) -> None:
    """docs/sign-in.md: a provider session of one issuer does not count under another, even if its cookie is sent there."""
    op = serve_provider([], PYLON_OIDC_ISSUER=None)
    made = op.app.call(
        "POST", "/api/oidc/clients", {"client_id": "c-db", "redirect_uris": [CALLBACK], "first_party": True}
    )
    browser = op.browser()
    landing = browser.go(RelyingParty(op.house, "c-db", secret=made.json()["client_secret"]).request().url)
    assert op.app.by_backend(browser, landing).is_at(CALLBACK)
    there = op.browser("https://other.example.com")
    there.cookies = browser.cookies
    request = RelyingParty(op.house, "c-db", issuer=there.issuer).request(prompt="none")
    assert query_of(there.go(request.url).url)["error"] == "login_required"
