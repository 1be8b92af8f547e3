"""The rest of the admin API: interactions, grants, users."""

from __future__ import annotations

from typing import Any

import pytest

from tests.http.driver import refused
from tests.provider.browser import query_of
from tests.provider.conftest import ServeProvider
from tests.provider.driver import CALLBACK, CLAIMS, Provider
from tests.support.cases import each_of

GRANTS = "/api/oidc/grants"
STEPS = each_of("what", ["login", "consent", "reject"])


def _begun(op: Provider, client_id: str = "c-basic", **parameters: Any) -> str:
    return op.app.interaction(op.browser().go(op.rp(client_id).request(**parameters).url))


def _path(interaction: str, what: str = "") -> str:
    return f"/api/oidc/interactions/{interaction}" + (f"/{what}" if what else "")


def test_an_interaction_has_exactly_these_members(op: Provider) -> None:
    """docs/endpoints.md: `GET /api/oidc/interactions/{id}`: what the app's page should show."""
    asked = {
        "prompt": "login consent",
        "max_age": "60",
        "acr_values": "gold silver",
        "login_hint": "ada@x",
        "ui_locales": "de en",
    }
    interaction = _begun(op, "c-third", scope="email openid nonsense", **asked)
    answer = op.app.call("GET", _path(interaction))
    assert answer.status == 200
    assert answer.json() == {
        "id": interaction,
        "client": {
            "client_id": "c-third", "client_name": "<b>Third & Co</b>", "logo_uri": "https://logo.example.net:8443/a.png",
            "policy_uri": "https://third.example.org/privacy", "tos_uri": "https://third.example.org/terms", "first_party": False,
        },
        "scope": answer.json()["scope"],
        "prompt": "login consent", "max_age": 60, "acr_values": "gold silver", "login_hint": "ada@x", "ui_locales": "de en",
        "expires_at": int(op.clock()) + 3600,
        "step": "login",
    }  # fmt: skip
    assert set(answer.json()["scope"].split()) == {"openid", "email"}


def test_what_was_not_asked_is_null(op: Provider) -> None:
    """docs/endpoints.md: every member is there; absent ones are null."""
    shown = op.app.call("GET", _path(_begun(op, "c-post"))).json()
    assert [shown[name] for name in ("prompt", "max_age", "acr_values", "login_hint", "ui_locales")] == [
        None
    ] * 5
    assert shown["client"]["client_name"] is None and shown["client"]["logo_uri"] is None
    assert shown["client"]["first_party"] is True


def test_the_step_follows_the_user(op: Provider) -> None:
    """docs/endpoints.md: `step` is `login`, then `consent`."""
    browser = op.browser()
    landing = browser.go(op.rp("c-third").request().url)
    interaction = op.app.interaction(landing)
    assert op.app.call("GET", _path(interaction)).json()["step"] == "login"
    op.app.by_backend(browser, landing)
    assert op.app.call("GET", _path(interaction)).json()["step"] == "consent"


@STEPS
@each_of("interaction", ["unknown", "\0", "x" * 999])
def test_an_unknown_interaction_is_not_found(op: Provider, interaction: str, what: str) -> None:
    """docs/endpoints.md: 404."""
    body = {"user_id": "ada"} if what == "login" else {}
    refused(op.app.call("POST", _path(interaction, what), body), 404, "NOT_FOUND")
    refused(op.app.call("GET", _path(interaction)), 404, "NOT_FOUND")


@STEPS
def test_an_answer_is_where_to_go_on(op: Provider, what: str) -> None:
    """docs/endpoints.md: 200 `{"redirect_to"}`, nothing else; the session's token is never shown."""
    browser = op.browser()
    landing = browser.go(op.rp("c-third").request().url)
    interaction = op.app.interaction(landing)
    if what == "consent":
        op.app.by_backend(browser, landing)
    answer = op.app.call("POST", _path(interaction, what), {"user_id": "ada"} if what == "login" else {})
    assert (answer.status, list(answer.json())) == (200, ["redirect_to"])
    assert answer.json()["redirect_to"].startswith(f"{op.issuer}/oidc/interaction/{interaction}?verifier=")
    assert "pylon_" not in answer.body.decode().replace(interaction, "")
    assert answer.headers["Cache-Control"] == "no-store"


