"""`POST /api/auth/jwt`: a token for whoever is signed in."""

from __future__ import annotations

import falcon
from msgspec import UNSET, UnsetType

from service.protocol.tokens import MintNotConfigured, mint_token
from service.resources.parts import Parts, Resource
from service.web.bodies import StrictModel, check_json_type, parse_model, read_body
from service.web.errors import ApiError
from service.web.mounts import Mount
from service.web.render import send_json

_HINT = "Set PYLON_JWT_SECRET (32 random bytes at least), or PYLON_JWT_ALG=RS256 with a private key."


class _MintRequest(StrictModel, frozen=True):
    audience: str | UnsetType = UNSET


class Mint(Resource):
    """Mints JWTs."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """401, then 413, 415 and 400, then 501; 503 while what is given out could not be taken back."""
        now, parts = req.context.now, self.parts
        session = parts.signed_in.require(req, now=now, change=True)
        audience = self._wanted_audience(read_body(req), req)
        parts.store.check_revocable()
        try:
            minted = mint_token(
                session,
                parts.keys.to_sign(parts.keys.mint_alg),
                issuer=parts.settings.jwt_issuer or req.context.issuer,
                audience=audience,
                lifetime_s=parts.settings.jwt_lifetime_s,
                now=now,
            )
        except MintNotConfigured:
            raise ApiError("JWT_NOT_CONFIGURED", hint=_HINT) from None
        send_json(
            resp,
            {
                "token": minted.token,
                "token_type": "Bearer",
                "expires_at": minted.expires_at,
                "expires_in": minted.expires_in,
            },
        )

    def _wanted_audience(self, body: bytes, req: falcon.Request) -> str | None:
        configured = self.parts.settings.jwt_audience
        if not body:
            return configured
        check_json_type(req)
        wanted = parse_model(_MintRequest, body).audience
        # An audience that nobody configured would let a session speak to services that never agreed to it.
        if wanted is not UNSET and wanted != configured:
            raise ApiError("UNKNOWN_AUDIENCE")
        return configured


def routes(parts: Parts) -> tuple[Mount, ...]:
    """Where it is."""
    return (Mount("/api/auth/jwt", Mint(parts)),)
