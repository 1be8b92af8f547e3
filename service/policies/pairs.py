"""The scopes of APIs in a grant: pairs of an audience and a scope, each as one text, next to plain scopes.

URIs and scopes have no spaces, so `audience scope` is unambiguous. An audience without a scope is an entry too: a user
may let a client use an API that has no scopes.

Spec: RFC 8707 §2, §2.1
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from service.policies.deciding import claims_for, may_ask
from service.policies.values import AUTHORIZATION_CODE, Policies, Policy
from service.records.clients import Client


def pair(audience: str, word: str = "") -> str:
    """The entry for a scope of an audience; without a scope, the audience itself."""
    return f"{audience} {word}"


def is_pair(entry: str) -> bool:
    """Whether an entry belongs to an API."""
    return " " in entry


def parted(entry: str) -> tuple[str, str]:
    """The audience and the scope of an entry; a plain scope has no audience."""
    audience, _, word = entry.rpartition(" ")
    return audience, word


def plain(scope: Iterable[str]) -> tuple[str, ...]:
    """The plain scopes, without those of APIs."""
    return tuple(entry for entry in scope if not is_pair(entry))


def audiences_of(scope: Iterable[str]) -> tuple[str, ...]:
    """The audiences of the entries, without duplicates."""
    return tuple(dict.fromkeys(parted(entry)[0] for entry in scope if is_pair(entry)))


def words_for(scope: Iterable[str], audience: str) -> tuple[str, ...]:
    """The scopes of one audience among the entries."""
    parts = map(parted, filter(is_pair, scope))
    return tuple(word for known, word in parts if known == audience and word)


def told(scope: Iterable[str]) -> str:
    """The scope for answers: all scopes without their audiences and duplicates."""
    return " ".join(dict.fromkeys(word for _, word in map(parted, scope) if word))


def is_open(policy: Policy, client: Client) -> bool:
    """Whether a client may have tokens of this audience for its users."""
    return AUTHORIZATION_CODE in policy.grants and may_ask(policy, client)


def open_to(policies: Policies, client: Client, resources: Iterable[str]) -> dict[str, Policy | None]:
    """The policy of each named resource; None if it is unknown, or the client may not request it."""
    found = {resource: policies.of_resource(resource) for resource in resources}
    return {
        resource: policy if policy is not None and is_open(policy, client) else None
        for resource, policy in found.items()
    }


def pairs_of(policy: Policy, client: Client, wanted: Iterable[str] | None) -> tuple[str, ...]:
    """The pairs of an audience that a client gets for these requested scopes; None: all that it may have."""
    audience, words = policy.audience or "", None if wanted is None else set(wanted)
    of_client = (word for word in policy.scopes if word in client.scope and (words is None or word in words))
    return (pair(audience), *(pair(audience, word) for word in of_client))


def pairs_now(scope: Iterable[str], client: Client, policies: Policies) -> tuple[str, ...]:
    """The pairs that the client may still have, with the current policies and registration."""
    allowed: set[str] = set()
    for audience in audiences_of(scope):
        policy = policies.tables.get(audience)
        if policy is not None and is_open(policy, client):
            allowed |= set(pairs_of(policy, client, None))
    return tuple(entry for entry in scope if entry in allowed)


def agreed_entries(shown: Iterable[str], words: Iterable[str]) -> tuple[str, ...]:
    """The shown entries that a user agreed to, if the app names only scopes.

    An audience stays if one of its scopes stays, or if none of its scopes was shown.
    """
    shown, words = tuple(shown), set(words)
    kept = [entry for entry in shown if parted(entry)[1] in words]
    for entry in shown:
        audience, word = parted(entry)
        if is_pair(entry) and not word and (words_for(kept, audience) or not words_for(shown, audience)):
            kept.append(entry)
    return tuple(entry for entry in shown if entry in kept)


@dataclass(frozen=True, slots=True)
class Api:
    """An audience on a consent page.

    Attributes:
        audience: its name.
        words: the requested scopes, each with its description, if there is one.
        claims: the user's claims in its tokens.
    """

    audience: str
    words: Mapping[str, str | None]
    claims: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """For the app's own consent page."""
        described = {word: text for word, text in self.words.items() if text is not None}
        return {
            "resource": self.audience,
            "scope": " ".join(self.words),
            "descriptions": described,
            "claims": list(self.claims),
        }


def apis_of(scope: Iterable[str], client: Client, policies: Policies) -> tuple[Api, ...]:
    """The audiences of the entries that a client requests, for the consent page, without the issuer."""
    scope = tuple(scope)
    found = ((audience, policies.tables.get(audience)) for audience in audiences_of(scope))
    return tuple(
        Api(
            audience,
            {word: policy.scope_descriptions.get(word) for word in words_for(scope, audience)},
            claims_for(policy, client, plain(scope)),
        )
        for audience, policy in found
        if policy is not None
    )


def required_age_s(policies: Iterable[Policy], asked: int | None) -> int | None:
    """The longest time since the sign-in, in s, that the request and the policies of its resources allow."""
    ages = (asked, *(policy.require.max_session_age_s for policy in policies))
    return min((age for age in ages if age is not None), default=None)


def required_acr(policies: Iterable[Policy], asked: str | None) -> str | None:
    """The `acr_values` for a sign-in page: those that a policy requires, or else those of the request."""
    return " ".join(dict.fromkeys(acr for policy in policies for acr in policy.require.acr)) or asked
