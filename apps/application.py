"""What every application is asked to do, and what is written down of it."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from apps.browser import Browser
from apps.stand import EMAIL, GROUPS, NAME, Stand


@dataclass(frozen=True)
class Person:
    """What an application knows of who signed in; None where it has no place for it."""

    name: str | None = None
    email: str | None = None
    groups: list[str] | None = None


@dataclass(frozen=True)
class Seen:
    """What was seen of one application: its version, and what works (None: it does not do that)."""

    version: str
    name: bool | None
    email: bool | None
    groups: bool | None
    refresh: bool | None
    sign_out: bool | None
    rotation: bool


class Running(abc.ABC):
    """An application that runs, and how a person uses it."""

    refreshes: ClassVar[bool] = False
    signs_out: ClassVar[bool] = False

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
        """Sign out as its users do."""
        raise NotImplementedError


class Application(abc.ABC):
    """One application.

    Attributes:
        name: of its preset, its page and its row.
        light: whether it runs in `make test` too.
    """

    name: ClassVar[str]
    light: ClassVar[bool] = True

    @abc.abstractmethod
    def version(self) -> str:
        """What is installed; installs it where it is not."""

    @abc.abstractmethod
    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        """Register it by its preset, start it with what is printed, and end it."""
        yield  # type: ignore[misc]


def see(application: Application) -> Seen:
    """Sign in, see who it is, refresh, sign out, and sign in again with another key.

    Raises:
        AssertionError: saying what did not work.
    """
    version = application.version()
    with Stand() as stand, application.run(stand) as running:
        browser = stand.browser()
        person = running.sign_in(browser)
        known: dict[str, Any] = {}
        for what, wanted in (("name", NAME), ("email", EMAIL), ("groups", GROUPS)):
            told = getattr(person, what)
            assert told is None or told == wanted, (what, told)
            known[what] = None if told is None else True
        if running.refreshes:
            running.refresh(browser)
        signed_out = None
        if running.signs_out:
            assert running.is_signed_in(browser)
            browser.user = (
                None  # or an application that shows nothing to strangers would be signed in to at once
            )
            running.sign_out(browser)
            signed_out = not running.is_signed_in(browser)
        stand.rotate()
        assert running.sign_in(stand.browser()) == person
        return Seen(
            version,
            **known,
            refresh=running.refreshes or None,
            sign_out=signed_out,
            rotation=True,
        )
