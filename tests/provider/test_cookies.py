"""The provider's own cookies, and what counts where one name comes with several values."""

from __future__ import annotations

from email.message import Message
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from itertools import permutations
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlencode, urlsplit
from urllib.request import Request

from tests.provider.browser import Browser, query_of
from tests.provider.conftest import ServeProvider
from tests.provider.driver import CALLBACK, LOGIN_URL, OTHER_CALLBACK, Provider
from tests.support.cases import each_of

PROVIDER, INTERACTION = "__Host-pylon_provider", "__Host-pylon_interaction_"
APP = "pylon_session"
YES = {"decision": "allow"}


def _who(op: Provider, *cookies: tuple[str, str]) -> str | None:
    """Who these cookies sign in, by prompt=none; None for nobody."""
    rp, query = op.rp(), op.rp().request(prompt="none")
    header = "; ".join(f"{name}={value}" for name, value in cookies)
    path = urlsplit(op.issuer).path
    answer = op.ask(
        "GET", f"{path}/oidc/authorize", query=urlencode(query.parameters), cookie=header or "a=b"
    )
    shown = query_of(answer.headers["Location"])
    if "code" not in shown:
        assert shown["error"] == "login_required"
        return None
    return str(rp.verified(rp.redeem(query, shown["code"]).json()["id_token"])["sub"])


def _provider_cookie(op: Provider, user: str, **parameters: str) -> str:
    browser = op.browser()
    op.sign_in(browser, user=user, **parameters)
    return browser.cookies[PROVIDER, "/"].value


@each_of(
    ("issuer", "prefix", "path"),
    [
        ("https://id.example.com", "__Host-", "/"),
        ("https://id.example.com:8443", "__Host-", "/"),
        ("https://id.example.com/id/a", "__Secure-", "/id/a"),
        ("http://localhost:4321", "", "/"),
        ("http://localhost:4321/id", "", "/id"),
    ],
)
def test_names_say_who_may_set_them(
    serve_provider: ServeProvider, issuer: str, prefix: str, path: str
) -> None:
    """RFC 6265 §8.6: `__Host-` at an https issuer, `__Secure-` at one with a path, plain on this machine."""
    op = serve_provider(PYLON_OIDC_ISSUER=issuer, PYLON_COOKIE_DOMAIN="example.com" if prefix else None)
    browser = op.browser()
    landing = browser.go(op.rp("c-third").request().url)
    (name,) = browser.cookie_names()
    assert name == f"{prefix}pylon_interaction_{op.app.interaction(landing)}"
    landing = op.app.by_backend(browser, landing)
    assert landing.is_page()
    assert set(browser.cookie_names()) == {name, f"{prefix}pylon_provider"}
    for cookie in browser.cookies.values():
        assert cookie.path == path and "domain" not in cookie.attributes
        assert ("secure" in cookie.attributes) is bool(prefix)
    assert browser.submit(landing, **YES).is_at(OTHER_CALLBACK)
    landing = browser.submit(browser.go(f"{issuer}/oidc/logout"), **YES)
    assert "You are signed out" in landing.text
    assert set(browser.cookie_names()) <= {name}  # for a minute, so that its form may be sent once more


def test_names_without_the_prefix_are_not_read(op: Provider) -> None:
    """docs/security.md: what a sibling host can set signs nobody in, and begins nothing."""
    browser = op.browser()
    landing = browser.go(op.rp().request().url)
    op.app.by_backend(browser, landing)
    plain = browser.cookies[PROVIDER, "/"].value
    for name in ("pylon_provider", "__Secure-pylon_provider", "__host-pylon_provider"):
        assert _who(op, (name, plain)) is None, name
    browser = op.browser()
    landing = browser.go(op.rp().request().url)
    cookie = browser.cookies.pop((INTERACTION + op.app.interaction(landing), "/"))
    browser.set_cookie(cookie.name.removeprefix("__Host-"), cookie.value)
    assert browser.go(op.app.report(op.app.interaction(landing), "login", {"user_id": "ada"})).is_page(400)


# --- several values of one name ---


@each_of("name", [PROVIDER, APP])
def test_leftovers_are_passed_over(op: Provider, name: str) -> None:
    """docs/security.md: of several values the one that lives counts, wherever it stands among the first four."""
    live = op.app.session("ada")["token"] if name == APP else _provider_cookie(op, "ada")
    dead = ["x", "pylon_" + "0" * 64, "y" * 43]
    for order in permutations([*dead, live], 4):
        assert _who(op, *((name, value) for value in order)) == "ada"
    assert _who(op, *((name, value) for value in [*dead, "z" * 43, live])) is None
    assert _who(op, *((name, value) for value in [live] * 9)) == "ada"
    assert _who(op, (name, ""), *((name, value) for value in [*dead, live])) == "ada"


