"""No secret that the server was given or sent appears in anything that it writes (docs/security.md)."""

from __future__ import annotations

import base64
import contextlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.flows.polling import wait_until
from tests.storage.outages import Outage, migrated_database
from tests.support.gunicorn import Gunicorn, rsa_pem, start_expecting_failure

HOST = "id.example.com"


@dataclass
class Canaries:
    """Secrets by their kind; each is found again by its own random text."""

    texts: dict[str, set[str]] = field(default_factory=dict)

    def new(self, kind: str, prefix: str = "") -> str:
        """A fresh one."""
        return self.add(kind, prefix + "c4n4ry" + secrets.token_hex(20))

    def short(self, kind: str) -> str:
        """A fresh one of 12 characters, which no rule about long random texts would catch."""
        return self.add(kind, "c4n" + secrets.token_hex(4) + "y")

    def add(self, kind: str, text: str) -> str:
        """One that came from elsewhere."""
        self.texts.setdefault(kind, set()).add(text)
        return text

    def found_in(self, output: str) -> list[str]:
        """The kinds of those that the output holds."""
        return sorted(kind for kind, texts in self.texts.items() if any(text in output for text in texts))


@dataclass
class Scene:
    """A server whose every secret is a canary, and clients that send it more of them."""

    server: Gunicorn
    canaries: Canaries
    admin: str
    trusted: str

    def ask(self, method: str, path: str, *, body: object = None, **headers: str) -> None:
        """Send one request, whatever its answer."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.suppress(OSError):
            self.server.call(method, path, host=HOST, headers=named, body=body)

    def begin_session(self) -> str:
        """A session of the server's; its token is a canary from now on."""
        return self.canaries.add("session token", self.server.sign_in(device=self.canaries.new("body")))

    def wander(self, token: str) -> None:
        """Send secrets by every way that there is: good ones, bad ones, in places where they do not belong."""
        new, short = self.canaries.new, self.canaries.short
        for path in ("/api/auth/jwt", "/api/auth/refresh"):
            self.ask("POST", path, Authorization=f"Bearer {new('bearer', 'pylon_')}")
            unknown = self.canaries.add("bearer", f"pylon_{secrets.token_hex(32)}")
            self.ask("POST", path, Authorization=f"Bearer {unknown}")
            basic = self.canaries.add("basic", base64.b64encode(new("basic").encode()).decode())
            self.ask("POST", path, Authorization=f"Basic {basic}")
            self.ask("POST", path, Cookie=f"pylon_session={new('cookie')}; other={short('cookie')}")
            self.ask("POST", path, Cookie=f"pylon_session={token}", Origin=f"https://{new('origin')}.example")
        for method, path in (
            ("GET", "/api/auth/me"),
            ("GET", "/api/auth/sessions"),
            ("DELETE", "/api/auth/session"),
        ):
            self.ask(
                method, f"{path}?token={new('query')}&code={short('query')}", Authorization=f"Bearer {token}x"
            )
        self.ask("GET", f"/oidc/authorize?state={new('query')}&code_challenge={short('query')}")
        self.ask("GET", f"/no/such/{new('path')}?x={short('query')}")
        self.ask(
            "GET",
            f"/api/auth/users/{new('path')}/sessions",
            Authorization=f"Bearer {new('admin token, wrong')}",
        )
        form = {"Content_Type": "application/x-www-form-urlencoded"}
        self.ask("POST", "/oidc/token", body=f"code={new('body')}&client_secret={short('body')}", **form)
        self.ask(
            "POST", "/api/auth/session", body=short("body"), Authorization=f"Bearer {self.admin}", **form
        )
        for body in self.bodies():
            self.ask("POST", "/api/auth/session", body=body, Authorization=f"Bearer {self.admin}")
            self.ask("POST", "/api/auth/jwt", body=body, Authorization=f"Bearer {token}")
            self.sign(body)
            self.sign(body, mac=self.canaries.add("signature", secrets.token_hex(32)))
            self.sign(body, mac=new("signature"))
        for payload in self.payloads():
            with contextlib.suppress(OSError):
                self.server.raw(payload, timeout=1)

    def bodies(self) -> list[str]:
        """Bodies that are refused, and one that is taken."""
        new, short = self.canaries.new, self.canaries.short
        return [
            json.dumps({"user_id": "u", "claims": {"email": new("body"), "name": short("body")}}),
            json.dumps({"user_id": "u", "claims": {"email": [new("body")]}, "acr": [short("body")]}),
            json.dumps({"user_id": {"a": new("body")}, "audience": new("body")}),
            json.dumps({"audience": short("body")}),
            json.dumps({new("body, a key of"): 1, short("body, a key of"): 2}),
            f'{{"user_id": "{new("body")}',
            f'"{short("body")}"',
            f"{short('body')}",
            f'{{"user_id": "u", "roles": ["{new("body")}", NaN]}}',
        ]

    def sign(self, body: str, *, mac: str | None = None) -> None:
        """A trusted mint."""
        stamp = str(int(time.time()))
        good = hmac.new(self.trusted.encode(), f"{stamp}.{body}".encode(), "sha256").hexdigest()
        signature = self.canaries.add("signature", mac or good)
        headers = {"X_Pylon_Trusted_Timestamp": stamp, "X_Pylon_Trusted_Signature": signature}
        self.ask("POST", "/api/auth/sessions/trusted-mint", body=body, **headers)

    def payloads(self) -> Iterator[bytes]:
        """Requests that the server refuses before the application sees them, with secrets in each part."""
        new, short = self.canaries.new, self.canaries.short
        end = f" HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n"
        admin = f"Authorization: Bearer {self.admin}\r\nContent-Type: application/json\r\n"
        chunked = f"POST /api/auth/session{end}{admin}Transfer-Encoding: chunked\r\n\r\n"
        for text in (
            f"GET /callback?code={new('raw target')} HTTP/9{end}\r\n",
            f"GET /callback?code={short('raw target')}\r\n\r\n",
            f"GET /callback?code={new('raw target')}\x01{end}\r\n",
            f"GET /{new('raw target')}{'x' * 9000}{end}\r\n",
            f"{new('raw method')} /{end}\r\n",
            f"{self.canaries.add('raw method', short('raw method').upper())}# /{end}\r\n",
            f"GET /{end}Authorization: Bearer {new('raw header')}\x01\r\n\r\n",
            f"GET /{end}Authorization : Bearer {new('raw header')}\r\n\r\n",
            f"GET /{end}Authorization Bearer {short('raw header')}\r\n\r\n",
            f"GET /{end}Cookie: pylon_session={new('raw header')}{'x' * 9000}\r\n\r\n",
            f"GET /{end}Cookie: a\r\n  {new('raw header')}\r\n\r\n",
            f"GET /{end}Transfer-Encoding: {short('raw header')}\r\n\r\n",
            f"GET /{end}Expect: {new('raw header')}\r\n\r\n",
            f"GET https://{new('raw target')}.example/oidc/jwks?{short('raw target')}{end}\r\n",
            f"{chunked}{short('raw body')}\r\n",
            f"{chunked}3;{new('raw body')}=\x01\r\nabc\r\n",
            f"{chunked}3\r\nabc{short('raw body')}\r\n",
            f"{chunked}0\r\nAuthorization: {new('raw body')}\r\n\r\n",
            f"POST /api/auth/session{end}{admin}Content-Length: 400\r\n\r\n{new('raw body')}",
        ):
            yield text.encode("latin-1")


