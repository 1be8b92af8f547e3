"""Section 5 of the behaviours: RP-initiated logout."""

from __future__ import annotations

import json
import sqlite3
from urllib.parse import urlencode

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.provider.browser import Browser, Landing, query_of
from tests.provider.conftest import CLIENTS, ServeProvider
from tests.provider.driver import CALLBACK, SIGNED_OUT, Provider, Signed
from tests.support.cases import each_of
from tests.support.gunicorn import rsa_pem

STATE = "s" * 128
OUT_URL = "https://app.example.com/sign-out"
WAYS = each_of("way", ["backend", "cookie"])


def _logout(op: Provider, browser: Browser, **parameters: str) -> Landing:
    return browser.go(f"{op.issuer}/oidc/logout?{urlencode(parameters)}")


def _is_signed_out(op: Provider, browser: Browser) -> bool:
    """Whether prompt=none finds nobody."""
    request = op.rp().request(prompt="none")
    return op.answered(request, browser.go(request.url)).get("error") == "login_required"


def _forged(id_token: str, how: str) -> str:
    head, payload, signature = id_token.split(".")
    claims = pyjwt.decode(id_token, options={"verify_signature": False})
    kid = pyjwt.get_unverified_header(id_token)["kid"]
    stranger = load_pem_private_key(rsa_pem(number=1).encode(), None)
    forged = {
        "none": pyjwt.encode(claims, "", algorithm="none", headers={"kid": kid}),
        "stranger": pyjwt.encode(claims, stranger, algorithm="RS256", headers={"kid": kid}),
        "hmac": pyjwt.encode(claims, "k" * 40, algorithm="HS256", headers={"kid": kid}),
        "unsigned": f"{head}.{payload}.",
        "flipped": f"{head}.{payload}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}",
        "garbage": "not.a.token",
    }
    return forged[how]


@pytest.fixture
def browser(op: Provider) -> Browser:
    """A browser."""
    return op.browser()


@pytest.fixture
def signed(op: Provider, browser: Browser) -> Signed:
    """Its user, signed in."""
    return op.sign_in(browser)


@WAYS
@each_of("method", ["GET", "POST"])
def test_a_hint_signs_out_and_goes_back(op: Provider, browser: Browser, way: str, method: str) -> None:
    """docs/conformance.md 5.2: redirect to exactly the registered URI with only the state; prompt=none fails afterwards (Logout §2, §3)."""
    hint = op.sign_in(browser, way=way).tokens["id_token"]
    parameters = {"id_token_hint": hint, "post_logout_redirect_uri": SIGNED_OUT, "state": STATE}
    if method == "GET":
        landing = _logout(op, browser, **parameters)
    else:
        landing = browser.go(f"{op.issuer}/oidc/logout", form=parameters, cross_site=True)
    assert landing.url == f"{SIGNED_OUT}?state={STATE}"
    assert landing.answer.headers["Referrer-Policy"] == "no-referrer"
    assert _is_signed_out(op, browser)


def test_a_posted_request_comes_back_as_a_get(op: Provider, browser: Browser, signed: Signed) -> None:
    """docs/endpoints.md: POST logout answers 303 to a GET of ours, which `Lax` cookies are sent with."""
    form = {"id_token_hint": signed.tokens["id_token"]}
    answer = browser.ask("POST", f"{op.issuer}/oidc/logout", form=form, cross_site=True)
    assert answer.status == 303 and answer.headers["Location"].startswith(f"{op.issuer}/oidc/logout?")


def test_a_posted_request_may_be_longer_than_an_address(op: Provider, browser: Browser) -> None:
    """Logout §2: POST is for what an address cannot hold; the parameters are kept, not sent along."""
    hint = op.sign_in(browser, nonce="n" * 7_000).tokens["id_token"]
    assert len(hint) > 9_000
    form = {"id_token_hint": hint, "post_logout_redirect_uri": SIGNED_OUT, "state": STATE}
    answer = browser.ask("POST", f"{op.issuer}/oidc/logout", form=form, cross_site=True)
    assert answer.status == 303 and len(answer.headers["Location"]) < 1_000
    assert browser.go(answer.headers["Location"]).url == f"{SIGNED_OUT}?state={STATE}"
    assert _is_signed_out(op, browser)


@pytest.mark.parametrize("kept", ["unknown", "expired"])
def test_a_posted_request_is_kept_for_ten_minutes(
    op: Provider, browser: Browser, signed: Signed, kept: str
) -> None:
    """docs/endpoints.md: what was kept is found only by its handle, and expires: an error page, nobody signed out."""
    form = {"id_token_hint": signed.tokens["id_token"]}
    address = browser.ask("POST", f"{op.issuer}/oidc/logout", form=form).headers["Location"]
    if kept == "expired":
        op.clock.advance(601)
    assert browser.go(address if kept == "expired" else f"{address}x").is_page(400)
    assert not _is_signed_out(op, browser)


