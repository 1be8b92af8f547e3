"""docs/endpoints.md: the standard claims of OpenID Connect Core §5.1, type by type."""

from __future__ import annotations

from typing import Any

import pytest

from service.records.claims import STANDARD_CLAIMS, InvalidClaim, check_claims
from tests.protocol.forge import OWN_CLAIMS
from tests.support.cases import each_of

STRINGS = [
    "name",
    "given_name",
    "family_name",
    "middle_name",
    "nickname",
    "preferred_username",
    "profile",
    "picture",
    "website",
    "email",
    "gender",
    "birthdate",
    "zoneinfo",
    "locale",
    "phone_number",
]
BOOLEANS = ["email_verified", "phone_number_verified"]
ADDRESS = ["formatted", "street_address", "locality", "region", "postal_code", "country"]
SAMPLES: dict[str, Any] = {
    "string": "x",
    "empty string": "",
    "true": True,
    "false": False,
    "zero": 0,
    "one": 1,
    "fraction": 1.5,
    "whole float": 1.0,
    "null": None,
    "list": ["x"],
    "object": {"country": "x"},
    "empty object": {},
}
RIGHT = {
    **{claim: {"string", "empty string"} for claim in STRINGS},
    **{claim: {"true", "false"} for claim in BOOLEANS},
    "updated_at": {"zero", "one"},
    "address": {"object", "empty object"},
}
CASES = [(claim, sample, sample in right) for claim, right in RIGHT.items() for sample in SAMPLES]


def test_the_standard_claims_are_these() -> None:
    """OpenID Connect Core §5.1: the table of standard claims; `sub` is the user id and nothing else."""
    assert set(STANDARD_CLAIMS) == set(RIGHT)


@each_of(("claim", "sample", "right"), CASES)
def test_a_claim_has_its_json_type(claim: str, sample: str, right: bool) -> None:
    """OpenID Connect Core §5.1: a string is not accepted as a boolean, nor `true` as a number of seconds."""
    if right:
        check_claims({claim: SAMPLES[sample]})
    else:
        with pytest.raises(InvalidClaim) as caught:
            check_claims({"locale": "en", claim: SAMPLES[sample]})
        assert caught.value.path == claim


@each_of("member", ADDRESS)
@each_of("sample", SAMPLES)
def test_an_address_has_members_of_text(member: str, sample: str) -> None:
    """OpenID Connect Core §5.1.1: the members of `address` are strings."""
    if isinstance(SAMPLES[sample], str):
        check_claims({"address": {member: SAMPLES[sample]}})
    else:
        with pytest.raises(InvalidClaim) as caught:
            check_claims({"address": {member: SAMPLES[sample]}})
        assert caught.value.path == f"address.{member}"


@each_of("member", ["", "street", "zip", "Country", "name"])
def test_an_address_has_no_other_member(member: str) -> None:
    """OpenID Connect Core §5.1.1: six members."""
    with pytest.raises(InvalidClaim) as caught:
        check_claims({"address": {member: "x"}})
    assert caught.value.path == f"address.{member}"


@each_of(
    "claim",
    [
        *OWN_CLAIMS,
        "roles",
        "tenant_id",
        "Name",
        "custom",
        "",
        "https://example.com/claim",
        "name#ja-Kana-JP",
    ],
)
def test_no_other_claim_is_taken(claim: str) -> None:
    """A member of `claims` outside OpenID Connect Core §5.1 is refused; none of the protocol's
    own.
    """
    for value in SAMPLES.values():
        with pytest.raises(InvalidClaim) as caught:
            check_claims({claim: value})
        assert caught.value.path == claim


def test_no_claims_are_fine() -> None:
    """`claims` is optional."""
    check_claims({})
