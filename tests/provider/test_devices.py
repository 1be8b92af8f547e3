"""A device without a browser is let in by its user on another one: codes, page, decision, tokens (RFC 8628)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import pytest

from service.protocol.strangers import parse_stranger
from service.records.clients import new_record
from service.records.scopes import STANDARD_SCOPES
from service.storage.interface import Store
from tests.http.driver import refused, unverified_claims
from tests.provider.browser import FORM, Browser, Landing, query_of
from tests.provider.conftest import ServeProvider
from tests.provider.driver import CALLBACK, ISSUER, LOGIN_URL, SECRET, Provider
from tests.support.cases import each_of
from tests.support.gunicorn import Answer, rsa_pem
from tests.support.told import Listener

GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
PAGE: Final = f"{ISSUER}/oidc/device"
API: Final = "https://api.example.com"
TV: Final[dict[str, Any]] = {
    "client_id": "c-tv",
    "client_name": "<b>The TV</b>",
    "grant_types": [GRANT, "refresh_token"],
    "token_endpoint_auth_method": "none",
    "first_party": True,
}
CLIENTS: Final[list[dict[str, Any]]] = [
    TV,
    TV | {"client_id": "c-other"},
    {"client_id": "c-secret", "client_secret": SECRET, "grant_types": [GRANT]},
    {"client_id": "c-basic", "client_secret": SECRET, "redirect_uris": [CALLBACK], "first_party": True},
]


@pytest.fixture
def op(serve_provider: ServeProvider) -> Provider:
    """A provider with clients for devices, and one that is not for devices."""
    return serve_provider(CLIENTS)


@pytest.fixture
def browser(op: Provider) -> Browser:
    """A browser whose user is signed in."""
    browser = op.browser()
    op.app.sign_in(browser)
    return browser


def start(op: Provider, client_id: str = "c-tv", **more: str) -> dict[str, Any]:
    """A device asks for its codes."""
    answer = op.rp(client_id).post("/oidc/device_authorization", {"scope": "openid"} | more)
    assert answer.status == 200, answer
    codes: dict[str, Any] = answer.json()
    return codes


def poll(op: Provider, codes: dict[str, Any], client_id: str = "c-tv", **more: str) -> Answer:
    """A device asks whether its user has decided."""
    form = {"grant_type": GRANT, "device_code": codes["device_code"]} | more
    return op.rp(client_id).post("/oidc/token", form)


def error_of(answer: Answer) -> str:
    """The error of an answer."""
    assert answer.status == 400, answer
    return str(answer.json()["error"])


def enter(browser: Browser, code: str) -> Landing:
    """Open the page, and enter a code."""
    return browser.submit(browser.go(PAGE), user_code=code)


def asks(landing: Landing) -> bool:
    """Whether the page asks for a decision."""
    return landing.is_page() and 'value="allow"' in landing.text


def test_a_device_is_let_in(op: Provider, browser: Browser) -> None:
    """RFC 8628 §3: the device waits, its user allows it, and it gets the user's tokens once; the ID token has no nonce."""
    codes = start(op, scope="openid email offline_access")
    assert error_of(poll(op, codes)) == "authorization_pending"
    page = enter(browser, codes["user_code"])
    assert asks(page)
    assert error_of(poll(op, codes)) == "slow_down"
    done = browser.submit(page, decision="allow")
    assert done.is_page() and "connected" in done.text
    answer = poll(op, codes)
    assert answer.status == 200, answer
    assert (answer.headers["Cache-Control"], answer.headers["Pragma"]) == ("no-store", "no-cache")
    tokens = answer.json()
    assert (tokens["token_type"], tokens["scope"]) == ("Bearer", "openid email offline_access")
    claims = op.rp("c-tv").verified(tokens["id_token"])
    assert (claims["sub"], claims["aud"], "nonce" in claims) == ("ada", "c-tv", False)
    assert {"auth_time", "sid", "at_hash"} <= claims.keys()
    assert op.rp("c-tv").userinfo(tokens["access_token"]).json()["sub"] == "ada"
    assert op.rp("c-tv").refresh(tokens["refresh_token"]).status == 200
    assert error_of(poll(op, codes)) == "invalid_grant"
    assert op.rp("c-tv").userinfo(tokens["access_token"]).status == 200


