"""Each audience its own token: what is minted and what a client gets for itself is what the policy file says, no more.

Spec: RFC 6749 §4.4; RFC 8707; RFC 9068; RFC 9470 §3
"""

from __future__ import annotations

import json
import threading
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import jwt as pyjwt
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from service.cli.policy_cases import decided_for
from service.clients import Clients
from service.policies.deciding import Asked, Given, Refused
from service.policies.explaining import explained
from service.policies.values import EXCHANGE_GRANT
from service.protocol.clients import InvalidClientMetadata
from service.records.sessions import SignIn
from service.sessions import LocalSessions
from service.startup import inspect, open_store
from service.subjects import IsAClient, Subjects
from tests.http.driver import refused, unverified_claims
from tests.provider.conftest import ServeProvider
from tests.provider.driver import CALLBACK, CLAIMS, ISSUER, SECRET, Provider
from tests.support.gunicorn import SECRET as JWT_SECRET
from tests.support.gunicorn import Answer
from tests.support.statements import watch_store

JWT: Final = "/api/auth/jwt"
OWN_SECRET: Final = "7d1c0a5f9be34826b0c6e5d4f3a2918c"
REPORTS: Final = "https://reports.example.com"
LEDGER: Final = "https://ledger.example.com/v1"
POLICIES: Final = f"""
[default]
lifetime_s = 600

[audience.legacy]
alg = "HS256"
secret_env = "LEGACY_SECRET"

[audience.plain]
alg = "HS256"
lifetime_s = 60
claims = []

[audience."{REPORTS}"]
alg = "ES256"
grants = ["mint", "client_credentials"]
scopes = ["reports:read", "reports:write", "reports:all"]
claims = ["roles", "email", "department", "acr", "amr", "auth_time", "address"]
rename = {{ roles = "groups", department = "unit" }}
static = {{ env = "test", limits = {{ rows = 10 }} }}

[audience."{LEDGER}"]
alg = "PS256"
grants = ["client_credentials"]
clients = ["nightly", "c-basic"]
scopes = ["post"]

[audience.guarded]
claims = ["tenant_id"]
typ = "at+jwt"

[audience.guarded.require]
acr = ["mfa", "phr"]
amr = ["otp", "pwd"]
max_session_age_s = 3600
roles = ["admin", "owner"]
tenant_id = ["acme"]
email_verified = true

[audience.methods.require]
amr = ["otp"]
"""
_MACHINE: Final[dict[str, Any]] = {"client_secret": SECRET, "grant_types": ["client_credentials"]}
CLIENTS: Final[list[dict[str, Any]]] = [
    _MACHINE | {"client_id": "nightly"},
    _MACHINE | {"client_id": "reader", "scope": "reports:read"},
    {"client_id": "c-basic", "client_secret": SECRET, "redirect_uris": [CALLBACK], "first_party": True},
    {"client_id": "c-api", "client_secret": SECRET, "redirect_uris": [CALLBACK], "resource_ids": [REPORTS, "legacy", "guarded"]},
    {"client_id": "c-public", "redirect_uris": [CALLBACK]},
]  # fmt: skip
KEYS: Final = {
    "PYLON_OIDC_KEYS": "managed",
    "PYLON_OIDC_ALGS": "RS256,PS256,ES256",
    "PYLON_KEY_ENCRYPTION_KEY": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "LEGACY_SECRET": OWN_SECRET,
}
ADA: Final[dict[str, Any]] = {
    "roles": ["dev", "admin"],
    "tenant_id": "acme",
    "claims": CLAIMS,
    "attributes": {"department": "engines", "floor": 3},
    "acr": "mfa",
    "amr": ["pwd", "otp"],
}
ServePolicies = Callable[..., Provider]


@pytest.fixture
def serve_policies(serve_provider: ServeProvider, tmp_path: Path) -> ServePolicies:
    """Make a provider of a policy file: `serve_policies(text)`."""

    def make(text: str = POLICIES, clients: Any = CLIENTS, **environ: Any) -> Provider:
        file = tmp_path / "policies.toml"
        file.write_text(text)
        return serve_provider(clients, **{"PYLON_POLICIES": str(file), **KEYS, **environ})

    return make


@pytest.fixture
def op(serve_policies: ServePolicies) -> Provider:
    """A provider of the policies above."""
    return serve_policies()


def mint(op: Provider, token: str, **body: Any) -> Answer:
    """Ask for a minted token."""
    return op.ask("POST", JWT, token=token, **({"json": body} if body else {}))


def for_itself(op: Provider, client_id: str, **form: str) -> Answer:
    """A client asks for a token of its own."""
    return op.rp(client_id).post("/oidc/token", {"grant_type": "client_credentials", **form})


