"""pylon-oidc."""

__version__ = "0.1.0"
