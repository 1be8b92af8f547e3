"""Clients that others wrote sign a user in through us: npm's openid-client, and Authlib's."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest
import requests
from authlib.common.errors import AuthlibBaseError
from authlib.common.security import generate_token
from authlib.integrations.requests_client import OAuth2Session
from joserfc.jwk import ECKey, OKPKey, RSAKey

from tests.flows.provider_setup import Provider, Visitor, client_metadata, fresh_database
from tests.outbound.attacking import Answering, Attacker, ok
from tests.support.app import App, query_of, with_query
from tests.support.gunicorn import PROJECT, clean_environment

JS = PROJECT / "tests" / "js"
SECRET = "a-secret-of-the-clients-that-others-wrote"
#: A client for each way to authenticate, named after it.
METHODS = ("client_secret_basic", "client_secret_post", "none")
#: A client for each algorithm that openid-client signs with, named after it.
KEYS = {
    "PS256": RSAKey.generate_key(2048, private=True),
    "ES256": ECKey.generate_key("P-256", private=True),
    "Ed25519": OKPKey.generate_key("Ed25519", private=True),
}
SCOPE = "openid profile email offline_access"


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def provider(request: pytest.FixtureRequest) -> Iterator[Provider]:
    """A provider of two workers."""
    with (
        fresh_database(request, request.param) as url,
        Provider(url, clients=_clients, PYLON_OIDC_REGISTRATION="open") as running,
    ):
        yield running


def _clients(origin: str) -> list[dict[str, Any]]:
    with_keys = [
        client_metadata(
            alg,
            None,
            origin,
            token_endpoint_auth_method="private_key_jwt",
            token_endpoint_auth_signing_alg=alg,
            jwks={"keys": [key.as_dict(private=False) | {"kid": alg, "alg": alg}]},
        )
        for alg, key in KEYS.items()
    ]
    return with_keys + [
        client_metadata(
            method, None if method == "none" else SECRET, origin, token_endpoint_auth_method=method
        )
        for method in METHODS
    ]


def _secret(method: str) -> str | None:
    return None if method == "none" or method in KEYS else SECRET


def find_node() -> str:
    """The Node that the packages of `tests/js` bring, or the one on PATH."""
    own = next(JS.glob("node_modules/node-linux-*/bin/node"), None)
    node = str(own) if own else shutil.which("node")
    assert node, "no Node here: run tests/js/install"
    return node


def agreed(visitor: Visitor, url: str) -> str:
    """Agree on the consent page at an address; where the browser goes then."""
    page = visitor.open(url)
    token = page.text.partition('name="form_token" value="')[2].partition('"')[0]
    form = {"form_token": token, "decision": "allow"}
    answer = visitor.http.post(page.url, data=form, allow_redirects=False, timeout=20)
    assert answer.is_redirect, page.text
    return answer.headers["Location"]


def openid_client(provider: Provider, visitor: Visitor, user_id: str, method: str) -> dict[str, Any]:
    """Let openid-client go through the flow; what it did."""
    asked: dict[str, Any] = {
        "issuer": provider.issuer,
        "client_id": method,
        "client_secret": _secret(method),
        "method": "private_key_jwt" if method in KEYS else method,
        "private_jwk": KEYS[method].as_dict(private=True) | {"alg": method, "kid": method}
        if method in KEYS
        else None,
        "redirect_uri": provider.party.redirect_uri,
        "post_logout_redirect_uri": f"{provider.party.origin}/out",
    }
    return run_flow("code_flow.mjs", asked, provider, visitor, user_id)


def run_flow(
    script: str,
    asked: dict[str, Any],
    provider: Provider,
    visitor: Visitor,
    user_id: str,
    *,
    asks: bool = False,
) -> dict[str, Any]:
    """Run a script of openid-client's, and be its browser; what it did.

    Args:
        script: Name of the file.
        asked: Its argument.
        provider: Whom it signs a user in with.
        visitor: The browser.
        user_id: Who signs in.
        asks: Whether the user is asked for consent.
    """
    process = subprocess.Popen(
        [find_node(), JS / script, json.dumps(asked)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(http_proxy=None, https_proxy=None, HTTP_PROXY=None, HTTPS_PROXY=None),
    )
    try:
        assert process.stdout is not None
        begun = process.stdout.readline().strip()
        assert begun, process.communicate(timeout=90)[1]
        signed_in = provider.app.login(visitor.begin(begun), user_id)
        came_back = visitor.follow(
            agreed(visitor, signed_in) if asks else signed_in, provider.party.redirect_uri
        )
        output, errors = process.communicate(f"{came_back}\n", timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    done: dict[str, Any] = json.loads(output)
    return done


@pytest.mark.parametrize("method", [*METHODS, *KEYS])
def test_openid_client_completes_the_code_flow(provider: Provider, method: str) -> None:
    """Discovery, PKCE, ID token, userinfo, refresh, introspection, revocation and logout, by each authentication."""
    user_id, visitor = f"node-{method}", Visitor(provider)
    done = openid_client(provider, visitor, user_id, method)
    assert done["claims"]["sub"] == done["userinfo"]["sub"] == user_id
    assert done["userinfo"]["email"] == "ada@example.com"
    assert done["rotated"] is True
    assert (done["activeBefore"], done["activeAfter"]) == (
        (None, None) if method == "none" else (True, False)
    )
    out = f"{provider.party.origin}/out"
    assert query_of(visitor.follow(done["endSessionUrl"], out)) == {"state": "bye"}
    assert provider.app.sessions(user_id) == []


def test_openid_client_registers_itself(provider: Provider) -> None:
    """Nothing configured but the issuer: it registers, signs a user in, reads, changes and removes its registration."""
    metadata = {"redirect_uris": [provider.party.redirect_uri], "client_name": "Registered by Node"}
    asked = {
        "issuer": provider.issuer,
        "metadata": metadata,
        "redirect_uri": provider.party.redirect_uri,
        "another_redirect_uri": "https://elsewhere.example/callback",
    }
    visitor = Visitor(provider)
    done = run_flow("register.mjs", asked, provider, visitor, "node-stranger", asks=True)
    information = done["information"]
    assert done["claims"]["aud"] == information["client_id"]
    assert done["claims"]["sub"] == done["userinfo"]["sub"] == "node-stranger"
    assert done["read"]["status"] == 200 and done["read"]["body"]["client_name"] == "Registered by Node"
    assert done["changed"]["status"] == 200
    assert done["changed"]["body"]["redirect_uris"] == [asked["another_redirect_uri"]]
    assert done["removed"] == {"status": 204, "body": None}
    assert done["afterwards"] == 401


def test_processes_use_an_assertion_once(provider: Provider) -> None:
    """The same assertion 12 times at once, over two workers and the database that they share: it counts once."""
    now = int(time.time())
    claims = {"iss": "ES256", "sub": "ES256", "aud": provider.issuer, "jti": f"race-{now}", "exp": now + 60}
    form = {
        "token": "x",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": jwt.encode(
            claims, KEYS["ES256"].as_pem(private=True), "ES256", headers={"kid": "ES256"}
        ),
    }

    def ask(_number: int) -> int:
        return requests.post(f"{provider.issuer}/oidc/introspect", data=form, timeout=20).status_code

    with ThreadPoolExecutor(12) as pool:
        assert sorted(pool.map(ask, range(12))) == [200] + [401] * 11


def test_processes_ask_a_url_of_keys_once(request: pytest.FixtureRequest) -> None:
    """Two workers and a database: 12 requests at once ask the URL once, and unknown keys do not make them ask again."""
    keys = {"keys": [KEYS["ES256"].as_dict(private=False) | {"kid": "first"}]}

    def serve(wire: socket.socket) -> None:
        time.sleep(0.3)
        Answering(ok(json.dumps(keys).encode()))(wire)

    def ask(kid: str) -> int:
        claims = {"iss": "keys", "sub": "keys", "aud": running.issuer, "jti": secrets.token_hex(8)}
        signed = jwt.encode(
            claims | {"exp": int(time.time()) + 60},
            KEYS["ES256"].as_pem(private=True),
            "ES256",
            headers={"kid": kid},
        )
        form = {
            "token": "x",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": signed,
        }
        return requests.post(f"{running.issuer}/oidc/introspect", data=form, timeout=20).status_code

    with Attacker(serve) as server, fresh_database(request, "postgres") as url:
        uri = f"http://127.0.0.1:{server.port}/jwks"

        def clients(origin: str) -> list[dict[str, Any]]:
            return [
                client_metadata(
                    "keys", None, origin, token_endpoint_auth_method="private_key_jwt", jwks_uri=uri
                )
            ]

        with (
            Provider(url, clients=clients, PYLON_OUTBOUND_ALLOW="127.0.0.1") as running,
            ThreadPoolExecutor(12) as pool,
        ):
            assert list(pool.map(ask, ["first"] * 12)) == [200] * 12
            assert server.met == 1
            assert list(pool.map(ask, ["unknown"] * 12)) == [401] * 12
            assert server.met == 1  # asked a moment ago


class Authlib:
    """Authlib's client in front of the provider, as its documentation has it."""

    def __init__(self, provider: Provider, method: str) -> None:
        self.provider, self.visitor = provider, Visitor(provider)
        self.metadata = provider.party.get("/.well-known/openid-configuration").json()
        self.client = OAuth2Session(
            method,
            _secret(method),
            token_endpoint_auth_method=method,
            revocation_endpoint_auth_method=method,
            scope=SCOPE,
            redirect_uri=provider.party.redirect_uri,
            code_challenge_method="S256",
            token_endpoint=self.metadata["token_endpoint"],
        )
        self.client.trust_env = False

    def sign_in(self, user_id: str) -> dict[str, Any]:
        """Go through the flow; the tokens."""
        verifier, nonce = generate_token(48), generate_token()
        url, state = self.client.create_authorization_url(
            self.metadata["authorization_endpoint"], code_verifier=verifier, nonce=nonce
        )
        redirect_to = self.provider.app.login(self.visitor.begin(url), user_id)
        came_back = self.visitor.follow(redirect_to, self.provider.party.redirect_uri)
        tokens: dict[str, Any] = self.client.fetch_token(
            authorization_response=came_back, state=state, code_verifier=verifier
        )
        claims = jwt.decode(tokens["id_token"], options={"verify_signature": False})
        assert (claims["sub"], claims["nonce"]) == (user_id, nonce)
        return tokens


