"""A real browser signs in through us: nginx with TLS before two workers and a PostgreSQL, each party on its origin."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.recipes import direct_environment, recipe_command
from tests.flows.provider_setup import OTHER, OWN, PUBLIC, STAGE_NAMES, Stage, fresh_database, staged
from tests.support.app import Request, query_of, with_query
from tests.support.browser import ENTER, SPACE, Browser, trust_flags
from tests.support.nginx import Certificates, make_certificates

_users = (f"user-{os.getpid()}-{number}" for number in itertools.count())
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
#: For Node: every name of the tests is this machine's.
NAMES_ARE_HERE = (
    "data:text/javascript,import dns from 'node:dns'; const { lookup } = dns; "
    "dns.lookup = (name, ...more) => lookup(name.endsWith('.test') ? 'localhost' : name, ...more);"
)
ALLOW, DENY = "button[value=allow]", "button[value=deny]"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """One certificate for every name."""
    return make_certificates(tmp_path_factory.mktemp("certificates"), *STAGE_NAMES)


@pytest.fixture(scope="module")
def browser(certificates: Certificates) -> Iterator[Browser]:
    """Chromium."""
    with Browser(*trust_flags(certificates.certificate, *STAGE_NAMES)) as running:
        running.view(1280, 800, dark=False)
        yield running


@pytest.fixture(scope="module")
def usual_stage(
    request: pytest.FixtureRequest, browser: Browser, certificates: Certificates
) -> Iterator[Stage]:
    """A stage with the built-in consent page."""
    with fresh_database(request, "postgres") as url, staged(browser, certificates, url) as stage:
        yield stage


@pytest.fixture(scope="module")
def own_pages_stage(
    request: pytest.FixtureRequest, browser: Browser, certificates: Certificates
) -> Iterator[Stage]:
    """A stage whose consent and sign-out pages are the app's, on granian."""
    settings = {
        "server": "granian",
        "PYLON_CONSENT_URL": "{app}/consent",
        "PYLON_LOGOUT_URL": "{app}/sign-out",
    }
    with fresh_database(request, "postgres") as url, staged(browser, certificates, url, **settings) as stage:
        yield stage


def _fresh(stage: Stage) -> Iterator[Stage]:
    stage.browser.forget()
    yield stage
    assert stage.browser.console() == []


@pytest.fixture
def stage(usual_stage: Stage) -> Iterator[Stage]:
    """The stage, with a browser that knows nobody; no test may leave a complaint in its console."""
    yield from _fresh(usual_stage)


@pytest.fixture
def own_pages(own_pages_stage: Stage) -> Iterator[Stage]:
    """The same of the other stage."""
    yield from _fresh(own_pages_stage)


@pytest.fixture
def user() -> str:
    """A user whom nobody has seen before."""
    return next(_users)


def sign_in(stage: Stage, user: str, client_id: str = OWN, *, way: str = "backend", **more: str) -> Request:
    """Begin at the client, and fill in the app's form; what came of it is wherever the provider sends next."""
    request, url = stage.party.begin(client_id, **more)
    stage.browser.open(url)
    fill_in(stage, user, way)
    return request


def fill_in(stage: Stage, user: str, way: str = "backend") -> None:
    """Fill in the app's sign-in form."""
    stage.browser.wait_for(f"{stage.app.origin}/sign-in")
    stage.browser.write("[name=user_id]", user)
    stage.browser.click(f"button[value={way}]")


def silently(stage: Stage, client_id: str = OWN) -> dict[str, str]:
    """What the client is answered with `prompt=none`."""
    request, url = stage.party.begin(client_id, prompt="none")
    stage.browser.open(url)
    assert stage.land() == request.state
    return request.answer


@pytest.mark.parametrize("way", ["backend", "cookie"])
def test_a_user_signs_in_by_either_way_and_lands_beyond_the_client(stage: Stage, user: str, way: str) -> None:
    """From the client over the app's page and back, by report or by shared cookie, on to a third origin."""
    request = sign_in(stage, user, way=way)
    assert stage.land() == request.state
    assert (request.claims["sub"], request.claims["amr"]) == (user, ["pwd"])


def test_prompt_none_is_login_required_before_anybody_signed_in(stage: Stage) -> None:
    """A silent request of a stranger's browser is answered at once, without a page (Core §3.1.2.6)."""
    assert silently(stage)["error"] == "login_required"


@pytest.mark.parametrize("way", ["backend", "cookie"])
def test_prompt_none_gives_a_code_afterwards(stage: Stage, user: str, way: str) -> None:
    """After a sign-in by either way the browser is known, and needs no page (Core §3.1.2.1)."""
    sign_in(stage, user, way=way)
    stage.land()
    assert "code" in silently(stage)


