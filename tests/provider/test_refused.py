"""A request that is refused has changed nothing: every table is as it was before."""

from __future__ import annotations

import hashlib
import hmac
import json
import sqlite3
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlencode

import pytest

from tests.provider.browser import query_of
from tests.provider.conftest import ServeProvider
from tests.provider.driver import OTHER_CALLBACK, SECRET, Provider
from tests.support.cases import each_of
from tests.support.gunicorn import TRUSTED, Answer

#: Sets the scene, and returns the request that is refused, and by which status.
Case = Callable[[Provider], tuple[Callable[[], Answer], int]]
STORED: Final = {"client_id": "c-stored", "redirect_uris": [OTHER_CALLBACK], "client_secret": SECRET}


def _tables(op: Provider) -> dict[str, list[Any]]:
    """Everything that is stored."""
    with sqlite3.connect(op.house.settings.data_dir / "pylon.db") as database:
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: sorted(map(repr, database.execute(f"SELECT * FROM {name}"))) for name in names}


# --- sessions and users ---


def _trusted(op: Provider, body: bytes, signed_by: str = TRUSTED) -> Callable[[], Answer]:
    timestamp = str(int(op.clock()))
    mac = hmac.new(signed_by.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {"X-Pylon-Trusted-Timestamp": timestamp, "X-Pylon-Trusted-Signature": mac}
    return lambda: op.ask("POST", "/api/auth/sessions/trusted-mint", body=body, headers=headers)


def _a_replayed_sign_in(op: Provider) -> tuple[Callable[[], Answer], int]:
    mint = _trusted(
        op, b'{"user_id": "ada", "claims": {"name": "Old"}, "roles": ["admin"], "tenant_id": "t"}'
    )
    assert mint().status == 201
    now = {"claims": {"name": "New"}, "roles": [], "tenant_id": "u"}
    assert op.app.call("PUT", "/api/auth/users/ada", now).status == 200
    return mint, 401


def _a_sign_in_signed_by_somebody_else(op: Provider) -> tuple[Callable[[], Answer], int]:
    return _trusted(op, b'{"user_id": "ada", "roles": ["admin"]}', signed_by="0" * 64), 401


def _a_session_with_a_fault(op: Provider) -> tuple[Callable[[], Answer], int]:
    body = {"user_id": "ada", "roles": ["admin"], "claims": {"email": 1}}
    return lambda: op.app.call("POST", "/api/auth/session", body), 400


def _a_user_with_a_fault(op: Provider) -> tuple[Callable[[], Answer], int]:
    op.app.session()
    return lambda: op.app.call(
        "PUT", "/api/auth/users/ada", {"roles": ["admin"], "claims": {"email": 1}}
    ), 400


def _the_end_of_a_session_of_somebody_else(op: Provider) -> tuple[Callable[[], Answer], int]:
    mine, other = op.app.session("ada"), op.app.session("bob")
    return lambda: op.ask("DELETE", f"/api/auth/sessions/{other['sid']}", token=mine["token"]), 404


def _a_sign_out_by_another_site(op: Provider) -> tuple[Callable[[], Answer], int]:
    token = op.app.session()["token"]
    headers = {"Sec-Fetch-Site": "cross-site"}
    return lambda: op.ask("DELETE", "/api/auth/session", cookie=token, headers=headers), 403


# --- clients and grants ---


def _register(op: Provider) -> None:
    op.app.call("DELETE", "/api/oidc/clients/c-stored")  # of another case
    assert op.app.call("POST", "/api/oidc/clients", STORED).status == 201


def _a_change_of_a_client_with_a_fault(op: Provider) -> tuple[Callable[[], Answer], int]:
    _register(op)
    body = {"redirect_uris": [OTHER_CALLBACK], "client_name": "New", "scope": "nonsense"}
    return lambda: op.app.call("PUT", "/api/oidc/clients/c-stored", body), 400


def _a_client_that_exists(op: Provider) -> tuple[Callable[[], Answer], int]:
    _register(op)
    return lambda: op.app.call("POST", "/api/oidc/clients", STORED | {"client_name": "New"}), 409


def _the_removal_of_a_client_of_the_environment(op: Provider) -> tuple[Callable[[], Answer], int]:
    op.sign_in(scope="openid offline_access")
    return lambda: op.app.call("DELETE", "/api/oidc/clients/c-basic"), 409


def _the_secret_of_a_public_client(op: Provider) -> tuple[Callable[[], Answer], int]:
    public = {"client_id": "c-app", "redirect_uris": [OTHER_CALLBACK], "token_endpoint_auth_method": "none"}
    assert op.app.call("POST", "/api/oidc/clients", public).status == 201
    return lambda: op.app.call("POST", "/api/oidc/clients/c-app/secret"), 404


def _the_end_of_no_grant(op: Provider) -> tuple[Callable[[], Answer], int]:
    op.sign_in(scope="openid offline_access")
    return lambda: op.app.call("DELETE", "/api/oidc/grants/none"), 404


# --- the sign-in ---


def _an_authorization_of_an_unknown_client(op: Provider) -> tuple[Callable[[], Answer], int]:
    return lambda: op.browser().ask("GET", op.rp("c-nobody").request().url), 400


def _an_authorization_to_another_address(op: Provider) -> tuple[Callable[[], Answer], int]:
    return lambda: op.browser().ask("GET", op.rp().request(redirect_uri=OTHER_CALLBACK).url), 400


def _an_authorization_of_what_there_is_not(op: Provider) -> tuple[Callable[[], Answer], int]:
    return lambda: op.browser().ask("GET", op.rp().request(response_type="token").url), 303


def _a_silent_authorization_of_nobody(op: Provider) -> tuple[Callable[[], Answer], int]:
    return lambda: op.browser().ask("GET", op.rp().request(prompt="none").url), 303


def _a_silent_authorization_without_consent(op: Provider) -> tuple[Callable[[], Answer], int]:
    browser = op.browser()
    op.app.sign_in(browser)
    return lambda: browser.ask("GET", op.rp("c-third").request(prompt="none").url), 303


def _an_interaction_in_another_browser(op: Provider) -> tuple[Callable[[], Answer], int]:
    landing = op.browser().go(op.rp().request().url)
    going_on = op.app.report(op.app.interaction(landing), "login", {"user_id": "ada"})
    return lambda: op.browser().ask("GET", going_on), 400


def _a_verifier_of_another_interaction(op: Provider) -> tuple[Callable[[], Answer], int]:
    browser = op.browser()
    first, second = browser.go(op.rp().request().url), browser.go(op.rp().request().url)
    going_on = query_of(op.app.report(op.app.interaction(first), "login", {"user_id": "ada"}))["verifier"]
    there = query_of(second.url)["return_to"]
    return lambda: browser.ask("GET", f"{there}?{urlencode({'verifier': going_on})}"), 400


def _a_report_of_an_interaction_that_is_over(op: Provider) -> tuple[Callable[[], Answer], int]:
    browser = op.browser()
    landing = browser.go(op.rp().request().url)
    op.finish(browser, landing)
    path = f"/api/oidc/interactions/{op.app.interaction(landing)}/login"
    return lambda: op.app.call("POST", path, {"user_id": "ada", "roles": ["admin"]}), 404


def _a_consent_before_it_was_asked(op: Provider) -> tuple[Callable[[], Answer], int]:
    landing = op.browser().go(op.rp("c-third").request().url)
    path = f"/api/oidc/interactions/{op.app.interaction(landing)}/consent"
    return lambda: op.app.call("POST", path, {}), 409


def _a_consent_form_of_before(op: Provider) -> tuple[Callable[[], Answer], int]:
    browser = op.browser()
    op.app.sign_in(browser)
    page = browser.go(op.rp("c-third").request().url)
    form = page.fields | {"decision": "allow", "form_token": "x" * 43}
    headers = {"Sec-Fetch-Site": "same-origin"}
    return lambda: browser.ask("POST", page.action, form=form, headers=headers), 403


def _a_consent_form_of_another_site(op: Provider) -> tuple[Callable[[], Answer], int]:
    browser = op.browser()
    op.app.sign_in(browser)
    page = browser.go(op.rp("c-third").request().url)
    form = page.fields | {"decision": "allow"}
    headers = {"Sec-Fetch-Site": "cross-site"}
    return lambda: browser.ask("POST", page.action, form=form, headers=headers), 403


# --- the sign-out ---


def _signing_out(op: Provider) -> tuple[Any, Any]:
    browser = op.browser()
    op.app.sign_in(browser)
    page = browser.go(f"{op.issuer}/oidc/logout")
    assert "decision" in page.text
    return browser, page


def _a_sign_out_form_of_another_site(op: Provider) -> tuple[Callable[[], Answer], int]:
    browser, page = _signing_out(op)
    form, headers = page.fields | {"decision": "allow"}, {"Sec-Fetch-Site": "cross-site"}
    return lambda: browser.ask("POST", page.action, form=form, headers=headers), 403


def _a_sign_out_form_of_somebody_else(op: Provider) -> tuple[Callable[[], Answer], int]:
    _, page = _signing_out(op)
    other = op.browser()
    op.app.sign_in(other, "bob")
    form, headers = page.fields | {"decision": "allow"}, {"Sec-Fetch-Site": "same-origin"}
    return lambda: other.ask("POST", page.action, form=form, headers=headers), 403


def _a_sign_out_that_does_not_fit(op: Provider) -> tuple[Callable[[], Answer], int]:
    browser = op.browser()
    hint = op.sign_in(browser).tokens["id_token"]
    query = urlencode({"id_token_hint": hint, "client_id": "c-post"})
    return lambda: browser.ask("GET", f"{op.issuer}/oidc/logout?{query}"), 400


# --- codes and tokens ---


def _code(op: Provider, **parameters: str) -> tuple[Any, str]:
    request = op.rp().request(**parameters)
    return request, op.authorize(op.browser(), request)["code"]


def _a_code_with_another_verifier(op: Provider) -> tuple[Callable[[], Answer], int]:
    request, code = _code(op)
    return lambda: op.rp().redeem(request, code, code_verifier="x" * 64), 400


def _a_code_by_another_client(op: Provider) -> tuple[Callable[[], Answer], int]:
    request, code = _code(op)
    return lambda: op.rp("c-post").redeem(request, code), 400


def _a_code_that_was_used_by_another_client(op: Provider) -> tuple[Callable[[], Answer], int]:
    request, code = _code(op)
    assert op.rp().redeem(request, code).status == 200
    return lambda: op.rp("c-post").redeem(request, code), 400


def _a_code_with_a_wrong_secret(op: Provider) -> tuple[Callable[[], Answer], int]:
    request, code = _code(op)
    return lambda: op.rp(secret="x" * 43).redeem(request, code), 401


def _a_refresh_to_a_larger_scope(op: Provider) -> tuple[Callable[[], Answer], int]:
    token = op.sign_in(scope="openid offline_access").tokens["refresh_token"]
    return lambda: op.rp().refresh(token, scope="openid offline_access email"), 400


def _a_refresh_by_another_client(op: Provider) -> tuple[Callable[[], Answer], int]:
    token = op.sign_in(scope="openid offline_access").tokens["refresh_token"]
    return lambda: op.rp("c-post").refresh(token), 400


def _a_revocation_with_a_wrong_secret(op: Provider) -> tuple[Callable[[], Answer], int]:
    token = op.sign_in(scope="openid offline_access").tokens["refresh_token"]
    return lambda: op.rp(secret="x" * 43).revoke(token), 401


def _a_mint_for_an_unknown_audience(op: Provider) -> tuple[Callable[[], Answer], int]:
    token = op.app.session()["token"]
    return lambda: op.ask("POST", "/api/auth/jwt", token=token, json={"audience": "x"}), 400


CASES: Final[dict[str, Case]] = {
    name.strip("_").replace("_", " "): case
    for name, case in list(globals().items())
    if name.startswith(("_a_", "_an_", "_the_"))
}


@each_of("name", CASES)
def test_a_refused_request_has_changed_nothing(op: Provider, name: str) -> None:
    """docs/security.md: whatever a request is refused for, no row of any table is another one afterwards."""
    request, status = CASES[name](op)
    before = _tables(op)
    answer = request()
    assert answer.status == status, answer
    assert status != 303 or "error" in query_of(answer.headers["Location"])
    assert _tables(op) == before


def test_where_nobody_can_sign_in_nothing_waits(serve_provider: ServeProvider) -> None:
    """docs/security.md: without a sign-in page a request is refused (501), and is not kept for somebody to come back."""
    op = serve_provider(clients=(), PYLON_LOGIN_URL=None)
    _register(op)
    before = _tables(op)
    request = op.rp("c-stored", redirect_uri=OTHER_CALLBACK).request()
    assert op.browser().ask("GET", request.url).status == 501
    assert _tables(op) == before


def test_a_refused_form_can_still_be_answered(op: Provider) -> None:
    """docs/security.md: a form that another site sends for its user is refused, and is there for the user's own answer."""
    browser, page = _signing_out(op)
    form = page.fields | {"decision": "allow"}
    refused = browser.ask("POST", page.action, form=form, headers={"Sec-Fetch-Site": "cross-site"})
    assert refused.status == 403
    browser.submit(page, decision="allow")
    assert json.loads(op.app.call("GET", "/api/auth/users/ada/sessions").body) == {"sessions": []}


def _told(op: Provider) -> tuple[str | None, str | None]:
    """What the line of the last request says of its refusal."""
    line = op.house.requests_logged[-1]
    return line.get("error"), line.get("cause")


def test_each_refusal_of_a_browser_says_its_rule_in_the_log(op: Provider, subtests: pytest.Subtests) -> None:
    """docs/security.md: `error` and `cause` of what a page or a redirect refuses: constant words, nothing of the request."""
    rp, browser = op.rp(), op.browser()
    third = op.rp("c-third")
    for name, landing, told in (
        ("no such client", browser.go(op.rp("hidden").request().url), ("invalid_request", "client_known")),
        ("another place", browser.go(rp.request(redirect_uri="https://hidden.example/").url),
         ("invalid_request", "redirect_uri_registered")),
        ("no query at all", browser.go(f"{op.issuer}/oidc/authorize?%ff"), ("invalid_request", "malformed_parameters")),
        ("by redirect", browser.go(rp.request(response_type="token").url),
         ("unsupported_response_type", "response_type")),
        ("by a form", browser.go(rp.request(prompt="none", response_mode="form_post").url),
         ("login_required", "nobody_is_signed_in")),
        ("no such interaction", browser.go(f"{op.issuer}/oidc/interaction/hidden"),
         ("invalid_request", "interaction_over")),
        ("a hint of another client", browser.go(f"{op.issuer}/oidc/logout?client_id=a&client_id=hidden"),
         ("invalid_request", "no_repeats")),
        ("a request that is over", browser.go(f"{op.issuer}/oidc/logout?posted=hidden"),
         ("invalid_request", "logout_request_over")),
        ("a form of nobody", browser.go(f"{op.issuer}/oidc/logout", form={"form_token": "hidden"}),
         ("invalid_request", "not_the_form_shown")),
    ):  # fmt: skip
        line = next(
            line
            for line in op.house.requests_logged
            if line["request_id"] == landing.answer.headers["X-Request-Id"]
        )
        with subtests.test(name):
            assert (line["error"], line["cause"]) == told
    with subtests.test("the app says no, in words of its own"):
        landing = browser.go(rp.request().url)
        words = {"error": "hidden-1", "error_description": "hidden words"}
        browser.go(op.app.report(op.app.interaction(landing), "reject", words))
        assert _told(op) == ("other", "rejected_by_app")
    with subtests.test("the user says no, twice"):
        landing = op.app.by_backend(browser, browser.go(third.request(scope="openid email").url))
        for cause in ("denied_by_user", "answered_before"):
            browser.submit(landing, decision="deny")
            assert _told(op) == ("access_denied", cause)
            assert op.house.requests_logged[-1]["client_id"] == "c-third"
    with subtests.test("what succeeds has neither"):
        assert "code" in op.authorize(browser, rp.request())
        assert _told(op) == (None, None)
    assert "hidden" not in op.house.log.getvalue()