def _private_parts(pem: str) -> Iterator[str]:
    """The texts by which a private key could show itself: lines of its PEM, numbers in decimal, hex and base64url."""
    yield from (line for line in pem.splitlines() if len(line) == 64)
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    numbers = key.private_numbers()
    for number in (numbers.d, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp):
        raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
        yield from (str(number), raw.hex(), base64.urlsafe_b64encode(raw).decode().rstrip("="))


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def told(request: pytest.FixtureRequest) -> Iterator[tuple[str, Canaries]]:
    """All that a server wrote, at the level `debug`, while it and its database went through everything."""
    canaries = Canaries()
    secret, admin, trusted = (canaries.new(f"setting: {name}") for name in ("JWT", "admin", "trusted"))
    pem = rsa_pem(number=41)
    for part in _private_parts(pem):
        canaries.add("setting: private key", part)
    with migrated_database(request) as (url, outage):
        if password := urlsplit(url).password:
            canaries.add("setting: database password", password)
        with Gunicorn(
            argv=["--log-level", "debug"] if Gunicorn.usual == "gunicorn" else [],
            DATABASE_URL=url,
            PYLON_LOG_LEVEL="debug",
            PYLON_LOG_FORMAT="json",
            PYLON_JWT_SECRET=secret,
            PYLON_ADMIN_TOKEN=admin,
            PYLON_TRUSTED_SECRET=trusted,
            PYLON_OIDC_PRIVATE_KEY=pem,
        ) as server:
            _go_through_everything(Scene(server, canaries, admin, trusted), outage)
        yield server.output(), canaries


