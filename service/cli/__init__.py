"""`pylon-oidc`: what an operator asks of the service from a shell.

Exit codes: 0 well, 1 a finding or a failed operation, 2 wrong usage or wrong configuration.
"""

from __future__ import annotations

import click

from service import __version__
from service.cli.check import check
from service.cli.clients import clients
from service.cli.doctor import doctor
from service.cli.keys import keys
from service.cli.migrate import migrate
from service.cli.sessions import sessions
from service.cli.sweep import sweep


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pylon-oidc")
def main() -> None:
    """The OpenID Connect provider beside your app."""


for _command in (check, clients, doctor, keys, migrate, sessions, sweep):
    main.add_command(_command)
