"""RFC 8725 §3: tokens that must be refused, one loop over a file of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jwt as pyjwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.keys.material import load_private_key
from service.keys.signing import InvalidToken, Keyring, build_keyring
from tests.protocol.forge import CLAIMS, forge, ring
from tests.support.cases import each_of
from tests.support.gunicorn import SECRET, rsa_pem

FILE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors/tokens.json").read_text())
BOTH = each_of("alg", ["HS256", "RS256"])


@each_of("vector", FILE["vectors"], ids=lambda vector: vector["name"])
def test_a_forged_token_is_refused(vector: dict[str, Any]) -> None:
    """RFC 8725 §3.1, RFC 7515 §4.1.11, RFC 8725 §3.11: each vector names its specification; all are `InvalidToken`, whatever is wrong."""
    with pytest.raises(InvalidToken):
        ring().verify(forge(vector), alg=vector["alg"])


@BOTH
def test_the_forge_makes_good_tokens_too(alg: str) -> None:
    """The vectors are refused for what was changed: with nothing changed the token is good."""
    token = forge({"alg": alg, "sign": "own"})
    assert ring().verify(token, alg=alg) == CLAIMS


@BOTH
@each_of("text", FILE["malformed"])
def test_what_is_no_token_is_refused(alg: str, text: str) -> None:
    """RFC 7515 §5.2: a compact JWS has three base64url parts."""
    with pytest.raises(InvalidToken):
        ring().verify(text, alg=alg)


@given(st.text(), st.sampled_from(["HS256", "RS256"]))
def test_verifying_raises_nothing_but_invalid_token(text: str, alg: str) -> None:
    """docs/errors.md: no session token or JWT makes a 500."""
    with pytest.raises(InvalidToken):
        ring().verify(text, alg=alg)


@given(st.data(), st.sampled_from(["HS256", "RS256"]))
def test_no_changed_character_passes(data: st.DataObject, alg: str) -> None:
    """RFC 7515 §5.2: a token with any of its characters changed is refused (except unused bits of
    base64url).
    """
    token = ring().sign(CLAIMS, alg=alg)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("ABCabc012-_.= "))
    changed = token[:place] + other + token[place + 1 :]
    last_of_a_segment = changed[place + 1 : place + 2] in {"", "."}
    if changed == token or last_of_a_segment:
        return
    with pytest.raises(InvalidToken):
        ring().verify(changed, alg=alg)


@BOTH
def test_one_kind_of_token_is_not_taken_for_another(alg: str) -> None:
    """RFC 8725 §3.11: distinct `typ` for each kind; no kind is accepted where another is due."""
    kinds = ["JWT", "at+jwt", "logout+jwt"]
    for made in kinds:
        token = ring().sign(CLAIMS, alg=alg, typ=made)
        for due in kinds:
            if due == made:
                assert ring().verify(token, alg=alg, typ=due) == CLAIMS
            else:
                with pytest.raises(InvalidToken):
                    ring().verify(token, alg=alg, typ=due)


@each_of("alg", ["HS256", "RS256", "none", "", "HS512"])
def test_without_a_key_nothing_is_verified(alg: str) -> None:
    """RFC 8725 §3.10: a key of None raises: a missing key is never any key."""
    empty = Keyring("HS256")
    for token in (forge({"alg": "HS256", "sign": "own"}), "eyJhbGciOiJub25lIn0.e30."):
        with pytest.raises(LookupError):
            empty.verify(token, alg=alg)
    with pytest.raises(LookupError):
        empty.sign(CLAIMS, alg=alg)


def test_the_algorithm_list_is_per_key() -> None:
    """RFC 8725 §3.1: the algorithm list is per key: with only an RSA key nothing is checked by HMAC."""
    rsa_only = build_keyring(mint_alg="RS256", private_key=load_private_key(rsa_pem()))
    with pytest.raises(LookupError):
        rsa_only.verify(forge({"alg": "HS256", "sign": "own"}), alg="HS256")
    with pytest.raises(InvalidToken):
        rsa_only.verify(forge({"alg": "HS256", "sign": "own"}), alg="RS256")


@BOTH
def test_pyjwt_reads_what_we_sign(alg: str) -> None:
    """docs/endpoints.md: a downstream service verifies the token with a stock library, here PyJWT, which shares no code
    with us.
    """
    token = ring().sign(CLAIMS, alg=alg)
    key: Any = SECRET if alg == "HS256" else pyjwt.PyJWK(dict(ring().jwks()["keys"][0])).key
    assert pyjwt.decode(token, key, algorithms=[alg]) == CLAIMS
    header = pyjwt.get_unverified_header(token)
    kid = {} if alg == "HS256" else {"kid": ring().published[0].kid}
    assert header == {"alg": alg, "typ": "JWT", **kid}


@BOTH
def test_we_read_what_pyjwt_signs(alg: str) -> None:
    """RFC 7515: the other way round."""
    key: Any = SECRET if alg == "HS256" else rsa_pem()
    assert ring().verify(pyjwt.encode(CLAIMS, key, algorithm=alg), alg=alg) == CLAIMS
