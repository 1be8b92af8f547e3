"""Spring Boot: a site behind `oauth2Login`, and an API behind minted tokens."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import requests

from apps.application import Application, Person, Running, SignOut, block_of
from apps.browser import Browser
from apps.installing import HERE, maven_package
from apps.stand import EMAIL, GROUPS, USER, Stand

AUDIENCE = "https://api.example.com"


class _Spring(Application):
    def version(self) -> str:
        maven_package(self.name)
        found = re.search(r"<version>([0-9.]+)</version>", (HERE / f"java/{self.name}/pom.xml").read_text())
        assert found
        return found[1]

    @contextlib.contextmanager
    def _serve(self, stand: Stand, port: int, properties: str) -> Iterator[str]:
        """Run it with these lines; its address."""
        url = f"http://localhost:{port}"
        own = f"server.address=127.0.0.1\nserver.port={port}\n"
        (stand.folder / "application.properties").write_text(own + properties + "\n")
        command: list[str | Path] = ["java", "-jar", maven_package(self.name)]
        with stand.process(command, ready=f"{url}/login", start_s=300):
            yield url


class _Site(Running):
    refreshes, signs_out = True, SignOut.EVERYWHERE

    def __init__(self, url: str) -> None:
        self._url = url

    def sign_in(self, browser: Browser) -> Person:
        page = browser.open(f"{self._url}/who")
        if page.url.startswith(f"{self._url}/login"):  # where there are several providers, one is chosen
            page = browser.open(page.link("/oauth2/authorization/pylon"))
        who = browser.open(f"{self._url}/who").json()
        return Person(who.get("name"), who.get("email"), who.get("groups"))

    def refresh(self, browser: Browser) -> None:
        first, second = (browser.open(f"{self._url}/token").json()["token"] for _ in range(2))
        assert first != second
        assert browser.open(f"{self._url}/who").json()["email"] == EMAIL

    def sign_out(self, browser: Browser) -> None:
        browser.submit(browser.open(f"{self._url}/logout").form("_csrf"))
        assert browser.open(f"{self._url}/who").url.startswith(browser.issuer)  # asked to sign in


class SpringBoot(_Spring):
    """https://spring.io/projects/spring-boot"""

    name = "spring-boot"
    # Within its last minute Spring takes an access token for spent.
    settings = {"PYLON_OIDC_ACCESS_TOKEN_LIFETIME_SECS": "30"}

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        with stand.port() as port:
            paste = stand.register(self.name, f"http://localhost:{port}")["paste"]
            paste = paste.replace("openid,profile,email", "openid,profile,email,offline_access")
            with self._serve(stand, port, paste) as url:
                yield _Site(url)


class _Api(Running):
    def __init__(self, url: str, stand: Stand) -> None:
        self._url, self._stand = url, stand

    def sign_in(self, browser: Browser) -> Person:
        session = self._stand.admin("POST", "/api/auth/session", {"user_id": USER, "roles": GROUPS})
        bearer = {"Authorization": f"Bearer {session['token']}"}
        minted = requests.post(f"{browser.issuer}/api/auth/jwt", headers=bearer, timeout=20).json()["token"]
        assert self._ask(browser, minted[:-8] + "AAAAAAAA").status_code == 401
        who = self._ask(browser, minted).json()
        assert who["sub"] == USER
        return Person(groups=sorted(held.removeprefix("ROLE_") for held in who["authorities"]))

    def _ask(self, browser: Browser, token: str) -> requests.Response:
        headers = {"Authorization": f"Bearer {token}"}
        return browser.http.get(f"{self._url}/who", headers=headers, timeout=60)


class ResourceServer(_Spring):
    """The same, as a resource server."""

    name, page = "spring-boot-resource-server", "spring-boot"
    settings = {"PYLON_JWT_ALG": "RS256", "PYLON_JWT_AUDIENCE": AUDIENCE}

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        lines = block_of("spring-boot", "properties").replace("https://id.example.com", stand.issuer)
        with stand.port() as port, self._serve(stand, port, lines) as url:
            yield _Api(url, stand)


APPS: list[Application] = [SpringBoot(), ResourceServer()]
