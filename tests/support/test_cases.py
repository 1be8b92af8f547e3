"""`each_of` runs every case, and one that fails fails its test."""

from __future__ import annotations

import pytest

TESTS = """
import pytest
from tests.support.cases import each_of

SEEN = []

@pytest.fixture
def base():
    return 10

@each_of("number, text", [(1, "a"), pytest.param(2, "b", id="second")], ids=dict(one=1, two=2))
@each_of("more", (5, 6))
def test_all(base, number, more, text):
    SEEN.append((base, number, text, more))
    assert (number, more) != (1, 6)

def test_seen():
    assert SEEN == [(10, 1, "a", 5), (10, 1, "a", 6), (10, 2, "b", 5), (10, 2, "b", 6)]
"""


def test_each_case_runs_and_one_that_fails_fails_the_test(
    tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cases multiply, all of them run, and the one that fails is named."""
    (tmp_path / "test_given.py").write_text(TESTS)
    code = pytest.main(
        ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(tmp_path), str(tmp_path)]
    )
    out = capsys.readouterr().out
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "1 passed" in out and "[6]" in out, out
