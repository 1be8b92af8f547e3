"""Status lists: the bit that a token names is set as soon as what it depends on has ended, and no other bit is.

Spec: Token Status List (draft-ietf-oauth-status-list) §4 to §8; docs/status-lists.md
"""

from __future__ import annotations

import base64
import threading
import zlib
from pathlib import Path
from typing import Any, Final

import jwt as pyjwt
import pytest

from service.records.sessions import SignIn
from service.sessions import LocalSessions
from service.startup import open_store
from service.status_lists import StatusLists
from tests.http.driver import unverified_claims
from tests.provider.conftest import ServeProvider
from tests.provider.driver import CALLBACK, ISSUER, SECRET, Provider
from tests.support.gunicorn import SECRET as JWT_SECRET

API: Final = "https://api.example.com"
DEEPER: Final = "https://deeper.example.com"
POLICIES: Final = f"""
[default]
alg = "RS256"

[audience."{API}"]
grants = ["mint", "authorization_code", "client_credentials"]
scopes = ["read"]
exchange_scopes = ["read"]

[audience."{DEEPER}"]
grants = ["token_exchange"]
scopes = ["read"]
exchange_scopes = ["read"]
"""
ALL: Final = [
    "authorization_code",
    "refresh_token",
    "client_credentials",
    "urn:ietf:params:oauth:grant-type:token-exchange",
]
CLIENTS: Final[list[dict[str, Any]]] = [
    {"client_id": "c-basic", "client_secret": SECRET, "redirect_uris": [CALLBACK], "first_party": True, "grant_types": ALL, "resource_ids": [API]},
]  # fmt: skip
OFFLINE: Final = "openid offline_access read"
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"


@pytest.fixture
def op(serve_provider: ServeProvider, tmp_path: Path) -> Provider:
    """A provider with status lists."""
    (tmp_path / "policies.toml").write_text(POLICIES)
    return serve_provider(
        CLIENTS, PYLON_POLICIES=str(tmp_path / "policies.toml"), PYLON_JWT_AUDIENCE=API, PYLON_STATUS_LIST="1"
    )


def status_of(token: str) -> dict[str, Any]:
    """What a token says of its place."""
    status: dict[str, Any] = unverified_claims(token)["status"]["status_list"]
    assert set(status) == {"idx", "uri"}
    return status


def is_revoked(op: Provider, token: str) -> bool:
    """The bit of a token, in a list that was verified as Token Status List §8.3 says."""
    op.clock.advance(11)  # the same list is sent for 10 s
    status = status_of(token)
    answer = op.ask("GET", status["uri"].removeprefix(ISSUER))
    assert answer.status == 200, answer
    assert answer.headers["content-type"] == "application/statuslist+jwt"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cache-control"] == "public, max-age=30"
    header = pyjwt.get_unverified_header(answer.body.decode())
    assert header["typ"] == "statuslist+jwt"
    key = pyjwt.PyJWKSet.from_dict(op.ask("GET", "/oidc/jwks").json())[header["kid"]]
    options: Any = {"verify_exp": False, "verify_iat": False}
    claims = pyjwt.decode(answer.body.decode(), key, algorithms=["RS256"], options=options)
    now = int(op.clock())
    assert (claims["sub"], claims["iat"], claims["exp"], claims["ttl"]) == (status["uri"], now, now + 600, 60)
    assert claims["status_list"]["bits"] == 1
    packed = claims["status_list"]["lst"]
    bits = zlib.decompress(base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)))
    assert len(bits) == 65536 // 8
    index = status["idx"]
    return bool(bits[index >> 3] >> (index & 7) & 1)


def minted(op: Provider, session: dict[str, Any]) -> str:
    """A minted token of a session."""
    return str(op.ask("POST", "/api/auth/jwt", token=session["token"]).json()["token"])


