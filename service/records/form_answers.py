"""Stores the answer to one of our forms for a minute, so that the same form gets the same answer again.

It is encrypted with the form's one-time token, of which only a hash is stored.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from service import handles
from service.handles import hash_handle
from service.records.grants import Grants
from service.records.sealing import Unreadable, seal, unseal
from service.storage.interface import Kind, Record, Store

#: How long the same form gets the same answer, in s: people double-click.
ANSWERED_S: Final = 60
_ANSWER: Final = "form answer"


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to one of our forms.

    Attributes:
        interaction_id: the interaction that it ended.
        issuer: the issuer of the interaction.
        form_token: the form's token, which finds and decrypts the answer.
        browser_hash: hash of the cookie of the browser that started the interaction.
        client_id: the client of the request.
        redirect_uri, response_mode: where the answer was sent, and how.
        parameters: the answer; empty if it must not be sent again.
    """

    interaction_id: str
    issuer: str
    form_token: str
    browser_hash: str
    client_id: str
    redirect_uri: str
    response_mode: str
    parameters: Mapping[str, str]

    def is_browser(self, unverified_cookie: str) -> bool:
        """Whether the cookie belongs to the browser that started the interaction."""
        return hmac.compare_digest(hash_handle(unverified_cookie), self.browser_hash)

    def to_record(self, address: str, *, now: int) -> Record:
        """Its row, which counts towards the limit of this address."""
        kept = {
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "response_mode": self.response_mode,
            "parameters": dict(self.parameters),
        }
        body = {
            "issuer": self.issuer,
            "browser_hash": self.browser_hash,
            "answer": seal(kept, self.form_token, purpose=_ANSWER),
        }
        id_hash = _id_hash(self.interaction_id, self.form_token)
        return Record(Kind.INTERACTION, id_hash, now + ANSWERED_S, address, body=body)


def find_answer(
    store: Store, interaction_id: str, unverified_token: str, *, issuer: str, now: int
) -> Answered | None:
    """The answer to this form, within a minute. A code that has been used in the meantime is left out."""
    record = store.get(Kind.INTERACTION, _id_hash(interaction_id, unverified_token), now=now)
    if record is None or record.body["issuer"] != issuer:
        return None
    try:
        kept = unseal(record.body["answer"], unverified_token, purpose=_ANSWER)
    except Unreadable:
        return None
    answered = Answered(interaction_id, issuer, unverified_token, record.body["browser_hash"], **kept)
    if "code" not in answered.parameters:
        return answered
    shown = handles.read("code", answered.parameters["code"])
    grant = None if shown is None else Grants(store).find(shown.grant_id, now=now)
    is_unused = grant is not None and grant.code.spent_at is None
    return answered if is_unused else replace(answered, parameters={})


def _id_hash(interaction_id: str, unverified_token: str) -> str:
    return hash_handle(f"answer\n{interaction_id}\n{unverified_token}")
