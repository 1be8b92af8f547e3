"""oauth2-proxy, before a program that shows the headers that it gets."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

from apps.application import Application, Person, Running, SignOut, block_of
from apps.browser import Browser
from apps.installing import go_program, go_version
from apps.stand import Stand, environment_of

MODULE = "github.com/oauth2-proxy/oauth2-proxy/v7"


class _Proxy(Running):
    refreshes, signs_out = True, SignOut.EVERYWHERE

    def __init__(self, url: str) -> None:
        self._url = url

    def sign_in(self, browser: Browser) -> Person:
        return self._who(browser.open(f"{self._url}/oauth2/start?rd=%2F").json())

    def _who(self, headers: dict[str, Any]) -> Person:
        return Person(
            email=headers.get("X-Forwarded-Email"), groups=headers.get("X-Forwarded-Groups", "").split(",")
        )

    def refresh(self, browser: Browser) -> None:
        before = browser.http.cookies.get_dict()
        time.sleep(4.5)  # its OAUTH2_PROXY_COOKIE_REFRESH is 2 s here
        self._who(browser.open(f"{self._url}/").json())
        assert browser.http.cookies.get_dict() != before, "its session is the same as before"

    def sign_out(self, browser: Browser) -> None:
        browser.open(f"{self._url}/oauth2/sign_out?rd=%2Foauth2%2Fsign_in")
        assert browser.open(f"{self._url}/").status == 403


class Shown(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(dict(self.headers.items())).encode())

    def log_message(self, *_: Any) -> None:
        pass


class OAuth2Proxy(Application):
    """https://github.com/oauth2-proxy/oauth2-proxy"""

    name = "oauth2-proxy"

    def version(self) -> str:
        return go_version("oauth2-proxy", MODULE)

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        program = go_program("oauth2-proxy", MODULE)
        upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shown)
        thread = threading.Thread(target=upstream.serve_forever)
        thread.start()
        try:
            with stand.port() as port:
                url = f"http://localhost:{port}"
                environ = environment_of(stand.register(self.name, url)["paste"]) | {
                    "OAUTH2_PROXY_HTTP_ADDRESS": f"127.0.0.1:{port}",
                    "OAUTH2_PROXY_UPSTREAMS": f"http://127.0.0.1:{upstream.server_port}/",
                    "OAUTH2_PROXY_COOKIE_SECRET": "0123456789abcdef0123456789abcdef",
                    "OAUTH2_PROXY_EMAIL_DOMAINS": "*",
                    "OAUTH2_PROXY_COOKIE_SECURE": "false",  # http://localhost
                }
                environ |= environment_of(block_of(self.name, "sh").replace('"', "").replace("=15m", "=2s"))
                with stand.process([program], ready=f"{url}/ping", environ=environ):
                    yield _Proxy(url)
        finally:
            upstream.shutdown()
            thread.join()
            upstream.server_close()


APPS = [OAuth2Proxy()]
