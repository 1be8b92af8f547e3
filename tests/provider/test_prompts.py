"""Section 2 of the behaviours: who is asked to sign in again, and who is not."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.provider.browser import Browser, Landing, query_of
from tests.provider.driver import CALLBACK, LOGIN_URL, Provider
from tests.support.cases import each_of

WAYS = each_of("way", ["backend", "cookie"])
SILENT_REFUSALS = {"login_required", "interaction_required", "consent_required", "account_selection_required"}


def _post(op: Provider, browser: Browser, parameters: dict[str, str]) -> Landing:
    return browser.go(f"{op.issuer}/oidc/authorize", form=parameters, cross_site=True)


@WAYS
@each_of("method", ["GET", "POST"])
@each_of("prompt", ["login", "select_account", "login consent"])
@each_of("wait_s", [0, 1])
def test_prompt_login_asks_again(op: Provider, way: str, method: str, prompt: str, wait_s: int) -> None:
    """docs/conformance.md 2.17: prompt=login re-prompts with a live session; auth_time is later, sub the same (Core §3.1.2.1)."""
    rp, browser = op.rp(), op.browser()
    first = op.sign_in(browser, way=way).claims
    op.clock.advance(wait_s)
    request = rp.request(prompt=prompt)
    landing = browser.go(request.url) if method == "GET" else _post(op, browser, request.parameters)
    assert landing.is_at(LOGIN_URL)
    op.clock.advance(1)
    code = op.answered(request, op.finish(browser, landing, way=way))["code"]
    second = rp.verified(rp.redeem(request, code).json()["id_token"])
    assert second["sub"] == first["sub"]
    assert second["auth_time"] > first["auth_time"]
    assert second["sid"] != first["sid"]


@WAYS
def test_coming_back_without_signing_in_anew_does_not_do(op: Provider, way: str) -> None:
    """docs/sign-in.md: prompt=login is proven by a new sign-in; unmet after one more try it is login_required."""
    browser, request = op.browser(), op.rp().request(prompt="login")
    op.sign_in(browser, way=way)
    landing = browser.go(request.url)
    landing = browser.go(query_of(landing.url)["return_to"])
    assert landing.is_at(LOGIN_URL)
    landing = browser.go(query_of(landing.url)["return_to"])
    assert op.answered(request, landing)["error"] == "login_required"


@each_of(("ago_s", "good"), [(0, True), (30, True), (31, False), (86_400, False)])
@WAYS
def test_a_reported_sign_in_is_fresh_unless_it_lies_well_before_the_interaction(
    op: Provider, way: str, ago_s: int, good: bool
) -> None:
    """Re-authentication is proven by auth_time: at most 30 s before the interaction began (Core §3.1.2.1)."""
    request = op.rp().request(prompt="login")
    shown = op.authorize(op.browser(), request, way=way, auth_time=int(op.clock()) - ago_s)
    assert ("code" in shown) is good
    assert good or shown["error"] == "login_required"


def test_by_the_cookie_only_a_session_that_began_since_counts(op: Provider) -> None:
    """docs/sign-in.md: by way (a) a session from before the interaction is not a new sign-in, whatever its auth_time."""
    browser, request = op.browser(), op.rp().request(prompt="login")
    before = op.app.session(auth_time=int(op.clock()) + 60)
    op.clock.advance(60)
    landing = browser.go(request.url)
    browser.set_cookie("pylon_session", before["token"])
    for _ in range(2):
        landing = browser.go(query_of(landing.url)["return_to"])
    assert op.answered(request, landing)["error"] == "login_required"


@each_of("mode", ["query", "form_post"])
@each_of("method", ["GET", "POST"])
def test_prompt_none_without_a_session_is_told_to_the_client(op: Provider, mode: str, method: str) -> None:
    """docs/conformance.md 2.18: no page: login_required with the 128-character state, no code (Core §3.1.2.6)."""
    browser, request = op.browser(), op.rp().request(prompt="none", response_mode=mode)
    landing = browser.go(request.url) if method == "GET" else _post(op, browser, request.parameters)
    shown = op.answered(request, landing)
    assert shown["error"] in SILENT_REFUSALS and shown["error"] == "login_required"
    assert len(shown["state"]) == 128 and "code" not in shown


@WAYS
def test_prompt_none_with_a_session_gives_a_code_at_once(op: Provider, way: str) -> None:
    """docs/conformance.md 2.19: no page; auth_time and sub are those of the first token (Core §3.1.2.1)."""
    rp, browser = op.rp(), op.browser()
    first = op.sign_in(browser, way=way).claims
    op.clock.advance(100)
    request = rp.request(prompt="none")
    answer = browser.ask("GET", request.url)
    assert answer.status == 303
    tokens = rp.redeem(request, query_of(answer.headers["Location"])["code"]).json()
    second = rp.verified(tokens["id_token"])
    assert (second["sub"], second["auth_time"], second["sid"]) == (
        first["sub"],
        first["auth_time"],
        first["sid"],
    )


def test_prompt_none_is_for_each_client(op: Provider) -> None:
    """docs/conformance.md 2.19: a user who signed in for one client is signed in for the next (Core §3.1.2.3)."""
    browser, request = op.browser(), op.rp("c-post").request(prompt="none")
    op.sign_in(browser)
    assert "code" in op.answered(request, browser.go(request.url))


@WAYS
def test_max_age_asks_again_when_it_is_over(op: Provider, way: str) -> None:
    """docs/conformance.md 2.20: max_age=1 after more than 1 s: a new sign-in, auth_time later and recent (Core §3.1.2.1)."""
    rp, browser = op.rp(), op.browser()
    first = op.sign_in(browser, way=way).claims
    op.clock.advance(2)
    request = rp.request(max_age="1")
    landing = browser.go(request.url)
    assert landing.is_at(LOGIN_URL)
    op.clock.advance(20)
    code = op.answered(request, op.finish(browser, landing, way=way))["code"]
    second = rp.verified(rp.redeem(request, code).json()["id_token"])
    assert first["auth_time"] < second["auth_time"] == int(op.clock())


def test_max_age_lets_a_young_sign_in_be(op: Provider) -> None:
    """docs/conformance.md 2.21: max_age=15000, then 10000: no second sign-in, auth_time in both and identical (Core §3.1.2.1)."""
    rp, browser = op.rp(), op.browser()
    first = op.sign_in(browser, max_age="15000").claims
    op.clock.advance(9_000)
    request = rp.request(max_age="10000")
    code = op.answered(request, browser.go(request.url))["code"]
    assert rp.verified(rp.redeem(request, code).json()["id_token"])["auth_time"] == first["auth_time"]


@each_of(("age_s", "again"), [(59, False), (60, True)])
def test_max_age_ends_to_the_second(op: Provider, age_s: int, again: bool) -> None:
    """docs/conformance.md 2.20: re-authentication when more than max_age may have gone by: auth_time has no fractions (Core §3.1.2.1)."""
    browser = op.browser()
    op.sign_in(browser)
    op.clock.advance(age_s)
    assert browser.go(op.rp().request(max_age="60").url).is_at(LOGIN_URL) is again


def test_max_age_1_asks_again_after_little_more_than_a_second(op: Provider) -> None:
    """docs/conformance.md 2.20: signed in at the end of one second, asked early in the second after the next: more than 1 s has gone by (Core §3.1.2.1)."""
    op.clock.advance(1 - op.clock() % 1 + 0.9)
    browser = op.browser()
    op.sign_in(browser)
    op.clock.advance(1.05)
    assert browser.go(op.rp().request(max_age="1").url).is_at(LOGIN_URL)


def test_max_age_0_is_prompt_login(op: Provider) -> None:
    """docs/conformance.md 2.20: max_age=0 asks again even within the same second (Core §3.1.2.1, errata set 2)."""
    browser = op.browser()
    op.sign_in(browser)
    assert browser.go(op.rp().request(max_age="0").url).is_at(LOGIN_URL)


def test_an_old_session_under_max_age_and_prompt_none_is_login_required(op: Provider) -> None:
    """docs/conformance.md 2.18, 2.20: with prompt=none nobody is asked (Core §3.1.2.6)."""
    browser, request = op.browser(), op.rp().request(max_age="10", prompt="none")
    op.sign_in(browser)
    op.clock.advance(11)
    assert op.answered(request, browser.go(request.url))["error"] == "login_required"


def test_an_expired_id_token_is_a_good_hint(op: Provider) -> None:
    """docs/conformance.md 2.23: prompt=none with the first ID token, even long expired, succeeds for the same user (Core §3.1.2.1)."""
    browser = op.browser()
    first = op.sign_in(browser)
    for wait_s in (0, 86_400):
        op.clock.advance(wait_s)
        request = op.rp().request(prompt="none", id_token_hint=first.tokens["id_token"])
        assert "code" in op.answered(request, browser.go(request.url))


def test_a_hint_of_another_user_asks_for_him(op: Provider) -> None:
    """docs/conformance.md 2.23: the user who is signed in must be the one of the hint: else login_required, and no code (Core §3.1.2.2)."""
    browser = op.browser()
    hint = op.sign_in(user="bob").tokens["id_token"]
    op.sign_in(browser)
    silent = op.rp().request(prompt="none", id_token_hint=hint)
    assert op.answered(silent, browser.go(silent.url))["error"] == "login_required"
    request = op.rp().request(id_token_hint=hint)
    assert op.authorize(browser, request, user="ada")["error"] == "login_required"
    assert "code" in op.authorize(browser, op.rp().request(id_token_hint=hint), user="bob")


def test_a_claims_request_may_name_the_user(op: Provider) -> None:
    """docs/conformance.md 2.23: `sub` with a value in `claims` asks only for that user (Core §5.5.1)."""
    browser = op.browser()
    op.sign_in(browser)
    for user, good in (("ada", True), ("bob", False)):
        asked = json.dumps({"id_token": {"sub": {"value": user}}})
        request = op.rp().request(prompt="none", claims=asked)
        assert ("code" in op.answered(request, browser.go(request.url))) is good


@WAYS
def test_an_essential_acr_sends_to_the_sign_in_page(op: Provider, way: str) -> None:
    """An essential acr that the session lacks is a new sign-in; unmet after one more try, its own error (Core §5.5.1.1)."""
    browser = op.browser()
    op.sign_in(browser, way=way)
    request = op.rp().request(claims='{"id_token":{"acr":{"essential":true,"values":["gold"]}}}')
    landing = browser.go(request.url)
    assert landing.is_at(LOGIN_URL)
    sign_in = op.app.by_backend if way == "backend" else op.app.by_cookie
    landing = sign_in(browser, landing, acr="lead")
    assert landing.is_at(LOGIN_URL)
    assert "code" in op.answered(request, sign_in(browser, landing, acr="gold"))


def test_a_session_that_ended_is_no_session(op: Provider) -> None:
    """docs/conformance.md 2.18: after the session's own end prompt=none is login_required (Core §3.1.2.6)."""
    browser = op.browser()
    op.sign_in(browser, fields={"expires_in": 100})
    op.clock.advance(100)
    request = op.rp().request(prompt="none")
    assert op.answered(request, browser.go(request.url))["error"] == "login_required"