def exchanged(op: Provider, subject: str) -> str:
    """A token that was exchanged for another."""
    form = {
        "grant_type": EXCHANGE,
        "subject_token": subject,
        "subject_token_type": ACCESS_TOKEN,
        "resource": DEEPER,
    }
    answer = op.rp().post("/oidc/token", form)
    assert answer.status == 200, answer
    return str(answer.json()["access_token"])


def test_the_end_of_a_session_sets_its_bit_and_no_other(op: Provider, subtests: pytest.Subtests) -> None:
    """docs/status-lists.md: by the app, for one session or for all of a user; a refreshed session keeps its place."""
    kept, first, second = (op.app.session("ada") for _ in range(3))
    kept_token, one, two = minted(op, kept), minted(op, first), minted(op, second)
    assert len({(status_of(each)["idx"], status_of(each)["uri"]) for each in (kept_token, one, two)}) == 3
    assert status_of(minted(op, first)) == status_of(one)
    assert not is_revoked(op, one)
    with subtests.test("the app ends one"):
        assert op.ask("DELETE", "/api/auth/session", token=first["token"]).status in (200, 204)
        assert is_revoked(op, one)
        assert not is_revoked(op, kept_token)
    with subtests.test("a refresh keeps the place"):
        successor = op.ask("POST", "/api/auth/refresh", token=second["token"]).json()
        assert status_of(minted(op, successor)) == status_of(two)
        assert not is_revoked(op, two)
    with subtests.test("an exchanged token has the place of its subject"):
        assert status_of(exchanged(op, two)) == status_of(two)
    with subtests.test("a lock-out ends all"):
        assert op.app.call("DELETE", "/api/auth/users/ada/sessions").status == 200
        assert is_revoked(op, two)
        assert is_revoked(op, kept_token)
    with subtests.test("a day later the bit is clear again, and no token names it"):
        op.clock.advance(86_400)
        store = open_store(op.house.settings)
        store.delete_expired(now=int(op.clock()), limit=1000)
        store.close()
        assert not is_revoked(op, one)


def test_a_session_that_began_before_gets_its_place_when_it_is_refreshed(op: Provider) -> None:
    """docs/status-lists.md: until then its tokens name none."""
    without = LocalSessions(open_store(op.house.settings), lifetime_s=3600)
    begun = {"token": without.create(SignIn("ada"), now=int(op.clock())).token}
    assert "status" not in unverified_claims(minted(op, begun))
    refreshed = op.ask("POST", "/api/auth/refresh", token=begun["token"]).json()
    token = minted(op, refreshed)
    assert not is_revoked(op, token)
    assert op.ask("DELETE", "/api/auth/session", token=refreshed["token"]).status == 200
    assert is_revoked(op, token)


def test_the_end_of_a_grant_sets_its_bit(op: Provider, subtests: pytest.Subtests) -> None:
    """docs/status-lists.md: by its session, by a revocation, by reuse; a grant that stays has another place from its next refresh on."""
    rp = op.rp()
    with subtests.test("its session ends, and it is not offline"):
        browser = op.browser()
        session = op.app.sign_in(browser)
        plain = op.sign_in(browser, scope="openid read", resource=API, way="cookie").access_token
        assert not is_revoked(op, plain)
        op.ask("DELETE", "/api/auth/session", token=session["token"])
        assert is_revoked(op, plain)
    with subtests.test("its session ends, and it stays"):
        browser = op.browser()
        session = op.app.sign_in(browser)
        signed = op.sign_in(browser, scope=OFFLINE, resource=API, way="cookie")
        before = signed.access_token
        refreshed = rp.refresh(signed.tokens["refresh_token"]).json()
        assert status_of(refreshed["access_token"]) == status_of(before)
        op.ask("DELETE", "/api/auth/session", token=session["token"])
        assert is_revoked(op, before)
        later = rp.refresh(refreshed["refresh_token"]).json()
        assert status_of(later["access_token"]) != status_of(before)
        assert not is_revoked(op, later["access_token"])
        assert is_revoked(op, before)
    with subtests.test("one of its access tokens is revoked"):
        token = later["access_token"]
        deeper = exchanged(op, token)
        assert status_of(deeper) == status_of(token)
        assert rp.revoke(token).status == 200
        assert is_revoked(op, token)
        again = rp.refresh(later["refresh_token"]).json()
        assert not is_revoked(op, again["access_token"])
    with subtests.test("its refresh token is revoked"):
        assert rp.revoke(again["refresh_token"]).status == 200
        assert is_revoked(op, again["access_token"])
    with subtests.test("a code is used twice"):
        signed = op.sign_in(scope=OFFLINE, resource=API)
        assert rp.redeem(signed.request, signed.code).status == 400
        assert is_revoked(op, signed.access_token)
    with subtests.test("the user or the app takes it back"):
        token = op.sign_in(scope=OFFLINE, resource=API).access_token
        (grant,) = (each for each in op.app.grants() if each.get("resources") == [API])
        assert op.app.call("DELETE", f"/api/oidc/grants/{grant['id']}").status in (200, 204)
        assert is_revoked(op, token)


