"""A client exchanges a user's token for one for another audience, and never gets more than that token goes.

Spec: RFC 8693; RFC 8707 §2.2; RFC 9068
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Final

import jwt as pyjwt
import pytest

from service import handles
from tests.http.driver import unverified_claims
from tests.provider.conftest import ServeProvider
from tests.provider.driver import CALLBACK, CLAIMS, ISSUER, OTHER_CALLBACK, SECRET, Provider, Signed
from tests.support.gunicorn import SECRET as JWT_SECRET
from tests.support.gunicorn import Answer

GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE: Final = "urn:ietf:params:oauth:token-type:"
ACCESS, JWT, ID = f"{TYPE}access_token", f"{TYPE}jwt", f"{TYPE}id_token"
OWN_SECRET: Final = "7d1c0a5f9be34826b0c6e5d4f3a2918c"
#: What the user's own clients call, and the gateway serves.
EDGE: Final = "https://edge.example.com"
#: What the gateway calls.
ORDERS: Final = "https://orders.example.com/v1"
STOCK: Final = "https://stock.example.com"
OLD: Final = "https://old.example.com"
GUARDED: Final = "https://guarded.example.com"
CLOSED: Final = "https://closed.example.com"
POLICIES: Final = f"""
[default]
alg = "PS256"
lifetime_s = 600

[audience."{EDGE}"]
grants = ["mint", "authorization_code", "client_credentials", "token_exchange"]
scopes = ["edge"]
exchange_scopes = ["edge"]

[audience."{ORDERS}"]
grants = ["authorization_code", "token_exchange"]
scopes = ["orders:read", "orders:write", "orders:all"]
exchange_scopes = ["orders:read"]
claims = ["roles", "email"]
rename = {{ roles = "groups" }}
static = {{ env = "test" }}

[audience."{STOCK}"]
grants = ["token_exchange"]
clients = ["gateway", "hop-1", "hop-2", "hop-3", "hop-4", "hop-5"]
lifetime_s = 60

[audience."{OLD}"]
alg = "HS256"
secret_env = "OLD_SECRET"
grants = ["mint", "token_exchange"]

[audience."{GUARDED}"]
grants = ["token_exchange"]
require = {{ acr = ["mfa"], max_session_age_s = 300 }}

[audience."{CLOSED}"]
grants = ["mint", "authorization_code"]
"""
_GATEWAY: Final[dict[str, Any]] = {"client_secret": SECRET, "grant_types": [GRANT]}
_WEB: Final[dict[str, Any]] = {"client_secret": SECRET, "first_party": True}
_HOPS: Final = [f"hop-{number}" for number in range(1, 6)]
CLIENTS: Final[list[dict[str, Any]]] = [
    _GATEWAY | {"client_id": "gateway", "resource_ids": [EDGE, OLD]},
    _GATEWAY | {"client_id": "narrow", "resource_ids": [EDGE], "scope": "orders:write"},
    _GATEWAY | {"client_id": "elsewhere", "resource_ids": [CLOSED]},
    *(_GATEWAY | {"client_id": name, "resource_ids": [EDGE, STOCK]} for name in _HOPS),
    _WEB | {"client_id": "web", "redirect_uris": [CALLBACK], "grant_types": ["authorization_code", "refresh_token", GRANT]},
    _WEB | {"client_id": "other", "redirect_uris": [OTHER_CALLBACK], "grant_types": ["authorization_code", GRANT]},
    _WEB | {"client_id": "plain", "redirect_uris": [CALLBACK], "resource_ids": [EDGE]},
    {"client_id": "nightly", "client_secret": SECRET, "grant_types": ["client_credentials"]},
    {"client_id": "orders-api", "client_secret": SECRET, "grant_types": [GRANT], "resource_ids": [ORDERS, STOCK]},
]  # fmt: skip
ADA: Final[dict[str, Any]] = {
    "roles": ["admin"],
    "claims": {"email": CLAIMS["email"]},
    "acr": "pwd",
    "amr": ["pwd"],
}


@pytest.fixture
def op(serve_provider: ServeProvider, tmp_path: Path) -> Provider:
    """A provider of the policies above."""
    (tmp_path / "policies.toml").write_text(POLICIES)
    file = str(tmp_path / "policies.toml")
    return serve_provider(CLIENTS, PYLON_POLICIES=file, OLD_SECRET=OWN_SECRET)


def exchange(
    op: Provider, client_id: str, token: str, target: str | None = ORDERS, **form: str | None
) -> Answer:
    """A client exchanges a token; None takes a parameter out."""
    usual = {"grant_type": GRANT, "subject_token": token, "subject_token_type": ACCESS, "resource": target}
    given = {name: value for name, value in (usual | form).items() if value is not None}
    return op.rp(client_id).post("/oidc/token", given)


def exchanged(op: Provider, client_id: str, token: str, target: str = ORDERS, **form: str) -> str:
    """The token that came of it."""
    answer = exchange(op, client_id, token, target, **form)
    assert answer.status == 200, answer
    return str(answer.json()["access_token"])


def mint(op: Provider, session: str, audience: str = EDGE) -> str:
    """A minted token."""
    answer = op.ask("POST", "/api/auth/jwt", token=session, json={"audience": audience})
    assert answer.status == 200, answer
    return str(answer.json()["token"])


def sign_in(op: Provider, client_id: str = "web", **parameters: str | None) -> Signed:
    """A whole flow of Ada's, with a token for the edge unless another is asked for."""
    asked = {"scope": "openid edge", "resource": EDGE} | parameters
    return op.sign_in(client_id=client_id, fields=ADA, **asked)


