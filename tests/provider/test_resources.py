"""A client asks for a user's token for one API: which resources it may name, what the user is asked, what comes of it.

Spec: RFC 8707; RFC 9068; RFC 9470 §3
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jwt as pyjwt
import pytest

from service.cli.policy_cases import decided_for
from service.clients import Clients
from service.policies.deciding import Asked, Given
from service.policies.explaining import explained
from service.sessions import LocalSessions
from service.startup import open_store
from tests.http.driver import unverified_claims
from tests.provider.conftest import ServeProvider
from tests.provider.driver import CALLBACK, CLAIMS, ISSUER, OTHER_CALLBACK, SECRET, Provider, Signed
from tests.provider.registering import registered
from tests.support.gunicorn import SECRET as JWT_SECRET
from tests.support.gunicorn import Answer

A: Final = "https://a.example.com"
B: Final = "https://b.example.com/v1"
GUARDED: Final = "https://guarded.example.com"
POLICIES: Final = f"""
[default]
alg = "PS256"
grants = ["authorization_code"]

[audience."{A}"]
scopes = ["read", "write"]
claims = ["roles", "email"]
rename = {{ roles = "groups" }}
lifetime_s = 7200
scope_descriptions = {{ read = "read your <b>reports</b>" }}

[audience."{B}"]
scopes = ["read", "post"]
clients = ["c-basic", "c-third"]

[audience."{GUARDED}"]
[audience."{GUARDED}".require]
acr = ["mfa"]
max_session_age_s = 600
roles = ["admin"]

[audience."https://minted.example.com"]
grants = ["mint"]
"""
CLIENTS: Final[list[dict[str, Any]]] = [
    {"client_id": "c-basic", "client_secret": SECRET, "redirect_uris": [CALLBACK], "first_party": True},
    {"client_id": "c-third", "client_secret": SECRET, "redirect_uris": [OTHER_CALLBACK]},
    {"client_id": "c-narrow", "client_secret": SECRET, "redirect_uris": [CALLBACK], "first_party": True, "scope": "openid offline_access read"},
    {"client_id": "c-api", "client_secret": SECRET, "redirect_uris": [CALLBACK], "resource_ids": [A]},
]  # fmt: skip
ADA: Final[dict[str, Any]] = {
    "roles": ["admin"],
    "claims": {"email": CLAIMS["email"]},
    "acr": "mfa",
    "amr": ["pwd", "otp"],
}
ServePolicies = Callable[..., Provider]


@pytest.fixture
def serve_policies(serve_provider: ServeProvider, tmp_path: Path) -> ServePolicies:
    """Make a provider of a policy file."""

    def make(text: str = POLICIES, **environ: Any) -> Provider:
        (tmp_path / "policies.toml").write_text(text)
        return serve_provider(CLIENTS, PYLON_POLICIES=str(tmp_path / "policies.toml"), **environ)

    return make


@pytest.fixture
def op(serve_policies: ServePolicies) -> Provider:
    """A provider of the policies above."""
    return serve_policies()


def refused_at_authorize(
    op: Provider, client_id: str = "c-basic", fields: dict[str, Any] | None = None, **parameters: Any
) -> str:
    """The error by which an authorization request comes back."""
    request = op.rp(client_id).request(**parameters)
    return op.authorize(op.browser(), request, **(fields or ADA))["error"]


def claims_at(op: Provider, token: str, audience: str) -> dict[str, Any]:
    """The claims of a JWT access token, verified as its API does."""
    header = pyjwt.get_unverified_header(token)
    assert (header["typ"], header["alg"]) == ("at+jwt", "PS256")
    key = pyjwt.PyJWKSet.from_dict(op.ask("GET", "/oidc/jwks").json())[header["kid"]]
    options: Any = {"verify_exp": False, "verify_iat": False}
    claims: dict[str, Any] = pyjwt.decode(
        token, key, algorithms=["PS256"], audience=audience, issuer=ISSUER, options=options
    )
    return claims


def sign_in(op: Provider, client_id: str = "c-basic", **parameters: str | None) -> Signed:
    """A whole flow of Ada's."""
    return op.sign_in(client_id=client_id, fields=ADA, **parameters)


