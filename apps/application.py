"""What every application is asked to do, and what is written down of it."""

from __future__ import annotations

import abc
import contextlib
import enum
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from apps.browser import Browser
from apps.stand import EMAIL, GROUPS, NAME, Stand
from tests.support.gunicorn import PROJECT


@dataclass(frozen=True)
class Person:
    """What an application knows of who signed in; None where it has no place for it."""

    name: str | None = None
    email: str | None = None
    groups: list[str] | None = None


class SignOut(enum.Enum):
    """What a sign-out at the application ends."""

    EVERYWHERE = "here too"
    THERE = "there only"


@dataclass(frozen=True)
class Seen:
    """What was seen of one application: its version, and what works (None: it does not do that)."""

    version: str
    name: bool | None
    email: bool | None
    groups: bool | None
    refresh: bool | None
    sign_out: SignOut | None
    rotation: bool | None


class Running(abc.ABC):
    """An application that runs, and how a person uses it."""

    refreshes: ClassVar[bool] = False
    signs_out: ClassVar[SignOut | None] = None

    @abc.abstractmethod
    def sign_in(self, browser: Browser) -> Person:
        """Sign in by the provider; who the application says it is."""

    def refresh(self, browser: Browser) -> None:
        """Make it use its refresh token, and see that it is still signed in."""
        raise NotImplementedError

    def is_signed_in(self, browser: Browser) -> bool:
        """Whether the provider knows who is in front of the browser."""
        return browser.is_signed_in()

    def sign_out(self, browser: Browser) -> None:
        """Sign out as its users do, and see that it knows nobody any more."""
        raise NotImplementedError


class Tried(abc.ABC):
    """What `make apps` installs and tries.

    Attributes:
        name: of its row.
        light: whether it runs in `make test` too: where its installation takes less than 20 s.
    """

    name: ClassVar[str]
    light: ClassVar[bool] = False

    @abc.abstractmethod
    def version(self) -> str:
        """What is installed; installs it where it is not."""

    @abc.abstractmethod
    def see(self) -> Seen:
        """Try it.

        Raises:
            AssertionError: saying what did not work.
        """


class Application(Tried):
    """One application that people sign in to; its name is that of its preset and its page, too.

    Attributes:
        settings: of the provider, where it needs other ones than the default.
        https: whether it takes no issuer but one with `https://`.
        page: the page of it, where several applications have one.
    """

    settings: ClassVar[Mapping[str, str]] = {}
    https: ClassVar[bool] = False
    page: ClassVar[str | None] = None

    @abc.abstractmethod
    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        """Register it by its preset, start it with what is printed, and end it."""
        yield  # type: ignore[misc]

    def see(self) -> Seen:
        """Sign in, see who it is, refresh, sign out, and sign in again with another key."""
        version = self.version()
        with Stand(https=self.https, **self.settings) as stand, self.run(stand) as running:
            browser = stand.browser()
            person = running.sign_in(browser)
            known: dict[str, Any] = {}
            for what, wanted in (("name", NAME), ("email", EMAIL), ("groups", GROUPS)):
                told = getattr(person, what)
                assert told is None or told == wanted, (what, told)
                known[what] = None if told is None else True
            if running.refreshes:
                running.refresh(browser)
            if running.signs_out:
                assert running.is_signed_in(browser)
                # Or an application that shows nothing to strangers would be signed in to at once.
                browser.user = None
                running.sign_out(browser)
                assert running.is_signed_in(browser) == (running.signs_out is SignOut.THERE)
            stand.rotate()
            assert running.sign_in(stand.browser()) == person
            return Seen(
                version,
                **known,
                refresh=running.refreshes or None,
                sign_out=running.signs_out,
                rotation=True,
            )


def block_of(page: str, language: str) -> str:
    """The one block of code in this language of a page: what the page adds to its preset's lines."""
    text = (PROJECT / f"docs/apps/{page}.md").read_text()
    found = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{page}.md has {len(found)} blocks of {language}"
    return str(found[0])


def shell_of(page: str, client_id: str) -> list[str]:
    """The command of ours that the page's one block of `console` shows after its first, for this client."""
    text = (PROJECT / f"docs/apps/{page}.md").read_text()
    lines = re.findall(r"^\$ pylon-oidc (.*)$", text, re.MULTILINE)
    assert len(lines) == 2, lines
    return [client_id if word.startswith("c_") else word for word in lines[1].split()]
