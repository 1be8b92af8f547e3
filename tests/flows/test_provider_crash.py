"""Restarted or killed in the middle, the provider continues where it was: users finish, and nothing is there twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from service.records.grants import Grant, Grants
from tests.flows.polling import wait_until
from tests.flows.provider_setup import OTHER, OWN, PUBLIC, Provider, Visitor, fresh_database
from tests.storage.stores import open_url
from tests.support.app import Request

DATABASES = ("sqlite", "postgres")
#: What befalls the provider.
BLOWS: dict[str, Callable[[Provider], None]] = {
    "restart": Provider.restart,
    "workers killed": Provider.kill_workers,
    "all killed": Provider.kill_all,
}


@dataclass
class Waiting:
    """A user in the middle of a sign-in: their next step leads them to the end."""

    user_id: str
    request: Request
    finish: Callable[[], dict[str, str]]


def at_the_apps_page_by_report(provider: Provider, user_id: str) -> Waiting:
    """Handed to the app, which will report to its backend."""
    visitor = Visitor(provider)
    request, url = provider.party.begin(OWN)
    interaction = visitor.begin(url)
    return Waiting(user_id, request, lambda: visitor.answer(provider.app.login(interaction, user_id)))


def at_the_apps_page_by_cookie(provider: Provider, user_id: str) -> Waiting:
    """Handed to the app, which will set the shared cookie."""
    visitor = Visitor(provider)
    request, url = provider.party.begin(OWN)
    interaction = visitor.begin(url)
    return Waiting(user_id, request, lambda: visitor.answer(visitor.sign_in_by_cookie(interaction, user_id)))


def on_the_way_back_by_report(provider: Provider, user_id: str) -> Waiting:
    """Signed in and reported, not yet back."""
    visitor = Visitor(provider)
    request, url = provider.party.begin(OWN)
    redirect_to = provider.app.login(visitor.begin(url), user_id)
    return Waiting(user_id, request, lambda: visitor.answer(redirect_to))


def on_the_way_back_by_cookie(provider: Provider, user_id: str) -> Waiting:
    """Signed in by the cookie, not yet back."""
    visitor = Visitor(provider)
    request, url = provider.party.begin(OWN)
    return_to = visitor.sign_in_by_cookie(visitor.begin(url), user_id)
    return Waiting(user_id, request, lambda: visitor.answer(return_to))


def at_the_consent_page(provider: Provider, user_id: str) -> Waiting:
    """Our page asks the user, with the form open."""
    visitor = Visitor(provider)
    request, url = provider.party.begin(OTHER)
    page = visitor.open(provider.app.login(visitor.begin(url), user_id))
    token = page.text.partition('name="form_token" value="')[2].partition('"')[0]

    def press_allow() -> dict[str, str]:
        form = {"form_token": token, "decision": "allow"}
        answer = visitor.http.post(page.url, data=form, allow_redirects=False, timeout=20)
        return visitor.answer(answer.headers["Location"])

    return Waiting(user_id, request, press_allow)


def with_a_code(provider: Provider, user_id: str) -> Waiting:
    """Back at the client, whose code is not redeemed yet."""
    visitor = Visitor(provider)
    request, url = provider.party.begin(OWN)
    answer = visitor.answer(provider.app.login(visitor.begin(url), user_id))
    return Waiting(user_id, request, lambda: answer)


PLACES = (
    at_the_apps_page_by_report,
    at_the_apps_page_by_cookie,
    on_the_way_back_by_report,
    on_the_way_back_by_cookie,
    at_the_consent_page,
    with_a_code,
)


@pytest.mark.parametrize("blow", BLOWS)
@pytest.mark.parametrize("kind", DATABASES)
def test_who_was_in_the_middle_finishes(request: pytest.FixtureRequest, kind: str, blow: str) -> None:
    """After a restart, or `kill -9` of workers or of all, all users get their tokens, with one session and grant.

    There is one user at each of the places, so that one blow befalls all of them.
    """
    with fresh_database(request, kind) as url, Provider(url) as provider:
        waiting = [place(provider, place.__name__) for place in PLACES]
        BLOWS[blow](provider)
        for someone in waiting:
            finished = provider.party.take(someone.finish())
            assert finished is someone.request, someone.user_id
            assert finished.claims["sub"] == someone.user_id
            assert len(provider.app.sessions(someone.user_id)) == 1, someone.user_id
            assert len(provider.app.grants(someone.user_id)) == 1, someone.user_id


@dataclass
class Rotating:
    """A provider whose worker can be made to hang in a token request, and the database behind it."""

    provider: Provider
    url: str
    folder: Path

    def kill_in_the_middle(self, when: str, refresh_token: str, blow: str) -> None:
        """Refresh, and strike when the worker hangs at the place."""
        (self.folder / when).touch()
        failed = threading.Event()

        def refresh() -> None:
            try:
                self.provider.party.refresh(PUBLIC, refresh_token)
            except requests.ConnectionError:
                failed.set()

        asking = threading.Thread(target=refresh)
        asking.start()
        try:
            wait_until((self.folder / "hangs").exists)
        finally:
            (self.folder / when).unlink()
            (self.folder / "hangs").unlink(missing_ok=True)
            BLOWS[blow](self.provider)
            asking.join(30)
        assert failed.is_set(), "the request was answered"

    def grants(self, user_id: str) -> list[Grant]:
        """The live grants of a user."""
        with closing(open_url(self.url)) as store:
            return Grants(store).of_user(user_id, now=int(time.time()))


@pytest.fixture(scope="module", params=DATABASES)
def rotating(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rotating]:
    """The provider for rotations."""
    folder = tmp_path_factory.mktemp("hang")
    module = "tests.flows.provider_hanging:app"
    with (
        fresh_database(request, request.param) as url,
        Provider(url, module=module, HANG_FOLDER=str(folder)) as provider,
    ):
        yield Rotating(provider, url, folder)


@pytest.mark.parametrize("blow", ["workers killed", "all killed"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_rotation_killed_in_the_middle_is_repeated(rotating: Rotating, when: str, blow: str) -> None:
    """Killed before or after its commit, the client asks again with the same token and continues with what it gets."""
    user_id = f"{when}-{blow.partition(' ')[0]}"
    first = rotating.provider.tokens(PUBLIC, user_id)
    rotating.kill_in_the_middle(when, first["refresh_token"], blow)
    party = rotating.provider.party
    second = party.refresh(PUBLIC, first["refresh_token"])
    assert second.status_code == 200, second.text
    assert party.userinfo(second.json()["access_token"]).json()["sub"] == user_id
    assert party.refresh(PUBLIC, second.json()["refresh_token"]).status_code == 200


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_rotation_killed_in_the_middle_doubles_nothing(rotating: Rotating, when: str) -> None:
    """However often the client asks again, one refresh token lives, and two access tokens: the old and the new."""
    user_id = f"{when}-once"
    first = rotating.provider.tokens(PUBLIC, user_id)
    rotating.kill_in_the_middle(when, first["refresh_token"], "workers killed")
    again = [rotating.provider.party.refresh(PUBLIC, first["refresh_token"]).json() for _ in range(3)]
    for name in ("access_token", "refresh_token"):
        assert len({each[name] for each in again}) == 1
    (grant,) = rotating.grants(user_id)
    assert grant.refresh is not None
    assert grant.refresh.rotation is not None
    assert len(grant.access) == 2
    assert len(rotating.provider.app.grants(user_id)) == 1
