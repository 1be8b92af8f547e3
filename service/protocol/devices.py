"""Devices without a browser: what they may request, how often they may ask, and what their user is asked.

`asked` is the state machine of a waiting device: pure, with time as an argument.

Spec: RFC 8628 §3.1, §3.5, §5.4
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from service.policies.values import DEVICE_GRANT, Policies
from service.protocol.authorize import (
    Asked,
    AuthorizationRequest,
    Check,
    build_request,
    check_request,
    check_resource,
    check_scope,
    check_size,
)
from service.protocol.errors import OAuthError
from service.records.clients import Client
from service.records.devices import Decision, Device

#: How much `slow_down` adds to the interval, in s.
SLOWER_S: Final = 5
#: The parameters that have an effect; the others of an authorization request need a browser (RFC 8628 §3.1).
_KEPT: Final = ("scope", "resource")
#: The client's name on the sign-in page: the code, and so the client, is looked up only after the sign-in.
PAGE: Final = Client("", (), "environment", client_name="A device", first_party=True, scope=())


#: In this order: scope and resource are checked as those of an authorization request are.
CHECKS: Final[tuple[Check, ...]] = (check_size, check_resource, check_scope)


def may_use_devices(client: Client, *, strangers: bool) -> bool:
    """Whether a client may use the device grant. `strangers`: whether clients that the operator did not register may."""
    return DEVICE_GRANT in client.grant_types and (strangers or not client.is_stranger)


def checked_request(
    parameters: Mapping[str, str], client: Client | None, policies: Policies, issuer: str, *, strangers: bool
) -> AuthorizationRequest:
    """Check the request of a device. Runs again whenever its user's browser comes back, because the client may have changed.

    Args:
        parameters: the device's parameters; only `scope` and `resource` have an effect.
        client: its client, authenticated at the request; None if it is gone.
        policies: the policy of each audience.
        issuer: the issuer of the request.
        strangers: whether clients that the operator did not register may use devices.

    Returns:
        The request, for which the user is always asked.

    Raises:
        OAuthError: `unauthorized_client`, `invalid_request`, `invalid_target`, `invalid_scope`.
    """
    if client is None or not may_use_devices(client, strangers=strangers):
        raise OAuthError(
            "unauthorized_client", "This client may not use this grant type.", cause="grant_type_not_allowed"
        )
    named = {name: parameters[name] for name in _KEPT if name in parameters}
    asked = Asked({"client_id": client.client_id, **named}, frozenset(), client, None, policies, issuer)
    check_request(asked, CHECKS)
    # RFC 8628 §5.4: somebody else may have started the device, so an earlier consent never counts.
    return replace(build_request(asked), prompt=frozenset({"consent"}))


def page_request(user_code: str) -> AuthorizationRequest:
    """The request of a browser at the page for devices: somebody signs in, and nothing else.

    Args:
        user_code: the code of its URL, not verified yet; empty if there is none.
    """
    request = build_request(Asked({}, frozenset(), PAGE))
    return replace(request, parameters={"user_code": user_code} if user_code else {})


def is_of_device(parameters: Mapping[str, str]) -> bool:
    """Whether an interaction is one of the page for devices: nothing is sent to a client's redirect URI."""
    return "redirect_uri" not in parameters


def is_of_page(parameters: Mapping[str, str]) -> bool:
    """Whether an interaction only signs somebody in, before the code is looked up."""
    return is_of_device(parameters) and "client_id" not in parameters


def asked(device: Device, *, now: int) -> tuple[Device | None, OAuthError | None]:
    """A device asks whether its user has decided.

    Args:
        device: its state.
        now: Unix s.

    Returns:
        Its next state, or None if that stays the same; and the error to answer with, or None if its user has allowed it.

    Spec: RFC 8628 §3.5
    """
    if now >= device.ends_at:
        return None, OAuthError("expired_token", "The device code has expired.")
    if device.decision is Decision.DENIED:
        return None, OAuthError("access_denied", "The user denied the request.")
    if device.decision is Decision.ALLOWED:
        return None, None
    is_early = device.asked_at is not None and now - device.asked_at < device.interval_s
    if is_early:
        slower = replace(device, asked_at=now, interval_s=device.interval_s + SLOWER_S)
        words = f"The device asks too often: wait {SLOWER_S} seconds longer each time."
        return slower, OAuthError("slow_down", words, cause="device_asks_too_often")
    return replace(device, asked_at=now), OAuthError(
        "authorization_pending", "The user has not decided yet.", cause="device_waits"
    )
