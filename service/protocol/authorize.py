"""The authorization request: an ordered list of checks, before and after the redirect URI is trusted.

`BEFORE_TRUST` and `AFTER_TRUST` list the checks. Each has a name, does one thing, and can only refuse. Before the
redirect URI is trusted, an error is shown on a page; after that, it is sent by redirect with `state` and `iss`.

Spec: RFC 6749 §3.1, §4.1.1; OpenID Connect Core 1.0 §3.1.2, §5.5; RFC 9700 §2.1; RFC 9207
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Final

from service.policies.pairs import is_pair, open_to, pair, pairs_of
from service.policies.values import NO_POLICIES, Policies, Policy, names_issuer
from service.protocol.errors import NotOurClient, OAuthError
from service.protocol.pkce import is_challenge
from service.records.claims import ClaimRequest, parse_claim_requests
from service.records.clients import Client
from service.records.grants import MOST_WORDS
from service.records.scopes import words_of
from service.records.waiting import is_too_large

#: The parameters that are stored while a request waits; of an `id_token_hint` only its subject.
KEPT: Final = (
    "response_type", "client_id", "redirect_uri", "scope", "state", "nonce", "response_mode", "prompt", "max_age",
    "code_challenge", "code_challenge_method", "claims", "acr_values", "login_hint", "ui_locales", "resource",
)  # fmt: skip
PROMPTS: Final = ("none", "login", "consent", "select_account")
RESPONSE_MODES: Final = ("query", "form_post")


@dataclass(frozen=True, slots=True)
class Asked:
    """The request, and what is known about it.

    Attributes:
        parameters: the value of each parameter; empty ones are left out.
        repeated: the names of repeated parameters.
        client: the client of `client_id`, if it exists.
        hint_subject: the `sub` of a verified `id_token_hint`; None without one, or if it cannot be verified.
        policies: the policy of each audience.
        issuer: the issuer of the request.
    """

    parameters: Mapping[str, str]
    repeated: frozenset[str]
    client: Client | None
    hint_subject: str | None = None
    policies: Policies = NO_POLICIES
    issuer: str = ""

    def get(self, name: str) -> str | None:
        """The parameter's value."""
        return self.parameters.get(name)

    @property
    def kept(self) -> Mapping[str, str]:
        """The part to store while the request waits."""
        return {name: self.parameters[name] for name in KEPT if name in self.parameters}


#: Raises NotOurClient before the redirect URI is trusted, OAuthError after.
Check = Callable[[Asked], None]


# --- before the redirect URI is trusted ---


def check_client_id(asked: Asked) -> None:
    """The request names one client."""
    if "client_id" in asked.repeated or asked.get("client_id") is None:
        raise NotOurClient("The request does not say which service it comes from.")


def check_client_known(asked: Asked) -> None:
    """The client is registered here."""
    if asked.client is None:
        raise NotOurClient(
            "The service that sent you here is not known to this server.",
            "client_id is not registered; pylon-oidc clients list shows which are",
        )


def check_redirect_uri_given(asked: Asked) -> None:
    """The request has one `redirect_uri` (OpenID Connect Core §3.1.2.1: REQUIRED)."""
    if "redirect_uri" in asked.repeated or asked.get("redirect_uri") is None:
        raise NotOurClient("The request does not say where to send you back to.")


def check_redirect_uri_registered(asked: Asked) -> None:
    """Authorization servers MUST compare redirect URIs by exact string matching (RFC 9700 §2.1)."""
    uri, client = asked.parameters["redirect_uri"], _client(asked)
    if not client.knows_redirect_uri(uri):
        raise NotOurClient(
            "The address to send you back to is not registered for this service.",
            f"redirect_uri differs from the nearest registered one at character {_first_difference(uri, client)}; "
            "register it exactly as the client sends it, in redirect_uris",
        )


def _first_difference(uri: str, client: Client) -> int:
    pairs = (zip(uri, registered, strict=False) for registered in client.redirect_uris)
    common = (sum(1 for _ in takewhile(lambda both: both[0] == both[1], each)) for each in pairs)
    return max(common, default=0)


# --- after ---


def check_no_repeats(asked: Asked) -> None:
    """Parameters MUST NOT be included more than once (RFC 6749 §3.1)."""
    if asked.repeated:
        raise OAuthError("invalid_request", "A parameter is repeated.")


def check_size(asked: Asked) -> None:
    """The request is small enough to be stored during the sign-in, and to be answered. This applies to every request."""
    if is_too_large(asked.kept):
        raise OAuthError("invalid_request", "The request is larger than 8 KiB.")


def check_no_request_object(asked: Asked) -> None:
    """`request` is answered with its own error (OpenID Connect Core §3.1.2.6)."""
    if asked.get("request") is not None:
        raise OAuthError("request_not_supported", "Request objects are not supported.")


def check_no_request_uri(asked: Asked) -> None:
    """`request_uri` is answered with its own error too."""
    if asked.get("request_uri") is not None:
        raise OAuthError("request_uri_not_supported", "Request objects by reference are not supported.")


