"""Decides where a request may go: which URLs, and which addresses of their hosts.

Spec: RFC 6890, RFC 3986 §3.2, RFC 4291 §2.5.5, RFC 6052
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]{2,45}\]|[a-z0-9_.-]{1,253})(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>(?:[/?][\x21\x24-\x5b\x5d\x5f\x61-\x7e]*)?)",
    re.ASCII | re.IGNORECASE,
)
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
#: Many libraries read a name with such an end as an IPv4 address: decimal, octal, hexadecimal, or shortened.
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
#: The addresses that are not public in IPv4. Azure's 168.63.129.16 answers only its own machines.
_CLOSED_4: Final = tuple(
    IPv4Network(each)
    for each in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
    )
)
#: Only this is public in IPv6, without the parts that map to another address (6to4, Teredo) or belong to no one.
_OPEN_6: Final = IPv6Network("2000::/3")
_CLOSED_6: Final = tuple(
    IPv6Network(each) for each in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)


class Refused(ValueError):
    """A URL or an address to which no request is sent. The message is a constant."""


@dataclass(frozen=True, slots=True)
class Target:
    """The parsed URL of a request.

    Attributes:
        scheme: `https` or `http`.
        host: the name in lower case, or the address without brackets.
        port: as in the URL, or the scheme's.
        path: path and query; at least `/`.
        literal: the host, if it is an address.
    """

    scheme: str
    host: str
    port: int
    path: str
    literal: Address | None

    @property
    def authority(self) -> str:
        """Host and port, in the notation of `Host`."""
        host = f"[{self.host}]" if isinstance(self.literal, IPv6Address) else self.host
        return host if self.port == {"https": 443, "http": 80}[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True, slots=True)
class Allowed:
    """What an operator allows although it is not public.

    Attributes:
        hosts: names and addresses, as in URLs. These may also use http.
        networks: networks of addresses.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    def names(self, host: str) -> bool:
        """Whether this host is listed."""
        return host in self.hosts

    def contains(self, address: Address) -> bool:
        """Whether this address is listed."""
        return any(address.version == each.version and address in each for each in self.networks)


NOTHING: Final = Allowed()


def parse_target(url: str, allowed: Allowed) -> Target:
    """Parse the URL of a request, and refuse it if its host is clearly not allowed.

    Raises:
        Refused: also for any form that two libraries may read differently: user info, a trailing dot, a backslash, a
            fragment, an address in an unusual form, a name in Unicode.
    """
    match = _URL.fullmatch(url) if len(url) <= 2048 else None
    if match is None:
        raise Refused("url_malformed")
    scheme, host = match["scheme"].lower(), match["host"].lower().strip("[]")
    literal = parse_host(match["host"].lower())
    port = int(match["port"] or {"https": 443, "http": 80}[scheme])
    if not 1 <= port <= 65535:
        raise Refused("url_malformed")
    if literal is not None:
        host = str(literal)
    target = match["target"]
    parsed = Target(scheme, host, port, target if target.startswith("/") else f"/{target}", literal)
    if scheme == "http" and not allowed.names(host):
        raise Refused("not_https")
    if literal is not None:
        check_address(literal, host, allowed)
    elif (host == "localhost" or host.endswith(".localhost")) and not allowed.names(host):
        raise Refused("address_not_public")
    return parsed


def parse_host(host: str) -> Address | None:
    """Check a host in lower case. Return its address if it is one, or None if it is a name.

    Raises:
        Refused: if it is neither.
    """
    if host.startswith("["):
        try:
            return IPv6Address(host[1:-1])
        except ValueError:
            raise Refused("url_malformed") from None
    try:
        return IPv4Address(host)
    except ValueError:
        labels = host.split(".")
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)) or _NUMBER.fullmatch(labels[-1]):
        raise Refused("url_malformed")
    return None


def check_address(address: Address, host: str, allowed: Allowed) -> None:
    """Refuse an address that is not public, unless the operator allows it or its host.

    Raises:
        Refused: if no request may go there.
    """
    if not (is_public(address) or allowed.names(host) or allowed.contains(address)):
        raise Refused("address_not_public")


def is_public(address: Address) -> bool:
    """Whether the address is public, and not another address in disguise."""
    if isinstance(address, IPv4Address):
        return not any(address in each for each in _CLOSED_4)
    return address in _OPEN_6 and not any(address in each for each in _CLOSED_6)


def parse_address(text: str) -> Address:
    """An address of a name, as the system returns it.

    Raises:
        Refused: if it is bound to an interface (`fe80::1%eth0`), or is not an address.
    """
    try:
        address = ip_address(text)
    except ValueError:
        raise Refused("address_not_public") from None
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise Refused("address_not_public")
    return address


def parse_network(text: str) -> Network:
    """Parse a CIDR.

    Raises:
        ValueError: if it is not one, or has bits outside of its mask.
    """
    return ip_network(text)
