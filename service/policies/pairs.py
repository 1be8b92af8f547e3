"""What a grant holds of APIs: pairs of an audience and one of its words, each as one text, beside the words without one.

A URI holds no space and a word neither, so that `audience word` is one pair and nothing else. The audience without a word
stands for itself: a user may let a client act at an API that has no scopes.

Spec: RFC 8707 §2, §2.1
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from service.policies.deciding import may_ask
from service.policies.values import AUTHORIZATION_CODE, Policies, Policy
from service.records.clients import Client


def pair(audience: str, word: str = "") -> str:
    """A word of an audience; without one the audience itself."""
    return f"{audience} {word}"


def is_pair(entry: str) -> bool:
    """Whether an entry of a scope is one of an API."""
    return " " in entry


def parted(entry: str) -> tuple[str, str]:
    """The audience and the word of a pair; for a word that is none, no audience."""
    audience, _, word = entry.rpartition(" ")
    return audience, word


def plain(scope: Iterable[str]) -> tuple[str, ...]:
    """The words of a scope that are of no API."""
    return tuple(entry for entry in scope if not is_pair(entry))


def audiences_of(scope: Iterable[str]) -> tuple[str, ...]:
    """The audiences of a scope, each once."""
    return tuple(dict.fromkeys(parted(entry)[0] for entry in scope if is_pair(entry)))


def words_for(scope: Iterable[str], audience: str) -> tuple[str, ...]:
    """The words of one audience in a scope."""
    parts = map(parted, filter(is_pair, scope))
    return tuple(word for known, word in parts if known == audience and word)


def told(scope: Iterable[str]) -> str:
    """A scope as it is told to others: its words, each once, whatever they are of."""
    return " ".join(dict.fromkeys(word for _, word in map(parted, scope) if word))


def is_open(policy: Policy, client: Client) -> bool:
    """Whether a client may have tokens of this audience for its users."""
    return AUTHORIZATION_CODE in policy.grants and may_ask(policy, client)


def open_to(policies: Policies, client: Client, resources: Iterable[str]) -> dict[str, Policy | None]:
    """The policy of each resource that is named; None for one that the client may not ask for, or that is none."""
    found = {resource: policies.of_resource(resource) for resource in resources}
    return {
        resource: policy if policy is not None and is_open(policy, client) else None
        for resource, policy in found.items()
    }


def pairs_of(policy: Policy, client: Client, wanted: Iterable[str] | None) -> tuple[str, ...]:
    """The pairs of an audience that a client gets where it asks for these words; None: for all that it may have."""
    audience, words = policy.audience or "", None if wanted is None else set(wanted)
    of_client = (word for word in policy.scopes if word in client.scope and (words is None or word in words))
    return (pair(audience), *(pair(audience, word) for word in of_client))


def pairs_now(scope: Iterable[str], client: Client, policies: Policies) -> tuple[str, ...]:
    """The pairs of a scope that the client may still have: as policies and client are now."""
    allowed: set[str] = set()
    for audience in audiences_of(scope):
        policy = policies.tables.get(audience)
        if policy is not None and is_open(policy, client):
            allowed |= set(pairs_of(policy, client, None))
    return tuple(entry for entry in scope if entry in allowed)


def agreed_entries(shown: Iterable[str], words: Iterable[str]) -> tuple[str, ...]:
    """What a user agreed to of what was shown, where the app names the words alone.

    An audience stays with one of its words, and where none of them was shown.
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
    """An audience of a scope, as people are told of it.

    Attributes:
        audience: its name.
        words: which of its scopes, each with what is said of it, where something is.
        claims: which claims of the user its tokens hold.
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


def apis_of(scope: Iterable[str], policies: Policies) -> tuple[Api, ...]:
    """The audiences of a scope, for people; the issuer is none."""
    scope = tuple(scope)
    found = ((audience, policies.tables.get(audience)) for audience in audiences_of(scope))
    return tuple(
        Api(
            audience,
            {word: policy.scope_descriptions.get(word) for word in words_for(scope, audience)},
            policy.claims,
        )
        for audience, policy in found
        if policy is not None
    )


def required_age_s(policies: Iterable[Policy], asked: int | None) -> int | None:
    """How long ago a user may have signed in at most, in s, as a request and the policies of its resources say."""
    ages = (asked, *(policy.require.max_session_age_s for policy in policies))
    return min((age for age in ages if age is not None), default=None)


def required_acr(policies: Iterable[Policy], asked: str | None) -> str | None:
    """The `acr_values` for a sign-in page: those that a policy requires, else those of the request."""
    return " ".join(dict.fromkeys(acr for policy in policies for acr in policy.require.acr)) or asked
