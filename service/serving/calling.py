"""Calls a WSGI application whose answers are in memory.

Spec: PEP 3333
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]


def body_of(app: WsgiApp, environ: Environ, start_response: StartResponse) -> bytes:
    """Call the application, and join what it returns. Raises what the application raises."""
    chunks = app(environ, start_response)
    try:
        return b"".join(chunks)
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()