def verified(op: Provider, token: str, audience: str, alg: str, secret: str = JWT_SECRET) -> dict[str, Any]:
    """The claims of a token, verified by PyJWT with the key that its audience has."""
    key: Any = secret
    if alg != "HS256":
        jwks = pyjwt.PyJWKSet.from_dict(op.ask("GET", "/oidc/jwks").json())
        key = jwks[pyjwt.get_unverified_header(token)["kid"]]
    options: Any = {"verify_exp": False, "verify_iat": False}
    claims: dict[str, Any] = pyjwt.decode(
        token, key, algorithms=[alg], audience=audience, issuer=ISSUER, options=options
    )
    return claims


# --- minting ---


def test_each_audience_has_a_token_of_its_own(op: Provider, subtests: pytest.Subtests) -> None:
    """docs/policies.md: algorithm, secret, lifetime, typ and claims are those of the audience's table, and nothing else is in it."""
    begun = op.app.session(**ADA)
    now = int(op.clock())
    own = {"iss", "sub", "aud", "iat", "exp", "jti", "sid"}
    expected: dict[str, tuple[str, str, str, int, dict[str, Any]]] = {
        "legacy": ("HS256", OWN_SECRET, "JWT", 600, {"roles": ["dev", "admin"], "tenant_id": "acme"}),
        "plain": ("HS256", JWT_SECRET, "JWT", 60, {}),
        "guarded": ("HS256", JWT_SECRET, "at+jwt", 600, {"tenant_id": "acme"}),
        REPORTS: (
            "ES256", "", "JWT", 600,
            {
                "groups": ["dev", "admin"], "email": CLAIMS["email"], "unit": "engines", "acr": "mfa",
                "amr": ["pwd", "otp"], "auth_time": now, "address": CLAIMS["address"], "env": "test", "limits": {"rows": 10},
            },
        ),
    }  # fmt: skip
    for audience, (alg, secret, typ, lifetime_s, more) in expected.items():
        with subtests.test(audience):
            answer = mint(op, begun["token"], audience=audience)
            assert answer.status == 200, answer
            token = answer.json()["token"]
            header = pyjwt.get_unverified_header(token)
            assert (header["alg"], header["typ"], "kid" in header) == (alg, typ, alg != "HS256")
            claims = verified(op, token, audience, alg, secret)
            assert {name: value for name, value in claims.items() if name not in own} == more
            assert (claims["sub"], claims["sid"], claims["exp"] - claims["iat"]) == (
                "ada",
                begun["sid"],
                lifetime_s,
            )
            assert answer.json() | {"token": ""} == {
                "token": "", "token_type": "Bearer", "expires_in": lifetime_s, "expires_at": now + lifetime_s,
            }  # fmt: skip
    with subtests.test("no service can forge for another"), pytest.raises(pyjwt.InvalidSignatureError):
        verified(op, mint(op, begun["token"], audience="legacy").json()["token"], "legacy", "HS256")
    with subtests.test("what is not known of the user is not there"):
        bare = op.app.session("bob", expires_in=10)
        claims = unverified_claims(mint(op, bare["token"], audience=REPORTS).json()["token"])
        assert claims.keys() - own == {"auth_time", "env", "limits"}
        assert claims["exp"] == now + 10  # never beyond its session


def test_a_session_that_a_policy_does_not_take_is_refused(op: Provider, subtests: pytest.Subtests) -> None:
    """docs/policies.md: 403 with the rule's name, and with what to ask the user for where another sign-in would do."""
    now = int(op.clock())
    step_up = {"acr_values": ["mfa", "phr"], "max_age": 3600}
    cases: dict[str, tuple[str, dict[str, Any], Any]] = {
        "tenant_id": ("guarded", {"tenant_id": "other"}, None),
        "roles": ("guarded", {"roles": ["dev"]}, None),
        "email_verified": ("guarded", {"claims": {"email": "a@b.c"}}, None),
        "acr": ("guarded", {"acr": "pwd"}, step_up),
        "amr": ("guarded", {"amr": ["otp"]}, step_up),
        "max_session_age_s": ("guarded", {"auth_time": now - 3601}, step_up),
        "amr only": ("methods", {"amr": ["pwd"]}, {"max_age": 0}),
    }
    for name, (audience, fields, asked) in cases.items():
        with subtests.test(name):
            answer = mint(op, op.app.session(**ADA | fields)["token"], audience=audience)
            error = answer.json()["error"]
            assert (answer.status, error["code"], error["rule"]) == (
                403,
                "POLICY_REFUSED",
                f"require.{name.split()[0]}",
            )
            assert error.get("step_up") == asked
            assert op.house.requests_logged[-1]["cause"] == f"require_{name.split()[0]}"
    with subtests.test("nothing at all is there"):
        bare = op.app.session("bob")["token"]
        assert mint(op, bare, audience="guarded").json()["error"]["rule"] == "require.tenant_id"
    with subtests.test("met, to the second"):
        token = op.app.session(**ADA | {"auth_time": now - 3600})["token"]
        assert mint(op, token, audience="guarded").status == 200
        op.clock.advance(1)
        assert mint(op, token, audience="guarded").json()["error"]["step_up"] == step_up


