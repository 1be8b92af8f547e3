"""`GET /oidc/status/{number}`: a status list, signed again only after some seconds.

Spec: draft-ietf-oauth-status-list §8
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

import falcon

from service.protocol.status_list_tokens import MEDIA_TYPE, status_list_token
from service.records.statuses import is_number, revoked_places
from service.resources.parts import Parts, Resource
from service.status_lists import PATH
from service.storage.interface import Kind
from service.web.caching import NO_STORE, Document, keep_for, send_document, send_preflight
from service.web.errors import ApiError
from service.web.mounts import Mount

_METHODS: Final = "GET, HEAD, OPTIONS"
#: How long this process sends the same list, and how long caches may keep it, in s: together less than its `ttl`.
_SAME_S: Final = 10
_CACHED_S: Final = 30
#: How many lists are cached, by address.
_MOST: Final = 256


@dataclass(frozen=True, slots=True)
class _Made:
    at: int
    document: Document


class StatusList(Resource):
    """A status list."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._made: dict[str, _Made] = {}
        self._making = threading.Lock()

    def on_get(self, req: falcon.Request, resp: falcon.Response, number: str) -> None:
        """Answer with the list, or 404 if no process has taken it."""
        document = self._document(req.context.issuer, number, req.context.now)
        if self.parts.settings.issuer is not None:
            send_document(req, resp, document, cache_control=keep_for(_CACHED_S), media_type=MEDIA_TYPE)
        else:
            send_document(req, resp, document, cache_control=NO_STORE, vary="Host", media_type=MEDIA_TYPE)

    def on_options(self, req: falcon.Request, resp: falcon.Response, number: str) -> None:
        """Answer a preflight."""
        send_preflight(req, resp, _METHODS)

    def _document(self, issuer: str, number: str, now: int) -> Document:
        """The list as it was at most some seconds ago. One thread signs it; the others wait for it.

        Raises:
            ApiError: `NOT_FOUND` if there is no such list.
        """
        uri = f"{issuer}{PATH}{number}"
        if (document := self._recent(uri, now)) is not None:
            return document
        if not self.parts.statuses.enabled or not self._is_taken(uri, number, now):
            raise ApiError("NOT_FOUND")
        with self._making:
            return self._recent(uri, now) or self._make(uri, number, now)

    def _recent(self, uri: str, now: int) -> Document | None:
        made = self._made.get(uri)
        return made.document if made is not None and made.at <= now < made.at + _SAME_S else None

    def _is_taken(self, uri: str, number: str, now: int) -> bool:
        """Whether a process has taken that list. A list that was sent before is not looked up again."""
        if uri in self._made:
            return True
        return is_number(number) and self.parts.store.get(Kind.STATUS, number, now=now) is not None

    def _make(self, uri: str, number: str, now: int) -> Document:
        places = revoked_places(self.parts.store.list(Kind.STATUS, subject=number, now=now))
        document = Document.of_bytes(status_list_token(uri, places, self.parts.keys, now=now).encode())
        if len(self._made) >= _MOST:
            self._made.clear()
        self._made[uri] = _Made(now, document)
        return document


def routes(parts: Parts) -> tuple[Mount, ...]:
    """Its path."""
    return (Mount(f"{PATH}{{number}}", StatusList(parts)),)
