"""The operator's options, and all answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from service.doctor.reply import Origin, Place, Reply, WireError

#: A reserved name (RFC 6761 §6.4), for which no proxy and no service may answer.
NOBODY: Final = "doctor.invalid"
#: The user that `doctor` signs in, if it can, and signs out again.
USER: Final = "pylon-oidc-doctor"

#: The names that libraries of relying parties send (RFC 9110 §10.1.5).
AGENTS: Final = ("python-requests/2.32.3", "Go-http-client/1.1", "Java/21")

#: The outcome of one request.
Answer = Reply | WireError


@dataclass(frozen=True)
class Options:
    """The operator's options.

    Attributes:
        url: the public address, without a trailing slash.
        client_id: a client to begin a sign-in for, or None.
        client_secret: its secret, or None.
        redirect_uri: a redirect URI of that client, or None.
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
        """The origin to test."""
        origin = Origin.of(self.url)
        if origin is None:
            raise ValueError("not an address that can be asked; write it as https://id.example.com")
        return origin

    @property
    def path(self) -> str:
        """The path of the address; empty for the root."""
        return urlsplit(self.url).path

    @property
    def has_client(self) -> bool:
        """Whether a sign-in can begin."""
        return bool(self.client_id and self.redirect_uri)

    @property
    def inside(self) -> tuple[Origin, Place | None] | None:
        """The inside origin and its place; None without a usable address or a token."""
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
    """A token that has not been verified.

    Attributes:
        text: the whole token.
        header: its header.
        claims: its claims.
        received_at: Unix s.
    """

    text: str = field(repr=False)
    header: Mapping[str, Any] = field(default_factory=dict)
    claims: Mapping[str, Any] = field(default_factory=dict)
    received_at: float = 0.0

    @staticmethod
    def read(text: object, received_at: float = 0.0) -> UnverifiedToken | None:
        """Split a token; None if it is not a JWT."""
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
    """All answers.

    Attributes:
        options: the operator's options.
        answers: by the name of the request.
        minted: tokens that were minted through the public address.
        flow: the steps of a whole sign-in: name of the step -> what was seen; `done` if it completed.
        id_token: the ID token of that sign-in.
        lasted_s: the duration of the run.
    """

    options: Options
    answers: Mapping[str, Answer]
    minted: Sequence[UnverifiedToken] = ()
    flow: Mapping[str, str] = field(default_factory=dict)
    id_token: UnverifiedToken | None = None
    lasted_s: float = 0.0

    def reply(self, name: str) -> Reply | None:
        """The answer to a request; None if it was not sent, or not answered."""
        answer = self.answers.get(name)
        return answer if isinstance(answer, Reply) else None

    def replies(self, prefix: str) -> list[Reply]:
        """The answers to a repeated request: `prefix` itself, and `prefix-NUMBER`."""
        return [
            answer
            for name, answer in self.answers.items()
            if isinstance(answer, Reply) and (name == prefix or _is_numbered(name, prefix))
        ]

    def error(self, name: str) -> WireError | None:
        """Why there was no answer."""
        answer = self.answers.get(name)
        return answer if isinstance(answer, WireError) else None

    @property
    def document(self) -> Mapping[str, Any]:
        """The discovery document; empty if there is none."""
        reply = self.reply("discovery")
        return reply.json_object() if reply is not None and reply.status == 200 else {}

    @property
    def issuer(self) -> str | None:
        """The issuer in the document; None if it is not text."""
        issuer = self.document.get("issuer")
        return issuer if isinstance(issuer, str) else None

    @property
    def is_derived(self) -> bool:
        """Whether the issuer comes from `Host`: then no cache may keep the document."""
        reply = self.reply("discovery")
        return reply is not None and "no-store" in reply.header("cache-control") and "host" in _vary(reply)

    @property
    def is_ours(self) -> bool:
        """Whether pylon-oidc answers: its errors have a shape that others do not have."""
        probe = self.reply("probe")
        if probe is not None and probe.code:
            return True
        endpoint = self.document.get("authorization_endpoint")
        return isinstance(endpoint, str) and endpoint.endswith("/oidc/authorize")

    @property
    def is_reached(self) -> bool:
        """Whether our application itself answered, and not the proxy in front of it."""
        probe = self.reply("probe")
        return probe is not None and probe.code not in {"", "PROXY_REFUSED"}

    def endpoint(self, member: str) -> str | None:
        """Path and query of an endpoint in the document; None if it is at another origin."""
        return at_origin(self.document.get(member), self.options.origin)

    @property
    def readiness(self) -> Mapping[str, Any]:
        """The application's own report on the inside (`/readyz`); empty if it was not requested, or is not ours."""
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
    """Path and query of a URL; None if it is at another origin, or not usable."""
    if not isinstance(url, str) or not url.isascii() or not url.isprintable() or " " in url:
        return None
    if Origin.of(url) != origin:
        return None
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
