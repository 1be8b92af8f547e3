"""`/api/oidc/clients`, `/api/oidc/client-keys` and `/api/oidc/grants`, which need the admin token.

Spec: RFC 7591 §2 (names), RFC 7592 §2 (in spirit)
"""

from __future__ import annotations

from typing import Any

import falcon

from service.clients import ClientExists, ClientReadOnly
from service.policies.pairs import audiences_of, told
from service.protocol.clients import InvalidClientMetadata
from service.records.clients import Client
from service.records.consents import on_consent
from service.records.grants import Grant, is_grant_id
from service.resources.parts import Parts, Resource
from service.web.bodies import check_json_type, parse_json_object, read_body
from service.web.errors import ApiError
from service.web.mounts import Mount
from service.web.params import MalformedParameters, Parameters, read_query
from service.web.render import send_json


def _metadata(req: falcon.Request) -> dict[str, Any]:
    body = read_body(req)
    check_json_type(req)
    return parse_json_object(body)


def _refused(error: InvalidClientMetadata) -> ApiError:
    return ApiError("INVALID_CLIENT_METADATA", field=error.member, hint=f"{error.member}: {error.reason}")


class AllClients(Resource):
    """`/api/oidc/clients`."""

    admin_only = True

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List them, without secrets."""
        found = self.parts.clients.list(now=req.context.now)
        send_json(resp, {"clients": [client.public_metadata() for client in found]})

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Register a client. Its secret is not available later."""
        metadata = _metadata(req)
        try:
            client, made = self.parts.clients.add(metadata, now=req.context.now)
        except InvalidClientMetadata as error:
            raise _refused(error) from None
        except ClientExists:
            raise ApiError("CLIENT_EXISTS") from None
        # RFC 7591 §3.2.1: a given secret is also returned once.
        secret = made or metadata.get("client_secret")
        shown = {} if secret is None else {"client_secret": secret}
        send_json(resp, client.public_metadata() | shown, status=201)


class OneClient(Resource):
    """`/api/oidc/clients/{client_id}`."""

    admin_only = True

    def on_get(self, req: falcon.Request, resp: falcon.Response, client_id: str) -> None:
        """Answer with its metadata, without secrets."""
        send_json(
            resp, _known(self.parts.clients.registered(client_id, now=req.context.now)).public_metadata()
        )

    def on_put(self, req: falcon.Request, resp: falcon.Response, client_id: str) -> None:
        """Replace its metadata, but not its secrets."""
        try:
            changed = self.parts.clients.change(client_id, _metadata(req), now=req.context.now)
        except InvalidClientMetadata as error:
            raise _refused(error) from None
        except ClientReadOnly:
            raise ApiError("CLIENT_READ_ONLY") from None
        send_json(resp, _known(changed).public_metadata())

    def on_delete(self, req: falcon.Request, resp: falcon.Response, client_id: str) -> None:
        """Remove it. Its tokens stop working immediately."""
        try:
            removed = self.parts.clients.remove(client_id, now=req.context.now)
        except ClientReadOnly:
            raise ApiError("CLIENT_READ_ONLY") from None
        if not removed:
            raise ApiError("NOT_FOUND")
        resp.status_code = 204


class ClientSecretRotation(Resource):
    """`POST /api/oidc/clients/{client_id}/secret`."""

    admin_only = True

    def on_post(self, req: falcon.Request, resp: falcon.Response, client_id: str) -> None:
        """Give it a new secret. The old one stays valid for an hour."""
        try:
            secret = self.parts.clients.rotate_secret(client_id, now=req.context.now)
        except ClientReadOnly:
            raise ApiError("CLIENT_READ_ONLY") from None
        if secret is None:
            raise ApiError("NOT_FOUND")
        send_json(resp, {"client_id": client_id, "client_secret": secret})


class AllClientKeys(Resource):
    """`GET /api/oidc/client-keys`: whether the keys of clients that have them at a URL can be fetched."""

    admin_only = True

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the result of the last request to each URL. Sends no request."""
        found = self.parts.client_keys.seen(self.parts.clients.list(now=req.context.now), now=req.context.now)
        send_json(resp, {"client_keys": [keys.shown() for keys in found]})


def _known(client: Client | None) -> Client:
    if client is None:
        raise ApiError("NOT_FOUND")
    return client


class AllGrants(Resource):
    """`GET /api/oidc/grants?user_id=`: what a user has let clients do."""

    admin_only = True

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List them; empty for an unknown user."""
        try:
            asked = read_query(req)
        except MalformedParameters:
            asked = Parameters()
        user_id = asked.values.get("user_id")
        if user_id is None or "user_id" in asked.repeated:
            raise ApiError("INVALID_REQUEST", hint="Name one user: ?user_id=")
        grants = self.parts.grants.of_user(user_id, now=req.context.now)
        send_json(resp, {"grants": [_shown(grant) for grant in grants]})


def _shown(grant: Grant) -> dict[str, Any]:
    shown = {
        "id": grant.id,
        "client_id": grant.client_id,
        "user_id": grant.subject,
        "scope": told(grant.scope),
        "created_at": grant.created_at,
        "last_used_at": grant.last_used_at,
    }
    resources = list(audiences_of(grant.scope))
    return shown | ({"resources": resources} if resources else {})


class OneGrant(Resource):
    """`DELETE /api/oidc/grants/{grant_id}`."""

    admin_only = True

    def on_delete(self, req: falcon.Request, resp: falcon.Response, grant_id: str) -> None:
        """End it, and everything that depends on it."""
        now = req.context.now
        grant = self.parts.grants.find(grant_id, now=now) if is_grant_id(grant_id) else None
        # The next grant needs the user's consent again.
        falling = [] if grant is None else [on_consent(grant.subject, grant.client_id, grant.issuer)]
        if grant is None or not self.parts.grants.end(grant.id, falling=falling, now=now):
            raise ApiError("NOT_FOUND")
        resp.status_code = 204


def routes(parts: Parts) -> tuple[Mount, ...]:
    """Their paths."""
    one = "/api/oidc/clients/{client_id}"
    return (
        Mount("/api/oidc/clients", AllClients(parts)),
        Mount(one, OneClient(parts), named_by_others=True),
        Mount(f"{one}/secret", ClientSecretRotation(parts), named_by_others=True),
        Mount("/api/oidc/client-keys", AllClientKeys(parts)),
        Mount("/api/oidc/grants", AllGrants(parts)),
        Mount("/api/oidc/grants/{grant_id}", OneGrant(parts)),
    )
