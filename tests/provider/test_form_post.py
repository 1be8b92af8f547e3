"""Section 3 of the behaviours: the form post response mode."""

from __future__ import annotations

import base64
import hashlib
import html
import re

from tests.provider.driver import CALLBACK, Provider
from tests.provider.test_everywhere import REFUSED
from tests.support.cases import each_of

SCRIPT = re.compile(r"<script>([^<]*)</script>")
HOSTILE_STATE = "\"><script>alert('x')</script>&amp;é"


def test_a_code_comes_by_a_form_that_posts_itself(op: Provider) -> None:
    """docs/conformance.md 3.1: 200 HTML, method post to the redirect URI, parameters only in the body (Form Post Response Mode §4)."""
    rp, browser = op.rp(), op.browser()
    request = rp.request(response_mode="form_post")
    landing = op.finish(browser, browser.go(request.url))
    assert landing.is_page() and landing.action == CALLBACK
    assert set(landing.fields) == {"code", "state", "iss"}
    assert '<form method="post"' in landing.text
    assert rp.redeem(request, op.answered(request, landing)["code"]).status == 200


def test_the_only_script_is_plain_and_allowed_by_its_hash(op: Provider) -> None:
    """docs/conformance.md 3.1: auto-submitted by a plain script, which the policy names by hash; a button without script (CSP 3 §2.3.1)."""
    landing = op.browser().go(op.rp().request(response_mode="form_post", prompt="none").url)
    (script,) = SCRIPT.findall(landing.text)
    assert script == "document.forms[0].submit()"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = landing.answer.headers["Content-Security-Policy"].split("; ")
    assert f"script-src 'sha256-{digest}'" in policy
    assert {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(policy)
    assert not [part for part in policy if part.startswith("form-action")]
    assert landing.answer.headers["Referrer-Policy"] == "strict-origin"
    assert landing.answer.headers["Cache-Control"] == "no-store"
    assert "<button" in landing.text


def test_without_scripts_it_looks_like_our_other_pages(op: Provider) -> None:
    """It works without JavaScript, in our style; with it nothing is fetched before the form goes (HTML §4.2.4)."""
    for changes in ({"prompt": "none"}, {"response_type": "token"}):
        landing = op.browser().go(op.rp().request(response_mode="form_post", **changes).url)
        (link,) = re.findall(r'<noscript><link rel="stylesheet" href="([^"]+)"></noscript>', landing.text)
        assert op.ask("GET", link.partition("?")[0]).status == 200


def test_values_are_escaped(op: Provider) -> None:
    """docs/conformance.md 3.1: values are HTML-escaped, and come back byte for byte (Form Post Response Mode §4)."""
    landing = op.browser().go(
        op.rp().request(response_mode="form_post", prompt="none", state=HOSTILE_STATE).url
    )
    assert landing.fields["state"] == HOSTILE_STATE
    assert html.escape("<script>alert") in landing.text and "<script>alert" not in landing.text


@each_of(("changes", "error"), [case for case in REFUSED if "response_mode" not in case[0]])
@each_of("method", ["GET", "POST"])
def test_errors_come_by_form_too(
    op: Provider, method: str, changes: dict[str, str | None], error: str
) -> None:
    """docs/conformance.md 3.2: every error after the cut uses form_post where it was asked for (Form Post Response Mode §2)."""
    request, browser = op.rp().request(response_mode="form_post", **changes), op.browser()
    url = f"{op.issuer}/oidc/authorize"
    landing = browser.go(request.url) if method == "GET" else browser.go(url, form=request.parameters)
    shown = op.answered(request, landing)
    assert landing.action == CALLBACK
    assert set(shown) == {"error", "error_description", "state", "iss"}
    assert shown["error"] == error


def test_the_users_no_comes_by_form(op: Provider) -> None:
    """docs/conformance.md 3.2: access_denied by form_post (Core §3.1.2.6)."""
    browser, request = op.browser(), op.rp().request(response_mode="form_post")
    landing = browser.go(request.url)
    landing = browser.go(op.app.report(op.app.interaction(landing), "reject", {}))
    assert op.answered(request, landing)["error"] == "access_denied"


def test_a_registered_query_is_kept_in_the_forms_address(op: Provider) -> None:
    """docs/conformance.md 3.1: the redirect URI is posted to as it is registered; no parameter of ours in its query (RFC 6749 §3.1.2)."""
    request = op.rp("c-third", redirect_uri=f"{CALLBACK}?kept=1").request(
        response_mode="form_post", prompt="none"
    )
    assert op.browser().go(request.url).action == f"{CALLBACK}?kept=1"


@each_of("mode", ["fragment", "web_message", "jwt", "FORM_POST", "query.jwt"])
def test_other_response_modes_are_refused_by_query(op: Provider, mode: str) -> None:
    """OpenID Connect Discovery §3: only `query` and `form_post` (OAuth 2.0 Multiple Response Types §2.1)."""
    request = op.rp().request(response_mode=mode)
    landing = op.browser().go(request.url)
    assert landing.is_at(CALLBACK) and landing.parameters["error"] == "invalid_request"