def test_the_answer_has_the_codes(op: Provider) -> None:
    """RFC 8628 §3.2: the members, never stored by a cache; every letter of the code is one of 20 without vowels."""
    answer = op.rp("c-tv").post("/oidc/device_authorization", {"scope": "openid"})
    assert (answer.headers["Cache-Control"], answer.headers["Pragma"]) == ("no-store", "no-cache")
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    codes = answer.json()
    assert re.fullmatch(r"[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}", codes["user_code"])
    assert codes == {
        "device_code": codes["device_code"],
        "user_code": codes["user_code"],
        "verification_uri": PAGE,
        "verification_uri_complete": f"{PAGE}?user_code={codes['user_code']}",
        "expires_in": 600,
        "interval": 5,
    }
    logged = op.house.log.getvalue()
    assert codes["device_code"] not in logged and codes["user_code"] not in logged


@each_of(
    ("client_id", "form", "status", "error"),
    [
        ("c-basic", {"scope": "openid"}, 400, "unauthorized_client"),
        ("nobody", {"scope": "openid"}, 401, "invalid_client"),
        ("c-tv", {}, 400, "invalid_scope"),
        ("c-tv", {"scope": "unknown"}, 400, "invalid_scope"),
        ("c-tv", {"scope": "openid", "resource": "https://unknown.example.com"}, 400, "invalid_target"),
        ("c-tv", {"scope": "openid", "resource": "x" * 9000}, 400, "invalid_request"),
    ],
)
def test_a_refused_device(
    op: Provider, client_id: str, form: dict[str, str], status: int, error: str
) -> None:
    """RFC 8628 §3.1, §3.2: the client and its scope are checked as for a code, before anything is stored."""
    answer = op.rp(client_id).post("/oidc/device_authorization", form)
    assert (answer.status, answer.json()["error"]) == (status, error)
    assert answer.headers["Cache-Control"] == "no-store"


def test_the_endpoint_answers_as_the_token_endpoint(op: Provider) -> None:
    """docs/errors.md: another method, type, repeated parameters and a wrong secret have the shape of RFC 6749 §5.2."""
    path = "/oidc/device_authorization"
    refused(op.ask("GET", path), 405, "METHOD_NOT_ALLOWED")
    for body, kind in ((b"{}", "application/json"), (b"scope=a&scope=b&client_id=c-tv", FORM)):
        answer = op.ask("POST", path, body=body, content_type=kind)
        assert (answer.status, answer.json()["error"]) in ((400, "invalid_request"), (415, "invalid_request"))
    answer = op.rp("c-secret", secret=SECRET[::-1]).post(path, {"scope": "openid"})
    assert (answer.status, answer.json()["error"]) == (401, "invalid_client")
    assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert op.ask("OPTIONS", path).headers["Access-Control-Allow-Methods"] == "POST, OPTIONS"
    assert op.rp("c-secret").post(path, {"scope": "openid"}).status == 200


def test_discovery_names_it(op: Provider) -> None:
    """RFC 8628 §4; and a client has the grant type only where it is listed (RFC 7591 §2)."""
    document = op.ask("GET", "/.well-known/openid-configuration").json()
    assert document["device_authorization_endpoint"] == f"{ISSUER}/oidc/device_authorization"
    assert GRANT in document["grant_types_supported"]
    answer = op.rp().post("/oidc/token", {"grant_type": GRANT, "device_code": "x"})
    assert error_of(answer) == "unauthorized_client"


def test_how_often_a_device_may_ask(op: Provider) -> None:
    """RFC 8628 §3.5: each time that is too early makes the interval 5 s longer, and it stays so."""
    codes = start(op)
    answers = []
    for wait_s in (0, 5, 4, 9, 10, 14, 15, 19, 20):
        op.clock.advance(wait_s)
        answers.append(error_of(poll(op, codes)))
    early, waits = "slow_down", "authorization_pending"
    #        interval: 5      5      5→10   10→15  15→20  20→25  ...
    assert answers == [waits, waits, early, early, early, early, early, early, early]
    op.clock.advance(40)
    assert error_of(poll(op, codes)) == waits


