"""Clients: checks their metadata, and matches redirect URIs.

Spec: RFC 7591 §2, RFC 9700 §2.1, §4.1.3, RFC 8252 §7, OpenID Connect RP-Initiated Logout 1.0 §3.1
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeGuard
from urllib.parse import urlsplit

from service.handles import hash_handle
from service.keys.algorithms import ASYMMETRIC_ALGS
from service.keys.material import KeyFault, check_secret_strength
from service.keys.others import OTHERS_ALGS, check_public_jwks
from service.policies.values import CLIENT_CREDENTIALS, EXCHANGE_GRANT
from service.protocol.client_credentials import credentials_fault
from service.protocol.client_documents import parse_document_url
from service.protocol.grants import GIVEN_BY_DEFAULT, GRANT_TYPES
from service.records.claims import VERIFIED_CLAIMS, is_claim_name
from service.records.clients import KEY_METHOD, SECRET_METHODS, Client, ClientSecret, Source, defaults
from service.records.scopes import STANDARD_SCOPES, Scopes

MIN_SECRET_CHARS: Final = 32
_CLIENT_ID = re.compile(r"[\x21-\x7e]{1,128}")
_HARMLESS_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_VISIBLE_URI = re.compile(r"[\x21\x23-\x3b\x3d\x3f-\x5b\x5d\x5f\x61-\x7a\x7e]{1,2048}")
_PLAIN_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
AUTH_METHODS: Final = (*SECRET_METHODS, KEY_METHOD, "none")
ID_TOKEN_CLAIMS: Final = ("scope", "requested")
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
#: Schemes that the browser or the operating system handles itself, which an app cannot own.
_NO_APPS_SCHEMES: Final = frozenset(
    {
        *("http", "https", "ftp", "ws", "wss"),
        *("javascript", "vbscript", "data", "blob", "filesystem", "file", "about", "view-source", "jar"),
        *("mailto", "tel", "sms", "callto", "intent", "content", "chrome", "edge", "resource", "ms-settings"),
    }
)
_MOST_NAMES: Final = 64
_MOST_SCOPE_CHARS: Final = 8_192
#: Only confidential clients may use them (RFC 6749 §4.4; RFC 8693 §5).
_FOR_SECRETS: Final = (CLIENT_CREDENTIALS, EXCHANGE_GRANT)
_SCOPE_MEMBERS: Final = ("scope", "default_scopes")


class InvalidClientMetadata(ValueError):
    """A member of the metadata is not allowed.

    Args:
        member: its name.
        reason: what is wrong, and what to write instead.
    """

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(f"{member}: {reason}")
        self.member = member
        self.reason = reason


class MintedAudienceMissing(InvalidClientMetadata):
    """There can be no clients, because minted tokens have the ID tokens' key and no `aud`, so they could be confused.

    Spec: RFC 8725 §3.12

    Args:
        mint_alg: the algorithm of minted tokens.
    """

    def __init__(self, mint_alg: str) -> None:
        super().__init__(
            "PYLON_JWT_AUDIENCE",
            f"is unset, there are clients, and PYLON_JWT_ALG={mint_alg}: a client's ID token would pass for a minted token; "
            "write a name for the services that take minted tokens, such as api",
        )


# --- reading metadata ---


def parse_client(
    metadata: Mapping[str, Any],
    *,
    source: Source,
    kept_secrets: tuple[ClientSecret, ...] = (),
    scopes: Scopes = STANDARD_SCOPES,
) -> Client:
    """Check the metadata of one client.

    Args:
        metadata: with `client_id`, and `client_secret` unless it is public.
        source: where it was registered.
        kept_secrets: its existing secrets, used if the metadata has none.
        scopes: the available scopes; the client gets all of them if the metadata has no `scope`.

    Raises:
        InvalidClientMetadata: names the first member that is unknown, missing or not allowed.
    """
    values, faults = _read_members(metadata, scopes)
    if faults:
        raise faults[0]
    secret = values.pop("client_secret", None)
    values["secrets"] = kept_secrets if secret is None else (ClientSecret(hash_handle(secret)),)
    values.setdefault("redirect_uris", ())
    has_keys = values.get("token_endpoint_auth_method") == KEY_METHOD
    given = defaults(confidential=bool(values["secrets"]) or has_keys, scopes=scopes, source=source)
    given |= {"grant_types": GIVEN_BY_DEFAULT} | values
    return check_client(Client(**given, source=source))


def client_faults(metadata: Mapping[str, Any], *, scopes: Scopes) -> list[InvalidClientMetadata]:
    """All faults in the metadata of a client: those of single members, or else conflicts between members."""
    if faults := _read_members(metadata, scopes)[1]:
        return faults
    try:
        parse_client(metadata, source="environment", scopes=scopes)
    except InvalidClientMetadata as error:
        return [error]
    return []


#: What to do instead of members that other providers have.
_INSTEAD: Final = {
    "access_token_format": "leave it out: an access token is a JWT if the request names an audience as its resource",
}


def _read_members(
    metadata: Mapping[str, Any], scopes: Scopes
) -> tuple[dict[str, Any], list[InvalidClientMetadata]]:
    values: dict[str, Any] = {}
    faults: list[InvalidClientMetadata] = []
    any_scheme = metadata.get("allow_any_scheme") is True
    parsers = {**MEMBERS, **_WITH_ANY_SCHEME} if any_scheme else MEMBERS
    for member, value in metadata.items():
        if member not in MEMBERS:
            import difflib  # needed only for a fault

            near = difflib.get_close_matches(member, MEMBERS, n=1)
            shown = member if _HARMLESS_NAME.fullmatch(member) else "a member"
            hint = _INSTEAD.get(member) or (f"did you mean {near[0]}?" if near else "leave it out")
            faults.append(InvalidClientMetadata(shown, f"is not known; {hint}"))
            continue
        try:
            values[member] = parsers[member](member, value)
            if member in _SCOPE_MEMBERS:
                _check_known(member, values[member], scopes)
        except InvalidClientMetadata as error:
            faults.append(error)
    needed = ["client_id", *(["redirect_uris"] if "authorization_code" in _grant_types_of(values) else [])]
    missing = [member for member in needed if member not in metadata]
    faults += [InvalidClientMetadata(member, "is missing; write it") for member in missing]
    return values, faults


def _grant_types_of(values: Mapping[str, Any]) -> Sequence[str]:
    given: Sequence[str] = values.get("grant_types", GIVEN_BY_DEFAULT)
    return given


def check_client(client: Client) -> Client:
    """Check that the members of a client do not conflict.

    Raises:
        InvalidClientMetadata: names the member.
    """
    if fault := credentials_fault(client):
        raise InvalidClientMetadata(*fault)
    if client.is_public and client.require_pkce is False:
        raise InvalidClientMetadata(
            "require_pkce", "is false, but a public client always needs PKCE; leave it out"
        )
    for name in _FOR_SECRETS if client.is_public else ():
        if name in client.grant_types:
            raise InvalidClientMetadata("grant_types", f"{name} is for clients with a secret; leave it out")
    # RFC 7591 §2.1: a client that uses no authorization endpoint has no response type.
    if client.response_types != ("code",) and (
        client.response_types or "authorization_code" in client.grant_types
    ):
        raise InvalidClientMetadata("response_types", "only code is supported; leave it out")
    if "authorization_code" in client.grant_types and not client.redirect_uris:
        raise InvalidClientMetadata("redirect_uris", "is empty; write at least one")
    for word in client.default_scopes:
        if word not in client.scope:
            raise InvalidClientMetadata("default_scopes", f"{word} is not among its scope; add it there")
    _check_names(client)
    return client


def _check_names(client: Client) -> None:
    """Check that no two claims of the client's scopes have the same name."""
    known_as: dict[str, str] = {}
    for name in client.scopes.claims_of(client.scope):
        new = client.claim_names.get(name, name)
        source = "roles" if name == "groups" else name  # the same claim under another name
        if known_as.setdefault(new, source) != source:
            raise InvalidClientMetadata(
                "claim_names", f"{new} would be both {known_as[new]} and {source}; write another name for one"
            )


