"""`/.well-known/openid-configuration`, `/.well-known/oauth-authorization-server` and `/oidc/jwks`, serialised in advance.

Spec: OpenID Connect Discovery 1.0 §4, RFC 8414 §3, RFC 7517 §5
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import falcon

from service.issuer import issuer_path
from service.keys.signing import Keyring
from service.protocol.metadata import ENDPOINTS, build_metadata
from service.resources.parts import Parts, Resource
from service.web.caching import NO_STORE, PUBLIC, Document, keep_for, send_document, send_preflight
from service.web.mounts import Mount

_METHODS = "GET, HEAD, OPTIONS"
_WELL_KNOWN: Final = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")
_ISSUERS_KEPT: Final = 64


@dataclass(frozen=True, slots=True)
class _Made:
    """The documents by issuer, and the algorithms in them."""

    algs: tuple[str, ...]
    documents: dict[str, Document]


class Discovery(Resource):
    """The metadata document of the configured issuer, or of the request's issuer if none is configured."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._issuer = parts.settings.issuer
        self._scopes = parts.settings.scopes
        self._made = _Made((), {})

    def _document(self, issuer: str) -> Document:
        """The document, built again only after the algorithms have changed."""
        algs = tuple(self.parts.keys.current().advertised_algs)
        made = self._made
        if made.algs != algs:
            made = self._made = _Made(algs, {})
        document = made.documents.get(issuer)
        if document is None:
            metadata = build_metadata(
                issuer,
                algs=algs,
                scopes=self._scopes,
                policies=self.parts.policies,
                registration_is_open=self.parts.registrations.mode == "open",
                documents=self.parts.settings.client_documents is not False,
            )
            document = Document.of(metadata)
            # An attacker could send many values of `Host` to fill this.
            if len(made.documents) >= _ISSUERS_KEPT:
                made.documents.clear()
            made.documents[issuer] = document
        return document

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the document. Caches may keep it only if it does not depend on `Host`."""
        document = self._document(self._issuer or req.context.issuer)
        if self._issuer is not None:
            send_document(req, resp, document, cache_control=PUBLIC)
        else:
            send_document(req, resp, document, cache_control=NO_STORE, vary="Host")

    def on_options(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a preflight."""
        send_preflight(req, resp, _METHODS)


class Jwks(Resource):
    """The published keys: the same for every issuer."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._made: tuple[Keyring, Document] | None = None

    def _document(self) -> Document:
        """The JWK Set, built again only after the keyring has changed."""
        keyring, made = self.parts.keys.current(), self._made
        if made is None or made[0] is not keyring:
            made = self._made = (keyring, Document.of(keyring.jwks()))
        return made[1]

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the JWK Set. Caches may keep it until the set changes."""
        document = self._document()
        send_document(req, resp, document, cache_control=keep_for(self.parts.keys.max_age_s()))

    def on_options(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a preflight."""
        send_preflight(req, resp, _METHODS)


def routes(parts: Parts) -> tuple[Mount, ...]:
    """Their paths. RFC 8414 §3.1 puts the well-known part before the issuer's path, Discovery §4 after it."""
    discovery, prefix = Discovery(parts), issuer_path(parts.settings.issuer or "")
    inserted = [Mount(path + prefix, discovery, at_root=True) for path in _WELL_KNOWN if prefix]
    behind = [Mount(path, discovery) for path in _WELL_KNOWN]
    return (*behind, *inserted, Mount(ENDPOINTS["jwks_uri"], Jwks(parts)))
