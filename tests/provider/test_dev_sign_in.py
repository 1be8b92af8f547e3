"""Dev mode: a sign-in page where anyone can be any user, only for this machine."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.driver import refused
from tests.provider.browser import Browser, Landing, query_of
from tests.provider.conftest import ServeProvider
from tests.provider.driver import CALLBACK, Provider
from tests.support.cases import each_of

LOCAL = "http://localhost:4321"
PEERS = each_of(
    "environ",
    [
        {"REMOTE_ADDR": "203.0.113.9"}, {"REMOTE_ADDR": "10.0.0.1"}, {"REMOTE_ADDR": ""}, {"REMOTE_ADDR": "nonsense"},
        {"HTTP_X_FORWARDED_FOR": "127.0.0.1"}, {"HTTP_FORWARDED": "for=127.0.0.1"}, {"HTTP_X_REAL_IP": "127.0.0.1"},
        {"HTTP_X_FORWARDED_HOST": "localhost"}, {"HTTP_VIA": "1.1 proxy"}, {"HTTP_X_FORWARDED_PROTO": "http"},
        {"HTTP_X_FORWARDED_PREFIX": "/"}, {"HTTP_X_FORWARDED_PORT": "80"}, {"HTTP_X_FORWARDED_SERVER": "proxy"},
        {"HTTP_CF_CONNECTING_IP": "127.0.0.1"}, {"HTTP_TRUE_CLIENT_IP": "127.0.0.1"},
    ],
)  # fmt: skip


class LocalBrowser(Browser):
    """A browser on this machine."""

    def ask(self, *args: Any, **options: Any) -> Any:
        ask = self._house.ask
        try:
            self._house.ask = lambda *a, **k: ask(*a, **k, environ={"REMOTE_ADDR": "127.0.0.1"})
            return super().ask(*args, **options)
        finally:
            self._house.ask = ask


@pytest.fixture
def dev(serve_provider: ServeProvider) -> Provider:
    """A provider in dev mode."""
    return serve_provider(PYLON_DEV_MODE="1", PYLON_OIDC_ISSUER=LOCAL, PYLON_LOGIN_URL=None)


@pytest.fixture
def browser(dev: Provider) -> LocalBrowser:
    """A browser on this machine."""
    return LocalBrowser(dev.house, LOCAL)


def _sign_in(dev: Provider, browser: Browser, landing: Landing, **fields: str) -> Landing:
    assert landing.is_page() and landing.action == f"{LOCAL}/dev/sign-in"
    return browser.submit(landing, **fields)


def test_a_whole_flow_with_the_dev_page(dev: Provider, browser: LocalBrowser) -> None:
    """docs/endpoints.md: without `PYLON_LOGIN_URL` the built-in page at `/dev/sign-in` signs in; plain http, so no `Secure`."""
    rp = dev.rp()
    request = rp.request(scope="openid profile email")
    landing = _sign_in(dev, browser, browser.go(request.url), user_id="alice", name="Alice", email="a@b.c")
    tokens = rp.redeem(request, dev.answered(request, landing)["code"]).json()
    assert rp.verified(tokens["id_token"])["amr"] == ["dev"]
    assert rp.userinfo(tokens["access_token"]).json() == {"sub": "alice", "name": "Alice", "email": "a@b.c"}
    assert "secure" not in browser.cookies["pylon_session", "/"].attributes


@PEERS
@each_of(("method", "path"), [("GET", "/"), ("GET", "/dev/sign-in"), ("POST", "/dev/sign-in")])
def test_it_answers_this_machine_alone(
    dev: Provider, environ: dict[str, str], method: str, path: str
) -> None:
    """docs/endpoints.md: to a loopback peer without forwarding headers; anybody else finds nothing."""
    answer = dev.ask(method, path, environ={"REMOTE_ADDR": "127.0.0.1"} | environ)
    refused(answer, 404, "NOT_FOUND")


@each_of("path", ["/", "/dev/sign-in"])
def test_outside_dev_mode_there_is_none(op: Provider, path: str) -> None:
    """docs/endpoints.md: only dev mode has these pages."""
    for method in ("GET", "POST"):
        refused(op.ask(method, path, environ={"REMOTE_ADDR": "127.0.0.1"}), 404, "NOT_FOUND")


@each_of("peer", ["127.0.0.1", "127.8.8.8", "::1"])
def test_the_home_page_says_what_runs_here(dev: Provider, peer: str) -> None:
    """docs/endpoints.md: at `/` a page that links discovery and JWKS."""
    answer = dev.ask("GET", "/", environ={"REMOTE_ADDR": peer})
    assert answer.status == 200
    for link in ("/.well-known/openid-configuration", "/oidc/jwks"):
        assert f'href="{LOCAL}{link}"' in answer.body.decode()


@each_of("changes", [{"form_token": ""}, {"form_token": "x"}, {"form_token": "é"}])
def test_the_form_answers_its_token(dev: Provider, browser: LocalBrowser, changes: dict[str, str]) -> None:
    """docs/security.md: a form of another site's making signs nobody in."""
    page = browser.go(f"{LOCAL}/dev/sign-in")
    landing = browser.submit(page, user_id="alice", **changes)
    assert landing.is_page() and not browser.cookie_names("pylon_session")