def test_without_state_the_redirect_has_none(op: Provider, browser: Browser, signed: Signed) -> None:
    """docs/conformance.md 5.3: no state is made up; the session is gone (Logout §3)."""
    landing = _logout(
        op, browser, id_token_hint=signed.tokens["id_token"], post_logout_redirect_uri=SIGNED_OUT
    )
    assert landing.url == SIGNED_OUT
    assert _is_signed_out(op, browser)


@each_of(
    "uri",
    [f"{SIGNED_OUT}?foo=bar", f"{SIGNED_OUT}/", SIGNED_OUT.upper(), f"{SIGNED_OUT}#", CALLBACK, "https://evil.example/", "javascript:alert(1)",
     "https://other.example.org/out"],
)  # fmt: skip
def test_an_unregistered_address_is_never_gone_to(
    op: Provider, browser: Browser, signed: Signed, uri: str
) -> None:
    """docs/conformance.md 5.4, 5.5: exact match with one registered for this very client; else an error page (Logout §3)."""
    landing = _logout(op, browser, id_token_hint=signed.tokens["id_token"], post_logout_redirect_uri=uri)
    assert landing.is_page(400)
    assert "evil.example" not in landing.text


@each_of("how", ["none", "stranger", "hmac", "unsigned", "flipped", "garbage"])
@each_of("client_id", [None, "c-basic"])
@each_of("live", [True, False])
def test_a_forged_hint_does_not_count(
    op: Provider, browser: Browser, signed: Signed, how: str, client_id: str | None, live: bool
) -> None:
    """docs/conformance.md 5.6, 5.7: alg none, another's key: no redirect, and nobody is signed out unasked (Logout §4)."""
    parameters = {
        "id_token_hint": _forged(signed.tokens["id_token"], how),
        "post_logout_redirect_uri": SIGNED_OUT,
    }
    if client_id is not None:
        parameters["client_id"] = client_id
    landing = _logout(op, browser if live else op.browser(), **parameters)
    assert landing.is_page(200) or landing.is_page(400)
    assert not _is_signed_out(op, browser)


@each_of("kind", ["minted", "access token"])
def test_another_kind_of_token_is_no_hint(serve_provider: ServeProvider, kind: str) -> None:
    """docs/security.md: a minted token, signed by the same key, is no ID token: the user is asked."""
    op = serve_provider(PYLON_JWT_ALG="RS256", PYLON_JWT_AUDIENCE="api")
    browser = op.browser()
    signed, begun = op.sign_in(browser, way="cookie"), op.app.sign_in(browser)
    minted = op.ask("POST", "/api/auth/jwt", token=begun["token"]).json()["token"]
    landing = _logout(op, browser, id_token_hint=minted if kind == "minted" else signed.access_token)
    assert landing.is_page() and landing.action
    assert not _is_signed_out(op, browser)


@each_of("live", [True, False])
@each_of("client_id", [None, "c-basic"])
def test_without_a_hint_nobody_is_sent_on_unasked(
    op: Provider, browser: Browser, signed: Signed, client_id: str | None, live: bool
) -> None:
    """docs/conformance.md 5.8: post_logout_redirect_uri without id_token_hint: no automatic redirect (Logout §2)."""
    parameters = {"post_logout_redirect_uri": SIGNED_OUT} | (
        {} if client_id is None else {"client_id": client_id}
    )
    landing = _logout(op, browser if live else op.browser(), **parameters)
    assert landing.is_page(200)
    assert bool(landing.action) is live
    assert not _is_signed_out(op, browser)


def test_after_a_yes_the_client_that_was_named_is_gone_back_to(
    op: Provider, browser: Browser, signed: Signed
) -> None:
    """docs/conformance.md 5.8: with `client_id` and a registered address, the confirm page's yes goes there (Logout §2)."""
    landing = _logout(op, browser, client_id="c-basic", post_logout_redirect_uri=SIGNED_OUT, state="x y&z")
    assert "Basic" in landing.text
    landing = browser.submit(landing, decision="allow")
    assert landing.is_at(SIGNED_OUT) and query_of(landing.url) == {"state": "x y&z"}
    assert _is_signed_out(op, browser)