def test_a_token_for_an_api_is_a_jwt_of_its_policy(op: Provider, subtests: pytest.Subtests) -> None:
    """RFC 9068 §2.2: `iss sub aud client_id scope jti iat exp`, `auth_time acr amr sid`, and the claims of the table."""
    now = int(op.clock())
    signed = sign_in(op, scope="openid read unknown", resource=f"{A}/")
    claims = claims_at(op, signed.access_token, A)
    sid = signed.claims["sid"]
    assert claims.pop("jti")
    assert claims == {
        "iss": ISSUER, "sub": "ada", "aud": A, "client_id": "c-basic", "scope": "read", "iat": now, "exp": now + 7200,
        "auth_time": now, "acr": "mfa", "amr": ["pwd", "otp"], "sid": sid, "groups": ["admin"], "email": CLAIMS["email"],
    }  # fmt: skip
    assert (signed.tokens["scope"], signed.tokens["expires_in"]) == ("read", 7200)
    with subtests.test("it is the one that is explained"):
        sessions = LocalSessions(open_store(op.house.settings), lifetime_s=3600)
        session = sessions.of_sid("ada", sid, now=now)
        asked = Asked("authorization_code", "", now, session, op.house.settings.clients[0], ("read",))
        decided = decided_for(op.house.settings, f"{A}/", asked)
        assert isinstance(decided, Given)
        told = explained(A, "authorization_code", decided)
        assert told["claims"] == claims
        of_sign_in = {name: f"{name} of the sign-in" for name in ("acr", "amr", "auth_time")}
        assert told["sources"].items() >= (of_sign_in | {"sub": "the user's id", "exp": "lifetime_s"}).items()
    with subtests.test("userinfo refuses it"):
        assert op.rp().userinfo(signed.access_token).status == 401
    with subtests.test("it is no handle"):
        jti = unverified_claims(signed.access_token)["jti"]
        assert op.rp().userinfo(jti).status == 401
        assert not op.rp().introspect(jti).json()["active"]
    with subtests.test("without a scope it is all that the client may have, and no ID token"):
        wide = sign_in(op, scope=None, resource=B, nonce=None)
        assert wide.tokens["scope"] == "read post"
        assert "id_token" not in wide.tokens
        narrow = sign_in(op, "c-narrow", scope=None, resource=A, nonce=None)
        assert narrow.tokens["scope"] == "read"
    with subtests.test("an API without a scope of this client"):
        bare = sign_in(op, "c-narrow", scope="openid", resource=A)
        assert "scope" not in bare.tokens
        assert "scope" not in claims_at(op, bare.access_token, A)
    with subtests.test("the grant is listed with its resource"):
        grants = op.app.grants()
        assert {"scope": "openid read", "resources": [A]}.items() <= next(
            each for each in grants if each["scope"] == "openid read"
        ).items()


def test_a_resource_that_is_not_for_the_client_is_refused(
    op: Provider, serve_provider: ServeProvider, subtests: pytest.Subtests
) -> None:
    """RFC 8707 §2: `invalid_target`, at authorize and at the token endpoint; nothing is spent."""
    for resource in (
        "https://unknown.example",
        "https://minted.example.com",
        A.upper(),
        f"{A}/x",
        f"{A}#x",
        f"{A} {B} https://x.example",
        "a",
    ):
        with subtests.test("authorize", resource=resource):
            assert refused_at_authorize(op, resource=resource) == "invalid_target"
    with subtests.test("not of this client"):
        assert refused_at_authorize(op, "c-narrow", resource=B) == "invalid_target"
    with subtests.test("a word of another audience is left out"):
        assert sign_in(op, scope="openid post", resource=A).tokens.get("scope") is None
    rp, request = op.rp(), op.rp().request(scope="openid read", resource=f"{A} {B}")
    code = op.authorize(op.browser(), request, **ADA)["code"]
    for resource in ("https://unknown.example", "https://minted.example.com", GUARDED, f"{A} {B}"):
        with subtests.test("token", resource=resource):
            assert rp.redeem(request, code, resource=resource).json()["error"] == "invalid_target"
    with subtests.test("and the code is still good"):
        answer = rp.redeem(request, code, resource=B)
        assert claims_at(op, answer.json()["access_token"], B)["scope"] == "read"
    with subtests.test("without policies only the issuer"):
        plain = serve_provider(CLIENTS[:2])
        assert refused_at_authorize(plain, resource=A) == "invalid_target"
        assert plain.sign_in(resource=ISSUER).tokens["scope"] == "openid"


