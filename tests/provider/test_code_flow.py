"""Section 2 of the behaviours: the code flow, and what a request may carry."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from tests.provider.browser import query_of
from tests.provider.conftest import CLIENTS, ServeProvider
from tests.provider.driver import CALLBACK, LOGIN_URL, SECRET, Provider, Request
from tests.support.cases import each_of

ODD_ID, ODD_SECRET = "c+odd:%41/&=~", "s+e%20c:r&e=t/ ~" + "x" * 24


@each_of("client_id", ["c-basic", "c-post", "c-only-basic", "c-public", "c-loose"])
def test_each_kind_of_client_completes_a_flow(op: Provider, client_id: str) -> None:
    """docs/conformance.md 2.1, 2.2, 2.37: client_secret_basic, client_secret_post, none; S256 (Core §3.1.3.1, §9; RFC 7636 §4)."""
    assert op.sign_in(client_id=client_id).claims["aud"] == client_id


@each_of("method", ["client_secret_basic", "client_secret_post"])
def test_a_client_that_names_no_method_may_use_either(op: Provider, method: str) -> None:
    """docs/conformance.md 2.1, 2.2: both work for a confidential client unless it names one (RFC 6749 §2.3.1)."""
    rp = op.rp("c-basic", method=method)
    request = rp.request()
    assert rp.redeem(request, op.authorize(op.browser(), request)["code"]).status == 200


def test_basic_credentials_are_form_urlencoded_before_base64(serve_provider: ServeProvider) -> None:
    """docs/conformance.md 2.1: id and secret are each encoded, so that they may have any character (RFC 6749 §2.3.1)."""
    op = serve_provider([*CLIENTS, CLIENTS[0] | {"client_id": ODD_ID, "client_secret": ODD_SECRET}])
    assert op.sign_in(client_id=ODD_ID).claims["aud"] == ODD_ID


def test_no_unsigned_id_token_is_offered(op: Provider) -> None:
    """docs/conformance.md 2.5: `none` is not advertised (Core §2)."""
    document = op.ask("GET", "/.well-known/openid-configuration").json()
    assert "none" not in document["id_token_signing_alg_values_supported"]


def test_a_missing_response_type_is_told_to_the_client(op: Provider) -> None:
    """docs/conformance.md 2.3: redirect with invalid_request and the state (RFC 6749 §4.1.2.1)."""
    request = op.rp().request(response_type=None)
    assert op.answered(request, op.browser().go(request.url))["error"] == "invalid_request"


@each_of("response_type", ["token", "id_token", "code id_token", "code token", "none", "CODE", "code code"])
def test_other_response_types_are_refused(op: Provider, response_type: str) -> None:
    """docs/conformance.md 2.3: only `code` (RFC 6749 §3.1.1)."""
    request = op.rp().request(response_type=response_type)
    assert op.answered(request, op.browser().go(request.url))["error"] == "unsupported_response_type"


def test_neither_the_order_of_scopes_nor_that_of_parameters_matters(op: Provider) -> None:
    """docs/conformance.md 2.15: `profile openid` is `openid profile`; parameters in reverse (RFC 6749 §3.1, §3.3)."""
    rp, browser = op.rp(), op.browser()
    request = rp.request(scope="profile  email openid")
    request.parameters = dict(reversed(request.parameters.items()))
    tokens = rp.redeem(request, op.authorize(browser, request)["code"]).json()
    assert tokens["scope"] == "openid profile email"


@each_of(
    ("line", "changes"),
    [
        ("2.22", {"extra": "foobar"}),
        ("2.22", {"resource_x": "", "utm_source": "é" * 50}),
        ("2.24", {"login_hint": "buffy@example.com"}),
        ("2.25", {"ui_locales": "se"}),
        ("2.25", {"ui_locales": "xx-nonsense de-DE en"}),
        ("2.26", {"claims_locales": "se"}),
        ("2.27", {"acr_values": "1 2"}),
        ("2.16", {"display": "popup"}),
    ],
)
def test_what_need_not_be_obeyed_is_accepted(op: Provider, line: str, changes: dict[str, str]) -> None:
    """docs/conformance.md 2.16, 2.22, 2.24, 2.25, 2.26, 2.27: an unknown parameter is ignored, hints are accepted (Core §3.1.2.1)."""
    assert "code" in op.authorize(op.browser(), op.rp().request(**changes)), line


def test_the_acr_of_the_sign_in_is_told(op: Provider) -> None:
    """docs/conformance.md 2.27: the ID token's acr is the one that the app reports, of those asked for; amr comes too (Core §2)."""
    claims = op.sign_in(acr_values="gold silver", fields={"acr": "silver", "amr": ["pwd", "otp"]}).claims
    assert (claims["acr"], claims["amr"]) == ("silver", ["pwd", "otp"])


