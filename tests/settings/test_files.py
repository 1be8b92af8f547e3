"""docs/settings.md: `NAME_FILE` reads the value from a file, for secrets mounts."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.settings import NAMES
from tests.settings.reading import STRONG, named, read
from tests.support.cases import each_of
from tests.support.gunicorn import rsa_pem


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file for a value."""
    return tmp_path / "value"


@each_of("newline", ["", "\n", "\r\n"])
def test_one_trailing_newline_is_stripped(tmp_path: Path, file: Path, newline: str) -> None:
    """One trailing newline is stripped."""
    file.write_bytes((STRONG + newline).encode())
    reading = read(tmp_path, PYLON_TRUSTED_SECRET_FILE=str(file))
    assert reading.faults == []
    assert reading.settings.trusted_secret is not None
    assert reading.settings.trusted_secret.value == STRONG.encode()


@each_of(
    ("written", "named"),
    [
        ("\n\n", "ends with a newline"), (" \n", "ends with a space"), (" ", "ends with a space"),
        ("\r", "ends with a carriage return"), ("\n ", "ends with a space"), ("\r\n\r\n", "ends with a newline"),
    ],
)  # fmt: skip
def test_nothing_else_is_stripped(tmp_path: Path, file: Path, written: str, named: str) -> None:
    """One newline, and nothing of a secret: other bytes would be another key, so they are a fault."""
    file.write_bytes((STRONG + written).encode())
    (fault,) = read(tmp_path, PYLON_TRUSTED_SECRET_FILE=str(file)).faults
    assert (fault.name, named in fault.text) == ("PYLON_TRUSTED_SECRET_FILE", True)


@each_of("name", NAMES)
def test_every_setting_may_be_a_file(tmp_path: Path, file: Path, name: str) -> None:
    """`NAME_FILE` reads the value from a file: a bad value in it is the setting's own fault."""
    file.write_text("\x01\n")
    (fault,) = read(
        tmp_path,
        **{f"{name}_FILE": str(file), "PYLON_DATA_DIR": "" if name == "PYLON_DATA_DIR" else str(tmp_path)},
    ).faults
    assert fault.name == name


def test_a_key_may_be_a_file(tmp_path: Path, file: Path) -> None:
    """A PEM of many lines."""
    file.write_text(rsa_pem())
    assert read(tmp_path, PYLON_OIDC_PRIVATE_KEY_FILE=str(file)).settings.private_key is not None


@each_of("name", NAMES)
def test_both_forms_at_once_are_a_fault(tmp_path: Path, file: Path, name: str) -> None:
    """Both forms at once are a fault, also when they agree."""
    file.write_text("x")
    environ = {name: "x", f"{name}_FILE": str(file)}
    faults = [fault for fault in read(tmp_path, **environ).faults if fault.name == name]
    assert len(faults) == 1
    assert f"{name}_FILE" in faults[0].text


@each_of("what", ["missing", "a folder", "not UTF-8", "under a file", "NUL"])
def test_a_file_that_cannot_be_read_is_a_fault(tmp_path: Path, file: Path, what: str) -> None:
    """docs/cli.md: what is wrong; what to write instead; the fault names the variable that is set."""
    path = {
        "missing": str(tmp_path / "no"),
        "a folder": str(tmp_path),
        "not UTF-8": str(file),
        "under a file": f"{file}/x",
        "NUL": "a\0b",
    }
    file.write_bytes(b"\xff\xfe" + STRONG.encode())
    reading = read(tmp_path, PYLON_JWT_SECRET_FILE=path[what])
    assert named(reading) == ["PYLON_JWT_SECRET_FILE"]
    assert "; " in reading.faults[0].text
    assert STRONG not in str(reading.faults[0])


def test_an_empty_file_is_unset(tmp_path: Path, file: Path) -> None:
    """docs/cli.md: an empty value counts as unset."""
    for content in ("", "\n"):
        file.write_text(content)
        reading = read(tmp_path, PYLON_JWT_SECRET_FILE=str(file))
        assert (reading.faults, reading.settings.jwt_secret) == ([], None)


def test_an_empty_value_beside_a_file_is_no_second_form(tmp_path: Path, file: Path) -> None:
    """docs/cli.md: an empty value counts as unset, so the file is the only form."""
    file.write_text(STRONG)
    reading = read(tmp_path, PYLON_JWT_SECRET="", PYLON_JWT_SECRET_FILE=str(file))
    assert reading.faults == []
    assert reading.settings.jwt_secret is not None


def test_a_weak_secret_in_a_file_is_told_by_its_name(tmp_path: Path, file: Path) -> None:
    """docs/cli.md: no secret's value, wherever it came from."""
    file.write_text("canary-short")
    reading = read(tmp_path, PYLON_JWT_SECRET_FILE=str(file))
    assert named(reading) == ["PYLON_JWT_SECRET"]
    assert "canary" not in str(reading.faults[0])
