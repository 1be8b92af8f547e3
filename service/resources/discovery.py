"""`/.well-known/openid-configuration`, `/.well-known/oauth-authorization-server` and `/oidc/jwks`: prepared bytes.

Spec: OpenID Connect Discovery 1.0 §4, RFC 8414 §3, RFC 7517 §5
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import falcon

from service.keys.signing import Keyring, Keys
from service.protocol.metadata import build_metadata
from service.records.scopes import STANDARD_SCOPES, Scopes
from service.web.caching import NO_STORE, PUBLIC, Document, keep_for, send_document, send_preflight

_METHODS = "GET, HEAD, OPTIONS"
_ISSUERS_KEPT: Final = 64


@dataclass(frozen=True, slots=True)
class _Made:
    """Documents by issuer, and the algorithms that they name."""

    algs: tuple[str, ...]
    documents: dict[str, Document]


class Discovery:
    """The metadata document of the request's issuer.

    Args:
        keyring: says which algorithms verifiers will meet.
        issuer: the configured issuer; None when it comes from each request's `Host`.
        scopes: what there is to ask for.
    """

    def __init__(self, keyring: Keys, *, issuer: str | None, scopes: Scopes = STANDARD_SCOPES) -> None:
        self._keyring = keyring
        self._issuer = issuer
        self._scopes = scopes
        self._made = _Made((), {})

    def _document(self, issuer: str) -> Document:
        """The document, prepared anew only when the algorithms have changed."""
        algs = tuple(self._keyring.current().advertised_algs)
        made = self._made
        if made.algs != algs:
            made = self._made = _Made(algs, {})
        document = made.documents.get(issuer)
        if document is None:
            document = Document.of(build_metadata(issuer, algs=algs, scopes=self._scopes))
            if len(made.documents) >= _ISSUERS_KEPT:  # `Host` has many names for whoever wants to fill this
                made.documents.clear()
            made.documents[issuer] = document
        return document

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the document; it may be cached only where no `Host` can change it."""
        document = self._document(self._issuer or req.context.issuer)
        if self._issuer is not None:
            send_document(req, resp, document, cache_control=PUBLIC)
        else:
            send_document(req, resp, document, cache_control=NO_STORE, vary="Host")

    def on_options(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a preflight."""
        send_preflight(req, resp, _METHODS)


class Jwks:
    """The published keys: the same for every issuer."""

    def __init__(self, keyring: Keys) -> None:
        self._keyring = keyring
        self._made: tuple[Keyring, Document] | None = None

    def _document(self) -> Document:
        """The JWK Set, prepared anew only when the keyring is another."""
        keyring, made = self._keyring.current(), self._made
        if made is None or made[0] is not keyring:
            made = self._made = (keyring, Document.of(keyring.jwks()))
        return made[1]

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the JWK Set; it may be kept until the set changes."""
        document = self._document()
        send_document(req, resp, document, cache_control=keep_for(self._keyring.max_age_s()))

    def on_options(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a preflight."""
        send_preflight(req, resp, _METHODS)
