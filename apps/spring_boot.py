"""A Spring Boot application of one class, behind `oauth2Login`."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from apps.application import Application, Person, Running
from apps.browser import Browser
from apps.installing import HERE, maven_package
from apps.stand import Stand


class _Site(Running):
    def __init__(self, url: str) -> None:
        self._url = url

    def sign_in(self, browser: Browser) -> Person:
        page = browser.open(f"{self._url}/who")
        if page.url.startswith(f"{self._url}/login"):  # where there are several providers, one is chosen
            page = browser.open(page.link("/oauth2/authorization/pylon"))
        who = browser.open(f"{self._url}/who").json()
        return Person(who.get("name"), who.get("email"), who.get("groups"))


class SpringBoot(Application):
    """https://spring.io/projects/spring-boot"""

    name, light = "spring-boot", False

    def version(self) -> str:
        maven_package(self.name)
        found = re.search(r"<version>([0-9.]+)</version>", (HERE / "java/spring-boot/pom.xml").read_text())
        assert found
        return found[1]

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        jar = maven_package(self.name)
        with stand.port() as port:
            url = f"http://localhost:{port}"
            paste = stand.register(self.name, url)["paste"]
            (stand.folder / "application.properties").write_text(
                f"server.address=127.0.0.1\nserver.port={port}\n{paste}\n"
            )
            with stand.process(["java", "-jar", jar], ready=f"{url}/login", start_s=300):
                yield _Site(url)


APPS = [SpringBoot()]
