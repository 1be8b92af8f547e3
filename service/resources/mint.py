"""`POST /api/auth/jwt`: a token for whoever is signed in."""

from __future__ import annotations

from collections.abc import Callable

import falcon
from msgspec import UNSET, UnsetType

from service.keys.signing import Keys
from service.protocol.tokens import MintNotConfigured, mint_token
from service.resources.signed_in import SignedIn
from service.web.bodies import StrictModel, check_json_type, parse_model, read_body
from service.web.errors import ApiError
from service.web.render import send_json

_HINT = "Set PYLON_JWT_SECRET (32 random bytes at least), or PYLON_JWT_ALG=RS256 with a private key."


class _MintRequest(StrictModel, frozen=True):
    audience: str | UnsetType = UNSET


class Mint:
    """Mints JWTs.

    Args:
        signed_in: finds the session.
        keyring: signs.
        clock: Unix s.
        check_revocable: refuses while no session could be ended.
        issuer: the `iss` of minted tokens; None means the request's issuer.
        audience: the default `aud`, and the only one that may be asked for.
        lifetime_s: lifetime of a token in s.
    """

    def __init__(
        self,
        signed_in: SignedIn,
        keyring: Keys,
        clock: Callable[[], float],
        check_revocable: Callable[[], None],
        *,
        issuer: str | None,
        audience: str | None,
        lifetime_s: int,
    ) -> None:
        self._signed_in = signed_in
        self._keyring = keyring
        self._clock = clock
        self._check_revocable = check_revocable
        self._issuer = issuer
        self._audience = audience
        self._lifetime_s = lifetime_s

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """401, then 413, 415 and 400, then 501; 503 while what is given out could not be taken back."""
        now = int(self._clock())
        session = self._signed_in.require(req, now=now, change=True)
        audience = self._wanted_audience(read_body(req), req)
        self._check_revocable()
        try:
            minted = mint_token(
                session,
                self._keyring.to_sign(self._keyring.mint_alg),
                issuer=self._issuer or req.context.issuer,
                audience=audience,
                lifetime_s=self._lifetime_s,
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
        if not body:
            return self._audience
        check_json_type(req)
        wanted = parse_model(_MintRequest, body).audience
        # An audience that nobody configured would let a session speak to services that never agreed to it.
        if wanted is not UNSET and wanted != self._audience:
            raise ApiError("UNKNOWN_AUDIENCE")
        return self._audience
