"""Clients register themselves, and manage that (docs/registration.md).

Spec: RFC 7591, RFC 7592
"""

from __future__ import annotations

import io
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from service.app import get_app
from service.settings import read_settings
from service.storage.interface import NEVER
from tests.flows.polling import wait_until
from tests.http.driver import DAY_S, Clock, House
from tests.provider.conftest import ServeProvider
from tests.provider.driver import ISSUER, Provider
from tests.provider.registering import CALLBACK, METADATA, refusal, register, registered
from tests.support.cases import each_of


@pytest.fixture
def open_op(serve_provider: ServeProvider) -> Provider:
    """A provider where everybody may register a client."""
    return serve_provider(PYLON_OIDC_REGISTRATION="open")


def _events(op: Provider) -> list[tuple[str, str, str]]:
    return [
        (line["what"], line["by"], line["client_id"])
        for line in op.house.lines
        if line["event"] == "client_changed"
    ]


def _rows(op: Provider) -> dict[str, tuple[int, int]]:
    """The rows of clients: the version and the end of each."""
    with sqlite3.connect(op.house.settings.data_dir / "pylon.db") as database:
        found = database.execute("SELECT client_id, version, expires_at FROM client")
        return {client_id: (version, ends_at) for client_id, version, ends_at in found}


# --- RFC 7591 ---


def test_what_it_is_told(open_op: Provider) -> None:
    """RFC 7591 §3.2.1: 201 with every member and `no-store`; members that are left out have their defaults."""
    answer = register(open_op)
    assert answer.status == 201
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    told = answer.json()
    assert told["client_id"].startswith("r_") and len(told["client_secret"]) >= 43
    assert told["client_secret_expires_at"] == 0 and told["client_id_issued_at"] == open_op.clock()
    assert told["registration_client_uri"] == f"{ISSUER}/oidc/register/{told['client_id']}"
    assert {name: told[name] for name in METADATA} == dict(METADATA)
    assert told["token_endpoint_auth_method"] == "client_secret_basic"
    assert told["grant_types"] == ["authorization_code", "refresh_token"]
    assert told["response_types"] == ["code"]
    assert told["scope"] == "openid profile email offline_access"
    assert told["id_token_signed_response_alg"] == "RS256" and told["application_type"] == "web"
    assert not {"source", "first_party", "require_pkce", "logout_by_hint", "resource_ids"} & set(told)
    assert _events(open_op) == [("registered", "client", told["client_id"])]
    secrets = told["client_secret"], told["registration_access_token"]
    assert not any(secret in open_op.house.log.getvalue() for secret in secrets)


def test_a_public_one_has_no_secret(open_op: Provider) -> None:
    """RFC 7591 §3.2.1: `client_secret_expires_at` is there only with a secret."""
    told = registered(open_op, token_endpoint_auth_method="none").told
    assert not {"client_secret", "client_secret_expires_at"} & set(told)


@each_of("method", ["client_secret_basic", "client_secret_post", "none"])
def test_a_user_signs_in_to_it(open_op: Provider, method: str) -> None:
    """docs/registration.md: a code, tokens, and what userinfo gives; the user is asked, and sees no logo of a stranger."""
    stranger = registered(
        open_op, token_endpoint_auth_method=method, logo_uri="https://bank.example/logo.png"
    )
    rp, browser = stranger.rp(), open_op.browser()
    request = rp.request(scope="openid email offline_access")
    page = open_op.app.by_backend(browser, browser.go(request.url), claims={"email": "ada@example.com"})
    assert "A stranger" in page.text and "logo.png" not in page.text
    assert "bank.example" not in page.answer.headers["Content-Security-Policy"]
    code = open_op.answered(request, browser.submit(page, decision="allow"))["code"]
    tokens = rp.redeem(request, code).json()
    assert rp.verified(tokens["id_token"])["sub"] == "ada"
    assert rp.userinfo(tokens["access_token"]).json()["email"] == "ada@example.com"
    assert rp.refresh(tokens["refresh_token"]).status == 200


