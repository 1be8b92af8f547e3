"""Fixtures of the commands."""

from tests.settings.conftest import run, sessions  # noqa: F401 - fixtures
