"""Client ID Metadata Documents: which URLs are client ids, and how their documents are read.

Spec: draft-ietf-oauth-client-id-metadata-document-02 §3, §4, §5, §5.2
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

#: A client's id is stored with everything that it gets, in columns of this size.
MOST_CHARS: Final = 255
#: draft §8.7: the size of a document should be limited to 5 KiB.
MOST_BYTES: Final = 5 * 1024
#: How long a document is fresh at least and at most, whatever its `Cache-Control` says, in s.
SHORTEST_S: Final = 300
LONGEST_S: Final = 86_400

_URL: Final = re.compile(
    r"https://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/(?:[!$&-.0-;=@-Z_a-z~/]|%[0-9A-Fa-f]{2})+)(?:\?(?:[!$&-;=?@-Z_a-z~]|%[0-9A-Fa-f]{2})*)?",
    re.ASCII,
)
_DOTS: Final = re.compile(r"(?:\.|%2e){1,2}", re.IGNORECASE)
_JSON: Final = re.compile(r"application/(?:json|[A-Za-z0-9.+_-]+\+json)\s*(?:;.*)?", re.ASCII | re.IGNORECASE)
#: A published secret is not a secret (draft §4).
_SECRETS: Final = ("client_secret", "client_secret_expires_at")


class DocumentRefused(Exception):
    """A document is refused. Users see the same page for every cause.

    Args:
        cause: a constant word for the log.
        detail: for the operator; contains nothing of the document.
    """

    def __init__(self, cause: str, detail: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.detail = detail


@dataclass(frozen=True, slots=True)
class DocumentUrl:
    """A client id that is the URL of its document.

    Attributes:
        host: in lower case, without its port.
        port: None is the default port.
    """

    host: str
    port: int | None


@dataclass(frozen=True, slots=True)
class HostPattern:
    """Hosts whose documents are accepted.

    Attributes:
        name: a host or domain, in lower case.
        port: None: any.
        itself: whether the host of that name is one of them.
        subdomains: whether all hosts below it are.
    """

    name: str
    port: int | None = None
    itself: bool = True
    subdomains: bool = False

    def matches(self, url: DocumentUrl) -> bool:
        """Whether the URL's host is one of them."""
        if self.port is not None and self.port != (url.port or 443):
            return False
        return (self.itself and url.host == self.name) or (
            self.subdomains and url.host.endswith(f".{self.name}")
        )


@dataclass(frozen=True, slots=True)
class DocumentHosts:
    """Which documents are accepted.

    Attributes:
        opened: `True`: all; `False`: none; or those of some hosts.
    """

    opened: bool | tuple[HostPattern, ...] = False

    def url_of(self, client_id: str) -> DocumentUrl | None:
        """The URL of the client's document, if that is accepted."""
        url = parse_document_url(client_id) if self.opened else None
        if url is None or self.opened is True or self.opened is False:
            return url
        return url if any(pattern.matches(url) for pattern in self.opened) else None


CLOSED: Final = DocumentHosts()


def parse_document_url(client_id: str) -> DocumentUrl | None:
    """Parse a client id that may be the URL of a document; None for every other id.

    It has the scheme https and a path, and no fragment, user info or dot segments. A query is allowed. It is never
    normalised: it is compared as a string (draft §3).
    """
    match = _URL.fullmatch(client_id) if len(client_id) <= MOST_CHARS else None
    if match is None or any(map(_DOTS.fullmatch, match["path"].split("/"))):
        return None
    port = int(match["port"] or 443)
    if not 1 <= port <= 65535:
        return None
    return DocumentUrl(match["host"].lower(), None if port == 443 else port)


def read_document(client_id: str, status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The metadata in a document. `protocol.strangers` decides whether a client may have it.

    Args:
        client_id: the requested URL.
        status: the status of the answer; a redirect is not followed, and is not a document.
        headers: its headers, with names in lower case.
        body: its body.

    Raises:
        DocumentRefused: with the cause.

    Spec: draft §4, §5
    """
    if status != 200:
        raise DocumentRefused("document_status", f"the answer has status {status}, and only 200 counts")
    if not _JSON.fullmatch(headers.get("content-type", "application/json").strip()):
        raise DocumentRefused("document_type", "the answer's Content-Type is not application/json")
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError):
        raise DocumentRefused(
            "document_malformed", "it is not JSON in UTF-8, or a member is repeated"
        ) from None
    if not isinstance(document, dict):
        raise DocumentRefused("document_malformed", "it is not a JSON object")
    if document.get("client_id") != client_id:
        raise DocumentRefused("document_of_another", "its client_id is not, as a string, the URL that it has")
    if any(name in document for name in _SECRETS):
        raise DocumentRefused("document_with_secret", f"it has {' or '.join(_SECRETS)}, and is public")
    return document


def fresh_s(headers: Mapping[str, str]) -> int:
    """How long a document is fresh, in s: as its `Cache-Control` says, within our limits (draft §5.2; RFC 9111 §4.2)."""
    parts = [part.partition("=") for part in headers.get("cache-control", "").lower().split(",")]
    said = {name.strip(): value.strip().strip('"') for name, _, value in reversed(parts)}
    if "no-store" in said or "no-cache" in said:
        return SHORTEST_S
    left_s = _seconds(said.get("max-age")) - _seconds(headers.get("age"))
    return max(SHORTEST_S, min(left_s, LONGEST_S))


def _seconds(text: str | None) -> int:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) else 0


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member is repeated")
    return members
