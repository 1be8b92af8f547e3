"""Whatever devices and their users do in whatever order, the provider says what a model of a few lines says; on both databases.

The model knows of a device when it started, how long it has to wait, when it last asked, and what its user has said. It
knows nothing of rows, versions or hashes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.storage.outages import migrated_database
from tests.storage.stores import open_url
from tests.storage.worlds import World, world_on

GRANT: Final = "urn:ietf:params:oauth:grant-type:device_code"
LIFETIME_S: Final = 600
_numbers = itertools.count()

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(params=["sqlite", "postgres"], scope="module")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A provider on a database."""
    with migrated_database(request) as (url, _), closing(open_url(url)) as store:
        yield world_on(store, url)


@dataclass
class Device:
    """What the model knows of a device."""

    codes: dict[str, Any]
    started_at: int
    interval_s: int = 5
    asked_at: int | None = None
    said: str = ""
    session: int = -1
    fetched: bool = False

    def waits(self, now: int) -> bool:
        """Whether its user may still decide."""
        return not self.said and now < self.started_at + LIFETIME_S

    def told(self, now: int, sessions: list[str | None]) -> str:
        """What it is answered when it asks now."""
        if now >= self.started_at + LIFETIME_S:
            return "expired_token"
        if self.said == "allow":
            return "invalid_grant" if self.fetched or sessions[self.session] is None else ""
        if self.said == "deny":
            return "access_denied"
        early = self.asked_at is not None and now - self.asked_at < self.interval_s
        self.asked_at = now
        self.interval_s += 5 * early
        return "slow_down" if early else "authorization_pending"


class Model:
    """One user and one client, what is done by them and to them, and what must come of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        # The wrong codes of the models before, which came from the same address, no longer count.
        world.provider.clock.advance(601)
        number = next(_numbers)
        self.user, client_id = f"viewer-{number}", f"tv-{number}"
        metadata = {
            "client_id": client_id,
            "grant_types": [GRANT],
            "token_endpoint_auth_method": "none",
            "id_token_signed_response_alg": "ES256",
        }
        assert world.app.call("POST", "/api/oidc/clients", metadata).status == 201
        self.rp = world.provider.rp(client_id, secret=None)
        self.devices: list[Device] = []
        self.sessions: list[str | None] = []
        self.wrong: list[int] = []
        self.sign_in()

    @property
    def now(self) -> int:
        """Unix s."""
        return self.world.now

    def start(self, _n: int = 0, _m: int = 0) -> None:
        """A device asks for its codes."""
        answer = self.rp.post("/oidc/device_authorization", {"scope": "openid"})
        self.devices.append(Device(answer.json(), self.now))

    def ask(self, n: int, _m: int) -> None:
        """A device asks whether its user has decided."""
        if not self.devices:
            return
        device = self.devices[n % len(self.devices)]
        form = {"grant_type": GRANT, "device_code": device.codes["device_code"]}
        answer = self.rp.post("/oidc/token", form)
        expected = device.told(self.now, self.sessions)
        assert answer.json().get("error", "") == expected, (device, self.now)
        device.fetched = device.fetched or answer.status == 200

    def decide(self, n: int, m: int) -> None:
        """The user enters the code of a device, and says yes or no."""
        if not self.devices or self.sessions[-1] is None:
            return
        device = self.devices[n % len(self.devices)]
        page = self._browser().go(device.codes["verification_uri_complete"])
        if self._is_locked():
            assert page.is_page(429), page
        elif not device.waits(self.now):
            assert page.is_page(400), page
            self.wrong.append(self.now)
        else:
            assert page.is_page() and "decision" in page.text, page
            device.said = ("allow", "deny")[m % 4 == 0]
            device.session = len(self.sessions) - 1
            assert self._last.submit(page, decision=device.said).is_page()

    def guess(self, _n: int, _m: int) -> None:
        """The user enters a code that no device shows."""
        if self.sessions[-1] is None:
            return
        page = self._browser().go(f"{self.world.provider.issuer}/oidc/device?user_code=AAAA-AAAA")
        assert page.is_page(429 if self._is_locked() else 400), page
        if not self._is_locked():
            self.wrong.append(self.now)

    def sign_in(self, _n: int = 0, _m: int = 0) -> None:
        """The user begins another session."""
        self.sessions.append(self.world.app.session(self.user)["token"])

    def sign_out(self, _n: int, _m: int) -> None:
        """The user ends the latest session."""
        if (token := self.sessions[-1]) is not None:
            assert self.world.provider.ask("DELETE", "/api/auth/session", token=token).status == 200
            self.sessions[-1] = None

    def wait(self, _n: int, m: int) -> None:
        """Let time pass."""
        self.world.provider.clock.advance((1, 4, 5, 6, 10, 20, 300, 599, 600)[m % 9])

    def _is_locked(self) -> bool:
        return sum(at > self.now - 600 for at in self.wrong) >= 5

    def _browser(self) -> Any:
        self._last = self.world.provider.browser()
        self._last.set_cookie("pylon_session", self.sessions[-1])
        return self._last


ACTS: Final = ("start", "ask", "decide", "guess", "sign_in", "sign_out", "wait")
OFTEN: Final = ("start", "ask", "ask", "decide", "wait")
STEP = st.tuples(st.sampled_from(ACTS + OFTEN), st.integers(0, 3), st.integers(0, 20))
LOCKED: Final = [("guess", 0, 0)] * 5


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@example([("start", 0, 0), ("decide", 0, 1), ("ask", 0, 0), ("ask", 0, 0), ("decide", 0, 1)])
@example(
    [
        ("start", 0, 0),
        ("ask", 0, 0),
        ("ask", 0, 0),
        ("wait", 0, 3),
        ("ask", 0, 0),
        ("wait", 0, 5),
        ("ask", 0, 0),
    ]
)
@example(
    [
        ("start", 0, 0),
        *LOCKED,
        ("decide", 0, 1),
        ("wait", 0, 8),
        ("decide", 0, 1),
        ("start", 0, 0),
        ("decide", 1, 0),
    ]
)
@example(
    [("start", 0, 0), ("decide", 0, 1), ("sign_out", 0, 0), ("ask", 0, 0), ("sign_in", 0, 0), ("ask", 0, 0)]
)
@given(st.lists(STEP, min_size=4, max_size=16))
def test_whatever_is_done_the_model_says_it(world: World, steps: list[tuple[str, int, int]]) -> None:
    """RFC 8628 §3.5, §5.1: a device, its codes and its user, over any sequence."""
    model = Model(world)
    for act, n, m in steps:
        getattr(model, act)(n, m)
