"""The service as tests load it into gunicorn where keys rotate: its margins are seconds, on the real clock."""

from __future__ import annotations

from typing import Any

from service.keys.ring import Margins

#: JWKS may be kept for 1 s, by nginx and by the verifier behind it; tokens live 3 s; a worker learns within 1 s.
#: Times are whole seconds, and machines that run tests are busy, so the lead has some more.
MARGINS = Margins(
    max_age_s=1,
    lead_s=6,
    linger_s=2,
    learn_s=1,
    slack_s=5,
    ahead_s=5,
    rotation_s=86_400,
    longest_token_s=3,
)


def make() -> Any:
    """The application."""
    from service.app import get_app  # the test process only takes the margins

    return get_app(margins=MARGINS)