def is_active(op: Provider, client_id: str, token: str) -> bool:
    """What introspection says to one who may ask."""
    return bool(op.rp(client_id).introspect(token).json()["active"])


def with_grant_of(op: Provider, scope: str) -> tuple[str, str]:
    """A token for the edge, and the refresh token of its grant, which holds words of the orders too."""
    rp = op.rp("web")
    request = rp.request(scope=f"openid offline_access edge {scope}")
    request.parameters["resource"] = EDGE
    url = f"{request.url}&resource={ORDERS}"
    browser = op.browser()
    landing = op.finish(browser, browser.go(url), **ADA)
    answer = rp.redeem(request, op.answered(request, landing)["code"], resource=EDGE)
    assert answer.status == 200, answer
    return answer.json()["access_token"], answer.json()["refresh_token"]


def test_a_minted_token_is_exchanged_for_a_narrower_one(op: Provider, subtests: pytest.Subtests) -> None:
    """RFC 8693 §2.2.1: the answer; RFC 9068 §2.2 and RFC 8693 §4.1: the token; and it is what the target's policy says."""
    begun, now = op.app.session(**ADA), int(op.clock())
    answer = exchange(op, "gateway", mint(op, begun["token"]))
    assert answer.status == 200, answer
    assert answer.json() | {"access_token": ""} == {
        "access_token": "", "issued_token_type": ACCESS, "token_type": "Bearer", "expires_in": 600, "scope": "orders:read",
    }  # fmt: skip
    assert answer.headers["Cache-Control"] == "no-store"
    token = answer.json()["access_token"]
    header = pyjwt.get_unverified_header(token)
    key = pyjwt.PyJWKSet.from_dict(op.ask("GET", "/oidc/jwks").json())[header["kid"]]
    options: Any = {"verify_exp": False, "verify_iat": False}
    claims = pyjwt.decode(token, key, ["PS256"], audience=ORDERS, issuer=ISSUER, options=options)
    assert header["typ"] == "at+jwt"
    assert claims.pop("jti").startswith(f"{begun['sid']}.")
    assert claims == {
        "iss": ISSUER, "sub": "ada", "aud": ORDERS, "client_id": "gateway", "act": {"sub": "gateway"}, "iat": now,
        "exp": now + 600, "auth_time": now, "acr": "pwd", "amr": ["pwd"], "sid": begun["sid"], "scope": "orders:read",
        "groups": ["admin"], "email": CLAIMS["email"], "env": "test",
    }  # fmt: skip
    with subtests.test("its API and its client may introspect it, nobody else"):
        assert (
            op.rp("orders-api").introspect(token).json().items()
            >= {"act": {"sub": "gateway"}, "sub": "ada"}.items()
        )
        assert is_active(op, "gateway", token)
        assert not is_active(op, "web", token)
    with subtests.test("userinfo takes none"):
        assert op.rp("gateway").userinfo(token).status == 401
    with subtests.test("by audience, as a JWT, by a shared secret"):
        answer = exchange(
            op, "gateway", mint(op, begun["token"], OLD), None, audience=OLD, requested_token_type=JWT,
            subject_token_type=JWT,
        )  # fmt: skip
        assert answer.json()["issued_token_type"] == JWT
        assert "scope" not in answer.json()
        claims = pyjwt.decode(
            answer.json()["access_token"], OWN_SECRET, ["HS256"], audience=OLD, options=options
        )
        assert claims["act"] == {"sub": "gateway"}
    with subtests.test("the log says who acts for whom"):
        told = next(line for line in op.house.lines if line["event"] == "token_exchanged")
        assert (
            told.items()
            >= {"client_id": "gateway", "user": "ada", "sid": begun["sid"], "audience": ORDERS}.items()
        )
    with subtests.test("discovery names it"):
        assert GRANT in op.ask("GET", "/.well-known/openid-configuration").json()["grant_types_supported"]


