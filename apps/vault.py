"""HashiCorp Vault's auth method for OpenID providers, and `vault login`."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apps.application import Application, Person, Running
from apps.browser import Browser
from apps.installing import go_program, go_version
from apps.installing import run as run_command
from apps.stand import USER, Stand, direct

MODULE = "github.com/hashicorp/vault-plugin-auth-jwt"
_LINK = re.compile(r"https?://\S+/oidc/authorize\?\S+")


class _Vault(Running):
    def __init__(self, program: Path, environ: dict[str, str]) -> None:
        self._program, self._environ = program, environ

    def sign_in(self, browser: Browser) -> Person:
        with subprocess.Popen(
            [self._program, "login"], env=direct(self._environ), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as login:  # fmt: skip
            try:
                assert login.stderr
                link = next(filter(None, map(_LINK.search, login.stderr)))
                assert next(line for line in login.stderr if "Waiting for OIDC" in line)
                page = browser.open(link[0])
                said, errors = login.communicate(timeout=60)
            finally:
                login.kill()
        assert login.returncode == 0, errors + page.text
        known: dict[str, Any] = json.loads(said)
        assert known["name"] == USER, known
        told = known["metadata"]
        return Person(told["name"], told["email"], sorted(known["groups"]))


class Vault(Application):
    """https://github.com/hashicorp/vault-plugin-auth-jwt, behind as much of Vault as it needs."""

    name = "vault"

    def version(self) -> str:
        return f"vault-plugin-auth-jwt {go_version('vault', MODULE)}"

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        program = go_program("vault")
        with stand.port() as port:
            url = f"http://localhost:{port}"
            paste = stand.register(self.name, url)["paste"]
            environ = {"VAULT_ADDR": url}
            with stand.process([program, "server", f"127.0.0.1:{port}"], ready=url):
                for words in map(shlex.split, paste.splitlines()):
                    if words[:2] == ["vault", "write"]:  # the method is mounted already
                        run_command(program, *words[1:], **environ)
                yield _Vault(program, environ)


APPS: list[Application] = [Vault()]
