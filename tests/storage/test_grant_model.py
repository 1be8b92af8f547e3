"""Whatever is done to grants in whatever order, the provider says what a model of a few lines says; on both databases.

The model knows of a grant whether it lives, whether its code is good, which refresh token is its last one and which was
the one before, and which access tokens it has given. It knows nothing of rows, versions or hashes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.provider.driver import CALLBACK, Request
from tests.storage.outages import migrated_database
from tests.storage.stores import open_url
from tests.storage.worlds import World, world_on

ACCESS_S: Final = 3600
GRACE_S: Final = 30
CODE_S: Final = 60
IDLE_S: Final = 30 * 86_400
MAX_S: Final = 90 * 86_400
SESSION_S: Final = 7 * 86_400
OFFLINE: Final = "openid offline_access"
_numbers = itertools.count()


pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture(params=["sqlite", "postgres"], scope="module")
def world(request: pytest.FixtureRequest) -> Iterator[tuple[World, str]]:
    """A provider on a database."""
    with migrated_database(request) as (url, _), closing(open_url(url)) as store:
        yield world_on(store, url), url


@dataclass
class Token:
    """An access token: until when it is good, and whether it was taken back."""

    shown: str
    ends_at: int
    revoked: bool = False


@dataclass
class Refresh:
    """A refresh token."""

    shown: str
    made_at: int
    used_at: int | None = None


@dataclass
class Grant:
    """What the model knows of a grant."""

    request: Request
    code: str
    made_at: int
    offline: bool
    session: int
    alive: bool = True
    redeemed_at: int | None = None
    access: list[Token] = field(default_factory=list)
    refresh: list[Refresh] = field(default_factory=list)


class Model:
    """One user and one client, what is done by them and to them, and what must come of it."""

    def __init__(self, world: World, url: str) -> None:
        self.world, self.url = world, url
        number = next(_numbers)
        self.user, self.client_id = f"user-{number}", f"client-{number}"
        self.grants: list[Grant] = []
        self.sessions: list[tuple[str, int] | None] = []
        self.may_be_offline = True
        self.add_client()
        self.sign_in()

    @property
    def now(self) -> int:
        """Unix s."""
        return self.world.now

    # --- what is done, and what must come of it ---

    def add_client(self) -> None:
        """Register the client; its secret is new each time."""
        made = self.world.app.call(
            "POST",
            "/api/oidc/clients",
            {
                "client_id": self.client_id,
                "redirect_uris": [CALLBACK],
                "first_party": True,
                "id_token_signed_response_alg": "ES256",
            },
        )
        assert made.status == 201, made
        self.rp = self.world.provider.rp(
            self.client_id, secret=made.json()["client_secret"], redirect_uri=CALLBACK
        )
        self.may_be_offline = True

    def sign_in(self, _n: int = 0, _m: int = 0) -> None:
        """Begin a session."""
        begun = self.world.app.session(self.user)
        self.sessions.append((begun["token"], self.now + SESSION_S))

    def authorize(self, n: int, m: int) -> None:
        """A code by one of the sessions; none where it has ended."""
        which = n % len(self.sessions)
        session = self.sessions[which]
        browser = self.world.provider.browser()
        if session is not None:
            browser.set_cookie(self.world.provider.house.settings.cookie_name, session[0])
        offline = m % 3 > 0
        request = self.rp.request(scope=OFFLINE if offline else "openid")
        landing = browser.go(request.url)
        lives = session is not None and self.now < session[1]
        assert landing.is_at(CALLBACK) == lives, landing
        if lives:
            made = Grant(request, landing.parameters["code"], self.now, offline, which)
            self.grants.append(made)

    def redeem(self, n: int, m: int) -> None:
        """The exchange of a code, perhaps with a wrong verifier, perhaps once more."""
        if not self.grants:
            return
        grant = self.grants[n % len(self.grants)]
        changed = {"code_verifier": "w" * 43} if m % 4 == 0 else {}
        answer = self.rp.redeem(grant.request, grant.code, **changed)
        good = self._lives(grant) and not changed
        if good and grant.redeemed_at is not None:
            grant.alive = good = False
        if not good:
            assert (answer.status, answer.json()["error"]) == (400, "invalid_grant"), answer
            return
        assert answer.status == 200, answer
        grant.redeemed_at = self.now
        offline = grant.offline and self.may_be_offline
        assert ("refresh_token" in answer.json()) == offline
        self._note(grant, answer.json())

    def refresh(self, n: int, m: int) -> None:
        """The last refresh token of a grant, or one before it."""
        if not (known := [grant for grant in self.grants if grant.refresh]):
            return
        grant = known[n % len(known)]
        token = grant.refresh[-1 - m % len(grant.refresh)]
        answer = self.rp.refresh(token.shown)
        last = grant.refresh[-1]
        if not self._lives(grant) or not self.may_be_offline:
            assert (answer.status, answer.json()["error"]) == (400, "invalid_grant"), answer
        elif token is last and self.now < min(token.made_at + IDLE_S, grant.made_at + MAX_S):
            assert answer.status == 200, answer
            token.used_at = self.now
            self._note(grant, answer.json())
        elif token is last:
            assert answer.status == 400, answer
        elif token is grant.refresh[-2] and self.now < (token.used_at or 0) + GRACE_S:
            assert answer.status == 200, answer
            assert answer.json()["refresh_token"] == last.shown
            assert answer.json()["access_token"] in {each.shown for each in grant.access}
        else:
            assert answer.status == 400, answer
            grant.alive = False

    def damage(self, n: int, m: int) -> None:
        """A handle that was cut or damaged on its way: refused, and nothing ends."""
        if not (known := [grant for grant in self.grants if grant.refresh]):
            return
        shown = known[n % len(known)].refresh[0].shown
        place = m % len(shown)
        broken = (
            shown[:place]
            if m % 2
            else shown[:place] + ("A" if shown[place] != "A" else "B") + shown[place + 1 :]
        )
        answer = self.rp.refresh(broken)
        assert answer.status == 400, answer

    def revoke(self, n: int, m: int) -> None:
        """An access token, or by a refresh token the whole grant."""
        if not (known := [grant for grant in self.grants if grant.access]):
            return
        grant = known[n % len(known)]
        if m % 3 == 0 and grant.refresh:
            assert self.rp.revoke(grant.refresh[m % len(grant.refresh)].shown).status == 200
            grant.alive = False
            return
        token = grant.access[m % len(grant.access)]
        assert self.rp.revoke(token.shown).status == 200
        token.revoked = True

    def sign_out(self, n: int, _m: int) -> None:
        """End one session: what does not outlive it ends, and so do all its access tokens."""
        which = n % len(self.sessions)
        session = self.sessions[which]
        if session is None:
            return
        assert self.world.provider.ask("DELETE", "/api/auth/session", token=session[0]).status == 200
        if self.now < session[1]:
            self._end_of(which)
        self.sessions[which] = None

    def lock_out(self, _n: int, _m: int) -> None:
        """End all of the user."""
        assert self.world.app.call("DELETE", f"/api/auth/users/{self.user}/sessions").status == 200
        for grant in self.grants:
            grant.alive = False
        self.sessions = [None for _ in self.sessions]
        self.sign_in()

    def change_client(self, _n: int, m: int) -> None:
        """Take offline access from the client, or give it back."""
        self.may_be_offline = m % 2 == 0
        scope = OFFLINE if self.may_be_offline else "openid"
        metadata = {
            "redirect_uris": [CALLBACK],
            "first_party": True,
            "id_token_signed_response_alg": "ES256",
            "scope": scope,
        }
        assert self.world.app.call("PUT", f"/api/oidc/clients/{self.client_id}", metadata).status == 200

    def remove_client(self, _n: int, _m: int) -> None:
        """Remove the client; another comes under its id."""
        assert self.world.app.call("DELETE", f"/api/oidc/clients/{self.client_id}").status == 204
        for grant in self.grants:
            grant.alive = False
        self.add_client()

    def wait(self, _n: int, m: int) -> None:
        """Let time pass."""
        self.world.provider.clock.advance((1, 15, 30, 31, 61, 3600, 86_400, 31 * 86_400)[m % 8])

    def restart(self, _n: int, _m: int) -> None:
        """Another process continues with what is stored."""
        clock = self.world.provider.clock
        secret = self.rp.secret
        self.world = world_on(self.world.store, self.url, clock)
        self.rp = self.world.provider.rp(self.client_id, secret=secret, redirect_uri=CALLBACK)

    # --- what the model knows ---

    def check(self) -> None:
        """Every access token is good exactly where the model says so."""
        for grant in self.grants:
            for token in grant.access:
                good = self._lives(grant) and not token.revoked and self.now < token.ends_at
                assert (self.rp.userinfo(token.shown).status == 200) == good, (grant, token, self.now)
        alive = {grant.request.parameters["nonce"] for grant in self.grants if self._lives(grant)}
        assert len(self.world.app.grants(self.user)) == len(alive)

    def _lives(self, grant: Grant) -> bool:
        if not grant.alive:
            return False
        if grant.redeemed_at is None:
            return self.now < grant.made_at + CODE_S
        ends_at = grant.made_at + MAX_S if grant.refresh else grant.redeemed_at + ACCESS_S
        return self.now < ends_at

    def _note(self, grant: Grant, tokens: dict[str, Any]) -> None:
        grant.access.append(Token(tokens["access_token"], self.now + tokens["expires_in"]))
        if "refresh_token" in tokens:
            grant.refresh.append(Refresh(tokens["refresh_token"], self.now))

    def _end_of(self, which: int) -> None:
        for grant in self.grants:
            if grant.session != which:
                continue
            if not grant.refresh:
                grant.alive = False
            for token in grant.access:
                token.revoked = True


ACTS: Final = (
    "authorize", "redeem", "refresh", "damage", "revoke", "sign_in", "sign_out", "lock_out", "change_client",
    "remove_client", "wait", "restart",
)  # fmt: skip
OFTEN: Final = ("authorize", "redeem", "refresh", "refresh", "wait")
STEP = st.tuples(st.sampled_from(ACTS + OFTEN), st.integers(0, 7), st.integers(0, 120))


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@example([("authorize", 0, 1), ("redeem", 0, 1), ("refresh", 0, 0), ("refresh", 0, 1), ("refresh", 0, 0)])
@example(
    [
        ("authorize", 0, 1),
        ("redeem", 0, 1),
        ("refresh", 0, 0),
        ("wait", 0, 2),
        ("refresh", 0, 1),
        ("refresh", 0, 0),
    ]
)
@example([("authorize", 0, 1), ("redeem", 0, 1), ("refresh", 0, 0), ("sign_out", 0, 0), ("refresh", 0, 0)])
@example([("authorize", 0, 1), ("redeem", 0, 1), ("redeem", 0, 0), ("redeem", 0, 1), ("refresh", 0, 0)])
@example(
    [
        ("authorize", 0, 1),
        ("redeem", 0, 1),
        ("change_client", 0, 1),
        ("refresh", 0, 0),
        ("change_client", 0, 0),
    ]
)
@given(st.lists(STEP, min_size=3, max_size=14))
def test_whatever_is_done_the_model_says_it(
    world: tuple[World, str], steps: list[tuple[str, int, int]]
) -> None:
    """RFC 6749 §4.1.2, §6, §10.4, RFC 7009 §2, RFC 9700 §4.14: a grant, its code and its tokens, over any sequence."""
    model = Model(*world)
    for act, n, m in steps:
        getattr(model, act)(n, m)
        model.check()
