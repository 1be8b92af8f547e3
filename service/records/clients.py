"""A registered client: its rights, the match of a redirect URI, and its row.

Spec: RFC 7591 §2, RFC 9700 §2.1, §4.1.3, RFC 8252 §7
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from service.handles import hash_handle, new_version
from service.records.redirects import without_loopback_port
from service.records.scopes import SCOPES, STANDARD_SCOPES, Scopes
from service.storage.interface import NEVER, Change, Fitting, Kind, Record

SECRET_METHODS: Final = ("client_secret_basic", "client_secret_post")
#: The client signs with its own key (RFC 7523).
KEY_METHOD: Final = "private_key_jwt"
#: Where a client comes from: the operator's settings or commands; or, for a stranger, itself or its document.
Source = Literal["environment", "database", "registration", "document"]
STRANGERS: Final = ("registration", "document")
#: How the id of a client that registered itself begins.
REGISTERED: Final = "r_"
_IDS_OF_STRANGERS: Final = (REGISTERED, "https://")
#: Fields of a client that are never shown: the hashes of its secrets, and internal fields.
_NO_MEMBERS: Final = ("secrets", "scopes", "version", "row_ends_at", "registration", "fresh_until")


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A stored secret: its hash, and when it expires (Unix s; None: never)."""

    hash: str
    valid_until: int | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """How a client manages its own registration (RFC 7592).

    Attributes:
        token_hash: hash of its registration access token.
        issued_at: when it registered, Unix s.
        bounds: metadata that its own never exceeds: that of its invitation, and what an operator limited later.
    """

    token_hash: str
    issued_at: int
    bounds: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Client:
    """A registered client. Names are those of RFC 7591; those from `first_party` on are ours.

    Attributes:
        secrets: newest first, with earlier ones for an hour after a rotation; none for a public client, or one with keys.
        token_endpoint_auth_method: the registered method; None: both secret methods.
        first_party: belongs to the app itself, so users are not asked for consent.
        require_pkce: whether a request without a code challenge is refused; None: unless it has a nonce.
        resource_ids: audiences that it serves and may introspect.
        id_token_claims: `scope`: ID tokens have the claims of the granted scopes; `requested`: those in `claims`.
        claim_names: claim -> the name of the claim for this client.
        allow_any_scheme: whether its own URI schemes may lack a dot.
        default_scopes: added to its requests with `openid`.
        logout_by_hint: whether an ID token from its backend is enough to end the session.
        backchannel_logout_uri: where it is notified that a session has ended.
        backchannel_logout_session_required: whether it needs the `sid`; it always gets it.
        jwks, jwks_uri: its public keys, or where they are; one of the two with `private_key_jwt`.
        token_endpoint_auth_signing_alg: the algorithm of its assertions; None: any that we support.
        assertion_audience: `token_endpoint`: the `aud` of its assertions may also be the address of that.
        scopes: the service's scopes and their claims; not a member of the metadata.
        version: the version of its record, which its grants depend on; not a member of the metadata.
        row_ends_at: when its row ends, Unix s; only for a stranger that nobody has signed in through.
        registration: for a client that registered itself: how it manages that; not a member of the metadata.
        fresh_until: for a client by its document: when the copy of that needs another look, Unix s.
    """

    client_id: str
    redirect_uris: tuple[str, ...]
    source: Source
    secrets: tuple[ClientSecret, ...] = ()
    token_endpoint_auth_method: str | None = None
    grant_types: tuple[str, ...] = ()
    response_types: tuple[str, ...] = ("code",)
    scope: tuple[str, ...] = SCOPES
    client_name: str | None = None
    client_uri: str | None = None
    logo_uri: str | None = None
    policy_uri: str | None = None
    tos_uri: str | None = None
    contacts: tuple[str, ...] = ()
    post_logout_redirect_uris: tuple[str, ...] = ()
    id_token_signed_response_alg: str = "RS256"
    application_type: str = "web"
    first_party: bool = False
    require_pkce: bool | None = None
    resource_ids: tuple[str, ...] = ()
    id_token_claims: str = "scope"
    claim_names: Mapping[str, str] = field(default_factory=dict)
    allow_any_scheme: bool = False
    default_scopes: tuple[str, ...] = ()
    logout_by_hint: bool = False
    backchannel_logout_uri: str | None = None
    backchannel_logout_session_required: bool = True
    jwks: Mapping[str, Any] | None = None
    jwks_uri: str | None = None
    token_endpoint_auth_signing_alg: str | None = None
    assertion_audience: str | None = None
    scopes: Scopes = field(default=STANDARD_SCOPES, repr=False, compare=False)
    version: int = field(default=0, compare=False)
    row_ends_at: int = field(default=NEVER, compare=False)
    registration: Registration | None = field(default=None, repr=False)
    fresh_until: int = field(default=0, compare=False)

    @property
    def is_stranger(self) -> bool:
        """Whether the operator did not register it: it registered itself, or is known by its document."""
        return self.source in STRANGERS

    @property
    def is_unused(self) -> bool:
        """Whether it is a stranger that nobody has signed in through, so its row ends."""
        return self.row_ends_at < NEVER

    @property
    def is_public(self) -> bool:
        """Whether it is registered without credentials (RFC 6749 §2.1, RFC 7591 §2)."""
        return self.token_endpoint_auth_method == "none"

    @property
    def has_keys(self) -> bool:
        """Whether it authenticates by a key of its own."""
        return self.token_endpoint_auth_method == KEY_METHOD

    @property
    def document_host(self) -> str | None:
        """The host of its client id, if that is the URL of its document."""
        return urlsplit(self.client_id).hostname if self.source == "document" else None

    @property
    def name(self) -> str:
        """Its name for users."""
        return self.client_name or self.client_id

    def accepts_method(self, method: str) -> bool:
        """Whether it may authenticate with this method."""
        if self.is_public:
            return method == "none"
        named = self.token_endpoint_auth_method
        return method == named if named is not None else method in SECRET_METHODS

    def has_secret(self, unverified_secret: str, *, now: int) -> bool:
        """Whether it has this secret, compared in constant time."""
        shown = hash_handle(unverified_secret)
        good = [hmac.compare_digest(shown, secret.hash) and _is_valid(secret, now) for secret in self.secrets]
        return any(good)

    def knows_redirect_uri(self, uri: str) -> bool:
        """Whether the URI is registered, as an exact string except for the port of a loopback address.

        For a public client, the port of `localhost` may differ too: such clients are programs that cannot choose it.

        Spec: RFC 9700 §2.1, RFC 8252 §7.3, §8.3
        """
        if uri in self.redirect_uris:
            return True
        portless = without_loopback_port(uri, by_name=self.is_public)
        return portless is not None and any(
            without_loopback_port(registered, by_name=self.is_public) == portless
            for registered in self.redirect_uris
        )

    def home(self, redirect_uri: str) -> str | None:
        """The address where users can start again: its own page, or else the origin of a web redirect URI.

        None for a stranger: no page of ours leads to a site that nobody vouches for.

        Spec: RFC 9700 §4.11.2
        """
        if self.is_stranger:
            return None
        if self.client_uri is not None or not self.knows_redirect_uri(redirect_uri):
            return self.client_uri
        parts = urlsplit(redirect_uri)
        is_web = parts.scheme in ("https", "http") and parts.netloc
        return f"{parts.scheme}://{parts.netloc}/" if is_web else None

    def public_metadata(self) -> dict[str, Any]:
        """Its metadata, without secrets."""
        shown: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in _NO_MEMBERS or value is None:
                continue
            shown[item.name] = _as_json(value)
        shown["scope"] = " ".join(self.scope)
        if self.is_public:
            shown["token_endpoint_auth_method"] = "none"
        return shown