@WAYS
def test_without_parameters_the_user_is_asked_and_signed_out(
    op: Provider, browser: Browser, way: str
) -> None:
    """docs/conformance.md 5.9: no parameters: a confirm page, then signed out; prompt=none fails (Logout §2)."""
    op.sign_in(browser, way=way)
    landing = _logout(op, browser)
    assert landing.is_page() and not _is_signed_out(op, browser)
    landing = browser.submit(landing, decision="allow")
    assert landing.is_page() and "You are signed out" in landing.text
    assert _is_signed_out(op, browser)


def test_a_no_on_the_confirm_page_changes_nothing(op: Provider, browser: Browser, signed: Signed) -> None:
    """docs/endpoints.md: the confirm page's no keeps the session, and the page says so."""
    landing = browser.submit(_logout(op, browser), decision="deny")
    assert landing.is_page() and "still signed in" in landing.text
    assert not _is_signed_out(op, browser)


@each_of("state", [None, STATE])
def test_a_hint_without_an_address_ends_on_our_page(
    op: Provider, browser: Browser, signed: Signed, state: str | None
) -> None:
    """docs/conformance.md 5.10: id_token_hint and state, no post_logout_redirect_uri: the logged-out page (Logout §2)."""
    parameters = {"id_token_hint": signed.tokens["id_token"]} | ({} if state is None else {"state": state})
    landing = _logout(op, browser, **parameters)
    assert landing.is_page() and "You are signed out" in landing.text
    assert _is_signed_out(op, browser)


def test_only_a_state_redirects_nowhere(op: Provider, browser: Browser, signed: Signed) -> None:
    """docs/conformance.md 5.11: only state: confirmed, then the logged-out page (Logout §2)."""
    landing = browser.submit(_logout(op, browser, state=STATE), decision="allow")
    assert landing.is_page() and "You are signed out" in landing.text
    assert _is_signed_out(op, browser)


def test_an_expired_hint_counts(op: Provider, browser: Browser, signed: Signed) -> None:
    """docs/conformance.md 5.12: an expired, genuine ID token is a good hint (Logout §4)."""
    op.clock.advance(86_400)
    landing = _logout(
        op, browser, id_token_hint=signed.tokens["id_token"], post_logout_redirect_uri=SIGNED_OUT
    )
    assert landing.is_at(SIGNED_OUT) and _is_signed_out(op, browser)


def test_post_logout_addresses_are_registered(op: Provider) -> None:
    """docs/conformance.md 5.13: `post_logout_redirect_uris` is client metadata, and follows the redirect URIs' rules (Logout §3.1)."""
    made = op.app.call(
        "POST", "/api/oidc/clients", {"redirect_uris": [CALLBACK], "post_logout_redirect_uris": [SIGNED_OUT]}
    )
    assert made.json()["post_logout_redirect_uris"] == [SIGNED_OUT]
    for wrong in (
        "http://rp.example.org/out",
        "javascript:alert(1)",
        f"{SIGNED_OUT}#x",
        "https://u@rp.example.org/",
    ):
        answer = op.app.call(
            "POST", "/api/oidc/clients", {"redirect_uris": [CALLBACK], "post_logout_redirect_uris": [wrong]}
        )
        assert answer.status == 400 and "post_logout_redirect_uris" in json.dumps(answer.json())


def test_signing_out_twice_is_no_mistake(op: Provider, browser: Browser, signed: Signed) -> None:
    """docs/security.md: idempotent: with nobody signed in, a hint still leads back, and no parameters to the logged-out page."""
    parameters = {
        "id_token_hint": signed.tokens["id_token"],
        "post_logout_redirect_uri": SIGNED_OUT,
        "state": "x",
    }
    assert [_logout(op, browser, **parameters).url for _ in range(3)] == [f"{SIGNED_OUT}?state=x"] * 3
    assert "You are signed out" in _logout(op, browser).text


def test_a_hint_of_another_user_asks_first(op: Provider, browser: Browser, signed: Signed) -> None:
    """Whom the hint names is not who is here: nobody is signed out unasked (Logout §2)."""
    other = op.sign_in(user="bob").tokens["id_token"]
    landing = _logout(op, browser, id_token_hint=other, post_logout_redirect_uri=SIGNED_OUT)
    assert landing.is_page() and landing.action
    assert not _is_signed_out(op, browser)


def test_the_hints_client_must_still_be_one(
    op: Provider, signed: Signed, serve_provider: ServeProvider
) -> None:
    """docs/endpoints.md: the `aud` of the hint must be a client."""
    later = serve_provider(CLIENTS[1:], PYLON_DATA_DIR=str(op.house.settings.data_dir))
    landing = _logout(
        later, later.browser(), id_token_hint=signed.tokens["id_token"], post_logout_redirect_uri=SIGNED_OUT
    )
    assert landing.is_page(400)


