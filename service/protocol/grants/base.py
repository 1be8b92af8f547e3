"""The interface of a grant type, and the request that it gets.

Spec: RFC 6749 §4, §5.2
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from service.events import CodeReused, RefreshTokenReused
from service.policies.values import Policies
from service.protocol.errors import OAuthError, Reused
from service.protocol.grants.issuing import Issuing
from service.records.clients import Client
from service.records.grants import Grant


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request to the token endpoint, its client authenticated.

    Attributes:
        client: the authenticated client.
        parameters: the parameters of the form.
        issuer: the issuer of the request.
        now: Unix s.
        method, headers: of the request, for proofs that are bound to it.
    """

    client: Client
    parameters: Mapping[str, str]
    issuer: str
    now: int
    method: str = "POST"
    headers: Mapping[str, str] = field(default_factory=dict)

    def required(self, name: str) -> str:
        """A required parameter.

        Raises:
            OAuthError: `invalid_request` if it is missing.
        """
        value = self.parameters.get(name)
        if value is None:
            raise OAuthError("invalid_request", f"The parameter {name} is missing.", cause=f"{name}_missing")
        return value


@dataclass(frozen=True, slots=True)
class GrantType:
    """A way to get tokens.

    Attributes:
        name: the value of the parameter `grant_type`.
        given_by_default: whether clients without `grant_types` in their metadata may use it.
        needs_id_token_key: whether its answer may contain an ID token.
        exchange: turns a request into the members of the answer; raises `OAuthError`.
        is_served: whether the policies of the audiences allow it at all.
    """

    name: str
    given_by_default: bool
    needs_id_token_key: bool
    exchange: Callable[[TokenRequest, Issuing], dict[str, Any]]
    is_served: Callable[[Policies], bool] = lambda _policies: True


INVALID_GRANT: Final = "The code or refresh token is invalid, expired, used, or not for this client."


def invalid_grant(cause: str) -> OAuthError:
    """The same answer for every refused code or token, so that it does not reveal which ones exist.

    The log names the rule.
    """
    return OAuthError("invalid_grant", INVALID_GRANT, cause=cause)


def reused(kind: type[CodeReused | RefreshTokenReused], grant: Grant) -> Reused:
    """The same answer for a used code or token. The grant ends, and an event reports it."""
    event = kind(client_id=grant.client_id, subject=grant.subject, sid=grant.sid)
    return Reused(INVALID_GRANT, grant_id=grant.id, event=event)