def test_a_device_that_waits_too_long(op: Provider, browser: Browser) -> None:
    """RFC 8628 §3.5: after 600 s its code has expired, and so has what the user sees, even on an open page."""
    codes, late = start(op), start(op)
    page = enter(browser, late["user_code"])
    op.clock.advance(599)
    assert error_of(poll(op, codes)) == "authorization_pending"
    assert asks(enter(browser, codes["user_code"]))
    op.clock.advance(1)
    assert error_of(poll(op, codes)) == "expired_token"
    assert not asks(enter(browser, codes["user_code"]))
    assert browser.submit(page, decision="allow").is_page(400)
    assert error_of(poll(op, late)) == "expired_token"
    op.clock.advance(86_400)
    assert error_of(poll(op, codes)) == "invalid_grant"


def test_allowed_and_not_fetched_in_time(op: Provider, browser: Browser) -> None:
    """RFC 8628 §3.2: the device code expires, whatever the user has said."""
    codes = start(op)
    browser.submit(enter(browser, codes["user_code"]), decision="allow")
    op.clock.advance(600)
    assert error_of(poll(op, codes)) == "expired_token"


def test_denied(op: Provider, browser: Browser) -> None:
    """RFC 8628 §3.5: `access_denied`, and the code is used."""
    codes = start(op)
    done = browser.submit(enter(browser, codes["user_code"]), decision="deny")
    assert done.is_page() and "not connected" in done.text
    assert [error_of(poll(op, codes)) for _ in range(2)] == ["access_denied", "access_denied"]
    assert enter(browser, codes["user_code"]).is_page(400)
    assert op.app.grants() == []


def test_a_device_code_is_good_for_its_client_alone(op: Provider, browser: Browser) -> None:
    """RFC 8628 §3.4: another client's, a damaged, and a missing one. What is refused changes nothing."""
    codes = start(op)
    assert error_of(poll(op, codes, "c-other")) == "invalid_grant"
    browser.submit(enter(browser, codes["user_code"]), decision="allow")
    assert error_of(poll(op, codes, "c-other")) == "invalid_grant"
    wrong = (
        codes["device_code"][:30]
        + ("A" if codes["device_code"][30] != "A" else "B")
        + codes["device_code"][31:]
    )
    for device_code in (wrong, "x", codes["user_code"]):
        assert error_of(poll(op, codes, device_code=device_code)) == "invalid_grant"
    assert error_of(op.rp("c-tv").post("/oidc/token", {"grant_type": GRANT})) == "invalid_request"
    assert poll(op, codes).status == 200


def test_a_device_code_is_no_other_handle(op: Provider, browser: Browser) -> None:
    """A handle of one kind is never taken for another: RFC 6749 §10.10, docs/architecture.md."""
    codes = start(op)
    browser.submit(enter(browser, codes["user_code"]), decision="allow")
    form = {"grant_type": "refresh_token", "refresh_token": codes["device_code"]}
    assert error_of(op.rp("c-tv").post("/oidc/token", form)) == "invalid_grant"
    assert op.rp("c-tv").userinfo(codes["device_code"]).status == 401


@each_of("spelling", ["{a}{b}", "{a}-{b}", "{a} {b}", "  {a}-{b} ", "{a}\u2013{b}", "{c}", "{a}.{b}"])
def test_how_a_code_may_be_written(op: Provider, browser: Browser, spelling: str) -> None:
    """RFC 8628 §6.1: case, spaces, hyphens and other punctuation do not matter."""
    code = start(op)["user_code"]
    a, b = code.split("-")
    assert asks(enter(browser, spelling.format(a=a, b=b, c=code.lower())))


def test_the_page_says_what_is_asked(op: Provider, browser: Browser) -> None:
    """RFC 8628 §5.4: the code, who asks for what, the warning; escaped, without a script, in no frame, not cached."""
    codes = start(op, scope="openid email offline_access")
    page = enter(browser, codes["user_code"])
    for words in (codes["user_code"], "&lt;b&gt;The TV&lt;/b&gt;", "see your email address", "stay connected",
                  "only if you started this"):  # fmt: skip
        assert words in page.text
    assert "<script" not in page.text and "remember" not in page.text
    for shown in (page, browser.go(PAGE)):
        headers = shown.answer.headers
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"


