"""What the deployments share: a disk, and gunicorns."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.doctor.running import Apps, Disk


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Disk:
    """Certificates, secrets and the like, written once."""
    return Disk.write(tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="session")
def apps(disk: Disk) -> Iterator[Apps]:
    """Gunicorns by their settings."""
    with Apps(disk) as running:
        yield running
