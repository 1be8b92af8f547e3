"""`/oidc/register`: clients register themselves, and manage their registration.

Spec: RFC 7591 §3, RFC 7592 §2
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import falcon

from service.protocol.clients import InvalidClientMetadata
from service.protocol.errors import OAuthError
from service.protocol.metadata import REGISTRATION
from service.protocol.strangers import told_to_itself
from service.registrations import Registered
from service.resources.parts import Parts, Resource
from service.web.auth import bearer_token
from service.web.bodies import check_json_type, parse_json_object, read_body
from service.web.caching import send_preflight
from service.web.errors import ApiError
from service.web.mounts import Mount
from service.web.oauth import send_bearer_error
from service.web.render import send_json

#: Metadata is small; a set of keys is the largest part. What is stored of it is limited too.
MOST_BYTES: Final = 16 * 1024
_ASCII: Final = {ord("…"): "...", ord('"'): "'", ord("\\"): "/"}


def send_registration_error(resp: falcon.Response, error: OAuthError) -> None:
    """Answer with an error: a challenge for a wrong token (RFC 6750 §3), else what is wrong (RFC 7591 §3.2.2)."""
    if error.error == "invalid_token":
        send_bearer_error(resp, error)
        return
    send_json(resp, error.parameters(), status=error.status)
    resp.context.error, resp.context.cause = error.error, error.cause


class Register(Resource):
    """`POST /oidc/register`."""

    any_origin = True
    send_error = staticmethod(send_registration_error)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Register a client: the token, the body, then its content. Its secret is not available later."""
        registrations, now = self.parts.registrations, req.context.now
        _check_open(self.parts)
        token, address = bearer_token(req), self.parts.browser.address(req)
        if token is None and registrations.mode != "open":
            send_bearer_error(resp, None)
            return
        invitation = registrations.invitation(token, now=now)
        metadata = _metadata(req)
        made = _checked(lambda: registrations.register(metadata, invitation, address=address, now=now))
        req.context.client_id = made.client.client_id
        send_json(resp, _information(req, made), status=201)

    def on_options(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Answer a preflight."""
        send_preflight(req, resp, "POST, OPTIONS")


class OneRegistration(Resource):
    """`/oidc/register/{client_id}`: with the registration access token of that client."""

    any_origin = True
    send_error = staticmethod(send_registration_error)

    def on_get(self, req: falcon.Request, resp: falcon.Response, client_id: str) -> None:
        """Answer with its metadata."""
        token = self._token(req, resp)
        if token is not None:
            client = self.parts.registrations.read(client_id, token, now=req.context.now)
            req.context.client_id = client.client_id
            send_json(resp, _information(req, Registered(client, token)))

    def on_put(self, req: falcon.Request, resp: falcon.Response, client_id: str) -> None:
        """Replace its metadata. A secret is in the answer only if it is new."""
        registrations, token, now = self.parts.registrations, self._token(req, resp), req.context.now
        if token is not None:
            registrations.read(client_id, token, now=now)  # a wrong token is refused before the body is read
            metadata = _metadata(req)
            made = _checked(lambda: registrations.change(client_id, token, metadata, now=now))
            req.context.client_id = made.client.client_id
            send_json(resp, _information(req, made))

    def on_delete(self, req: falcon.Request, resp: falcon.Response, client_id: str) -> None:
        """Remove it. Its tokens stop working immediately."""
        token = self._token(req, resp)
        if token is not None:
            self.parts.registrations.remove(client_id, token, now=req.context.now)
            req.context.client_id = client_id
            resp.status_code = 204

    def on_options(self, req: falcon.Request, resp: falcon.Response, client_id: str) -> None:
        """Answer a preflight."""
        send_preflight(req, resp, "GET, HEAD, PUT, DELETE, OPTIONS")

    def _token(self, req: falcon.Request, resp: falcon.Response) -> str | None:
        """The token of the request; None if it has none, which is then answered."""
        _check_open(self.parts)
        token = bearer_token(req)
        if token is None:
            send_bearer_error(resp, None)
        return token


def _check_open(parts: Parts) -> None:
    if parts.registrations.mode == "off":
        raise ApiError("NOT_FOUND")


def _metadata(req: falcon.Request) -> dict[str, Any]:
    """The body. A body that is not metadata at all is `invalid_client_metadata` too."""
    try:
        body = read_body(req)
        if len(body) > MOST_BYTES:
            raise ApiError("BODY_TOO_LARGE")
        check_json_type(req)
        metadata = parse_json_object(body)
        if len(json.dumps(metadata)) > MOST_BYTES:  # as it would be stored: in ASCII
            raise ApiError("BODY_TOO_LARGE")
        return metadata
    except ApiError as error:
        is_large = error.code == "BODY_TOO_LARGE"
        raise OAuthError(
            "invalid_client_metadata",
            "The body is larger than 16 KiB."
            if is_large
            else "The body is not a JSON object (application/json).",
            status=413 if is_large else 400,
            cause=error.cause,
        ) from None


def _checked(register: Callable[[], Registered]) -> Registered:
    try:
        return register()
    except InvalidClientMetadata as error:
        words, cause = f"{error.member}: {error.reason}".translate(_ASCII), f"member_{error.member}"
        if error.member == "redirect_uris":
            raise OAuthError("invalid_redirect_uri", words, cause=cause) from None
        raise OAuthError("invalid_client_metadata", words, cause=cause) from None


def _information(req: falcon.Request, made: Registered) -> dict[str, Any]:
    """The registration as the client sees it (RFC 7591 §3.2.1, RFC 7592 §3)."""
    client = made.client
    shown = told_to_itself(client)
    if client.registration is not None:
        shown["client_id_issued_at"] = client.registration.issued_at
    if made.secret is not None:
        shown["client_secret"] = made.secret
    if client.secrets:
        shown["client_secret_expires_at"] = 0  # never
    uri = f"{req.context.issuer}{REGISTRATION}/{client.client_id}"
    return shown | {"registration_access_token": made.token, "registration_client_uri": uri}


def routes(parts: Parts) -> tuple[Mount, ...]:
    """Their paths."""
    return Mount(REGISTRATION, Register(parts)), Mount(
        f"{REGISTRATION}/{{client_id}}", OneRegistration(parts)
    )