def test_a_grant_of_several_resources_gives_a_token_for_each(op: Provider, subtests: pytest.Subtests) -> None:
    """RFC 8707 §2.2: one at a time, any of them at each refresh; without one, userinfo's."""
    signed = sign_in(op, scope="openid offline_access read write post email", resource=f"{A} {B}")
    refresh = signed.tokens["refresh_token"]

    def refreshed(**more: str) -> Answer:
        nonlocal refresh
        answer = op.rp().refresh(refresh, **more)
        if answer.status == 200:
            refresh = answer.json()["refresh_token"]
        return answer

    with subtests.test("several, and none named: userinfo's"):
        assert signed.tokens["scope"] == "openid email offline_access"
        assert op.rp().userinfo(signed.access_token).json()["email"] == CLAIMS["email"]
    for resource, scope in ((A, "read write"), (B, "read post"), (ISSUER, "openid email offline_access")):
        with subtests.test("refresh", resource=resource):
            value = refreshed(resource=resource).json()
            assert value["scope"] == scope
            if resource != ISSUER:
                assert claims_at(op, value["access_token"], resource)["scope"] == scope
            assert "id_token" in value
    with subtests.test("less of it"):
        assert refreshed(resource=A, scope="write").json()["scope"] == "write"
        assert refreshed(resource=A).json()["scope"] == "read write"
    for form, error in (
        ({"resource": A, "scope": "post"}, "invalid_scope"),
        ({"resource": A, "scope": "openid"}, "invalid_scope"),
        ({"scope": "read"}, "invalid_scope"),
        ({"resource": GUARDED}, "invalid_target"),
        ({"resource": f"{A} {B}"}, "invalid_target"),
    ):
        with subtests.test("refused", **form):
            assert refreshed(**form).json()["error"] == error
            assert refreshed(resource=B).status == 200  # nothing was spent
    with subtests.test("the same within the grace"):
        spent = refresh
        first, again = (op.rp().refresh(spent, resource=A).json() for _ in range(2))
        assert first["refresh_token"] == again["refresh_token"]
        one, two = (unverified_claims(each["access_token"]) for each in (first, again))
        assert one == two
        refresh = first["refresh_token"]
        other = op.rp().refresh(spent, resource=B)
        assert other.json()["error"] == "invalid_grant"  # another resource is another use, and ends the grant
        assert refreshed(resource=A).json()["error"] == "invalid_grant"
    with subtests.test("several, no openid, none named"):
        request = op.rp().request(scope="read", resource=f"{A} {B}", nonce=None)
        code = op.authorize(op.browser(), request, **ADA)["code"]
        assert op.rp().redeem(request, code).json()["error"] == "invalid_target"
    with subtests.test("the issuer among them"):
        signed = sign_in(op, scope="openid read", resource=f"{A} {ISSUER}")
        assert signed.tokens["scope"] == "openid"