def test_the_backend_may_call_over_an_internal_address(op: Provider) -> None:
    """docs/endpoints.md: what is asked stores its issuer: `redirect_to` is the browser's address, whatever `Host` the backend used."""
    interaction = _begun(op)
    answer = op.app.call("POST", _path(interaction, "login"), {"user_id": "ada"}, host="10.0.0.7:4321")
    assert answer.json()["redirect_to"].startswith(f"{op.issuer}/oidc/interaction/")


@each_of(
    ("body", "field"),
    [({}, "user_id"), ({"user_id": ""}, "user_id"), ({"user_id": "a b"}, "user_id"), ({"user_id": "a", "claims": {"sub": "x"}}, "claims.sub"),
     ({"user_id": "a", "expires_in": 0}, "expires_in"), ({"user_id": "a", "other": 1}, "other"), ({"user_id": "a", "acr": ""}, "acr")],
)  # fmt: skip
def test_a_login_has_the_body_of_a_session_request(op: Provider, body: dict[str, Any], field: str) -> None:
    """docs/endpoints.md: the same checks; 400 `INVALID_BODY` naming the field; no session is made."""
    error = refused(op.app.call("POST", _path(_begun(op), "login"), body), 400, "INVALID_BODY")
    assert field in error["message"]
    assert op.app.call("GET", "/api/auth/users/a/sessions").json() == {"sessions": []}


@each_of(
    ("body", "error"),
    [(None, "access_denied"), ({}, "access_denied"), ({"error": "login_required"}, "login_required"),
     ({"error": "temporarily_unavailable", "error_description": "Closed on Sundays"}, "temporarily_unavailable")],
)  # fmt: skip
def test_a_rejection_goes_to_the_client(op: Provider, body: Any, error: str) -> None:
    """`{error?, error_description?}`; `error` defaults to `access_denied` (Core §3.1.2.6)."""
    browser, request = op.browser(), op.rp().request()
    interaction = op.app.interaction(browser.go(request.url))
    answer = op.app.call("POST", _path(interaction, "reject"), body)
    shown = op.answered(request, browser.go(answer.json()["redirect_to"]))
    assert shown["error"] == error and "code" not in shown
    if body and "error_description" in body:
        assert shown["error_description"] == body["error_description"]


@each_of(
    "body",
    [
        {"error": ""},
        {"error": 'a"b'},
        {"error": "é"},
        {"error": 1},
        {"error_description": "a\nb"},
        {"error_description": "\\"},
        {"x": 1},
    ],
)
def test_a_rejection_is_printable(op: Provider, body: dict[str, Any]) -> None:
    """docs/conformance.md 0.17: what the app says goes into the redirect: only the characters that are allowed there (RFC 6749 §4.1.2.1)."""
    refused(op.app.call("POST", _path(_begun(op), "reject"), body), 400, "INVALID_BODY")


# --- grants ---


def test_a_grant_has_exactly_these_members(op: Provider) -> None:
    """docs/endpoints.md: `{"grants": [{id, client_id, user_id, scope, created_at, last_used_at}]}`."""
    began = int(op.clock())
    signed = op.sign_in(scope="openid offline_access")
    op.clock.advance(50)
    op.rp().refresh(signed.tokens["refresh_token"])
    answer = op.app.call("GET", GRANTS, query="user_id=ada")
    (grant,) = answer.json()["grants"]
    assert list(answer.json()) == ["grants"]
    assert grant == {
        "id": grant["id"], "client_id": "c-basic", "user_id": "ada", "scope": "openid offline_access",
        "created_at": began, "last_used_at": began + 50,
    }  # fmt: skip


def test_grants_are_each_users_own(op: Provider) -> None:
    """docs/endpoints.md: those of the user who is named; none for an unknown one."""
    op.sign_in(scope="openid offline_access")
    op.sign_in(client_id="c-post", scope="openid offline_access")
    assert {grant["client_id"] for grant in op.app.grants("ada")} == {"c-basic", "c-post"}
    assert op.app.grants("bob") == []
    assert op.app.call("GET", GRANTS, query="user_id=%00").json() == {"grants": []}


