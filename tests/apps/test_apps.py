"""Other people's applications sign in with their defaults and what their page says: those that are quick to install."""

from __future__ import annotations

import pytest

from apps.__main__ import applications

LIGHT = [name for name, application in applications().items() if application.light]


@pytest.mark.parametrize("name", LIGHT)
def test_an_application_signs_in(name: str) -> None:
    """docs/apps: registered by its preset and set up with what that prints; again after a rotation of the key."""
    assert applications()[name].see().rotation
