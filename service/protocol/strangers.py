"""What a stranger may have: a client that the operator did not register.

It registered itself (RFC 7591), or is known by its document. The tables here say which of its members are used, which
grant types and scopes it may have, and how it may authenticate. The rest is checked as for every client.

Four rules are enforced elsewhere, next to what they restrict: PKCE is always required
(`protocol.authorize.check_pkce_present`), an audience needs `strangers = true` (`policies.deciding.may_ask`), requests
to a stranger's URLs ignore the operator's list (`outbound.fetcher`), and the audience of an assertion is the issuer
(`protocol.assertions`).

Spec: RFC 7591 §2, §3.2.2; RFC 9700 §2.1.1
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal

from service.policies.values import AUTHORIZATION_CODE, DEVICE_GRANT
from service.protocol.clients import AUTH_METHODS, MEMBERS, InvalidClientMetadata, parse_client
from service.records.clients import KEY_METHOD, Client, ClientSecret
from service.records.redirects import destination
from service.records.scopes import Scopes

#: Members that only the operator decides. From a stranger they are ignored, as unknown members are.
OWN_MEMBERS: Final = (
    "first_party",
    "resource_ids",
    "claim_names",
    "id_token_claims",
    "allow_any_scheme",
    "require_pkce",
    "assertion_audience",
    "default_scopes",
    "logout_by_hint",
    "profile",
)
#: What this service decides: the id and the secret of a client that registers itself.
_MADE_HERE: Final = ("client_id", "client_secret")
#: The members that a stranger gives, and gets to see.
MEMBERS_OF_STRANGERS: Final = tuple(name for name in MEMBERS if name not in (*OWN_MEMBERS, *_MADE_HERE))
GRANT_TYPES: Final = (AUTHORIZATION_CODE, "refresh_token")
#: How a stranger may authenticate, and its default (RFC 7591 §2). A document contains no secret.
METHODS: Final[Mapping[str, tuple[str, ...]]] = {
    "registration": AUTH_METHODS,
    "document": ("none", KEY_METHOD),
}
_DEFAULT_METHOD: Final = {"registration": "client_secret_basic", "document": "none"}


def parse_stranger(
    metadata: Mapping[str, Any],
    *,
    client_id: str,
    source: Literal["registration", "document"],
    scopes: Scopes,
    devices: bool,
    secrets: tuple[ClientSecret, ...] = (),
) -> Client:
    """Check the metadata of a stranger.

    Args:
        metadata: from any source. Members that are unknown, null, empty or the operator's are ignored.
        client_id: its id.
        source: how it became known.
        scopes: the available scopes, with those that are open to strangers. It gets all of these if it names none.
        devices: whether strangers may use the device grant.
        secrets: its secrets, if it has any.

    Raises:
        InvalidClientMetadata: names the first member that is missing or not allowed.

    Spec: RFC 7591 §2
    """
    given = {name: metadata[name] for name in MEMBERS_OF_STRANGERS if metadata.get(name) not in (None, "")}
    given.setdefault("token_endpoint_auth_method", _DEFAULT_METHOD[source])
    _check_method(given["token_endpoint_auth_method"], source)
    if "scope" in given and _is_all(given["scope"], scopes):
        given["scope"] = " ".join(word for word in scopes.of_strangers if word in given["scope"].split())
    elif "scope" in given:
        _check_scope(given["scope"], scopes)
    if "grant_types" in given:
        given["grant_types"] = _granted_types(given["grant_types"], devices=devices)
    return parse_client(given | {"client_id": client_id}, source=source, kept_secrets=secrets, scopes=scopes)


def with_metadata(
    current: Client,
    metadata: Mapping[str, Any],
    *,
    scopes: Scopes,
    devices: bool,
    secrets: tuple[ClientSecret, ...],
) -> Client:
    """A stranger with other metadata, and the same source and registration. See `parse_stranger`."""
    parsed = parse_stranger(
        metadata,
        client_id=current.client_id,
        source="document" if current.source == "document" else "registration",
        scopes=scopes,
        devices=devices,
        secrets=secrets,
    )
    return replace(
        parsed,
        registration=current.registration,
        row_ends_at=current.row_ends_at,
        version=current.version,
    )


def check_operators_change(client: Client, metadata: Mapping[str, Any]) -> None:
    """Check that an operator who changes a stranger does not give it what strangers never have.

    Raises:
        InvalidClientMetadata: names the member.
    """
    shown = client.public_metadata()
    for name in OWN_MEMBERS:
        if metadata.get(name) is not None and metadata[name] != shown.get(name):
            raise InvalidClientMetadata(
                name, "is only for clients that you register; register another client for it"
            )


def limited_by_operator(before: Client, after: Client, *, devices: bool) -> Client:
    """A client that registered itself, after an operator's change: what that took away, the client does not take back.

    Scope and grant types that the operator changed are from now on among its bounds, like those of an invitation. If
    they are all that strangers may have, they are no longer bounds.

    Args:
        before, after: the client before and after the change.
        devices: whether strangers may use the device grant.

    Spec: RFC 7592 §2.2: the server may replace or refuse requested values
    """
    if after.registration is None:
        return after
    bounds, shown = dict(after.registration.bounds), after.public_metadata()
    for name, everything in {
        "scope": after.scopes.of_strangers,
        "grant_types": allowed_types(devices),
    }.items():
        if set(getattr(after, name)) == set(getattr(before, name)):
            continue
        bounds[name] = shown[name]
        if set(getattr(after, name)) >= set(everything):
            del bounds[name]
    return replace(after, registration=replace(after.registration, bounds=bounds))


def allowed_types(devices: bool) -> tuple[str, ...]:
    """The grant types of strangers. `devices`: whether they may use the device grant."""
    return (*GRANT_TYPES, DEVICE_GRANT) if devices else GRANT_TYPES


def method_of(metadata: Mapping[str, Any]) -> Any:
    """How a client that registers itself authenticates, before that is checked."""
    method = metadata.get("token_endpoint_auth_method")
    return _DEFAULT_METHOD["registration"] if method in (None, "") else method


def within(metadata: Mapping[str, Any], bounds: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata of a client within its bounds, which complete it.

    A list or a scope may have less than its bound; every other member must be the same, or left out.

    Raises:
        InvalidClientMetadata: names the first member that has more.
    """
    given = dict(metadata)
    for name, bound in bounds.items():
        value = given.get(name)
        if value in (None, ""):
            given[name] = bound
        elif not _is_within(name, value, bound):
            raise InvalidClientMetadata(name, "is more than this client is allowed; leave it out")
    return given