def _go_through_everything(scene: Scene, outage: Callable[[], Outage]) -> None:
    server, canaries = scene.server, scene.canaries
    token = scene.begin_session()
    canaries.add("minted token", server.mint(token).json()["token"].rpartition(".")[2])
    scene.wander(token)
    with outage():
        scene.wander(token)
        scene.ask("POST", "/api/auth/jwt", Authorization=f"Bearer {token}")
    wait_until(lambda: server.call("GET", "/readyz").status == 200)
    answer = server.call("POST", "/api/auth/refresh", host=HOST, headers={"Cookie": f"pylon_session={token}"})
    canaries.add("session token", answer.json()["token"])
    canaries.add("cookie", answer.headers["set-cookie"].partition(";")[0].partition("=")[2])


def test_no_canary_is_in_the_output(told: tuple[str, Canaries]) -> None:
    """No secret setting, token, cookie, body, query or header value is in the log, good or bad, also in an outage."""
    output, canaries = told
    assert canaries.found_in(output) == []


def test_the_output_is_one_that_could_have_told(told: tuple[str, Canaries]) -> None:
    """The log under test is whole: it has lines of success, refusal and outage, and every kind of canary was sent."""
    output, canaries = told
    statuses = {int(found) for found in re.findall(r'"status": ?(\d{3})', output)}
    assert {200, 201, 400, 401, 403, 404, 415, 503} <= statuses
    assert "store_unavailable" in output
    if Gunicorn.usual == "gunicorn":  # granian refuses these in its own code, without a line
        assert "Invalid request from" in output
    assert len(canaries.texts) >= 16
    assert all(canaries.texts.values())


def test_an_end_of_a_session_token_is_not_in_the_output(told: tuple[str, Canaries]) -> None:
    """Not even a part of a session token long enough to tell it from others is in the log."""
    output, canaries = told
    assert not [token for token in canaries.texts["session token"] if token[-8:] in output]


def test_a_refused_configuration_shows_no_secret(tmp_path: Path) -> None:
    """When every secret setting is wrong, the faults name the settings and hold nothing of their values."""
    canaries = Canaries()
    key_file = tmp_path / "key.pem"
    key_file.write_text(canaries.new("key file"))
    key_file.chmod(0o600)
    _, output = start_expecting_failure(
        PYLON_LOG_LEVEL="debug",
        PYLON_JWT_SECRET=canaries.short("JWT secret"),
        PYLON_ADMIN_TOKEN=canaries.short("admin token"),
        PYLON_TRUSTED_SECRET=canaries.short("trusted secret"),
        PYLON_OIDC_PRIVATE_KEY=f"-----BEGIN PRIVATE KEY-----\n{canaries.new('private key')}\n-----END PRIVATE KEY-----",
        PYLON_OIDC_KEY_PATH=str(key_file),
        DATABASE_URL=f"postgresql://user:{canaries.new('password')}@host:port/name",
    )
    for name in ("JWT_SECRET", "ADMIN_TOKEN", "TRUSTED_SECRET", "OIDC_PRIVATE_KEY", "OIDC_KEY_PATH"):
        assert f"PYLON_{name}: " in output
    assert "DATABASE_URL: " in output
    assert canaries.found_in(output) == []
