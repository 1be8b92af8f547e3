"""Keys rotate under load, and no verifier notices (docs/keys.md).

Two gunicorns of two workers on one PostgreSQL behind the shipped nginx, whose cache takes part; clients that mint, sign
in, refresh and sign out with old hints; PyJWT and jose as verifiers that keep the key set for its full max-age.
"""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import jwt
import pytest
import requests

from service.keys.ring import KeyRecords, Margins, Ring, UnsafeStep, with_role
from service.keys.rotation import revoked, rotated
from service.keys.sealing import SealingKeys
from service.keys.store import RingStore
from tests.flows.polling import wait_until, working
from tests.flows.provider_setup import OWN, SECRETS, Visitor, fresh_database, usual_clients
from tests.flows.rotating import MARGINS
from tests.flows.test_provider_clients import JS, find_node
from tests.storage.stores import open_url
from tests.support.app import App, RelyingParty
from tests.support.gunicorn import ADMIN, SERVERS, Gunicorn, hold_port
from tests.support.nginx import NginxSite

ALGS = ("RS256", "ES256")
ROTATIONS = 10
#: What the lead has room for in addition to caches and workers. Where a step takes longer, on a busy machine, the rotations
#: about it show nothing: others are made instead.
ROOM_S = 1.0
#: For how long a key that came late is met: until it signs, and the last token of the one before has ended.
WAKE_S = MARGINS.lead_s + MARGINS.longest_token_s + MARGINS.linger_s
SEALING = bytes(range(32))
SEALING_TEXT = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PAUSE_S = 0.1