def test_a_mint_is_refused_in_this_order(serve_policies: ServePolicies, subtests: pytest.Subtests) -> None:
    """docs/policies.md: 401, then 415 and 400, then 403, then 501; and an audience that cannot be minted is one that nobody knows."""
    op = serve_policies(PYLON_JWT_SECRET=None)
    token = op.app.session("bob")["token"]
    with subtests.test("401"):
        refused(op.ask("POST", JWT, token="pylon_" + "0" * 64, json={"audience": 1}), 401, "AUTH_REQUIRED")
    with subtests.test("415"):
        refused(
            op.ask("POST", JWT, token=token, body=b"{", content_type="text/plain"),
            415,
            "UNSUPPORTED_MEDIA_TYPE",
        )
    for audience in (LEDGER, f"{REPORTS}/", REPORTS.upper(), "Legacy", "", "*", ISSUER, "c-basic"):
        with subtests.test("400", audience=audience):
            refused(mint(op, token, audience=audience), 400, "UNKNOWN_AUDIENCE")
    with subtests.test("400 without a default"):
        refused(mint(op, token), 400, "UNKNOWN_AUDIENCE")
    with subtests.test("403"):
        assert mint(op, token, audience="guarded").json()["error"]["code"] == "POLICY_REFUSED"
    with subtests.test("501"):
        refused(mint(op, token, audience="plain"), 501, "JWT_NOT_CONFIGURED")
        assert mint(op, token, audience="legacy").status == 200  # by a secret of its own
        assert op.ask("GET", "/readyz").json()["keys"] == "not configured"
    with subtests.test("the default audience"):
        op = serve_policies(PYLON_JWT_AUDIENCE="plain")
        token = op.app.session("bob")["token"]
        for answer in (mint(op, token), op.ask("POST", JWT, token=token, json={})):
            assert unverified_claims(answer.json()["token"])["aud"] == "plain"


# --- a client for itself ---


def test_a_client_gets_a_token_of_its_own(op: Provider, subtests: pytest.Subtests) -> None:
    """RFC 9068 §2.2: `iss sub aud client_id scope jti iat exp` and what is fixed; no ID token, no refresh token, no user."""
    now = int(op.clock())
    cases: list[tuple[str, dict[str, str], str, str, str | None, dict[str, Any]]] = [
        ("nightly", {"resource": REPORTS}, REPORTS, "ES256", "reports:read reports:write reports:all", {"env": "test", "limits": {"rows": 10}}),
        ("nightly", {"resource": f"{REPORTS}/", "scope": "reports:all reports:read"}, REPORTS, "ES256", "reports:read reports:all", {"env": "test", "limits": {"rows": 10}}),
        ("nightly", {"resource": LEDGER}, LEDGER, "PS256", "post", {}),
        ("reader", {"resource": REPORTS}, REPORTS, "ES256", "reports:read", {"env": "test", "limits": {"rows": 10}}),
        ("reader", {}, REPORTS, "ES256", "reports:read", {"env": "test", "limits": {"rows": 10}}),
    ]  # fmt: skip
    for client_id, form, audience, alg, scope, more in cases:
        with subtests.test(client_id, **form):
            answer = for_itself(op, client_id, **form)
            assert answer.status == 200, answer
            value = answer.json()
            assert value | {"access_token": ""} == {
                "access_token": "",
                "token_type": "Bearer",
                "expires_in": 600,
                "scope": scope,
            }
            assert answer.headers["Cache-Control"] == "no-store"
            assert pyjwt.get_unverified_header(value["access_token"])["typ"] == "at+jwt"
            claims = verified(op, value["access_token"], audience, alg)
            assert claims.pop("jti")
            assert claims == {
                "iss": ISSUER, "sub": client_id, "client_id": client_id, "aud": audience, "scope": scope, "iat": now, "exp": now + 600,
            } | more  # fmt: skip
    with subtests.test("userinfo takes none"):
        token = for_itself(op, "reader").json()["access_token"]
        assert op.rp("reader").userinfo(token).status == 401
    with subtests.test("a mint takes none"):
        refused(op.ask("POST", JWT, token=token), 401, "AUTH_REQUIRED")
    with subtests.test("discovery says that there is such a grant"):
        assert (
            "client_credentials"
            in op.ask("GET", "/.well-known/openid-configuration").json()["grant_types_supported"]
        )


