"""Relying parties that ask as fast as they are answered: plain HTTP clients, in processes of their own.

Each request is another one (a code is good once, a refresh token comes from the answer before), which wrk cannot do.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import parse_qs, urlencode, urlsplit

PROCESSES = 2
THREADS = 4
CLIENT_ID = "bench"
CLIENT_SECRET = "bench-secret-0123456789abcdef0123456789abcdef"
REDIRECT_URI = "http://localhost:9/callback"
SCOPE = "openid profile email offline_access"
# RFC 7636, appendix B.
_VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
_CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
_BASIC = "Basic " + base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
_TIMEOUT_S = 10.0


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


@dataclass(frozen=True)
class Answers:
    """What one process, or all of them, got.

    Attributes:
        began_at, ended_at: On the clock that all processes share, in s.
        took_ms: Each answer's time.
        got: What the next step needs: codes, or refresh tokens.
        access_token: One of them; empty where there was none.
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


class NothingAnswered(RuntimeError):
    """Not one request was answered; the message holds the last failure."""


class _Client:
    """One connection, kept alive where the server lets it be."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._wire = http.client.HTTPConnection("127.0.0.1", place.port, timeout=_TIMEOUT_S)
        self.took_ms: list[float] = []
        self.got: list[str] = []
        self.access_token = ""
        self.errors = 0
        self.failure = ""

    def authorize(self, _: str, requests: int) -> None:
        """Ask for codes."""
        for _number in range(requests):
            self._one("GET", self._place.authorize_uri, None, {"Cookie": self._place.cookie}, self._code)

    def exchange(self, code: str, _requests: int) -> None:
        """Exchange one code."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT_URI}
        self._token(form | {"code_verifier": _VERIFIER})

    def refresh(self, token: str, requests: int) -> None:
        """Refresh again and again, each time with the token of the answer before."""
        for _number in range(requests):
            self._token({"grant_type": "refresh_token", "refresh_token": token})
            token = self.got.pop() if self.got else token

    def _token(self, form: dict[str, str]) -> None:
        headers = {"Authorization": _BASIC, "Content-Type": "application/x-www-form-urlencoded"}
        self._one("POST", self._place.token, urlencode(form), headers, self._tokens)

    def _one(
        self,
        method: str,
        uri: str,
        body: str | None,
        headers: dict[str, str],
        read: Callable[[http.client.HTTPResponse, bytes], str],
    ) -> None:
        start = time.monotonic()
        try:
            self._wire.request(method, uri, body, {"Host": self._place.host, **headers})
            answer = self._wire.getresponse()
            text = answer.read()
            took_ms = (time.monotonic() - start) * 1000
            self.got.append(read(answer, text))
        except (OSError, http.client.HTTPException, LookupError, ValueError) as error:
            self._wire.close()
            self.errors += 1
            self.failure = f"{method} {urlsplit(uri).path}: {error!r}"
            return
        self.took_ms.append(took_ms)

    def _code(self, answer: http.client.HTTPResponse, _: bytes) -> str:
        location = urlsplit(answer.headers["Location"] or "")
        try:
            return parse_qs(location.query)["code"][0]
        except KeyError:
            raise ValueError(f"{answer.status} and no code: {location.path}") from None

    def _tokens(self, answer: http.client.HTTPResponse, text: bytes) -> str:
        if answer.status != 200:
            raise ValueError(f"{answer.status} {text[:200]!r}")
        said = json.loads(text)
        if not said["id_token"]:
            raise ValueError("no ID token")
        self.access_token = said["access_token"]
        return str(said["refresh_token"])


def _in_one_process(place: Place, step: str, chains: Sequence[str], requests: int) -> tuple[Answers, str]:
    """Let some threads do a step for each chain."""
    clients = [_Client(place) for _ in range(THREADS)]

    def work(number: int) -> None:
        for chain in chains[number::THREADS]:
            getattr(clients[number], step)(chain, requests)

    start = time.monotonic()
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(work, range(THREADS)))
    answers = [
        Answers(start, time.monotonic(), one.took_ms, one.got, one.access_token, one.errors)
        for one in clients
    ]
    return _together(answers), next((one.failure for one in clients if one.failure), "")


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

    def ask(self, place: Place, step: str, chains: Sequence[str], requests: int = 1) -> Answers:
        """Do a step for each chain.

        Args:
            place: Of whom.
            step: `authorize`, `exchange` or `refresh`.
            chains: Codes or refresh tokens to begin with; anything for `authorize`.
            requests: How many for each chain, one after the other.

        Raises:
            NothingAnswered: When each of them failed.
        """
        jobs = [
            self._pool.submit(_in_one_process, place, step, chains[number::PROCESSES], requests)
            for number in range(PROCESSES)
        ]
        done = [job.result(timeout=60) for job in jobs]
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


def browse(place: Place, uri: str, sign_in: Callable[[str], str]) -> str:
    """Follow a sign-in as a browser does, to the client's redirect URI.

    Args:
        place: The provider.
        uri: Where to begin.
        sign_in: Is given an address that is not the provider's, the app's sign-in page, and says where it sends the
            browser.

    Returns:
        The `Cookie` header that the browser ends with.

    Raises:
        NothingAnswered: When it does not end there.
    """
    cookies: dict[str, str] = {}
    for _ in range(8):
        wire = http.client.HTTPConnection("127.0.0.1", place.port, timeout=_TIMEOUT_S)
        with contextlib.closing(wire):
            header = "; ".join(f"{name}={value}" for name, value in cookies.items())
            wire.request("GET", uri, headers={"Host": place.host, "Cookie": header})
            answer = wire.getresponse()
            text = answer.read()
        for line in answer.headers.get_all("Set-Cookie") or []:
            name, _, value = line.split(";")[0].partition("=")
            cookies[name] = value
            if not value:
                del cookies[name]
        location = answer.headers["Location"]
        if location is None:
            raise NothingAnswered(f"sign-in ended with {answer.status}: {text[:200]!r}")
        if location.startswith(REDIRECT_URI):
            return "; ".join(f"{name}={value}" for name, value in cookies.items())
        if urlsplit(location).netloc not in {"", place.host}:
            location = sign_in(location)
        split = urlsplit(location)
        uri = f"{split.path}?{split.query}" if split.query else split.path
    raise NothingAnswered("sign-in goes round in circles")