@each_of("name", [PROVIDER, APP])
def test_two_who_live_are_nobody(op: Provider, name: str) -> None:
    """docs/security.md: two users under one name: a sibling host may have planted one, so that neither is signed in."""
    make: Any = (
        (lambda user: op.app.session(user)["token"])
        if name == APP
        else (lambda user: _provider_cookie(op, user))
    )
    ada, bob = make("ada"), make("bob")
    for order in ((ada, bob), (bob, ada), (ada, "dead", bob)):
        assert _who(op, *((name, value) for value in order)) is None


def test_two_sessions_of_one_user_are_that_user(op: Provider) -> None:
    """docs/security.md: by the provider's own cookie; by the app's, which says no user, two live ones are nobody."""
    one, two = _provider_cookie(op, "ada"), _provider_cookie(op, "ada")
    assert _who(op, (PROVIDER, one), (PROVIDER, two)) == "ada"
    tokens = [op.app.session("ada")["token"] for _ in range(2)]
    assert _who(op, *((APP, token) for token in tokens)) is None


def test_an_ambiguous_cookie_does_not_hide_the_other(op: Provider) -> None:
    """docs/security.md: the user of the host's own cookie is signed in, whatever cookie was planted under the shared name."""
    own = _provider_cookie(op, "ada")
    planted = [(APP, op.app.session(user)["token"]) for user in ("eve", "mallory")]
    assert _who(op, *planted, (PROVIDER, own)) == "ada"


def test_a_user_with_a_leftover_can_sign_in(op: Provider) -> None:
    """docs/sign-in.md: a dead session cookie of an older path does not keep its user out, by either way."""
    browser = op.browser()
    browser.set_cookie(APP, "pylon_" + "0" * 64, path="/oidc")
    browser.set_cookie(PROVIDER, "x" * 43, path="/oidc")
    for way in ("backend", "cookie"):
        request = op.rp().request(prompt="login")
        assert "code" in op.authorize(browser, request, way=way)


def test_an_interactions_cookie_may_have_leftovers(op: Provider) -> None:
    """docs/security.md: any of the first four values may be the one that the browser was given."""
    for dead in (3, 4):
        browser = op.browser()
        landing = browser.go(op.rp().request().url)
        name = INTERACTION + op.app.interaction(landing)
        live = browser.cookies.pop((name, "/"))
        for n in range(dead):
            browser.set_cookie(
                name, f"dead{n}", path=("/", "/oidc", "/oidc/interaction", landing_path(landing))[n]
            )
        browser.cookies[name, "live"] = live
        landing = browser.go(query_of(landing.url)["return_to"])
        assert landing.is_at(LOGIN_URL) if dead == 3 else landing.is_page(400)


def landing_path(landing: Any) -> str:
    """The path that the browser comes back to."""
    return urlsplit(query_of(landing.url)["return_to"]).path


def test_an_answer_takes_at_most_16_away(op: Provider) -> None:
    """docs/sign-in.md: a header of an answer has so much room at a proxy; what is left goes with the next answer."""
    browser = op.browser()
    landing = browser.go(op.rp().request().url)
    for n in range(60):
        browser.set_cookie(f"{INTERACTION}junk{n}", "x" * 43)
    seen = []
    op.app.sign_in(browser)
    landing = browser.go(query_of(landing.url)["return_to"])
    assert landing.is_at(CALLBACK)
    for _ in range(5):
        browser.go(op.rp("c-third").request().url)
    for _, answer in browser.seen:
        lines = [line for line in answer.headers.all("Set-Cookie") if "Max-Age=0" in line]
        seen.append(len(lines))
    assert max(seen) == 16
    assert len(browser.cookie_names(INTERACTION)) <= 8


# --- signing out ---


def _lives(op: Provider, user: str) -> int:
    return len(op.app.call("GET", f"/api/auth/users/{user}/sessions").json()["sessions"])


def _sign_out(op: Provider, browser: Browser, **parameters: str) -> None:
    landing = browser.go(f"{op.issuer}/oidc/logout?{urlencode(parameters)}")
    if landing.action:
        landing = browser.submit(landing, **YES)
    assert "You are signed out" in landing.text


def test_every_session_that_is_shown_ends(op: Provider) -> None:
    """RP-Initiated Logout in OpenID Connect §2: by both cookies, all their values, and those that came before."""
    browser = op.browser()
    for user in ("ada", "bob", "cy"):  # one after the other by the provider's own cookie
        op.sign_in(browser, user=user, prompt="login")
    browser.set_cookie(PROVIDER, _provider_cookie(op, "dee"), path="/oidc")
    for n, user in enumerate(("eve", "fay")):
        browser.set_cookie(APP, op.app.session(user)["token"], path=("/", "/oidc")[n])
    users = ("ada", "bob", "cy", "dee", "eve", "fay")
    assert [_lives(op, user) for user in users] == [1] * 6
    elsewhere = op.app.session("ada")
    _sign_out(op, browser)
    assert [_lives(op, user) for user in users] == [1, 0, 0, 0, 0, 0]
    assert op.ask("GET", "/api/auth/me", token=elsewhere["token"]).status == 200


