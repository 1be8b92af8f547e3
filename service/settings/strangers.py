"""The parsers of what the operator opens to clients that they did not register. See `settings.parsers`."""

from __future__ import annotations

import re
from typing import Final

from service import issuer as issuers
from service.protocol.client_documents import HostPattern
from service.records.scopes import FOR_STRANGERS

_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")


def scopes(value: str) -> tuple[str, ...]:
    """Scopes, separated by spaces. Whether they exist is checked together with the operator's own."""
    words = tuple(dict.fromkeys(value.split()))
    if not words or not all(map(_VISIBLE.fullmatch, words)):
        raise ValueError(f"names no scopes; write them with spaces between: {' '.join(FOR_STRANGERS)}")
    return words


def client_documents(value: str) -> bool | tuple[HostPattern, ...]:
    """Whether clients may be known by their documents: from everywhere, or from these hosts, separated by commas.

    `app.example.com` is one host, `*.example.com` all hosts below a domain, `.example.com` both. With a port, only that.
    """
    if value in {"off", "on"}:
        return value == "on"
    example = "write off, on, or hosts such as app.example.com,*.example.org"
    try:
        hosts = tuple(map(_pattern, issuers.parse_list(value)))
    except issuers.InvalidHost:
        raise ValueError(f"an entry is not a host; {example}") from None
    # `true` and the like would be hosts too.
    if not hosts or not all({".", ":"} & set(host.name) or host.name == "localhost" for host in hosts):
        raise ValueError(f"an entry is not a host with its domain; {example}")
    return hosts


def _pattern(entry: str) -> HostPattern:
    below = entry.startswith("*.")
    host = issuers.parse_allowed_host(entry[1:] if below else entry)
    if not set(host.name) & set(".:") and host.name != "localhost":
        raise issuers.InvalidHost  # such as true, yes or ON
    return HostPattern(host.name, host.port, itself=not below, subdomains=host.subdomains)
