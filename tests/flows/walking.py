"""The walk-through of docs/audiences.md: its files and commands, run with a real server; and what its APIs must refuse."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urljoin

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.docs.recipes import RECIPES, direct_environment, recipe_command
from tests.provider.driver import challenge_of
from tests.support.app import direct, query_of
from tests.support.gunicorn import ADMIN, PROJECT, Gunicorn
from tests.support.stopping import Stoppable

LEGACY: Final = "legacy"
REPORTS: Final = "https://reports.example.com"
PAYMENTS: Final = "https://payments.example.com"
NEW: Final = (REPORTS, PAYMENTS)
ADA: Final[dict[str, Any]] = {"roles": ["admin", "dev"], "tenant_id": "acme"}
_KEK: Final = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
_CALLBACK: Final = "https://dashboard.example.com/callback"
_VERIFIER: Final = "a-code-verifier-of-the-dashboard-0123456789abcdef"
#: What runs a program, and its arguments: a folder and the name of a recipe -> a command.
Command = Callable[[str, Path], list[str]]


def _new_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


class Company(Stoppable):
    """The service of the walk-through, with the page's policies, clients and settings; its ES256 key is known to the test.

    Attributes:
        issuer: where it answers.
        folder: of the files of the page.
        pem: the private key of ES256.
        clients: the secret of each client.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pylon-w-"))
        self.pem, self._http = _new_key(), direct()
        try:
            settings = self._written()
            self.command("migrate", **settings)
            key = self.folder / "es256.pem"
            key.touch(0o600)
            key.write_text(self.pem)
            self.command("keys", "import", str(key), **settings)
            self.server = Gunicorn(**settings)
        except BaseException:
            self.stop()
            raise
        self.issuer = f"http://localhost:{self.server.port}"
        self._settings = {
            name: text.replace("{port}", str(self.server.port)) for name, text in settings.items()
        }

    def _written(self) -> dict[str, str]:
        """The files of the page, saved; and its settings, for this machine."""
        for name in ("three-apis.toml", "three-apis.json"):
            (self.folder / name).write_text(RECIPES[name].code)
        self.legacy_secret = os.urandom(32).hex()
        (self.folder / "legacy.secret").write_text(self.legacy_secret + "\n")
        listed = json.loads(RECIPES["three-apis.json"].code)
        self.clients = {client["client_id"]: client["client_secret"] for client in listed}
        lines = RECIPES["three-apis.env"].code.replace("/etc/pylon-oidc", str(self.folder)).splitlines()
        return dict(line.split("=", 1) for line in lines) | {
            "PYLON_OIDC_ISSUER": "http://localhost:{port}",
            "PYLON_KEY_ENCRYPTION_KEY": _KEK,
            "PYLON_ADMIN_TOKEN": ADMIN,
            "PYLON_DATA_DIR": str(self.folder / "data"),
        }

    def command(self, *arguments: str, **settings: str) -> str:
        """What `pylon-oidc` prints."""
        done = subprocess.run(
            [sys.executable, "-m", "service", *arguments],
            env={**direct_environment(), **{name: text.replace("{port}", "1") for name, text in settings.items()}},
            cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> None:
        """End it."""
        if hasattr(self, "server"):
            self.server.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def look(self) -> str:
        """What the page's look at the file prints."""
        program = self.folder / "bin/pylon-oidc"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m service "$@"\n')
        program.chmod(0o700)
        path = f"{program.parent}:{os.environ['PATH']}"
        return self._shell("three-apis-look.sh", PATH=path, PYTHONPATH=str(PROJECT), **self._settings)

    def ask(self, recipe: str, **variables: str) -> dict[str, Any]:
        """What a `curl` of the page prints."""
        secrets = {f"{client_id.upper()}_SECRET": secret for client_id, secret in self.clients.items()}
        answer: dict[str, Any] = json.loads(self._shell(recipe, ISSUER=self.issuer, **secrets, **variables))
        return answer

    def _shell(self, recipe: str, **variables: str) -> str:
        done = subprocess.run(
            ["/bin/sh", "-euc", RECIPES[recipe].code],
            env={**direct_environment(), **variables},
            cwd=self.folder, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def session(self, **fields: Any) -> str:
        """Ada is signed in at the site; their session's token."""
        return str(self.admin("/api/auth/session", {"user_id": "ada", **ADA, **fields})["token"])

    def minted(self, audience: str, **fields: Any) -> str:
        """A minted token for Ada, who has given a second factor."""
        session = self.session(**{"acr": "mfa", **fields})
        return str(self.ask("mint.sh", SESSION=session, AUDIENCE=audience)["token"])

    def admin(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """What the API answers to the site's backend."""
        headers = {"Authorization": f"Bearer {ADMIN}"}
        answer = self._http.post(self.issuer + path, json=body, headers=headers, timeout=20)
        assert answer.ok, answer.text
        known: dict[str, Any] = answer.json()
        return known

    def signed_in(self, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Ada signs in at the dashboard: what the sign-in page got, and what the code was redeemed for."""
        http = direct()
        landing = self._followed(http, self.authorize_url(), "https://www.example.com/sign-in")
        path = f"/api/oidc/interactions/{query_of(landing)['interaction']}"
        headers = {"Authorization": f"Bearer {ADMIN}"}
        shown = http.get(self.issuer + path, headers=headers, timeout=20).json()
        body = {"user_id": "ada", **ADA, "acr": "mfa", **fields}
        code = query_of(self._followed(http, self.admin(f"{path}/login", body)["redirect_to"], _CALLBACK))[
            "code"
        ]
        return shown, self.ask("redeem.sh", CODE=code, VERIFIER=_VERIFIER)

    def authorize_url(self) -> str:
        """The request of the page, with values of its own for what it leaves out."""
        text = re.sub(r"\n\s*", "", RECIPES["authorize.txt"].code).replace(
            "https://id.example.com", self.issuer
        )
        own = {"state": "s" * 22, "nonce": "n" * 22, "code_challenge": challenge_of(_VERIFIER)}
        address, _, query = text.partition("?")
        pairs = [(name, own.pop(name) if value == "…" else value) for name, value in parse_qsl(query)]
        assert not own, "the page leaves out something else"
        return f"{address}?{urlencode(pairs)}"

    def _followed(self, http: Any, url: str, stop: str) -> str:
        for _ in range(10):
            if url.startswith(stop):
                return url
            answer = http.get(url, allow_redirects=False, timeout=20)
            assert answer.is_redirect, (url, answer.status_code, answer.text)
            url = urljoin(url, answer.headers["Location"])
        raise AssertionError(f"redirects without an end, at {url}")

    # --- what is not for an API ---

    def of_another_kind(self, audience: str, token: str, id_token: str) -> dict[str, str]:
        """Tokens that an API has to refuse, made of one that it takes.

        Args:
            audience: of the API.
            token: one that it takes.
            id_token: of a client.
        """
        header, claims = jwt.get_unverified_header(token), unverified(token)
        old, now = audience == LEGACY, int(time.time())
        kid = {"kid": header["kid"]} if "kid" in header else {}
        key, alg = (self.legacy_secret, "HS256") if old else (self.pem, "ES256")
        public = json.dumps(jwt.algorithms.ECAlgorithm.to_jwk(_public(self.pem)))
        others = [name for name in (LEGACY, REPORTS, PAYMENTS) if name != audience]

        def signed(*, typ: str = header["typ"], **changes: Any) -> str:
            changed = {name: value for name, value in (claims | changes).items() if value is not None}
            return jwt.encode(changed, key, alg, {**kid, "typ": typ})

        return {
            **{f"a token for {other}": self.minted(other) for other in others},
            "an ID token": id_token,
            "another aud, same signature": signed(aud="https://other.example.com"),
            "no aud": signed(aud=None),
            "another typ": signed(typ="at+jwt" if old else "JWT"),
            "the typ of a logout token": signed(typ="logout+jwt"),
            "another iss": signed(iss=self.issuer + "/"),
            "no iss": signed(iss=None),
            "expired": signed(iat=now - 900, exp=now - 120),
            "no exp": signed(exp=None),
            "a forged signature": token[:-6] + ("AAAAAA" if token[-6:] != "AAAAAA" else "BBBBBB"),
            "another key under our kid": jwt.encode(
                claims, self.legacy_secret[::-1] if old else _new_key(), alg, {**kid, "typ": header["typ"]}
            ),
            "a key that nobody published": jwt.encode(claims, _new_key(), "ES256", {"kid": "x", "typ": header["typ"]}),
            "an HMAC under the public key": jwt.encode(claims, public, "HS256", {**kid, "typ": header["typ"]}),
            "an HMAC under the secret of another": jwt.encode(
                claims, self.legacy_secret[::-1] if old else self.legacy_secret, "HS256", {**kid, "typ": header["typ"]}
            ),
            "no signature": jwt.encode(claims, None, "none", {**kid, "typ": header["typ"]}),
            "no token": "x.y.z",
        }  # fmt: skip


def _public(pem: str) -> Any:
    return serialization.load_pem_private_key(pem.encode(), None).public_key()


def unverified(token: str) -> dict[str, Any]:
    """The claims of a token that nobody checks."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def told_by(
    company: Company, recipe: str, audience: str, tokens: list[str], command: Command = recipe_command
) -> list[str]:
    """What a program of the page prints, a line for each token."""
    environment = {"ISSUER": company.issuer, "AUDIENCE": audience, "LEGACY_SECRET": company.legacy_secret}
    done = subprocess.run(
        [*command(recipe, company.folder), *tokens],
        env={**direct_environment(), **environment},
        cwd=company.folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(tokens), done.stdout
    return lines


def check_program(company: Company, recipe: str, command: Command = recipe_command) -> dict[str, list[str]]:
    """Have a program of the page verify what it is for, and refuse what it is not; what was wrong, for each audience."""
    wrong: dict[str, list[str]] = {}
    _, tokens = company.signed_in()
    second = company.ask("refresh.sh", REFRESH_TOKEN=tokens["refresh_token"])
    taken = {
        LEGACY: {"minted": company.minted(LEGACY)},
        REPORTS: {
            "minted": company.minted(REPORTS),
            "code": tokens["access_token"],
            "job": company.ask("nightly.sh")["access_token"],
            "exchanged": company.ask("exchange.sh", TOKEN=tokens["access_token"])["access_token"],
        },
        PAYMENTS: {"minted": company.minted(PAYMENTS), "refresh": second["access_token"]},
    }
    for audience in (LEGACY,) if recipe.lower().startswith("legacy") else NEW:
        good = taken[audience]
        bad = company.of_another_kind(audience, good["minted"], tokens["id_token"])
        lines = told_by(company, recipe, audience, [*good.values(), *bad.values()], command)
        for name, line in zip([*good, *bad], lines, strict=True):
            subject = "nightly" if name == "job" else "ada"
            if line.startswith(f"{subject} ") != (name in good) or line.startswith("refused: ") != (
                name in bad
            ):
                wrong.setdefault(audience, []).append(f"{name}: {line}")
            if name in {"minted", "code"} and audience == REPORTS and '"groups"' not in line:
                wrong.setdefault(audience, []).append(f"{name} has no groups: {line}")
    return wrong
