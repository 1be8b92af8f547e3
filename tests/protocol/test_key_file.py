"""docs/settings.md: `PYLON_OIDC_KEY_PATH`: made once, atomically, readable by nobody else."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from service.keys.file import create_key_file, read_key_file
from service.keys.material import KeyFault, public_numbers
from tests.support.cases import each_of
from tests.support.gunicorn import rsa_pem


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where no key is yet."""
    return tmp_path / "keys" / "signing.pem"


def test_a_made_key_is_rsa_2048_pkcs8_of_mode_0600(path: Path) -> None:
    """Made (RSA 2048, PKCS#8, mode 0600)."""
    made = create_key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("-----BEGIN PRIVATE KEY-----\n")
    key = load_pem_private_key(path.read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    assert (key.key_size, key.public_key().public_numbers().e) == (2048, 65537)
    assert public_numbers(made) == key.public_key().public_numbers() == public_numbers(read_key_file(path))


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_mode_is_0600_under_any_umask(path: Path, umask: int) -> None:
    """Mode 0600; its folder is nobody else's either."""
    before = os.umask(umask)
    try:
        create_key_file(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_nothing_is_left_beside_the_key(path: Path) -> None:
    """Atomically: no temporary file stays, whether made or found."""
    create_key_file(path)
    create_key_file(path)
    assert list(path.parent.iterdir()) == [path]


def test_a_key_that_is_there_is_kept(path: Path) -> None:
    """Made when the file is missing, and only then."""
    first = create_key_file(path)
    data = path.read_bytes()
    second = create_key_file(path)
    assert public_numbers(first) == public_numbers(second)
    assert path.read_bytes() == data


def test_of_many_at_once_one_makes_it(path: Path) -> None:
    """Once even when several workers start together."""
    together = Barrier(6)

    def make(_: int) -> int:
        together.wait()
        return public_numbers(create_key_file(path)).n

    with ThreadPoolExecutor(6) as pool:
        moduli = set(pool.map(make, range(6)))
    assert moduli == {public_numbers(read_key_file(path)).n}
    assert list(path.parent.iterdir()) == [path]


@each_of("mode", [0o640, 0o604, 0o660, 0o644, 0o602, 0o610, 0o777])
def test_a_file_that_others_may_use_is_refused(path: Path, mode: int) -> None:
    """A group- or world-readable file is a start-up fault, which names the mode and the remedy."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(rsa_pem())
    path.chmod(mode)
    with pytest.raises(KeyFault, match=f"{mode:04o}.*chmod 600.*PYLON_OIDC_PRIVATE_KEY_FILE"):
        read_key_file(path)


@each_of("mode", [0o400, 0o600])
def test_a_file_of_ones_own_is_read(path: Path, mode: int) -> None:
    """PEM in a file."""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(rsa_pem())
    path.chmod(mode)
    assert read_key_file(path).is_private


def test_a_missing_file_is_told_apart(path: Path) -> None:
    """Made when the file is missing."""
    with pytest.raises(FileNotFoundError):
        read_key_file(path)


@each_of("content", [b"", b"garbage", b"\xff\xfe", rsa_pem(1024).encode()])
def test_another_file_is_no_key_and_stays_as_it_is(path: Path, content: bytes) -> None:
    """docs/cli.md: a wrong configuration never starts; nothing that was there is overwritten."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o600)
    for use in (read_key_file, create_key_file):
        with pytest.raises(KeyFault):
            use(path)
    assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_is_no_key_file(tmp_path: Path) -> None:
    """docs/cli.md: what is wrong; what to write instead."""
    with pytest.raises(KeyFault, match="; "):
        read_key_file(tmp_path)


def test_where_nothing_can_be_made_is_a_fault(tmp_path: Path) -> None:
    """docs/cli.md: what is wrong; what to write instead, never a traceback."""
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with pytest.raises(KeyFault, match="; "):
        create_key_file(in_the_way / "signing.pem")
