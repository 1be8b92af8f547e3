"""What "How to add" of docs/architecture.md promises: how little there is to touch, shown with what is made up."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.gunicorn import ADMIN, PROJECT, SECRET, clean_environment, rsa_pem

GRANT_TYPE = '''
"""`urn:example:made-up`: a token for anyone who asks."""

from __future__ import annotations

from typing import Any, Final

from service.protocol.grants.base import GrantType, TokenRequest
from service.protocol.grants.issuing import Issuing


def exchange(request: TokenRequest, issuing: Issuing) -> dict[str, Any]:
    return {"access_token": f"for {request.client.client_id}", "token_type": "made-up"}


TYPE: Final = GrantType("urn:example:made-up", given_by_default=False, needs_id_token_key=False, exchange=exchange)
'''
ASK_FOR_TOKENS = """
import json, time
from falcon.testing import TestClient
from service.app import create_app
from service.startup import prepare

prepared = prepare(clock=time.time)
client = TestClient(create_app(prepared.settings, prepared.store, prepared.keyring))
discovery = client.simulate_get("/.well-known/openid-configuration").json
assert "urn:example:made-up" in discovery["grant_types_supported"], discovery
answers = []
for who in ("may", "may-not"):
    form = f"grant_type=urn:example:made-up&client_id={who}&client_secret=SECRET"
    answers.append(client.simulate_post("/oidc/token", body=form, headers={"Content-Type": "application/x-www-form-urlencoded"}).json)
print(json.dumps(answers))
"""
CLIENTS = """[
    {"client_id": "may", "client_secret": "SECRET", "redirect_uris": [], "grant_types": ["urn:example:made-up"]},
    {"client_id": "may-not", "client_secret": "SECRET", "redirect_uris": ["https://a.example/cb"]}
]"""
LISTENER = '''
def into_a_file(event: Event) -> None:
    """A made-up listener."""
    with open("heard", "a") as file:
        file.write(f"{event.name} {event.subject} {event.request_id}\\n")


'''
SIGN_IN = """
import time
from falcon.testing import TestClient
from service.app import create_app
from service.startup import prepare

prepared = prepare(clock=time.time)
client = TestClient(create_app(prepared.settings, prepared.store, prepared.keyring))
headers = {"Authorization": "Bearer ADMIN", "X-Request-Id": "of-the-sign-in"}
answer = client.simulate_post("/api/auth/session", headers=headers, json={"user_id": "ada"})
assert answer.status_code == 201, answer.text
"""
#: As it would be written; no deployment needs it.
ALGORITHM = 'Algorithm("ES384", "EC", "P-384", hashlib.sha384, _make_on(ec.SECP384R1), _is_on(ec.SECP384R1)),'
ASK_OF_KEYS = """
import json, time
from falcon.testing import TestClient
from service.app import create_app
from service.keys.algorithms import ASYMMETRIC_ALGS
from service.keys.material import generate_key, load_private_pem
from service.keys.signing import verifies_by_jwk
from service.protocol.id_tokens import half_hash
from service.startup import prepare

last = ASYMMETRIC_ALGS[-1]
prepared = prepare(clock=time.time)
client = TestClient(create_app(prepared.settings, prepared.store, prepared.keyring))
headers = {"Authorization": "Bearer ADMIN"}
session = client.simulate_post("/api/auth/session", headers=headers, json={"user_id": "ada"}).json["token"]
minted = client.simulate_post("/api/auth/jwt", headers={"Authorization": f"Bearer {session}"}).json
keys = client.simulate_get("/oidc/jwks").json["keys"]
metadata = client.simulate_get("/.well-known/openid-configuration").json
by = next(key for key in keys if key["alg"] == last)
again = load_private_pem(generate_key(last).as_pem(private=True).decode(), None)
print(json.dumps({
    "published": [{name: key[name] for name in ("kty", "crv", "alg") if name in key} for key in keys],
    "private": [key["kid"] for key in keys if {"d", "k", "p", "q"} & key.keys()],
    "named": metadata["id_token_signing_alg_values_supported"],
    "verifies": verifies_by_jwk(minted["token"], by, alg=last),
    "at_hash": len(half_hash("a token", alg=last)),
    "imported": again[1],
}))
"""


def _copied(folder: Path) -> Path:
    """The service, to be changed."""
    copy = folder / "service"
    shutil.copytree(PROJECT / "service", copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1, f"{file.name} has {text.count(old)} times {old}"
    file.write_text(text.replace(old, new))


def _run(code: str, folder: Path, **settings: str) -> str:
    """What a program prints that has the changed service."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=clean_environment(
            PYLON_DATA_DIR=str(folder / "data"), PYLON_OIDC_ISSUER="https://id.example.com", **settings
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _of_keys(folder: Path, algs: str) -> dict[str, Any]:
    """What a provider with managed keys of all those algorithms says of itself."""
    said = _run(
        ASK_OF_KEYS.replace("ADMIN", ADMIN),
        folder,
        PYLON_OIDC_KEYS="managed",
        PYLON_KEY_ENCRYPTION_KEY="MDEyMzQ1Njc4OWFiY2RlZkZFRENCQTk4NzY1NDMyMTA=",
        PYLON_OIDC_ALGS=algs,
        PYLON_JWT_ALG=algs.rpartition(",")[2],
        PYLON_JWT_AUDIENCE="app",
        PYLON_ADMIN_TOKEN=ADMIN,
    )
    told: dict[str, Any] = json.loads(said.splitlines()[-1])
    return told