@pytest.fixture(scope="module")
def device(usual_stage: Stage) -> str:
    """A client of the app's own for devices, which authenticates nowhere."""
    metadata = {
        "client_id": "screen",
        "client_name": "The screen in the hall",
        "grant_types": [DEVICE_GRANT, "refresh_token"],
        "token_endpoint_auth_method": "none",
        "first_party": True,
    }
    usual_stage.app.call("POST", "/api/oidc/clients", metadata)
    usual_stage.party.clients["screen"] = None
    return "screen"


def test_a_device_is_let_in(stage: Stage, user: str, device: str, tmp_path: Path) -> None:
    """RFC 8628 §3, docs/devices.md: openid-client shows a code; its user signs in, mistypes it once, and says yes."""
    node, program = recipe_command("device-openid-client.mjs", tmp_path)
    environ = direct_environment() | {
        "ISSUER": stage.issuer,
        "CLIENT_ID": device,
        "NODE_EXTRA_CA_CERTS": str(stage.party.verify),
    }
    with subprocess.Popen(
        [node, "--import", NAMES_ARE_HERE, program], stdout=subprocess.PIPE, text=True, env=environ
    ) as running:
        try:
            assert running.stdout is not None
            address, code = running.stdout.readline().removeprefix("Open ").strip().split(" and enter ")
            stage.browser.open(address)
            fill_in(stage, user)
            stage.browser.wait_for_title("Connect a device")
            stage.browser.write("#user_code", "BBBB-BBBB")
            stage.browser.press(ENTER)
            stage.browser.wait_for_text("not valid")
            stage.browser.write("#user_code", code.lower().replace("-", " "))
            stage.browser.press(ENTER)
            stage.browser.wait_for_title("Connect a device?")
            for words in (code, "The screen in the hall", "only if you started this"):
                assert words in stage.browser.text
            stage.browser.click(ALLOW)
            stage.browser.wait_for_title("Your device is connected")
            assert running.communicate(timeout=60)[0].strip() == f"Signed in: {user}"
        finally:
            running.kill()
    assert [line for line in stage.browser.console() if "status of 400" not in line] == []


def test_a_device_is_denied(stage: Stage, user: str, device: str) -> None:
    """RFC 8628 §3.3.1: by the complete address, and by keyboard; the user is asked even for a first-party client."""
    codes = stage.party.post(device, "/oidc/device_authorization", scope="openid").json()
    stage.browser.open(codes["verification_uri_complete"])
    fill_in(stage, user, "cookie")
    stage.browser.wait_for_title("Connect a device?")
    stage.browser.tab_to(DENY)
    stage.browser.press(SPACE)
    stage.browser.wait_for_title("Your device is not connected")
    told = stage.party.token(device, grant_type=DEVICE_GRANT, device_code=codes["device_code"])
    assert told.json()["error"] == "access_denied"


def test_a_sign_in_by_report_leaves_cookies_of_this_host_alone(stage: Stage, user: str) -> None:
    """The provider's own session goes to no sister host, to no script, over no plain connection."""
    sign_in(stage, user)
    stage.land()
    cookie = stage.browser.cookies()["__Host-pylon_provider"]
    assert cookie["domain"] == "id.example.test"
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (True, True, "Lax")
    assert not [name for name in stage.browser.cookies() if "pylon_interaction_" in name]


def test_consent_by_click(stage: Stage, user: str) -> None:
    """A stranger's client waits for the page's Allow, and its redirects beyond the form are not blocked."""
    request = sign_in(stage, user, OTHER)
    stage.browser.wait_for(f"{stage.issuer}/oidc/interaction/")
    assert "The other client" in stage.browser.text
    assert not request.answer
    stage.browser.click(ALLOW)
    assert stage.land() == request.state
    assert request.claims["sub"] == user


@pytest.mark.parametrize("key", [ENTER, SPACE], ids=["enter", "space"])
def test_consent_by_keyboard(stage: Stage, user: str, key: str) -> None:
    """Tab leads to the button, Enter and the space bar press it."""
    request = sign_in(stage, user, OTHER, way="cookie")
    stage.browser.wait_for(f"{stage.issuer}/oidc/interaction/")
    stage.browser.tab_to(ALLOW)
    stage.browser.press(key)
    stage.land()
    assert request.claims["sub"] == user


def test_consent_denied(stage: Stage, user: str) -> None:
    """The other button tells the client `access_denied`, with its `state` (RFC 6749 §4.1.2.1)."""
    request = sign_in(stage, user, OTHER)
    stage.browser.wait_for(f"{stage.issuer}/oidc/interaction/")
    stage.browser.click(DENY)
    assert stage.land() == request.state
    assert request.answer["error"] == "access_denied"


