"""Clients that others wrote, in another language, take our discovery, keys and tokens."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest

from tests.support.gunicorn import ADMIN, Gunicorn, rsa_pem

JS = Path(__file__).resolve().parents[1] / "js"
AUDIENCE = "api"


def run_node(script: str, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run one of the scripts with the Node that the packages bring, or with the one on PATH.

    Args:
        script: Name of the file.
        argv: Its arguments.
        stdin: What it reads.

    Returns:
        Its exit code and what it printed.
    """
    # Not by node_modules/.bin: npm 9, which is Debian's, puts no link there.
    own = next(JS.glob("node_modules/node-linux-*/bin/node"), None)
    node = str(own) if own else shutil.which("node")
    assert node, "no Node here: run tests/js/install"
    direct = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return subprocess.run(
        [node, JS / script, *argv],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=direct,
    )


def verify(issuer: str, audience: str, token: str) -> tuple[int, Any]:
    """Have `jose` verify a token through the issuer's discovery and JWKS.

    Args:
        issuer: Whom the verifier trusts.
        audience: Who the verifier is.
        token: The token.

    Returns:
        The exit code, and the verified parts or the first word of the error.
    """
    done = run_node("verify.mjs", issuer, audience, stdin=token)
    return done.returncode, json.loads(done.stdout) if done.returncode == 0 else done.stderr.split()[0]


@pytest.fixture(scope="module", params=["derived", "configured"])
def provider(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    """A provider that signs by RS256.

    Its issuer comes from `Host`, and its key from a file that it made itself; or its issuer is configured, with a
    path, and its key comes from the environment.
    """
    settings: dict[str, Any] = {
        "PYLON_JWT_ALG": "RS256",
        "PYLON_JWT_AUDIENCE": AUDIENCE,
        "PYLON_ADMIN_TOKEN": ADMIN,
    }
    if request.param == "derived":
        key_path = tmp_path_factory.mktemp("keys") / "signing.pem"
        settings |= {"PYLON_DEV_MODE": "1", "PYLON_OIDC_KEY_PATH": str(key_path)}
    else:
        settings |= {"PYLON_OIDC_ISSUER": "http://localhost:{port}/id", "PYLON_OIDC_PRIVATE_KEY": rsa_pem()}
    with Gunicorn(**settings) as server:
        yield server


@pytest.fixture
def issuer(provider: Gunicorn) -> str:
    """The issuer that clients are given."""
    return provider.origin + provider.issuer_path


@pytest.fixture
def signing_pem(provider: Gunicorn) -> str:
    """The private key that the provider signs with."""
    path = provider.environment.get("PYLON_OIDC_KEY_PATH")
    return Path(path).read_text() if path else rsa_pem()


@pytest.fixture
def token(provider: Gunicorn, issuer: str) -> str:
    """A token minted over the address that is the issuer."""
    session = provider.sign_in("alice", tenant_id="acme", roles=["admin"])
    answer = provider.call(
        "POST",
        f"{provider.issuer_path}/api/auth/jwt",
        host=urlsplit(issuer).netloc,
        headers={"Authorization": f"Bearer {session}"},
    )
    assert answer.status == 200, answer.body
    minted = answer.json()["token"]
    assert isinstance(minted, str)
    return minted


def test_openid_client_discovers_the_issuer(issuer: str) -> None:
    """`openid-client` accepts the discovery document, whose issuer is byte for byte the one it asked for."""
    done = run_node("discover.mjs", issuer)
    assert done.returncode == 0, done.stderr
    metadata = json.loads(done.stdout)
    assert metadata["issuer"] == issuer
    assert metadata["jwks_uri"] == f"{issuer}/oidc/jwks"
    assert "RS256" in metadata["id_token_signing_alg_values_supported"]


def test_jose_verifies_a_minted_token(provider: Gunicorn, issuer: str, token: str) -> None:
    """`jose` finds the key by its kid in the remote JWKS, and verifies signature, issuer and audience."""
    code, verified = verify(issuer, AUDIENCE, token)
    assert code == 0, verified
    assert verified["protectedHeader"].items() >= {"alg": "RS256", "typ": "JWT"}.items()
    keys = provider.call("GET", f"{provider.issuer_path}/oidc/jwks").json()["keys"]
    assert [key["kid"] for key in keys] == [verified["protectedHeader"]["kid"]]
    payload = verified["payload"]
    assert payload["iss"] == issuer
    assert (payload["sub"], payload["aud"]) == ("alice", AUDIENCE)
    assert (payload["tenant_id"], payload["roles"]) == ("acme", ["admin"])


def test_jose_refuses_another_audience(issuer: str, token: str) -> None:
    """A token for one service is refused by another."""
    assert verify(issuer, "billing", token) == (1, "ERR_JWT_CLAIM_VALIDATION_FAILED")


def test_jose_refuses_another_issuer(gunicorn: Callable[..., Gunicorn], token: str, signing_pem: str) -> None:
    """A verifier that trusts another issuer refuses the token, although that one publishes the same key."""
    other = gunicorn(PYLON_DEV_MODE="1", PYLON_JWT_ALG="RS256", PYLON_OIDC_PRIVATE_KEY=signing_pem)
    assert verify(other.origin, AUDIENCE, token) == (1, "ERR_JWT_CLAIM_VALIDATION_FAILED")


@pytest.mark.parametrize(
    ("claims_kid", "error"),
    [(True, "ERR_JWS_SIGNATURE_VERIFICATION_FAILED"), (False, "ERR_JWKS_NO_MATCHING_KEY")],
)
def test_jose_refuses_a_token_signed_by_another_key(
    issuer: str, token: str, claims_kid: bool, error: str
) -> None:
    """The same claims under a stranger's key fail, with our kid in the header and with another."""
    kid = jwt.get_unverified_header(token)["kid"] if claims_kid else "stranger"
    claims = jwt.decode(token, options={"verify_signature": False})
    forged = jwt.encode(claims, rsa_pem(number=1), algorithm="RS256", headers={"kid": kid})
    assert verify(issuer, AUDIENCE, forged) == (1, error)


def test_jose_refuses_an_expired_token(issuer: str, token: str, signing_pem: str) -> None:
    """A token of the right key whose time is over fails."""
    kid = jwt.get_unverified_header(token)["kid"]
    claims = jwt.decode(token, options={"verify_signature": False})
    claims["exp"] = int(time.time()) - 10
    expired = jwt.encode(claims, signing_pem, algorithm="RS256", headers={"kid": kid})
    assert verify(issuer, AUDIENCE, expired) == (1, "ERR_JWT_EXPIRED")