def test_everybody_is_asked_each_time(op: Provider, browser: Browser) -> None:
    """RFC 8628 §5.4: neither `first_party` (c-tv), nor an earlier consent (c-secret), nor the complete URI skips the page."""
    for client_id in ("c-tv", "c-secret", "c-secret"):
        codes = start(op, client_id)
        page = browser.go(codes["verification_uri_complete"])
        assert asks(page) and codes["user_code"] in page.text
        assert error_of(poll(op, codes, client_id)) == "authorization_pending"
        browser.submit(page, decision="allow")
        assert poll(op, codes, client_id).status == 200


def test_a_yes_on_the_page_is_not_remembered_elsewhere(serve_provider: ServeProvider) -> None:
    """RFC 8628 §5.4: a consent for a device does not count in a browser: the user is asked again at authorize."""
    both = {"client_id": "c-both", "client_secret": SECRET, "redirect_uris": [CALLBACK]}
    op = serve_provider([both | {"grant_types": ["authorization_code", GRANT]}])
    browser = op.browser()
    op.app.sign_in(browser)
    codes = start(op, "c-both")
    browser.submit(browser.go(codes["verification_uri_complete"]), decision="allow")
    assert asks(browser.go(op.rp("c-both").request().url))


@pytest.mark.parametrize("way", ["backend", "cookie"])
def test_the_user_signs_in_first(op: Provider, way: str) -> None:
    """docs/devices.md: by report or by cookie, through the app's page; the code of the URL is looked up only then."""
    codes, browser = start(op), op.browser()
    landing = browser.go(codes["verification_uri_complete"])
    assert landing.is_at(LOGIN_URL)
    asked = op.app.call("GET", f"/api/oidc/interactions/{query_of(landing.url)['interaction']}").json()
    assert (asked["client"]["client_name"], asked["scope"], asked["step"]) == ("A device", "", "login")
    assert query_of(landing.url)["return_to"].startswith(f"{ISSUER}/oidc/interaction/")
    sign_in = op.app.by_backend if way == "backend" else op.app.by_cookie
    page = sign_in(browser, landing, "bob")
    assert asks(page) and codes["user_code"] in page.text
    browser.submit(page, decision="allow")
    assert unverified_claims(poll(op, codes).json()["id_token"])["sub"] == "bob"


def test_sign_in_without_a_code_leads_to_the_form(op: Provider) -> None:
    """RFC 8628 §3.3: the short URI; and an app that rejects the sign-in lets nobody in."""
    codes, browser = start(op), op.browser()
    page = op.app.by_backend(browser, browser.go(PAGE))
    assert page.is_page() and "user_code" in page.fields
    assert asks(browser.submit(page, user_code=codes["user_code"]))
    other = op.browser()
    landing = other.go(PAGE)
    rejected = other.go(op.app.report(op.app.interaction(landing), "reject", {}))
    assert rejected.is_page() and "not signed in" in rejected.text


def test_another_browser_cannot_go_on(op: Provider, browser: Browser) -> None:
    """RFC 9700 §4.7: the page belongs to the browser that opened it, and its form to the user who was asked."""
    codes = start(op)
    page = enter(browser, codes["user_code"])
    other = op.browser()
    op.app.sign_in(other, "mallory")
    assert other.submit(page, decision="allow").is_page(400)
    op.app.sign_in(browser, "bob")
    assert asks(browser.submit(page, decision="allow"))  # now bob is asked
    assert error_of(poll(op, codes)) == "authorization_pending"


@each_of(
    ("changes", "headers"),
    [
        ({"form_token": ""}, {"Sec-Fetch-Site": "same-origin"}),
        ({"form_token": "x" * 43}, {"Sec-Fetch-Site": "same-origin"}),
        ({}, {"Sec-Fetch-Site": "cross-site"}),
        ({}, {"Sec-Fetch-Site": "same-site"}),
        ({}, {"Origin": "https://evil.example.com"}),
    ],
)
def test_forms_of_other_sites_do_nothing(
    op: Provider, browser: Browser, changes: dict[str, str], headers: dict[str, str]
) -> None:
    """docs/endpoints.md: a code is neither looked up nor counted, and no device let in, for a form that is not ours."""
    codes = start(op)
    form = browser.go(PAGE)
    for _ in range(6):
        answer = browser.go(
            form.action, form=form.fields | {"user_code": "BBBB-BBBB"} | changes, headers=headers
        )
        assert answer.is_page(403)
    page = browser.submit(form, user_code=codes["user_code"])
    assert asks(page)
    refused_form = page.fields | {"decision": "allow"} | changes
    assert browser.go(page.action, form=refused_form, headers=headers).is_page(403)
    assert error_of(poll(op, codes)) == "authorization_pending"


