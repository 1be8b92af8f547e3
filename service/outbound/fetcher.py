"""Sends HTTP requests to hosts that may be hostile: safely, briefly, and without revealing what went wrong.

Spec: RFC 9110, RFC 9700 §4.15, OpenID Connect Core 1.0 §17
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlencode, urlsplit

import structlog

from service.outbound.addresses import (
    NOTHING,
    Allowed,
    Refused,
    Target,
    check_address,
    parse_host,
    parse_target,
)
from service.outbound.reading import Proxy

if TYPE_CHECKING:
    import httpx

    from service.outbound.wire import LookUp

#: The limit of one request, from the look-up of the name to the last byte, in s.
MOST_S: Final = 5.0
#: The limit of the body of an answer, in bytes.
MOST_BYTES: Final = 64 * 1024
#: The limit of everything else in an answer: headers and chunk sizes.
_HEAD_BYTES: Final = 16 * 1024
#: The message for everybody but the operator, for every cause.
UNREACHABLE: Final = "The URL cannot be used: it does not answer as it should."

_log: Final[Any] = structlog.get_logger("outbound")


class Unreachable(Exception):
    """A request that failed or was not sent. The message is the same for every cause, and may be shown to anybody.

    Args:
        cause: a constant word for the log, never for the answer to a client.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(UNREACHABLE)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer.

    Attributes:
        status: the HTTP status; a redirect is an answer, and is not followed.
        headers: with names in lower case. Of a repeated header, all values joined by `, `.
        body: not decoded, and within the limit; empty for a POST.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class SettingsOfOutbound(Protocol):
    """The settings that are used here, by their names."""

    @property
    def outbound_allow(self) -> Allowed | None: ...  # noqa: D102

    @property
    def outbound_ca_file(self) -> Path | None: ...  # noqa: D102

    @property
    def outbound_proxy(self) -> Proxy | None: ...  # noqa: D102

    @property
    def dev_mode(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True)
