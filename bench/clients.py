"""Relying parties that ask as fast as they are answered: bare HTTP on sockets, in processes of their own.

Each request is another one (a code is good once, a refresh token comes from the answer before), which wrk cannot do.
Every provider is asked by this same code.
"""

from __future__ import annotations

import base64
import contextlib
import json
import multiprocessing
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from selectors import EVENT_READ, DefaultSelector
from urllib.parse import parse_qs, urlencode, urlsplit

from bench.wire import NothingAnswered, Wire

PROCESSES = 2
CONNECTIONS = 4
CLIENT_ID = "bench"
CLIENT_SECRET = "bench-secret-0123456789abcdef0123456789abcdef"
REDIRECT_URI = "http://localhost:9/callback"
SCOPE = "openid profile email offline_access"
# RFC 7636, appendix B.
_VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
_CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
BASIC = "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
FORM = "application/x-www-form-urlencoded"
_TIMEOUT_S = 10.0
_LOCATION = re.compile(rb"\r\nlocation: *([^\r]*)", re.IGNORECASE)


@dataclass(frozen=True)
class Place:
    """Where a provider is, and how its user is signed in.

    Attributes:
        port: On loopback.
        authorize: Path of its authorization endpoint.
        token: Path of its token endpoint.
        cookie: Of a browser whose user is signed in; empty before.
    """

    port: int
    authorize: str
    token: str
    cookie: str = ""

    @property
    def host(self) -> str:
        """The `Host` header."""
        return f"localhost:{self.port}"

    @property
    def authorize_uri(self) -> str:
        """The request for a code: path and query."""
        asked = {
            "client_id": CLIENT_ID,
            "response_type": "code",
            "redirect_uri": REDIRECT_URI,
            "scope": SCOPE,
            "state": "af0ifjsldkj",
            "nonce": "n-0S6_WzA2Mj",
            "code_challenge": _CHALLENGE,
            "code_challenge_method": "S256",
        }
        return f"{self.authorize}?{urlencode(asked)}"

    def request(self, method: str, uri: str, headers: dict[str, str], body: str = "") -> bytes:
        """One request, as bytes."""
        lines = [f"{method} {uri} HTTP/1.1", f"Host: {self.host}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", body]).encode()

    def form(self, uri: str, form: dict[str, str]) -> bytes:
        """A form of the client, as bytes."""
        headers = {"Authorization": BASIC, "Content-Type": FORM}
        return self.request("POST", uri, headers, urlencode(form))