def test_consent_is_remembered(stage: Stage, user: str) -> None:
    """Who agreed is not asked again, and a silent request of the same client succeeds."""
    sign_in(stage, user, OTHER)
    stage.browser.wait_for(f"{stage.issuer}/oidc/interaction/")
    stage.browser.click(ALLOW)
    stage.land()
    assert "code" in silently(stage, OTHER)


def test_a_reloaded_consent_page_still_works(stage: Stage, user: str) -> None:
    """Reloading shows the page again, with a form that works."""
    request = sign_in(stage, user, OTHER)
    url = stage.browser.wait_for(f"{stage.issuer}/oidc/interaction/")
    stage.browser.open(url)
    stage.browser.click(ALLOW)
    stage.land()
    assert request.claims["sub"] == user


def test_a_posted_request_knows_the_browser(stage: Stage, user: str) -> None:
    """A form that another site posts to us carries no `Lax` cookie; the user is still known (Core §3.1.2.1)."""
    sign_in(stage, user)
    stage.land()
    request, parameters = stage.party.authorization(OWN, prompt="none")
    stage.browser.open(with_query(f"{stage.party.origin}/post", parameters))
    stage.browser.click("button")
    assert stage.land() == request.state
    assert request.claims["sub"] == user


def test_userinfo_and_refresh_through_nginx(stage: Stage, user: str) -> None:
    """The tokens of a browser's sign-in give claims, and fresh tokens of the same user."""
    request = sign_in(stage, user)
    stage.land()
    fresh = stage.party.refresh(OWN, request.tokens["refresh_token"]).json()
    assert fresh["refresh_token"] != request.tokens["refresh_token"]
    told = stage.party.userinfo(fresh["access_token"]).json()
    assert told["sub"] == user
    assert told["email"] == "ada@example.com"


def test_a_single_page_client_redeems_from_its_own_origin(stage: Stage, user: str) -> None:
    """A script of another origin may call token, userinfo and revoke, and read the answers, errors included."""
    request = sign_in(stage, user, PUBLIC)
    stage.land()
    stage.browser.open(f"{stage.party.origin}/")
    script = """
        const [issuer, refresh_token] = arguments;
        const post = (path, form) => fetch(issuer + path, {method: "POST", body: new URLSearchParams(form)});
        return (async () => {
            const client_id = "own-public";
            const tokens = await (await post("/oidc/token", {grant_type: "refresh_token", refresh_token, client_id})).json();
            const authorization = {headers: {Authorization: "Bearer " + tokens.access_token}};
            const user = await (await fetch(issuer + "/oidc/userinfo", authorization)).json();
            const revoked = await post("/oidc/revoke", {token: tokens.refresh_token, client_id});
            const over = await fetch(issuer + "/oidc/userinfo", authorization);
            return [user.sub, revoked.status, over.status];
        })()"""
    found = stage.browser.run(script, stage.issuer, request.tokens["refresh_token"])
    assert found == [user, 200, 401]
    complaints = stage.browser.console()
    assert [line for line in complaints if "401" not in line] == []


def test_form_post_reaches_the_client(stage: Stage, user: str) -> None:
    """`response_mode=form_post`: the page posts itself, from our origin, and the client redirects on."""
    request = sign_in(stage, user, response_mode="form_post")
    assert stage.land() == request.state
    assert (request.method, request.claims["sub"]) == ("POST", user)


def test_form_post_without_scripts_has_a_button(stage: Stage, user: str) -> None:
    """Where scripts do not run, the user presses Continue."""
    sign_in(stage, user)
    stage.land()
    request, url = stage.party.begin(OWN, response_mode="form_post")
    stage.browser.allow_scripts(False)
    try:
        stage.browser.open(url)
        assert not request.answer
        stage.browser.click("button")
    finally:
        stage.browser.allow_scripts(True)
    assert stage.land() == request.state
    assert request.method == "POST"


def _end_session(stage: Stage, **parameters: str) -> str:
    return with_query(f"{stage.issuer}/oidc/logout", parameters)


def test_logout_with_a_hint_goes_back_to_the_client(stage: Stage, user: str) -> None:
    """A genuine hint needs no page: the user is signed out and back, with `state` (RP-Initiated Logout §2, §3)."""
    request = sign_in(stage, user)
    stage.land()
    out = f"{stage.party.origin}/out"
    hint = request.tokens["id_token"]
    stage.browser.open(_end_session(stage, id_token_hint=hint, post_logout_redirect_uri=out, state="s t&1"))
    assert query_of(stage.browser.wait_for(out)) == {"state": "s t&1"}
    assert stage.app.sessions(user) == []
    assert silently(stage)["error"] == "login_required"