@each_of(
    "uri",
    [
        f"{CALLBACK}x", f"{CALLBACK}/", f"{CALLBACK}?a=b", f"{CALLBACK}#", f"{CALLBACK}#f", f"{CALLBACK};a", CALLBACK.upper(),
        "https://user@rp.example.org/callback", "https://rp.example.org/%63allback", "https://rp.example.org\\/callback",
        "https://rp.example.org//callback", "https://rp.example.org:443/callback", "https://rp.example.org./callback",
        "https://rp.example.org/x/../callback", "http://rp.example.org/callback", " " + CALLBACK, CALLBACK + "\n",
        "https://evil.example/callback", "//rp.example.org/callback", "javascript:alert(1)", "callback", "https://rp.example.org",
    ],
)  # fmt: skip
def test_an_unregistered_redirect_uri_is_an_error_page(op: Provider, uri: str) -> None:
    """docs/conformance.md 2.30, 4.5: exact strings; an error page here, never a redirect, and nothing of the URI in it (RFC 9700 §2.1)."""
    landing = op.browser().go(op.rp().request(redirect_uri=uri, scope="nothing", response_type="bad").url)
    assert landing.is_page(400)
    assert "Location" not in landing.answer.headers
    assert "evil.example" not in landing.text and "alert(1)" not in landing.text


def test_the_log_tells_where_the_redirect_uri_differs(op: Provider) -> None:
    """docs/security.md: the operator finds, by the request id of the page, at which character the URI differs; never the URI."""
    landing = op.browser().go(op.rp().request(redirect_uri=f"{CALLBACK}-hostile").url)
    (line,) = [line for line in op.house.lines if line["event"] == "refused"]
    assert line["request_id"] in landing.text
    assert f"character {len(CALLBACK)}" in line["detail"]
    assert "hostile" not in op.house.log.getvalue()


@each_of("port", ["", ":1", ":49152", ":65535"])
def test_only_a_loopback_address_may_have_any_port(op: Provider, port: str) -> None:
    """The port of a loopback IP is free (RFC 8252 §7.3); not that of `localhost`, and nothing else is."""
    landing = op.browser().go(
        op.rp("c-public").request(redirect_uri=f"http://127.0.0.1{port}/cb", prompt="none").url
    )
    assert landing.is_at(f"http://127.0.0.1{port}/cb")
    for other in (
        f"http://localhost{port}/cb",
        f"http://127.0.0.1{port}/cb/",
        f"http://127.0.0.2{port}/cb",
        f"http://[::1]{port}/cb",
    ):
        assert op.browser().go(op.rp("c-public").request(redirect_uri=other).url).is_page(400), other


def test_the_query_of_a_registered_redirect_uri_is_kept(op: Provider) -> None:
    """docs/conformance.md 4.5: the registered query is sent with code and state; another query is an error page (RFC 6749 §3.1.2)."""
    rp = op.rp("c-third", redirect_uri=f"{CALLBACK}?kept=1")
    request = rp.request()
    shown = op.authorize(op.browser(), request)
    assert shown["kept"] == "1"
    assert rp.redeem(request, shown["code"]).status == 200
    assert op.browser().go(op.rp("c-third").request(redirect_uri=f"{CALLBACK}?kept=2").url).is_page(400)


@each_of("way", ["backend", "cookie"])
def test_everything_is_under_the_issuers_path(serve_provider: ServeProvider, way: str) -> None:
    """docs/endpoints.md: an issuer with a path serves the whole flow under it; the path of our cookies is the issuer's."""
    op = serve_provider(PYLON_OIDC_ISSUER="https://id.example.com/tenant")
    browser = op.browser()
    request = op.rp().request(response_mode="form_post")
    landing = browser.go(request.url)
    assert [cookie.path for cookie in browser.cookies.values()] == ["/tenant"]
    code = op.answered(request, op.finish(browser, landing, way=way))["code"]
    assert all(cookie.path == "/tenant" for cookie in browser.cookies.values() if cookie.attributes)
    assert op.ask("POST", "/tenant/oidc/token").status != 404
    assert op.ask("GET", "/oidc/authorize").status == 404
    assert code


@each_of("cross_site", [True, False])
def test_a_posted_request_is_the_same_as_a_get(op: Provider, cross_site: bool) -> None:
    """docs/conformance.md 2.31: POST is taken as GET is; 303 to a GET of ours, which `Lax` cookies are sent with (Core §3.1.2.1)."""
    browser, request = op.browser(), op.rp().request()
    op.app.sign_in(browser)
    posted = browser.ask(
        "POST", f"{op.issuer}/oidc/authorize", form=request.parameters, cross_site=cross_site
    )
    assert posted.status == 303
    assert posted.headers["Location"].startswith(f"{op.issuer}/oidc/interaction/")
    assert "code" in op.answered(request, browser.go(posted.headers["Location"]))


def test_a_posted_request_is_checked_at_once(op: Provider) -> None:
    """docs/conformance.md 2.31: errors of a POST are those of a GET: a page before the cut, a redirect after it (RFC 6749 §4.1.2.1)."""
    url, browser = f"{op.issuer}/oidc/authorize", op.browser()
    assert browser.go(url, form=op.rp().request(redirect_uri="https://evil.example/").parameters).is_page(400)
    request = op.rp().request(response_type=None)
    assert op.answered(request, browser.go(url, form=request.parameters))["error"] == "invalid_request"