@pytest.mark.parametrize("method", METHODS)
def test_authlib_completes_the_code_flow(provider: Provider, method: str) -> None:
    """PKCE, ID token, userinfo, refresh, introspection and revocation, by each authentication."""
    user_id, authlib = f"authlib-{method}", Authlib(provider, method)
    client, metadata = authlib.client, authlib.metadata
    first = authlib.sign_in(user_id)
    assert client.get(metadata["userinfo_endpoint"]).json()["sub"] == user_id
    second = client.refresh_token()
    assert second["refresh_token"] != first["refresh_token"]
    told = client.introspect_token(metadata["introspection_endpoint"], token=second["access_token"])
    assert told.json().get("active") is (None if method == "none" else True)
    revoked = client.revoke_token(metadata["revocation_endpoint"], token=second["refresh_token"])
    assert revoked.status_code == 200
    assert client.get(metadata["userinfo_endpoint"]).status_code == 401


def test_authlib_lets_a_device_in(provider: Provider) -> None:
    """RFC 8628 §3.4: the tokens of a device, with a secret by Basic; its errors reach the program by name."""
    grant = "urn:ietf:params:oauth:grant-type:device_code"
    made = provider.app.call("POST", "/api/oidc/clients", {"client_id": "screen", "grant_types": [grant]})
    metadata = requests.get(f"{provider.issuer}/.well-known/openid-configuration", timeout=20).json()
    visitor = Visitor(provider)
    with OAuth2Session("screen", made["client_secret"], scope="openid") as program:
        codes = requests.post(
            metadata["device_authorization_endpoint"],
            data={"scope": "openid"},
            auth=("screen", made["client_secret"]),
            timeout=20,
        ).json()
        asked = {"grant_type": grant, "device_code": codes["device_code"]}
        with pytest.raises(AuthlibBaseError, match="authorization_pending"):
            program.fetch_token(metadata["token_endpoint"], **asked)
        waiting = visitor.begin(codes["verification_uri_complete"])
        page = visitor.open(provider.app.login(waiting, "viewer"))
        form = dict(re.findall(r'name="(form_token)" value="([^"]+)"', page.text))
        visitor.http.post(page.url, data=form | {"decision": "allow"}, timeout=20)
        tokens = program.fetch_token(metadata["token_endpoint"], **asked)
        assert program.get(metadata["userinfo_endpoint"]).json()["sub"] == "viewer"
    assert "id_token" in tokens


