"""`/.well-known/openid-configuration`, `/.well-known/oauth-authorization-server` and `/oidc/jwks`: prepared bytes.

Spec: OpenID Connect Discovery 1.0 §4, RFC 8414 §3, RFC 7517 §5
"""

from __future__ import annotations

from functools import lru_cache

import falcon

from service.keyring import Keyring
from service.protocol.metadata import build_metadata
from service.web.caching import NO_STORE, PUBLIC, Document, send_document, send_preflight

_METHODS = "GET, HEAD, OPTIONS"


class Discovery:
    """The metadata document of the request's issuer.

    Args:
        keyring: says which algorithms verifiers will meet.
        issuer: the configured issuer; None when it comes from each request's `Host`.
    """

    def __init__(self, keyring: Keyring, *, issuer: str | None) -> None:
        self._keyring = keyring
        self._document = lru_cache(maxsize=64)(self._build)
        self._fixed = None if issuer is None else self._build(issuer)

    def _build(self, issuer: str) -> Document:
        return Document.of(build_metadata(issuer, algs=self._keyring.advertised_algs))

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the document; it may be cached only where no `Host` can change it."""
        if self._fixed is not None:
            send_document(req, resp, self._fixed, cache_control=PUBLIC)
        else:
            send_document(req, resp, self._document(req.context.issuer), cache_control=NO_STORE, vary="Host")

    def on_options(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a preflight."""
        send_preflight(resp, _METHODS)


class Jwks:
    """The published keys: the same for every issuer."""

    def __init__(self, keyring: Keyring) -> None:
        self._document = Document.of(keyring.jwks())

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer with the JWK Set."""
        send_document(req, resp, self._document, cache_control=PUBLIC)

    def on_options(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a preflight."""
        send_preflight(resp, _METHODS)
