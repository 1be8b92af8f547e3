"""Authorization codes: short, single use, bound to client, redirect URI and challenge."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from tests.provider.browser import FORM
from tests.provider.conftest import ServeProvider
from tests.provider.driver import CALLBACK, SECRET, Provider, RelyingParty, Request
from tests.support.cases import each_of
from tests.support.gunicorn import Answer


def _code(
    op: Provider, client_id: str = "c-basic", **parameters: str | None
) -> tuple[RelyingParty, Request, str]:
    rp = op.rp(client_id)
    request = rp.request(**parameters)
    return rp, request, op.authorize(op.browser(), request)["code"]


def _is_refused(answer: Answer, error: str = "invalid_grant") -> None:
    assert (answer.status, answer.json()["error"]) == (400, error), answer


@each_of(("age_s", "good"), [(0, True), (59, True), (60, False), (3600, False)])
def test_a_code_lives_60_seconds(op: Provider, age_s: int, good: bool) -> None:
    """60 s, to the second (RFC 6749 §4.1.2)."""
    rp, request, code = _code(op)
    op.clock.advance(age_s)
    answer = rp.redeem(request, code)
    assert answer.status == 200 if good else answer.json()["error"] == "invalid_grant"


def test_a_code_may_live_shorter(serve_provider: ServeProvider) -> None:
    """docs/settings.md: `PYLON_OIDC_CODE_LIFETIME_SECS`."""
    op = serve_provider(PYLON_OIDC_CODE_LIFETIME_SECS="5")
    rp, request, code = _code(op)
    op.clock.advance(5)
    _is_refused(rp.redeem(request, code))


@each_of("client_id", ["c-post", "c-public", "c-loose", "c-third"])
def test_another_client_spends_nothing(op: Provider, client_id: str) -> None:
    """A code shown by another client is invalid_grant, and still good for its own (RFC 6749 §4.1.3)."""
    rp, request, code = _code(op)
    _is_refused(op.rp(client_id).redeem(request, code))
    assert rp.redeem(request, code).status == 200


@each_of("verifier", [None, "", "x" * 43, "short", "é" * 43, "x" * 129, "right-and-more"])
@each_of("client_id", ["c-basic", "c-public"])
def test_a_wrong_verifier_spends_nothing(op: Provider, client_id: str, verifier: str | None) -> None:
    """A missing or wrong code_verifier is invalid_grant; the code stays good (RFC 7636 §4.6)."""
    rp, request, code = _code(op, client_id)
    wrong = f"{request.code_verifier}x" if verifier == "right-and-more" else verifier
    _is_refused(rp.redeem(request, code, code_verifier=wrong))
    assert rp.redeem(request, code).status == 200


def test_the_challenge_is_no_verifier(op: Provider) -> None:
    """S256 is really computed: the challenge itself does not pass (RFC 7636 §7.2)."""
    rp, request, code = _code(op)
    _is_refused(rp.redeem(request, code, code_verifier=request.parameters["code_challenge"]))


def test_a_verifier_without_a_challenge_fails(op: Provider) -> None:
    """Nothing was challenged, a verifier comes: somebody took the challenge off (RFC 9700 §4.8.2)."""
    rp, request, code = _code(op, "c-loose", code_challenge=None, code_challenge_method=None)
    _is_refused(rp.redeem(request, code, code_verifier="v" * 43))
    assert rp.redeem(request, code).status == 200


@each_of("uri", [None, "", f"{CALLBACK}/", f"{CALLBACK}?x", "https://evil.example/", CALLBACK.upper()])
def test_a_wrong_redirect_uri_spends_nothing(op: Provider, uri: str | None) -> None:
    """redirect_uri is the one of the request, exactly; the code stays good (RFC 6749 §4.1.3)."""
    rp, request, code = _code(op)
    _is_refused(rp.redeem(request, code, redirect_uri=uri))
    assert rp.redeem(request, code).status == 200


def test_the_loopback_port_of_the_request_counts(op: Provider) -> None:
    """The redirect URI of the exchange is that of the request, port and all (RFC 8252 §7.3, RFC 6749 §4.1.3)."""
    rp = op.rp("c-public")
    request = rp.request(redirect_uri="http://127.0.0.1:49152/cb")
    code = op.authorize(op.browser(), request)["code"]
    _is_refused(rp.redeem(request, code, redirect_uri="http://127.0.0.1:49153/cb"))
    assert rp.redeem(request, code).status == 200


def test_an_unauthenticated_client_spends_nothing(op: Provider) -> None:
    """A wrong secret is invalid_client, and the code stays good (RFC 6749 §5.2)."""
    rp, request, code = _code(op)
    answer = op.rp(secret="x" * 40).redeem(request, code)
    assert (answer.status, answer.json()["error"]) == (401, "invalid_client")
    assert rp.redeem(request, code).status == 200


@each_of("offline", [True, False])
@each_of("wait_s", [0, 61, 3000])
def test_reuse_revokes_all_that_came_of_it(op: Provider, offline: bool, wait_s: int) -> None:
    """A spent code that comes again ends access tokens, refresh tokens and their successors (RFC 6749 §4.1.2)."""
    signed, rp = op.sign_in(scope="openid offline_access" if offline else "openid"), op.rp()
    held = [signed.tokens]
    if offline:
        held.append(rp.refresh(signed.tokens["refresh_token"]).json())
    op.clock.advance(wait_s)
    _is_refused(rp.redeem(signed.request, signed.code))
    for tokens in held:
        assert rp.userinfo(tokens["access_token"]).status == 401
        if offline:
            _is_refused(rp.refresh(tokens["refresh_token"]))
    assert not op.app.grants()


@each_of("changes", [{"code_verifier": "x" * 43}, {"redirect_uri": "https://evil.example/"}])
def test_a_thief_without_the_verifier_cannot_revoke(op: Provider, changes: dict[str, str]) -> None:
    """docs/security.md: a spent code with a wrong verifier or redirect URI ends nothing: nobody gets power over a user by knowing a code."""
    signed, rp = op.sign_in(), op.rp()
    _is_refused(rp.redeem(signed.request, signed.code, **changes))
    _is_refused(op.rp("c-post").redeem(signed.request, signed.code))
    assert rp.userinfo(signed.access_token).status == 200


@each_of("code", ["x", "x" * 43, "\0", "a b", "é", "x" * 5000])
def test_a_made_up_code_is_invalid_grant(op: Provider, code: str) -> None:
    """One answer for an unknown code as for a spent one (RFC 6749 §5.2)."""
    _is_refused(op.rp().redeem(op.rp().request(), code))


def test_a_code_of_another_issuer_is_invalid_grant(serve_provider: ServeProvider) -> None:
    """docs/security.md: what is granted stores its issuer: a code or refresh token under another one is invalid_grant."""
    op = serve_provider([], PYLON_OIDC_ISSUER=None, PYLON_LOGIN_URL=None)
    made = op.app.call(
        "POST", "/api/oidc/clients", {"client_id": "c-db", "redirect_uris": [CALLBACK], "first_party": True}
    )
    secret = made.json()["client_secret"]
    here, there = (
        RelyingParty(op.house, "c-db", secret=secret, issuer=f"https://{name}.example.com")
        for name in ("id", "other")
    )
    browser = op.browser()
    op.app.sign_in(browser)
    request = here.request(scope="openid offline_access")
    code = op.answered(request, browser.go(request.url))["code"]
    _is_refused(there.redeem(request, code))
    tokens = here.redeem(request, code).json()
    _is_refused(there.refresh(tokens["refresh_token"]))
    assert there.userinfo(tokens["access_token"]).status == 401
    assert there.introspect(tokens["access_token"]).json() == {"active": False}
    first = here.refresh(tokens["refresh_token"])
    _is_refused(there.refresh(tokens["refresh_token"]))
    _is_refused(there.redeem(request, code))
    assert here.refresh(tokens["refresh_token"]).body == first.body


def test_parameters_of_the_query_do_not_count(op: Provider) -> None:
    """The token endpoint reads only its form (RFC 6749 §3.2)."""
    rp, request, code = _code(op)
    query = f"code={code}&grant_type=authorization_code"
    answer = op.ask("POST", "/oidc/token", query=query, body=b"", content_type=FORM)
    assert (answer.status, answer.json()["error"]) == (401, "invalid_client")
    assert rp.redeem(request, code).status == 200


@each_of(
    ("content_type", "body", "status"),
    [
        ("application/json", b'{"grant_type":"authorization_code"}', 400),
        (None, b"grant_type=authorization_code", 400),
        ("multipart/form-data; boundary=x", b"--x--", 400),
        (FORM, b"x=" + b"y" * 65_536, 413),
    ],
)
def test_only_forms_of_a_decent_size_are_taken(
    op: Provider, content_type: str | None, body: bytes, status: int
) -> None:
    """Another content type is 400 `invalid_request`, a body above 64 KiB 413 (RFC 6749 §3.2)."""
    answer = op.ask("POST", "/oidc/token", content_type=content_type, body=body)
    assert answer.status == status
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


@each_of("path", ["/oidc/token", "/oidc/introspect", "/oidc/revoke", "/oidc/userinfo"])
def test_a_form_that_is_too_large_is_told_in_the_endpoints_shape(op: Provider, path: str) -> None:
    """413 is none of those that have the shape of the API everywhere (RFC 6749 §5.2, RFC 6750 §3)."""
    answer = op.ask("POST", path, content_type=FORM, body=b"x=" + b"y" * 65_536)
    assert (answer.status, answer.json()["error"]) == (413, "invalid_request")


@each_of("name", ["code", "grant_type", "code_verifier", "unknown", "client_id"])
def test_a_repeated_parameter_is_refused(op: Provider, name: str) -> None:
    """At the token endpoint too, known or not; and nothing is spent (RFC 6749 §3.2)."""
    rp, request, code = _code(op, "c-public")
    form: dict[str, Any] = {
        "grant_type": "authorization_code",
        "code": code,
        "code_verifier": request.code_verifier,
    }
    form |= {"redirect_uri": CALLBACK, "client_id": "c-public", "unknown": "x"}
    body = "&".join(f"{key}={value}" for key, value in [*form.items(), (name, form[name])])
    answer = op.ask("POST", "/oidc/token", content_type=FORM, body=body.encode())
    _is_refused(answer, "invalid_request")
    assert rp.redeem(request, code).status == 200


def test_a_resource_may_come_more_than_once(op: Provider) -> None:
    """At the token endpoint too, where one is named at most (RFC 8707 §2.2): more are no repeated parameter."""
    _, request, code = _code(op, "c-public")
    form = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("client_id", "c-public"),
        ("redirect_uri", CALLBACK),
    ]
    form += [
        ("code_verifier", str(request.code_verifier)),
        ("resource", "https://a.example"),
        ("resource", "https://b.example"),
    ]
    answer = op.ask("POST", "/oidc/token", content_type=FORM, body=urlencode(form).encode())
    assert (answer.status, answer.json()["error"]) == (400, "invalid_target")  # and not invalid_request


@each_of("path", ["/oidc/token", "/oidc/revoke", "/oidc/introspect"])
def test_nothing_at_all_is_a_request_without_parameters(op: Provider, path: str) -> None:
    """Neither a body nor a Content-Type: the client is missing, not the media type (RFC 6749 §5.2)."""
    answer = op.ask("POST", path)
    assert (answer.status, answer.json()["error"]) == (401, "invalid_client")


def test_the_answer_is_not_to_be_stored(op: Provider) -> None:
    """`Cache-Control: no-store` and `Pragma: no-cache` (RFC 6749 §5.1)."""
    rp, request, code = _code(op)
    answer = rp.redeem(request, code)
    assert (answer.headers["Cache-Control"], answer.headers["Pragma"]) == ("no-store", "no-cache")
    assert SECRET not in answer.body.decode()