@pytest.mark.parametrize("method", METHODS)
def test_authlib_signs_its_user_out(provider: Provider, method: str) -> None:
    """The end-session URL with the ID token as the hint ends the session and comes back."""
    user_id, authlib = f"leaving-{method}", Authlib(provider, method)
    hint, out = authlib.sign_in(user_id)["id_token"], f"{provider.party.origin}/out"
    asked = {"id_token_hint": hint, "post_logout_redirect_uri": out, "state": "bye"}
    url = with_query(authlib.metadata["end_session_endpoint"], asked)
    assert query_of(authlib.visitor.follow(url, out)) == {"state": "bye"}
    assert provider.app.sessions(user_id) == []


def test_a_client_of_one_method_is_refused_by_another(provider: Provider) -> None:
    """A client that names `client_secret_post` may not come by `Basic` (RFC 7591 §2)."""
    authlib = Authlib(provider, "client_secret_post")
    authlib.client.token_endpoint_auth_method = "client_secret_basic"
    with pytest.raises(Exception, match="invalid_client"):
        authlib.sign_in("nobody")


def test_the_app_reads_what_its_page_should_show(provider: Provider) -> None:
    """The backend learns who asks for what, before it signs anybody in."""
    app: App = provider.app
    url = with_query(
        f"{provider.issuer}/oidc/authorize",
        provider.party.authorization("none", login_hint="ada", acr_values="high", max_age="60")[1],
    )
    shown = app.interaction(Visitor(provider).begin(url))
    assert shown["client"]["client_name"] == "The none client"
    expected = {"login_hint": "ada", "acr_values": "high", "max_age": 60, "scope": SCOPE, "step": "login"}
    assert shown.items() >= expected.items()