def test_a_made_up_algorithm_is_a_row(tmp_path: Path) -> None:
    """With the row it is a setting, its keys are made, sealed, published and named, and tokens are signed by it."""
    table = _copied(tmp_path) / "keys/algorithms.py"
    before = _of_keys(tmp_path, "RS256,PS256,ES256,Ed25519")
    rows = table.read_text().partition("_TABLE: Final = (\n")[2].partition("\n)\n")[0]
    _replace(table, rows, f"{rows}\n    {ALGORITHM}")
    shutil.rmtree(tmp_path / "data")
    after = _of_keys(tmp_path, "RS256,PS256,ES256,Ed25519,ES384")
    assert before["named"] == ["RS256", "PS256", "ES256", "Ed25519"]
    assert after["named"] == [*before["named"], "ES384"]
    key = {"kty": "EC", "crv": "P-384", "alg": "ES384"}
    assert after["published"] == [*before["published"], key, key]  # that of now and the next
    assert before["private"] == after["private"] == []
    assert before["verifies"] and after["verifies"]
    assert (before["at_hash"], after["at_hash"]) == (43, 32)  # the left halves of SHA-512 and SHA-384
    assert (before["imported"], after["imported"]) == ("Ed25519", "ES384")


def test_a_made_up_listener_is_a_function_and_its_name_in_one_file(tmp_path: Path) -> None:
    """It hears what happens, with the request in which it did."""
    events = _copied(tmp_path) / "events.py"
    _replace(events, "#: All listeners.", f"{LISTENER}#: All that hear of what happens:")
    _replace(events, "= (into_log,)", "= (into_log, into_a_file)")
    _run(SIGN_IN.replace("ADMIN", ADMIN), tmp_path, PYLON_JWT_SECRET=SECRET, PYLON_ADMIN_TOKEN=ADMIN)
    assert (tmp_path / "heard").read_text() == "signed_in ada of-the-sign-in\n"


def test_a_made_up_grant_type_is_a_file_and_a_row(tmp_path: Path) -> None:
    """RFC 6749 §4.5: discovery, the metadata of clients and the token endpoint know it; nobody has it who did not ask."""
    grants = _copied(tmp_path) / "protocol/grants"
    (grants / "made_up.py").write_text(GRANT_TYPE)
    table = grants / "__init__.py"
    _replace(
        table,
        "    token_exchange.TYPE,\n)",
        "    token_exchange.TYPE,\n    made_up.TYPE,\n)",
    )
    _replace(table, "    token_exchange,\n)", "    token_exchange,\n    made_up,\n)")
    said = _run(
        ASK_FOR_TOKENS.replace("SECRET", SECRET),
        tmp_path,
        PYLON_OIDC_PRIVATE_KEY=rsa_pem(),
        PYLON_LOGIN_URL="https://app.example.com/sign-in",
        PYLON_OIDC_CLIENTS=CLIENTS.replace("SECRET", SECRET),
    )
    assert '[{"access_token": "for may", "token_type": "made-up"}' in said, said
    assert '"error": "unauthorized_client"' in said, said
