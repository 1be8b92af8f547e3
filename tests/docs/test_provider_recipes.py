"""The recipes by which an app hands sign-in over, and by which a relying party signs in, run against each other.

Each app of sign-in.md and each client of relying-parties.md is started as a reader would start it; `requests` plays
the browser between them.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import pytest
import requests

from tests.docs.recipes import BACKENDS, CLIENTS, HAND_OVERS, direct_environment, recipe_command
from tests.support.gunicorn import ADMIN, Gunicorn, hold_port, rsa_pem

CALLBACK = "http://localhost:9/callback"
PASSWORD = "the app's own"
VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
SECRET = hashlib.sha256(b"tests: the secret of a recipe").hexdigest()
COMMON = {
    "client_secret": SECRET,
    "redirect_uris": [CALLBACK],
    "post_logout_redirect_uris": ["http://localhost:9/"],
}
KNOWN: list[dict[str, Any]] = [
    {**COMMON, "client_id": "wiki", "client_name": "The wiki"},
    {**COMMON, "client_id": "own", "client_name": "Ours", "first_party": True},
]
STEPS = 12


class Browser:
    """As much of a browser as these pages need: redirects, cookies, forms."""

    def __init__(self) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self.headers = self._session.headers
        self.pages: list[str] = []
        self.answers: list[requests.Response] = []

    def open(self, url: str, form: dict[str, str] | None = None) -> str:
        """Open an address, or post a form there, and follow; the callback's whole address, or the page one ends on."""
        for _ in range(STEPS):
            if url.startswith("http://localhost:9/"):
                return url
            method = "GET" if form is None else "POST"
            answer = self._session.request(method, url, data=form, allow_redirects=False, timeout=20)
            self.pages.append(url)
            self.answers.append(answer)
            if answer.status_code != 303:
                return answer.text
            url, form = urljoin(url, answer.headers["Location"]), None
        raise AssertionError("one is sent around and around")

    def fill_in(self, page: str, **fields: str) -> str:
        """Post the form of the page that one ended on, with its hidden fields and these."""
        hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page)
        action = re.search(r'<form method="post" action="([^"]+)"', page)
        url = urljoin(self.pages[-1], html.unescape(action[1])) if action else self.pages[-1]
        return self.open(url, {name: html.unescape(value) for name, value in hidden} | fields)


def parameters(address: str) -> dict[str, str]:
    """What a callback was called with."""
    assert address.startswith(CALLBACK), address
    return dict(parse_qsl(urlsplit(address).query))


def authorize_url(issuer: str, client_id: str, **more: str) -> str:
    """The address that a relying party sends its user to."""
    query = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": CALLBACK,
        "scope": "openid profile",
        "state": "s",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
    }
    return f"{issuer}/oidc/authorize?{urlencode(query | more)}"


def tokens_for(issuer: str, client_id: str, code: str) -> dict[str, str]:
    """What the relying party gets for its code."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": CALLBACK,
        "code_verifier": VERIFIER,
    }
    with requests.Session() as session:
        session.trust_env = False
        answer = session.post(f"{issuer}/oidc/token", data=form, auth=(client_id, SECRET), timeout=20)
        assert answer.status_code == 200, answer.text
        found: dict[str, str] = answer.json()
        claims = session.get(
            f"{issuer}/oidc/userinfo",
            headers={"Authorization": f"Bearer {found['access_token']}"},
            timeout=20,
        )
        return found | {"name": claims.json()["name"]}


class App:
    """A recipe of sign-in.md, running, with the provider that sends browsers to it."""

    def __init__(self, name: str, provider: Gunicorn, port: int) -> None:
        self.name = name
        self.provider = provider
        self.origin = f"http://localhost:{port}"

    def sign_in(self, browser: Browser, address: str, **more: str) -> str:
        """Open the address, and fill in the app's form."""
        page = browser.open(address)
        assert browser.pages[-1].startswith(f"{self.origin}/sign-in?interaction="), page
        return browser.fill_in(page, **({"user_id": "ada", "password": PASSWORD} | more))


