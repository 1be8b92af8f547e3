"""Issues ID tokens, and reads them back as hints.

Spec: OpenID Connect Core 1.0 §2, §3.1.3.6; RP-Initiated Logout 1.0 §2
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from service.keys.algorithms import ALGORITHMS
from service.keys.signing import InvalidToken, Keyring, Keys
from service.protocol.tokens import JwtKind, kind_of
from service.records.claims import is_attribute_name
from service.records.clients import Client
from service.records.users import User

#: A compact ID token has fewer characters than this, so that it fits into headers and URLs.
MAX_ID_TOKEN_CHARS: Final = 6_000


def half_hash(value: str, *, alg: str) -> str:
    """`at_hash`: the left half of the token's hash.

    Raises:
        KeyError: for an algorithm without a known hash; no token is issued then.
    """
    digest = ALGORITHMS[alg].half_hash(value.encode()).digest()
    return base64.urlsafe_b64encode(digest[: len(digest) // 2]).rstrip(b"=").decode()


def user_claims(user: User, names: Iterable[str]) -> dict[str, Any]:
    """The named claims that are known of the user. Attributes are included if they are named."""
    roles = list(user.roles) or None
    known = {**user.attributes, **user.claims, "roles": roles, "groups": roles, "tenant_id": user.tenant_id}
    return {name: known[name] for name in names if known.get(name) is not None}


def renamed(claims: Mapping[str, Any], client: Client) -> dict[str, Any]:
    """The claims, renamed as the client's registration says."""
    names = client.claim_names
    kept = {name: value for name, value in claims.items() if name not in names}
    return kept | {names[name]: value for name, value in claims.items() if name in names}


@dataclass(frozen=True, slots=True)
class IdToken:
    """An ID token, and the claims that did not fit, under the client's names."""

    token: str
    left_out: tuple[str, ...] = ()


def mint_id_token(
    keyring: Keyring,
    user: User,
    context: Mapping[str, Any],
    client: Client,
    *,
    issuer: str,
    scope: Iterable[str],
    access_token: str,
    lifetime_s: int,
    now: int,
) -> IdToken:
    """Mint an ID token.

    Args:
        keyring: signs the token.
        user: the user whose claims it has.
        context: the stored data of the sign-in: `auth_time`, `sid`, and optionally `nonce`, `acr`, `amr`,
            `id_token_claims` (names from the request).
        client: gives `aud`, the algorithm, and the claims and their names.
        issuer: `iss`.
        scope: the granted scope; its claims are included unless the client wants only those it names one by one.
        access_token: hashed into `at_hash`.
        lifetime_s: in s.
        now: Unix s.
    """
    alg = client.id_token_signed_response_alg
    names = [*context.get("id_token_claims", ())]
    if client.id_token_claims == "scope":
        names += client.scopes.claims_of(scope)
    given = user_claims(user, names)
    # Ours come last, so that no claim of the app replaces them.
    own = _of_sign_in(user, context, client)
    own |= {"iss": issuer, "iat": now, "exp": now + lifetime_s, "at_hash": half_hash(access_token, alg=alg)}
    token = keyring.sign(renamed(given, client) | own, alg=alg)
    left_out: list[str] = []
    while given and len(token) > MAX_ID_TOKEN_CHARS:
        left_out += _lightened(given, (len(token) - MAX_ID_TOKEN_CHARS) * 3 // 4)
        token = keyring.sign(renamed(given, client) | own, alg=alg)
    return IdToken(token, tuple(client.claim_names.get(name, name) for name in left_out))


def _of_sign_in(user: User, context: Mapping[str, Any], client: Client) -> dict[str, Any]:
    """The claims about the sign-in: who, for which client, when and how."""
    said = {name: context[name] for name in ("nonce", "acr", "amr") if context.get(name)}
    who = {"sub": user.user_id, "aud": client.client_id}
    return who | {"auth_time": context["auth_time"], "sid": context["sid"]} | said


def _lightened(claims: dict[str, Any], excess_bytes: int) -> list[str]:
    """Remove whole claims until enough bytes of JSON are saved: the least needed first, and the largest of those.

    Args:
        claims: the claims; modified.
        excess_bytes: how many bytes to save.

    Returns:
        The names of the removed claims.
    """
    gone: list[str] = []
    sizes = {name: len(json.dumps({name: value})) for name, value in claims.items()}
    for name in sorted(claims, key=lambda name: (_need(name), -sizes[name])):
        del claims[name]
        gone.append(name)
        excess_bytes -= sizes[name]
        if excess_bytes <= 0:
            break
    return gone


def _need(name: str) -> int:
    """How much a relying party needs a claim: least the app's own attributes, most the roles, which decide on access."""
    if name in {"roles", "groups"}:
        return 2
    return 0 if is_attribute_name(name) else 1


def read_hint(keys: Keys, unverified_hint: str, *, issuer: str) -> dict[str, Any] | None:
    """The claims of one of our ID tokens, expired or not; None for anything else."""
    try:
        claims = keys.knowing(unverified_hint).verify_hint(unverified_hint)
    except (InvalidToken, LookupError):
        return None
    is_one = kind_of(claims) is JwtKind.ID_TOKEN  # a minted token may have the same key
    if claims.get("iss") != issuer or not is_one or not isinstance(claims.get("sub"), str):
        return None
    return claims
