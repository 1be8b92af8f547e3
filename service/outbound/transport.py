"""Connects httpx with `wire.py`: one new connection for each request.

Spec: RFC 9110 §9.3.6 (a proxy's CONNECT)
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import httpcore
import httpx

from service.outbound.reading import Proxy
from service.outbound.wire import Wire


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


class PinnedTransport(httpx.BaseTransport):
    """Sends one request.

    Args:
        wire: opens connections.
        context: the TLS settings for the target.
        proxy: the proxy to connect to instead of the target, if any.
    """

    def __init__(self, wire: Wire, context: ssl.SSLContext, proxy: Proxy | None) -> None:
        self._pool = (
            httpcore.ConnectionPool(ssl_context=context, max_keepalive_connections=0, network_backend=wire)
            if proxy is None
            else httpcore.HTTPProxy(
                proxy_url=proxy.url,
                proxy_auth=proxy.credentials,
                ssl_context=context,
                max_keepalive_connections=0,
                network_backend=wire,
            )
        )

    def handle_request(self, sent: httpx.Request) -> httpx.Response:
        """Send it. TLS and `Host` use the name of the URL, whatever the address."""
        url = sent.url
        response = self._pool.handle_request(
            httpcore.Request(
                sent.method,
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=sent.headers.raw,
                content=sent.stream,
                extensions={},
            )
        )
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response))

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()
