"""What the deployments share: a disk, and gunicorns."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doctor.running import Apps, Disk


@pytest.fixture(scope="session")
def disk() -> Iterator[Disk]:
    """Certificates, secrets and the like, written once, where also a proxy that is nobody reads them."""
    folder = Path(tempfile.mkdtemp(prefix="pylon-d-"))
    try:
        yield Disk.write(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def apps(disk: Disk) -> Iterator[Apps]:
    """Gunicorns by their settings."""
    with Apps(disk) as running:
        yield running
