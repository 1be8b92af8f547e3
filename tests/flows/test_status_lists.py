"""Verifiers of docs/status-lists.md: they see within seconds that a session has ended, and take no list that is wrong."""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import json
import os
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.docs.markdown import blocks, page
from tests.docs.recipes import STATUS_LISTS, direct_environment, recipe_command
from tests.flows.polling import wait_until
from tests.support.gunicorn import ADMIN, SERVERS, Gunicorn, hold_port, rsa_pem
from tests.support.nginx import StubUpstream, find_nginx
from tests.support.stopping import end_process

AUDIENCE: Final = "api"
KEY: Final = rsa.generate_private_key(65537, 2048)
OTHER_KEY: Final = rsa.generate_private_key(65537, 2048)


def verdicts(recipe: str, folder: Path, issuer: str, *tokens: str) -> list[str]:
    """What a fresh verifier says of tokens."""
    done = subprocess.run(
        recipe_command(recipe, folder),
        cwd=folder,
        env=direct_environment() | {"ISSUER": issuer, "AUDIENCE": AUDIENCE},
        input="".join(f"{token}\n" for token in tokens),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("server", SERVERS)
def test_a_session_that_ends_is_refused_within_a_minute(
    server: str, tmp_path: Path, subtests: pytest.Subtests
) -> None:
    """The service sends the bit within 10 s, in every worker; another session stays."""
    settings = {"PYLON_JWT_ALG": "RS256", "PYLON_JWT_AUDIENCE": AUDIENCE, "PYLON_OIDC_PRIVATE_KEY": rsa_pem()}
    with Gunicorn(
        server=server,
        PYLON_ADMIN_TOKEN=ADMIN,
        PYLON_STATUS_LIST="1",
        PYLON_DEV_MODE="1",
        WEB_CONCURRENCY="2",
        **settings,
    ) as service:
        ending, going_on = service.sign_in("ada"), service.sign_in("ben")
        tokens = [service.mint(each).json()["token"] for each in (ending, going_on)]
        issuer = pyjwt.decode(tokens[0], options={"verify_signature": False})["iss"]
        for recipe in STATUS_LISTS:
            with subtests.test("both live", recipe=recipe):
                assert verdicts(recipe, tmp_path, issuer, *tokens) == ['"ada"', '"ben"']
        bearer = {"Authorization": f"Bearer {ending}"}
        assert service.call("DELETE", "/api/auth/session", headers=bearer).status == 200
        for recipe in STATUS_LISTS:
            with subtests.test("one has ended", recipe=recipe):
                wait_until(
                    lambda recipe=recipe: (
                        verdicts(recipe, tmp_path, issuer, *tokens) == ["refused: revoked", '"ben"']
                    ),
                    timeout_s=120,
                )


class _Issuer(http.server.BaseHTTPRequestHandler):
    """An issuer whose lists are wrong in one way each; the number of the list says in which."""

    documents: Mapping[str, str]

    def do_GET(self) -> None:
        body = self.documents.get(self.path, "").encode()
        self.send_response(200 if body else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def _issuer(documents: dict[str, str]) -> Iterator[str]:
    handler = type("Handler", (_Issuer,), {"documents": documents})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def _signed(claims: Mapping[str, Any], typ: str, key: rsa.RSAPrivateKey = KEY) -> str:
    return pyjwt.encode(dict(claims), key, algorithm="RS256", headers={"kid": "k", "typ": typ})


def _list(uri: str, revoked: int = 9, size: int = 8192, **changes: Any) -> dict[str, Any]:
    bits = bytearray(size)
    bits[revoked // 8] |= 1 << revoked % 8
    packed = base64.urlsafe_b64encode(zlib.compress(bytes(bits))).rstrip(b"=").decode()
    now = int(time.time())
    usual = {"sub": uri, "iat": now, "exp": now + 600, "ttl": 60, "status_list": {"bits": 1, "lst": packed}}
    return usual | changes


@pytest.mark.parametrize("recipe", STATUS_LISTS)
def test_a_wrong_list_is_taken_by_no_verifier(recipe: str, tmp_path: Path) -> None:
    """Signature, `typ`, `sub`, `exp`, the issuer of the list, and the range of the index are checked (Token Status List §8.3)."""
    documents: dict[str, str] = {}
    with _issuer(documents) as issuer:
        public = json.loads(pyjwt.algorithms.RSAAlgorithm.to_jwk(KEY.public_key()))
        documents["/jwks"] = json.dumps({"keys": [public | {"kid": "k", "alg": "RS256", "use": "sig"}]})
        documents["/.well-known/openid-configuration"] = json.dumps(
            {"issuer": issuer, "jwks_uri": f"{issuer}/jwks"}
        )
        uri = [f"{issuer}/oidc/status/{number}" for number in range(6)]
        past = int(time.time()) - 1000
        lists = [
            _signed(_list(uri[0]), "statuslist+jwt"),
            _signed(_list(uri[1]), "statuslist+jwt", OTHER_KEY),
            _signed(_list(uri[2]), "JWT"),
            _signed(_list(uri[0]), "statuslist+jwt"),
            _signed(_list(uri[4], iat=past, exp=past + 600), "statuslist+jwt"),
            _signed(_list(uri[5], size=4), "statuslist+jwt"),
        ]
        documents |= {f"/oidc/status/{number}": text for number, text in enumerate(lists)}
        now = int(time.time())
        usual = {"iss": issuer, "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 600}
        places = [(7, uri[0]), (9, uri[0]), *((7, each) for each in uri[1:5]), (70, uri[5]), (7, f"{issuer}.example/oidc/status/0")]  # fmt: skip
        tokens = [
            _signed(usual | {"status": {"status_list": {"idx": index, "uri": at}}}, "JWT")
            for index, at in places
        ]
        said = verdicts(recipe, tmp_path, issuer, *tokens, _signed(usual, "JWT"))
    assert said[:2] == ['"ada"', "refused: revoked"]
    assert len(said) == 9
    assert all(each.startswith("refused: ") and "revoked" not in each for each in said[2:]), said


@contextlib.contextmanager
def _running(command: list[str], folder: Path, **environ: str) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=folder, env=direct_environment() | environ)
    try:
        yield
    finally:
        end_process(process, within_s=10)


def test_nginx_lets_nobody_in_whose_session_has_ended(tmp_path: Path) -> None:
    """The lines of the page before a service that checks nothing itself."""
    settings = {"PYLON_JWT_ALG": "RS256", "PYLON_JWT_AUDIENCE": AUDIENCE, "PYLON_OIDC_PRIVATE_KEY": rsa_pem()}
    held = [hold_port() for _ in range(2)]
    site, gate = (each.getsockname()[1] for each in held)
    upstream = StubUpstream()
    lines = blocks(page("status-lists.md"))["status-list-nginx"].code
    for shown, here in (
        ("127.0.0.1:8080", f"127.0.0.1:{site}"),
        ("127.0.0.1:9999", f"127.0.0.1:{gate}"),
        ("http://127.0.0.1:9000", f"http://{upstream.address}"),
    ):
        assert shown in lines
        lines = lines.replace(shown, here)
    temporary = "".join(
        f"{each}_temp_path {tmp_path}/{each};"
        for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"{'user root;' if os.geteuid() == 0 else ''} daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; events {{}}\nhttp {{ access_log off; {temporary}\n{lines}}}\n"
    )

    def status(token: str | None) -> int:
        wire = http.client.HTTPConnection("127.0.0.1", site, timeout=10)
        wire.request(
            "GET", "/", headers={"X-User": "root"} | ({"Authorization": f"Bearer {token}"} if token else {})
        )
        answer = wire.getresponse().status
        wire.close()
        return answer

    with (
        Gunicorn(PYLON_ADMIN_TOKEN=ADMIN, PYLON_STATUS_LIST="1", PYLON_DEV_MODE="1", **settings) as service,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(upstream.stop)
        session = service.sign_in("ada")
        token, other = (service.mint(each).json()["token"] for each in (session, service.sign_in("ben")))
        issuer = pyjwt.decode(token, options={"verify_signature": False})["iss"]
        command = [*recipe_command("status-list.py", tmp_path), str(gate)]
        for each in held:
            each.close()

        def restarted_gate() -> contextlib.ExitStack:
            """A gate that has no list yet: nobody waits a minute here."""
            started = contextlib.ExitStack()
            started.enter_context(_running(command, tmp_path, ISSUER=issuer, AUDIENCE=AUDIENCE))
            wait_until(lambda: _listens(gate))
            return started

        stack.enter_context(
            _running([find_nginx(), "-p", str(tmp_path), "-c", f"{tmp_path}/nginx.conf"], tmp_path)
        )
        wait_until(lambda: _listens(site))
        with restarted_gate():
            assert [status(each) for each in (token, other, None, token + "x")] == [200, 200, 401, 401]
            assert [seen.headers["x-user"] for seen in upstream.seen] == ["ada", "ben"]
        service.call("DELETE", "/api/auth/session", headers={"Authorization": f"Bearer {session}"})
        time.sleep(11)
        with restarted_gate():
            assert [status(each) for each in (token, other)] == [401, 200]


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
