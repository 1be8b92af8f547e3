"""Apache with mod_auth_openidc, started by tests from a folder of its own.

A page of it under `/protected/` is served to users who signed in through an OpenID provider; it shows who they are.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from tests.support.gunicorn import clean_environment, hold_port
from tests.support.stopping import Stoppable, end_process

MODULES = Path("/usr/lib/apache2/modules")
_START_S = 90.0
_STOP_S = 30.0
_POLL_S = 0.02
_LOADED = (
    "mpm_event",
    "authn_core",
    "authz_core",
    "authz_user",
    "mime",
    "filter",
    "include",
    "dir",
    "auth_openidc",
)

_CONFIGURATION = """
{modules}
{user}
ServerRoot "{folder}"
DefaultRuntimeDir "{folder}"
PidFile "{folder}/httpd.pid"
ErrorLog "{folder}/error.log"
LogLevel warn
ServerName localhost
Listen 127.0.0.1:{port}
StartServers 1
ServerLimit 1
ThreadsPerChild 16
MaxRequestWorkers 16
TypesConfig /etc/mime.types
DocumentRoot "{folder}/pages"
<Directory "{folder}/pages">
    Require all granted
    Options +Includes
    AddType text/html .shtml
    AddOutputFilter INCLUDES .shtml
</Directory>

OIDCProviderMetadataURL {issuer}/.well-known/openid-configuration
OIDCClientID {client_id}
OIDCClientSecret {client_secret}
OIDCRedirectURI http://localhost:{port}/protected/redirect_uri
OIDCCryptoPassphrase {passphrase}
OIDCScope "openid profile email"
OIDCPKCEMethod S256
OIDCRemoteUserClaim sub
OIDCPassClaimsAs environment
OIDCCacheShmMax 50
OIDCSessionInactivityTimeout 172800
OIDCSessionMaxDuration 172800
<Location /protected/>
    AuthType openid-connect
    Require valid-user
</Location>
"""
_PAGE = """<!doctype html>
<pre>
REMOTE_USER=<!--#echo var="REMOTE_USER" -->
NAME=<!--#echo var="OIDC_CLAIM_name" -->
EMAIL=<!--#echo var="OIDC_CLAIM_email" -->
ISSUER=<!--#echo var="OIDC_CLAIM_iss" -->
</pre>
"""


class ApacheDidNotStart(AssertionError):
    """Apache ended, or never listened; the message holds what it said."""


class Apache(Stoppable):
    """One Apache as a client of a provider, from its start to its end.

    Attributes:
        port: Where it listens; known before it starts, since its provider must know its callback.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pylon-a-"))
        self.folder.chmod(0o755)
        self._holder = hold_port()
        self.port: int = self._holder.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def origin(self) -> str:
        """`http://localhost:<port>`."""
        return f"http://localhost:{self.port}"

    @property
    def redirect_uri(self) -> str:
        """Its callback."""
        return f"{self.origin}/protected/redirect_uri"

    def start(self, issuer: str, client_id: str, client_secret: str, **environment: str) -> None:
        """Start it as a client, with more in its environment.

        Raises:
            FileNotFoundError: When Apache or its module is not installed.
            ApacheDidNotStart: When it exits, or does not listen within 20 s.
        """
        program = shutil.which("apache2", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None or not (MODULES / "mod_auth_openidc.so").exists():
            raise FileNotFoundError("no Apache here: install `apache2` and `libapache2-mod-auth-openidc`")
        pages = self.folder / "pages" / "protected"
        pages.mkdir(parents=True)
        (pages / "who.shtml").write_text(_PAGE)
        (self.folder / "pages" / "out.html").write_text("<!doctype html><h1>Out</h1>")
        nobody = pwd.getpwnam("nobody")
        root = os.geteuid() == 0
        modules = "\n".join(f'LoadModule {name}_module "{MODULES}/mod_{name}.so"' for name in _LOADED)
        configuration = self.folder / "httpd.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                modules=modules,
                user=f"User #{nobody.pw_uid}\nGroup #{nobody.pw_gid}" if root else "",
                folder=self.folder,
                port=self.port,
                issuer=issuer,
                client_id=client_id,
                client_secret=client_secret,
                passphrase=secrets.token_hex(32),
            )
        )
        with (self.folder / "output.txt").open("wb") as output:
            self._process = subprocess.Popen(
                [program, "-f", str(configuration), "-D", "FOREGROUND"],
                env=clean_environment(
                    http_proxy=None, https_proxy=None, HTTP_PROXY=None, HTTPS_PROXY=None, **environment
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise ApacheDidNotStart(f"it exited with {self._process.returncode}:\n{self.output()}")
            # The pid file comes after the socket is bound, so this is no other program on our port.
            if (self.folder / "httpd.pid").exists():
                try:
                    socket.create_connection(("127.0.0.1", self.port), 1).close()
                except OSError:
                    pass
                else:
                    return
            time.sleep(_POLL_S)
        raise ApacheDidNotStart(f"it did not listen within {_START_S:.0f} s:\n{self.output()}")

    def output(self) -> str:
        """What it printed and logged."""
        parts = (self.folder / name for name in ("output.txt", "error.log"))
        return "".join(part.read_text(errors="replace") for part in parts if part.exists())

    def stop(self) -> None:
        """End it by its own process id, and remove its folder."""
        process, self._process = self._process, None
        if process is not None:
            end_process(process, _STOP_S)
        self._holder.close()
        shutil.rmtree(self.folder, ignore_errors=True)
