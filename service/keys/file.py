"""The file of the signing key: made once, atomically, and readable by nobody else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from joserfc.jwk import RSAKey

from service.keys.material import KeyFault, generate_key, load_private_key


def read_key_file(path: Path) -> RSAKey:
    """Read the signing key from its file.

    Raises:
        KeyFault: when it is readable by others, cannot be read, or is no key that we use.
        FileNotFoundError: when there is none.
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
    """Refuse an open file of a secret that others than its owner may read.

    Args:
        descriptor: of the file.
        otherwise: what works where the mode cannot be changed, as on a mount that belongs to a group.

    Raises:
        KeyFault: when its mode says so; a pipe is nobody else's.
    """
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and (mode := stat.S_IMODE(status.st_mode)) & 0o077:
        raise KeyFault(
            f"the file's mode is {mode:04o}, others may read it; run chmod 600 on it, or where that cannot be done, {otherwise}"
        )


def create_key_file(path: Path) -> RSAKey:
    """Make the signing key's file, or read the one that another process made first.

    RSA 2048, PKCS#8, mode 0600. Atomic: the file appears complete and under its own name only once, however
    many processes try (`link` fails where the name is taken).

    Raises:
        KeyFault: when the folder cannot be written, or another's file is no key that we use.
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
            f"the file cannot be made ({exc.strerror}); give the service's user a folder to write in"
        ) from None
    _sync_folder(path.parent)
    return load_private_key(pem.decode())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
