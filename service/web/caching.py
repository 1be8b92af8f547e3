"""Sends documents that are serialised in advance, with a strong ETag and the headers of a public answer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import falcon

MAX_AGE_S: Final = 300
PUBLIC: Final = f"public, max-age={MAX_AGE_S}"
NO_STORE: Final = "no-store"
_ENTITY_TAG: Final = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", re.ASCII)
_MOST_HEADERS: Final = 32


def keep_for(seconds: int) -> str:
    """The `Cache-Control` of a public answer that caches may keep for that long; with 0, not at all."""
    return f"public, max-age={seconds}" if seconds > 0 else NO_STORE


@dataclass(frozen=True, slots=True)
class Document:
    """A document, serialised once."""

    data: bytes
    etag: str

    @staticmethod
    def of(value: Mapping[str, Any]) -> Document:
        """Serialise the value. Its ETag is a hash of the bytes, so all replicas send the same one."""
        return Document.of_bytes(json.dumps(value, separators=(",", ":")).encode())

    @staticmethod
    def of_bytes(data: bytes) -> Document:
        """A document of other bytes."""
        return Document(data, f'"{hashlib.sha256(data).hexdigest()[:32]}"')


def send_document(
    req: falcon.Request,
    resp: falcon.Response,
    document: Document,
    *,
    cache_control: str,
    vary: str | None = None,
    media_type: str = "application/json",
) -> None:
    """Answer with the document, or with 304 if the client already has it.

    Spec: RFC 9110 §13.1.2 (weak comparison), §15.4.5; CORS `*`, because cookies are ignored here
    """
    resp.set_headers(
        {"ETag": document.etag, "Cache-Control": cache_control, "Access-Control-Allow-Origin": "*"}
    )
    if vary is not None:
        resp.set_header("Vary", vary)
    if _has_already(req.env.get("HTTP_IF_NONE_MATCH"), document.etag):
        resp.status_code = 304
        return
    resp.content_type = media_type
    resp.data = document.data


def send_preflight(req: falcon.Request, resp: falcon.Response, methods: str) -> None:
    """Answer an `OPTIONS` request where cookies are ignored: a script may send any header (Fetch §3.2.3)."""
    resp.set_headers(
        {
            "Allow": methods,
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": _allowed_headers(
                req.env.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
            ),
            "Vary": "Access-Control-Request-Headers",
            "Access-Control-Max-Age": "7200",
        }
    )
    resp.status_code = 204


def _allowed_headers(asked: str) -> str:
    """`Authorization`, `Content-Type` and all valid names that are asked for, each once."""
    names = [name.strip(" \t") for name in asked.split(",")][:_MOST_HEADERS]
    more = {name.lower(): name for name in names if _TOKEN.fullmatch(name)}
    usual = {"authorization": "Authorization", "content-type": "Content-Type"}
    return ", ".join((more | usual).values())


def _has_already(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    # A tag may contain commas and asterisks, so the list is not split at commas.
    return if_none_match.strip(" \t") == "*" or etag in _ENTITY_TAG.findall(if_none_match)
