"""Pages and redirects: their headers, to the letter, and nothing hostile in them."""

from __future__ import annotations

import pytest

from tests.http.driver import check_standing_headers
from tests.provider.browser import FORM, Browser, Landing
from tests.provider.conftest import ServeProvider
from tests.provider.driver import CALLBACK, LOGIN_URL, Provider
from tests.support.cases import each_of

POLICY = "default-src 'none'; style-src 'self'; img-src 'self'{}; frame-ancestors 'none'; base-uri 'none'"
LOGO = " https://logo.example.net:8443"


def _pages(op: Provider, browser: Browser) -> dict[str, Landing]:
    op.app.sign_in(browser)
    return {
        "consent with a logo": browser.go(op.rp("c-third").request().url),
        "consent": browser.go(op.rp().request(prompt="consent").url),
        "logout": browser.go(f"{op.issuer}/oidc/logout"),
        "error": browser.go(f"{op.issuer}/oidc/authorize"),
        "interaction": browser.go(f"{op.issuer}/oidc/interaction/unknown"),
        "logged out": op.browser().go(f"{op.issuer}/oidc/logout"),
    }


def test_every_page_has_exactly_these_headers(op: Provider) -> None:
    """docs/security.md: the policy to the letter, without form-action, the logo's origin where there is one; no-store; same-origin."""
    for name, landing in _pages(op, op.browser()).items():
        headers = landing.answer.headers
        assert headers["Content-Type"] == "text/html; charset=utf-8", name
        assert headers["Content-Security-Policy"] == POLICY.format(LOGO if "with a logo" in name else ""), (
            name
        )
        assert headers["Cache-Control"] == "no-store", name
        assert headers["Referrer-Policy"] == "same-origin", name
        check_standing_headers(landing.answer)
        assert (
            "<script" not in landing.text
            and " style=" not in landing.text
            and " on" + "click" not in landing.text
        )


def test_every_page_loads_its_one_stylesheet(op: Provider) -> None:
    """docs/endpoints.md: a small stylesheet of ours, which may be kept."""
    landing = op.browser().go(f"{op.issuer}/oidc/authorize")
    path, _, query = landing.text.partition('rel="stylesheet" href="')[2].partition('"')[0].partition("?")
    answer = op.ask("GET", path, query=query)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/css; charset=utf-8")
    assert "public" in answer.headers["Cache-Control"]


def test_redirects_are_303_and_tell_nobody_where_from(op: Provider) -> None:
    """303, never 307; `no-referrer`; `no-store` (RFC 9700 §4.12)."""
    browser = op.browser()
    op.sign_in(browser, client_id="c-third")
    browser.go(op.rp().request(prompt="none", response_type="x").url)
    browser.go(f"{op.issuer}/oidc/authorize", form=op.rp().request().parameters)
    redirects = [answer for _, answer in browser.seen if "Location" in answer.headers]
    assert len(redirects) > 5
    for answer in redirects:
        assert answer.status == 303
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        check_standing_headers(answer)


@each_of(
    "query",
    ["client_id=<script>alert(1)</script>", "client_id=c-basic&redirect_uri=javascript:alert(1)", "client_id=%0d%0aSet-Cookie:x=y",
     "client_id=c-basic&redirect_uri=%3Cimg%20src=x%3E", "client_id={{7*7}}&redirect_uri=x"],
)  # fmt: skip
def test_an_error_page_repeats_nothing(op: Provider, query: str) -> None:
    """docs/security.md: no echo of hostile input; the request id instead, which the log has too."""
    landing = op.browser().go(f"{op.issuer}/oidc/authorize?{query}")
    assert landing.is_page(400)
    for hostile in ("alert(1)", "<img", "Set-Cookie", "{{7", "49"):
        assert hostile not in landing.text.replace(landing.answer.headers["X-Request-Id"], "")
    assert landing.answer.headers["X-Request-Id"] in landing.text


@each_of("path", ["/oidc/authorize", "/oidc/interaction/x", "/oidc/logout"])
@each_of("method", ["HEAD", "PUT", "DELETE"])
def test_other_methods_do_nothing(op: Provider, path: str, method: str) -> None:
    """docs/errors.md: 405 with `Allow`; HEAD too, for nobody looks at these without doing them."""
    answer = op.ask(method, path)
    assert answer.status == 405 and "GET" in answer.headers["Allow"]


@each_of("interaction", ["x", "\0", "é", "x" * 3000, "../authorize"])
@each_of("method", ["GET", "POST"])
def test_an_unknown_interaction_is_a_page(op: Provider, interaction: str, method: str) -> None:
    """docs/errors.md: an HTML page, whatever the value is."""
    options = {"body": b"decision=allow", "content_type": FORM} if method == "POST" else {}
    answer = op.ask(method, f"/oidc/interaction/{interaction.encode().decode('latin-1')}", **options)
    assert answer.status in {400, 404}
    assert "Location" not in answer.headers


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [(b"{}", "application/json", 415), (b"x" * 70_000, FORM, 413), (b"\xff", FORM, 400)],
)
def test_a_posted_request_is_a_form_of_decent_size(
    op: Provider, body: bytes, content_type: str, status: int
) -> None:
    """docs/errors.md: 415 in the shape of the API; 413, and what is not UTF-8, as a page: authorize is for browsers."""
    answer = op.ask("POST", "/oidc/authorize", body=body, content_type=content_type)
    assert answer.status == status
    assert answer.headers["Content-Type"].startswith("application/json" if status == 415 else "text/html")