def test_each_kind_of_token_counts_where_it_may(op: Provider, subtests: pytest.Subtests) -> None:
    """docs/policies.md: issued to the client that asks, or for an audience that it serves; an ID or opaque token only the first."""
    signed, opaque = sign_in(op), sign_in(op, resource=None, scope="openid")
    minted = mint(op, op.app.session(**ADA)["token"])
    machine = (
        op.rp("nightly").post("/oidc/token", {"grant_type": "client_credentials"}).json()["access_token"]
    )
    id_token = signed.tokens["id_token"]
    tokens = {
        "minted": (minted, {ACCESS, JWT}, {"gateway", "hop-1"}),
        "for an API": (signed.access_token, {ACCESS, JWT}, {"gateway", "hop-1", "web"}),
        "opaque": (opaque.access_token, {ACCESS}, {"web"}),
        "an ID token": (id_token, {ID, JWT}, {"web"}),
        "a client's own": (machine, set(), set()),
        "a session's": (op.app.session(**ADA)["token"], set(), set()),
        "none": ("x.y.z", set(), set()),
    }  # fmt: skip
    for name, (token, kinds, clients) in tokens.items():
        for kind in (ACCESS, JWT, ID):
            for client_id in ("gateway", "hop-1", "web", "other", "elsewhere"):
                with subtests.test(name, kind=kind, client=client_id):
                    answer = exchange(op, client_id, token, subject_token_type=kind)
                    expected = 200 if kind in kinds and client_id in clients else 400
                    assert answer.status == expected, answer
                    if expected == 400:
                        assert answer.json()["error"] == "invalid_request"
                        assert op.house.requests_logged[-1]["cause"].startswith("subject_token_")
                    else:
                        claims = unverified_claims(answer.json()["access_token"])
                        assert (claims["sub"], claims["client_id"]) == ("ada", client_id)
                        assert is_active(op, "orders-api", answer.json()["access_token"])