def test_a_policy_that_changes_holds_for_what_was_granted(
    serve_policies: ServePolicies, op: Provider, subtests: pytest.Subtests
) -> None:
    """docs/policies.md: what a policy no longer gives is gone at the next refresh; nothing is spent by that."""
    data = op.house.settings.data_dir
    signed = sign_in(op, scope="openid offline_access read write", resource=A)
    token = signed.tokens["refresh_token"]
    changes = {
        "a word": (POLICIES.replace('scopes = ["read", "write"]', 'scopes = ["read"]'), None, "read"),
        "the way": (POLICIES.replace('grants = ["authorization_code"]', 'grants = ["mint"]'), "invalid_target", None),
        "the client": (POLICIES.replace('lifetime_s = 7200', 'clients = ["c-third"]'), "invalid_target", None),
        "a requirement": (POLICIES.replace('lifetime_s = 7200', 'require = {roles = ["owner"]}'), "invalid_target", None),
    }  # fmt: skip
    for name, (text, error, scope) in changes.items():
        with subtests.test(name):
            later = serve_policies(text, PYLON_DATA_DIR=str(data))
            answer = later.rp().refresh(token)
            assert answer.json().get("error") == error
            if name == "a requirement":
                assert "require.roles" in answer.json()["error_description"]
            if scope is not None:
                assert answer.json()["scope"] == scope
                token = answer.json()["refresh_token"]


def test_what_an_access_token_is_worth(op: Provider, subtests: pytest.Subtests) -> None:
    """docs/policies.md: the client that it was issued to and the API that it is for get the answer; it ends with its session, its grant, and by revocation."""
    signed = sign_in(op, scope="openid offline_access read", resource=A)
    api, rp, other = op.rp("c-api"), op.rp(), op.rp("c-narrow")
    with subtests.test("told"):
        for asker in (api, rp):
            known = asker.introspect(signed.access_token).json()
            assert (known["active"], known["scope"], known["client_id"], known["aud"]) == (
                True,
                "read",
                "c-basic",
                A,
            )
        assert other.introspect(signed.access_token).json() == {"active": False}
        assert rp.introspect(signed.tokens["refresh_token"]).json()["scope"] == "openid offline_access read"
    with subtests.test("revoked, with all that were issued until then"):
        second = rp.refresh(signed.tokens["refresh_token"]).json()
        other.revoke(second["access_token"])
        assert api.introspect(second["access_token"]).json()["active"]
        assert rp.revoke(second["access_token"]).status == 200
        for token in (signed.access_token, second["access_token"]):
            assert api.introspect(token).json() == {"active": False}
        third = rp.refresh(second["refresh_token"]).json()
        assert api.introspect(third["access_token"]).json()["active"]
    with subtests.test("its session has ended"):
        op.ask("DELETE", "/api/auth/users/ada/sessions/none")  # no such thing: nothing ends
        sid = unverified_claims(third["access_token"])["sid"]
        browser_session = op.app.session("ada")
        op.ask("DELETE", f"/api/auth/sessions/{sid}", token=browser_session["token"])
        assert api.introspect(third["access_token"]).json() == {"active": False}
        fourth = rp.refresh(third["refresh_token"]).json()  # offline: it stays
        assert api.introspect(fourth["access_token"]).json()["active"]
    with subtests.test("its grant has ended"):
        rp.revoke(fourth["refresh_token"])
        assert api.introspect(fourth["access_token"]).json() == {"active": False}
    with subtests.test("its time is over"):
        late = sign_in(op, scope="openid read", resource=A).access_token
        op.clock.advance(7199)
        assert api.introspect(late).json()["active"]
        op.clock.advance(1)
        assert api.introspect(late).json() == {"active": False}


def test_who_has_the_secret_of_another_audience_cannot_make_a_grants_token(
    serve_policies: ServePolicies,
) -> None:
    """RFC 8725 §3.12: a token is one of a grant where that holds one for this audience, whatever the token says."""
    op = serve_policies(POLICIES.replace('grants = ["mint"]', 'grants = ["mint"]\nalg = "HS256"'))
    claims = unverified_claims(sign_in(op, scope="openid read", resource=A).access_token)
    forged = pyjwt.encode(claims | {"aud": "https://minted.example.com"}, JWT_SECRET, algorithm="HS256")
    assert op.rp().introspect(forged).json() == {"active": False}


