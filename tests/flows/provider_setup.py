"""The provider with its app, its clients and their users, started by tests as one thing."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import urljoin

import psutil
import pytest
import requests

from tests.flows.polling import wait_until
from tests.support.app import App, RelyingParty, direct, query_of
from tests.support.browser import Browser
from tests.support.gunicorn import ADMIN, Gunicorn, hold_port, rsa_pem
from tests.support.nginx import NAME, Certificates, NginxSite, names_resolve_here
from tests.support.stopping import Stoppable

#: Two clients of the app itself (confidential, public), and one of somebody else, whose users are asked.
OWN, PUBLIC, OTHER = "own", "own-public", "other"
SECRETS = {
    OWN: secrets.token_urlsafe(32),
    PUBLIC: None,
    OTHER: secrets.token_urlsafe(32),
}


def client_metadata(client_id: str, secret: str | None, origin: str, **more: object) -> dict[str, Any]:
    """A client of `PYLON_OIDC_CLIENTS`, whose callback is `<origin>/callback`."""
    metadata: dict[str, Any] = {
        "client_id": client_id,
        "client_name": f"The {client_id} client",
        "redirect_uris": [f"{origin}/callback"],
        "post_logout_redirect_uris": [f"{origin}/out"],
        "first_party": True,
    }
    return metadata | ({} if secret is None else {"client_secret": secret}) | more


def usual_clients(origin: str) -> list[dict[str, Any]]:
    """The three."""
    return [client_metadata(name, SECRETS[name], origin, first_party=name != OTHER) for name in SECRETS]


class Provider(Stoppable):
    """A gunicorn that is a provider on `http://localhost:<port>`, next to its app; it keeps its address when it restarts.

    Attributes:
        app: The app.
        party: The relying party.
        server: The gunicorn of now.
        issuer: Its issuer.
    """

    def __init__(
        self,
        database_url: str,
        *,
        argv: tuple[str, ...] = (),
        module: str = "service.wsgi:app",
        clients: Callable[[str], list[dict[str, Any]]] = usual_clients,
        secrets: Mapping[str, str] = MappingProxyType({}),
        **settings: Any,
    ) -> None:
        self._holder = hold_port()
        self.port: int = self._holder.getsockname()[1]
        self.issuer = f"http://localhost:{self.port}"
        self.app, self.party = App(), RelyingParty(SECRETS | dict(secrets))
        self.app.provider = self.party.issuer = self.issuer
        self._argv, self._module = argv, module
        self._settings: dict[str, Any] = {
            "DATABASE_URL": database_url,
            "PYLON_ADMIN_TOKEN": ADMIN,
            "PYLON_OIDC_ISSUER": self.issuer,
            "PYLON_OIDC_PRIVATE_KEY": rsa_pem(),
            "PYLON_OIDC_CLIENTS": json.dumps(clients(self.party.origin)),
            "PYLON_LOGIN_URL": f"{self.app.origin}/sign-in",
        } | settings
        try:
            self.server = self.start()
        except BaseException:
            self.stop()
            raise

    def start(self) -> Gunicorn:
        """Start a gunicorn at the address."""
        self.server = Gunicorn(app=self._module, port=self.port, argv=self._argv, **self._settings)
        return self.server

    def restart(self) -> None:
        """Stop it in order, and start it again."""
        assert self.server.stop() == 0
        self.start()

    def kill_workers(self) -> None:
        """Kill every worker with SIGKILL, and wait until others have taken their place."""
        old = set(wait_until(self.server.worker_pids))
        for pid in old:
            psutil.Process(pid).kill()
        wait_until(
            lambda: len(self.server.worker_pids()) == len(old) and not old & {*self.server.worker_pids()}
        )

    def kill_all(self) -> None:
        """Kill master and workers with SIGKILL, and start it again."""
        family = [psutil.Process(pid) for pid in (self.server.pid, *self.server.worker_pids())]
        for process in family:
            process.kill()
        self.server.stop(signal.SIGKILL)
        wait_until(lambda: not any(process.is_running() for process in family[1:]))
        self.start()

    def stop(self) -> None:
        """End all of it."""
        if hasattr(self, "server"):
            self.server.kill()
        self.app.stop()
        self.party.stop()
        self._holder.close()

    def tokens(self, client_id: str = OWN, user_id: str = "ada", **more: str) -> dict[str, Any]:
        """Fresh tokens, by way (b)."""
        visitor = Visitor(self)
        request, url = self.party.begin(client_id, **more)
        waiting = visitor.begin(url)
        return self.party.take(visitor.answer(self.app.login(waiting, user_id))).tokens | {
            "client_id": request.client_id
        }


class Visitor:
    """A browser without a window, a script or patience: it follows redirects until it is where a test wants it."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.http = direct()

    def follow(self, url: str, *stops: str) -> str:
        """Open an address, and follow redirects until one leads to an address that begins with a stop.

        Raises:
            AssertionError: When a page comes instead.
        """
        for _ in range(20):
            if url.startswith(stops):
                return url
            answer = self.http.get(url, allow_redirects=False, timeout=20)
            assert answer.is_redirect, (url, answer.status_code, answer.text)
            url = urljoin(url, answer.headers["Location"])
        raise AssertionError(f"redirects without an end, at {url}")

    def begin(self, url: str) -> str:
        """Begin to sign in; the id of the interaction that the app gets."""
        return query_of(self.follow(url, f"{self._provider.app.origin}/sign-in"))["interaction"]

    def sign_in_by_cookie(self, interaction: str, user_id: str) -> str:
        """Way (a): the address to continue at."""
        answer = self.http.post(
            f"{self._provider.app.origin}/sign-in",
            data={
                "interaction": interaction,
                "return_to": f"{self._provider.issuer}/oidc/interaction/{interaction}",
                "user_id": user_id,
                "way": "cookie",
            },
            allow_redirects=False,
            timeout=20,
        )
        assert answer.status_code == 303, answer.text
        return answer.headers["Location"]

    def answer(self, url: str) -> dict[str, str]:
        """Continue until the client gets its answer; the parameters of it."""
        return query_of(self.follow(url, self._provider.party.redirect_uri))

    def open(self, url: str) -> requests.Response:
        """Continue until a page comes; the page."""
        return self.http.get(url, timeout=20)