@each_of("site", ["cross-site", "same-site"])
def test_links_of_other_sites_lock_nobody(op: Provider, browser: Browser, site: str) -> None:
    """docs/endpoints.md: a code in a link of another site is neither looked up nor counted: the form shows it, and sending that counts."""
    codes = start(op)
    headers = {"Sec-Fetch-Site": site}
    for code in ["BBBB-BBBB"] * 6 + [codes["user_code"]]:
        form = browser.go(f"{PAGE}?user_code={code}", headers=headers)
        assert form.is_page(200) and not asks(form) and f'value="{code}"' in form.text
    assert asks(browser.submit(form, user_code=codes["user_code"].lower()))
    for code in ("x", '"><b>', "ABCD-EFGHI"):  # no code: it is not shown either
        assert "<b>" not in browser.go(f"{PAGE}?user_code={quote(code)}", headers=headers).text
    for site_of_ours in ("none", "same-origin"):
        link = browser.go(codes["verification_uri_complete"], headers={"Sec-Fetch-Site": site_of_ours})
        assert asks(link)


@each_of("way", ["cookie", "backend"])
def test_a_sign_in_at_another_site_goes_on(op: Provider, way: str) -> None:
    """docs/devices.md: with the complete address, the user who comes back from the app's sign-in page is asked at once, for this session only."""
    codes, browser = start(op), op.browser()
    at_app = browser.go(codes["verification_uri_complete"], headers={"Sec-Fetch-Site": "none"})
    if way == "cookie":
        op.app.sign_in(browser)
        back = query_of(at_app.url)["return_to"]
    else:
        back = op.app.report(op.app.interaction(at_app), "login", {"user_id": "ada"})
    other = op.browser()
    op.app.sign_in(other, "mallory")
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert asks(browser.go(back, headers=headers))
    (url,) = [url for url, _ in browser.seen if url.startswith(f"{PAGE}?") and "form_token" in url]
    assert not asks(other.go(url, headers=headers))


def test_a_form_of_another_session_does_nothing(op: Provider, browser: Browser) -> None:
    """docs/endpoints.md: a form that one user got is refused from another user."""
    other = op.browser()
    op.app.sign_in(other, "mallory")
    assert browser.submit(other.go(PAGE), user_code=start(op)["user_code"]).is_page(403)


def test_five_wrong_codes_lock_a_user(op: Provider, browser: Browser) -> None:
    """RFC 8628 §5.1: in 10 minutes, also for a right code, by form and by URL, in every browser of theirs; it stops nobody else."""
    codes = start(op)
    for code in ("BBBB-BBBB", "AAAA-AAAA", "x", "CCCC-CCCC"):
        wrong = enter(browser, code)
        assert wrong.is_page(400) and "not valid" in wrong.text
    assert browser.go(f"{PAGE}?user_code=DDDD-DDDD").is_page(400)
    elsewhere = op.browser()
    op.app.sign_in(elsewhere)
    for who in (browser, elsewhere):
        for locked in (enter(who, codes["user_code"]), who.go(codes["verification_uri_complete"])):
            assert locked.is_page(429) and codes["user_code"] not in locked.text
            assert locked.answer.headers["Retry-After"] == "600"
    told = [line for line in op.house.lines if line["event"] == "device_codes_locked"]
    assert [(line["user"], line["by"], line["level"]) for line in told] == [("ada", "user", "warning")]
    bob = op.browser()
    op.app.sign_in(bob, "bob")
    assert asks(enter(bob, codes["user_code"]))
    op.clock.advance(599)
    assert enter(browser, start(op)["user_code"]).is_page(429)
    op.clock.advance(1)
    assert asks(enter(browser, start(op)["user_code"]))


def test_right_codes_do_not_count(op: Provider, browser: Browser) -> None:
    """docs/devices.md: a user who connects many devices is not locked out."""
    for _ in range(4):
        assert enter(browser, "BBBB-BBBB").is_page(400)
    for _ in range(7):
        assert asks(enter(browser, start(op)["user_code"]))
    assert enter(browser, "BBBB-BBBB").is_page(400)
    assert enter(browser, "BBBB-BBBB").is_page(429)


