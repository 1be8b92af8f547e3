"""Refuses addresses that the settings must not be served on, before any port is open."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from service.issuer import InvalidHost, parse_host
from service.settings import Fault, Settings, given_names, read_settings


def check_binding(addresses: Iterable[str], server: str) -> None:
    """Exit with 2, and print every reason, if the environment's settings must not be served on these addresses."""
    public = [address for address in addresses if not _is_loopback(address)]
    minded = server == "granian" or {"PYLON_DEV_MODE", "PYLON_DEV_MODE_FILE"}.intersection(given_names())
    if not (public and minded):
        return
    faults = list(binding_faults(read_settings().settings, public, server))
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        sys.exit(2)


def binding_faults(settings: Settings, addresses: Iterable[str], server: str) -> Iterator[Fault]:
    """Yield a fault for each reason not to listen on these addresses.

    Args:
        settings: the settings.
        addresses: those that other machines can reach, in gunicorn's notation.
        server: `gunicorn` or `granian`.
    """
    for address in addresses:
        if settings.dev_mode:
            what = f"is on, and {server} would listen on {address}; listen on 127.0.0.1, or write 0"
            yield Fault("PYLON_DEV_MODE", what)
        # granian does not pass the host of an absolute-form target, so Host would be believed instead
        # (RFC 9112 §3.2.2). The nginx of the same machine sends none.
        if server == "granian" and settings.issuer is None and not address.startswith("unix:"):
            yield Fault(
                "PYLON_OIDC_ISSUER",
                f"is unset, and granian would listen on {address}, where Host cannot be trusted; "
                "write the issuer, listen on 127.0.0.1 or a Unix socket, or use --server gunicorn",
            )


def _is_loopback(address: str) -> bool:
    try:
        return parse_host(address.removesuffix(":0")).is_loopback
    except InvalidHost:  # a Unix socket, a file descriptor: other machines may be behind it
        return False