@dataclass(frozen=True)
class Answers:
    """What one process, or all of them, got.

    Attributes:
        began_at, ended_at: On the clock that all processes share, in s.
        took_ms: Each answer's time.
        got: What the next step needs: codes, or refresh tokens.
        access_token: The last one; empty where there was none.
        errors: Requests that failed; they are in no other figure.
    """

    began_at: float
    ended_at: float
    took_ms: list[float]
    got: list[str]
    access_token: str
    errors: int

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.took_ms) / max(self.ended_at - self.began_at, 1e-9)

    def percentile_ms(self, part: float) -> float:
        """The time within which this part of the answers came."""
        ordered = sorted(self.took_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


class _Steps:
    """How the request of a step is made, and what its answer holds for the next one."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.access_token = ""

    def request(self, step: str, last: str) -> bytes:
        """The request of a step.

        Args:
            step: `authorize`, `exchange` or `refresh`.
            last: The code, or the refresh token.
        """
        place = self._place
        if step == "authorize":
            return place.request("GET", place.authorize_uri, {"Cookie": place.cookie})
        if step == "exchange":
            form = {"grant_type": "authorization_code", "code": last, "redirect_uri": REDIRECT_URI}
            return place.form(place.token, form | {"code_verifier": _VERIFIER})
        return place.form(place.token, {"grant_type": "refresh_token", "refresh_token": last})

    def read(self, step: str, status: int, head: bytes, body: bytes) -> str:
        """What an answer holds.

        Raises:
            ValueError, LookupError: When it is no success.
        """
        if step == "authorize":
            location = _LOCATION.search(head)
            query = urlsplit(location[1].decode() if location else "").query
            if "code=" not in query:
                raise ValueError(f"{status} and no code: {location and location[1]!r} {body[:200]!r}")
            return parse_qs(query)["code"][0]
        if status != 200:
            raise ValueError(f"{status} {body[:300]!r}")
        said = json.loads(body)
        if not said["id_token"]:
            raise ValueError("no ID token")
        self.access_token = said["access_token"]
        return str(said["refresh_token"])


def _in_one_process(
    place: Place, step: str, chains: Sequence[str], requests: int, seconds: float
) -> tuple[Answers, str]:
    """Do a step for each chain, over a few connections that each have one request under way."""
    steps, waiting = _Steps(place), deque((chain, requests) for chain in chains)
    took_ms: list[float] = []
    got: list[str] = []
    errors, failure = 0, ""
    start = last_at = time.monotonic()
    end = start + seconds

    with DefaultSelector() as ready, contextlib.ExitStack() as stack:

        def send(wire: Wire) -> bool:
            if not waiting or time.monotonic() >= end:
                return False
            wire.chain = waiting.popleft()
            wire.send(steps.request(step, wire.chain[0]))
            ready.register(wire, EVENT_READ)
            return True

        wires = [stack.enter_context(Wire(place.port)) for _ in range(CONNECTIONS)]
        busy = sum(send(wire) for wire in wires)
        while busy:
            events = ready.select(_TIMEOUT_S)
            if not events:
                errors, failure = errors + busy, failure or f"{step}: no answer in {_TIMEOUT_S} s"
                break
            for key, _ in events:
                wire: Wire = key.fileobj  # type: ignore[assignment]
                ready.unregister(wire)
                try:
                    answer = wire.read()
                    if answer is None:
                        ready.register(wire, EVENT_READ)
                        continue
                    read = steps.read(step, *answer)
                    last_at = time.monotonic()
                    took_ms.append((last_at - wire.sent_at) * 1000)
                    chain, left = wire.chain
                    if left > 1:
                        waiting.append((read if step == "refresh" else chain, left - 1))
                    if left == 1 or step == "authorize":
                        got.append(read)
                except (OSError, LookupError, ValueError) as error:
                    wire.close()
                    errors, failure = errors + 1, f"{step}: {error!r}"
                if not send(wire):
                    busy -= 1
    return Answers(start, last_at, took_ms, got, steps.access_token, errors), failure


def _together(answers: Sequence[Answers]) -> Answers:
    return Answers(
        min(one.began_at for one in answers),
        max(one.ended_at for one in answers),
        [took for one in answers for took in one.took_ms],
        [got for one in answers for got in one.got],
        next((one.access_token for one in answers if one.access_token), ""),
        sum(one.errors for one in answers),
    )


class Clients:
    """The processes; they are started before anything is measured."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def ask(
        self, place: Place, step: str, chains: Sequence[str], requests: int = 1, seconds: float = 30.0
    ) -> Answers:
        """Do a step for each chain.

        Args:
            place: Of whom.
            step: `authorize`, `exchange` or `refresh`.
            chains: Codes or refresh tokens to begin with; anything for `authorize`.
            requests: How many for each chain, one after the other.
            seconds: After this long no other request is sent.

        Raises:
            NothingAnswered: When each of them failed.
        """
        jobs = [
            self._pool.submit(_in_one_process, place, step, chains[number::PROCESSES], requests, seconds)
            for number in range(PROCESSES)
        ]
        done = [job.result(timeout=seconds + 60) for job in jobs]
        answers = _together([one for one, _ in done])
        if not answers.took_ms:
            raise NothingAnswered(next((failure for _, failure in done if failure), step))
        return answers


@contextlib.contextmanager
def started() -> Iterator[Clients]:
    """Start the processes, and end them."""
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(time.sleep, [0.2] * PROCESSES))
        yield Clients(pool)