class Outbound:
    """Sends requests. There is one for the whole process; threads may share it. It keeps no connections and no cookies.

    A request takes at most 5 s in total, and reads a body of at most 64 KiB. It goes to public addresses with https (TLS 1.2
    or later, verified), or where the operator's list allows more. Every failure raises `Unreachable` and is logged here
    once, as `outbound_failed` with its cause, so a caller logs nothing.

    Attributes:
        allowed: hosts and addresses that the operator allows although they are not public.
        ca_file: further certificate authorities.
        proxy: the proxy for all requests, which then looks up the names.
        dev_mode: whether `allowed` applies to everybody's URLs.
        look_up: returns the addresses of a name and port; None: the system's.
    """

    allowed: Allowed = NOTHING
    ca_file: Path | None = None
    proxy: Proxy | None = None
    dev_mode: bool = False
    look_up: LookUp | None = field(default=None, repr=False)

    @classmethod
    def of(cls, settings: SettingsOfOutbound) -> Outbound:
        """The one for these settings."""
        return cls(
            settings.outbound_allow or NOTHING,
            settings.outbound_ca_file,
            settings.outbound_proxy,
            settings.dev_mode,
        )

    def check(self, url: str, *, operators: bool) -> None:
        """Check a URL without sending anything: its form, its scheme, a literal address.

        Args:
            url: the URL.
            operators: as for `get`.

        Raises:
            Unreachable: if a request to it would be refused. Nothing is logged.
        """
        try:
            self._target(url, operators=operators)
        except Refused as error:
            raise Unreachable(str(error)) from None

    def check_host(self, url: str, *, operators: bool) -> None:
        """Check only that the host of a URL, of any scheme, is a name or an address that requests may go to.

        Raises:
            Unreachable: if it is an address that a request to would be refused.
        """
        host = (urlsplit(url).hostname or "").lower()
        try:
            address = parse_host(f"[{host}]" if ":" in host else host)
            if address is not None:
                check_address(address, host, self._allowed(operators=operators))
        except Refused as error:
            raise Unreachable(str(error)) from None

    def get(self, url: str, *, operators: bool, most_bytes: int = MOST_BYTES, accept: str = "*/*") -> Answer:
        """GET a URL.

        Args:
            url: the URL, from any source.
            operators: whether the URL is that of a client that the operator registered, so that the operator's list
                applies. For a stranger's URL it applies only in dev mode.
            most_bytes: a longer body is a failure.
            accept: the `Accept` header.

        Returns:
            The answer, of any status. Its body is complete.

        Raises:
            Unreachable: if there is none within the limits.
        """
        with self._told(url):
            target = self._target(url, operators=operators)
            with self._answered(
                "GET", target, {"Accept": accept}, None, operators=operators, most_bytes=most_bytes
            ) as response:
                if response.headers.get("content-encoding", "identity").strip().lower() not in {
                    "",
                    "identity",
                }:
                    raise Refused("encoded")
                body = bytearray()
                for part in response.iter_raw():
                    body += part
                    if len(body) > most_bytes:
                        raise Refused("too_large")
                return Answer(response.status_code, dict(response.headers), bytes(body))

    def post(self, url: str, form: Mapping[str, str], *, operators: bool) -> Answer:
        """POST a form (`application/x-www-form-urlencoded`).

        Args:
            url: the URL, from any source.
            form: the fields.
            operators: as for `get`.

        Returns:
            The status and headers. The body is ignored.

        Raises:
            Unreachable: if there was no status within the limits. The request may have arrived nevertheless.
        """
        with self._told(url):
            target = self._target(url, operators=operators)
            headers = {"Accept": "*/*", "Content-Type": "application/x-www-form-urlencoded"}
            content = urlencode(form).encode()
            with self._answered(
                "POST", target, headers, content, operators=operators, most_bytes=MOST_BYTES
            ) as response:
                answer = Answer(response.status_code, dict(response.headers), b"")
                with contextlib.suppress(
                    *_failures()
                ):  # the other side may object that its answer is not read
                    for _ in response.iter_raw():
                        pass
                return answer

    def _target(self, url: str, *, operators: bool) -> Target:
        allowed = self._allowed(operators=operators)
        target = parse_target(url, allowed)
        if (
            self.proxy is not None
            and target.literal is not None
            and not (allowed.names(target.host) or allowed.contains(target.literal))
        ):
            # The proxy decides about names, and nobody would decide about an address.
            raise Refused("address_through_proxy")
        return target

    def _allowed(self, *, operators: bool) -> Allowed:
        return self.allowed if operators or self.dev_mode else NOTHING

    @contextlib.contextmanager
    def _told(self, url: str) -> Iterator[None]:
        """Log why a request failed, and raise the one error that everybody sees."""
        try:
            yield
        except Refused as error:
            cause = str(error)
        except _failures() as error:
            from service.outbound.wire import Failed

            cause = str(error) if isinstance(error, Failed) else "answer_malformed"
        else:
            return
        # A query may contain a secret.
        _log.warning("outbound_failed", url=url.partition("?")[0][:200], cause=cause)
        raise Unreachable(cause)

    @contextlib.contextmanager
    def _answered(
        self,
        method: str,
        target: Target,
        headers: Mapping[str, str],
        content: bytes | None,
        *,
        operators: bool,
        most_bytes: int,
    ) -> Iterator[httpx.Response]:
        import httpx

        from service.outbound.transport import PinnedTransport
        from service.outbound.wire import Budget, Wire, system_addresses

        wire = Wire(
            Budget(time.monotonic() + MOST_S, most_bytes + _HEAD_BYTES),
            self.look_up or system_addresses,
            None if self.proxy is not None else self._allowed(operators=operators),
            operators or self.proxy is not None,
        )
        transport = PinnedTransport(wire, _tls_context(self.ca_file), self.proxy)
        sent = {
            "Host": target.authority,
            "User-Agent": "pylon-oidc",
            "Accept-Encoding": "identity",
            "Connection": "close",
            **headers,
        }
        with httpx.Client(transport=transport, trust_env=False, follow_redirects=False) as client:
            request = client.build_request(method, target.url, headers=sent, content=content)
            response = client.send(request, stream=True)
            try:
                yield response
            finally:
                response.close()


@lru_cache(maxsize=4)
def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    # Reading all authorities takes long, so it is done once.
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # RFC 9525 §6.3: the name is in subjectAltName.
    context.hostname_checks_common_name = False
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    context.set_alpn_protocols(["http/1.1"])
    return context


@lru_cache(maxsize=1)
def _failures() -> tuple[type[Exception], ...]:
    """The errors that end a request. httpx is loaded by the first request, not at the start."""
    import httpcore
    import httpx

    from service.outbound.wire import Failed

    return (
        *(Failed, httpx.HTTPError, httpx.InvalidURL, OSError),
        *(httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.ProxyError),
        *(httpcore.UnsupportedProtocol, ssl.SSLError),
    )