def test_what_a_policy_requires_is_asked_of_the_user(op: Provider, subtests: pytest.Subtests) -> None:
    """RFC 9470 §4: as if the request asked for it as essential; what no sign-in changes is `access_denied`."""
    with subtests.test("the app sees it"):
        browser = op.browser()
        landing = browser.go(op.rp().request(resource=GUARDED, acr_values="low").url)
        shown = op.app.call("GET", f"/api/oidc/interactions/{op.app.interaction(landing)}").json()
        assert (shown["acr_values"], shown["max_age"]) == ("mfa", 600)
        assert shown["resources"] == [
            {"resource": GUARDED, "scope": "", "descriptions": {}, "claims": ["roles", "tenant_id"]}
        ]
    with subtests.test("acr"):
        assert (
            refused_at_authorize(op, fields=ADA | {"acr": "pwd"}, resource=GUARDED)
            == "unmet_authentication_requirements"
        )
    with subtests.test("too long ago"):
        browser = op.browser()
        op.app.sign_in(browser, **ADA | {"auth_time": int(op.clock()) - 601})
        request = op.rp().request(resource=GUARDED, prompt="none")
        assert op.authorize(browser, request)["error"] == "login_required"
    with subtests.test("another role is no matter of signing in"):
        assert refused_at_authorize(op, fields=ADA | {"roles": ["dev"]}, resource=GUARDED) == "access_denied"
    with subtests.test("met"):
        signed = sign_in(op, scope="openid offline_access", resource=GUARDED)
        assert claims_at(op, signed.access_token, GUARDED)["acr"] == "mfa"
    with subtests.test("at a refresh: nothing is spent, and the rule is named"):
        op.clock.advance(601)
        for _ in range(2):
            answer = op.rp().refresh(signed.tokens["refresh_token"]).json()
            assert answer["error"] == "invalid_target"
            assert "require.max_session_age_s" in answer["error_description"]
        assert op.rp().refresh(signed.tokens["refresh_token"], resource=ISSUER).status == 200


def test_a_user_is_asked_by_the_words_of_each_api(op: Provider, subtests: pytest.Subtests) -> None:
    """docs/policies.md: consent and what is remembered of it hold pairs: a scope of one audience does not count for another."""
    rp = op.rp("c-third")

    def landing_of(browser: Any, **parameters: Any) -> Any:
        landing = browser.go(rp.request(**parameters).url)
        return (
            op.app.by_backend(browser, landing, **ADA)
            if landing.is_at("https://app.example.com/sign-in")
            else landing
        )

    browser = op.browser()
    page = landing_of(browser, scope="openid read", resource=A)
    with subtests.test("the page"):
        assert re.search(rf"<h2[^>]*>At <bdi>{A}</bdi> it can</h2>", page.text)
        assert "read your &lt;b&gt;reports&lt;/b&gt;" in page.text
        assert "show it your roles, your email address" in page.text
        assert "write" not in page.text
    browser.submit(page, decision="allow")
    with subtests.test("remembered"):
        assert "code=" in landing_of(browser, scope="openid read", resource=A, prompt="none").url
    for name, more in {
        "another word": {"scope": "openid read write", "resource": A},
        "the same word of another audience": {"scope": "openid read", "resource": B},
        "another audience without a word": {"scope": "openid", "resource": B},
        "both": {"scope": "openid read", "resource": f"{A} {B}"},
    }.items():
        with subtests.test("asked again", name=name):
            assert "error=consent_required" in landing_of(browser, prompt="none", **more).url
    with subtests.test("the app's own page agrees to a part, by words"):
        browser = op.browser()
        page = landing_of(browser, scope="openid read write", resource=f"{A} {B}", prompt="consent")
        interaction = page.url.rpartition("/")[2].partition("?")[0]
        shown = op.app.call("GET", f"/api/oidc/interactions/{interaction}").json()
        assert shown["scope"] == "openid read write"
        assert shown["resources"] == [
            {
                "resource": A,
                "scope": "read write",
                "descriptions": {"read": "read your <b>reports</b>"},
                "claims": ["roles", "email"],
            },
            {"resource": B, "scope": "read", "descriptions": {}, "claims": ["roles", "tenant_id"]},
        ]
        landing = browser.go(op.app.report(interaction, "consent", {"scope": "openid write"}))
        request = rp.request(scope="openid read write", resource=f"{A} {B}")
        answer = rp.post(
            "/oidc/token",
            {
                "grant_type": "authorization_code",
                "code": landing.parameters["code"],
                "redirect_uri": OTHER_CALLBACK,
                "code_verifier": "x" * 43,
            },
        )
        assert answer.status == 400  # another verifier: nothing is spent
        assert [each["resources"] for each in op.app.grants() if each["scope"] == "openid write"] == [[A]]
        assert request.parameters["resource"]


