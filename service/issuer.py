"""The issuer: parses `Host`, decides the issuer of a request, and builds URLs from it.

Owns: the form of a host, the allow-list, the issuer of a request or of the settings.
Never touches: requests, settings objects, the environment. Everything here is a pure function of strings.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

FALLBACK_ISSUER = "http://localhost:4321"

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_PORT = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_BRACKETED = re.compile(r"\[([0-9a-f:.]+)\](?::(.*))?", re.ASCII)
_PATH_SEGMENT = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+", re.ASCII)
_DEFAULT_PORTS = {"https": 443, "http": 80}


class InvalidHost(ValueError):
    """The value is not a usable host. The exception contains nothing of the value."""


class InvalidIssuer(ValueError):
    """The value cannot be an issuer. The message says why, and what to write instead."""


@dataclass(frozen=True, slots=True)
class Host:
    """A well-formed, normalised host: `name` in lower case (IPv6 in brackets), `port` if one was given."""

    name: str
    port: int | None

    @property
    def is_loopback(self) -> bool:
        """Whether the name can only mean this machine: `localhost`, 127.0.0.0/8 or `[::1]`."""
        if self.name == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.name.strip("[]")).is_loopback
        except ValueError:
            return False

    def origin(self, scheme: str) -> str:
        """`scheme://name[:port]`, the default port of the scheme left out."""
        if self.port is None or self.port == _DEFAULT_PORTS[scheme]:
            return f"{scheme}://{self.name}"
        return f"{scheme}://{self.name}:{self.port}"


def parse_host(value: str) -> Host:
    """Parse the value of a `Host` header.

    Args:
        value: the header as received.

    Returns:
        The host, lower-cased, without a trailing dot, an IPv6 address compressed (RFC 5952).

    Raises:
        InvalidHost: if it is not a DNS name, an IPv4 address or a bracketed IPv6 address without zone, with an
            optional port from 1 to 65535.

    Spec: RFC 9110 §7.2, RFC 3986 §3.2.2, RFC 1123 §2.1
    """
    if not value or len(value) > 264:
        raise InvalidHost
    lowered = value.lower() if value.isascii() else ""
    if lowered.startswith("["):
        match = _BRACKETED.fullmatch(lowered)
        if match is None:
            raise InvalidHost
        return Host(_compressed_ipv6(match[1]), None if match[2] is None else _parse_port(match[2]))
    name, colon, port = lowered.partition(":")
    return Host(_dns_name_or_ipv4(name), _parse_port(port) if colon else None)


def _parse_port(text: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise InvalidHost
    return int(text)


def _compressed_ipv6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise InvalidHost from None
    if address.ipv4_mapped is not None:  # RFC 5952 §5: a mapped address shows its IPv4 part
        return f"[::ffff:{address.ipv4_mapped}]"
    return f"[{address.compressed}]"


def _dns_name_or_ipv4(name: str) -> str:
    name = name.removesuffix(".")
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise InvalidHost
    if _NUMBER.fullmatch(labels[-1]):  # other programs would read it as an address
        try:
            ipaddress.IPv4Address(name)  # accepts only the canonical form
        except ValueError:
            raise InvalidHost from None
    return name


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """One entry of the allow-list: a name or a domain, and its port."""

    name: str
    subdomains: bool
    port: int | None
    any_port: bool

    def matches(self, host: Host, default_port: int) -> bool:
        """Whether the entry allows the host. A port of `None` is the default port."""
        if not self.any_port and (host.port or default_port) != (self.port or default_port):
            return False
        return host.name == self.name or (self.subdomains and host.name.endswith("." + self.name))


def parse_allowed_host(entry: str) -> AllowedHost:
    """Parse one entry of `PYLON_ALLOWED_HOSTS`: `name`, `name:port`, `name:*`, `.domain` with either.

    Raises:
        InvalidHost: if the entry has another form.
    """
    any_port = entry.endswith(":*")
    bare = entry.removesuffix(":*")
    subdomains = bare.startswith(".")
    host = parse_host(bare[1:] if subdomains else bare)
    if (any_port and host.port is not None) or (
        subdomains and (host.name.startswith("[") or host.name[-1].isdigit())
    ):
        raise InvalidHost
    return AllowedHost(host.name, subdomains, host.port, any_port)


@dataclass(frozen=True)
class IssuerResolver:
    """Finds the issuer of a request: the configured one, or else the one from its `Host`.

    Attributes:
        configured: the issuer of the settings, or None to derive it.
        allowed_hosts: hosts that may become an issuer; empty means any well-formed host.
        dev_mode: a loopback host gives an `http://` issuer.
    """

    configured: str | None
    allowed_hosts: tuple[AllowedHost, ...] = ()
    dev_mode: bool = False

    def resolve(self, host_header: str | None, *, host_required: bool) -> str:
        """Return the issuer.

        Args:
            host_header: the `Host` header, None when the request had none.
            host_required: whether the protocol requires one (HTTP/1.1, RFC 9112 §3.2).

        Raises:
            InvalidHost: if the header is required and missing, malformed, or not in the allow-list.
        """
        if host_header is None and host_required:
            raise InvalidHost
        if self.configured is not None:
            return self.configured
        if host_header is None:
            if self.allowed_hosts:
                raise InvalidHost
            return FALLBACK_ISSUER
        issuer = _derive(host_header, self.allowed_hosts, self.dev_mode)
        if issuer is None:
            raise InvalidHost
        return issuer


@lru_cache(maxsize=256)
def _derive(host_header: str, allowed: tuple[AllowedHost, ...], dev_mode: bool) -> str | None:
    try:
        host = parse_host(host_header)
    except InvalidHost:
        return None
    scheme = "http" if dev_mode and host.is_loopback else "https"
    if allowed and not any(entry.matches(host, _DEFAULT_PORTS[scheme]) for entry in allowed):
        return None
    return host.origin(scheme)


def parse_issuer(value: str) -> str:
    """Check the configured issuer, which is used byte for byte.

    Args:
        value: `https://host[:port][/path]`; `http://` for a loopback host only.

    Returns:
        The value itself.

    Raises:
        InvalidIssuer: if it is not such a URL in its canonical form. The message contains the corrected value, if
            there is one.

    Spec: OpenID Connect Discovery 1.0 §3, RFC 8414 §2
    """
    scheme, host, path = _split_issuer(value)
    corrected = _canonical(scheme, host, path)
    if scheme == "http" and not host.is_loopback:
        raise InvalidIssuer(f"the scheme is http, which is for loopback hosts only; write {corrected}")
    if value != corrected:
        raise InvalidIssuer(f"is not in its canonical form; write {corrected}")
    return value


def _canonical(scheme: str, host: Host, path: str) -> str:
    if scheme == "http" and not host.is_loopback:
        scheme, host = "https", Host(host.name, None if host.port == 80 else host.port)
    return host.origin(scheme) + path


def _split_issuer(value: str) -> tuple[str, Host, str]:
    example = "write it as https://id.example.com"
    if not value.isascii() or any(c <= " " or c in '\\"<>^`{|}' for c in value):
        raise InvalidIssuer(f"contains a character that an issuer cannot have; {example}")
    scheme, separator, rest = value.partition("://")
    scheme = scheme.lower()
    if not separator:
        raise InvalidIssuer(f"has no scheme; {example}")
    if scheme not in _DEFAULT_PORTS:
        raise InvalidIssuer(f"the scheme is not https; {example}")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    try:
        host = parse_host(authority.rpartition("@")[2])
    except InvalidHost:
        raise InvalidIssuer(f"the host is not a DNS name or an IP address; {example}") from None
    path = re.split(r"[?#]", rest.removeprefix(authority), maxsplit=1)[0].rstrip("/")
    if path and not all(
        _PATH_SEGMENT.fullmatch(part) and part not in {".", ".."}
        for part in path.removeprefix("/").split("/")
    ):
        raise InvalidIssuer(
            "the path has an empty, dotted or escaped segment; write a plain path, such as /tenant"
        )
    corrected = _canonical(scheme, host, path)
    if "@" in authority:
        raise InvalidIssuer(f"has user info; write {corrected}")
    if "?" in value or "#" in value:
        raise InvalidIssuer(f"has a query or a fragment; write {corrected}")
    return scheme, host, path


def is_loopback_issuer(issuer: str) -> bool:
    """Whether the issuer names this machine only. The value has passed `parse_issuer`."""
    return parse_host(urlsplit(issuer).netloc).is_loopback


def issuer_path(issuer: str) -> str:
    """The path of the issuer, without a trailing slash; empty at the root."""
    return urlsplit(issuer).path


def issuer_origin(issuer: str) -> str:
    """`scheme://host[:port]` of the issuer, as an `Origin` header has it (RFC 6454 §6.2)."""
    return issuer.removesuffix(issuer_path(issuer))


def parse_origin(value: str) -> str:
    """Check one origin of `PYLON_TRUSTED_ORIGINS`, which is compared byte for byte with `Origin` headers.

    Raises:
        InvalidIssuer: if it is not a canonical `https://host[:port]` (`http://` for loopback).

    Spec: RFC 6454 §6.2
    """
    parsed = parse_issuer(value)
    if issuer_path(parsed):
        raise InvalidIssuer(f"has a path, which an origin cannot have; write {issuer_origin(parsed)}")
    return parsed


def parse_list(value: str) -> Iterable[str]:
    """The entries of a comma-separated setting, without surrounding spaces and empty entries."""
    return (entry for part in value.split(",") if (entry := part.strip()))