def test_the_query_of_a_posted_request_does_not_count(op: Provider) -> None:
    """docs/conformance.md 2.31: a POST carries its parameters only in the body (Core §3.1.2.1)."""
    request = op.rp().request()
    url = f"{op.issuer}/oidc/authorize?{urlencode({'prompt': 'none'})}"
    assert op.browser().go(url, form=request.parameters).is_at(LOGIN_URL)


@each_of(
    ("changes", "error"),
    [
        ({"request_uri": "https://rp.example.org/ro#1"}, "request_uri_not_supported"),
        ({"request_uri": "urn:ietf:params:oauth:request_uri:x"}, "request_uri_not_supported"),
        ({"request": "eyJhbGciOiJub25lIn0.eyJzY29wZSI6Im9wZW5pZCJ9."}, "request_not_supported"),
        ({"request": "x", "request_uri": "https://rp.example.org/ro"}, "request_not_supported"),
    ],
)
def test_request_objects_have_their_own_errors(op: Provider, changes: dict[str, str], error: str) -> None:
    """docs/conformance.md 2.32, 2.33, 2.34: never silently ignored (Core §3.1.2.6, §6)."""
    request = op.rp().request(**changes)
    assert op.answered(request, op.browser().go(request.url))["error"] == error


def test_a_second_use_of_a_code_is_refused(op: Provider) -> None:
    """docs/conformance.md 2.28, 2.29: 400 invalid_grant, at once and after 30 s; what came of the first use is revoked (RFC 6749 §4.1.2)."""
    for wait_s in (0, 30):
        signed, rp = op.sign_in(scope="openid offline_access"), op.rp()
        op.clock.advance(wait_s)
        again = rp.redeem(signed.request, signed.code)
        assert (again.status, again.json()["error"]) == (400, "invalid_grant")
        assert rp.userinfo(signed.access_token).status == 401
        assert rp.refresh(signed.tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_long_parameters_are_carried(op: Provider) -> None:
    """A 2 KB id_token_hint and a 128-character state survive the sign-in page (Core §3.1.2.1)."""
    long = {"id_token": {"name": None, "sub": {"values": ["ada", *(f"user-{n:04}" for n in range(180))]}}}
    hint = op.sign_in(claims=json.dumps(long), fields={"claims": {"name": "N" * 1500}}).tokens["id_token"]
    assert len(hint) > 2000
    assert "code" in op.authorize(op.browser(), op.rp().request(id_token_hint=hint))


def test_scopes_outside_the_clients_are_left_out(op: Provider) -> None:
    """Scopes outside the client's `scope` are left out of the grant, and the answer says which (RFC 6749 §3.3)."""
    tokens = op.sign_in(client_id="c-narrow", scope="openid profile email offline_access nonsense").tokens
    assert tokens["scope"] == "openid email"
    assert "refresh_token" not in tokens


def test_without_openid_there_is_no_id_token(op: Provider) -> None:
    """docs/conformance.md 0.6: a plain OAuth request gets no ID token, and its access token is not good for userinfo (Core §3.1.2.1, RFC 6750 §3.1)."""
    signed = op.sign_in(scope="profile")
    assert "id_token" not in signed.tokens
    refused = op.rp().userinfo(signed.access_token)
    assert (refused.status, refused.json()["error"]) == (403, "insufficient_scope")


def test_pkce_is_asked_of_everybody_but_the_confidential_client_that_opted_out(op: Provider) -> None:
    """docs/conformance.md 2.37: PKCE, or for a confidential client a nonce; neither is forced on one registered without (RFC 9700 §2.1.1)."""
    plain: dict[str, Any] = {"code_challenge": None, "code_challenge_method": None}
    for client_id, more in (("c-public", {}), ("c-basic", {"nonce": None})):
        request = op.rp(client_id).request(**plain | more)
        assert op.answered(request, op.browser().go(request.url))["error"] == "invalid_request"
    assert op.sign_in(client_id="c-basic", **plain).claims["sub"] == "ada"
    assert op.sign_in(client_id="c-loose", **plain, nonce=None).claims["sub"] == "ada"


def test_a_client_without_the_code_grant_may_not_begin(op: Provider) -> None:
    """`grant_types` without authorization_code is unauthorized_client (RFC 6749 §4.1.2.1)."""
    request: Request = op.rp("c-no-code").request()
    assert op.answered(request, op.browser().go(request.url))["error"] == "unauthorized_client"


def test_the_sign_in_page_is_told_the_interaction_and_the_way_back(op: Provider) -> None:
    """docs/endpoints.md: 303 to `PYLON_LOGIN_URL` with `interaction` and `return_to`, nothing else; the client's request stays here."""
    landing = op.browser().go(op.rp().request().url)
    assert landing.is_at(LOGIN_URL)
    told = query_of(landing.url)
    assert told == {
        "interaction": told["interaction"],
        "return_to": f"{op.issuer}/oidc/interaction/{told['interaction']}",
    }
    assert SECRET not in landing.url