def test_what_a_policy_does_not_give_is_refused(op: Provider, subtests: pytest.Subtests) -> None:
    """docs/policies.md: another audience, a wider scope, another client, a user's way: each is refused by its own error."""
    cases: list[tuple[str, dict[str, str], str]] = [
        ("nightly", {}, "invalid_target"),  # two that it may have
        ("nightly", {"resource": "https://unknown.example"}, "invalid_target"),
        ("nightly", {"resource": "legacy"}, "invalid_target"),
        ("nightly", {"resource": "guarded"}, "invalid_target"),
        ("nightly", {"resource": REPORTS.upper()}, "invalid_target"),
        ("nightly", {"resource": f"{LEDGER}/"}, "invalid_target"),
        ("nightly", {"resource": f"{REPORTS} {LEDGER}"}, "invalid_target"),
        ("nightly", {"resource": ISSUER}, "invalid_target"),
        ("reader", {"resource": LEDGER}, "invalid_target"),
        ("reader", {"scope": "reports:write"}, "invalid_scope"),
        ("reader", {"scope": "reports:read reports:write"}, "invalid_scope"),
        ("nightly", {"resource": REPORTS, "scope": "post"}, "invalid_scope"),
        ("nightly", {"resource": REPORTS, "scope": "openid"}, "invalid_scope"),
        ("nightly", {"resource": REPORTS, "scope": "offline_access"}, "invalid_scope"),
        ("nightly", {"resource": REPORTS, "scope": " "}, "invalid_scope"),
        ("c-basic", {"resource": REPORTS}, "unauthorized_client"),
        ("c-public", {"resource": REPORTS}, "unauthorized_client"),
    ]
    for client_id, form, error in cases:
        with subtests.test(client_id, **form):
            answer = for_itself(op, client_id, **form)
            assert (answer.status, answer.json()["error"]) == (400, error)
    with subtests.test("two resources"):
        body = f"grant_type=client_credentials&resource={REPORTS}&resource={LEDGER}&client_id=nightly&client_secret={SECRET}"
        answer = op.ask(
            "POST", "/oidc/token", body=body.encode(), content_type="application/x-www-form-urlencoded"
        )
        assert answer.json()["error"] == "invalid_target"
    with subtests.test("a wrong secret"):
        assert (
            op.rp("nightly", secret="x" * 40).post("/oidc/token", {"grant_type": "client_credentials"}).status
            == 401
        )
    with subtests.test("a public client is not registered for it"):
        metadata = {"token_endpoint_auth_method": "none", "grant_types": ["client_credentials"]}
        answer = op.app.call("POST", "/api/oidc/clients", metadata)
        assert (answer.status, answer.json()["error"]["code"]) == (400, "INVALID_CLIENT_METADATA")
    with subtests.test("an API's words are nothing without its audience"):
        signed = op.sign_in(scope="openid reports:read")
        assert signed.tokens["scope"] == "openid"


def test_without_policies_no_client_gets_a_token_of_its_own(serve_provider: ServeProvider) -> None:
    """docs/policies.md: neither is it offered, nor is it given."""
    op = serve_provider(CLIENTS[:1])
    assert op.ask("GET", "/.well-known/openid-configuration").json()["grant_types_supported"] == [
        "authorization_code",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:device_code",
    ]
    assert for_itself(op, "nightly").json()["error"] == "unsupported_grant_type"


# --- what a token is worth ---


def test_introspection_knows_each_kind(op: Provider, subtests: pytest.Subtests) -> None:
    """docs/policies.md: the audience's API, the client that it was issued to, and the operator get the answer; nobody else, and only while it is valid."""
    begun = op.app.session(**ADA)
    minted = {
        name: mint(op, begun["token"], audience=name).json()["token"]
        for name in ("legacy", "plain", "guarded", REPORTS)
    }
    own = for_itself(op, "reader").json()["access_token"]
    api, reader, other = op.rp("c-api"), op.rp("reader"), op.rp("c-basic")
    for audience, token in minted.items():
        with subtests.test("minted", audience=audience):
            known = api.introspect(token).json()
            assert known["active"] is (audience != "plain")
            assert not other.introspect(token).json()["active"]
            assert op.ask(
                "POST",
                "/oidc/introspect",
                admin=True,
                body=f"token={token}".encode(),
                content_type="application/x-www-form-urlencoded",
            ).json()["active"]
    with subtests.test("a client's own"):
        for rp in (api, reader):
            known = rp.introspect(own).json()
            assert (known["active"], known["sub"], known["scope"]) == (True, "reader", "reports:read")
        assert other.introspect(own).json() == {"active": False}
    with subtests.test("forged by the secret of another audience"):
        claims = unverified_claims(minted["legacy"])
        for secret, aud in ((JWT_SECRET, "legacy"), (OWN_SECRET, "plain"), (OWN_SECRET, REPORTS)):
            forged = pyjwt.encode(claims | {"aud": aud}, secret, algorithm="HS256")
            assert api.introspect(forged).json() == {"active": False}
        passed_off = pyjwt.encode(
            claims | {"client_id": "reader"}, OWN_SECRET, algorithm="HS256", headers={"typ": "at+jwt"}
        )
        assert api.introspect(passed_off).json() == {"active": False}
    with subtests.test("made by who has the secret, and named as of another client's grant"):
        signed = op.sign_in()
        grant_id = signed.access_token.partition(".")[0]
        claims = unverified_claims(minted["legacy"]) | {"client_id": "c-api", "jti": f"{grant_id}.x"}
        assert api.revoke(pyjwt.encode(claims, OWN_SECRET, algorithm="HS256")).status == 200
        assert other.userinfo(signed.access_token).status == 200
    with subtests.test("made by who has the secret, and not of our form"):
        claims = unverified_claims(minted["legacy"])
        for wrong in ({"exp": "x"}, {"exp": 1e30}, {"exp": 1 << 80}, {"sub": "\ud800"}, {"x": "\ud800"}):
            forged = pyjwt.encode(claims | wrong, OWN_SECRET, algorithm="HS256")
            assert api.introspect(forged).json() == {"active": False}
            assert api.revoke(forged).status == 200
    with subtests.test("made by who has the secret, and longer than any token lives"):
        claims, now = unverified_claims(minted["legacy"]), int(op.clock())
        for ends_at, active in ((now + 86_400, True), (now + 86_400 + 301, False), (now + 10**9, False)):
            forged = pyjwt.encode(claims | {"exp": ends_at}, OWN_SECRET, algorithm="HS256")
            assert api.introspect(forged).json()["active"] is active
    with subtests.test("revoked only by its own client"):
        other.revoke(own)
        assert reader.introspect(own).json()["active"]
        assert [reader.revoke(own).status, reader.revoke(own).status] == [200, 200]
        assert reader.introspect(own).json() == api.introspect(own).json() == {"active": False}
        assert reader.introspect(for_itself(op, "reader").json()["access_token"]).json()["active"]
    with subtests.test("its session has ended"):
        op.ask("DELETE", "/api/auth/session", token=begun["token"])
        assert not any(api.introspect(token).json()["active"] for token in minted.values())
    with subtests.test("its time is over"):
        late = for_itself(op, "reader").json()["access_token"]
        op.clock.advance(600)
        assert reader.introspect(late).json() == {"active": False}


