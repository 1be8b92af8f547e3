"""A change of a registered client: other metadata, the same client.

Spec: RFC 7592 §2.2
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service.protocol.clients import InvalidClientMetadata, parse_client
from service.protocol.strangers import check_operators_change, limited_by_operator, with_metadata
from service.records.clients import KEY_METHOD, Client, ClientSecret
from service.records.scopes import Scopes


def check_secret_sent_back(current: Client, metadata: Mapping[str, Any], *, now: int) -> None:
    """Check that metadata has no `client_secret`, or the client's own: a change does not set another one.

    Raises:
        InvalidClientMetadata: names the member.

    Spec: RFC 7592 §2.2: if it is present, it MUST be the client's current one
    """
    secret = metadata.get("client_secret")
    if secret is not None and not (isinstance(secret, str) and current.has_secret(secret, now=now)):
        raise InvalidClientMetadata(
            "client_secret", "is not the current one, and is not set here; leave it out"
        )


def changed_client(
    current: Client, metadata: Mapping[str, Any], *, scopes: Scopes, devices: bool, now: int
) -> Client:
    """The client with the metadata that an operator gives it, and the same secrets.

    Args:
        current: the client.
        metadata: all of its new metadata. The members that are returned may be sent back.
        scopes: the available scopes.
        devices: whether strangers may use the device grant.
        now: Unix s.

    Raises:
        InvalidClientMetadata: also if it would change the id, or has a secret that is not the client's.
    """
    if metadata.get("client_id", current.client_id) != current.client_id:
        raise InvalidClientMetadata("client_id", "cannot be changed; leave it out")
    given, kept = _with_its_secret(current, metadata, now=now)
    if given.get("token_endpoint_auth_method") == "none" and not current.is_public:
        raise InvalidClientMetadata(
            "token_endpoint_auth_method", "cannot become public; register another client"
        )
    # A member that we return may be sent back, although this service sets it itself.
    given = {name: value for name, value in given.items() if name != "source"}
    if current.is_stranger:
        check_operators_change(current, given)
        changed = with_metadata(current, given, scopes=scopes, devices=devices, secrets=kept)
        return limited_by_operator(current, changed, devices=devices)
    given["client_id"] = current.client_id
    return parse_client(given, source="database", kept_secrets=kept, scopes=scopes)


def _with_its_secret(
    current: Client, metadata: Mapping[str, Any], *, now: int
) -> tuple[dict[str, Any], tuple[ClientSecret, ...]]:
    """The metadata with at most a new secret, and the secrets that the client keeps."""
    secret, method = metadata.get("client_secret"), metadata.get("token_endpoint_auth_method")
    if current.has_keys and method != KEY_METHOD:
        # Without its keys it needs a secret, which only the request can give: it must not become public.
        if secret is None and method != "none":
            raise InvalidClientMetadata(
                "client_secret", f"is missing; write one, or keep {KEY_METHOD} and the keys"
            )
        return dict(metadata), ()
    check_secret_sent_back(current, metadata, now=now)
    # The client's own secret may be sent back, and does not change anything.
    given = {name: value for name, value in metadata.items() if name != "client_secret"}
    return given, () if method == KEY_METHOD else current.secrets