def test_its_cookie_has_the_issuers_path(serve_provider: ServeProvider) -> None:
    """docs/endpoints.md: the path of our cookies is the issuer's path."""
    op = serve_provider(PYLON_DEV_MODE="1", PYLON_OIDC_ISSUER=f"{LOCAL}/tenant", PYLON_LOGIN_URL=None)
    answer = op.ask("GET", "/tenant/dev/sign-in", environ={"REMOTE_ADDR": "127.0.0.1"})
    assert "; Path=/tenant;" in answer.headers["Set-Cookie"]


@each_of(
    "headers",
    [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}],
)
def test_another_site_cannot_sign_in(dev: Provider, browser: LocalBrowser, headers: dict[str, str]) -> None:
    """docs/security.md: the form passes a same-origin check."""
    page = browser.go(f"{LOCAL}/dev/sign-in")
    browser.go(page.action, form=page.fields | {"user_id": "alice"}, headers=headers)
    assert not browser.cookie_names("pylon_session")


@each_of(
    "back",
    ["https://evil.example/", "//evil.example/", f"{LOCAL}.evil.example/oidc/interaction/x", f"{LOCAL}@evil.example/", "javascript:alert(1)",
     "/oidc/interaction/x", f"{LOCAL}/dev/sign-in", ""],
)  # fmt: skip
def test_nobody_is_sent_elsewhere(dev: Provider, browser: LocalBrowser, back: str) -> None:
    """docs/security.md: no open redirect: back to an interaction, or home."""
    page = browser.go(f"{LOCAL}/dev/sign-in")
    answer = browser.ask("POST", page.action, form=page.fields | {"user_id": "alice", "return_to": back})
    assert answer.status == 303 and answer.headers["Location"] == f"{LOCAL}/"


@each_of("user_id", ["", "a b", "é", "x" * 256, "\0"])
def test_a_user_id_is_a_user_id(dev: Provider, browser: LocalBrowser, user_id: str) -> None:
    """docs/endpoints.md: 1–255 visible ASCII characters; the page says so, and nobody is signed in."""
    landing = browser.submit(browser.go(f"{LOCAL}/dev/sign-in"), user_id=user_id)
    assert landing.is_page() and not browser.cookie_names("pylon_session")


@each_of("changes", [{"user_id": "a b"}, {"form_token": "x"}])
def test_what_was_typed_stays(dev: Provider, browser: LocalBrowser, changes: dict[str, str]) -> None:
    """Dev mode has a sign-in page; nobody types it all again after an error (WCAG 2.2 §3.3.7), escaped."""
    typed = {"user_id": "ada", "name": '"><script>A', "email": "a@b.c"} | changes
    landing = browser.submit(browser.go(f"{LOCAL}/dev/sign-in"), **typed)
    for name in ("user_id", "name", "email"):
        assert landing.fields[name] == typed[name]
    assert "<script" not in landing.text


def test_what_is_typed_is_escaped(dev: Provider, browser: LocalBrowser) -> None:
    """docs/security.md: nothing of the address or the form gets into the page as markup."""
    hostile = "%22%3E%3Cscript%3Ealert(1)%3C/script%3E"
    landing = browser.go(f"{LOCAL}/dev/sign-in?interaction={hostile}&return_to={hostile}")
    assert landing.is_page() and "<script" not in landing.text


def test_prompt_login_means_the_page_again(dev: Provider, browser: LocalBrowser) -> None:
    """docs/conformance.md 2.17: with the dev page too, prompt=login asks again."""
    request = dev.rp().request()
    landing = _sign_in(dev, browser, browser.go(request.url), user_id="alice")
    assert landing.is_at(CALLBACK) and "code" in query_of(landing.url)
    landing = _sign_in(dev, browser, browser.go(dev.rp().request(prompt="login").url), user_id="bob")
    assert "code" in query_of(landing.url)