def test_an_id_token_counts_only_for_its_own_client(op: Provider) -> None:
    """RFC 8693 §2.1: another client that the user signed in to, in the same session, gets nothing for it."""
    browser = op.browser()
    signed = op.sign_in(browser, "web", fields=ADA, resource=None, scope="openid")
    request = op.rp("other").request(scope="openid", redirect_uri=OTHER_CALLBACK)
    landing = browser.go(request.url)
    code = op.answered(request, landing)["code"]
    own = op.rp("other").redeem(request, code).json()["id_token"]
    assert unverified_claims(own)["sid"] == unverified_claims(signed.tokens["id_token"])["sid"]
    assert exchange(op, "other", own, subject_token_type=ID).status == 200
    answer = exchange(op, "other", signed.tokens["id_token"], subject_token_type=ID)
    assert (answer.status, answer.json()["error"]) == (400, "invalid_request")
    assert op.house.requests_logged[-1]["cause"] == "subject_token_of_another"


def test_what_the_request_must_say(op: Provider, subtests: pytest.Subtests) -> None:
    """RFC 8693 §2.1, §2.2.2: each parameter that is wrong by its own error, and nothing is given."""
    minted = mint(op, op.app.session(**ADA)["token"])
    cases: list[tuple[str, dict[str, str | None], str, str]] = [
        ("gateway", {"subject_token": None}, "invalid_request", "subject_token_missing"),
        ("gateway", {"subject_token_type": None}, "invalid_request", "subject_token_type_missing"),
        ("gateway", {"subject_token_type": f"{TYPE}refresh_token"}, "invalid_request", "subject_token_type_unsupported"),
        ("gateway", {"subject_token_type": f"{TYPE}saml2"}, "invalid_request", "subject_token_type_unsupported"),
        ("gateway", {"requested_token_type": ID}, "invalid_request", "requested_token_type_unsupported"),
        ("gateway", {"requested_token_type": f"{TYPE}refresh_token"}, "invalid_request", "requested_token_type_unsupported"),
        ("gateway", {"actor_token": minted, "actor_token_type": JWT}, "invalid_request", "actor_token_shown"),
        ("gateway", {"actor_token": minted}, "invalid_request", "actor_token_shown"),
        ("gateway", {"actor_token_type": JWT}, "invalid_request", "actor_token_shown"),
        ("gateway", {"resource": None}, "invalid_target", "resource_missing"),
        ("gateway", {"audience": STOCK}, "invalid_target", "more_than_one_resource"),
        ("gateway", {"resource": f"{ORDERS} {STOCK}"}, "invalid_target", "more_than_one_resource"),
        ("gateway", {"resource": None, "audience": f"{ORDERS} {STOCK}"}, "invalid_target", "more_than_one_resource"),
        ("gateway", {"resource": "https://unknown.example"}, "invalid_target", "resource_unknown"),
        ("gateway", {"resource": ISSUER}, "invalid_target", "resource_unknown"),
        ("gateway", {"resource": None, "audience": "gateway"}, "invalid_target", "resource_unknown"),
        ("gateway", {"resource": CLOSED}, "invalid_target", "resource_not_by_token_exchange"),
        ("narrow", {"resource": STOCK}, "invalid_target", "resource_not_for_this_client"),
        ("gateway", {"resource": GUARDED}, "invalid_target", "require_acr"),
        ("gateway", {"scope": "orders:write"}, "invalid_scope", "scope_not_permitted"),
        ("gateway", {"scope": "orders:read orders:write"}, "invalid_scope", "scope_not_permitted"),
        ("gateway", {"scope": "openid"}, "invalid_scope", "scope_not_permitted"),
        ("gateway", {"scope": " "}, "invalid_scope", "scope_not_permitted"),
        ("narrow", {"scope": "orders:read"}, "invalid_scope", "scope_not_permitted"),
        ("plain", {}, "unauthorized_client", "grant_type_not_allowed"),
        ("nightly", {}, "unauthorized_client", "grant_type_not_allowed"),
    ]  # fmt: skip
    for client_id, form, error, cause in cases:
        with subtests.test(client_id, **form):
            answer = exchange(op, client_id, minted, **form)
            assert (answer.status, answer.json()["error"]) == (400, error), answer
            assert op.house.requests_logged[-1]["cause"] == cause
            assert (form.get("resource") == GUARDED) == ("require.acr" in answer.json()["error_description"])
    with subtests.test("named twice"):
        for name in ("resource", "audience"):
            form = f"grant_type={GRANT}&subject_token={minted}&subject_token_type={ACCESS}&{name}={ORDERS}&{name}={STOCK}"
            body = f"{form}&client_id=gateway&client_secret={SECRET}".encode()
            answer = op.ask(
                "POST", "/oidc/token", body=body, content_type="application/x-www-form-urlencoded"
            )
            assert answer.json()["error"] == "invalid_target"
    with subtests.test("audience named twice where it is no parameter"):
        form = f"grant_type=refresh_token&refresh_token=x&audience={ORDERS}&audience={STOCK}"
        body = f"{form}&client_id=web&client_secret={SECRET}".encode()
        answer = op.ask("POST", "/oidc/token", body=body, content_type="application/x-www-form-urlencoded")
        assert (answer.status, answer.json()["error"]) == (400, "invalid_request")
        assert op.house.requests_logged[-1]["cause"] == "parameter_repeated"
    with subtests.test("nothing asked, and nothing left"):
        answer = exchange(op, "narrow", minted)
        assert "scope" not in answer.json()
        assert "scope" not in unverified_claims(answer.json()["access_token"])
    with subtests.test("a public client does not list it"):
        public = {"client_id": "p", "token_endpoint_auth_method": "none", "grant_types": [GRANT]}
        error = op.app.call("POST", "/api/oidc/clients", public).json()["error"]
        assert error["code"] == "INVALID_CLIENT_METADATA"
        assert "is for clients with a secret" in str(error)


