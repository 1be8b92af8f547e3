"""`POST /api/auth/jwt`: a token for the signed-in user."""

from __future__ import annotations

import falcon
from msgspec import UNSET, UnsetType

from service.policies.deciding import Asked, Refused, decide
from service.policies.values import MINT, Policy
from service.protocol.tokens import NoKey, sign_token
from service.resources.parts import Parts, Resource
from service.web.bodies import StrictModel, check_json_type, parse_model, read_body
from service.web.errors import ApiError
from service.web.mounts import Mount
from service.web.render import send_json

_HINT = "Set PYLON_JWT_SECRET (at least 32 random bytes), or PYLON_JWT_ALG=RS256 with a private key."


class _MintRequest(StrictModel, frozen=True):
    audience: str | UnsetType = UNSET


class Mint(Resource):
    """Mints JWTs."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Mint a token. The order of errors is 401, 413, 415, 400, 403, 501; 503 while a token could not be revoked."""
        now, parts = req.context.now, self.parts
        session = parts.signed_in.require(req, now=now, change=True)
        policy = self._wanted_policy(read_body(req), req)
        issuer = parts.settings.jwt_issuer or req.context.issuer
        decided = decide(policy, Asked(MINT, issuer, now, session=session))
        if isinstance(decided, Refused):
            raise _refusal(decided)
        parts.store.check_revocable()
        try:
            status = parts.statuses.claim(req.context.issuer, session.status)
            minted = sign_token(decided, parts.keys, status=status)
        except NoKey:
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

    def _wanted_policy(self, body: bytes, req: falcon.Request) -> Policy:
        wanted: str | UnsetType | None = UNSET
        if body:
            check_json_type(req)
            wanted = parse_model(_MintRequest, body).audience
        # With an audience that is not configured, a session could reach services that never agreed to that.
        policy = self.parts.policies.to_mint(self.parts.settings.jwt_audience if wanted is UNSET else wanted)
        if policy is None:
            raise ApiError("UNKNOWN_AUDIENCE")
        return policy


def _refusal(refused: Refused) -> ApiError:
    """The error for the app: the rule, and what to ask the user for if that helps."""
    more = {"rule": refused.rule} | ({"step_up": refused.step_up} if refused.step_up else {})
    return ApiError("POLICY_REFUSED", cause=refused.rule.replace(".", "_"), more=more)


def routes(parts: Parts) -> tuple[Mount, ...]:
    """Its path."""
    return (Mount("/api/auth/jwt", Mint(parts)),)
