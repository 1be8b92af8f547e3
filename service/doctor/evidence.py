"""What `doctor` asks, and what came back: a fixed small number of requests, several at a time.

Three steps: the address itself, then what its discovery document names, then tokens where a session can be had.
Only the origin that was asked for is asked (and the inside of it, where the operator names one): an address in a
document, or a redirect to elsewhere, is looked at and never followed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from service.doctor.wire import Origin, Reply, Wire, WireError, is_loopback
from service.protocol.handles import new_handle

DISCOVERY: Final = "/.well-known/openid-configuration"
OAUTH_DISCOVERY: Final = "/.well-known/oauth-authorization-server"
#: Nobody's name (RFC 6761 §6.4): what no proxy and no service may answer for.
NOBODY: Final = "doctor.invalid"
#: Whom `doctor` signs in, where it can, and signs out again.
USER: Final = "pylon-oidc-doctor"
_AT_ONCE: Final = 8
#: What no cache keeps is asked as often as this: one of two replicas stays unseen once in 32 times at most.
_REPEATS: Final = range(1, 7)
_FORM: Final = ("Content-Type", "application/x-www-form-urlencoded")
_JSON: Final = ("Content-Type", "application/json")
_BODY_BYTES: Final = 60 * 1024
_LONG_CHARACTERS: Final = 6 * 1024

#: What came back of one question.
Answer = Reply | WireError


@dataclass(frozen=True)
class Options:
    """What the operator told.

    Attributes:
        url: the public address, without a slash at its end.
        client_id: a client to begin a sign-in for, or None.
        client_secret: its secret, or None.
        redirect_uri: one that it has registered, or None.
        session: a session token, or None.
        admin_url: how the application is reached from inside, or None.
        admin_token: its admin token, or None.
    """

    url: str
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    redirect_uri: str | None = None
    session: str | None = field(default=None, repr=False)
    admin_url: str | None = None
    admin_token: str | None = field(default=None, repr=False)

    @property
    def origin(self) -> Origin:
        """Whom to ask."""
        origin = Origin.of(self.url)
        if origin is None:
            raise ValueError("not an address that can be asked; write it as https://id.example.com")
        return origin

    @property
    def path(self) -> str:
        """The path of the address; empty at the root."""
        return urlsplit(self.url).path


@dataclass(frozen=True)
class UnverifiedToken:
    """A token as it came: nothing of it is checked."""

    text: str = field(repr=False)
    header: Mapping[str, Any] = field(default_factory=dict)
    claims: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def read(text: object) -> UnverifiedToken | None:
        """Split it; None for what is no JWT."""
        try:
            parts = [
                json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
                for part in str(text).split(".")[:2]
            ]
        except (ValueError, RecursionError):
            return None
        if len(parts) != 2 or not all(isinstance(part, dict) for part in parts):
            return None
        return UnverifiedToken(str(text), *parts)


@dataclass(frozen=True)
class Evidence:
    """Everything that came back.

    Attributes:
        options: what was told.
        answers: by the name of the question.
        minted: tokens that were minted through the public address.
        flow: how far a whole sign-in came: name of the step -> what was seen; `done` when it came to its end.
        id_token: of that sign-in.
    """

    options: Options
    answers: Mapping[str, Answer]
    minted: Sequence[UnverifiedToken] = ()
    flow: Mapping[str, str] = field(default_factory=dict)
    id_token: UnverifiedToken | None = None

    def reply(self, name: str) -> Reply | None:
        """The answer to a question; None when it was not asked, or none came."""
        answer = self.answers.get(name)
        return answer if isinstance(answer, Reply) else None

    def replies(self, prefix: str) -> list[Reply]:
        """The answers to all questions whose name begins so."""
        return [
            answer
            for name, answer in self.answers.items()
            if name.startswith(prefix) and isinstance(answer, Reply)
        ]

    def error(self, name: str) -> WireError | None:
        """Why no answer came."""
        answer = self.answers.get(name)
        return answer if isinstance(answer, WireError) else None

    @property
    def document(self) -> Mapping[str, Any]:
        """The discovery document; empty when there is none."""
        reply = self.reply("discovery")
        return reply.json_object() if reply is not None and reply.status == 200 else {}

    @property
    def issuer(self) -> str | None:
        """The issuer that it names; None when it is no text."""
        issuer = self.document.get("issuer")
        return issuer if isinstance(issuer, str) else None

    @property
    def is_derived(self) -> bool:
        """Whether the issuer comes from `Host`: then its document is for nobody's cache."""
        reply = self.reply("discovery")
        return reply is not None and "no-store" in reply.header("cache-control") and "host" in _vary(reply)

    @property
    def is_ours(self) -> bool:
        """Whether it is a pylon-oidc that answers: its errors have a shape of their own."""
        probe = self.reply("probe")
        if probe is not None and probe.code:
            return True
        endpoint = self.document.get("authorization_endpoint")
        return isinstance(endpoint, str) and endpoint.endswith("/oidc/authorize")

    @property
    def is_reached(self) -> bool:
        """Whether our application itself answered, not the proxy before it."""
        probe = self.reply("probe")
        return probe is not None and probe.code not in {"", "PROXY_REFUSED"}

    def endpoint(self, member: str) -> str | None:
        """Path and query of an endpoint of the document; None when it is not at the asked origin."""
        return _at_origin(self.document.get(member), self.options.origin)

    @property
    def readiness(self) -> Mapping[str, Any]:
        """What the application says of itself on the inside: `/readyz`; empty when it was not asked, or is not ours."""
        reply = self.reply("readyz-inside")
        told = {} if reply is None else reply.json_object()
        return told if isinstance(told.get("status"), str) else {}

    @property
    def keys(self) -> list[Mapping[str, Any]]:
        """The published keys."""
        reply = self.reply("jwks")
        keys = reply.json_object().get("keys") if reply is not None else None
        return [key for key in keys if isinstance(key, dict)] if isinstance(keys, list) else []