@each_of(("ago_s", "good"), [(3, True), (30, True), (31, False)])
def test_clocks_of_replicas_may_differ_by_either_way(op: Provider, ago_s: int, good: bool) -> None:
    """docs/sign-in.md: a session by the shared cookie has the same 30 s as a reported sign-in."""
    browser, request = op.browser(), op.rp().request(prompt="login")
    fresh = op.app.session()  # by a replica whose clock is behind
    op.clock.advance(ago_s)
    landing = browser.go(request.url)
    browser.set_cookie("pylon_session", fresh["token"])
    landing = browser.go(query_of(landing.url)["return_to"])
    assert landing.is_at(CALLBACK) if good else landing.is_at(LOGIN_URL)


@each_of("hint", ["a.b.c", "not-a-token", "e30.e30."])
def test_a_hint_that_cannot_be_checked_is_no_hint(op: Provider, hint: str) -> None:
    """OpenID Connect Core §3.1.2.1: it is ignored: the same request without it gets a code, and so does this one."""
    browser = op.browser()
    assert "code" in op.authorize(browser, op.rp().request(id_token_hint=hint))
    silent = op.rp().request(id_token_hint=hint, prompt="none")
    assert "code" in op.answered(silent, browser.go(silent.url))


def _object(head: Any, claims: Any, signature: str = "") -> str:
    """A request object."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (head, claims)
    ]
    return ".".join([*parts, signature])


@each_of("method", ["GET", "POST"])
def test_an_unsigned_request_object_says_how_it_is_refused(op: Provider, method: str) -> None:
    """docs/conformance.md 3.2; OpenID Connect Core §6.1: `state` and `response_mode` that are only in it reach the client."""
    said = {
        "response_mode": "form_post",
        "state": "in the object",
        "scope": "openid",
        "redirect_uri": "https://evil.example/",
    }
    request = op.rp().request(request=_object({"alg": "none"}, said), state=None)
    url, browser = f"{op.issuer}/oidc/authorize", op.browser()
    landing = browser.go(request.url) if method == "GET" else browser.go(url, form=request.parameters)
    assert landing.action == CALLBACK
    assert (landing.fields["error"], landing.fields["state"]) == ("request_not_supported", "in the object")


@each_of(
    "given",
    [
        _object({"alg": "RS256"}, {"state": "x", "response_mode": "form_post"}, "c2ln"),
        _object({"alg": "none"}, {"state": "x", "response_mode": "form_post"}, "c2ln"),
        _object({"alg": "None"}, {"state": "x", "response_mode": "form_post"}),
        _object({"alg": "none"}, ["state"]),
        _object({"alg": "none"}, {"state": {"a": 1}, "response_mode": ["form_post"]}),
        _object({"alg": "none"}, {"state": "x" * 9_000, "response_mode": "fragment"}),
        _object(["none"], {}),
        "é.é.", "x", "...", "e30.e30.", "e30", "!!.!!.",
    ],
)  # fmt: skip
def test_of_any_other_request_object_nothing_counts(op: Provider, given: str) -> None:
    """OpenID Connect Core §6.1: signed, malformed or too large: refused by query, with the outer state where there is one."""
    landing = op.browser().go(op.rp().request(request=given, state=None).url)
    assert landing.is_at(CALLBACK) and query_of(landing.url)["error"] == "request_not_supported"
    assert "state" not in query_of(landing.url)


def test_the_outer_parameters_come_first(op: Provider) -> None:
    """OpenID Connect Core §6.1: what stands outside is what the client's own layer knows."""
    given = _object({"alg": "none"}, {"state": "inner", "response_mode": "form_post"})
    landing = op.browser().go(op.rp().request(request=given, state="outer", response_mode="query").url)
    assert landing.is_at(CALLBACK) and query_of(landing.url)["state"] == "outer"