def _text(member: str, value: Any) -> str:
    if type(value) is not str or not 1 <= len(value) <= 255 or not value.isprintable():
        raise InvalidClientMetadata(member, "is not a line of text; write 1 to 255 characters")
    return value


def is_client_id(value: Any) -> TypeGuard[str]:
    """Whether the value may be a client id: visible ASCII, so that it can be shown anywhere; the URL of a document may be longer."""
    return type(value) is str and (
        _CLIENT_ID.fullmatch(value) is not None or parse_document_url(value) is not None
    )


def _client_id(member: str, value: Any) -> str:
    if not is_client_id(value):
        raise InvalidClientMetadata(member, "is not a client id; write 1 to 128 visible ASCII characters")
    return value


def _secret(member: str, value: Any) -> str:
    if (
        type(value) is not str
        or len(value) < MIN_SECRET_CHARS
        or not all(" " <= char <= "~" for char in value)
    ):
        raise InvalidClientMetadata(
            member, f"is too weak; write at least {MIN_SECRET_CHARS} random ASCII characters"
        )
    try:
        check_secret_strength(value.encode())
    except KeyFault as fault:
        raise InvalidClientMetadata(member, str(fault)) from None
    return value


def _flag(member: str, value: Any) -> bool:
    if type(value) is not bool:
        raise InvalidClientMetadata(member, "is neither true nor false; write true or false")
    return value