def _as_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if isinstance(value, Mapping) else value


def _is_valid(secret: ClientSecret, now: int) -> bool:
    return secret.valid_until is None or now < secret.valid_until


def defaults(*, confidential: bool, scopes: Scopes, source: str) -> dict[str, Any]:
    """The members whose default depends on the secret, on the available scopes, or on who registered it."""
    is_stranger = source in STRANGERS
    return {
        "token_endpoint_auth_method": None if confidential else "none",
        "require_pkce": None if confidential and not is_stranger else True,
        "logout_by_hint": confidential and not is_stranger,
        "scope": _all_of(scopes, source),
        "scopes": scopes,
    }


# --- the part of a grant that it may still have: every token is limited to that (RFC 6749 §3.3, §6) ---


def scope_now(granted: Iterable[str], client: Client) -> tuple[str, ...]:
    """The granted scope that the client may still have."""
    return tuple(word for word in granted if word in client.scope and word in client.scopes.words)


def agreed_claims(names: Iterable[str], disclosed: Iterable[str], client: Client) -> tuple[str, ...]:
    """The claims requested one by one that belong to scopes the user agreed to."""
    known = set(client.scopes.claims_of(disclosed))
    return tuple(name for name in names if name in known)


def claims_now(agreed: Iterable[str], client: Client) -> tuple[str, ...]:
    """The claims agreed to one by one that a scope of the client still includes."""
    return agreed_claims(agreed, client.scope, client)


