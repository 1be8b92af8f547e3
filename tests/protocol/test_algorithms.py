"""One more algorithm is one row of the table (docs/architecture.md, How to add an algorithm)."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.docs.markdown import PROJECT

#: As it would be written; no deployment needs it.
ES384 = 'Algorithm("ES384", "EC", "P-384", hashlib.sha384, _make_on(ec.SECP384R1), _is_on(ec.SECP384R1)),'


def _asked(*row: str) -> dict[str, Any]:
    run = subprocess.run(
        [sys.executable, "-m", "tests.protocol.adding_an_algorithm", *row],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    told: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return told


def test_one_more_algorithm_is_one_row() -> None:
    """With the row it is a setting, its keys are made, sealed, published and named, and tokens are signed by it."""
    before, after = _asked(), _asked(ES384)
    assert before["named"] == ["RS256", "PS256", "ES256", "Ed25519"]
    assert after["named"] == [*before["named"], "ES384"]
    key = {"kty": "EC", "crv": "P-384", "alg": "ES384"}
    assert after["published"] == [*before["published"], key, key]  # that of now and the next
    assert before["private"] == after["private"] == []
    assert before["verifies"] and after["verifies"]
    assert (before["at_hash"], after["at_hash"]) == (43, 32)  # the left halves of SHA-512 and SHA-384
    assert (before["imported"], after["imported"]) == ("Ed25519", "ES384")