@each_of(
    ("members", "error"),
    [
        ({"redirect_uris": None}, "invalid_redirect_uri"),
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://a.example/#fragment"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["http://a.example/"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["myapp:/callback"], "allow_any_scheme": True}, "invalid_redirect_uri"),
        ({"redirect_uris": "https://a.example/"}, "invalid_redirect_uri"),
        ({"post_logout_redirect_uris": ["http://a.example/"]}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "client_secret_jwt"}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": ["none"]}, "invalid_client_metadata"),
        ({"token_endpoint_auth_method": "private_key_jwt"}, "invalid_client_metadata"),
        ({"grant_types": ["authorization_code", "client_credentials"]}, "invalid_client_metadata"),
        ({"grant_types": ["implicit"]}, "invalid_client_metadata"),
        ({"response_types": ["code id_token"]}, "invalid_client_metadata"),
        ({"scope": "openid roles"}, "invalid_client_metadata"),
        ({"scope": 7}, "invalid_client_metadata"),
        ({"client_name": "two\nlines"}, "invalid_client_metadata"),
        ({"logo_uri": "javascript:alert(1)"}, "invalid_client_metadata"),
        ({"id_token_signed_response_alg": "none"}, "invalid_client_metadata"),
        ({"id_token_signed_response_alg": "ES256"}, "invalid_client_metadata"),
        ({"backchannel_logout_uri": "https://10.0.0.1/"}, "invalid_client_metadata"),
        ({"backchannel_logout_uri": "http://rp.example/"}, "invalid_client_metadata"),
        ({"backchannel_logout_uri": "https://[::ffff:127.0.0.1]/"}, "invalid_client_metadata"),
        (
            {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://127.0.0.1/"},
            "invalid_client_metadata",
        ),
        ({"policy_uri": "https://192.168.1.1/reboot"}, "invalid_client_metadata"),
        ({"tos_uri": "https://169.254.169.254/"}, "invalid_client_metadata"),
    ],
)
def test_what_is_wrong_is_refused(open_op: Provider, members: dict[str, Any], error: str) -> None:
    """RFC 7591 §3.2.2: which of the two errors, and a description that names the member; nothing is stored."""
    answer = register(open_op, **members)
    assert refusal(answer) == (400, error)
    assert answer.json()["error_description"].split(":")[0] in members
    assert "WWW-Authenticate" not in answer.headers
    assert _events(open_op) == []


@each_of(
    ("options", "status"),
    [
        ({"body": b"[]"}, 400),
        ({"body": b"{"}, 400),
        ({"body": b""}, 400),
        ({"body": b'{"client_name": "a", "client_name": "b"}'}, 400),
        ({"body": json.dumps(METADATA).encode(), "content_type": "text/plain"}, 400),
        ({"body": b" " * 16_385}, 413),
        ({"body": b" " * 70_000}, 413),
    ],
)
def test_what_is_no_metadata_is_refused(open_op: Provider, options: dict[str, Any], status: int) -> None:
    """docs/registration.md: the same shape for what is not a JSON object, or larger than 16 KiB."""
    answer = open_op.ask("POST", "/oidc/register", **options)
    assert refusal(answer) == (status, "invalid_client_metadata")


def test_the_operators_list_is_not_for_strangers(serve_provider: ServeProvider) -> None:
    """docs/settings.md#requests-to-others: an address that the operator opened for clients of their own stays closed."""
    for dev_mode in ("0", "1"):
        op = serve_provider(
            PYLON_OIDC_REGISTRATION="open",
            PYLON_OUTBOUND_ALLOW="10.0.0.1",
            PYLON_DEV_MODE=dev_mode,
            PYLON_OIDC_ISSUER="http://localhost:4321" if dev_mode == "1" else ISSUER,
        )
        own = {"redirect_uris": [CALLBACK], "backchannel_logout_uri": "https://10.0.0.1/out"}
        assert op.app.call("POST", "/api/oidc/clients", own).status == 201
        answer = register(op, backchannel_logout_uri="https://10.0.0.1/out")
        assert answer.status == (201 if dev_mode == "1" else 400), answer


# --- who may register ---


def test_closed_by_default(op: Provider) -> None:
    """docs/settings.md#strangers: without the setting, these paths answer 404, and discovery does not name them."""
    assert register(op).status == 404
    assert op.ask("GET", "/oidc/register/r_1", token="x").status == 404
    assert "registration_endpoint" not in op.ask("GET", "/.well-known/openid-configuration").json()


def test_discovery_names_it_where_it_is_open(serve_provider: ServeProvider) -> None:
    """docs/registration.md: everybody may find an open one; with invitations, the operator says where it is."""
    for mode, is_named in (("open", True), ("token", False)):
        op = serve_provider(PYLON_OIDC_REGISTRATION=mode)
        metadata = op.ask("GET", "/.well-known/openid-configuration").json()
        assert (metadata.get("registration_endpoint") == f"{ISSUER}/oidc/register") is is_named


@each_of("token", [None, "wrong", "", "é"])
def test_an_invitation_is_needed(serve_provider: ServeProvider, token: str | None) -> None:
    """RFC 6750 §3.1: 401 with a challenge, which names the error if there was a token. The body is not read."""
    op = serve_provider(PYLON_OIDC_REGISTRATION="token")
    answer = op.ask("POST", "/oidc/register", body=b"{", token=token)
    assert refusal(answer) == (401, "invalid_token")
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge.startswith("Bearer") and ("error=" in challenge) is (token is not None)


def test_a_wrong_invitation_is_refused_where_none_is_needed(open_op: Provider) -> None:
    """docs/registration.md: a token that is sent is never ignored."""
    assert refusal(register(open_op, token="wrong")) == (401, "invalid_token")


# --- RFC 7592 ---


def test_it_reads_itself(open_op: Provider) -> None:
    """RFC 7592 §2.1, §3: the same members as at registration, without the secret, which is not stored, and with the same token."""
    stranger = registered(open_op, contacts=["ops@stranger.example"])
    answer = stranger.manage("GET")
    assert answer.status == 200 and answer.headers["Cache-Control"] == "no-store"
    assert answer.json() == {name: value for name, value in stranger.told.items() if name != "client_secret"}
    assert stranger.manage("HEAD").status == 200


def test_put_replaces_everything(open_op: Provider) -> None:
    """RFC 7592 §2.2: a member that is left out has its default again; id, secret and token stay."""
    stranger = registered(open_op, contacts=["ops@stranger.example"], scope="openid email")
    secret = stranger.told["client_secret"]
    answer = stranger.put(
        redirect_uris=[CALLBACK], client_name="B", client_secret=secret, first_party=True, software_id="x"
    )
    assert answer.status == 200
    told = answer.json()
    assert told["client_name"] == "B" and told["scope"] == "openid profile email offline_access"
    assert not {"contacts", "client_secret", "first_party", "software_id"} & set(told)
    assert told == stranger.manage("GET").json()
    rp = stranger.rp()
    request = rp.request()
    code = open_op.authorize(open_op.browser(), request)["code"]
    assert rp.redeem(request, code).status == 200
    assert _events(open_op)[1:] == [("metadata", "client", stranger.client_id)]


@each_of(
    "wrong",
    [
        {"client_id": "c-basic"},
        {"client_id": None},
        {"client_secret": "another-secret-that-is-long-enough-0123456789"},
        {"client_secret": 7},
        {"redirect_uris": ["http://a.example/"]},
        {"scope": "openid roles"},
        {"grant_types": ["client_credentials"]},
    ],
)
def test_a_wrong_put_changes_nothing(open_op: Provider, wrong: dict[str, Any]) -> None:
    """RFC 7592 §2.2: it carries its id, and its current secret if any; what POST refuses is refused."""
    stranger = registered(open_op)
    before = stranger.manage("GET").json()
    answer = stranger.put(**{"redirect_uris": [CALLBACK]} | wrong)
    assert answer.status == 400 and answer.json()["error"].startswith("invalid_")
    assert stranger.manage("GET").json() == before


def test_another_method_needs_or_drops_a_secret(open_op: Provider) -> None:
    """docs/registration.md: a new secret comes in the answer, once; the earlier one stops working at once."""
    stranger = registered(open_op)
    public = stranger.put(redirect_uris=[CALLBACK], token_endpoint_auth_method="none").json()
    assert not {"client_secret", "client_secret_expires_at"} & set(public)
    again = stranger.put(redirect_uris=[CALLBACK]).json()
    assert again["client_secret"] != stranger.told["client_secret"]
    rp = stranger.rp()
    assert rp.post("/oidc/token", {"grant_type": "refresh_token"}).json()["error"] == "invalid_client"
    fresh = stranger.rp(secret=again["client_secret"])
    assert fresh.post("/oidc/token", {"grant_type": "refresh_token"}).json()["error"] == "invalid_request"


@each_of(
    ("uris", "is_asked"),
    [
        ([CALLBACK], False),
        (["https://stranger.example.net/another"], False),
        (["https://elsewhere.example/callback"], True),
        ([CALLBACK, "https://elsewhere.example/callback"], True),
        ([CALLBACK, "net.example.app:/callback"], True),
    ],
)
def test_another_host_ends_consents(open_op: Provider, uris: list[str], is_asked: bool) -> None:
    """docs/registration.md: users agreed to send their data to one place; for another they are asked again."""
    stranger, browser = registered(open_op), open_op.browser()
    open_op.authorize(browser, stranger.rp().request())
    request = stranger.rp().request(prompt="none")
    assert "code" in open_op.answered(request, browser.go(request.url))
    assert stranger.put(redirect_uris=uris).status == 200
    request = stranger.rp(redirect_uri=uris[0]).request(prompt="none")
    told = open_op.answered(request, browser.go(request.url))
    assert told.get("error") == ("consent_required" if is_asked else None)


def test_delete_takes_everything_with_it(open_op: Provider) -> None:
    """RFC 7592 §2.3: 204; its tokens stop working, its consents are removed, and its registration token is refused."""
    stranger = registered(open_op)
    rp, browser = stranger.rp(), open_op.browser()
    request = rp.request(scope="openid offline_access")
    tokens = rp.redeem(request, open_op.authorize(browser, request)["code"]).json()
    answer = stranger.manage("DELETE")
    assert answer.status == 204 and answer.body == b""
    assert _events(open_op)[1:] == [("removed", "client", stranger.client_id)]
    assert rp.userinfo(tokens["access_token"]).status == 401
    assert rp.refresh(tokens["refresh_token"]).json()["error"] == "invalid_client"
    assert open_op.app.grants() == []
    for method in ("GET", "PUT", "DELETE"):
        assert refusal(stranger.manage(method, body=b"{}" if method == "PUT" else None)) == (
            401,
            "invalid_token",
        )


def test_no_token_opens_another_client(open_op: Provider) -> None:
    """RFC 7592 §2: one answer for an unknown client, a client of the operator's, and a token that is not this client's."""
    one, other = registered(open_op), registered(open_op)
    answers = []
    for client_id in (other.client_id, "c-basic", "r_nobody", "https://a.example"):
        for token in (one.told["registration_access_token"], one.told["client_secret"], "", "é"):
            for method in ("GET", "PUT", "DELETE"):
                path = f"/oidc/register/{client_id}"
                if "/" not in client_id:
                    answers.append(
                        open_op.ask(method, path, token=token, body=b"{" if method == "PUT" else None)
                    )
    assert {(answer.status, answer.body) for answer in answers} == {(401, answers[0].body)}
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {
        answers[0].headers["WWW-Authenticate"]
    }
    assert other.manage("GET").status == 200
    assert refusal(one.manage("GET", token=None)) == (401, "invalid_token")


def test_scripts_of_any_origin_may_register(open_op: Provider) -> None:
    """docs/endpoints.md: `*` without credentials, preflights included, as at the token endpoint."""
    stranger = registered(open_op)
    path = stranger.told["registration_client_uri"].removeprefix(ISSUER)
    for at, method in (("/oidc/register", "POST"), (path, "PUT"), (path, "DELETE"), (path, "GET")):
        asked = {"Origin": "https://spa.example", "Access-Control-Request-Method": method}
        asked["Access-Control-Request-Headers"] = "authorization,content-type"
        answer = open_op.ask("OPTIONS", at, headers=asked)
        assert answer.status in {200, 204} and method in answer.headers["Access-Control-Allow-Methods"]
        assert answer.headers.all("Access-Control-Allow-Origin") == ["*"]
    answer = open_op.ask("PATCH", path)
    assert answer.status == 405 and answer.headers.all("Access-Control-Allow-Origin") == ["*"]
    assert "error" in answer.json() and "error_description" in answer.json()


# --- what the operator sees and does ---


def test_the_operator_sees_where_it_came_from(open_op: Provider) -> None:
    """docs/registration.md: the operator sees its source, changes it within the same limits, and removes it like every other client."""
    stranger = registered(open_op)
    path = f"/api/oidc/clients/{stranger.client_id}"
    known = open_op.app.call("GET", path).json()
    assert known["source"] == "registration" and "registration" not in known
    assert not {"client_secret", "registration_access_token", "token_hash"} & set(known)
    listed = open_op.app.call("GET", "/api/oidc/clients").json()["clients"]
    assert [each["source"] for each in listed if each["client_id"] == stranger.client_id] == ["registration"]
    for member, value in (
        ("first_party", True),
        ("require_pkce", False),
        ("resource_ids", ["x"]),
        ("scope", "roles"),
    ):
        answer = open_op.app.call("PUT", path, known | {member: value})
        assert answer.status == 400 and member in answer.json()["error"]["message"]
    assert open_op.app.call("PUT", path, known | {"client_name": "Renamed"}).status == 200
    after = open_op.app.call("GET", path).json()
    assert (after["source"], after["client_name"]) == ("registration", "Renamed")
    assert stranger.manage("GET").json()["client_name"] == "Renamed"
    assert open_op.app.call("DELETE", path).status == 204
    assert stranger.manage("GET").status == 401


def test_a_client_cannot_take_back_what_the_operator_took_away(open_op: Provider) -> None:
    """docs/registration.md, RFC 7592 §2.2: scope and grant types that an operator changes limit every later PUT, until the operator changes them again."""
    stranger = registered(open_op)
    path = f"/api/oidc/clients/{stranger.client_id}"
    known = open_op.app.call("GET", path).json()
    renamed = {"redirect_uris": [CALLBACK], "client_name": "Renamed"}
    assert stranger.put(**renamed, scope="openid").json()["scope"] == "openid"
    assert open_op.app.call("PUT", path, known | {"client_name": "Mine"}).status == 200
    assert stranger.put(**renamed).json()["scope"] == known["scope"]  # nothing was taken away
    less = known | {"scope": "openid email", "grant_types": ["authorization_code"]}
    assert open_op.app.call("PUT", path, less).status == 200
    for wider in (
        {"scope": "openid email offline_access"},
        {"scope": "openid profile"},
        {"grant_types": ["authorization_code", "refresh_token"]},
    ):
        assert refusal(stranger.put(**renamed, **wider)) == (400, "invalid_client_metadata")
    told = stranger.put(**renamed).json()
    assert (told["scope"], told["grant_types"]) == ("openid email", ["authorization_code"])
    assert stranger.put(**renamed, scope="openid").json()["scope"] == "openid"
    assert stranger.put(**renamed).json()["scope"] == "openid email"
    assert open_op.app.call("PUT", path, known).status == 200
    told = stranger.put(**renamed).json()
    assert (told["scope"], told["grant_types"]) == (known["scope"], known["grant_types"])


def test_an_operators_client_is_never_a_strangers(open_op: Provider) -> None:
    """docs/registration.md, decision 0021: a client that the operator registered is the operator's, even if its id looks like a stranger's."""
    own = {"client_id": "r_mine", "redirect_uris": [CALLBACK], "first_party": True}
    assert open_op.app.call("POST", "/api/oidc/clients", own).status == 201
    known = open_op.app.call("GET", "/api/oidc/clients/r_mine").json()
    assert (known["source"], known["first_party"]) == ("database", True)
    assert open_op.ask("GET", "/oidc/register/r_mine", token="x").status == 401
    stranger = registered(open_op)
    taken = own | {"client_id": stranger.client_id}
    assert open_op.app.call("POST", "/api/oidc/clients", taken).status == 409


# --- what is not used ends ---


def test_one_that_nobody_used_ends(serve_provider: ServeProvider) -> None:
    """docs/registration.md: after the configured days it is unknown, and the sweep removes its row."""
    op = serve_provider(PYLON_OIDC_REGISTRATION="open", PYLON_OIDC_REGISTRATION_IDLE_DAYS="2")
    unused_one, used = registered(op), registered(op)
    op.authorize(op.browser(), used.rp().request())
    op.clock.advance(2 * DAY_S - 1)
    assert unused_one.put(redirect_uris=[CALLBACK]).status == 200  # which is not a sign-in
    op.clock.advance(1)
    assert unused_one.manage("GET").status == 401
    assert op.browser().go(unused_one.rp().request().url).answer.status == 400
    assert used.manage("GET").status == 200
    op.clock.advance(4000 * DAY_S)
    assert used.manage("GET").status == 200


def test_later_sign_ins_write_nothing_for_it(open_op: Provider) -> None:
    """docs/registration.md, decision 0021: the first code makes the row permanent, and later ones leave it as it is."""
    stranger, browser = registered(open_op), open_op.browser()
    open_op.authorize(browser, stranger.rp().request())
    before = _rows(open_op)
    assert before[stranger.client_id][1] == NEVER
    open_op.authorize(browser, stranger.rp().request())
    assert _rows(open_op) == before


def test_one_that_ends_unused_has_its_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """docs/deploy.md: `client_changed` for each, by the sweep of a service as it is started."""
    environ = {
        "PYLON_DATA_DIR": str(tmp_path),
        "PYLON_DEV_MODE": "1",
        "PYLON_OIDC_REGISTRATION": "open",
        "PYLON_OIDC_REGISTRATION_IDLE_DAYS": "2",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    clock = Clock()
    house = House(get_app(clock), read_settings(environ).settings, clock, io.StringIO())
    op = Provider(house, [])
    op.host = "localhost:4321"
    unused_one = registered(op)
    clock.advance(2 * DAY_S)
    registered(op)
    said = ""

    def is_told() -> bool:
        nonlocal said
        said += "".join(capfd.readouterr())
        return any(
            (line["what"], line["by"], line["client_id"]) == ("removed", "sweep", unused_one.client_id)
            for line in map(json.loads, filter(lambda line: '"client_changed"' in line, said.splitlines()))
        )

    wait_until(is_told)