def test_a_scope_is_never_wider_than_the_grant(op: Provider, subtests: pytest.Subtests) -> None:
    """docs/policies.md: asked ∩ the audience's ∩ the client's ∩ what the user's grant holds for that audience."""
    edge, refresh_token = with_grant_of(op, "orders:read orders:write")
    cases = {
        "all that the grant holds": ("gateway", None, "orders:read orders:write"),
        "what is asked": ("gateway", "orders:write", "orders:write"),
        "what the client may have": ("narrow", None, "orders:write"),
        "what the grant does not hold": ("gateway", "orders:all", None),
        "what the client may not have": ("narrow", "orders:read", None),
    }
    for name, (client_id, scope, expected) in cases.items():
        with subtests.test(name):
            answer = exchange(op, client_id, edge, scope=scope)
            if expected is None:
                assert answer.json()["error"] == "invalid_scope"
            else:
                assert (
                    answer.json()["scope"]
                    == unverified_claims(answer.json()["access_token"])["scope"]
                    == expected
                )
    with subtests.test("a token that was cut is not widened for its own audience"):
        cut = op.rp("web").refresh(refresh_token, resource=ORDERS, scope="orders:read").json()["access_token"]
        assert exchange(op, "orders-api", cut, scope="orders:write").json()["error"] == "invalid_scope"
        assert exchange(op, "orders-api", cut).json()["scope"] == "orders:read"
    with subtests.test("nor by an exchange for another audience and back"):
        other = exchanged(op, "orders-api", cut, EDGE)
        assert unverified_claims(other)["scope"] == "edge"
        assert exchange(op, "orders-api", other, scope="orders:write").json()["error"] == "invalid_scope"
        back = exchanged(op, "orders-api", other)
        assert unverified_claims(back)["scope"] == "orders:read"
        assert is_active(op, "orders-api", back)
    with subtests.test("nor is an exchanged one"):
        cut = exchanged(op, "gateway", edge, scope="orders:read")
        assert exchange(op, "orders-api", cut, scope="orders:write").json()["error"] == "invalid_scope"
    with subtests.test("a grant without a word for it"):
        answer = exchange(op, "gateway", sign_in(op).access_token)
        assert answer.status == 200
        assert "scope" not in answer.json()


