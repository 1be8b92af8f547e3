"""The file of the signing key: created once, atomically, and readable only by its owner."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from joserfc.jwk import RSAKey

from service.keys.material import KeyFault, generate_key, load_private_key


def read_key_file(path: Path) -> RSAKey:
    """Read the signing key from its file.

    Raises:
        KeyFault: if others can read it, it cannot be read, or it is not a usable key.
        FileNotFoundError: if it does not exist.
    """
    try:
        with path.open("rb") as file:
            check_mode(file.fileno(), "give the path of a mounted secret to PYLON_OIDC_PRIVATE_KEY_FILE")
            data = file.read(1 << 20)
    except FileNotFoundError:
        raise
    except OSError as exc:
        raise KeyFault(
            f"the file cannot be read ({exc.strerror}); give the service's user the right to read it"
        ) from None
    return load_private_key(data.decode("utf-8", "replace"))


def check_mode(descriptor: int, otherwise: str) -> None:
    """Refuse a file with a secret that users other than its owner may read.

    Args:
        descriptor: the open file.
        otherwise: what to do if the mode cannot be changed, for example on a mount that belongs to a group.

    Raises:
        KeyFault: if its mode allows that. A pipe is always accepted.
    """
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and (mode := stat.S_IMODE(status.st_mode)) & 0o077:
        raise KeyFault(
            f"the file's mode is {mode:04o}, so others may read it; run chmod 600 on it, or if that is not possible, {otherwise}"
        )


def create_key_file(path: Path) -> RSAKey:
    """Create the signing key's file, or read the one that another process created first.

    RSA 2048, PKCS#8, mode 0600. This is atomic: the file appears complete and only once, however many processes try
    (`link` fails if the name is taken).

    Raises:
        KeyFault: if the folder cannot be written, or the other process's file is not a usable key.
    """
    pem = generate_key("RS256").as_pem(private=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)
        except FileExistsError:
            return read_key_file(path)
        finally:
            temporary.unlink()
    except OSError as exc:
        raise KeyFault(
            f"the file cannot be created ({exc.strerror}); write a path in a folder that the service's user may write to"
        ) from None
    _sync_folder(path.parent)
    return load_private_key(pem.decode())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
