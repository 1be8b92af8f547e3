"""What a client gets without asking for it in a special way: claims in the ID token, under its names, with its scopes."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tests.provider.conftest import CLIENTS, ServeProvider
from tests.provider.driver import CALLBACK, CLAIMS, SECRET, Provider
from tests.support.cases import each_of

ROLES: dict[str, Any] = {"roles": ["dev", "ops"], "tenant_id": "acme"}
TOLD: dict[str, Any] = {"claims": dict(CLAIMS)} | ROLES
NEITHER: dict[str, str | None] = {"code_challenge": None, "code_challenge_method": None, "nonce": None}


def _client(client_id: str, **members: Any) -> dict[str, Any]:
    return {
        "client_id": client_id, "client_secret": SECRET, "first_party": True, "redirect_uris": [CALLBACK],
    } | members  # fmt: skip


@pytest.fixture
def apps(serve_provider: ServeProvider) -> Provider:
    """Applications with habits of their own."""
    return serve_provider(
        [
            *CLIENTS,
            _client("c-requested", id_token_claims="requested"),
            _client("c-groups", claim_names={"roles": "groups", "tenant_id": "https://example.com/tenant"}),
            _client("c-defaults", default_scopes=["profile", "groups"]),
            _client("c-asked", default_scopes=["groups"], first_party=False, client_name="Asked"),
        ]
    )


def test_an_id_token_holds_what_the_scopes_give(apps: Provider) -> None:
    """Core §5.4, §12.2: as userinfo gives them, and after a refresh; with only the scope of that refresh."""
    signed = apps.sign_in(scope="openid email roles groups offline_access", fields=TOLD)
    userinfo = apps.rp().userinfo(signed.access_token).json()
    assert (
        userinfo
        == {"sub": "ada", "email": CLAIMS["email"], "email_verified": True, "groups": ["dev", "ops"]} | ROLES
    )
    assert userinfo.items() <= signed.claims.items() and "name" not in signed.claims
    apps.app.call("PUT", "/api/auth/users/ada", {"roles": ["boss"]})
    again = apps.rp().refresh(signed.tokens["refresh_token"], scope="openid roles").json()
    claims = apps.rp().verified(again["id_token"])
    assert (claims["roles"], claims["tenant_id"]) == (["boss"], "acme")
    assert not {"email", "groups", "name"} & set(claims)


def test_a_client_may_keep_to_what_it_asks_for(apps: Provider) -> None:
    """Core §5.5: with `requested` only what `claims` names goes into the ID token, refreshed or not."""
    asked = json.dumps({"id_token": {"name": None}, "userinfo": {"phone_number": None}})
    signed = apps.sign_in(
        client_id="c-requested", scope="openid email offline_access", claims=asked, fields=TOLD
    )
    again = apps.rp("c-requested").refresh(signed.tokens["refresh_token"]).json()
    for claims in (signed.claims, apps.rp("c-requested").verified(again["id_token"])):
        assert claims["name"] == CLAIMS["name"]
        assert not {"email", "phone_number"} & set(claims)
    given = apps.rp("c-requested").userinfo(signed.access_token).json()
    assert set(given) == {"sub", "email", "email_verified", "phone_number"}


def test_a_client_knows_claims_by_its_own_names(apps: Provider) -> None:
    """Core §5.1.2: both in the ID token and at userinfo; other clients are not concerned."""
    signed = apps.sign_in(client_id="c-groups", scope="openid roles email", fields=TOLD)
    for given in (signed.claims, apps.rp("c-groups").userinfo(signed.access_token).json()):
        assert (given["groups"], given["https://example.com/tenant"]) == (["dev", "ops"], "acme")
        assert not {"roles", "tenant_id"} & set(given)
    other = apps.sign_in(scope="openid roles", fields=TOLD)
    assert other.claims["roles"] == ["dev", "ops"] and "groups" not in other.claims


def test_default_scopes_are_added_and_told(apps: Provider) -> None:
    """RFC 6749 §5.1: the answer says the scope that was granted, which is not the one that was asked for."""
    signed = apps.sign_in(client_id="c-defaults", scope="openid", fields=TOLD)
    assert signed.tokens["scope"] == "openid profile groups"
    assert (signed.claims["groups"], signed.claims["name"]) == (["dev", "ops"], CLAIMS["name"])


def test_users_are_asked_for_default_scopes_too(apps: Provider) -> None:
    """Core §3.1.2.4: nothing is granted that the page did not list; the app's own page gets it too."""
    browser, rp = apps.browser(), apps.rp("c-asked")
    landing = browser.go(rp.request(scope="openid").url)
    shown = apps.app.call("GET", f"/api/oidc/interactions/{apps.app.interaction(landing)}").json()
    assert shown["scope"] == "openid groups"
    landing = apps.app.by_backend(browser, landing, **TOLD)
    assert "see your groups" in landing.text


