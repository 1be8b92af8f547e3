"""What a start loads: memory and time of every installation, so nothing that this one does not use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.gunicorn import ADMIN, PROJECT, SECRET, clean_environment

#: Libraries, and parts of our own, that only some installations, commands or faults need.
FOR_SOME = {
    "alembic", "anyio", "authlib", "click", "difflib", "granian", "h11", "httpcore", "httpx", "jinja2", "mako", "psycopg",
    "service.cli", "service.doctor", "service.policies.reading", "service.storage.upgrading", "sqlalchemy",
}  # fmt: skip
START = "import sys, service.serving.worker, service.wsgi; print(*(sys.modules))"


@pytest.mark.parametrize(
    ("settings", "loads"),
    [
        ({}, set()),
        ({"PYLON_LOGIN_URL": "https://app.example/login"}, {"jinja2"}),
        ({"PYLON_DEV_MODE": "1"}, {"jinja2"}),
    ],
    ids=["no pages", "with sign-ins", "dev mode"],
)
def test_a_start_loads_what_it_needs(settings: dict[str, str], loads: set[str], tmp_path: Path) -> None:
    """Neither a new database nor an existing one needs a migration; pages are loaded before the workers are forked."""
    given = {"PYLON_DATA_DIR": str(tmp_path / "data"), "PYLON_ADMIN_TOKEN": ADMIN, "PYLON_JWT_SECRET": SECRET}
    for _ in ("new database", "existing database")[: 1 if settings else 2]:
        done = subprocess.run(
            [sys.executable, "-c", START],
            cwd=PROJECT, env=clean_environment(**given, **settings), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert FOR_SOME & set(done.stdout.split()) == loads