def _vary(reply: Reply) -> set[str]:
    return {name.strip().lower() for name in reply.header("vary").split(",")}


def _at_origin(url: object, origin: Origin) -> str | None:
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
        return None
    if Origin.of(url) != origin:
        return None
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


class Interview:
    """Asks the questions.

    Args:
        options: what the operator told.
        wire: how connections are made.
        progress: is told the name of each question that is answered.
    """

    def __init__(
        self, options: Options, wire: Wire, progress: Callable[[str], None] = lambda _: None
    ) -> None:
        self._options, self._wire, self._progress = options, wire, progress
        self._origin, self._path = options.origin, options.path
        self._answers: dict[str, Answer] = {}
        self._verifier = new_handle()

    def run(self) -> Evidence:
        """Ask everything, and return what came back."""
        self._ask_address()
        evidence = Evidence(self._options, self._answers)
        if not any(isinstance(answer, Reply) for answer in self._answers.values()):
            return evidence
        if evidence.issuer is None:
            self._ask_elsewhere(evidence)
            return evidence
        self._ask_document(evidence)
        self._ask_after(evidence)
        if evidence.is_ours:
            return self._with_tokens(evidence)
        return evidence

    # --- questions, several at a time ---

    def _together(self, questions: Mapping[str, Callable[[], Reply]]) -> None:
        def answer(name: str) -> Answer:
            try:
                return questions[name]()
            except WireError as error:
                return error
            except TimeoutError:
                return WireError("timeout", "the time for all questions is over")

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for name, found in zip(questions, pool.map(answer, questions), strict=True):
                self._answers[name] = found
                self._progress(name)

    def _get(
        self, target: str, *headers: tuple[str, str], method: str = "GET", **more: Any
    ) -> Callable[[], Reply]:
        return lambda: self._wire.ask(self._origin, method, target, headers, **more)

    def _post(self, target: str, body: bytes, *headers: tuple[str, str]) -> Callable[[], Reply]:
        return lambda: self._wire.ask(self._origin, "POST", target, headers or (_FORM,), body)

    def _ask_address(self) -> None:
        """The address itself, and what stands beside it."""
        path = self._path
        questions = {
            "discovery": self._get(path + DISCOVERY, ("Origin", f"https://{NOBODY}")),
            "probe": self._get(f"{path}/api/doctor-probe"),
        }
        if self._origin.scheme == "https":
            plain = replace(self._origin, scheme="http", port=80)
            questions["http"] = lambda: self._wire.ask(plain, "GET", path + DISCOVERY)
            questions["old-tls"] = self._get("/", context=self._wire.old_tls_context())
            questions["http2"] = lambda: self._wire.handshake(self._origin)
        for address in self._addresses():
            questions[f"address {address}"] = self._get(path + DISCOVERY, address=address)
        self._together(questions)

    def _addresses(self) -> list[str]:
        """The addresses of the name, where it has several; each may lead to another server."""
        try:
            found = self._wire.addresses(self._origin)
        except WireError:
            return []  # told by every question
        return [] if len(found) < 2 or all(map(is_loopback, found)) else found

    def _ask_elsewhere(self, evidence: Evidence) -> None:
        """Without a document: where it might be instead."""
        path = self._path
        questions = {"token-probe": self._post(f"{path}/oidc/token", b"grant_type=doctor")}
        if path:
            questions["discovery-root"] = self._get(DISCOVERY)
            questions["discovery-twice"] = self._get(path + path + DISCOVERY)
        if path != path.lower():
            questions["discovery-folded"] = self._get(path.lower() + DISCOVERY)
        discovery = evidence.reply("discovery")
        if discovery is not None and discovery.location:
            questions["discovery-proto"] = self._get(path + DISCOVERY, ("X-Forwarded-Proto", "https"))
        self._together(questions)

    def _ask_document(self, evidence: Evidence) -> None:
        """What the document names, and whether anybody can change what it says."""
        path, origin = self._path, ("Origin", f"https://{NOBODY}")
        preflight = (origin, ("Access-Control-Request-Method", "GET"))
        questions = {
            "discovery-head": self._get(path + DISCOVERY, method="HEAD"),
            "discovery-options": self._get(path + DISCOVERY, *preflight, method="OPTIONS"),
            "discovery-gzip": self._get(path + DISCOVERY, ("Accept-Encoding", "gzip")),
        }
        if jwks := evidence.endpoint("jwks_uri"):
            questions |= {name: self._get(jwks, origin) for name in ("jwks", "jwks-2", "jwks-3")}
        bearer = ("Authorization", "Bearer doctor-knows-no-token")
        if userinfo := evidence.endpoint("userinfo_endpoint"):
            questions["userinfo"] = self._get(userinfo, bearer, origin)
        if authorize := evidence.endpoint("authorization_endpoint"):
            questions["authorization"] = self._get(authorize)
        for member in ("token", "introspection", "revocation"):
            if target := evidence.endpoint(f"{member}_endpoint"):
                questions[member] = self._post(target, b"grant_type=doctor", _FORM, origin)
        if logout := evidence.endpoint("end_session_endpoint"):
            questions["end_session"] = self._get(logout)
        if evidence.is_ours:
            questions |= self._questions_for_ours(evidence)
        self._together(questions)

    def _questions_for_ours(self, evidence: Evidence) -> dict[str, Callable[[], Reply]]:
        path = self._path
        token = f"{path}/oidc/token"
        questions = {
            "oauth": self._get(path + OAUTH_DISCOVERY),
            "body": self._post(token, b"doctor=" + b"a" * _BODY_BYTES),
            "long": self._get(f"{path}/oidc/authorize?doctor={'a' * _LONG_CHARACTERS}"),
            "closed-users": self._get(f"{path}/api/auth/users/{USER}/sessions"),
            "closed-clients": self._get(f"{path}/api/oidc/clients"),
            "closed-session": self._post(f"{path}/api/auth/session", b"{}", _JSON),
            "closed-readyz": self._get("/readyz"),
            "closed-dev": self._get(f"{path}/dev/sign-in"),
        }
        if path:
            questions |= {
                "inserted-oidc": self._get(DISCOVERY + path),
                "inserted-oauth": self._get(OAUTH_DISCOVERY + path),
                "token-twice": self._post(path + token, b"grant_type=doctor"),
                "token-root": self._post("/oidc/token", b"grant_type=doctor"),
            }
        if self._options.client_id and self._options.redirect_uri:
            silent = self._authorize(prompt="none")
            questions |= {f"authorize-{number}": self._get(silent) for number in _REPEATS}
            questions["authorize"] = self._get(self._authorize())
        return questions

    def _ask_after(self, evidence: Evidence) -> None:
        """What others may send; then whether it has changed what the next one is told."""
        path = self._path
        forged = (
            ("X-Forwarded-Host", NOBODY), ("Forwarded", f"host={NOBODY};proto=http"), ("X-Forwarded-Port", "1"),
            ("X-Forwarded-Server", NOBODY), ("X-Original-Host", NOBODY), ("X-Host", NOBODY),
            ("X-Forwarded-Prefix", "/doctor"), ("Script-Name", "/doctor"),
        )  # fmt: skip
        sibling = f"doctor-probe.{self._origin.name.partition('.')[2] or NOBODY}"
        host = self._origin.host.replace(self._origin.name, sibling, 1)
        self._together(
            {
                "forged-forwarded": self._get(path + DISCOVERY, *forged),
                "forged-proto": self._get(path + DISCOVERY, ("X-Forwarded-Proto", "http")),
                "forged-host": self._get(path + DISCOVERY, host=host),
                "forged-nobody": self._get(path + DISCOVERY, host=NOBODY),
            }
        )
        self._together({f"discovery-{n}": self._get(path + DISCOVERY) for n in (2, 3)})

    def _authorize(self, **parameters: str) -> str:
        challenge = (
            base64.urlsafe_b64encode(hashlib.sha256(self._verifier.encode()).digest()).rstrip(b"=").decode()
        )
        asked = {
            "response_type": "code",
            "client_id": self._options.client_id or "",
            "redirect_uri": self._options.redirect_uri or "",
            "scope": "openid",
            "state": "doctor",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        return f"{self._path}/oidc/authorize?{urlencode(asked | parameters)}"

    # --- tokens ---

    def _with_tokens(self, evidence: Evidence) -> Evidence:
        """Mint through the public address, and sign in, where the operator gave what it takes."""
        inside = None if self._options.admin_url is None else Origin.of(self._options.admin_url)
        if inside is None or self._options.admin_token is None:
            return self._with_minted(evidence, self._options.session)
        try:
            self._answers["readyz-inside"] = self._ask_inside(inside, "GET", "/readyz", [])
            try:
                begun = self._inside(
                    inside, "POST", "/api/auth/session", {"user_id": USER, "expires_in": 300}
                )
                session = begun.json_object().get("token")
                evidence = self._with_minted(evidence, session if isinstance(session, str) else None)
                evidence = self._with_flow(evidence, inside)
            finally:
                self._inside(inside, "DELETE", f"/api/auth/users/{USER}/sessions", None)
        except (WireError, TimeoutError) as error:
            self._answers["inside"] = error if isinstance(error, WireError) else WireError("timeout", "")
        return evidence

    def _inside(self, inside: Origin, method: str, target: str, body: Mapping[str, Any] | None) -> Reply:
        """Ask the application itself, as the app's backend does."""
        headers = [("Authorization", f"Bearer {self._options.admin_token}")]
        data = b"" if body is None else json.dumps(body).encode()
        reply = self._ask_inside(
            inside, method, self._path + target, [*headers, *([_JSON] if data else [])], data
        )
        self._answers.setdefault("inside", reply)
        return reply

    def _ask_inside(
        self, inside: Origin, method: str, target: str, headers: Sequence[tuple[str, str]], data: bytes = b""
    ) -> Reply:
        """Ask without the proxy, under the public name; there is a second for it when the time is over."""
        wire = replace(self._wire, source=None, deadline=max(self._wire.deadline, time.monotonic() + 1))
        return wire.ask(inside, method, target, headers, data, host=self._origin.host)

    def _with_minted(self, evidence: Evidence, session: str | None) -> Evidence:
        if session is None or not session.isascii() or not session.isprintable():
            return evidence
        bearer = ("Authorization", f"Bearer {session}")
        mint = f"{self._path}/api/auth/jwt"
        self._together({f"mint-{n}": self._post(mint, b"", bearer) for n in _REPEATS})
        read = [UnverifiedToken.read(reply.json_object().get("token")) for reply in evidence.replies("mint-")]
        return replace(evidence, minted=[token for token in read if token is not None])

    def _with_flow(self, evidence: Evidence, inside: Origin) -> Evidence:
        """A whole sign-in, as a browser, the app's backend and the client do it together."""
        if not (self._options.client_id and self._options.redirect_uri):
            return evidence
        begun = evidence.reply("authorize")
        if begun is None:
            return evidence
        self._answers["authorize-inside"] = self._ask_inside(inside, "GET", self._authorize(), [])
        if begun.status in {400, 501}:
            return replace(evidence, flow={"refused": f"{begun.status} where a sign-in begins"})
        return replace(evidence, **self._sign_in(inside, begun))

    def _sign_in(self, inside: Origin, begun: Reply) -> dict[str, Any]:
        """From the redirect to the sign-in page on; what of the evidence came of it."""
        interaction = _query(begun.location, "interaction")
        cookie = "; ".join(value.partition(";")[0] for value in begun.all("set-cookie"))
        if begun.status != 303 or not interaction or not cookie:
            return {"flow": {"authorize": f"{begun.status}"}}
        told = self._inside(
            inside, "POST", f"/api/oidc/interactions/{quote(interaction, safe='')}/login", {"user_id": USER}
        )
        back = _at_origin(told.json_object().get("redirect_to"), self._origin)
        if back is None:
            return {"flow": {"login": f"{told.status} {told.code}"}}
        finished = self._wire.ask(self._origin, "GET", back, [("Cookie", cookie)])
        code = _query(finished.location, "code")
        if not code:
            return {"flow": {"consent" if finished.status == 200 else "return": f"{finished.status}"}}
        return self._redeem(code)

    def _redeem(self, code: str) -> dict[str, Any]:
        options = self._options
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": options.redirect_uri or "",
            "code_verifier": self._verifier,
        }
        headers = [_FORM]
        if options.client_secret is None:
            form["client_id"] = options.client_id or ""
        else:
            basic = f"{quote(options.client_id or '', safe='')}:{quote(options.client_secret, safe='')}"
            headers.append(("Authorization", f"Basic {base64.b64encode(basic.encode()).decode()}"))
        target = f"{self._path}/oidc/token"
        reply = self._wire.ask(self._origin, "POST", target, headers, urlencode(form).encode())
        answer = reply.json_object()
        if reply.status != 200:
            return {"flow": {"token": f"{reply.status} {answer.get('error', '')}"}}
        bearer = ("Authorization", f"Bearer {answer.get('access_token')}")
        told = self._wire.ask(self._origin, "GET", f"{self._path}/oidc/userinfo", [bearer])
        if told.json_object().get("sub") != USER:
            return {"flow": {"userinfo": f"{told.status}"}}
        return {"flow": {"done": ""}, "id_token": UnverifiedToken.read(answer.get("id_token"))}


def _query(url: str, name: str) -> str | None:
    try:
        values = parse_qs(urlsplit(url).query).get(name, [])
    except ValueError:
        return None
    return values[0] if len(values) == 1 and values[0].isascii() else None