@each_of(
    ("before", "after", "locked"),
    [
        ("198.51.100.7", "198.51.100.7", True),
        ("198.51.100.7", "198.51.100.8", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
    ],
)
def test_twenty_wrong_codes_lock_an_address(
    serve_provider: ServeProvider, before: str, after: str, locked: bool
) -> None:
    """RFC 8628 §5.1: with any account; an IPv6 address by its /64, which is one site's."""
    op = serve_provider(CLIENTS, FORWARDED_ALLOW_IPS="203.0.113.9")

    def at(user: str, code: str, address: str) -> Answer:
        token = op.app.session(user)["token"]
        query, headers = urlencode({"user_code": code}), {"X-Forwarded-For": address}
        return op.ask("GET", "/oidc/device", query=query, cookie=token, headers=headers)

    for number in range(20):
        assert at(f"user-{number // 4}", "BBBB-BBBB", before).status == 400
    code = start(op)["user_code"]
    assert at("user-new", code, after).status == (429 if locked else 303)


def test_wrong_codes_of_strangers_do_not_count(op: Provider) -> None:
    """docs/devices.md: requests without a session lock nobody out: they are sent to sign in, and no code is looked up."""
    browser = op.browser()
    for _ in range(25):
        assert browser.go(f"{PAGE}?user_code=BBBB-BBBB").is_at(LOGIN_URL)
    op.app.sign_in(browser)
    assert asks(enter(browser, start(op)["user_code"]))


def test_two_answers_to_one_device(op: Provider, browser: Browser) -> None:
    """docs/endpoints.md: the first decision counts. The same form again gets the same page; another open page is over."""
    codes = start(op)
    one, two = (enter(browser, codes["user_code"]) for _ in range(2))
    done = browser.submit(one, decision="allow")
    assert browser.submit(one, decision="allow").text == done.text or "connected" in done.text
    over = browser.submit(two, decision="deny")
    assert over.is_page(400) and "used already" in over.text
    assert poll(op, codes).status == 200


def test_what_hangs_on_the_session_ends_with_it(op: Provider) -> None:
    """docs/sessions.md: before the device has fetched its tokens, and after; offline access stays."""
    for scope, fetched, survives in (
        ("openid", False, False),
        ("openid", True, False),
        ("openid offline_access", True, True),
    ):
        browser = op.browser()
        begun = op.app.sign_in(browser)
        codes = start(op, scope=scope)
        browser.submit(enter(browser, codes["user_code"]), decision="allow")
        tokens = poll(op, codes).json() if fetched else {}
        assert op.ask("DELETE", "/api/auth/session", token=begun["token"]).status == 200
        if not fetched:
            assert error_of(poll(op, codes)) == "invalid_grant"
            continue
        assert op.rp("c-tv").userinfo(tokens["access_token"]).status == 401
        if survives:
            assert op.rp("c-tv").refresh(tokens["refresh_token"]).status == 200


def test_a_user_who_is_locked_out_lets_nothing_in(op: Provider, browser: Browser) -> None:
    """docs/devices.md: a page that was open when the session ended does not connect a device: the user has to sign in first."""
    codes = start(op)
    page = enter(browser, codes["user_code"])
    op.ask("DELETE", "/api/auth/users/ada/sessions", admin=True)
    assert browser.submit(page, decision="allow").is_at(LOGIN_URL)
    assert error_of(poll(op, codes)) == "authorization_pending"


def test_the_apps_consent_page_is_not_asked(serve_provider: ServeProvider) -> None:
    """docs/devices.md: only our page shows the code, also with PYLON_CONSENT_URL, and the app cannot answer for the user."""
    op = serve_provider(CLIENTS, PYLON_CONSENT_URL="https://app.example.com/consent")
    browser = op.browser()
    op.app.sign_in(browser)
    page = enter(browser, start(op)["user_code"])
    assert asks(page)
    interaction = page.url.rpartition("/")[2]
    refused(op.app.call("POST", f"/api/oidc/interactions/{interaction}/consent", {}), 409, "WRONG_STEP")


def _policies(tmp_path: Path) -> str:
    path = tmp_path / "policies.toml"
    path.write_text(f"""
[default]
alg = "PS256"
grants = ["authorization_code"]

[audience."{API}"]
scopes = ["read"]
scope_descriptions = {{ read = "read your reports" }}

[audience."{API}".require]
acr = ["mfa"]
max_session_age_s = 300
roles = ["admin"]
""")
    return str(path)


def test_policies_hold_as_at_authorize(serve_provider: ServeProvider, tmp_path: Path) -> None:
    """docs/policies.md: another sign-in is asked for where it helps, and a user who may have no token is denied."""
    op = serve_provider(CLIENTS, PYLON_POLICIES=_policies(tmp_path), PYLON_OIDC_PRIVATE_KEY=rsa_pem())
    form = urlencode({"client_id": "c-tv", "scope": "openid read", "resource": [API, ISSUER]}, doseq=True)
    answer = op.ask("POST", "/oidc/device_authorization", body=form.encode(), content_type=FORM)
    codes, browser = answer.json(), op.browser()
    op.app.sign_in(browser, roles=["admin"])
    landing = browser.go(codes["verification_uri_complete"])
    assert landing.is_at(LOGIN_URL)
    asked = op.app.call("GET", f"/api/oidc/interactions/{query_of(landing.url)['interaction']}").json()
    assert (asked["acr_values"], asked["max_age"]) == ("mfa", 300)
    assert asked["client"]["client_id"] == "c-tv" and asked["resources"][0]["resource"] == API
    page = op.app.by_backend(browser, landing, acr="mfa", roles=["admin"])
    assert asks(page) and "read your reports" in page.text and API in page.text
    browser.submit(page, decision="allow")
    assert error_of(poll(op, codes, resource="https://other.example.com")) == "invalid_target"
    tokens = poll(op, codes, resource=API).json()
    claims = unverified_claims(tokens["access_token"])
    assert (claims["aud"], claims["client_id"], claims["acr"]) == (API, "c-tv", "mfa")

    codes, other = start(op, scope="openid read", resource=API), op.browser()
    op.app.sign_in(other, "bob", acr="mfa")
    assert "not connected" in other.go(codes["verification_uri_complete"]).text
    assert error_of(poll(op, codes)) == "access_denied"


def test_a_client_that_changed_while_its_device_waits(op: Provider, browser: Browser) -> None:
    """The request is checked again, with what the client may do now (RFC 7592 §2.2)."""
    new = {
        "client_id": "c-db",
        "token_endpoint_auth_method": "none",
        "grant_types": [GRANT],
        "redirect_uris": [],
    }
    assert op.app.call("POST", "/api/oidc/clients", new).status == 201
    rp = op.rp("c-db", secret=None)
    codes = rp.post("/oidc/device_authorization", {"scope": "openid"}).json()
    page = enter(browser, codes["user_code"])
    assert asks(page)
    changed = new | {"grant_types": ["refresh_token"]}
    assert op.app.call("PUT", "/api/oidc/clients/c-db", changed).status == 200
    assert browser.submit(page, decision="allow").is_page(400)
    assert op.app.call("PUT", "/api/oidc/clients/c-db", new).status == 200
    codes = rp.post("/oidc/device_authorization", {"scope": "openid"}).json()
    assert op.app.call("DELETE", "/api/oidc/clients/c-db").status in (200, 204)
    assert op.app.call("POST", "/api/oidc/clients", new).status == 201
    form = {"grant_type": GRANT, "device_code": codes["device_code"]}
    assert error_of(rp.post("/oidc/token", form)) == "invalid_grant"


def test_a_client_is_told_that_the_session_ended(serve_provider: ServeProvider) -> None:
    """OpenID Connect Back-Channel Logout §2.4: a client that got tokens for a device, with the `sid` of its ID token."""
    with Listener() as listener:
        tv = TV | {"backchannel_logout_uri": listener.uri}
        op = serve_provider([tv], PYLON_OUTBOUND_ALLOW="127.0.0.1")
        for fetches in (False, True):
            browser = op.browser()
            token = op.app.sign_in(browser)["token"]
            codes = start(op)
            browser.submit(enter(browser, codes["user_code"]), decision="allow")
            if not fetches:  # allowed, but the device never came for its tokens
                assert op.ask("DELETE", "/api/auth/session", token=token).status == 200
        sid = unverified_claims(poll(op, codes).json()["id_token"])["sid"]
        assert op.ask("DELETE", "/api/auth/session", token=token).status == 200
        (told,) = listener.wait(1)
        assert (told.claims["aud"], told.claims["sub"], told.claims["sid"]) == ("c-tv", "ada", sid)


def test_clients_that_nobody_registered(serve_provider: ServeProvider) -> None:
    """docs/devices.md: strangers use devices only with PYLON_OIDC_STRANGER_DEVICES, even those stored earlier; the page warns that the operator does not know them."""
    for allowed in (True, False):
        stores: list[Store] = []
        op = serve_provider(
            [],
            store_of=lambda store, stores=stores: stores.append(store) or store,
            PYLON_OIDC_STRANGER_DEVICES="1" if allowed else "0",
        )
        metadata = {"client_name": "Nice", "grant_types": [GRANT], "token_endpoint_auth_method": "none"}
        stranger = parse_stranger(
            metadata, client_id="r_new", source="registration", scopes=STANDARD_SCOPES, devices=True
        )
        stores[0].put(new_record(stranger), now=int(op.clock()))
        answer = op.rp("r_new", secret=None).post("/oidc/device_authorization", {"scope": "openid"})
        if not allowed:
            assert error_of(answer) == "unauthorized_client"
            continue
        browser = op.browser()
        op.app.sign_in(browser)
        page = enter(browser, answer.json()["user_code"])
        assert asks(page) and "an unknown service" in page.text and "Nice" in page.text
        assert "Nobody here has checked" in page.text and "Your answer goes to" not in page.text
        browser.submit(page, decision="allow")
        form = {"grant_type": GRANT, "device_code": answer.json()["device_code"]}
        assert op.rp("r_new", secret=None).post("/oidc/token", form).status == 200


def test_codes_are_of_one_issuer(serve_provider: ServeProvider) -> None:
    """RFC 9207 §2, docs/devices.md: another issuer of the same service knows neither of the codes."""
    op = serve_provider(
        CLIENTS, PYLON_DEV_MODE="1", PYLON_OIDC_ISSUER=None, PYLON_ALLOWED_HOSTS="localhost:*"
    )
    form = urlencode({"client_id": "c-tv", "scope": "openid"}).encode()

    def ask(host: str, path: str, body: bytes) -> Answer:
        return op.ask("POST", path, host=host, body=body, content_type=FORM)

    codes = ask("localhost:1", "/oidc/device_authorization", form).json()
    assert codes["verification_uri"] == "http://localhost:1/oidc/device"
    asked = {"client_id": "c-tv", "grant_type": GRANT, "device_code": codes["device_code"]}
    assert error_of(ask("localhost:2", "/oidc/token", urlencode(asked).encode())) == "invalid_grant"
    assert error_of(ask("localhost:1", "/oidc/token", urlencode(asked).encode())) == "authorization_pending"
    begun = op.ask("POST", "/api/auth/session", host="localhost:1", admin=True, json={"user_id": "ada"})
    token, query = begun.json()["token"], urlencode({"user_code": codes["user_code"]})
    for host, status in (("localhost:2", 400), ("localhost:1", 303)):
        answer = op.ask("GET", "/oidc/device", host=host, query=query, cookie=token)
        assert answer.status == status


@each_of("query", ["user_code=A&user_code=B", f"user_code={'B' * 65}", "user_code=%ff"])
def test_a_malformed_address_is_a_page(op: Provider, browser: Browser, query: str) -> None:
    """docs/endpoints.md: a repeated, too long or malformed parameter, before anything is counted."""
    for _ in range(6):
        assert browser.go(f"{PAGE}?{query}").is_page(400)
    assert asks(enter(browser, start(op)["user_code"]))


def test_without_a_sign_in_page_there_is_a_page(serve_provider: ServeProvider) -> None:
    """docs/errors.md: without a sign-in page there is an error page for the operator to act on."""
    op = serve_provider([], PYLON_LOGIN_URL=None)
    assert op.browser().go(PAGE).is_page(501)


def test_without_a_key_no_device_starts(serve_provider: ServeProvider) -> None:
    """docs/endpoints.md: as at the token endpoint, before the client is looked at."""
    op = serve_provider([], PYLON_OIDC_PRIVATE_KEY=None)
    form = urlencode({"client_id": "c-tv", "scope": "openid"}).encode()
    answer = op.ask("POST", "/oidc/device_authorization", body=form, content_type=FORM)
    assert error_of(answer) == "unsupported_grant_type"
