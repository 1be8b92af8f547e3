"""The service's own report about its clients, from the inside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from service.doctor.catalogue import Finding, counted, shown
from service.doctor.evidence import Evidence
from service.doctor.rules.reading import found

#: This many tries take two and a half minutes.
_MANY_TRIES: Final = 4
#: Why keys could not be fetched -> the case, where there is a line for it, or more to say.
_CASES: Final = {
    "address_not_public": "private",
    "not_https": "private",
    "certificate_refused": "authority",
    "name_unknown": "address",
    "no_connection": "address",
    "timeout": "address",
}


def pkce(e: Evidence) -> Iterator[Finding]:
    """The client's registration requires of its requests: a challenge, a challenge or a nonce, or neither."""
    known = e.reply("client-inside")
    metadata = {} if known is None or known.status != 200 else known.json_object()
    is_public = metadata.get("token_endpoint_auth_method") == "none"
    if not metadata or metadata.get("client_id") != e.options.client_id or is_public:
        return
    if metadata.get("require_pkce") is False:
        yield found(e, "client-without-pkce", "require_pkce is false", variant="neither")
    elif metadata.get("require_pkce") is None:
        yield found(e, "client-without-pkce", "require_pkce is not set")


def deliveries(e: Evidence) -> Iterator[Finding]:
    """Clients get their logout tokens: reports those that have failed for minutes, or were given up."""
    late = [
        each
        for each in _listed(e, "deliveries")
        if each.get("state") == "given_up" or _tries(each) >= _MANY_TRIES
    ]
    if late:
        why = Counter(f"{each.get('client_id')} ({each.get('failure')})" for each in late)
        worst = ", ".join(f"{count} for {what}" for what, count in why.most_common(3))
        yield found(e, "deliveries-pile-up", worst, client=shown(late[0].get("client_id")))


def _tries(delivery: Mapping[str, object]) -> int:
    tries = delivery.get("tries")
    return tries if isinstance(tries, int) else 0


def keys(e: Evidence) -> Iterator[Finding]:
    """The keys of clients that have them at a URL can be fetched: reports the result of the last request."""
    failed = [each for each in _listed(e, "client_keys") if isinstance(each.get("failure"), str)]
    if not failed:
        return
    failed.sort(key=lambda each: each.get("fetched_at") is not None)  # those without any keys first
    worst = failed[0]
    failure, uri = str(worst["failure"]), str(worst.get("jwks_uri"))
    case = "answer" if failure.startswith("the answer ") else _CASES.get(failure, "")
    seen = f"{worst.get('client_id')}: {failure}, at {uri}"
    if len(failed) > 1:
        seen += f"; and {counted(len(failed) - 1, 'more client')}"
    yield found(
        e,
        "client-keys-unreachable",
        seen,
        variant=case,
        client=shown(worst.get("client_id")),
        keys_host=shown(_host(uri)),
    )


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or url
    except ValueError:
        return url


def _listed(e: Evidence, name: str) -> list[Mapping[str, Any]]:
    """The objects of a list of the admin API, whose question and member have this name."""
    reply = e.reply(f"{name.replace('_', '-')}-inside")
    listed = None if reply is None or reply.status != 200 else reply.json_object().get(name)
    return [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