def test_client_id_must_be_the_hints(op: Provider, browser: Browser, signed: Signed) -> None:
    """`client_id` with a hint is the hint's `aud`, or it is an error (Logout §2)."""
    hint = signed.tokens["id_token"]
    assert _logout(op, browser, id_token_hint=hint, client_id="c-post").is_page(400)
    assert not _is_signed_out(op, browser)
    assert "signed out" in _logout(op, browser, id_token_hint=hint, client_id="c-basic").text


@each_of("method", ["GET", "POST"])
@each_of("name", ["id_token_hint", "post_logout_redirect_uri", "state", "unknown"])
def test_a_repeated_parameter_is_refused(
    op: Provider, browser: Browser, signed: Signed, name: str, method: str
) -> None:
    """docs/endpoints.md: an error page, and nothing happens."""
    values = {
        "id_token_hint": signed.tokens["id_token"],
        "post_logout_redirect_uri": SIGNED_OUT,
        "state": "x",
        "unknown": "y",
    }
    query = urlencode([*values.items(), (name, values[name])])
    url, form = f"{op.issuer}/oidc/logout", "application/x-www-form-urlencoded"
    if method == "GET":
        answer = browser.ask("GET", f"{url}?{query}")
    else:
        answer = op.ask("POST", "/oidc/logout", body=query.encode(), content_type=form)
    assert answer.status == 400
    assert not _is_signed_out(op, browser)


def test_hints_that_need_not_be_obeyed_are_accepted(op: Provider, browser: Browser, signed: Signed) -> None:
    """`logout_hint` and `ui_locales` (Logout §2)."""
    landing = _logout(
        op, browser, id_token_hint=signed.tokens["id_token"], logout_hint="ada", ui_locales="se"
    )
    assert "You are signed out" in landing.text


# --- back through us ---


@pytest.fixture
def apart(serve_provider: ServeProvider) -> Provider:
    """A provider whose app has a sign-out page."""
    return serve_provider(PYLON_LOGOUT_URL=OUT_URL)


def _app_page(apart: Provider, browser: Browser, **parameters: str) -> str:
    """Sign out; the `return_to` that the app's page is given."""
    hint = apart.sign_in(browser).tokens["id_token"]
    landing = _logout(apart, browser, id_token_hint=hint, **parameters)
    assert landing.is_at(OUT_URL) and list(query_of(landing.url)) == ["return_to"]
    return query_of(landing.url)["return_to"]


def test_the_way_back_is_always_ours(apart: Provider) -> None:
    """RP-Initiated Logout in OpenID Connect §3, docs/sign-in.md: the app follows only our addresses; they lead to the client's, for ten minutes."""
    browser = apart.browser()
    back = _app_page(apart, browser, post_logout_redirect_uri=SIGNED_OUT, state="x y")
    assert (
        back.startswith(f"{apart.issuer}/oidc/logout?signed_out=") and len(query_of(back)["signed_out"]) == 43
    )
    for each in (browser, apart.browser(), browser):
        landing = each.go(back)
        assert landing.is_at(SIGNED_OUT) and query_of(landing.url) == {"state": "x y"}
    apart.clock.advance(599)
    assert browser.go(back).is_at(SIGNED_OUT)
    apart.clock.advance(1)
    assert "You are signed out" in browser.go(back).text


def test_with_nothing_to_go_back_to_nothing_is_kept(apart: Provider) -> None:
    """docs/sign-in.md: `…/oidc/logout?signed_out`, and no row for it."""
    browser = apart.browser()
    assert _app_page(apart, browser) == f"{apart.issuer}/oidc/logout?signed_out"
    with sqlite3.connect(apart.house.settings.data_dir / "pylon.db") as database:
        assert database.execute("SELECT count(*) FROM interaction").fetchone() == (0,)
    assert "You are signed out" in browser.go(f"{apart.issuer}/oidc/logout?signed_out").text


def test_the_way_back_ends_nothing(apart: Provider) -> None:
    """docs/endpoints.md: a user who opens it stays signed in, and the page says so where it leads nowhere."""
    back = _app_page(apart, apart.browser(), post_logout_redirect_uri=SIGNED_OUT)
    browser = apart.browser()
    apart.sign_in(browser)
    assert browser.go(back).is_at(SIGNED_OUT)
    for query in ("signed_out", "signed_out=", "signed_out=unknown"):
        assert "still signed in" in browser.go(f"{apart.issuer}/oidc/logout?{query}").text
    assert not _is_signed_out(apart, browser)