def test_logout_ends_the_access_token_and_not_the_refresh_token(stage: Stage, user: str) -> None:
    """What hangs on the session is over with it; what is offline stays."""
    request = sign_in(stage, user, way="cookie")
    stage.land()
    stage.browser.open(_end_session(stage, id_token_hint=request.tokens["id_token"]))
    assert stage.party.userinfo(request.tokens["access_token"]).status_code == 401
    assert stage.party.refresh(OWN, request.tokens["refresh_token"]).status_code == 200


def test_logout_without_a_hint_asks(stage: Stage, user: str) -> None:
    """Without a hint nobody is signed out before they have said so (RP-Initiated Logout §2)."""
    sign_in(stage, user)
    stage.land()
    stage.browser.open(_end_session(stage, client_id=OWN))
    stage.browser.wait_for_title("Sign out?")
    assert len(stage.app.sessions(user)) == 1
    stage.browser.click(ALLOW)
    stage.browser.wait_for_title("You are signed out")
    assert stage.app.sessions(user) == []
    assert silently(stage)["error"] == "login_required"


def test_who_does_not_want_to_sign_out_stays(stage: Stage, user: str) -> None:
    """The other button of the confirm page changes nothing."""
    sign_in(stage, user, way="cookie")
    stage.land()
    stage.browser.open(_end_session(stage))
    stage.browser.click(DENY)
    stage.browser.wait_for_title("You are still signed in")
    assert "code" in silently(stage)


def test_prompt_login_asks_again(stage: Stage, user: str) -> None:
    """A user who is signed in signs in again, and may be somebody else now (Core §3.1.2.1)."""
    sign_in(stage, user)
    stage.land()
    second = next(_users)
    request = sign_in(stage, second, prompt="login")
    stage.land()
    assert request.claims["sub"] == second


def test_a_posted_prompt_login_asks_again(stage: Stage, user: str) -> None:
    """A request that comes by POST shows no session; the one that the user has does not pass for a fresh one."""
    sign_in(stage, user)
    stage.land()
    request, parameters = stage.party.authorization(OWN, prompt="login")
    stage.browser.open(with_query(f"{stage.party.origin}/post", parameters))
    stage.browser.click("button")
    stage.browser.wait_for(f"{stage.app.origin}/sign-in")
    assert not request.answer


def test_a_link_in_another_browser_ends_in_a_page(stage: Stage, user: str) -> None:
    """An attacker who begins and lets another browser finish gets nothing: the other browser gets a page, and no code (docs/security.md)."""
    request, url = stage.party.begin(OWN)
    stage.browser.open(url)
    interaction = query_of(stage.browser.wait_for(f"{stage.app.origin}/sign-in"))["interaction"]
    stage.browser.forget()
    stage.browser.open(stage.app.login(interaction, user))
    stage.browser.wait_for_title("This did not work")
    assert not request.answer
    assert [line for line in stage.browser.console() if "400" not in line] == []


@pytest.mark.parametrize(("button", "member"), [("allow", "code"), ("deny", "error")], ids=["allow", "deny"])
def test_the_app_asks_for_consent_on_its_own_page(
    own_pages: Stage, user: str, button: str, member: str
) -> None:
    """With PYLON_CONSENT_URL the app's page asks, by the same hand-off."""
    request = sign_in(own_pages, user, OTHER)
    own_pages.browser.wait_for(f"{own_pages.app.origin}/consent")
    assert "The other client" in own_pages.browser.text
    own_pages.browser.click(f"button[value={button}]")
    assert own_pages.land() == request.state
    assert member in request.answer


def test_logout_passes_the_apps_own_sign_out_page(own_pages: Stage, user: str) -> None:
    """With PYLON_LOGOUT_URL the app takes its own cookie back before the client has its user again."""
    request = sign_in(own_pages, user, way="cookie")
    own_pages.land()
    out = f"{own_pages.party.origin}/out"
    hint = request.tokens["id_token"]
    own_pages.browser.open(_end_session(own_pages, id_token_hint=hint, post_logout_redirect_uri=out))
    assert own_pages.browser.wait_for(out) == out
    assert "pylon_session" not in own_pages.browser.cookies()


def test_logout_without_a_way_back_ends_on_a_page_of_ours(own_pages: Stage, user: str) -> None:
    """Back from the app's sign-out page the user reads that they are signed out."""
    request = sign_in(own_pages, user)
    own_pages.land()
    own_pages.browser.open(_end_session(own_pages, id_token_hint=request.tokens["id_token"]))
    own_pages.browser.wait_for(f"{own_pages.issuer}/oidc/logout")
    own_pages.browser.wait_for_title("You are signed out")
