"""Documents as prepared bytes, with a strong ETag and the headers of a public answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import falcon

MAX_AGE_S: Final = 300
PUBLIC: Final = f"public, max-age={MAX_AGE_S}"
NO_STORE: Final = "no-store"


def keep_for(seconds: int) -> str:
    """The `Cache-Control` of a public answer that may be kept so long; 0: not at all."""
    return f"public, max-age={seconds}" if seconds > 0 else NO_STORE


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON document, serialised once."""

    data: bytes
    etag: str

    @staticmethod
    def of(value: Mapping[str, Any]) -> Document:
        """Serialise the value; its ETag is a hash of the bytes, so that replicas agree on it."""
        data = json.dumps(value, separators=(",", ":")).encode()
        return Document(data, f'"{hashlib.sha256(data).hexdigest()[:32]}"')


def send_document(
    req: falcon.Request,
    resp: falcon.Response,
    document: Document,
    *,
    cache_control: str,
    vary: str | None = None,
) -> None:
    """Answer with the document, or 304 where the client has it already.

    Spec: RFC 9110 §13.1.2 (weak comparison), §15.4.5; CORS `*`, for no cookie counts here
    """
    resp.set_headers(
        {"ETag": document.etag, "Cache-Control": cache_control, "Access-Control-Allow-Origin": "*"}
    )
    if vary is not None:
        resp.set_header("Vary", vary)
    if _has_already(req.env.get("HTTP_IF_NONE_MATCH"), document.etag):
        resp.status_code = 304
        return
    resp.content_type = "application/json"
    resp.data = document.data


def send_preflight(resp: falcon.Response, methods: str) -> None:
    """Answer an `OPTIONS` request to a public document."""
    resp.set_headers(
        {
            "Allow": methods,
            "Access-Control-Allow-Origin": "*",
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": "Authorization, Content-Type",
            "Access-Control-Max-Age": "7200",
        }
    )
    resp.status_code = 204


def _has_already(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    candidates = [candidate.strip().removeprefix("W/") for candidate in if_none_match.split(",")]
    return etag in candidates or "*" in candidates