def _list_of(item: Callable[[str, Any], str]) -> Callable[[str, Any], tuple[str, ...]]:
    def parse(member: str, value: Any) -> tuple[str, ...]:
        if type(value) is not list or len(value) > 100:
            raise InvalidClientMetadata(member, "is not a list; write a JSON array of strings")
        return tuple(item(member, entry) for entry in value)

    return parse


def _one_of(*choices: str) -> Callable[[str, Any], str]:
    def parse(member: str, value: Any) -> str:
        if value not in choices:
            raise InvalidClientMetadata(member, f"is not supported; write {' or '.join(choices)}")
        return str(value)

    return parse


def _scope(member: str, value: Any) -> tuple[str, ...]:
    if type(value) is not str or not 1 <= len(value) <= _MOST_SCOPE_CHARS or not value.isprintable():
        raise InvalidClientMetadata(member, "is not a line of scopes; write them with spaces between")
    return tuple(value.split())


def _check_known(member: str, words: tuple[str, ...], scopes: Scopes) -> None:
    if not scopes.unread and not set(words) <= set(scopes.known):
        raise InvalidClientMetadata(
            member, f"contains an unknown scope; write some of {' '.join(scopes.known)}"
        )


def _claim_names(member: str, value: Any) -> dict[str, str]:
    if type(value) is not dict or len(value) > _MOST_NAMES:
        raise InvalidClientMetadata(member, 'is not an object of names; write {"roles": "groups"}')
    for name, new in value.items():
        if not is_claim_name(name):
            shown = name if _HARMLESS_NAME.fullmatch(name) else "a name"
            raise InvalidClientMetadata(member, f"{shown} cannot be renamed; leave it out")
        if not is_claim_name(new) or new in VERIFIED_CLAIMS:
            raise InvalidClientMetadata(
                member,
                f"{name} cannot have this name; write 1 to 64 of A-Z a-z 0-9 _ . : / - and no name of the protocol's",
            )
    if len(set(value.values())) < len(value):
        raise InvalidClientMetadata(member, "gives one name to two claims; write each once")
    return dict(value)


