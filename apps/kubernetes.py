"""The API server of Kubernetes, and what kubelogin does for its users."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import re
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from apps.application import Application, Person, Running
from apps.browser import Browser
from apps.installing import go_program, go_version
from apps.oauth2_proxy import Shown
from apps.stand import EMAIL, Stand, answers

_MODULE = "k8s.io/apiserver"


class _Kubectl(Running):
    refreshes = True

    def __init__(self, api: str, issuer: str, client_id: str, back: str) -> None:
        self._api, self._issuer, self._client_id, self._back = api, issuer, client_id, back
        self._tokens: dict[str, str] = {}

    def sign_in(self, browser: Browser) -> Person:
        verifier = secrets.token_urlsafe(32)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code", "client_id": self._client_id, "redirect_uri": self._back, "scope": "openid",
            "state": secrets.token_hex(8), "nonce": secrets.token_hex(8), "code_challenge": challenge,
            "code_challenge_method": "S256",
        }  # fmt: skip
        page = browser.open(f"{self._issuer}/oidc/authorize?{urlencode(asked)}")
        code = parse_qs(urlsplit(page.url).query).get("code", [""])[0]
        assert code, f"{page.url}: {page.text[:2000]}"
        self._take(
            browser,
            grant_type="authorization_code",
            code=code,
            redirect_uri=self._back,
            code_verifier=verifier,
        )
        who = self._who(browser)
        return Person(email=who["username"], groups=sorted(who["groups"]))

    def _take(self, browser: Browser, **form: str) -> None:
        form["client_id"] = self._client_id
        answer = browser.http.post(f"{self._issuer}/oidc/token", data=form, timeout=20)
        assert answer.ok, answer.text
        self._tokens = answer.json()

    def _who(self, browser: Browser) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._tokens['id_token']}"}
        answer = browser.http.get(f"{self._api}/who", headers=headers, timeout=20)
        assert answer.ok, answer.text
        forged = {"Authorization": headers["Authorization"][:-8] + "AAAAAAAA"}
        assert browser.http.get(f"{self._api}/who", headers=forged, timeout=20).status_code == 401
        return dict(answer.json())

    def refresh(self, browser: Browser) -> None:
        before = self._tokens["id_token"]
        self._take(browser, grant_type="refresh_token", refresh_token=self._tokens["refresh_token"])
        assert self._tokens["id_token"] != before and self._who(browser)["username"] == EMAIL


class Kubernetes(Application):
    """https://github.com/kubernetes/apiserver: its check of ID tokens."""

    name, https = "kubernetes", True

    def version(self) -> str:
        return f"apiserver {go_version('kubernetes', _MODULE)}"

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        program = go_program("kubernetes")
        made = stand.register(self.name, None)
        flags = re.findall(r"^  (--oidc-.*)$", made["paste"], re.MULTILINE)
        back = http.server.HTTPServer(("127.0.0.1", urlsplit(made["redirect_uris"][0]).port or 80), Shown)
        thread = threading.Thread(target=back.serve_forever)
        thread.start()
        try:
            with stand.port() as port:
                api = f"http://127.0.0.1:{port}"
                command: list[str | Path] = [
                    program, f"127.0.0.1:{stand.tls_port}", stand.provider.origin, f"127.0.0.1:{port}", *flags,
                ]  # fmt: skip
                with stand.process(command, ready=lambda: answers(f"{api}/readyz", well=True)):
                    yield _Kubectl(api, stand.issuer, made["client_id"], made["redirect_uris"][0])
        finally:
            back.shutdown()
            thread.join()
            back.server_close()


APPS: list[Application] = [Kubernetes()]