def test_the_way_back_leads_to_what_is_registered(apart: Provider, serve_provider: ServeProvider) -> None:
    """RP-Initiated Logout in OpenID Connect §3: an address that the client has no more is not gone to."""
    back = _app_page(apart, apart.browser(), post_logout_redirect_uri=SIGNED_OUT)
    changed = [*CLIENTS[1:], dict(CLIENTS[0]) | {"post_logout_redirect_uris": []}]
    later = serve_provider(changed, PYLON_DATA_DIR=str(apart.house.settings.data_dir))
    assert "You are signed out" in later.browser().go(back).text


# --- a hint without its session in the browser ---

BACKEND: dict[str, str] = {}
A_BROWSER = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}


def _lives(op: Provider, user: str = "ada") -> bool:
    return bool(op.app.call("GET", f"/api/auth/users/{user}/sessions").json()["sessions"])


@each_of("method", ["GET", "POST"])
def test_a_backend_ends_the_session_of_its_hint(op: Provider, signed: Signed, method: str) -> None:
    """RP-Initiated Logout in OpenID Connect §2: a confidential client's backend shows a genuine ID token: its session ends."""
    other = op.browser()
    form = {"id_token_hint": signed.tokens["id_token"]}
    url = f"{op.issuer}/oidc/logout"
    landing = other.go(f"{url}?{urlencode(form)}") if method == "GET" else other.go(url, form=form)
    assert "You are signed out" in landing.text
    assert not _lives(op)


@each_of(
    ("headers", "cookie", "client_id"),
    [
        (A_BROWSER, None, "c-basic"), ({"Sec-Fetch-Dest": "empty"}, None, "c-basic"),
        (BACKEND, "pylon_session=x", "c-basic"), (BACKEND, "__Host-pylon_provider=x", "c-basic"),
        (BACKEND, "__Host-pylon_interaction_x=y", "c-basic"), (BACKEND, None, "c-public"),
    ],
)  # fmt: skip
def test_anybody_else_is_asked(
    op: Provider, headers: dict[str, str], cookie: str | None, client_id: str
) -> None:
    """RP-Initiated Logout in OpenID Connect §2: a browser without the session, or a client that may not: the page, and nothing ends."""
    hint = op.sign_in(client_id=client_id).tokens["id_token"]
    query = urlencode({"id_token_hint": hint})
    answer = op.ask("GET", "/oidc/logout", query=query, headers=headers, cookie=cookie)
    assert answer.status == 200 and b"form_token" in answer.body
    assert _lives(op)


@each_of("decision", ["allow", "deny"])
@each_of("client_id", ["c-basic", "c-public"])
def test_whoever_holds_an_id_token_alone_ends_nothing(op: Provider, client_id: str, decision: str) -> None:
    """RP-Initiated Logout in OpenID Connect §2, §6: in another browser the page's yes is refused: it does not show the session."""
    browser, other = op.browser(), op.browser()
    signed = op.sign_in(browser, client_id=client_id)
    query = urlencode({"id_token_hint": signed.tokens["id_token"]})
    page = other.go(f"{op.issuer}/oidc/logout?{query}", headers=A_BROWSER)
    assert page.action and "not started in this browser" in page.text
    landing = other.submit(page, decision=decision)
    assert landing.is_page(403 if decision == "allow" else 200)
    assert _lives(op) and not _is_signed_out(op, browser)
    eve = op.browser()
    op.sign_in(eve, user="eve")
    assert eve.submit(page, decision=decision).is_page(403)  # nor with a session of their own
    assert _lives(op) and _lives(op, "eve")


@pytest.mark.parametrize("decision", ["allow", "deny"])
def test_an_answer_without_the_browsers_cookies_is_refused(
    op: Provider, browser: Browser, signed: Signed, decision: str
) -> None:
    """RP-Initiated Logout in OpenID Connect §2: the page was shown to the user who is signed in: only they can say yes, and they still can."""
    page = _logout(op, browser)
    assert op.browser().submit(page, decision="allow").is_page(403)
    assert _lives(op)
    assert browser.submit(page, decision=decision).is_page(200)
    assert _lives(op) is (decision == "deny")


def test_a_session_that_is_over_asks_nobody(op: Provider, signed: Signed) -> None:
    """docs/security.md: idempotent: a browser whose session has ended already goes straight back."""
    op.app.call("DELETE", "/api/auth/users/ada/sessions")
    query = urlencode({"id_token_hint": signed.tokens["id_token"], "post_logout_redirect_uri": SIGNED_OUT})
    assert op.browser().go(f"{op.issuer}/oidc/logout?{query}", headers=A_BROWSER).is_at(SIGNED_OUT)