def _redirect_uri(member: str, value: Any, *, any_scheme: bool = False) -> str:
    """Parse an absolute URI that a browser may be sent to with a code.

    It is https, or http for this machine only, or an app's own scheme. That scheme must contain a dot, like a reversed
    domain name, unless the operator allows any scheme.
    """
    uri = _uri(member, value)
    parts = _split(member, uri)
    if parts.scheme == "https" and parts.hostname:
        return uri
    if parts.scheme == "http":
        if parts.hostname in _LOOPBACK_NAMES:
            return uri
        raise InvalidClientMetadata(member, "http is for this machine only; write https")
    if parts.scheme not in {"", *_NO_APPS_SCHEMES} and uri[len(parts.scheme) + 1 :].startswith("/"):
        if any_scheme or "." in parts.scheme:
            return uri
        raise InvalidClientMetadata(
            member, "has a scheme without a dot; write com.example.app:/…, or allow it by allow_any_scheme"
        )
    raise InvalidClientMetadata(
        member, "is not a redirect URI; write https://…, http://localhost…, or com.example.app:/…"
    )


def _web_uri(member: str, value: Any) -> str:
    uri = _uri(member, value)
    parts = _split(member, uri)
    if (parts.scheme == "https" and parts.hostname) or (
        parts.scheme == "http" and parts.hostname in _LOOPBACK_NAMES
    ):
        return uri
    raise InvalidClientMetadata(member, "is not a web address; write https://…")


def _uri_to_tell(member: str, value: Any) -> str:
    """Where requests of ours go. Whether the operator lets them go to this host is seen when one is sent."""
    uri = _uri(member, value)
    parts = _split(member, uri)
    if parts.scheme in ("https", "http") and parts.hostname:
        return uri
    raise InvalidClientMetadata(member, "is not a web address; write https://…")


def _jwks(member: str, value: Any) -> dict[str, Any]:
    try:
        check_public_jwks(value)
    except KeyFault as fault:
        raise InvalidClientMetadata(member, str(fault)) from None
    return dict(value)


def _uri(member: str, value: Any) -> str:
    if type(value) is not str or not _VISIBLE_URI.fullmatch(value) or "#" in value:
        raise InvalidClientMetadata(member, "is not an absolute URI without a fragment; write https://…")
    return value


def _split(member: str, uri: str) -> Any:
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018 - raises on a port that is no number
    except ValueError:
        raise InvalidClientMetadata(member, "is not a URI; write https://…") from None
    # A logo's host is written into a page's Content-Security-Policy, so it must be a plain host.
    if parts.netloc and not _PLAIN_HOST.fullmatch(parts.netloc):
        raise InvalidClientMetadata(member, "has user info, a wildcard or no host name; write the plain host")
    return parts


MEMBERS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "client_id": _client_id,
    "client_secret": _secret,
    "redirect_uris": _list_of(_redirect_uri),
    "post_logout_redirect_uris": _list_of(_redirect_uri),
    "token_endpoint_auth_method": _one_of(*AUTH_METHODS),
    "grant_types": _list_of(_one_of(*(grant_type.name for grant_type in GRANT_TYPES))),
    "response_types": _list_of(_one_of("code")),
    "scope": _scope,
    "client_name": _text,
    "client_uri": _web_uri,
    "logo_uri": _web_uri,
    "policy_uri": _web_uri,
    "tos_uri": _web_uri,
    "contacts": _list_of(_text),
    "id_token_signed_response_alg": _one_of(*ASYMMETRIC_ALGS),
    "application_type": _one_of("web", "native"),
    "first_party": _flag,
    "require_pkce": _flag,
    "resource_ids": _list_of(_text),
    "id_token_claims": _one_of(*ID_TOKEN_CLAIMS),
    "claim_names": _claim_names,
    "allow_any_scheme": _flag,
    "default_scopes": _list_of(_text),
    "logout_by_hint": _flag,
    "backchannel_logout_uri": _uri_to_tell,
    "backchannel_logout_session_required": _flag,
    "jwks": _jwks,
    "jwks_uri": _uri_to_tell,
    "token_endpoint_auth_signing_alg": _one_of(*OTHERS_ALGS),
    "assertion_audience": _one_of("issuer", "token_endpoint"),
}
_ANY_REDIRECT_URIS: Final = _list_of(partial(_redirect_uri, any_scheme=True))
_WITH_ANY_SCHEME: Final = {
    "redirect_uris": _ANY_REDIRECT_URIS,
    "post_logout_redirect_uris": _ANY_REDIRECT_URIS,
}