def test_a_clients_token_is_worth_nothing_without_the_client(op: Provider) -> None:
    """docs/policies.md: what the operator takes away of a client is gone at the next look: its scope, its grant type, the client itself."""
    machine = {"grant_types": ["client_credentials"]}
    made = op.app.call("POST", "/api/oidc/clients", {"client_id": "made", **machine}).json()
    rp, path = op.rp("made", secret=made["client_secret"]), "/api/oidc/clients/made"
    changes = (machine | {"scope": "openid"}, {"redirect_uris": [CALLBACK]}, None)
    for change in changes:
        assert op.app.call("PUT", path, machine).status == 200
        token = rp.post("/oidc/token", {"grant_type": "client_credentials"}).json()["access_token"]
        assert op.rp("c-api").introspect(token).json()["active"]
        changed = op.app.call("DELETE", path) if change is None else op.app.call("PUT", path, change)
        assert changed.status in {200, 204}
        assert not op.rp("c-api").introspect(token).json()["active"]


# --- a client is never a user ---


def test_no_client_is_called_as_a_user_and_no_user_as_a_client(
    op: Provider, subtests: pytest.Subtests
) -> None:
    """RFC 9700 §4.15: while clients get tokens of their own, a `sub` is one or the other."""

    def add(client_id: str) -> Answer:
        metadata = {"client_id": client_id, "grant_types": ["client_credentials"]}
        return op.app.call("POST", "/api/oidc/clients", metadata)

    for user_id in ("nightly", "c-public"):
        with subtests.test("a session", user_id=user_id):
            answer = op.app.call("POST", "/api/auth/session", {"user_id": user_id})
            assert "user_id" in refused(answer, 400, "INVALID_BODY")["message"]
        with subtests.test("a record", user_id=user_id):
            refused(op.app.call("PUT", f"/api/auth/users/{user_id}", {"roles": ["x"]}), 400, "INVALID_BODY")
    with subtests.test("a client of the database"):
        assert add("machine").status == 201
        refused(op.app.call("POST", "/api/auth/session", {"user_id": "machine"}), 400, "INVALID_BODY")
        browser = op.browser()
        landing = browser.go(op.rp().request().url)
        path = f"/api/oidc/interactions/{op.app.interaction(landing)}/login"
        refused(op.app.call("POST", path, {"user_id": "machine"}), 400, "INVALID_BODY")
        assert op.app.call("DELETE", "/api/oidc/clients/machine").status == 204
        assert op.app.session("machine")
    with subtests.test("a client that is older than this rule"):
        store, now = open_store(op.house.settings), int(op.clock())
        Clients((), store, minted_audience=None).add(
            {"client_id": "older", "redirect_uris": [CALLBACK]}, now=now
        )
        LocalSessions(store, lifetime_s=60).create(SignIn("older"), now=now)
        metadata = {"client_id": "older", "grant_types": ["client_credentials"]}
        answer = op.app.call("PUT", "/api/oidc/clients/older", metadata)
        assert (answer.status, answer.json()["error"]["code"]) == (400, "INVALID_CLIENT_METADATA")
        with pytest.raises(InvalidClientMetadata):
            known = Clients((), store, minted_audience=None, subjects=Subjects(store, (), apart=True))
            known.update("older", {"grant_types": ["client_credentials"]}, now=now)
        assert op.app.call("DELETE", "/api/oidc/clients/older").status == 204
        store.close()
    op.app.session("signed-in")
    op.app.call("PUT", "/api/auth/users/known", {"roles": ["x"]})
    for client_id in ("signed-in", "known", REPORTS, "legacy"):
        with subtests.test("a client", client_id=client_id):
            answer = add(client_id)
            assert (answer.status, answer.json()["error"]["code"]) == (400, "INVALID_CLIENT_METADATA")
            assert "client_id" in answer.json()["error"]["message"]
    with subtests.test("a start"):
        environ = {
            "PYLON_DATA_DIR": str(op.house.settings.data_dir), "PYLON_POLICIES": op.house.settings.policies.file,
            "PYLON_OIDC_CLIENTS": json.dumps([_MACHINE | {"client_id": "known"}]), "PYLON_OIDC_ISSUER": ISSUER,
            "PYLON_LOGIN_URL": "https://app.example.com/sign-in", **KEYS,
        }  # fmt: skip
        (fault,) = inspect(environ, now=int(op.clock())).faults
        assert str(fault).startswith(
            "PYLON_OIDC_CLIENTS: client 1 (known), client_id: is the id of a user; write another"
        )
        assert inspect(environ | {"PYLON_POLICIES": ""}, now=int(op.clock())).faults == []