def test_an_exchanged_token_never_lives_longer(op: Provider, subtests: pytest.Subtests) -> None:
    """docs/policies.md: not than the subject token, its session or its grant, and not than the target's lifetime."""
    now = int(op.clock())
    with subtests.test("than the session"):
        short = op.app.session(**ADA, expires_in=50)
        assert unverified_claims(exchanged(op, "gateway", mint(op, short["token"])))["exp"] == now + 50
    with subtests.test("than the audience says"):
        minted = mint(op, op.app.session(**ADA)["token"])
        assert unverified_claims(exchanged(op, "gateway", minted, STOCK))["exp"] == now + 60
    signed = sign_in(op)
    op.clock.advance(590)
    with subtests.test("than what is exchanged"):
        for token in (minted, signed.access_token):
            answer = exchange(op, "gateway", token)
            assert answer.json()["expires_in"] == 10
            assert unverified_claims(answer.json()["access_token"])["exp"] == now + 600
    op.clock.advance(10)
    with subtests.test("what has ended is not exchanged"):
        for token in (minted, signed.access_token):
            assert exchange(op, "gateway", token).json()["error"] == "invalid_request"


def sign_out(op: Provider) -> None:
    """End every session that Ada has so far; offline grants stay."""
    later = op.app.session(**ADA)["token"]
    assert op.ask("DELETE", "/api/auth/sessions", token=later).status == 200


def lock_out(op: Provider) -> None:
    """End every session and every grant of Ada."""
    assert op.app.call("DELETE", "/api/auth/users/ada/sessions").status == 200


def end_grants(op: Provider) -> None:
    """End every grant of Ada, and no session."""
    for grant in op.app.grants():
        assert op.app.call("DELETE", f"/api/oidc/grants/{grant['id']}").status == 204


def test_what_has_ended_is_not_exchanged_and_ends_what_was(op: Provider, subtests: pytest.Subtests) -> None:
    """docs/policies.md: with the session or the grant that it stands on; at exchange and at introspection."""
    for end in (sign_out, lock_out):
        with subtests.test("minted", by=end.__name__):
            minted = mint(op, op.app.session(**ADA)["token"])
            made = exchanged(op, "gateway", minted, STOCK)
            again = exchanged(op, "hop-1", made, STOCK)
            assert is_active(op, "orders-api", made) and is_active(op, "orders-api", again)
            end(op)
            assert not is_active(op, "orders-api", made) and not is_active(op, "orders-api", again)
            for token in (minted, made):
                assert exchange(op, "hop-1", token, STOCK).json()["error"] == "invalid_request"

    for end in (end_grants, sign_out, lock_out):
        for kind in ("for an API", "opaque", "an ID token"):
            with subtests.test(kind, by=end.__name__):
                signed = sign_in(op) if kind == "for an API" else sign_in(op, resource=None, scope="openid")
                token = signed.tokens["id_token"] if kind == "an ID token" else signed.access_token
                form = {"subject_token_type": ID if kind == "an ID token" else ACCESS}
                made = exchanged(op, "web", token, **form)
                again = exchanged(op, "orders-api", made, ORDERS)
                assert is_active(op, "orders-api", made) and is_active(op, "orders-api", again)
                end(op)
                assert not is_active(op, "orders-api", made) and not is_active(op, "orders-api", again)
                assert exchange(op, "web", token, **form).json()["error"] == "invalid_request"
                assert exchange(op, "orders-api", made).json()["error"] == "invalid_request"
    with subtests.test("an ID token of a grant that has ended, with a later one in the same session"):
        browser = op.browser()
        first = op.sign_in(browser, "web", fields=ADA, resource=None, scope="openid")
        end_grants(op)
        op.clock.advance(1)
        op.sign_in(browser, "web", fields=ADA, resource=None, scope="openid")
        answer = exchange(op, "web", first.tokens["id_token"], subject_token_type=ID)
        assert answer.json()["error"] == "invalid_request"