def _lines(log: io.StringIO, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.getvalue().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_a_client_that_binds_nothing_is_told_of_once_an_hour(apps: Provider, log: io.StringIO) -> None:
    """RFC 9700 §2.1.1: the operator allowed it, and should know that it is used; refusals and safe requests do not count."""
    told = "client_without_pkce_and_nonce"
    apps.sign_in(client_id="c-loose")
    apps.authorize(apps.browser(), apps.rp("c-basic").request(**NEITHER))
    assert _lines(log, told) == []
    for _ in range(3):
        apps.sign_in(client_id="c-loose", **NEITHER)
    (line,) = _lines(log, told)
    assert (line["client_id"], line["setting"], line["level"]) == ("c-loose", "require_pkce", "warning")
    apps.clock.advance(3600)
    apps.sign_in(client_id="c-loose", **NEITHER)
    assert len(_lines(log, told)) == 2


def test_a_second_worker_does_not_tell_it_again(serve_provider: ServeProvider, log: io.StringIO) -> None:
    """RFC 9700 §2.1.1: workers and replicas share the store: an hour has one line, not one a process."""
    url = f"sqlite:///{serve_provider().house.settings.database.path}"
    for _ in range(2):  # the same database, another process's memory
        serve_provider(DATABASE_URL=url).sign_in(client_id="c-loose", **NEITHER)
    assert len(_lines(log, "client_without_pkce_and_nonce")) == 1


def test_claims_that_do_not_fit_are_told_of_once_an_hour(apps: Provider, log: io.StringIO) -> None:
    """Core §2: a token below 6 KB; which claim, for which client; nothing of the claim's value."""
    claims = {"name": "Ada", "picture": "data:," + "canary" * 2000}
    for _ in range(2):
        signed = apps.sign_in(scope="openid profile", fields={"claims": claims})
        assert len(signed.tokens["id_token"]) < 6000
        assert signed.claims["name"] == "Ada" and "picture" not in signed.claims
        assert apps.rp().userinfo(signed.access_token).json()["picture"] == claims["picture"]
    (line,) = _lines(log, "id_token_cut")
    assert (line["client_id"], line["claims"]) == ("c-basic", ["picture"])
    assert "canary" not in log.getvalue()


def test_neither_pkce_nor_a_nonce_is_refused_with_both_ways(apps: Provider) -> None:
    """RFC 9700 §2.1.1: a confidential client without an exception; its error says what its operator can do."""
    shown = apps.authorize(apps.browser(), apps.rp().request(**NEITHER))
    assert shown["error"] == "invalid_request"
    assert all(word in shown["error_description"] for word in ("code_challenge", "nonce", "require_pkce"))
    by_nonce = NEITHER | {"nonce": "n-1"}
    assert apps.sign_in(**by_nonce).claims["nonce"] == "n-1"
    refused = apps.authorize(apps.browser(), apps.rp("c-public").request(**by_nonce))
    assert refused["error"] == "invalid_request"
    plain = apps.authorize(apps.browser(), apps.rp().request(**by_nonce | {"scope": "email"}))
    assert plain["error"] == "invalid_request"


@each_of(
    ("begun", "redeemed"),
    [({}, {"code_verifier": None}), (NEITHER | {"nonce": "n-1"}, {"code_verifier": "v" * 43})],
)
def test_a_challenge_always_binds(apps: Provider, begun: dict[str, Any], redeemed: dict[str, Any]) -> None:
    """RFC 9700 §2.1.1, §4.8.2: no verifier where there was a challenge, and none where there was not."""
    for client_id in ("c-basic", "c-loose"):
        rp = apps.rp(client_id)
        request = rp.request(**begun)
        code = apps.authorize(apps.browser(), request)["code"]
        answer = rp.redeem(request, code, **redeemed)
        assert (answer.status, answer.json()["error"]) == (400, "invalid_grant")


def test_the_admin_api_keeps_and_shows_these_members(apps: Provider) -> None:
    """RFC 7592 §2.2: what is sent back as it was shown changes nothing; what is left out has its default again."""
    members = {
        "claim_names": {"roles": "groups"}, "id_token_claims": "requested", "default_scopes": ["groups"],
        "allow_any_scheme": True, "redirect_uris": ["audiobookshelf://oauth", "com.example.app://cb"],
        "require_pkce": False, "logout_by_hint": False,
    }  # fmt: skip
    made = apps.app.call("POST", "/api/oidc/clients", members | {"client_id": "c-kept"}).json()
    path = "/api/oidc/clients/c-kept"
    shown = apps.app.call("GET", path).json()
    assert members.items() <= shown.items() and members.items() <= made.items()
    assert apps.app.call("PUT", path, shown).json() == shown
    bare = apps.app.call("PUT", path, {"redirect_uris": [CALLBACK]}).json()
    assert {name: bare.get(name) for name in members} == {
        "claim_names": {}, "id_token_claims": "scope", "default_scopes": [], "allow_any_scheme": False,
        "redirect_uris": [CALLBACK], "require_pkce": None, "logout_by_hint": True,
    }  # fmt: skip
    refused = apps.app.call("PUT", path, {"redirect_uris": ["audiobookshelf://oauth"]})
    assert (refused.status, refused.json()["error"]["code"]) == (400, "INVALID_CLIENT_METADATA")
    assert "allow_any_scheme" in refused.json()["error"]["hint"]


# --- the app's own facts, by the operator's own scopes ---

HR = {
    "hr": {"claims": ["department", "seats"], "description": "see your department & seat"},
    "plan": {"claims": ["plan"], "description": "see your plan"},
}
FACTS: dict[str, Any] = {"department": "R&D", "seats": 3, "plan": "free", "secret": "canary"}


@pytest.fixture
def hr(serve_provider: ServeProvider) -> Provider:
    """A provider whose operator has two scopes of their own."""
    return serve_provider(
        [
            *CLIENTS,
            _client("c-no-hr", scope="openid email plan"),
            _client("c-unit", claim_names={"department": "unit"}, default_scopes=["hr"]),
            _client("c-requested", id_token_claims="requested"),
        ],
        PYLON_OIDC_SCOPES=json.dumps(HR),
    )


def test_a_scope_of_the_operators_gives_its_attributes(hr: Provider) -> None:
    """Core §5.4: in the ID token and at userinfo, refreshed too; what no granted scope names stays here."""
    signed = hr.sign_in(scope="openid hr offline_access", fields={"attributes": FACTS})
    given = {"department": "R&D", "seats": 3}
    assert signed.tokens["scope"] == "openid offline_access hr"
    assert hr.rp().userinfo(signed.access_token).json() == {"sub": "ada"} | given
    assert given.items() <= signed.claims.items() and not {"plan", "secret"} & set(signed.claims)
    hr.app.call("PUT", "/api/auth/users/ada", {"attributes": {"department": "Sales"}})
    again = hr.rp().verified(hr.rp().refresh(signed.tokens["refresh_token"]).json()["id_token"])
    assert again["department"] == "Sales" and "seats" not in again


@each_of(
    ("client_id", "parameters"),
    [
        ("c-basic", {"scope": "openid profile email roles"}),
        ("c-basic", {"scope": "openid", "claims": '{"userinfo":{"secret":null},"id_token":{"secret":null}}'}),
        ("c-no-hr", {"scope": "openid hr"}),
        (
            "c-no-hr",
            {"scope": "openid", "claims": '{"userinfo":{"department":null},"id_token":{"department":null}}'},
        ),
        ("c-requested", {"scope": "openid email"}),
    ],
)
def test_who_did_not_ask_or_may_not_gets_none(
    hr: Provider, client_id: str, parameters: dict[str, Any]
) -> None:
    """RFC 9700 §2.3: only what was asked for and is allowed; introspection never shows any."""
    signed = hr.sign_in(client_id=client_id, fields={"attributes": FACTS}, **parameters)
    rp = hr.rp(client_id)
    for given in (
        signed.claims,
        rp.userinfo(signed.access_token).json(),
        rp.introspect(signed.access_token).json(),
    ):
        assert not set(FACTS) & set(given)


def test_introspection_holds_no_attributes(hr: Provider) -> None:
    """RFC 7662 §5: of a token that gives them at userinfo, and of a minted one."""
    signed = hr.sign_in(scope="openid hr", fields={"attributes": FACTS})
    minted = hr.ask("POST", "/api/auth/jwt", token=hr.app.session(attributes=FACTS)["token"]).json()["token"]
    for token in (signed.access_token, minted):
        told = hr.rp().introspect(token).json()
        assert not set(FACTS) & set(told) and "canary" not in json.dumps(told)


def test_one_attribute_may_be_asked_for_alone(hr: Provider) -> None:
    """Core §5.5: by `claims`, for a client that may have its scope."""
    asked = json.dumps({"id_token": {"department": None}})
    signed = hr.sign_in(client_id="c-requested", claims=asked, fields={"attributes": FACTS})
    assert signed.claims["department"] == "R&D" and "seats" not in signed.claims


def test_names_and_defaults_hold_for_attributes_too(hr: Provider) -> None:
    """Core §5.1.2: a client that knows the department by another name, and never asks for it."""
    signed = hr.sign_in(client_id="c-unit", fields={"attributes": FACTS})
    assert signed.claims["unit"] == "R&D" and "department" not in signed.claims


def test_the_consent_page_has_the_operators_words(hr: Provider) -> None:
    """Core §3.1.2.4: in words, escaped; an attribute that is asked for by itself is listed with its scope."""
    asked = json.dumps({"userinfo": {"plan": None}})
    browser = hr.browser()
    landing = hr.app.by_backend(
        browser, browser.go(hr.rp("c-third").request(scope="openid hr", claims=asked).url)
    )
    assert "see your department &amp; seat" in landing.text and "see your plan" in landing.text


def test_discovery_lists_the_operators_scopes(hr: Provider) -> None:
    """RFC 8414 §2: what may be asked for, and what it may give."""
    document = hr.ask("GET", "/.well-known/openid-configuration").json()
    assert document["scopes_supported"][-2:] == ["hr", "plan"]
    assert {"department", "seats", "plan"} <= set(document["claims_supported"])


def test_a_client_of_the_database_may_have_them(hr: Provider) -> None:
    """RFC 7591 §2: registered with the operator's words; one that names none may have all."""
    made = hr.app.call("POST", "/api/oidc/clients", {"client_id": "c-all", "redirect_uris": [CALLBACK]})
    assert made.json()["scope"].endswith("groups hr plan")
    one = hr.app.call("POST", "/api/oidc/clients", {"redirect_uris": [CALLBACK], "scope": "openid hr"})
    assert one.json()["scope"] == "openid hr"
    wrong = hr.app.call("POST", "/api/oidc/clients", {"redirect_uris": [CALLBACK], "scope": "openid hrr"})
    assert (wrong.status, "hr plan" in wrong.json()["error"]["hint"]) == (400, True)


def test_the_largest_attribute_goes_first(hr: Provider, log: io.StringIO) -> None:
    """Core §2: of what makes an ID token too long, the app's own facts go before standard claims and roles."""
    facts = {"department": "x" * 3_000, "seats": "x" * 1_000, "plan": "free"}
    claims = {"picture": "x" * 2_600}
    signed = hr.sign_in(scope="openid profile hr plan", fields={"attributes": facts, "claims": claims})
    assert signed.claims["picture"] == claims["picture"] and signed.claims["plan"] == "free"
    (line,) = _lines(log, "id_token_cut")
    assert line["claims"] == ["department"]