@each_of("yes", [True, False])
def test_the_page_names_everybody_whom_it_signs_out(op: Provider, yes: bool) -> None:
    """RP-Initiated Logout in OpenID Connect §2: the page says who is signed in; nothing ends before the yes."""
    browser = op.browser()
    for n, (user, name) in enumerate((("ada", "Ada B"), ("bob", "Bob C"))):
        token = op.app.session(user, claims={"name": name})["token"]
        browser.set_cookie(APP, token, path=("/", "/oidc")[n])
    page = browser.go(f"{op.issuer}/oidc/logout")
    assert "Ada B" in page.text and "Bob C" in page.text and page.action
    browser.submit(page, decision="allow" if yes else "deny")
    assert [_lives(op, user) for user in ("ada", "bob")] == [0, 0] if yes else [1, 1]


def test_the_hints_session_ends_too(op: Provider) -> None:
    """RP-Initiated Logout in OpenID Connect §2: the session that the ID token names, also where the browser has another now."""
    first = op.sign_in(user="ada")
    browser = op.browser()
    op.sign_in(browser, user="ada")
    assert _lives(op, "ada") == 2
    _sign_out(op, browser, id_token_hint=first.tokens["id_token"])
    assert _lives(op, "ada") == 0


def test_another_users_hint_ends_nothing_of_theirs(op: Provider) -> None:
    """RP-Initiated Logout in OpenID Connect §2: a page asks; its no keeps both, its yes ends what this browser shows:
    somebody else's ID token ends nothing.
    """
    hint = op.sign_in(user="bob").tokens["id_token"]
    browser = op.browser()
    op.sign_in(browser, user="ada")
    page = browser.go(f"{op.issuer}/oidc/logout?{urlencode({'id_token_hint': hint})}")
    assert page.action
    browser.submit(page, decision="deny")
    assert [_lives(op, user) for user in ("ada", "bob")] == [1, 1]
    _sign_out(op, browser, id_token_hint=hint)
    assert [_lives(op, user) for user in ("ada", "bob")] == [0, 1]


def test_a_hint_of_any_shown_session_asks_nobody(op: Provider) -> None:
    """RP-Initiated Logout in OpenID Connect §2: the hint's `sid` is one that this browser shows: no question."""
    browser = op.browser()
    hint = op.sign_in(browser, user="ada").tokens["id_token"]
    op.app.sign_in(browser, "bob", auth_time=int(op.clock()) + 5)
    landing = browser.go(f"{op.issuer}/oidc/logout?{urlencode({'id_token_hint': hint})}")
    assert "You are signed out" in landing.text
    assert [_lives(op, user) for user in ("ada", "bob")] == [0, 0]


class _Jar:
    """The standard library's cookie jar, which knows domains."""

    def __init__(self, url: str) -> None:
        self._jar, self._url = CookieJar(), url

    def take(self, *lines: str) -> None:
        """What an answer sets."""
        message = Message()
        for line in lines:
            message["Set-Cookie"] = line
        answer = cast(HTTPResponse, SimpleNamespace(info=lambda: message))
        self._jar.extract_cookies(answer, Request(self._url))

    def shown(self) -> str:
        """The `Cookie` header of a request."""
        request = Request(self._url)
        self._jar.add_cookie_header(request)
        return request.get_header("Cookie") or ""


@each_of(
    ("issuer", "domain"),
    [
        ("https://id.example.com", "example.com"),
        ("https://id.example.com", None),
        ("https://id.example.com/id", "example.com"),
        ("https://a.id.example.com", "id.example.com"),
    ],
)
def test_more_values_than_are_looked_at_leave_nobody_signed_in(
    serve_provider: ServeProvider, issuer: str, domain: str | None
) -> None:
    """docs/sessions.md: a sign-out takes every value of a cookie from a browser that shows more than four of them."""
    op = serve_provider(PYLON_OIDC_ISSUER=issuer, PYLON_COOKIE_DOMAIN=domain)
    path = urlsplit(issuer).path
    jar = _Jar(f"{issuer}/oidc/logout")
    real, planted = op.app.session("ada")["token"], op.app.session("mallory")["token"]
    for at in ("/oidc", "/oidc/logout"):
        jar.take(f"{APP}=dead{at[-3:]}; Path={path}{at}; Domain=example.com; Secure")
    jar.take(f"{APP}={real}; Path={path or '/'}; Secure" + (f"; Domain={domain}" if domain else ""))
    jar.take(
        f"{APP}=dead; Path={path}/oidc; Domain={urlsplit(issuer).hostname}", f"{APP}=host; Path={path}/oidc"
    )
    jar.take(f"{APP}={planted}; Path=/; Domain=.example.com; Secure", "other=1; Path=/; Domain=example.com")
    before = jar.shown()
    assert before.count(APP) >= 5 and planted in before
    answer = op.ask("GET", f"{path}/oidc/logout", cookie=before)
    assert b"You are signed out" in answer.body
    lines = answer.headers.all("Set-Cookie")
    assert 4 < len(lines) <= 16
    jar.take(*lines)
    assert jar.shown() == "other=1"