def is_offline(granted: Iterable[str], client: Client) -> bool:
    """Whether the client may now use the refresh tokens of a grant with this scope."""
    return "offline_access" in granted and may_be_offline(client)


def may_be_offline(client: Client) -> bool:
    """Whether the client may have refresh tokens at all."""
    return "offline_access" in client.scope and "refresh_token" in client.grant_types


# --- its row ---


def row_id(client_id: str, source: str) -> str:
    """The id of a client's row.

    A version of this service that knows no strangers looks only for the first, so it never takes one for a client of
    the operator's.
    """
    return hash_handle(f"stranger\n{client_id}" if source in STRANGERS else client_id)


def row_ids(client_id: str) -> tuple[str, ...]:
    """Where the row of a client may be: the operator's comes first, and most ids can only be the operator's."""
    ids = (row_id(client_id, "database"),)
    return (*ids, row_id(client_id, "registration")) if client_id.startswith(_IDS_OF_STRANGERS) else ids


def on_client(client: Client) -> tuple[Fitting, ...]:
    """Grants depend on the client as it was read. A client of the environment exists as long as the process."""
    if client.source == "environment":
        return ()
    id_hash = row_id(client.client_id, client.source)
    return (Fitting(Kind.CLIENT, id_hash=id_hash, version=client.version),)


def used(client: Client) -> tuple[Change, ...]:
    """The change to make together with a sign-in: the first one keeps a stranger's row. Later ones change nothing."""
    if not client.is_unused:
        return ()

    def kept(record: Record) -> Record:
        return replace(record, expires_at=NEVER, subject="")

    return (Change(Kind.CLIENT, row_id(client.client_id, client.source), kept),)


def new_record(client: Client, *, address: str = "") -> Record:
    """The row of a new client.

    Args:
        client: the client.
        address: for a stranger: the address that registered it; empty if not known.
    """
    client_id = client.client_id
    # A later client with the same id is another one: its version differs.
    return Record(
        Kind.CLIENT,
        row_id(client_id, client.source),
        client.row_ends_at,
        address,
        body=to_body(client),
        client_id=client_id,
        version=new_version(),
    )


def to_body(client: Client) -> dict[str, Any]:
    """The body of its row."""
    body = client.public_metadata() | {
        "secrets": [[secret.hash, secret.valid_until] for secret in client.secrets],
        "token_endpoint_auth_method": client.token_endpoint_auth_method,
        "scope": list(client.scope),
    }
    is_bound = client.registration is not None and "scope" in client.registration.bounds
    if client.scope == _all_of(client.scopes, client.source) and not is_bound:
        del body["scope"]  # all scopes, including future ones
    if client.source == "document":
        body["fresh_until"] = client.fresh_until
    if client.registration is not None:
        body["registration"] = asdict(client.registration)
    return body


def of_record(record: Record, scopes: Scopes) -> Client:
    """Read the client from a row. Missing members get their defaults, and unknown ones are ignored."""
    body = record.body
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in body.items()
        if name in _FIELDS and value is not None
    }
    values["secrets"] = tuple(ClientSecret(*secret) for secret in body["secrets"])
    if "registration" in values:
        values["registration"] = Registration(**values["registration"])
    has_keys = values.get("token_endpoint_auth_method") == KEY_METHOD
    source = body["source"]
    given = defaults(confidential=bool(body["secrets"]) or has_keys, scopes=scopes, source=source)
    if source in STRANGERS and "scope" in values:  # the operator may have closed some since
        values["scope"] = tuple(word for word in values["scope"] if word in scopes.of_strangers)
    return Client(**given | values, version=record.version, row_ends_at=record.expires_at)


def _all_of(scopes: Scopes, source: str) -> tuple[str, ...]:
    return scopes.of_strangers if source in STRANGERS else scopes.known


_FIELDS: Final = frozenset(item.name for item in fields(Client))
