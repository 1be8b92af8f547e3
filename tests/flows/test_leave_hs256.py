"""docs/leave-hs256.md, walked under load: an audience moves from HS256 to ES256 and back, and no verifier refuses a token.

At each step a replica replaces another, and both answer for a moment. PyJWT, by the page's own code, and jose verify by
no more than the step promises; introspection asks either replica.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import itertools
import json
import os
import random
import subprocess
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Literal

import jwt
import pytest

from service.settings import read_settings
from tests.docs.markdown import blocks, page
from tests.flows.polling import wait_until, working
from tests.flows.test_provider_clients import JS, find_node
from tests.settings.conftest import Run as RunCommand
from tests.support.databases import make_migrated
from tests.support.gunicorn import ADMIN, SECRET, Gunicorn

AUDIENCE: Final = "billing"
OWN: Final = SECRET[::-1]
LIFE_S: Final = 3
SESSIONS: Final = 24
PAUSE_S: Final = 0.05
#: How long a step is looked at.
LOOK_S: Final = 0.6
Knows = Literal["old", "both", "new"]

HS: Final = f'alg = "HS256"\nsecret_env = "BILLING_SECRET"\nlifetime_s = {LIFE_S}\n'
ES: Final = f'alg = "ES256"\nlifetime_s = {LIFE_S}\n'
TO_ES: Final = HS + 'migrate = {{ to = "ES256", percent = {} }}\n'
TO_HS: Final = 'secret_env = "BILLING_SECRET"\n' + ES + 'migrate = {{ to = "HS256", percent = {} }}\n'
KEYS: Final = {
    "PYLON_OIDC_KEYS": "managed",
    "PYLON_KEY_ENCRYPTION_KEY": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    "PYLON_OIDC_ALGS": "RS256,ES256",
}


class KeySet:
    """A cache in front of `/oidc/jwks`, at the issuer's address: it has the set that it was given last."""

    def __init__(self) -> None:
        self.body = b'{"keys": []}'
        cache = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(cache.body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://localhost:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()


class Verifiers:
    """Two services that verify: PyJWT, by the code of the page, and jose.

    Attributes:
        knows: what both know now: the secret, the secret and the published keys, or those keys only.
    """

    def __init__(self, issuer: str) -> None:
        self.knows: Knows = "old"
        self._options: Any = {"audience": AUDIENCE, "issuer": issuer}
        code = blocks(page("leave-hs256.md"))["both"].code
        self._page: dict[str, Any] = {"ISSUER": issuer, "SECRET": OWN}
        exec(compile(code, "leave-hs256.md", "exec"), self._page)
        self._lock = threading.Lock()
        direct = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        self._jose = subprocess.Popen(
            [find_node(), JS / "leaving.mjs", issuer, AUDIENCE, OWN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=direct,
        )

    def refusals(self, token: str) -> Iterator[str]:
        """Who refuses a token, and why."""
        with self._lock:
            knows = self.knows
            assert self._jose.stdin is not None and self._jose.stdout is not None
            self._jose.stdin.write(f"{knows} {token}\n")
            self._jose.stdin.flush()
            if (said := self._jose.stdout.readline().strip()) != "ok":
                yield f"jose, which knows {knows}: {said}"
        try:
            self._by_pyjwt(token, knows)
        except jwt.PyJWTError as error:
            yield f"PyJWT, which knows {knows}: {error!r}"

    def _by_pyjwt(self, token: str, knows: Knows) -> None:
        if knows == "both":
            self._page["verify"](token)
        elif knows == "old":
            jwt.decode(token, OWN, algorithms=["HS256"], **self._options)
        else:
            key = self._page["JWKS"].get_signing_key_from_jwt(token)
            jwt.decode(token, key, algorithms=["ES256"], **self._options)

    def stop(self) -> None:
        """End jose."""
        self._jose.kill()
        self._jose.communicate()


@dataclass
class Service:
    """The service: replicas on one database, each with the policy file of its start.

    Attributes:
        folder: of the database and the files.
        keys: the cache of the key set.
        live: the replicas that get requests.
    """

    folder: Path
    keys: KeySet
    live: list[Gunicorn] = field(default_factory=list)
    started: list[Gunicorn] = field(default_factory=list)
    _asked: Counter[int] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _files: Iterator[int] = field(default_factory=itertools.count)
    _stopping: ThreadPoolExecutor = field(default_factory=ThreadPoolExecutor)

    def settings(self, table: str) -> dict[str, str]:
        """The settings of a replica whose policy file has that table."""
        file = self.folder / f"policies-{next(self._files)}.toml"
        file.write_text(f'[audience."{AUDIENCE}"]\n{table}')
        return {
            "PYLON_DATA_DIR": str(self.folder / "data"),
            "PYLON_POLICIES": str(file),
            "BILLING_SECRET": OWN,
            "PYLON_ADMIN_TOKEN": ADMIN,
            "PYLON_OIDC_ISSUER": self.keys.issuer,
            **KEYS,
        }

    def start(self, *tables: str) -> list[Gunicorn]:
        """Replicas that are ready, and get no requests yet."""
        new = [Gunicorn(wait=False, WEB_CONCURRENCY="1", **self.settings(table)) for table in tables]
        self.started += new
        for each in new:
            wait_until(functools.partial(_is_ready, each), 30)
        return new

    @contextlib.contextmanager
    def asking(self) -> Iterator[Gunicorn]:
        """Any replica that gets requests; it is not stopped while the context lasts."""
        with self._lock:
            server = random.choice(self.live)
            self._asked[id(server)] += 1
        try:
            yield server
        finally:
            with self._lock:
                self._asked[id(server)] -= 1

    def roll(self, table: str) -> Gunicorn:
        """A replica takes the place of another; for a moment both answer. The old one ends after its last answer."""
        old, (new,) = self.live, self.start(table)
        self.live = [*old, new]
        time.sleep(LOOK_S)
        with self._lock:
            self.live = [new]
        wait_until(lambda: not any(self._asked[id(each)] for each in old), 60)
        for each in old:
            self._stopping.submit(each.stop)
        return new

    def publish(self) -> None:
        """The cache takes the key set as it is now."""
        self.keys.body = self.live[0].call("GET", "/oidc/jwks").body

    def stop(self) -> None:
        """End every replica."""
        self._stopping.shutdown()
        for each in self.started:
            each.kill()


def _is_ready(server: Gunicorn) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return server.call("GET", "/readyz").status == 200
    return False


class Load:
    """Sessions that mint without a pause, and whatever refuses their tokens, fresh and shortly before they end.

    Attributes:
        failed: what went wrong, at which step.
        counts: how many tokens of which algorithm were verified.
        given: the algorithms of the tokens that each replica gave, by its `id`.
        last: algorithm -> the latest `iat` and `exp` that was seen.
        step: what is done now.
    """

    def __init__(self, service: Service, verifiers: Verifiers) -> None:
        self.service, self.verifiers = service, verifiers
        self.failed: list[str] = []
        self.counts: Counter[str] = Counter()
        self.given: defaultdict[int, list[str]] = defaultdict(list)
        self.last: dict[str, tuple[int, int]] = {}
        self.step = ""
        self._over, self._noting = threading.Event(), threading.Lock()
        self._sessions = [self._ask("POST", "/api/auth/session", ADMIN, {"user_id": f"user-{number}"})["token"] for number in range(SESSIONS)]  # fmt: skip

    def _ask(self, method: str, path: str, bearer: str, body: dict[str, str] | str) -> dict[str, Any]:
        """Ask any replica that gets requests."""
        with self.service.asking() as server:
            return self._ask_this(server, method, path, bearer, body)

    @staticmethod
    def _ask_this(
        server: Gunicorn, method: str, path: str, bearer: str, body: dict[str, str] | str
    ) -> dict[str, Any]:
        is_form = isinstance(body, str)
        headers = {
            "Authorization": f"Bearer {bearer}",
            "Content-Type": "application/x-www-form-urlencoded" if is_form else "application/json",
        }
        answer = server.call(method, path, headers=headers, body=body if is_form else json.dumps(body))
        assert answer.status in {200, 201}, answer
        value: dict[str, Any] = answer.json()
        return value

    def check(self, token: str, when: str) -> None:
        """Let everybody verify a token who may be shown it."""
        alg = jwt.get_unverified_header(token)["alg"]
        self.counts[alg] += 1
        wrong = list(self.verifiers.refusals(token))
        if not self._ask("POST", "/oidc/introspect", ADMIN, f"token={token}")["active"]:
            wrong.append("introspection: inactive")
        if time.time() < self._claims(token)["exp"]:  # else this machine was too busy to look in time
            self.failed += [f"{self.step}: {alg}, {when}: {each}" for each in wrong]

    def mint(self) -> None:
        """Mint for one session after the other."""
        waiting = deque[tuple[float, str]]()
        for session in itertools.cycle(self._sessions):
            if self._over.wait(PAUSE_S):
                return
            try:
                with self.service.asking() as server:
                    answer = self._ask_this(server, "POST", "/api/auth/jwt", session, {"audience": AUDIENCE})
                    self._note(token := answer["token"], server)
                self.check(token, "fresh")
                waiting.append((time.time() + LIFE_S - 1.5, token))
                while waiting and waiting[0][0] < time.time():
                    _, token = waiting.popleft()
                    self.check(token, "old")
            except (OSError, http.client.HTTPException, AssertionError, ValueError) as error:
                self.failed.append(f"{self.step}: {error!r}")

    def _claims(self, token: str) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
        return claims

    def _note(self, token: str, server: Gunicorn) -> None:
        claims, alg = self._claims(token), jwt.get_unverified_header(token)["alg"]
        with self._noting:
            iat, exp = self.last.get(alg, (0, 0))
            self.last[alg] = (max(iat, claims["iat"]), max(exp, claims["exp"]))
            self.given[id(server)].append(alg)

    def wait_for_more(self, tokens: int) -> None:
        """Wait until so many more tokens were given."""
        enough = self._given() + tokens
        wait_until(lambda: self._given() >= enough, 120)

    def _given(self) -> int:
        with self._noting:
            return sum(map(len, self.given.values()))

    def wait_for_the_last(self, alg: str) -> None:
        """Wait until the last token that an algorithm signed has ended."""
        time.sleep(max(0, self.last[alg][1] - time.time()))

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """They run while the context lasts."""
        with working(self.mint, self.mint, until=self._over):
            yield


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The service, not started yet."""
    make_migrated(tmp_path / "data" / "pylon.db")
    running = Service(tmp_path, KeySet())
    yield running
    running.stop()
    running.keys.stop()


@pytest.fixture
def verifiers(service: Service) -> Iterator[Verifiers]:
    """The two services that verify."""
    both = Verifiers(service.keys.issuer)
    yield both
    both.stop()


@dataclass(frozen=True)
class Step:
    """A step of the page.

    Attributes:
        name: what is done.
        table: what the policy file says of the audience from then on.
        knows: what the verifiers know when it is done.
        after: the algorithm whose last token has to have ended before it.
        gives: the algorithms of the tokens that are given when it is done.
    """

    name: str
    table: str
    knows: Knows
    gives: set[str]
    after: str | None = None


WALK: Final = [
    Step("2, 3: every process knows both, then the verifiers", TO_ES.format(0), "both", {"HS256"}),
    Step("4: a part", TO_ES.format(50), "both", {"HS256", "ES256"}),
    Step("5: everyone", TO_ES.format(100), "both", {"ES256"}),
    Step("6: the algorithm, and no secret", ES, "new", {"ES256"}, after="HS256"),
    Step("back, 2, 3", TO_HS.format(0), "both", {"ES256"}),
    Step("back, 5", TO_HS.format(100), "both", {"HS256"}),
    Step("back, 6", HS, "old", {"HS256"}, after="ES256"),
]


def test_nobody_is_refused_on_the_way_forward_and_back(
    service: Service,
    verifiers: Verifiers,
    subtests: pytest.Subtests,
) -> None:
    """Each token is taken by everybody who is shown it, fresh and old, at each step; what the command says holds."""
    service.live = service.start(HS)
    load = Load(service, verifiers)
    given = {}
    with load.running():
        for step in WALK:
            load.step = step.name
            if step.after is not None:
                with subtests.test("the command knows the last token", step=step.name):
                    told = command(service, WALK[WALK.index(step) - 1].table)
                    latest, ends = load.last[step.after]
                    assert (told["last_alg"], told["safe_at"]) == (step.after, told["last_expires_at"])
                    assert (told["last_issued_at"] >= latest, told["last_expires_at"] >= ends) == (True, True)
                load.wait_for_the_last(step.after)
            replica = service.roll(step.table)
            if step.knows == "both":
                service.publish()
            verifiers.knows = step.knows
            load.wait_for_more(2 * SESSIONS if len(step.gives) > 1 else SESSIONS)
            given[step.name] = load.given[id(replica)]
    assert load.failed == []
    with subtests.test("each step gave what it says"):
        for step in WALK:
            assert set(given[step.name]) == step.gives
    assert min(load.counts["HS256"], load.counts["ES256"]) > 50


def command(service: Service, table: str) -> dict[str, Any]:
    """What `pylon-oidc keys migration` says of the audience."""
    result = RunCommand(service.folder / "data")("keys", "migration", "--json", **service.settings(table))
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)["audiences"][0]
    return found


def test_a_step_that_is_cut_short_is_noticed(
    service: Service, verifiers: Verifiers, subtests: pytest.Subtests
) -> None:
    """The same checks find who refuses when a step is left out: so the walk above shows that none is."""
    with subtests.test("1: no key"):
        settings = service.settings(TO_ES.format(10)) | {"PYLON_OIDC_ALGS": "RS256"}
        (fault,) = read_settings(settings).faults
        assert "migrate.to: ES256 is not among PYLON_OIDC_ALGS" in str(fault)
    # One after the other: a replica that starts later knows from the starts before it what else it has to take.
    (stayed,), (moved,) = service.start(HS), service.start(TO_ES.format(100))
    cases: list[tuple[str, list[Gunicorn], Knows, set[str]]] = [
        ("2: a replica that does not know the new one", [stayed, moved], "both", {"ES256", "introspection"}),
        ("3: verifiers that do not know the new one", [moved], "old", {"ES256", "jose", "PyJWT"}),
        ("5: verifiers that forget the old one too early", [stayed], "new", {"HS256", "jose", "PyJWT"}),
        ("none", [moved], "both", set()),
    ]
    for name, live, knows, expected in cases:
        with subtests.test(name):
            service.live, verifiers.knows = live, knows
            service.publish()
            load = Load(service, verifiers)
            with load.running():
                load.wait_for_more(2 * SESSIONS)
            found = {
                word
                for failure in load.failed
                for word in ("HS256", "ES256", "jose", "PyJWT", "introspection")
                if word in failure.partition(" knows ")[0]
            }
            assert found == expected