def check_no_registration(asked: Asked) -> None:
    """`registration` is answered with its own error too."""
    if asked.get("registration") is not None:
        raise OAuthError("registration_not_supported", "Self-issued registration is not supported.")


def check_response_type(asked: Asked) -> None:
    """Only `code`."""
    if asked.get("response_type") is None:
        raise OAuthError("invalid_request", "The parameter response_type is missing.")
    if asked.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "Only the response type code is supported.")


def check_response_mode(asked: Asked) -> None:
    """`query` or `form_post` (OAuth 2.0 Multiple Response Types §2.1, Form Post Response Mode)."""
    if asked.get("response_mode") not in (None, *RESPONSE_MODES):
        raise OAuthError("invalid_request", "Only the response modes query and form_post are supported.")


def check_grant_type(asked: Asked) -> None:
    """The client may use the code flow."""
    if "authorization_code" not in _client(asked).grant_types:
        raise OAuthError(
            "unauthorized_client",
            "This client may not use the code flow: see grant_types in its registration.",
        )


def check_resource(asked: Asked) -> None:
    """Each resource is one that the client may request, or the issuer, which stands for userinfo (RFC 8707 §2)."""
    named = open_to(asked.policies, _client(asked), words_of(asked.get("resource")))
    unknown = (resource for resource, policy in named.items() if policy is None)
    if not all(names_issuer(resource, asked.issuer) for resource in unknown):
        raise OAuthError("invalid_target", "A resource is unknown, or this client may not request it.")


def check_scope(asked: Asked) -> None:
    """The scope has at least one word that the client may have (RFC 6749 §3.3)."""
    if not _granted_scope(asked):
        raise OAuthError(
            "invalid_scope",
            "The request has no scope that this client may have: see scope in its registration.",
        )
    if len(_granted_scope(asked)) > MOST_WORDS:
        raise OAuthError("invalid_scope", f"More than {MOST_WORDS} scopes are requested at once.")


def check_prompt(asked: Asked) -> None:
    """`prompt` has known words, and `none` is not combined (OpenID Connect Core §3.1.2.1)."""
    prompts = words_of(asked.get("prompt"))
    if any(word not in PROMPTS for word in prompts):
        raise OAuthError("invalid_request", "The parameter prompt contains an unknown word.")
    if "none" in prompts and len(prompts) > 1:
        raise OAuthError("invalid_request", "prompt=none cannot be combined with another value.")


def check_max_age(asked: Asked) -> None:
    """Seconds, not negative."""
    value = asked.get("max_age")
    if value is not None and not (value.isascii() and value.isdigit() and len(value) <= 10):
        raise OAuthError("invalid_request", "The parameter max_age is not a number of seconds.")


def check_pkce_method(asked: Asked) -> None:
    """The method is S256 and is given: a challenge without a method would mean plain (RFC 7636 §4.3, RFC 9700 §2.1.1)."""
    challenge, method = asked.get("code_challenge"), asked.get("code_challenge_method")
    if (challenge is not None or method is not None) and method != "S256":
        raise OAuthError("invalid_request", "The code_challenge_method must be S256.")


def check_pkce_challenge(asked: Asked) -> None:
    """The challenge has 43 characters of base64url. A method needs a challenge."""
    challenge = asked.get("code_challenge")
    if challenge is None and asked.get("code_challenge_method") is not None:
        raise OAuthError("invalid_request", "The parameter code_challenge is missing.")
    if challenge is not None and not is_challenge(challenge):
        raise OAuthError("invalid_request", "The code_challenge is not an S256 challenge.")


def check_pkce_present(asked: Asked) -> None:
    """A public client or a stranger always uses PKCE; another one as registered, or a nonce (RFC 9700 §2.1.1)."""
    client = _client(asked)
    always = client.is_public or client.is_stranger
    if asked.get("code_challenge") is not None or (client.require_pkce is False and not always):
        return
    if client.require_pkce or always:
        raise OAuthError(
            "invalid_request", "PKCE is required: send code_challenge and code_challenge_method=S256."
        )
    if not has_nonce(asked):
        raise OAuthError(
            "invalid_request",
            "There is neither PKCE nor a nonce: send code_challenge with code_challenge_method=S256, or a nonce with the scope openid; "
            "for a client that supports neither, register require_pkce false.",
        )


def has_nonce(asked: Asked) -> bool:
    """Whether the ID token of this request will have a nonce, which the client checks."""
    return asked.get("nonce") is not None and "openid" in _granted_scope(asked)


def is_unbound(asked: Asked) -> bool:
    """Whether nothing binds the code to its browser. The operator can allow that for clients that support neither."""
    return asked.get("code_challenge") is None and not has_nonce(asked)


def check_claims(asked: Asked) -> None:
    """A JSON object of the known form (OpenID Connect Core §5.5)."""
    try:
        parse_claim_requests(asked.get("claims") or "{}")
    except ValueError:
        words = "The parameter claims is malformed: see OpenID Connect Core 5.5."
        raise OAuthError("invalid_request", words) from None