def test_a_grant_that_goes_on_without_its_session_gives_what_it_holds(op: Provider) -> None:
    """docs/policies.md: of an offline grant only what came before the session's end falls with it."""
    edge, refresh_token = with_grant_of(op, "orders:read")
    made = exchanged(op, "gateway", edge)
    sign_out(op)
    assert not is_active(op, "orders-api", made)
    assert exchange(op, "gateway", edge).json()["error"] == "invalid_request"
    later = op.rp("web").refresh(refresh_token, resource=EDGE).json()
    assert is_active(op, "orders-api", exchanged(op, "gateway", later["access_token"]))


def test_who_acts_is_written_down_four_deep(op: Provider, subtests: pytest.Subtests) -> None:
    """RFC 8693 §4.1: the latest outermost, those before within; a fifth is refused."""
    token = mint(op, op.app.session(**ADA)["token"])
    act: dict[str, Any] | None = None
    for name in _HOPS[:4]:
        token = exchanged(op, name, token, STOCK)
        act = {"sub": name} | ({} if act is None else {"act": act})
        claims = unverified_claims(token)
        assert (claims["act"], claims["client_id"], claims["sub"]) == (act, name, "ada")
        assert is_active(op, "orders-api", token)
    answer = exchange(op, "hop-5", token, STOCK)
    assert (answer.status, answer.json()["error"]) == (400, "invalid_request")
    assert op.house.requests_logged[-1]["cause"] == "too_many_actors"
    with subtests.test("the same client again is one more"):
        assert exchange(op, "hop-4", token, STOCK).status == 400
    with subtests.test("what was revoked ends what came of it, and nothing else"):
        first = exchanged(op, "hop-1", mint(op, op.app.session(**ADA)["token"]), STOCK)
        second = exchanged(op, "hop-2", first, STOCK)
        third = exchanged(op, "hop-3", second, STOCK)
        op.rp("hop-1").revoke(second)
        assert is_active(op, "orders-api", second)
        op.rp("hop-2").revoke(second)
        assert is_active(op, "orders-api", first)
        assert not is_active(op, "orders-api", second) and not is_active(op, "orders-api", third)
        assert exchange(op, "hop-4", third, STOCK).json()["error"] == "invalid_request"


def test_revoking_one_token_of_a_grant_ends_what_was_exchanged_for_it(
    op: Provider, subtests: pytest.Subtests
) -> None:
    """RFC 7009 §2.1: a client ends its own; with one of its grant every access token of that, the exchanged ones too."""
    edge, refresh_token = with_grant_of(op, "orders:read")
    made = exchanged(op, "gateway", edge)
    with subtests.test("the gateway ends what it has, and not what it was given"):
        op.rp("gateway").revoke(edge)
        op.rp("gateway").revoke(made)
        assert is_active(op, "web", edge)
        assert not is_active(op, "orders-api", made)
    with subtests.test("the user's client"):
        made = exchanged(op, "gateway", edge)
        op.rp("web").revoke(edge)
        assert not is_active(op, "orders-api", made)
        assert exchange(op, "gateway", edge).json()["error"] == "invalid_request"
    with subtests.test("what comes later is another token"):
        later = op.rp("web").refresh(refresh_token, resource=EDGE).json()["access_token"]
        assert is_active(op, "orders-api", exchanged(op, "gateway", later))
    with subtests.test("exchanged by the grant's own client"):
        own = exchanged(op, "web", later)
        op.rp("web").revoke(own)
        assert not is_active(op, "web", later) and not is_active(op, "orders-api", own)


