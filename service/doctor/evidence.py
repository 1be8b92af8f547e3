"""What the operator gave, and everything that came back."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from service.doctor.reply import Origin, Place, Reply, WireError

#: A reserved name (RFC 6761 §6.4), which no proxy and no service may answer for.
NOBODY: Final = "doctor.invalid"
#: Whom `doctor` signs in, where it can, and signs out again.
USER: Final = "pylon-oidc-doctor"

#: What libraries of relying parties call themselves (RFC 9110 §10.1.5).
AGENTS: Final = ("python-requests/2.32.3", "Go-http-client/1.1", "Java/21")

#: What came back of one question.
Answer = Reply | WireError


@dataclass(frozen=True)
class Options:
    """What the operator gave.

    Attributes:
        url: the public address, without a slash at its end.
        client_id: a client to begin a sign-in for, or None.
        client_secret: its secret, or None.
        redirect_uri: one that it has registered, or None.
        session: a session token, or None.
        admin_url: how the application is reached from inside, as `http://…` or `unix:/path`; or None.
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

    @property
    def has_client(self) -> bool:
        """Whether a sign-in can begin."""
        return bool(self.client_id and self.redirect_uri)

    @property
    def inside(self) -> tuple[Origin, Place | None] | None:
        """Whom to ask on the inside, and where; None without an address that can be asked, or a token."""
        if self.admin_url is None or self.admin_token is None:
            return None
        path = self.admin_url.removeprefix("unix:")
        if path != self.admin_url:
            path = path.removeprefix("//")
            return (Origin("http", "localhost", 80), Place(path, 0)) if path.startswith("/") else None
        origin = Origin.of(self.admin_url)
        return None if origin is None else (origin, None)


@dataclass(frozen=True)
class UnverifiedToken:
    """A token as it came: nothing of it is checked.

    Attributes:
        text: all of it.
        header: what it says of itself.
        claims: what it says.
        received_at: Unix s.
    """

    text: str = field(repr=False)
    header: Mapping[str, Any] = field(default_factory=dict)
    claims: Mapping[str, Any] = field(default_factory=dict)
    received_at: float = 0.0

    @staticmethod
    def read(text: object, received_at: float = 0.0) -> UnverifiedToken | None:
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
        return UnverifiedToken(str(text), parts[0], parts[1], received_at)


@dataclass(frozen=True)
class Evidence:
    """Everything that came back.

    Attributes:
        options: what the operator gave.
        answers: by the name of the question.
        minted: tokens that were minted through the public address.
        flow: how far a whole sign-in came: name of the step -> what was seen; `done` when it came to its end.
        id_token: of that sign-in.
        lasted_s: how long all of it took.
    """

    options: Options
    answers: Mapping[str, Answer]
    minted: Sequence[UnverifiedToken] = ()
    flow: Mapping[str, str] = field(default_factory=dict)
    id_token: UnverifiedToken | None = None
    lasted_s: float = 0.0

    def reply(self, name: str) -> Reply | None:
        """The answer to a question; None when it was not asked, or none came."""
        answer = self.answers.get(name)
        return answer if isinstance(answer, Reply) else None

    def replies(self, prefix: str) -> list[Reply]:
        """The answers to a question that was asked several times: `prefix` itself, and `prefix-NUMBER`."""
        return [
            answer
            for name, answer in self.answers.items()
            if isinstance(answer, Reply) and (name == prefix or _is_numbered(name, prefix))
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
        """Whether the issuer comes from `Host`: then no cache may keep its document."""
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
        return at_origin(self.document.get(member), self.options.origin)

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


def _is_numbered(name: str, prefix: str) -> bool:
    return name.startswith(f"{prefix}-") and name.removeprefix(f"{prefix}-").isdecimal()


def _vary(reply: Reply) -> set[str]:
    return {name.strip().lower() for name in reply.header("vary").split(",")}


def at_origin(url: object, origin: Origin) -> str | None:
    """Path and query of a URL; None when it is at another origin, or cannot be asked for."""
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
        return None
    if Origin.of(url) != origin:
        return None
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
