"""What a file, a shell or an editor added to a value is a fault of its setting that names the character."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from service.settings import NAMES
from service.settings.carried import carried
from tests.settings.conftest import Run
from tests.settings.reading import STRONG, modulus, named, read
from tests.support.cases import each_of
from tests.support.gunicorn import rsa_pem

#: How a value may come, and how its fault calls what was added.
ADDED: Final = {
    "{}\n": "ends with a newline",
    "\n{}": "begins with a newline",
    "{}\r": "ends with a carriage return",
    "{}\r\n": "ends with a newline",
    "{} ": "ends with a space",
    " {}": "begins with a space",
    "{}\t": "ends with a tab",
    "\ufeff{}": "begins with a byte order mark (U+FEFF)",
    "{}\u00a0": "ends with an invisible character (U+00A0)",
    "\u200b{}": "begins with an invisible character (U+200B)",
    "{}\\n": "two characters",
    '"{}"': 'double quotes (")',
    "'{}'": "single quotes (')",
    "“{}”": "typographic quotes",
    " {}\n": "begins with a space and ends with a newline",
}
#: One good value of each kind; every other setting gets a word: an added kind is noticed before its value is read.
GOOD: Final = {
    "PYLON_JWT_SECRET": STRONG, "PYLON_ADMIN_TOKEN": STRONG, "DATABASE_URL": "postgresql://u:p@db/pylon", "PORT": "4321",
    "WEB_CONCURRENCY": "2", "PYLON_DEV_MODE": "1", "PYLON_OIDC_ISSUER": "https://id.example.com",
    "PYLON_OIDC_CLIENTS": "[]", "PYLON_DATA_DIR": "/data", "PYLON_JWT_LIFETIME_SECS": "60",
}  # fmt: skip


@each_of("name", [*NAMES, "PORT", "WEB_CONCURRENCY"])
def test_what_was_added_is_a_fault_of_every_setting(tmp_path: Path, name: str) -> None:
    """One fault, with the character and what to write, and nothing of the value; in a file too, after its one newline."""
    good = rsa_pem().strip() if name == "PYLON_OIDC_PRIVATE_KEY" else GOOD.get(name, "k7Jq2mZx9L")
    file = tmp_path / "value"
    for form, words in ADDED.items():
        value = form.format(good)
        if name == "PYLON_OIDC_PRIVATE_KEY" and form in {"{}\n", "{}\r", "{}\r\n", "{}\\n", " {}\n"}:
            continue  # lines of a PEM end
        found = {name: value}
        if name not in {"PORT", "WEB_CONCURRENCY"}:
            file.write_bytes(value.encode() if form == "{}\r" else f"{value}\n".encode())  # CRLF is a newline
            found = {name: value, f"{name}_FILE": str(file)}
        for each, text in found.items():
            faults = read(tmp_path, **{"PYLON_DATA_DIR": ""} | {each: text}).faults
            assert [fault.name for fault in faults] == [each], (form, faults)
            assert words in faults[0].text and "; write only the value" in faults[0].text
            assert good not in faults[0].text or name in {"PORT", "WEB_CONCURRENCY", "PYLON_DEV_MODE"}


def test_a_pem_may_end_as_its_lines_do(tmp_path: Path) -> None:
    """RFC 7468 §3: newlines after the last line are the PEM's; quotes, blanks and a byte order mark are not."""
    pem = rsa_pem().strip()
    for ending in ("", "\n", "\r\n", "\n\n"):
        assert read(tmp_path, PYLON_OIDC_PRIVATE_KEY=pem + ending).faults == []
    for wrong in (f'"{pem}"', f"'{pem}'\n", f"\ufeff{pem}\n", f" {pem}\n"):
        assert named(read(tmp_path, PYLON_OIDC_PRIVATE_KEY=wrong)) == ["PYLON_OIDC_PRIVATE_KEY"]


def test_the_path_of_a_file_is_a_value_too(tmp_path: Path) -> None:
    """`NAME_FILE` in quotes names no file."""
    file = tmp_path / "secret"
    file.write_text(STRONG)
    (fault,) = read(tmp_path, PYLON_JWT_SECRET_FILE=f'"{file}"').faults
    assert fault.name == "PYLON_JWT_SECRET_FILE"
    assert 'double quotes (")' in fault.text


def test_no_folder_of_a_quoted_name_is_made(tmp_path: Path, run: Run) -> None:
    """A command refuses it too, and makes nothing."""
    result = run("migrate", PYLON_DATA_DIR=f'"{tmp_path}/new"')
    assert (result.exit_code, result.stderr.partition(":")[0]) == (2, "PYLON_DATA_DIR")
    assert list(tmp_path.iterdir()) == []


def test_inside_a_value_nothing_is_minded(tmp_path: Path) -> None:
    """Blanks and quotes that belong to a value stay."""
    for environ in (
        {"PYLON_TRUSTED_ORIGINS": "https://a.example, https://b.example"},
        {"PYLON_JWT_ISSUER": 'my "own" issuer'},
        {"PYLON_JWT_AUDIENCE": '"'},
        {"PYLON_OIDC_JWKS_RSA_N": modulus()},
    ):
        assert read(tmp_path, **environ).faults == []


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_a_value_is_bare_or_says_what_is_around_it(value: str) -> None:
    """Whatever is refused has something at an end of it, and without that it is taken."""
    told = carried(value)
    inner = value
    while (shorter := _peeled(inner)) != inner:
        inner = shorter
    assert (told is None) == (inner == value)
    if inner and "\\" not in inner:
        assert carried(inner) is None


def _peeled(value: str) -> str:
    """One layer less."""
    for unseen in "\ufeff\u200b\u200c\u200d\u2060\0":
        value = value.strip(unseen)
    value = value.strip().removesuffix("\\n")
    pairs = ('""', "''", "``", "“”", "‘’")
    return value[1:-1] if len(value) > 1 and value[0] + value[-1] in pairs else value
