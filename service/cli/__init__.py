"""`pylon-oidc`: the operator's command line.

Exit codes: 0 success, 1 a finding or a failed operation, 2 wrong usage or wrong configuration.
"""

from __future__ import annotations

import gc
import importlib
from pathlib import Path
from typing import Final

import click

from service import __version__

#: Each command, and its line in the list. Its module is imported only when it is used.
_COMMANDS: Final = {
    "check": "Check the configuration of this environment; creates no file.",
    "clients": "Register and manage clients.",
    "deliveries": "Logout tokens for clients: list them, try them again, drop them.",
    "doctor": "Test a deployment from outside, and name the line to change.",
    "keys": "Manage the signing keys in the database.",
    "migrate": "Update the database's schema.",
    "policy": "Check, explain and test the policies of audiences.",
    "serve": "Run the service in production.",
    "sessions": "List and revoke the sessions of a user.",
    "store": "Work on the whole database.",
    "sweep": "Remove all expired records.",
}


def _load_env_file(_context: click.Context, _option: click.Parameter, path: Path | None) -> None:
    """Put the settings of a file into the environment, replacing those that are there."""
    if path is None:
        return
    from service.settings import use_env_file
    from service.settings.env_file import MalformedEnvFile

    try:
        use_env_file(path)
    except OSError as error:
        raise click.BadParameter(f"{path} cannot be read ({error.strerror}).") from None
    except MalformedEnvFile as error:
        raise click.BadParameter(f"{path}: {error}.") from None


def _with_env_file(command: click.Command) -> click.Command:
    """Add --env-file to the command and to all its subcommands."""
    option = click.Option(
        ["--env-file"],
        type=click.Path(path_type=Path),
        metavar="FILE",
        callback=_load_env_file,
        is_eager=True,
        expose_value=False,
        help="Read the settings from this file, in the format of systemd's EnvironmentFile.",
    )
    if not any(parameter.name == option.name for parameter in command.params):
        command.params.append(option)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            _with_env_file(below)
    return command


class _Commands(click.Group):
    """Imports a command only when it is used: most of a short command's time is its imports."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list, without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        gc.disable()  # imports create many objects and no garbage, and collecting takes a sixth of their time
        module = importlib.import_module(f"service.cli.{cmd_name}")
        gc.enable()
        command: click.Command = getattr(module, cmd_name)
        return _with_env_file(command)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pylon-oidc")
def main() -> None:
    """The OpenID Connect provider for your app."""


_with_env_file(main)