@contextmanager
def running(name: str, folder: Path) -> Iterator[App]:
    """A provider that sends its users to this recipe."""
    holder = hold_port()
    port = holder.getsockname()[1]
    origin = f"http://localhost:{port}"
    with Gunicorn(
        PYLON_DEV_MODE="1",
        PYLON_OIDC_PRIVATE_KEY=rsa_pem(),
        PYLON_ADMIN_TOKEN=ADMIN,
        PYLON_OIDC_CLIENTS=json.dumps(KNOWN),
        PYLON_LOGIN_URL=f"{origin}/sign-in",
        PYLON_CONSENT_URL=f"{origin}/consent" if "backend" in name else None,
        PYLON_LOGOUT_URL=f"{origin}/sign-out" if "cookie" in name else None,
    ) as provider:
        process = subprocess.Popen(
            recipe_command(name, folder),
            env={
                **direct_environment(),
                "PYLON_URL": provider.origin,
                "PYLON_ADMIN_TOKEN": ADMIN,
                "APP_PASSWORD": PASSWORD,
                "APP_PORT": str(port),
            },
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_for(port, process)
            yield App(name, provider, port)
        finally:
            process.terminate()
            process.wait(20)
            holder.close()


def wait_for(port: int, process: subprocess.Popen[bytes], timeout_s: float = 30) -> None:
    """Wait until the recipe answers."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        assert process.poll() is None, f"it ended with {process.returncode}"
        with suppress(OSError):
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/")
            connection.getresponse().read()
            connection.close()
            return
        time.sleep(0.05)
    raise AssertionError("it did not answer")


@pytest.fixture(scope="module", params=HAND_OVERS)
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """Each app of sign-in.md in turn."""
    with running(request.param, tmp_path_factory.mktemp("app")) as found:
        yield found


def test_a_user_signs_in_through_the_app(app: App) -> None:
    """Either recipe of sign-in.md brings a code for the user that the app signed in, and later requests need no page."""
    issuer, browser = app.provider.origin, Browser()
    answer = parameters(app.sign_in(browser, authorize_url(issuer, "own")))
    assert (answer["state"], answer["iss"]) == ("s", issuer)
    assert tokens_for(issuer, "own", answer["code"])["name"] == "Ada"
    assert "code" in parameters(browser.open(authorize_url(issuer, "own", prompt="none")))


def test_signing_in_anew_is_done_anew(app: App) -> None:
    """With `prompt=login` a user who is signed in comes to the app's page, and the new sign-in fits."""
    issuer, browser = app.provider.origin, Browser()
    app.sign_in(browser, authorize_url(issuer, "own"))
    assert "code" in parameters(app.sign_in(browser, authorize_url(issuer, "own", prompt="login")))


def test_a_wrong_password_signs_nobody_in(app: App) -> None:
    """The app's page is shown again, and nobody comes back with a code."""
    browser = Browser()
    page = app.sign_in(browser, authorize_url(app.provider.origin, "own"), password="wrong")
    assert 'name="password"' in page or "name='password'" in page


def test_a_sign_in_begun_elsewhere_gives_nobody_a_code(app: App) -> None:
    """One browser begins, another signs in by its link: it gets an error page, and the first is sent to sign in again."""
    issuer, first, second = app.provider.origin, Browser(), Browser()
    first.open(authorize_url(issuer, "own"))
    page = second.fill_in(second.open(first.pages[-1]), user_id="ada", password=PASSWORD)
    assert "begun in another browser" in page
    back = second.pages[-1].partition("?")[0]
    first.open(back)
    assert first.pages[-1].startswith(f"{app.origin}/sign-in?")


@pytest.mark.parametrize("app", BACKENDS, indirect=True)
def test_the_app_asks_for_consent_on_its_own_page(app: App) -> None:
    """By backend calls: the consent page names the client and the scopes, and a yes is remembered."""
    issuer, browser = app.provider.origin, Browser()
    page = app.sign_in(browser, authorize_url(issuer, "wiki"))
    assert browser.pages[-1].startswith(f"{app.origin}/consent?interaction=")
    assert "You are ada. May The wiki have: openid profile?" in page
    assert "code" in parameters(browser.fill_in(page, decision="allow"))
    assert "code" in parameters(browser.open(authorize_url(issuer, "wiki", prompt="none")))


@pytest.mark.parametrize("app", BACKENDS, indirect=True)
@pytest.mark.parametrize("client_id", ["own", "wiki"])
def test_a_no_reaches_the_client(app: App, client_id: str) -> None:
    """By backend calls: a user who says no, at sign-in or at consent, sends the client `access_denied`."""
    issuer, browser = app.provider.origin, Browser()
    address = authorize_url(issuer, client_id, prompt="consent" if client_id == "wiki" else "login")
    page = browser.open(address) if client_id == "own" else app.sign_in(browser, address)
    answer = parameters(browser.fill_in(page, decision="deny"))
    assert (answer["error"], answer["iss"]) == ("access_denied", issuer)


@pytest.mark.parametrize("app", BACKENDS, indirect=True)
def test_the_consent_page_asks_nobody_else(app: App) -> None:
    """By backend calls: who signed in to the app meanwhile is not asked for another user, nor answers for them."""
    issuer, browser = app.provider.origin, Browser()
    page = app.sign_in(browser, authorize_url(issuer, "wiki", prompt="login consent"))
    asked_at = browser.pages[-1]
    app.sign_in(browser, authorize_url(issuer, "own", prompt="login"), user_id="bob")
    assert "for another user" in browser.open(asked_at)
    browser.pages.append(asked_at)
    assert "for another user" in browser.fill_in(page, decision="allow")


@pytest.mark.parametrize("app", BACKENDS, indirect=True)
def test_the_consent_page_is_answered_by_itself_alone(app: App) -> None:
    """By backend calls: a form without the page's token, or that another site sent, shows the page again; nobody frames it."""
    issuer, browser = app.provider.origin, Browser()
    page = app.sign_in(browser, authorize_url(issuer, "wiki", prompt="login consent"))
    asked_at = browser.pages[-1]
    interaction = dict(parse_qsl(urlsplit(asked_at).query))["interaction"]
    for token in ({}, {"token": "x"}):
        answer = browser.open(asked_at, {"interaction": interaction, "decision": "allow"} | token)
        assert "May The wiki have" in answer
    for site in ("cross-site", "same-site"):
        browser.headers["Sec-Fetch-Site"] = site
        browser.pages.append(asked_at)
        assert "May The wiki have" in browser.fill_in(page, decision="allow")
    browser.headers["Sec-Fetch-Site"] = "same-origin"
    assert browser.answers[-1].headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    browser.pages.append(asked_at)
    assert "code" in parameters(browser.fill_in(page, decision="allow"))


@pytest.mark.parametrize("app", BACKENDS, indirect=True)
def test_a_sign_in_that_is_over_is_told(app: App) -> None:
    """By backend calls: an interaction that is not there any more is a page, not a failure."""
    assert "This sign-in is over" in Browser().open(f"{app.origin}/sign-in?interaction=none")


@pytest.mark.parametrize("app", ["hand-over-cookie.py"], indirect=True)
def test_the_user_signs_out_of_app_and_provider(app: App, subtests: pytest.Subtests) -> None:
    """By the shared cookie: signing out at a client passes the app's page, and ends at the client's, wherever that is.

    The app knows of none of the clients; one is added while it runs.
    """
    issuer = app.provider.origin
    added = {**COMMON, "client_id": "added", "first_party": True}
    added["post_logout_redirect_uris"] = ["http://localhost:9/added?kept=1"]
    headers = {"Authorization": f"Bearer {ADMIN}"}
    answered = requests.post(f"{issuer}/api/oidc/clients", json=added, headers=headers, timeout=20)
    assert answered.status_code == 201, answered.text
    for client in (*KNOWN, added):
        with subtests.test(client["client_id"]):
            _signs_out(app, str(client["client_id"]), client["post_logout_redirect_uris"][0])


def _signs_out(app: App, client_id: str, back: str) -> None:
    issuer, browser = app.provider.origin, Browser()
    page = app.sign_in(browser, authorize_url(issuer, client_id))
    if not page.startswith(CALLBACK):  # users are asked; the service has a page for that
        page = browser.fill_in(page, decision="allow")
    hint = tokens_for(issuer, client_id, parameters(page)["code"])["id_token"]
    query = {"id_token_hint": hint, "post_logout_redirect_uri": back, "state": "x"}
    ended = browser.open(f"{issuer}/oidc/logout?{urlencode(query)}")
    assert ended == f"{back}{'&' if '?' in back else '?'}state=x"
    assert browser.pages[-2].startswith(f"{app.origin}/sign-out?return_to=")
    assert browser.pages[-1].startswith(f"{issuer}/oidc/logout?signed_out=")
    after = parameters(browser.open(authorize_url(issuer, client_id, prompt="none")))
    assert after["error"] == "login_required"


@pytest.mark.parametrize("app", ["hand-over-cookie.py"], indirect=True)
@pytest.mark.parametrize("path", ["sign-in", "sign-out"])
def test_the_app_sends_nobody_elsewhere(app: App, path: str) -> None:
    """By the shared cookie: an address that is not the provider's is not followed."""
    assert Browser().open(f"{app.origin}/{path}?return_to=https://evil.example/") == "Not from here."


@pytest.fixture(scope="module")
def provider() -> Iterator[Gunicorn]:
    """A provider with the sign-in page of dev mode."""
    with Gunicorn(
        PYLON_DEV_MODE="1",
        PYLON_OIDC_PRIVATE_KEY=rsa_pem(),
        PYLON_ADMIN_TOKEN=ADMIN,
        PYLON_OIDC_CLIENTS=json.dumps(KNOWN),
    ) as server:
        yield server


def drive(
    name: str, provider: Gunicorn, folder: Path, *, secret: str = SECRET, change: tuple[str, str] = ("", "")
) -> tuple[int, str, str]:
    """Run a client of relying-parties.md: open what it prints, sign in as alice, tell it where one ended.

    Args:
        name: The recipe.
        provider: Where it signs in.
        folder: Where it is saved.
        secret: What it believes its secret to be.
        change: What to replace in the address that it gets, and the replacement.

    Returns:
        Its exit code, its last line, and what it complained of.
    """
    process = subprocess.Popen(
        recipe_command(name, folder),
        env={
            **direct_environment(),
            "ISSUER": provider.origin,
            "REDIRECT_URI": CALLBACK,
            "CLIENT_ID": "own",
            "CLIENT_SECRET": secret,
        },
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix("Open ").strip()
            assert url, process.communicate(timeout=90)[1]
            browser = Browser()
            page = browser.open(url)
            assert "Development sign-in" in page
            callback = browser.fill_in(page, user_id="alice", name="Alice Liddell")
            assert "code" in parameters(callback)
            output, complaint = process.communicate(callback.replace(*change) + "\n", timeout=60)
        finally:
            process.kill()
    return process.returncode, output.strip(), complaint


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_learns_who_its_user_is(name: str, provider: Gunicorn, tmp_path: Path) -> None:
    """A client of relying-parties.md completes code, PKCE, ID token and userinfo with a stock library."""
    code, line, complaint = drive(name, provider, tmp_path)
    assert (code, line) == (0, "alice Alice Liddell"), complaint


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_needs_its_secret(name: str, provider: Gunicorn, tmp_path: Path) -> None:
    """With another secret, a client of relying-parties.md learns nothing."""
    code, line, complaint = drive(name, provider, tmp_path, secret="x" * 40)
    assert code != 0
    assert line == ""
    assert "invalid_client" in complaint or "status: 401" in complaint


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_looks_at_the_state(name: str, provider: Gunicorn, tmp_path: Path) -> None:
    """An answer with another `state` is refused by a client of relying-parties.md."""
    code, line, complaint = drive(name, provider, tmp_path, change=("state=", "state=x"))
    assert code != 0
    assert line == ""
    assert "state" in complaint.lower()