def test_a_clients_own_token_names_no_place(op: Provider) -> None:
    """docs/status-lists.md: only the client behind it could end."""
    answer = op.rp().post("/oidc/token", {"grant_type": "client_credentials", "resource": API}).json()
    assert "status" not in unverified_claims(answer["access_token"])


def test_only_lists_that_were_taken_are_served(op: Provider, subtests: pytest.Subtests) -> None:
    """docs/status-lists.md: Token Status List §8.1; a stranger can make the service sign nothing new."""
    token = minted(op, op.app.session())
    path = status_of(token)["uri"].removeprefix(ISSUER)
    for other in ("/oidc/status/1", "/oidc/status/01", "/oidc/status/-1", f"{path}.1", f"{path}/", "/oidc/status/", f"/oidc/status/{2**40}", "/oidc/status/x"):  # fmt: skip
        with subtests.test(path=other):
            assert op.ask("GET", other).status == 404
    with subtests.test("a cache may ask whether it has changed"):
        answer = op.ask("GET", path)
        assert op.ask("GET", path, headers={"If-None-Match": answer.headers["etag"]}).status == 304
    with subtests.test("HEAD"):
        assert op.ask("HEAD", path).status == 200
    with subtests.test("a preflight"):
        headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}
        assert op.ask("OPTIONS", path, headers=headers).headers["access-control-allow-origin"] == "*"
    with subtests.test("nothing else"):
        assert op.ask("POST", path).status == 405


def test_without_the_setting_there_are_no_lists(serve_provider: ServeProvider) -> None:
    """docs/status-lists.md: tokens name no place, and the path answers 404."""
    op = serve_provider(CLIENTS, PYLON_JWT_AUDIENCE=API, PYLON_JWT_ALG="RS256")
    assert "status" not in unverified_claims(minted(op, op.app.session()))
    assert op.ask("GET", "/oidc/status/1").status == 404


def test_places_are_used_once_whatever_the_number_of_threads(op: Provider) -> None:
    """docs/status-lists.md: Token Status List §4: no two tokens of different sessions have the same place, and a full list is followed by another."""
    store = open_store(op.house.settings)
    lists = [StatusLists(store, enabled=True) for _ in range(2)]
    taken: list[str] = []

    def take(of: StatusLists) -> None:
        mine = [str(of.next_place(now=1)) for _ in range(20_000)]
        taken.extend(mine)

    threads = [threading.Thread(target=take, args=(lists[number % 2],)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(taken)) == 160_000
    assert len({each.partition(".")[0] for each in taken}) == 4
    store.close()


def test_the_setting_needs_a_key(serve_provider: ServeProvider) -> None:
    """docs/status-lists.md: a list is signed with an asymmetric key."""
    with pytest.raises(Exception, match=r"PYLON_STATUS_LIST.*asymmetric"):
        serve_provider((), PYLON_STATUS_LIST="1", PYLON_OIDC_PRIVATE_KEY=None, PYLON_JWT_SECRET=JWT_SECRET)