def test_what_was_taken_away_is_gone(op: Provider, subtests: pytest.Subtests) -> None:
    """docs/policies.md: an exchanged token stops working when its client would not get it any more."""
    minted = mint(op, op.app.session(**ADA)["token"])
    usual: dict[str, Any] = {"grant_types": [GRANT], "resource_ids": [EDGE]}
    made = op.app.call("POST", "/api/oidc/clients", {"client_id": "made", **usual}).json()
    rp, path = op.rp("made", secret=made["client_secret"]), "/api/oidc/clients/made"
    form = {"grant_type": GRANT, "subject_token": minted, "subject_token_type": ACCESS, "resource": ORDERS}
    changes: dict[str, Any] = {
        "its scope": usual | {"scope": "openid"},
        "its grant type": {"redirect_uris": [CALLBACK], "resource_ids": [EDGE]},
        "the client": None,
    }
    for name, change in changes.items():
        with subtests.test(name):
            assert op.app.call("PUT", path, usual).status == 200
            token = rp.post("/oidc/token", form).json()["access_token"]
            assert is_active(op, "orders-api", token)
            changed = op.app.call("DELETE", path) if change is None else op.app.call("PUT", path, change)
            assert changed.status in {200, 204}
            assert not is_active(op, "orders-api", token)


def test_who_has_a_shared_secret_gets_nothing_by_it(op: Provider, subtests: pytest.Subtests) -> None:
    """docs/security.md: who signs tokens for one HS256 audience names no session, grant, user or actor that is not there."""
    begun = op.app.session(**ADA)
    opaque = sign_in(op, resource=None, scope="openid")
    grant_id, _, _ = opaque.access_token.partition(".")
    minted = unverified_claims(mint(op, begun["token"], OLD))
    made = unverified_claims(exchanged(op, "gateway", mint(op, begun["token"]), OLD))

    def forged(claims: dict[str, Any], typ: str = "at+jwt") -> str:
        return pyjwt.encode(claims, OWN_SECRET, "HS256", {"typ": typ})

    cases = {
        "another user in the session": forged(minted | {"sub": "bob"}, "JWT"),
        "a session that is none": forged(minted | {"sid": secrets.token_urlsafe(16)}, "JWT"),
        "a grant's token": forged(made | {"jti": f"{grant_id}.{secrets.token_urlsafe(32)}"}),
        "exchanged of a grant's token that is none": forged(made | {"jti": f"{grant_id}.{secrets.token_urlsafe(16)}.x"}),
        "exchanged of a hash that is none": forged(made | {"jti": f"{grant_id}.ä=.x"}),
        "exchanged of an ID token in another session": forged(made | {"jti": f"{grant_id}.id.x"}),
        "the session of another token": forged(made | {"jti": f"{secrets.token_urlsafe(16)}.x"}),
        "another user of the grant": forged(made | {"sub": "bob", "jti": f"{grant_id}.{handles.short_hash('x')}.x"}),
        "as the client's own": forged({name: made[name] for name in made if name not in {"sid", "act"}} | {"jti": "x"}),
        "an act of another form": forged(made | {"act": ["gateway"]}),
        "an act without a name": forged(made | {"act": {"sub": "a", "act": {}}}),
        "five who act": forged(made | {"act": {"sub": "1", "act": {"sub": "2", "act": {"sub": "3", "act": {"sub": "4"}}}}}),
        "wider than it may be": forged(made | {"scope": "orders:all"}),
        "by the secret of another": pyjwt.encode(minted, JWT_SECRET, "HS256", {"typ": "JWT"}),
        "for an audience that is not signed so": forged(made | {"aud": EDGE}),
        "longer than any token lives": forged(minted | {"exp": minted["exp"] + 10**6}, "JWT"),
    }  # fmt: skip
    for name, token in cases.items():
        with subtests.test(name):
            assert exchange(op, "gateway", token).json()["error"] == "invalid_request"
    with subtests.test("a longer life"):
        token = exchanged(op, "gateway", forged(minted | {"exp": minted["exp"] + 10_000}, "JWT"))
        assert unverified_claims(token)["exp"] == int(op.clock()) + 600
    with subtests.test("other facts"):
        lied = minted | {"roles": ["owner"], "acr": "mfa", "auth_time": 1, "act": {"sub": "hop-1"}}
        claims = unverified_claims(exchanged(op, "gateway", forged(lied, "JWT")))
        assert (claims["groups"], claims["acr"]) == (["admin"], "pwd")