@each_of("query", ["", "user_id=", "user=ada", "user_id=a&user_id=b", "user_id=%ff"])
def test_grants_are_asked_for_by_user(op: Provider, query: str) -> None:
    """docs/endpoints.md: `?user_id=` names one user."""
    assert op.app.call("GET", GRANTS, query=query).status == 400


@each_of("grant_id", ["unknown", "\0", "é", "x" * 999])
def test_an_unknown_grant_is_not_found(op: Provider, grant_id: str) -> None:
    """docs/endpoints.md: 404."""
    refused(op.app.call("DELETE", f"{GRANTS}/{grant_id.encode().decode('latin-1')}"), 404, "NOT_FOUND")


# --- users ---


def test_a_field_left_out_stays(op: Provider) -> None:
    """docs/endpoints.md: `PUT /api/auth/users/{user_id}`: 200 the record; what is given is replaced, the rest stays."""
    path = "/api/auth/users/ada"
    everything: dict[str, Any] = {"claims": dict(CLAIMS), "roles": ["dev"], "tenant_id": "acme"} | {
        "attributes": {"plan": "free", "seats": 3}
    }
    changes: list[dict[str, Any]] = [
        {"roles": []},
        {"claims": {"name": "A"}},
        {"tenant_id": "other"},
        {"attributes": {}},
        {},
    ]
    assert op.app.call("PUT", path, everything).json() == {"user_id": "ada"} | everything
    for change in changes:
        everything |= change
        answer = op.app.call("PUT", path, change)
        assert (answer.status, answer.json()) == (200, {"user_id": "ada"} | everything)


def test_a_new_user_has_empty_fields(op: Provider) -> None:
    """docs/endpoints.md: a user of whom nothing was said before."""
    assert op.app.call("PUT", "/api/auth/users/new", {}).json() == {
        "user_id": "new",
        "claims": {},
        "roles": [],
        "tenant_id": None,
        "attributes": {},
    }


def test_a_session_request_replaces_what_it_gives(op: Provider) -> None:
    """docs/endpoints.md: the user record: a session request replaces the fields that it gives, and only those."""
    op.app.call("PUT", "/api/auth/users/ada", {"claims": {"name": "Ada"}, "roles": ["dev"]})
    op.app.session("ada", roles=["ops"])
    assert op.app.call("PUT", "/api/auth/users/ada", {}).json()["claims"] == {"name": "Ada"}
    signed = op.sign_in(scope="openid roles profile")
    assert op.rp().userinfo(signed.access_token).json() == {"sub": "ada", "name": "Ada", "roles": ["ops"]}


@each_of("user_id", ["a/b", "https://id.example/ada", "a@b.c", "x" * 255])
def test_any_user_id_has_a_record(op: Provider, user_id: str) -> None:
    """docs/endpoints.md: a user id is 1–255 visible ASCII characters, slashes too."""
    assert op.app.call("PUT", f"/api/auth/users/{user_id}", {"roles": ["x"]}).json()["user_id"] == user_id


@each_of(
    ("body", "field"),
    [({"claims": {"sub": "x"}}, "claims.sub"), ({"claims": {"email_verified": "yes"}}, "claims.email_verified"), ({"roles": "dev"}, "roles"),
     ({"roles": [1]}, "roles"), ({"tenant_id": 1}, "tenant_id"), ({"tenant_id": None}, "tenant_id"), ({"other": 1}, "other")],
)  # fmt: skip
def test_a_malformed_record_is_refused(op: Provider, body: dict[str, Any], field: str) -> None:
    """docs/endpoints.md: 400 `INVALID_BODY` naming the field."""
    assert field in refused(op.app.call("PUT", "/api/auth/users/ada", body), 400, "INVALID_BODY")["message"]


