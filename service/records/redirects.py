"""Where a redirect URI leads: to a host of the web, to a program on the user's computer, or to an app on their device.

Spec: RFC 8252 §7, §8.6
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

_LOOPBACK_ADDRESSES: Final = r"127\.0\.0\.1|\[::1\]"
_LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
_PORT: Final = r"(?::[0-9]{1,5})?(?P<rest>/[^#]*)?"
_BY_ADDRESS: Final = re.compile(rf"http://(?P<host>{_LOOPBACK_ADDRESSES}){_PORT}", re.ASCII)
_BY_NAME_TOO: Final = re.compile(rf"http://(?P<host>{_LOOPBACK_ADDRESSES}|localhost){_PORT}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a redirect URI leads.

    Attributes:
        kind: `web`; `loopback`, a program on the same computer; `app`, one that has registered a scheme of its own;
            `none`, for a device that asks for its answer itself.
        host: the host without its port; for an app, the scheme.
    """

    kind: Literal["web", "loopback", "app", "none"]
    host: str

    @property
    def is_on_device(self) -> bool:
        """Whether it leads to a program on the user's device. Any program there can take its place (RFC 8252 §8.6)."""
        return self.kind in ("loopback", "app")


def destination(redirect_uri: str) -> Destination:
    """Where a registered redirect URI leads; an empty one leads nowhere."""
    if not redirect_uri:
        return Destination("none", "")
    parts = urlsplit(redirect_uri)
    if parts.scheme not in ("https", "http"):
        return Destination("app", parts.scheme)
    host = parts.hostname or ""
    return Destination("loopback" if host in _LOOPBACK_HOSTS else "web", host)


def without_loopback_port(uri: str, *, by_name: bool) -> str | None:
    """The URI without its port, if that may be any; None for every other URI.

    Args:
        uri: the URI.
        by_name: whether that is also so for `localhost`, which a computer may look up elsewhere.
    """
    match = (_BY_NAME_TOO if by_name else _BY_ADDRESS).fullmatch(uri)
    return None if match is None else f"{match['host']}{match['rest'] or ''}"
