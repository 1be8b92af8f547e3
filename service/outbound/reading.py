"""Parses the settings of requests to others.

Never touches: the environment.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote_to_bytes

from service.outbound.addresses import Allowed, Network, Refused, parse_host, parse_network

_PROXY: Final = re.compile(
    r"http://(?:(?P<user>[^\s:@/?#]+):(?P<password>[^\s:@/?#]*)@)?(?P<host>\[[0-9a-f:.]+\]|[a-z0-9_.-]+):(?P<port>[0-9]{1,5})/?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy.

    Attributes:
        url: without credentials.
        credentials: user and password, or None.
    """

    url: str
    credentials: tuple[bytes, bytes] | None = field(default=None, repr=False)


def parse_allowed(value: str) -> Allowed:
    """Hosts, addresses and networks, separated by commas.

    Raises:
        ValueError: if an entry is none of them.
    """
    hosts: set[str] = set()
    networks: list[Network] = []
    example = "write names, addresses and CIDRs, such as app.internal,10.1.2.3,10.8.0.0/16"
    for entry in (part.strip().lower() for part in value.split(",")):
        try:
            if "/" in entry:
                networks.append(parse_network(entry))
                continue
            literal = parse_host(f"[{entry}]" if entry.count(":") > 1 and entry[0] != "[" else entry)
        except Refused:
            raise ValueError(f"an entry is not a host or an address; {example}") from None
        except ValueError:
            raise ValueError(
                f"an entry is not a network, or has bits set outside of its mask; {example}"
            ) from None
        hosts.add(entry if literal is None else str(literal))
        if literal is not None:
            networks.append(parse_network(str(literal)))
    return Allowed(frozenset(hosts), tuple(networks))


def parse_ca_file(value: str) -> Path:
    """The path of a PEM file with certificates.

    Raises:
        ValueError: if it contains none.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
    except (OSError, ValueError) as error:
        reason = (
            "it contains no certificate"
            if isinstance(error, ssl.SSLError)
            else "it is missing or not readable"
        )
        raise ValueError(f"{reason}; write the path of a PEM file with CA certificates") from None
    return Path(value)


def parse_proxy(value: str) -> Proxy:
    """The URL of an HTTP proxy.

    Raises:
        ValueError: if it is another URL.
    """
    example = "write http://proxy.internal:3128, or http://user:password@proxy.internal:3128"
    match = _PROXY.fullmatch(value)
    try:
        if match is None or not 1 <= int(match["port"]) <= 65535:
            raise ValueError
        parse_host(match["host"])
    except ValueError:
        raise ValueError(f"is not the URL of an HTTP proxy with its port; {example}") from None
    credentials = None
    if match["user"] is not None:
        credentials = unquote_to_bytes(match["user"]), unquote_to_bytes(match["password"])
    return Proxy(f"http://{match['host']}:{match['port']}", credentials)