class Jose:
    """A process of jose, with one key set for all that it is shown."""

    def __init__(self, uri: str, ca: str) -> None:
        self._lock = threading.Lock()
        direct = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self._process = subprocess.Popen(
            [find_node(), JS / "rotation.mjs", uri, str(MARGINS.max_age_s * 1000)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=direct | {"NODE_EXTRA_CA_CERTS": ca},
        )

    def verify(self, token: str) -> str:
        """What it says."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(token + "\n")
            self._process.stdin.flush()
            return self._process.stdout.readline().strip()

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@dataclass
class Stand:
    """What the test stands on.

    Attributes:
        site: nginx with the shipped site.
        servers: The two gunicorns.
        app, party: The app next to the provider, and its client.
        issuer: Of all tokens.
        rings: The ring, as an operator's command sees it.
    """

    site: NginxSite
    servers: list[Gunicorn]
    app: App
    party: RelyingParty
    issuer: str
    rings: RingStore

    @property
    def jwks_uri(self) -> str:
        """Of the provider, through nginx."""
        return f"{self.issuer}/oidc/jwks"


@pytest.fixture(scope="module")
def stand(request: pytest.FixtureRequest) -> Iterator[Stand]:
    """All of it."""
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(fresh_database(request, "postgres"))
        app, party = stack.enter_context(App()), stack.enter_context(RelyingParty(SECRETS))
        holders = [stack.enter_context(hold_port()) for _ in range(2)]
        ports = [holder.getsockname()[1] for holder in holders]
        upstream = ";\n    server ".join(f"127.0.0.1:{port}" for port in ports)
        # One credential of one address asks as many would.
        rates = {"rate=100r/s": "rate=100000r/s", "rate=1000r/s": "rate=100000r/s"}
        site = stack.enter_context(NginxSite(upstream, name="localhost", edits=rates))
        issuer = f"https://localhost:{site.https_port}"
        settings: dict[str, Any] = {
            "DATABASE_URL": url,
            "PYLON_ADMIN_TOKEN": ADMIN,
            "PYLON_OIDC_ISSUER": issuer,
            "PYLON_OIDC_KEYS": "managed",
            "PYLON_KEY_ENCRYPTION_KEY": SEALING_TEXT,
            "PYLON_OIDC_ALGS": "ES256",
            "PYLON_JWT_ALG": "ES256",
            "PYLON_JWT_AUDIENCE": "api",
            "PYLON_JWT_LIFETIME_SECS": "3",
            "PYLON_OIDC_ID_TOKEN_LIFETIME_SECS": "3",
            "PYLON_OIDC_ACCESS_TOKEN_LIFETIME_SECS": "3",
            "PYLON_OIDC_CLIENTS": json.dumps(usual_clients(party.origin)),
            "PYLON_LOGIN_URL": f"{app.origin}/sign-in",
        }
        servers = [
            stack.enter_context(
                Gunicorn(server=kind, app="tests.flows.rotating:make()", port=port, wait=False, **settings)
            )
            for kind, port in zip(SERVERS, ports, strict=True)
        ]
        for server in servers:
            wait_until(lambda server=server: server.call("GET", "/readyz").status == 200, 30)
        app.provider = servers[0].origin
        party.issuer, party.verify = issuer, str(site.ca)
        store = open_url(url)
        stack.callback(store.close)
        yield Stand(
            site,
            servers,
            app,
            party,
            issuer,
            RingStore(store, SealingKeys((SEALING,)), ["ES256"], has_clients=True),
        )


@dataclass
class Load:
    """Clients and verifiers that run until they are stopped, and note whatever fails.

    Attributes:
        failed: What failed, and when, by the monotonic clock.
        held_up: When a step had taken longer than there is room for.
    """

    stand: Stand
    jose: Jose
    failed: list[tuple[float, str]] = field(default_factory=list)
    held_up: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    kids: set[str] = field(default_factory=set)
    first_hint: str = ""
    _over: threading.Event = field(default_factory=threading.Event)

    @property
    def failures(self) -> list[str]:
        """What failed while the machine was not too busy to tell."""
        return [what for at, what in self.failed if self.is_calm(at - WAKE_S, at + ROOM_S)]

    def is_calm(self, begin: float, end: float) -> bool:
        """Whether no step was held up in that time."""
        return not any(begin <= at <= end for at in self.held_up)

    def fail(self, what: str) -> None:
        """Note a failure."""
        self.failed.append((time.monotonic(), what))

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """A step that should be short."""
        begun = time.monotonic()
        yield
        if (ended := time.monotonic()) - begun > ROOM_S:
            self.held_up.append(ended)

    def verifier(self) -> Callable[[str, str], None]:
        """A relying party of its own: PyJWT's client, and jose's for every second token."""
        context = ssl.create_default_context(cafile=str(self.stand.site.ca))
        client = jwt.PyJWKClient(self.stand.jwks_uri, lifespan=MARGINS.max_age_s, ssl_context=context)

        def verify(token: str, what: str) -> None:
            self.kids.add(jwt.get_unverified_header(token)["kid"])
            self.counts[what] += 1
            try:
                key = client.get_signing_key_from_jwt(token)
                jwt.decode(
                    token, key, algorithms=list(ALGS), issuer=self.stand.issuer, leeway=1, options=ANY_AUD
                )
            except jwt.PyJWTError as error:
                self.fail(f"{what} by PyJWT: {error}")
            if self.counts[what] % 2 and (said := self.jose.verify(token)) != "ok":
                self.fail(f"{what} by jose: {said}")

        return verify

    def mint(self) -> None:
        """Mint, verify at once, and verify again shortly before the token ends."""
        verify, waiting = self.verifier(), deque[tuple[float, str]]()
        session = self.stand.app.session("ada")
        with requests.Session() as http:
            http.verify, http.trust_env = str(self.stand.site.ca), False
            headers = {"Authorization": f"Bearer {session}"}
            while not self._over.wait(PAUSE_S):
                with self.timed():
                    self.mint_once(http, headers, verify, waiting)

    def mint_once(
        self,
        http: requests.Session,
        headers: dict[str, str],
        verify: Callable[[str, str], None],
        waiting: deque[tuple[float, str]],
    ) -> None:
        """One token more, and those whose time has come."""
        try:
            answer = http.post(f"{self.stand.issuer}/api/auth/jwt", headers=headers, timeout=20)
        except requests.RequestException as error:
            self.fail(f"mint: {error!r}")
            return
        if answer.status_code != 200:
            self.fail(f"mint: {answer.status_code} {answer.text}")
            return
        token = answer.json()["token"]
        verify(token, "fresh")
        waiting.append((time.monotonic() + 2.0, token))
        while waiting and waiting[0][0] < time.monotonic():
            due, token = waiting.popleft()
            if time.monotonic() - due > ROOM_S:
                self.held_up.append(time.monotonic())
            verify(token, "old")

    def sign_in(self) -> None:
        """Sign in, refresh, and sign out with the first ID token that there ever was."""
        verify, party = self.verifier(), self.stand.party
        while not self._over.wait(PAUSE_S):
            visitor = Visitor(self.stand)
            visitor.http.verify = str(self.stand.site.ca)
            try:
                with self.timed():
                    request, url = party.begin(OWN)
                    answer = visitor.answer(self.stand.app.login(visitor.begin(url), "ada"))
                    tokens = party.token(OWN, **party.code_grant(request, answer["code"])).json()
                    verify(tokens["id_token"], "signed in")
                self.first_hint = self.first_hint or tokens["id_token"]
                with self.timed():
                    verify(party.refresh(OWN, tokens["refresh_token"]).json()["id_token"], "refreshed")
                    self.sign_out(visitor)
            except (AssertionError, KeyError, requests.RequestException) as error:
                self.fail(f"flow: {error!r}")

    def sign_out(self, visitor: Visitor) -> None:
        """The hint's key is gone after the first rotations; it still names its client."""
        out = f"{self.stand.party.origin}/out"
        answer = visitor.http.get(
            f"{self.stand.issuer}/oidc/logout",
            params={"id_token_hint": self.first_hint, "post_logout_redirect_uri": out},
            allow_redirects=False,
            timeout=20,
        )
        self.counts["signed out"] += 1
        if answer.headers.get("Location") != out:
            self.fail(f"logout: {answer.status_code}")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """They run while the context lasts."""
        with working(self.mint, self.mint, self.sign_in, until=self._over):
            yield


ANY_AUD: Any = {"verify_aud": False}


@pytest.fixture
def load(stand: Stand) -> Iterator[Load]:
    """Steady load."""
    jose = Jose(stand.jwks_uri, str(stand.site.ca))
    yield Load(stand, jose)
    jose.stop()


def rotate(
    rings: RingStore,
    margins: Margins,
    *algs: str,
    timed: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> None:
    """Rotate the algorithms, or all, as soon as that is allowed."""

    def step(ring: Ring) -> KeyRecords:
        keys = ring.keys
        for alg in algs or ALGS:
            keys = rotated(keys, alg, now, margins)
        return keys

    def try_it() -> bool:
        nonlocal now
        now = int(time.time())
        try:
            with timed():
                rings.ensure(margins, now=now, step=step)
        except UnsafeStep:
            return False
        return True

    now = 0
    wait_until(try_it, 20)


def test_ten_rotations_under_load_and_no_verifier_notices(stand: Stand, load: Load) -> None:
    """Zero verification failures over ten rotations of both algorithms."""
    with load.running():
        wait_until(lambda: load.counts["old"] > 5 and load.counts["signed out"], 30)
        rotated_at: list[float] = []
        while _calm(load, rotated_at) < ROTATIONS and len(rotated_at) < 2 * ROTATIONS:
            rotate(stand.rings, MARGINS, timed=load.timed)
            rotated_at.append(time.monotonic())
        enough = load.counts["old"] + 20
        wait_until(lambda: load.counts["old"] > enough, 30)
    assert load.failures == []
    assert _calm(load, rotated_at) >= ROTATIONS / 2, "this machine is too busy to tell"
    # Each rotation was seen: a key of each algorithm more.
    assert len(load.kids) >= 2 * len(rotated_at)
    assert min(load.counts[what] for what in ("fresh", "old", "signed in", "refreshed", "signed out")) > 20


def _calm(load: Load, rotated_at: list[float]) -> int:
    """How many rotations nothing was held up after."""
    return sum(load.is_calm(at, at + WAKE_S) for at in rotated_at)


def test_a_revoked_key_is_out_of_the_set_as_soon_as_a_worker_may_take_to_learn(stand: Stand) -> None:
    """docs/keys.md: `revoke` takes a key out of our JWKS within 60 s (here 1 s), for all workers of all replicas, and out of
    caches within their max-age.
    """
    now = int(time.time())
    ring = stand.rings.load(now=now)
    assert ring is not None
    kid = with_role(ring.keys, "ES256", "active", now)[0].kid

    def kids() -> set[str]:
        with requests.Session() as http:
            http.trust_env = False
            answer = http.get(stand.jwks_uri, verify=str(stand.site.ca), timeout=20)
        return {key["kid"] for key in answer.json()["keys"]}

    assert kid in kids()
    stand.rings.ensure(MARGINS, now=now, step=lambda ring: revoked(ring.keys, kid, now, MARGINS))
    end = time.monotonic() + MARGINS.learn_s + MARGINS.max_age_s + 1
    while time.monotonic() < end:  # all the time somebody has it kept
        kids()
        time.sleep(0.05)
    assert [kid in kids() for _ in range(20)] == [False] * 20


def test_without_a_lead_verifiers_meet_unknown_keys(stand: Stand, load: Load) -> None:
    """The same load with the lead cut to zero: a key signs as soon as it is made, and verifications fail."""
    hasty = replace(MARGINS, lead_s=0, learn_s=0)
    with load.running():
        wait_until(lambda: load.counts["fresh"] > 5, 30)
        for _ in range(ROTATIONS):
            rotate(stand.rings, hasty)
            enough = load.counts["fresh"] + 10
            wait_until(lambda enough=enough: load.counts["fresh"] > enough, 30)
            if load.failed:
                break
    assert any("PyJWT" in failure or "jose" in failure for _, failure in load.failed), load.counts
