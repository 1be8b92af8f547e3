"""What happens to every request: request id, issuer, common headers, one line in the log."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import falcon

from service.handles import new_request_id
from service.issuer import InvalidHost, IssuerResolver
from service.logs import REQUEST_ID, request_log
from service.protocol.errors import OAuthError
from service.web.auth import AdminAuth
from service.web.bodies import drain_body
from service.web.errors import ApiError
from service.web.routing import declared_at, raw_target

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}", re.ASCII)
# Proxies write a bare address, an IPv4 address with a port, or an IPv6 address in brackets.
_ADDRESS = re.compile(
    r"\[([0-9A-Fa-f.:]{2,45})\](?::[0-9]{1,5})?|([0-9.]{7,15}):[0-9]{1,5}|([0-9A-Fa-f.:]{2,45})", re.ASCII
)
_MAPPED = re.compile(r"^::ffff:(?=[0-9.]+(?:/|$))", re.IGNORECASE)


class RequestLog:
    """Gives every request an id, its time and a line in the log, and every answer the common headers.

    Args:
        forwarded_allow_ips: proxies whose `X-Forwarded-For` is believed.
        clock: returns Unix s; called once for each request.
    """

    def __init__(self, forwarded_allow_ips: Iterable[str], clock: Callable[[], float]) -> None:
        self._client_address = ClientAddress(forwarded_allow_ips)
        self._clock = clock

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Use the request's id, or create one. Set `req.context.now`, Unix s."""
        context = req.context
        context.started = time.perf_counter()
        context.now = int(self._clock())
        given = req.env.get("HTTP_X_REQUEST_ID", "")
        context.request_id = given if _REQUEST_ID.fullmatch(given) else new_request_id()
        REQUEST_ID.set(context.request_id)
        resp.set_header("X-Request-Id", context.request_id)
        resp.set_header("X-Content-Type-Options", "nosniff")

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, _resource: object, _succeeded: bool
    ) -> None:
        """Complete the answer, then log it with its route, but without the path and the query."""
        drain_body(req)
        if resp.get_header("Cache-Control") is None:
            resp.set_header("Cache-Control", "no-store")
        context = req.context
        if not hasattr(context, "started"):  # Falcon refused it before any middleware
            self.process_request(req, resp)
        line: dict[str, Any] = {
            "request_id": context.request_id,
            "method": req.method,
            "route": req.uri_template,
            "status": resp.status_code,
            "duration_ms": round((time.perf_counter() - context.started) * 1000, 3),
            "size": 0 if req.method == "HEAD" or resp.data is None else len(resp.data),
            "ip": self._client_address.of(req.env),
        }
        for name in ("client_id", "user"):
            if (value := getattr(context, name, None)) is not None:
                line[name] = value
        for name in ("error", "cause"):
            if (value := getattr(resp.context, name, None)) is not None:
                line[name] = value
        request_log.write(line)
        REQUEST_ID.set(None)  # what this thread logs from now on belongs to no request


class ClientAddress:
    """Finds the address that a request comes from. Believes `X-Forwarded-For` only from trusted proxies."""

    def __init__(self, trusted: Iterable[str]) -> None:
        entries = list(trusted)
        self._all = "*" in entries
        self._networks = [ipaddress.ip_network(_plain(entry)) for entry in entries if entry != "*"]
        self._is_trusted = lru_cache(maxsize=1024)(self._look_up)

    def of(self, env: dict[str, Any]) -> str:
        """The right-most forwarded address behind a trusted proxy or a Unix socket; otherwise the peer's address."""
        return self._forwarded(env) or _plain(env.get("REMOTE_ADDR", "")) or "unix"

    def network(self, env: dict[str, Any]) -> str:
        """The network that the request comes from: an IPv4 address, or the /64 of an IPv6 address, which belongs to one site.

        Empty if it is not known: behind a trusted proxy or a Unix socket that sends no address.
        """
        known = self._forwarded(env)
        if known is None and not self._is_trusted(env.get("REMOTE_ADDR", "")):
            known = env["REMOTE_ADDR"]
        try:
            address = ipaddress.ip_address((known or "").partition("%")[0])
        except ValueError:
            return ""
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped is None:
                return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
            address = address.ipv4_mapped
        return str(address)

    def _forwarded(self, env: dict[str, Any]) -> str | None:
        if not self._is_trusted(env.get("REMOTE_ADDR", "")):
            return None
        return _forwarded_address(env.get("HTTP_X_FORWARDED_FOR", ""))

    def _look_up(self, peer: str) -> bool:
        if self._all or not peer:  # a peer on a Unix socket has no address
            return True
        try:
            address = ipaddress.ip_address(_plain(peer))
        except ValueError:
            return False
        return any(address in network for network in self._networks)


