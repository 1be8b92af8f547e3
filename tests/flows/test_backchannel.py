"""Apache with mod_auth_openidc, a service in Python and one in Node are signed out from elsewhere.

Spec: OpenID Connect Back-Channel Logout 1.0
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import jwt as pyjwt
import pytest
import requests

from tests.flows.provider_setup import OWN, Provider, Visitor, client_metadata, fresh_database, usual_clients
from tests.flows.test_js_clients import JS
from tests.support.apache import Apache
from tests.support.app import query_of
from tests.support.faketime import MovingClock
from tests.support.gunicorn import PROJECT, on
from tests.support.pace import in_time
from tests.support.told import wait_for

APACHE, PYTHON, NODE = "apache", "in-python", "in-node"
SECRET: Final = "a-secret-of-each-service-that-the-tests-run"
#: How soon everybody is signed out, in s.
SOON_S: Final = 2.0
#: Longer than every token lives, in s.
LATER_S: Final = 8 * 3600


@dataclass
class Service:
    """One of the two small services."""

    client_id: str
    origin: str

    def sign_in(self, issuer: str, id_token: str) -> None:
        """Begin a session there."""
        answer = requests.post(
            f"{self.origin}/sign-in", json={"issuer": issuer, "id_token": id_token}, timeout=20
        )
        assert answer.status_code == 200

    def knows(self, sid: str) -> bool:
        """Whether the session is there."""
        return requests.get(f"{self.origin}/session/{sid}", timeout=20).status_code == 200


@contextlib.contextmanager
def _running(client_id: str, clock: MovingClock, *command: str) -> Iterator[Service]:
    with subprocess.Popen(
        [*command, client_id],
        cwd=PROJECT,
        env=os.environ | clock.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield Service(client_id, f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.kill()


def _node() -> str:
    own = next(JS.glob("node_modules/node-linux-*/bin/node"), None)
    return str(own) if own else "node"


@dataclass
class House:
    """The provider, and all of its services."""

    provider: Provider
    apache: Apache
    services: tuple[Service, ...]
    clock: MovingClock

    @property
    def page(self) -> str:
        """The protected page of Apache."""
        return f"{self.apache.origin}/protected/who.shtml"


@pytest.fixture(scope="module", params=("sqlite on gunicorn", "postgres on granian"))
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    """All of it, running."""
    with ExitStack() as stack:
        url = stack.enter_context(fresh_database(request, request.param))
        apache = stack.enter_context(Apache())
        clock = MovingClock(apache.folder / "clock")
        services = (
            stack.enter_context(_running(PYTHON, clock, sys.executable, "-m", "tests.flows.signed_out")),
            stack.enter_context(_running(NODE, clock, _node(), str(JS / "signed_out.mjs"))),
        )
        of_apache = client_metadata(APACHE, SECRET, apache.origin) | {
            "redirect_uris": [apache.redirect_uri],
            "backchannel_logout_uri": f"{apache.redirect_uri}?logout=backchannel",
        }

        def clients(origin: str) -> list[dict[str, Any]]:
            told = [
                client_metadata(each.client_id, SECRET, origin)
                | {"backchannel_logout_uri": f"{each.origin}/backchannel"}
                for each in services
            ]
            return [*usual_clients(origin), of_apache, *told]

        provider = stack.enter_context(
            Provider(
                url,
                clients=clients,
                secrets={each.client_id: SECRET for each in services},
                PYLON_OUTBOUND_ALLOW="127.0.0.1,localhost",
                **clock.environment,
                **on(request.param),
            )
        )
        apache.start(provider.issuer, APACHE, SECRET, **clock.environment)
        yield House(provider, apache, services, clock)


def _by_logout_at_a_third(house: House, visitor: Visitor, tokens: Mapping[str, str], _user: str) -> None:
    url = f"{house.provider.issuer}/oidc/logout?id_token_hint={tokens['id_token']}"
    assert visitor.open(url).status_code == 200


def _by_the_app(house: House, _visitor: Visitor, tokens: Mapping[str, str], user: str) -> None:
    other = house.provider.app.session(user)
    sid = pyjwt.decode(tokens["id_token"], options={"verify_signature": False})["sid"]
    answer = requests.delete(
        f"{house.provider.issuer}/api/auth/sessions/{sid}",
        headers={"Authorization": f"Bearer {other}"},
        timeout=20,
    )
    assert answer.json() == {"revoked": True}


def _by_lock_out(house: House, _visitor: Visitor, _tokens: Mapping[str, str], user: str) -> None:
    house.provider.app.call("DELETE", f"/api/auth/users/{user}/sessions")


WAYS: Final[Mapping[str, Callable[[House, Visitor, Mapping[str, str], str], None]]] = {
    "logout at a third": _by_logout_at_a_third,
    "the app": _by_the_app,
    "a lock-out": _by_lock_out,
}


def _tokens(house: House, visitor: Visitor, client_id: str) -> dict[str, Any]:
    request, url = house.provider.party.begin(client_id)
    return house.provider.party.take(visitor.answer(url)).tokens | {"client_id": request.client_id}


@dataclass
class Signed:
    """A user who is signed in at all three."""

    house: House
    visitor: Visitor
    user: str
    third: Mapping[str, str]
    sid: str

    def is_in_at_apache(self) -> bool:
        """Whether the protected page comes."""
        answer = self.visitor.http.get(self.house.page, allow_redirects=False, timeout=20)
        if answer.status_code == 302:
            assert "client_id" in query_of(answer.headers["Location"])
        return answer.status_code == 200

    def end(self, way: str) -> None:
        """End the session; everybody knows within 2 s."""
        began = time.monotonic()
        WAYS[way](self.house, self.visitor, self.third, self.user)
        assert wait_for(lambda: not any(each.knows(self.sid) for each in self.house.services))
        assert wait_for(lambda: not self.is_in_at_apache()), self.house.apache.output()
        assert in_time(time.monotonic() - began, SOON_S)


def _signed_in(house: House, user: str) -> Signed:
    visitor, provider = Visitor(house.provider), house.provider
    page = visitor.open(provider.app.login(visitor.begin(house.page), user))
    assert f"REMOTE_USER={user}\n" in page.text, house.apache.output()
    third = _tokens(house, visitor, OWN)
    sid = pyjwt.decode(third["id_token"], options={"verify_signature": False})["sid"]
    for each in house.services:
        each.sign_in(provider.issuer, _tokens(house, visitor, each.client_id)["id_token"])
        assert each.knows(sid)
    return Signed(house, visitor, user, third, sid)


@pytest.mark.parametrize("way", WAYS)
def test_everybody_is_signed_out(house: House, way: str) -> None:
    """Within 2 s of the end of the session, at each of the three; another user who is signed in there stays."""
    user, stayer = way.replace(" ", "-"), Visitor(house.provider)
    signed = _signed_in(house, user)
    stayer.open(house.provider.app.login(stayer.begin(house.page), f"{user}-stays"))
    signed.end(way)
    assert f"REMOTE_USER={user}-stays\n" in stayer.open(house.page).text


def test_everybody_is_signed_out_hours_after_the_last_token(house: House) -> None:
    """docs/sign-in.md: 8 h later every access and ID token has ended, the sessions have not; all clocks are moved."""
    signed = _signed_in(house, "late")
    assert house.provider.server.stop() == 0
    house.clock.move(LATER_S)
    house.provider.start()
    time.sleep(1.5)  # until everybody has noticed
    bearer = {"Authorization": f"Bearer {signed.third['access_token']}"}
    userinfo = requests.get(f"{house.provider.issuer}/oidc/userinfo", headers=bearer, timeout=20)
    assert userinfo.status_code == 401
    assert signed.is_in_at_apache(), house.apache.output()
    signed.end("the app")