BEFORE_TRUST: Final[tuple[Check, ...]] = (
    check_client_id,
    check_client_known,
    check_redirect_uri_given,
    check_redirect_uri_registered,
)
AFTER_TRUST: Final[tuple[Check, ...]] = (
    check_no_repeats,
    check_size,
    check_no_request_object,
    check_no_request_uri,
    check_no_registration,
    check_response_type,
    check_response_mode,
    check_grant_type,
    check_resource,
    check_scope,
    check_prompt,
    check_max_age,
    check_pkce_method,
    check_pkce_challenge,
    check_pkce_present,
    check_claims,
)


def check_request(asked: Asked, checks: tuple[Check, ...]) -> None:
    """Run the checks in order.

    Raises:
        NotOurClient, OAuthError: from the first check that refuses.
    """
    for check in checks:
        try:
            check(asked)
        except (NotOurClient, OAuthError) as error:
            error.rule = check.__name__.removeprefix("check_")
            raise


#: Rule -> the member of a client, or the setting, that controls it.
DECIDED_BY: Final[Mapping[str, str]] = {
    "client_known": "PYLON_OIDC_CLIENTS",
    "redirect_uri_registered": "redirect_uris",
    "grant_type": "grant_types",
    "resource": "PYLON_POLICIES",
    "scope": "scope",
    "pkce_present": "require_pkce",
}


# --- the request, once it has passed ---


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A checked request. Times are in s.

    `redirect_uri` is empty for a device. `scope` is granted if the user agrees. `disclosed` is what they have to agree to: the same, and the scopes of claims
    that are requested one by one. Both consist of words, and pairs of the named `audiences` (`service.policies.pairs`).
    """

    client: Client
    redirect_uri: str
    scope: tuple[str, ...]
    disclosed: tuple[str, ...]
    state: str | None
    nonce: str | None
    response_mode: str
    prompt: frozenset[str]
    max_age: int | None
    code_challenge: str | None
    hint_subject: str | None
    id_token_claims: Mapping[str, ClaimRequest]
    userinfo_claims: Mapping[str, ClaimRequest]
    parameters: Mapping[str, str]
    audiences: tuple[Policy, ...] = ()


def build_request(asked: Asked) -> AuthorizationRequest:
    """Build the request after it has passed every check."""
    claims = parse_claim_requests(asked.get("claims") or "{}")
    max_age = asked.get("max_age")
    return AuthorizationRequest(
        client=_client(asked),
        redirect_uri=asked.get("redirect_uri") or "",
        scope=_granted_scope(asked),
        disclosed=_disclosed(asked, {*claims["id_token"], *claims["userinfo"]}),
        state=asked.get("state"),
        nonce=asked.get("nonce"),
        response_mode=asked.get("response_mode") or "query",
        prompt=frozenset(words_of(asked.get("prompt"))),
        max_age=None if max_age is None else int(max_age),
        code_challenge=asked.get("code_challenge"),
        hint_subject=asked.hint_subject,
        id_token_claims=claims["id_token"],
        userinfo_claims=claims["userinfo"],
        parameters=asked.kept,
        audiences=_audiences(asked),
    )


def cut_to(request: AuthorizationRequest, agreed: Collection[str]) -> AuthorizationRequest:
    """The request without what the user did not agree to. It is already limited to what the client may have."""
    return replace(
        request,
        scope=tuple(word for word in request.scope if word in agreed),
        disclosed=tuple(word for word in request.disclosed if word in agreed),
    )


def _client(asked: Asked) -> Client:
    if asked.client is None:  # checks run in order; without a client none of the later ones runs
        raise NotOurClient("The service that sent you here is not known to this server.")
    return asked.client


def _granted_scope(asked: Asked) -> tuple[str, ...]:
    """The scope that is granted if the user agrees: words, and pairs of the named resources."""
    client, wanted = _client(asked), set(words_of(asked.get("scope")))
    if "openid" in wanted:
        wanted |= set(client.default_scopes)
    words = [word for word in client.scopes.words if word in wanted and word in client.scope]
    # Without a scope, everything that the client may have of the resources.
    asked_words = None if asked.get("scope") is None else wanted
    for policy in _audiences(asked):
        words += pairs_of(policy, client, asked_words)
    if words and any(names_issuer(each, asked.issuer) for each in words_of(asked.get("resource"))):
        words.append(pair(asked.issuer))  # so that it counts as named
    return tuple(words)


def _audiences(asked: Asked) -> tuple[Policy, ...]:
    """The policies of the named resources, without duplicates."""
    named = open_to(asked.policies, _client(asked), words_of(asked.get("resource")))
    return tuple({policy.audience: policy for policy in named.values() if policy is not None}.values())


def _disclosed(asked: Asked, claim_names: set[str]) -> tuple[str, ...]:
    granted, client = _granted_scope(asked), _client(asked)
    return tuple(
        word
        for word in client.scopes.words
        if word in granted
        or (word in client.scope and claim_names.intersection(client.scopes.claims_of([word])))
    ) + tuple(filter(is_pair, granted))