def test_of_a_client_and_a_user_that_come_at_once_one_stays(op: Provider, subtests: pytest.Subtests) -> None:
    """docs/policies.md: whichever of the two looks first and writes last, not both are there."""
    store, now = open_store(op.house.settings), int(op.clock())
    subjects = Subjects(store, (), apart=True)
    plain_sessions, plain_clients = (
        LocalSessions(store, lifetime_s=60),
        Clients((), store, minted_audience=None),
    )

    class Late(Subjects):
        """Knows nothing at its first look; then somebody else has written."""

        def __init__(self, meanwhile: Callable[[], object]) -> None:
            super().__init__(store, (), apart=True)
            self._meanwhile = [meanwhile]

        def is_client(self, user_id: str, *, now: int) -> bool:
            known = super().is_client(user_id, now=now)
            if self._meanwhile:
                self._meanwhile.pop()()
            return known

        def is_user(self, client_id: str, *, now: int) -> bool:
            known = super().is_user(client_id, now=now)
            if self._meanwhile:
                self._meanwhile.pop()()
            return known

    with subtests.test("a client meanwhile"):
        late = Late(lambda: plain_clients.add({"client_id": "x", "redirect_uris": [CALLBACK]}, now=now))
        with pytest.raises(IsAClient):
            LocalSessions(store, lifetime_s=60, subjects=late).create(SignIn("x"), now=now)
        assert plain_sessions.list("x", now=now) == []
    with subtests.test("a session meanwhile"):
        late = Late(lambda: plain_sessions.create(SignIn("y"), now=now))
        with pytest.raises(InvalidClientMetadata):
            Clients((), store, minted_audience=None, subjects=late).add(
                {"client_id": "y", "redirect_uris": [CALLBACK]}, now=now
            )
        assert plain_clients.registered("y", now=now) is None
    assert subjects.is_client("x", now=now)
    store.close()


# --- what it costs ---


