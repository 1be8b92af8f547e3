"""What every grant type is given, and what it is.

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
        client: who asks.
        parameters: of the form.
        issuer: under which issuer.
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
        """A parameter that has to be there.

        Raises:
            OAuthError: `invalid_request` where it is not.
        """
        value = self.parameters.get(name)
        if value is None:
            raise OAuthError("invalid_request", f"The parameter {name} is missing.", cause=f"{name}_missing")
        return value


@dataclass(frozen=True, slots=True)
class GrantType:
    """A way to get tokens.

    Attributes:
        name: as the parameter `grant_type` has it.
        given_by_default: whether a client has it whose metadata names no grant types.
        needs_id_token_key: whether its answer may hold an ID token.
        exchange: turns a request into the members of the answer; raises `OAuthError`.
        is_served: whether there is anything to have by it, as the policies of the audiences say.
    """

    name: str
    given_by_default: bool
    needs_id_token_key: bool
    exchange: Callable[[TokenRequest, Issuing], dict[str, Any]]
    is_served: Callable[[Policies], bool] = lambda _policies: True


INVALID_GRANT: Final = "The code or refresh token is invalid, expired, used, or not for this client."


def invalid_grant(cause: str) -> OAuthError:
    """One answer to everything that is shown and not good: it must not tell what is known from what is not.

    The log says which rule refused.
    """
    return OAuthError("invalid_grant", INVALID_GRANT, cause=cause)


def reused(kind: type[CodeReused | RefreshTokenReused], grant: Grant) -> Reused:
    """The same answer for what was used before; the grant ends, and that is told."""
    event = kind(client_id=grant.client_id, subject=grant.subject, sid=grant.sid)
    return Reused(INVALID_GRANT, grant_id=grant.id, event=event)