def _is_within(name: str, value: Any, bound: Any) -> bool:
    if name == "scope" and isinstance(value, str):
        return set(value.split()) <= set(bound.split())
    if isinstance(bound, list):
        return isinstance(value, list) and all(each in bound for each in value)
    return bool(value == bound)


def redirect_hosts(client: Client) -> frozenset[str]:
    """Where a client's codes go: the hosts, and the schemes of apps."""
    return frozenset(destination(uri).host for uri in client.redirect_uris)


def told_to_itself(client: Client) -> dict[str, Any]:
    """The metadata that a stranger sees of itself (RFC 7591 §3.2.1)."""
    known = client.public_metadata()
    return {"client_id": client.client_id} | {
        name: known[name] for name in MEMBERS_OF_STRANGERS if name in known and known[name] != []
    }


def _check_method(method: Any, source: str) -> None:
    allowed = METHODS[source]
    if method not in allowed:
        raise InvalidClientMetadata(
            "token_endpoint_auth_method", f"is not supported; write {' or '.join(allowed)}"
        )


def _is_all(scope: Any, scopes: Scopes) -> bool:
    """Whether a scope is every one that discovery names: some programs ask for these, and mean what they may have.

    Spec: RFC 7591 §3.2.1: the server may replace a value, and says so in its answer
    """
    words = set(scope.split()) if isinstance(scope, str) else set()
    return set(scopes.words) <= words <= {*scopes.words, *scopes.of_strangers}


def _check_scope(scope: Any, scopes: Scopes) -> None:
    if isinstance(scope, str) and not set(scope.split()) <= set(scopes.of_strangers):
        raise InvalidClientMetadata(
            "scope",
            f"holds one that this client may not have; write some of {' '.join(scopes.of_strangers)}",
        )


def _granted_types(asked: Any, *, devices: bool) -> Any:
    """The grant types that it gets. The device grant is left out if it is not open and there are others."""
    if not isinstance(asked, list):
        return asked  # not a list: refused where its form is checked
    allowed = allowed_types(devices)
    # Programs ask for every grant type that discovery names, and do without this one (RFC 7591 §3.2.1).
    wanted = [name for name in asked if name in allowed or name != DEVICE_GRANT]
    if not wanted or not set(map(str, wanted)) <= set(allowed):
        raise InvalidClientMetadata(
            "grant_types", f"holds one that this client may not have; write {' or '.join(allowed)}"
        )
    return wanted
