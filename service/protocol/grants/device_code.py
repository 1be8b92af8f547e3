"""Device code: a device asks until its user has decided, and then gets tokens, once.

What the user allows is a grant like that of an authorization code, with the device code as its code.

Spec: RFC 8628 §3.4, §3.5
"""

from __future__ import annotations

from typing import Any, Final

from service import handles
from service.policies.values import DEVICE_GRANT
from service.protocol.devices import asked
from service.protocol.errors import OAuthError
from service.protocol.grants.authorization_code import redeem, redeemed_grant
from service.protocol.grants.base import GrantType, TokenRequest, invalid_grant
from service.protocol.grants.issuing import Issuing
from service.records.devices import Device
from service.records.grants import Grant


def exchange(request: TokenRequest, issuing: Issuing) -> dict[str, Any]:
    """Exchange a device code for tokens, or answer that the user has not decided yet.

    Raises:
        OAuthError: `authorization_pending`, `slow_down`, `access_denied`, `expired_token`; `invalid_grant` for the code
            of another client, an unknown one, and one that was used; `invalid_target`.
        Contended: if other requests were faster at every attempt.
    """
    shown = handles.read("device code", request.required("device_code"))
    if shown is None:
        raise invalid_grant("device_code_malformed")

    def decide(device: Device | None) -> tuple[Device | None, tuple[str, OAuthError | None]]:
        if device is None or not handles.is_same(shown.secret, device.secret_hash):
            raise invalid_grant("device_code_unknown")
        if device.client_id != request.client.client_id:
            raise invalid_grant("device_code_of_another_client")
        if device.issuer != request.issuer:
            raise invalid_grant("device_code_of_another_issuer")
        changed, error = asked(device, now=request.now)
        return changed, (device.grant_id, error)

    grant_id, error = issuing.devices.use(shown.grant_id, decide, now=request.now)
    if error is not None:
        raise error
    return _let_in(grant_id, request, issuing)


def _let_in(grant_id: str, request: TokenRequest, issuing: Issuing) -> dict[str, Any]:
    def redeemed(grant: Grant | None) -> tuple[Grant, dict[str, Any]]:
        # It ends with the session in which the user agreed, and with its client.
        if grant is None or grant.client_id != request.client.client_id:
            raise invalid_grant("device_grant_ended")
        if grant.code.spent_at is not None:
            raise invalid_grant("device_code_used")
        return redeemed_grant(grant, request, issuing)

    return redeem(grant_id, redeemed, request, issuing)


TYPE: Final = GrantType(DEVICE_GRANT, given_by_default=False, needs_id_token_key=True, exchange=exchange)