def test_a_policy_costs_no_statement(
    serve_provider: ServeProvider, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """docs/policies.md: a mint asks the database once, a client's own token for a registered client once, for one of the environment never."""
    statements: list[str] = []

    here = threading.get_ident()  # what is swept outside the requests does not belong to them

    def note(sql: str) -> None:
        if threading.get_ident() == here:
            statements.append(sql)

    def watched(store: Any) -> Any:
        watch_store(store, note)
        return store

    def counted(call: Callable[[], Answer]) -> int:
        call()  # a first one may look at keys
        del statements[:]
        assert call().status == 200
        return len(statements)

    (tmp_path / "policies.toml").write_text(POLICIES)
    plain = serve_provider(CLIENTS[2:], store_of=watched)
    token = plain.app.session()["token"]
    with subtests.test("without policies"):
        assert counted(lambda: mint(plain, token)) == 1
        del statements[:]
        plain.app.session()
        begun = len(statements)
    op = serve_provider(CLIENTS, store_of=watched, PYLON_POLICIES=str(tmp_path / "policies.toml"), **KEYS)
    token = op.app.session()["token"]
    secret = op.app.call("POST", "/api/oidc/clients", _MACHINE | {"client_id": "kept"}).json()[
        "client_secret"
    ]
    for audience in ("legacy", REPORTS):
        with subtests.test("a mint", audience=audience):
            assert counted(lambda audience=audience: mint(op, token, audience=audience)) == 1
    with subtests.test("a client of the environment"):
        assert counted(lambda: for_itself(op, "reader")) == 0
    with subtests.test("a client of the database"):
        rp = op.rp("kept", secret=secret)
        assert (
            counted(lambda: rp.post("/oidc/token", {"grant_type": "client_credentials", "resource": REPORTS}))
            == 1
        )
    with subtests.test("a session asks twice whether a client is called so"):
        del statements[:]
        op.app.session()
        assert len(statements) == begun + 2


# --- explained, and done ---

_CLAIM = st.sampled_from(
    [
        "roles",
        "tenant_id",
        "email",
        "email_verified",
        "address",
        "department",
        "floor",
        "acr",
        "amr",
        "auth_time",
    ]
)
_SOME = {
    "roles": st.lists(st.sampled_from(["dev", "admin"]), unique=True),
    "tenant_id": st.sampled_from(["acme", "other"]),
    "acr": st.sampled_from(["pwd", "mfa"]),
    "amr": st.lists(st.sampled_from(["pwd", "otp"]), unique=True),
}
_USERS = st.fixed_dictionaries(
    {},
    optional={
        **_SOME,
        "claims": st.fixed_dictionaries(
            {},
            optional={
                "email": st.just("a@b.c"),
                "email_verified": st.booleans(),
                "address": st.just({"country": "UK"}),
            },
        ),
        "attributes": st.fixed_dictionaries(
            {}, optional={"department": st.just("x"), "floor": st.integers(0, 3)}
        ),
        "expires_in": st.sampled_from([5, 50_000]),
        "auth_time": st.sampled_from([1_799_990_000, 1_800_000_000]),
    },
)
_REQUIRE = st.fixed_dictionaries(
    {},
    optional={
        "acr": st.just(["mfa"]), "amr": st.just(["otp"]), "roles": st.just(["admin"]), "tenant_id": st.just(["acme"]),
        "email_verified": st.just(True), "max_session_age_s": st.just(600),
    },
)  # fmt: skip
_GRANTS = st.sampled_from(
    [
        ["mint"], ["client_credentials"], ["mint", "client_credentials"], ["authorization_code"], ["mint", "authorization_code"],
        ["mint", "authorization_code", "client_credentials"],
    ]
)  # fmt: skip


@st.composite
def _tables(draw: st.DrawFn) -> dict[str, Any]:
    ways = [*draw(_GRANTS), *draw(st.sampled_from([[], ["token_exchange"]]))]
    scopes = draw(st.lists(st.sampled_from(["r", "w"]), unique=True))
    public = ["RS256", "PS256"]
    table: dict[str, Any] = {
        "alg": draw(st.sampled_from(public if "authorization_code" in ways else ["HS256", *public])),
        "grants": ways,
        "claims": draw(st.lists(_CLAIM, unique=True, max_size=5)),
        "scopes": scopes,
        "exchange_scopes": [word for word in scopes if draw(st.booleans())],
        "static": draw(st.sampled_from([{}, {"env": "x"}])),
        "lifetime_s": draw(st.integers(1, 86_400)),
    }
    if draw(st.booleans()):
        possible = public if "authorization_code" in ways else ["HS256", *public]
        others = [alg for alg in possible if alg != table["alg"]]
        to, percent = draw(st.sampled_from(others)), draw(st.sampled_from([0, 10, 50, 100]))
        table["migrate"] = {"to": to, "percent": percent}
    if table["claims"] and draw(st.booleans()):
        table["rename"] = {table["claims"][0]: "renamed"}
    if "client_credentials" not in ways:
        table["require"] = draw(_REQUIRE)
    if draw(st.booleans()):
        table["clients"] = draw(
            st.sampled_from([["nightly"], [], ["nightly", "reader", "gateway"], ["c-basic"]])
        )
    return table


def _toml(tables: Mapping[str, Any]) -> str:
    """Tables as TOML; JSON of these values is TOML except for inline tables."""

    def value(each: Any) -> str:
        if isinstance(each, dict):
            return "{" + ", ".join(f"{json.dumps(name)} = {value(one)}" for name, one in each.items()) + "}"
        return json.dumps(each)

    return "\n".join(
        f'[audience."{audience}"]\n' + "\n".join(f"{name} = {value(each)}" for name, each in table.items())
        for audience, table in tables.items()
    )


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(
    tables=st.lists(_tables(), min_size=12, max_size=12),
    users=st.lists(_USERS, min_size=6, max_size=6),
    scope=st.sampled_from([None, "r", "r w", "x", "r x"]),
)
def test_what_is_explained_is_what_is_given(
    serve_policies: ServePolicies,
    tables: list[dict[str, Any]],
    users: list[dict[str, Any]],
    scope: str | None,
) -> None:
    """docs/policies.md: over a thousand random policies, users and requests: the explained token is the real one, or the same rule refuses both.

    Each example asks for 48 minted tokens, 36 of clients for themselves, 24 by the code flow, and 48 by exchange.
    """
    named = {f"https://a{number}.example": table for number, table in enumerate(tables)}
    text = _toml(named)
    assert tomllib.loads(text)["audience"] == named
    clients = [*CLIENTS[:1], _MACHINE | {"client_id": "reader"}, CLIENTS[2], _GATEWAY]
    unset = dict.fromkeys(KEYS)
    op = serve_policies(f"{text}\n[audience.edge]\nlifetime_s = 86400\n", clients, **unset)
    store, now = open_store(op.house.settings), int(op.clock())
    sessions = LocalSessions(store, lifetime_s=3600)
    words = None if scope is None else tuple(scope.split())
    for number, user in enumerate(users[:4]):
        token = op.app.session(f"u{number}", **user)["token"]
        session = sessions.find(token, now=now)
        for audience in named:
            decided = decided_for(op.house.settings, audience, Asked("mint", "", now, session=session))
            _mint_agrees(decided, mint(op, token, audience=audience), audience)
            asked = Asked("token_exchange", "", now, session, op.house.settings.clients[3], words)
            subject = mint(op, token, audience="edge").json()["token"]
            _exchange_agrees(op, decided_for(op.house.settings, audience, asked), subject, audience, scope)
    form = {} if scope is None else {"scope": scope}
    for client in op.house.settings.clients[:3]:
        for audience in named:
            asked = Asked("client_credentials", "", now, client=client, scope=words)
            decided = decided_for(op.house.settings, audience, asked)
            answer = for_itself(op, client.client_id, resource=audience, **form)
            if isinstance(decided, Refused):
                by_rule = {"scopes": "invalid_scope", "grant_types": "unauthorized_client"}
                expected = by_rule.get(decided.rule, "invalid_target")
                if "client_credentials" not in client.grant_types:  # looked at before the audience is
                    expected = "unauthorized_client"
                if not op.house.settings.audiences.served_by("client_credentials"):
                    expected = "unsupported_grant_type"
                assert answer.json()["error"] == expected
            else:
                _agrees(answer.json()["access_token"], explained(audience, "client_credentials", decided))
    for number, user in enumerate(users[4:], 4):
        browser, rp = op.browser(), op.rp("c-basic")
        begun = op.app.sign_in(browser, f"u{number}", **user)
        session = sessions.of_sid(f"u{number}", begun["sid"], now=now)
        for audience in named:
            asked = Asked("authorization_code", "", now, session, op.house.settings.clients[2], words)
            decided = decided_for(op.house.settings, audience, asked)
            request = rp.request(scope=scope, resource=audience, prompt="none", nonce=None)
            answer = op.answered(request, browser.go(request.url))
            if isinstance(decided, Refused):
                by_rule = {"grants": {"invalid_target"}, "clients": {"invalid_target"}}
                assert answer["error"] in by_rule.get(decided.rule, _NOT_AS_REQUIRED)
            else:
                tokens = rp.redeem(request, answer["code"]).json()
                _agrees(tokens["access_token"], explained(audience, "authorization_code", decided))
    store.close()


_GATEWAY: Final[dict[str, Any]] = {
    "client_id": "gateway", "client_secret": SECRET, "grant_types": [EXCHANGE_GRANT], "resource_ids": ["edge"],
}  # fmt: skip
_NOT_AS_REQUIRED: Final = {"access_denied", "login_required", "unmet_authentication_requirements"}


def _mint_agrees(decided: Given | Refused, answer: Answer, audience: str) -> None:
    if isinstance(decided, Refused):
        error = answer.json()["error"]
        code = "UNKNOWN_AUDIENCE" if decided.rule == "grants" else "POLICY_REFUSED"
        assert (error["code"], error.get("rule", "grants")) == (code, decided.rule)
        assert error.get("step_up", {}) == decided.step_up
    else:
        _agrees(answer.json()["token"], explained(audience, "mint", decided))


def _exchange_agrees(
    op: Provider, decided: Given | Refused, subject: str, audience: str, scope: str | None
) -> None:
    form = {"grant_type": EXCHANGE_GRANT, "subject_token": subject, "resource": audience}
    form |= {"subject_token_type": "urn:ietf:params:oauth:token-type:access_token"}
    answer = op.rp("gateway").post("/oidc/token", form | ({} if scope is None else {"scope": scope}))
    if isinstance(decided, Given):
        _agrees(answer.json()["access_token"], explained(audience, "token_exchange", decided))
    elif not op.house.settings.audiences.served_by("token_exchange"):
        assert answer.json()["error"] == "unsupported_grant_type"
    else:
        expected = "invalid_scope" if decided.rule == "scopes" else "invalid_target"
        assert answer.json()["error"] == expected
        if decided.rule.startswith("require."):
            assert decided.rule in answer.json()["error_description"]


def _agrees(token: str, told: Mapping[str, Any]) -> None:
    header = pyjwt.get_unverified_header(token)
    assert {"alg": header["alg"], "typ": header["typ"]} == told["header"]
    claims = unverified_claims(token)
    assert claims.pop("jti")
    assert claims == told["claims"]
    assert set(told["sources"]) == {*claims, "jti"}
