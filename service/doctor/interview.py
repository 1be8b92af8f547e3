"""The requests that `doctor` sends: a fixed, small number, several at a time.

Four steps: the address itself; then what its discovery document names; then headers that others may send; then tokens, if
a session is available. Requests go only to the origin of the URL (and to the inside address, if the operator gives one): an
address in a document, or a redirect to another origin, is examined and never followed.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final
from urllib.parse import quote, urlencode

from service.doctor.asking import FORM, JSON, Asker, Question
from service.doctor.evidence import AGENTS, NOBODY, USER, Evidence, UnverifiedToken, at_origin
from service.doctor.reply import Origin, Place, Reply, WireError
from service.doctor.sign_in import SignIn

DISCOVERY: Final = "/.well-known/openid-configuration"
OAUTH_DISCOVERY: Final = "/.well-known/oauth-authorization-server"
#: How often an uncached request is repeated: one of three replicas stays unseen at most once in 43 times.
_REPEATS: Final = range(1, 13)
#: How often a request is repeated that costs the service more than a read.
_FEW: Final = range(2, 7)
_BODY_BYTES: Final = 60 * 1024
_LONG_CHARACTERS: Final = 6 * 1024
#: The sizes that applications use for `state`, and browsers for `Cookie`.
_STATE_CHARACTERS: Final = 3 * 1024
_FIELD_CHARACTERS: Final = 4 * 1024
#: What a proxy answers if it does not reach the service.
GATEWAY: Final = frozenset({500, 502, 503, 504})


class Interview:
    """Sends the requests.

    Args:
        asker: sends them to the operator's servers.
    """

    def __init__(self, asker: Asker) -> None:
        self._asker, self._options = asker, asker.options
        self._sign_in = SignIn(asker)
        self._origin, self._path, self._answers = asker.origin, asker.path, asker.answers
        self._get, self._post = asker.get, asker.post

    def run(self) -> Evidence:
        """Send all requests, and return the answers."""
        began = time.monotonic()
        return replace(self._asked(), lasted_s=time.monotonic() - began)

    def _asked(self) -> Evidence:
        self._ask_addresses()
        self._ask_address()
        evidence = Evidence(self._options, self._answers)
        self._ask_inside()
        if evidence.reply("discovery") is None:
            return evidence
        self._asker.take_time(evidence.reply("discovery"))
        if evidence.issuer is None:
            self._ask_again(evidence)
        if evidence.issuer is None:
            self._ask_elsewhere(evidence)
            return evidence
        self._ask_document(evidence)
        self._ask_after(evidence)
        return self._with_tokens(evidence) if evidence.is_ours else evidence

    # --- the address ---

    def _ask_addresses(self) -> None:
        """If the name has several addresses, test each: one may lead to another server. Later requests use one that works."""
        places = self._places()
        shared = len({place.address for place in places}) < len(places)
        names = {f"address {each.address}" + (f":{each.port}" if shared else ""): each for each in places}
        self._asker.together(
            {name: self._get(self._path + DISCOVERY, place=place) for name, place in names.items()}
        )
        told = {name: self._answers[name] for name in names}
        documents = {
            name: reply.json_object()
            for name, reply in told.items()
            if isinstance(reply, Reply) and reply.status == 200
        }
        good = [name for name, document in documents.items() if document.get("issuer") == self._options.url]
        for name in [*good, *documents][:1]:
            self._asker.wire.pin(self._origin, names[name])

    def _places(self) -> list[Place]:
        """The addresses of the name, if there are several; those of `localhost` all belong to this machine."""
        if self._origin.name == "localhost" or self._origin.name.endswith(".localhost"):
            return []
        try:
            found = self._asker.wire.places(self._origin)
        except WireError:
            return []  # every other request reports it
        return found if len(found) > 1 else []

    def _ask_address(self) -> None:
        """The address itself, and the addresses next to it."""
        path, wire = self._path, self._asker.wire
        questions = {
            "discovery": self._get(path + DISCOVERY, ("Origin", f"https://{NOBODY}")),
            "probe": self._get(f"{path}/oidc/doctor-probe"),
        }
        if self._origin.scheme == "https":
            plain = replace(self._origin, scheme="http", port=80)
            questions["http"] = lambda: wire.ask(plain, "GET", path + DISCOVERY)
            questions["old-tls"] = self._get("/", context=wire.old_tls_context())
            questions["handshake"] = lambda: wire.handshake(self._origin)
        self._asker.together(questions)
        error = self._answers["discovery"]
        if isinstance(error, WireError) and error.kind == "tls":
            self._asker.together({"plain-port": self._in_plain(path + DISCOVERY)})

    def _in_plain(self, target: str) -> Question:
        """The same port without TLS."""
        wire = self._asker.wire
        plain = Origin("http", self._origin.name, self._origin.port)
        return lambda: wire.ask(plain, "GET", target)

    def _ask_inside(self) -> None:
        """The application itself, if the operator gives its address: what it answers without a proxy."""
        if self._options.inside is None:
            return
        ask = self._asker
        questions: dict[str, Question] = {
            "readyz-inside": lambda: ask.inside("GET", "/readyz"),
            "discovery-inside": lambda: ask.inside("GET", self._path + DISCOVERY),
            "jwks-inside": lambda: ask.inside("GET", f"{self._path}/oidc/jwks"),
        }
        if self._options.admin_token is not None:
            questions["deliveries-inside"] = lambda: ask.as_admin("GET", "/api/oidc/deliveries")
            questions["client-keys-inside"] = lambda: ask.as_admin("GET", "/api/oidc/client-keys")
        if self._options.has_client:
            client = f"/api/oidc/clients/{_quoted(self._options.client_id)}"
            questions["client-inside"] = lambda: ask.as_admin("GET", client)
            questions["authorize-inside"] = lambda: ask.inside("GET", self._sign_in.begin())
        ask.together(questions)

    def _ask_again(self, evidence: Evidence) -> None:
        """Without a document because the proxy reached nobody: it may reach another replica the next time."""
        discovery = evidence.reply("discovery")
        if discovery is None or discovery.status not in GATEWAY:
            return
        again = {
            f"again-{n}": self._get(self._path + DISCOVERY, ("Origin", f"https://{NOBODY}")) for n in _FEW
        }
        self._asker.together(again)
        self._answers["again-1"] = discovery
        for name in again:
            reply = evidence.reply(name)
            if reply is not None and reply.status == 200 and reply.json_object():
                self._answers["discovery"] = reply
                return

    def _ask_elsewhere(self, evidence: Evidence) -> None:
        """Without a document: look for it elsewhere."""
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
        self._asker.together(questions)

    # --- what the document names ---

    def _ask_document(self, evidence: Evidence) -> None:
        """The endpoints in the document, and whether their answers arrive as the service sends them."""
        path, origin = self._path, ("Origin", f"https://{NOBODY}")
        questions = self._questions_of_a_client()  # first, because a slow service should answer these
        questions |= {
            "discovery-head": self._get(path + DISCOVERY, method="HEAD"),
            "discovery-options": self._preflight(path + DISCOVERY, "GET"),
            "discovery-gzip": self._get(path + DISCOVERY, ("Accept-Encoding", "gzip")),
        }
        if jwks := evidence.endpoint("jwks_uri"):
            questions |= {name: self._get(jwks, origin) for name in ("jwks", "jwks-2", "jwks-3")}
            questions |= {f"agent {name}": self._get(jwks, ("User-Agent", name)) for name in AGENTS}
        bearer = ("Authorization", "Bearer doctor-knows-no-token")
        if userinfo := evidence.endpoint("userinfo_endpoint"):
            questions["userinfo"] = self._get(userinfo, bearer, origin)
            questions |= {f"userinfo-{n}": self._get(userinfo, bearer, origin) for n in _FEW}
            questions["userinfo-options"] = self._preflight(userinfo, "GET")
        if authorize := evidence.endpoint("authorization_endpoint"):
            questions["authorization"] = self._get(authorize)
        for member in ("token", "introspection", "revocation"):
            if target := evidence.endpoint(f"{member}_endpoint"):
                questions[member] = self._post(target, b"grant_type=doctor", FORM, origin)
        if token := evidence.endpoint("token_endpoint"):
            questions["token-options"] = self._preflight(token, "POST")
        if (register := evidence.endpoint("registration_endpoint")) and evidence.is_ours:
            questions["register"] = self._post(register, b'{"redirect_uris": []}', JSON)  # registers nobody
        if logout := evidence.endpoint("end_session_endpoint"):
            questions["end_session"] = self._get(logout)
        if evidence.is_ours:
            questions |= self._questions_for_ours() | self._questions_about_paths()
        self._asker.together(questions)
        begun = evidence.reply("authorize")
        page = None if begun is None else at_origin(begun.location, self._origin)
        if page is not None:
            self._asker.together({"login-page": self._get(page)})

    def _preflight(self, target: str, method: str) -> Question:
        """The preflight of a browser, before a script of another origin may send its request (Fetch §4.8)."""
        return self._get(
            target,
            ("Origin", f"https://{NOBODY}"),
            ("Access-Control-Request-Method", method),
            ("Access-Control-Request-Headers", "authorization,content-type"),
            method="OPTIONS",
        )

    def _questions_of_a_client(self) -> dict[str, Question]:
        """The start of a sign-in, and whether each replica knows the client."""
        if not self._options.has_client:
            return {}
        begin, silent = self._sign_in.begin(), self._sign_in.begin(prompt="none")
        questions = {"authorize": self._get(begin)}
        questions |= {f"authorize-{n}": self._get(begin) for n in _FEW}
        questions |= {f"silent-{n}": self._get(silent) for n in _REPEATS}
        questions["long-state"] = self._get(self._sign_in.begin(prompt="none", state="s" * _STATE_CHARACTERS))
        return questions | {
            f"client-{n}": lambda: self._sign_in.redeem("doctor-knows-no-code") for n in (1, *_FEW)
        }

    def _questions_for_ours(self) -> dict[str, Question]:
        path = self._path
        token, trusted = f"{path}/oidc/token", f"{path}/api/auth/sessions/trusted-mint"
        unknown = {
            "response_type": "code",
            "client_id": "doctor-knows-no-client",
            "redirect_uri": f"https://{NOBODY}/",
            "scope": "openid",
        }
        asked = f"{path}/oidc/authorize?{urlencode(unknown)}"
        return {
            "oauth": self._get(path + OAUTH_DISCOVERY),
            "unknown-client": self._get(asked),
            "long-field": self._get(asked, ("Cookie", f"doctor={'a' * _FIELD_CHARACTERS}")),
            "body": self._post(token, b"doctor=" + b"a" * _BODY_BYTES),
            "long": self._get(f"{path}/oidc/authorize?doctor={'a' * _LONG_CHARACTERS}"),
            "trusted-get": self._get(trusted),
            "trusted-post": self._post(trusted, b"{}", JSON),
            "closed-users": self._get(f"{path}/api/auth/users/{USER}/sessions"),
            "closed-clients": self._get(f"{path}/api/oidc/clients"),
            "closed-session": self._post(f"{path}/api/auth/session", b"{}", JSON),
            "encoded-clients": self._get(f"{path}/%61pi/oidc/clients"),
            "encoded-session": self._post(f"{path}/api/auth/%73ession", b"{}", JSON),
            "closed-readyz": self._get("/readyz"),
            "closed-dev": self._get(f"{path}/dev/sign-in"),
            "nowhere": self._get(f"{path}/dev/doctor-nowhere"),
        }

    def _questions_about_paths(self) -> dict[str, Question]:
        path = self._path
        if not path:
            return {}
        return {
            "inserted-oidc": self._get(DISCOVERY + path),
            "inserted-oauth": self._get(OAUTH_DISCOVERY + path),
            "token-twice": self._post(f"{path}{path}/oidc/token", b"grant_type=doctor"),
            "token-root": self._post("/oidc/token", b"grant_type=doctor"),
        }

    # --- what others may send ---

    def _ask_after(self, evidence: Evidence) -> None:
        """Headers that others may send; then whether they have changed the next client's answer."""
        path = self._path
        forged = (
            ("X-Forwarded-Host", NOBODY), ("Forwarded", f"host={NOBODY};proto=http"), ("X-Forwarded-Port", "1"),
            ("X-Forwarded-Server", NOBODY), ("X-Original-Host", NOBODY), ("X-Host", NOBODY),
            ("X-Forwarded-Prefix", "/doctor"), ("Script-Name", "/doctor"),
        )  # fmt: skip
        sibling = f"doctor-probe.{self._origin.name.partition('.')[2] or NOBODY}"
        host = self._origin.host.replace(self._origin.name, sibling, 1)
        self._asker.together(
            {
                "forged-forwarded": self._get(path + DISCOVERY, *forged),
                "forged-proto": self._get(path + DISCOVERY, ("X-Forwarded-Proto", "http")),
                "forged-host": self._get(path + DISCOVERY, host=host),
                "forged-nobody": self._get(path + DISCOVERY, host=NOBODY),
            }
        )
        questions = {f"discovery-{n}": self._get(path + DISCOVERY) for n in (2, 3)}
        if userinfo := evidence.endpoint("userinfo_endpoint"):
            questions["userinfo-bare"] = self._get(userinfo)
        if self._options.has_client and evidence.is_ours:  # once more, for what a cache has kept meanwhile
            questions[f"authorize-{_FEW.stop}"] = self._get(self._sign_in.begin())
        self._asker.together(questions)

    # --- tokens ---

    def _with_tokens(self, evidence: Evidence) -> Evidence:
        """Mint through the public address, and sign in, if the options allow it."""
        if self._options.inside is None:
            return self._with_minted(evidence, self._options.session)
        ask = self._asker
        try:
            try:
                begun = ask.as_admin("POST", "/api/auth/session", {"user_id": USER, "expires_in": 300})
                self._answers["inside"] = begun
                session = begun.json_object().get("token")
                evidence = self._with_minted(evidence, session if isinstance(session, str) else None)
                evidence = self._with_flow(evidence)
            finally:
                ask.as_admin("DELETE", f"/api/auth/users/{USER}/sessions")
        except (WireError, TimeoutError) as error:
            name = "flow" if "inside" in self._answers else "inside"
            self._answers[name] = error if isinstance(error, WireError) else WireError("timeout", "")
        return evidence

    def _with_minted(self, evidence: Evidence, session: str | None) -> Evidence:
        if session is None or not session.isascii() or not session.isprintable():
            return evidence
        bearer = ("Authorization", f"Bearer {session}")
        mint = f"{self._path}/api/auth/jwt"
        self._asker.together({f"mint-{n}": self._post(mint, b"", bearer) for n in _REPEATS})
        read = [
            UnverifiedToken.read(reply.json_object().get("token"), reply.received_at)
            for reply in evidence.replies("mint")
        ]
        minted = [token for token in read if token is not None]
        if self._options.inside is not None:
            shared = [token for token in minted if token.header.get("alg") == "HS256"]
            self._asker.together({f"accepted-{n}": self._introspect(t) for n, t in enumerate(shared, 1)})
        return replace(evidence, minted=minted)

    def _introspect(self, token: UnverifiedToken) -> Question:
        """Whether the application on the inside accepts a token from outside."""
        headers = [("Authorization", f"Bearer {self._options.admin_token}"), FORM]
        body = urlencode({"token": token.text}).encode()
        return lambda: self._asker.inside("POST", f"{self._path}/oidc/introspect", headers, body)

    def _with_flow(self, evidence: Evidence) -> Evidence:
        begun = evidence.reply("authorize")
        if begun is None or begun.status != 303:
            return evidence  # reported by the rules about the start
        if self._options.client_secret is None and _needs_secret(evidence):
            return replace(evidence, flow={"no-secret": ""})
        return replace(evidence, **self._sign_in.run(begun))


def _needs_secret(evidence: Evidence) -> bool:
    """Whether the client has a secret."""
    told = [reply.json_object().get("error") for reply in evidence.replies("client")]
    return bool(told) and all(error == "invalid_client" for error in told)


def _quoted(text: str | None) -> str:
    return quote(text or "", safe="")