def test_a_posted_request_of_nothing_is_a_page(op: Provider) -> None:
    """Without body and Content-Type the client is missing: a page says so (RFC 6749 §4.1.2.1)."""
    answer = op.ask("POST", "/oidc/authorize")
    assert answer.status == 400 and answer.headers["Content-Type"].startswith("text/html")


def test_nobody_is_sent_anywhere_that_is_not_registered(op: Provider) -> None:
    """docs/security.md: no open redirect: of all that a whole flow follows, each address is ours, the app's or the client's."""
    browser = op.browser()
    op.sign_in(browser)
    op.sign_in(browser, client_id="c-third", prompt="login")
    known = (
        f"{op.issuer}/oidc/interaction/",
        f"{LOGIN_URL}?",
        CALLBACK,
        "https://other.example.org/callback?",
    )
    for _, answer in browser.seen:
        assert answer.headers.get("Location", CALLBACK).startswith(known)


@each_of("uri", ["javascript:alert(1)", "data:image/png;base64,AA", "http://logo.example.net/a.png", "//x/y.png", "x\" onerror=\"y",
                                 "https://u:p@logo.example.net/", "https:///a.png", "vbscript:x", "https://x.example/;script-src *"])  # fmt: skip
@each_of("member", ["logo_uri", "policy_uri", "tos_uri", "client_uri"])
def test_a_clients_addresses_are_web_addresses(op: Provider, member: str, uri: str) -> None:
    """docs/security.md: `javascript:`, `data:` and anything but https is refused at registration, naming the member."""
    if uri.startswith("https://x.example/;"):  # harmless: only the origin gets into the policy
        assert op.app.call(
            "POST", "/api/oidc/clients", {"redirect_uris": [CALLBACK], member: uri}
        ).status in {201, 400}
        return
    answer = op.app.call("POST", "/api/oidc/clients", {"redirect_uris": [CALLBACK], member: uri})
    assert answer.status == 400 and member in answer.json()["error"]["message"]


@each_of(
    "host",
    ["x.example;script-src", "x.example%20*", "x.example'", "x.example,y.example", "x.example:99999", "[::1"],
)
def test_a_logo_cannot_change_the_policy(op: Provider, host: str) -> None:
    """docs/security.md: what stands for the logo's host in the policy is a host and nothing else."""
    made = op.app.call(
        "POST",
        "/api/oidc/clients",
        {"redirect_uris": [CALLBACK], "logo_uri": f"https://{host}/a.png", "first_party": False},
    )
    assert made.status == 400, made


def test_pages_say_whose_they_are(serve_provider: ServeProvider) -> None:
    """docs/settings.md: with `PYLON_BRAND_NAME`, pages name the service by it, escaped, and not by its address."""
    op = serve_provider(PYLON_BRAND_NAME="Ada & <Co>")
    for name, landing in _pages(op, op.browser()).items():
        assert "Ada &amp; &lt;Co&gt;" in landing.text, name
        assert f">{op.issuer}<" not in landing.text, name


def test_without_a_brand_pages_name_the_issuer(op: Provider) -> None:
    """docs/settings.md: unset, the sign-out page shows the issuer."""
    assert f"<bdi>{op.issuer}</bdi>" in op.browser().go(f"{op.issuer}/oidc/logout").text


def test_the_quickstart_names_this_service(serve_provider: ServeProvider) -> None:
    """docs/endpoints.md: its lines are this service's own, and it is only for browsers of this machine."""
    op = serve_provider(PYLON_DEV_MODE="1", PYLON_OIDC_ISSUER="http://localhost:8123")
    here = {"REMOTE_ADDR": "127.0.0.1"}
    answer = op.ask("GET", "/dev/quickstart", environ=here)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "curl -fsS http://localhost:8123/api/auth/me" in answer.body.decode()
    assert "4321" not in answer.body.decode()
    assert op.ask("GET", "/dev/quickstart", environ=here | {"HTTP_X_FORWARDED_FOR": "::1"}).status == 404


def test_an_answer_without_a_body_has_no_type(op: Provider) -> None:
    """RFC 9110 §8.3: `Content-Type` is of content; a redirect and a preflight have none."""
    for answer in (
        op.ask("GET", "/oidc/authorize", query=op.rp().request().url.partition("?")[2]),
        op.ask("OPTIONS", "/oidc/token"),
    ):
        assert answer.status in {204, 303}
        assert answer.body == b""
        assert "Content-Type" not in answer.headers