STRANGERS_API: Final = "https://open.example.com"
FOR_STRANGERS: Final = f"""
[audience."{STRANGERS_API}"]
alg = "RS256"
grants = ["authorization_code"]
strangers = true
scopes = ["open:read"]
claims = ["roles", "tenant_id", "email", "name", "acr", "plan"]
rename = {{ acr = "level" }}
"""


def test_a_strangers_token_has_only_claims_that_a_granted_scope_gives(
    serve_provider: ServeProvider, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """docs/policies.md: the table of an audience lists them for all clients; who registered itself needs a scope for each."""
    (tmp_path / "policies.toml").write_text(FOR_STRANGERS)
    own = {"client_id": "own", "client_secret": SECRET, "redirect_uris": [CALLBACK]}
    op = serve_provider([own], PYLON_POLICIES=str(tmp_path / "policies.toml"), PYLON_OIDC_REGISTRATION="open")
    stranger = registered(op)
    user = {
        "roles": ["admin"], "tenant_id": "acme", "acr": "pwd", "attributes": {"plan": "gold"},
        "claims": {"name": "Ada", "email": "ada@example.com"},
    }  # fmt: skip
    always = {"acr": "pwd", "level": "pwd"}
    cases: dict[str, tuple[Any, str, dict[str, Any]]] = {
        "nothing": (stranger.rp(), "openid open:read", {}),
        "one": (stranger.rp(), "openid email open:read", {"email": "ada@example.com"}),
        "two": (stranger.rp(), "openid email profile", {"email": "ada@example.com", "name": "Ada"}),
        "the operator's client": (op.rp("own"), "open:read", {
            "roles": ["admin"], "tenant_id": "acme", "email": "ada@example.com", "name": "Ada", "plan": "gold",
        }),
    }  # fmt: skip
    for name, (rp, scope, given) in cases.items():
        with subtests.test(name):
            browser, request = op.browser(), rp.request(scope=scope, resource=STRANGERS_API)
            landing = browser.go(request.url)
            interaction = op.app.interaction(landing)
            page = op.app.by_backend(browser, landing, **user)
            shown = op.app.call("GET", f"/api/oidc/interactions/{interaction}").json()["resources"]
            assert set(shown[0]["claims"]) == {*given, "acr"}
            code = op.answered(request, browser.submit(page, decision="allow"))["code"]
            claims = unverified_claims(rp.redeem(request, code).json()["access_token"])
            known = {*always, *cases["the operator's client"][2]}
            assert {claim: claims[claim] for claim in known & claims.keys()} == given | always
            client = Clients.of(op.house.settings, open_store(op.house.settings)).registered(
                rp.client_id, now=int(op.clock())
            )
            session = LocalSessions(open_store(op.house.settings), lifetime_s=3600).of_sid(
                "ada", claims["sid"], now=int(op.clock())
            )
            asked = Asked("authorization_code", "", int(op.clock()), session, client, tuple(scope.split()))
            decided = decided_for(op.house.settings, STRANGERS_API, asked)
            assert isinstance(decided, Given)
            assert decided.claims == {name: claims[name] for name in claims if name != "jti"}
