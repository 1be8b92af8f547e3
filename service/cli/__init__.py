"""`pylon-oidc`: what an operator asks of the service from a shell.

Exit codes: 0 well, 1 a finding or a failed operation, 2 wrong usage or wrong configuration.
"""

from __future__ import annotations

import gc
import importlib
from typing import Final

import click

from service import __version__

_COMMANDS: Final = ("check", "clients", "doctor", "keys", "migrate", "sessions", "sweep")


class _Commands(click.Group):
    """Commands that are imported when they are asked for: most of a short command's time is its imports."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        gc.disable()  # imports make many objects and no garbage; looking for it is a sixth of their time
        module = importlib.import_module(f"service.cli.{cmd_name}")
        gc.enable()
        command: click.Command = getattr(module, cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pylon-oidc")
def main() -> None:
    """The OpenID Connect provider beside your app."""