def _plain(address: str) -> str:
    """The address, as IPv4 if it is an IPv4 address written as IPv6 (`::ffff:127.0.0.1`)."""
    return _MAPPED.sub("", address)


def _forwarded_address(header: str) -> str | None:
    """The right-most entry of `X-Forwarded-For`, without its port; None if that is not an address."""
    found = _ADDRESS.fullmatch(header.rpartition(",")[2].strip(" \t"))
    if found is None:
        return None
    try:
        address = ipaddress.ip_address(found[1] or found[2] or found[3])
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)


class IssuerOfRequest:
    """Finds the issuer of a request, before anything else looks at the request."""

    def __init__(self, resolver: IssuerResolver, *, indifferent: frozenset[str]) -> None:
        self._resolver = resolver
        self._indifferent = indifferent

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Set `req.context.issuer`.

        Raises:
            ApiError: `INVALID_HOST`.
        """
        env = req.env
        if env["PATH_INFO"] in self._indifferent:
            return
        # An absolute-form target has its own host, which would override Host (RFC 9112 §3.2.2), so it is refused.
        if not (raw_target(env) or "/").startswith(("/", "*")):
            raise ApiError("INVALID_HOST")
        try:
            req.context.issuer = self._resolver.resolve(
                env.get("HTTP_HOST"), host_required=env.get("SERVER_PROTOCOL") != "HTTP/1.0"
            )
        except InvalidHost:
            raise ApiError("INVALID_HOST") from None


class CredentialedCors:
    """Lets only the app's front ends call `/api/auth/*` with the session cookie.

    Spec: Fetch §3.2
    """

    def __init__(self, trusted_origins: frozenset[str], *, prefix: str) -> None:
        self._trusted = trusted_origins
        self._prefix = prefix

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Allow the origin, and answer a preflight request."""
        if not self._trusted or not req.path.startswith(self._prefix):
            return
        resp.append_header("Vary", "Origin")
        origin = req.env.get("HTTP_ORIGIN")
        if origin not in self._trusted:
            return
        resp.set_headers(
            {
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Allow-Credentials": "true",
                "Access-Control-Expose-Headers": "X-Request-Id",
            }
        )
        if req.method == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in req.env:
            resp.set_headers(
                {
                    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE",
                    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Request-Id",
                    "Access-Control-Max-Age": "7200",
                }
            )
            resp.status_code = 204
            resp.complete = True


class OpenCors:
    """Lets scripts of any origin read answers and errors at the paths where cookies are ignored.

    Spec: Fetch §3.2
    """

    def __init__(self, paths: Mapping[str, bool]) -> None:
        self._paths = paths

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Allow every origin, without credentials. This runs before anything is refused."""
        if declared_at(req.env["PATH_INFO"], self._paths):
            resp.set_headers(
                {
                    "Access-Control-Allow-Origin": "*",
                    "Access-Control-Expose-Headers": "WWW-Authenticate, X-Request-Id",
                }
            )


class ErrorsOfEndpoints:
    """Finds the shape of an endpoint's errors by its path, because a request may be refused before it is routed.

    Args:
        shapes: path of each OAuth endpoint -> the function that sends its errors.
    """

    def __init__(self, shapes: Mapping[str, Callable[[falcon.Response, OAuthError], None]]) -> None:
        self._shapes = shapes

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Set `req.context.send_error`; None if errors have the API's shape."""
        req.context.send_error = declared_at(req.env["PATH_INFO"], self._shapes)


class AsTheResourceSays:
    """Applies what a resource declares, before it gets the request: how it shows failures, and which methods need the admin token.

    Args:
        admin: checks the admin token.
    """

    def __init__(self, admin: AdminAuth) -> None:
        self._admin = admin

    def process_resource(
        self, req: falcon.Request, _resp: falcon.Response, resource: object, _params: dict[str, Any]
    ) -> None:
        """Set `req.context.show_failure`; None if the resource is for programs, which get JSON.

        Raises:
            falcon.HTTPMethodNotAllowed: for a method that HTTP does not define, for which Falcon answers 400.
            ApiError: `FORBIDDEN` without the admin token, if the method needs it.
        """
        req.context.show_failure = getattr(resource, "show_failure", None)
        if req.method not in falcon.COMBINED_METHODS:
            allowed = [name for name in falcon.HTTP_METHODS if hasattr(resource, f"on_{name.lower()}")]
            raise falcon.HTTPMethodNotAllowed(sorted({*allowed, "OPTIONS"}))
        guarded = getattr(resource, "admin_only", None)
        # If the resource does not have the method, the answer is the usual 405.
        if guarded is not None and (
            hasattr(resource, f"on_{req.method.lower()}") if guarded is True else req.method in guarded
        ):
            self._admin.require(req)