@dataclass
class Stage:
    """What a browser test plays on: nginx with TLS before two workers and a PostgreSQL, an app, a client, a third.

    Attributes:
        browser: Chromium, which finds the names.
        issuer: `https://id.example.test:<port>`.
        app: On the sister host `app.example.test`.
        party: On another site, `rp.client.test`.
        landing: Where its callback sends the browser on to, on a third site.
        server: The gunicorn behind nginx.
    """

    browser: Browser
    issuer: str
    app: App
    party: RelyingParty
    landing: str
    server: Gunicorn

    def land(self) -> str:
        """Wait until the browser has come to the third origin; the `state` it brings."""
        return query_of(self.browser.wait_for(self.landing))["state"]


_PROXIED = """
server {{
    listen 127.0.0.1:{{https_port}} ssl http2;
    server_name {name};
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    location / {{
        proxy_set_header Host $http_host;
        proxy_pass http://127.0.0.1:{port};
    }}
}}
"""
APP_NAME, PARTY_NAME, LANDING_NAME = "app.example.test", "rp.client.test", "landing.third.test"
STAGE_NAMES = (NAME, APP_NAME, PARTY_NAME, LANDING_NAME)


@contextlib.contextmanager
def staged(
    browser: Browser, certificates: Certificates, postgres_url: str, **settings: str
) -> Iterator[Stage]:
    """A stage; `{app}` in a setting is the app's origin.

    Args:
        browser: Finds the names, and believes the certificates.
        certificates: For all names.
        postgres_url: A fresh database with its schema.
        settings: More settings of the provider.
    """
    with contextlib.ExitStack() as stack:
        app, party = stack.enter_context(App()), stack.enter_context(RelyingParty(SECRETS))
        holder = stack.enter_context(hold_port())
        port = holder.getsockname()[1]
        # The client's site and the third one are the same program under two names.
        served = ((APP_NAME, app.port), (PARTY_NAME, party.port), (LANDING_NAME, party.port))
        more = "".join(
            _PROXIED.format(name=name, port=at, certificate=certificates.certificate, key=certificates.key)
            for name, at in served
        )
        edits = {
            "/etc/ssl/pylon-oidc/fullchain.pem": str(certificates.certificate),
            "/etc/ssl/pylon-oidc/privkey.pem": str(certificates.key),
        }
        site = stack.enter_context(NginxSite(f"127.0.0.1:{port}", edits=edits, more=more))
        app.origin, party.origin, landing = (f"https://{name}:{site.https_port}" for name, _ in served)
        app.provider, app.cookie_domain, app.secure = f"http://127.0.0.1:{port}", "example.test", True
        party.issuer, party.verify, party.landing = site.origin, str(certificates.ca), f"{landing}/landed"
        given: dict[str, Any] = {name: value.replace("{app}", app.origin) for name, value in settings.items()}
        server = stack.enter_context(
            Gunicorn(
                port=port,
                DATABASE_URL=postgres_url,
                PYLON_ADMIN_TOKEN=ADMIN,
                PYLON_OIDC_ISSUER=site.origin,
                PYLON_OIDC_PRIVATE_KEY=rsa_pem(),
                PYLON_OIDC_CLIENTS=json.dumps(usual_clients(party.origin)),
                PYLON_LOGIN_URL=f"{app.origin}/sign-in",
                PYLON_COOKIE_DOMAIN="example.test",
                **given,
            )
        )
        stack.enter_context(names_resolve_here(NAME))
        yield Stage(browser, site.origin, app, party, party.landing, server)


@contextlib.contextmanager
def fresh_database(request: pytest.FixtureRequest, kind: str) -> Iterator[str]:
    """The URL of a database of a kind, with its schema and nothing in it, for fixtures that live longer than a test."""
    if kind.startswith("sqlite"):
        factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
        path = factory.mktemp("database") / "pylon.sqlite3"
        shutil.copy(request.getfixturevalue("migrated_sqlite"), path)
        yield f"sqlite:///{path}"
        return
    cluster = request.getfixturevalue("postgres_cluster")
    cluster.start()
    url = cluster.create_database(like=request.getfixturevalue("migrated_postgres"))
    yield url
    cluster.start()
    cluster.drop_database(url)
