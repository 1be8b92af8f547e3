"""Tokens of policies at stock verifiers: what each API takes is what the policy file says, and nothing else.

Spec: RFC 9068 §4
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.flows.test_js_clients import run_node
from tests.support.gunicorn import ADMIN, SECRET, Gunicorn, rsa_pem

API, OTHER, NEXT = "https://api.example.com", "https://other.example.com", "https://next.example.com/v1"
MACHINE = SECRET[::-1]
POLICIES = f"""
[default]
alg = "RS256"

[audience."{API}"]
grants = ["mint", "client_credentials"]
scopes = ["read", "write"]
claims = ["roles"]
rename = {{ roles = "groups" }}

[audience."{OTHER}"]

[audience."{NEXT}"]
grants = ["token_exchange"]
scopes = ["orders:read", "orders:write"]
exchange_scopes = ["orders:read"]

[audience.legacy]
alg = "HS256"
secret_env = "LEGACY_SECRET"
"""


def test_a_stock_api_takes_the_access_token_and_no_other(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """openid-client gets a token by client_credentials; oauth4webapi takes it, and refuses what is like it."""
    (tmp_path / "policies.toml").write_text(POLICIES)
    machine = {"client_id": "nightly", "client_secret": MACHINE, "grant_types": ["client_credentials"]}
    gateway = {
        "client_id": "gateway",
        "client_secret": MACHINE,
        "grant_types": ["urn:ietf:params:oauth:grant-type:token-exchange"],
        "resource_ids": [API],
    }
    settings: dict[str, Any] = {
        "PYLON_POLICIES": str(tmp_path / "policies.toml"),
        "PYLON_OIDC_ISSUER": "http://localhost:{port}/id",
        "PYLON_OIDC_PRIVATE_KEY": rsa_pem(),
        "PYLON_ADMIN_TOKEN": ADMIN,
        "PYLON_LOGIN_URL": "https://app.example.com/sign-in",
        "PYLON_OIDC_CLIENTS": json.dumps([machine, gateway]),
        "LEGACY_SECRET": "7d1c0a5f9be34826b0c6e5d4f3a2918c",
    }
    with Gunicorn(**settings) as server:
        issuer = server.origin + server.issuer_path
        session = server.sign_in("ada", roles=["admin"])

        def mint(audience: str) -> str:
            headers = {"Authorization": f"Bearer {session}", "Content-Type": "application/json"}
            body = json.dumps({"audience": audience}).encode()
            answer = server.call("POST", f"{server.issuer_path}/api/auth/jwt", headers=headers, body=body)
            assert answer.status == 200, answer.body
            return str(answer.json()["token"])

        minted = mint(API)
        now = int(time.time())
        claims = {
            "iss": issuer,
            "aud": API,
            "sub": "nightly",
            "client_id": "nightly",
            "jti": "x",
            "iat": now,
            "exp": now + 60,
        }
        public = server.call("GET", f"{server.issuer_path}/oidc/jwks").json()["keys"][0]
        others = {
            "a minted token of the same audience": minted,
            "a minted token of another audience": mint(OTHER),
            "a token by a shared secret": jwt.encode(claims, settings["LEGACY_SECRET"], "HS256", {"typ": "at+jwt"}),
            "a forgery by the public key": jwt.encode(claims, public["n"], "HS256", {"typ": "at+jwt", "kid": public["kid"]}),
            "a stranger's signature": jwt.encode(claims, rsa_pem(number=1), "RS256", {"typ": "at+jwt", "kid": public["kid"]}),
        }  # fmt: skip
        stdin = json.dumps({"secret": MACHINE, "others": others})
        done = run_node("access_token.mjs", issuer, "nightly", API, "read", stdin=stdin)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        with subtests.test("taken"):
            assert (
                told["claims"].items()
                >= {
                    "iss": issuer,
                    "aud": API,
                    "sub": "nightly",
                    "client_id": "nightly",
                    "scope": "read",
                }.items()
            )
            assert told["scope"] == "read"
        with subtests.test("refused"):
            assert told["taken"] == []
        with subtests.test("exchanged for another API's"):
            _check_exchange(issuer, minted, others)
        with subtests.test("PyJWT takes the minted one"):
            key = jwt.PyJWK(public).key
            decoded = jwt.decode(minted, key, algorithms=["RS256"], audience=API, issuer=issuer)
            assert decoded["groups"] == ["admin"]
            with pytest.raises(jwt.InvalidAudienceError):
                jwt.decode(minted, key, algorithms=["RS256"], audience=OTHER, issuer=issuer)


def _check_exchange(issuer: str, minted: str, others: dict[str, str]) -> None:
    """RFC 8693: a gateway of its API gets a narrower one of the next; what it does not serve, or is forged, is refused."""
    shown: dict[str, dict[str, str]] = {"minted": {"token": minted, "type": "access_token"}}
    shown["wider"] = shown["minted"] | {"scope": "orders:write"}
    shown |= {name: {"token": token, "type": "jwt"} for name, token in others.items() if token != minted}
    stdin = json.dumps({"secret": MACHINE, "tokens": shown})
    done = run_node("exchange.mjs", issuer, "gateway", NEXT, stdin=stdin)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    given = told.pop("minted")
    assert (given["scope"], given["type"]) == (
        "orders:read",
        "urn:ietf:params:oauth:token-type:access_token",
    )
    expected = {"iss": issuer, "aud": NEXT, "sub": "ada", "client_id": "gateway", "act": {"sub": "gateway"}}
    assert given["claims"].items() >= expected.items()
    assert told.pop("wider") == {"error": "invalid_scope"}
    assert set(map(json.dumps, told.values())) == {'{"error": "invalid_request"}'}, told