@each_of("user_id", ["a b", "é", "x" * 256])
def test_what_is_no_user_id_has_no_record(op: Provider, user_id: str) -> None:
    """docs/endpoints.md: 404 for what nobody can be called."""
    refused(op.app.call("PUT", f"/api/auth/users/{user_id.encode().decode('latin-1')}", {}), 404, "NOT_FOUND")


def test_a_whole_flow_needs_no_more_than_this(op: Provider) -> None:
    """docs/endpoints.md: way (b), step by step: authorize, the sign-in page, the backend's read and report, back to the client."""
    browser, request = op.browser(), op.rp().request()
    told = query_of(browser.go(request.url).url)
    assert op.app.call("GET", _path(told["interaction"])).json()["client"]["client_id"] == "c-basic"
    landing = browser.go(op.app.report(told["interaction"], "login", {"user_id": "ada"}))
    assert landing.is_at(CALLBACK) and "code" in query_of(landing.url)


# --- whose consent is asked for ---


def _asked(op: Provider, user: str = "ada", **session: Any) -> tuple[Any, str]:
    """A browser whose user is at the app's consent page; the interaction."""
    browser = op.browser()
    begun = op.app.sign_in(browser, user, **session)
    return begun, op.app.interaction(browser.go(op.rp("c-third").request(scope="openid email").url))


@pytest.fixture
def apart(serve_provider: ServeProvider) -> Provider:
    """A provider whose app asks for consent itself."""
    return serve_provider(PYLON_CONSENT_URL="https://app.example.com/consent")


def test_the_apps_page_is_told_whose_consent_it_asks(apart: Provider) -> None:
    """docs/endpoints.md: at step `consent` also `user_id`, `sid`, and the claims that a page shows, no others."""
    begun, interaction = _asked(apart, claims=dict(CLAIMS))
    shown = apart.app.call("GET", _path(interaction)).json()
    assert (shown["step"], shown["user_id"], shown["sid"]) == ("consent", "ada", begun["sid"])
    display = ("name", "given_name", "family_name", "nickname", "preferred_username", "picture", "email")
    assert shown["claims"] == {name: CLAIMS[name] for name in display}
    _, interaction = _asked(apart, "bob")
    assert apart.app.call("GET", _path(interaction)).json()["claims"] == {}


def test_at_step_login_nobody_is_named(apart: Provider) -> None:
    """docs/endpoints.md: before the sign-in there is no user, so the members are absent."""
    shown = apart.app.call("GET", _path(_begun(apart, "c-third"))).json()
    assert shown["step"] == "login" and not {"user_id", "sid", "claims"} & set(shown)


def test_an_answer_for_another_user_is_refused(apart: Provider) -> None:
    """docs/endpoints.md: 409 `WRONG_USER` where `user_id` is not who was asked; nothing is reported by it."""
    _, interaction = _asked(apart)
    answer = apart.app.call("POST", _path(interaction, "consent"), {"user_id": "bob"})
    refused(answer, 409, "WRONG_USER")
    assert apart.app.call("POST", _path(interaction, "consent"), {"user_id": "ada"}).status == 200
    for wrong in ("", "a b", 1, None):
        body = {"user_id": wrong}
        refused(apart.app.call("POST", _path(interaction, "consent"), body), 400, "INVALID_BODY")
    refused(
        apart.app.call("POST", _path(_begun(apart, "c-third"), "consent"), {"user_id": "ada"}),
        409,
        "WRONG_STEP",
    )


def test_who_is_asked_follows_the_browser(apart: Provider) -> None:
    """docs/sign-in.md: a page that stayed open while another user was asked is refused by its own `user_id`."""
    browser = apart.browser()
    apart.app.sign_in(browser, "ada")
    landing = browser.go(apart.rp("c-third").request().url)
    interaction = apart.app.interaction(landing)
    apart.app.sign_in(browser, "bob", auth_time=int(apart.clock()) + 1)
    browser.go(query_of(landing.url)["return_to"])
    assert apart.app.call("GET", _path(interaction)).json()["user_id"] == "bob"
    refused(apart.app.call("POST", _path(interaction, "consent"), {"user_id": "ada"}), 409, "WRONG_USER")
