"""A provider whose table of algorithms has one row more; run by `test_algorithms`, and prints what it says of itself.

Called with the row, as it would be written into `service/keys/algorithms.py`, or with nothing.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType

from falcon.testing import TestClient

import service.keys

ROW = sys.argv[1] if len(sys.argv) > 1 else ""
TABLE = Path(service.keys.__file__).with_name("algorithms.py")


def _with_the_row() -> None:
    """Import the table as it would be with the row, before anybody else does."""
    module = ModuleType("service.keys.algorithms")
    module.__file__ = str(TABLE)
    sys.modules[module.__name__] = module
    begins = "_TABLE: Final = (\n"
    before, found, after = TABLE.read_text().partition(begins)
    rows, ends, rest = after.partition("\n)\n")
    assert found and ends
    exec(compile(f"{before}{begins}{rows}\n{ROW}{ends}{rest}", TABLE, "exec"), module.__dict__)


def main() -> None:
    """Start it with every algorithm that there is, and ask it."""
    _with_the_row()
    from service.app import create_app
    from service.keys.algorithms import ASYMMETRIC_ALGS
    from service.keys.material import generate_key, load_private_pem
    from service.keys.signing import verifies_by_jwk
    from service.protocol.id_tokens import half_hash
    from service.sessions import LocalSessions
    from service.startup import prepare

    last = ASYMMETRIC_ALGS[-1]
    environ = {
        "PYLON_DATA_DIR": mkdtemp(),
        "PYLON_OIDC_ISSUER": "https://id.example.com",
        "PYLON_OIDC_KEYS": "managed",
        "PYLON_KEY_ENCRYPTION_KEY": "MDEyMzQ1Njc4OWFiY2RlZkZFRENCQTk4NzY1NDMyMTA=",
        "PYLON_OIDC_ALGS": ",".join(ASYMMETRIC_ALGS),
        "PYLON_JWT_ALG": last,
        "PYLON_JWT_AUDIENCE": "app",
        "PYLON_ADMIN_TOKEN": "rlHzDmcL1s9yXg1Kb8cJ7o0wq5n3Tt2E",
    }
    prepared = prepare(environ, clock=time.time)
    client = TestClient(
        create_app(
            prepared.settings, prepared.store, prepared.keyring, LocalSessions(prepared.store, lifetime_s=60)
        )
    )
    admin = {"Authorization": f"Bearer {environ['PYLON_ADMIN_TOKEN']}"}
    session = client.simulate_post("/api/auth/session", headers=admin, json={"user_id": "ada"}).json["token"]
    minted = client.simulate_post("/api/auth/jwt", headers={"Authorization": f"Bearer {session}"}).json
    keys = client.simulate_get("/oidc/jwks").json["keys"]
    metadata = client.simulate_get("/.well-known/openid-configuration").json
    by = next(key for key in keys if key["alg"] == last)
    again = load_private_pem(generate_key(last).as_pem(private=True).decode(), None)
    told = {
        "published": [
            {name: value for name, value in key.items() if name in {"kty", "crv", "alg"}} for key in keys
        ],
        "private": [key["kid"] for key in keys if {"d", "k", "p", "q"} & key.keys()],
        "named": metadata["id_token_signing_alg_values_supported"],
        "verifies": verifies_by_jwk(minted["token"], by, alg=last),
        "at_hash": len(half_hash("a token", alg=last)),
        "imported": again[1],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
