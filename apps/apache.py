"""Apache with mod_auth_openidc, before a page that shows who opened it."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

from apps.application import Application, Person, Running, SignOut, block_of
from apps.browser import Browser
from apps.installing import Missing, run
from apps.stand import EMAIL, Stand
from tests.support.apache import MODULES

_LOADED = (
    "mpm_event", "authn_core", "authz_core", "authz_user", "mime", "filter", "include", "dir", "auth_openidc",
)  # fmt: skip
_OWN = """
{modules}
{user}
ServerRoot "{folder}"
DefaultRuntimeDir "{folder}"
PidFile "{folder}/httpd.pid"
ErrorLog "{folder}/error.log"
ServerName localhost
Listen 127.0.0.1:{port}
ServerLimit 1
StartServers 1
ThreadsPerChild 16
MaxRequestWorkers 16
TypesConfig /etc/mime.types
DocumentRoot "{folder}/pages"
<Directory "{folder}/pages">
    Options +Includes
    AddType text/html .shtml
    AddOutputFilter INCLUDES .shtml
</Directory>
OIDCCryptoPassphrase "a passphrase of this test only"
<Location "/">
    AuthType openid-connect
    Require valid-user
</Location>
<Location "/out.html">
    AuthType none
    Require all granted
</Location>
"""
_WHO = """{
  "name": "<!--#echo var="OIDC_CLAIM_name" -->", "email": "<!--#echo var="OIDC_CLAIM_email" -->",
  "groups": "<!--#echo var="OIDC_CLAIM_groups" -->", "token": "<!--#echo var="OIDC_access_token" -->"
}"""


class _Apache(Running):
    refreshes, signs_out = True, SignOut.EVERYWHERE

    def __init__(self, url: str) -> None:
        self._url = url

    def sign_in(self, browser: Browser) -> Person:
        who = self._who(browser)
        return Person(who["name"], who["email"], sorted(who["groups"].split(",")))

    def _who(self, browser: Browser) -> dict[str, str]:
        page = browser.open(f"{self._url}/who.shtml")
        assert page.url == f"{self._url}/who.shtml", page
        return dict(json.loads(page.text))

    def refresh(self, browser: Browser) -> None:
        first, second = self._who(browser), self._who(browser)
        assert first["token"] != second["token"] and second["email"] == EMAIL

    def sign_out(self, browser: Browser) -> None:
        page = browser.open(f"{self._url}/signed-in?logout={self._url}/out.html")
        assert page.url.partition("?")[0] == f"{self._url}/out.html", page
        assert browser.open(f"{self._url}/who.shtml").url.startswith(browser.issuer)  # asked to sign in


class ModAuthOpenidc(Application):
    """Debian's libapache2-mod-auth-openidc"""

    name = "mod-auth-openidc"
    # The page's OIDCRefreshAccessTokenBeforeExpiry is a minute.
    settings = {"PYLON_OIDC_ACCESS_TOKEN_LIFETIME_SECS": "30"}

    def version(self) -> str:
        if not (MODULES / "mod_auth_openidc.so").exists():
            raise Missing("libapache2-mod-auth-openidc is not installed")
        shown = run("dpkg-query", "--show", "--showformat=${Version}", "libapache2-mod-auth-openidc")
        return shown.partition("-")[0]

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        program = shutil.which("apache2", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            raise Missing("apache2 is not installed")
        stand.folder.chmod(0o755)
        folder = stand.folder / "apache"
        (folder / "pages").mkdir(parents=True)
        (folder / "pages/who.shtml").write_text(_WHO)
        (folder / "pages/out.html").write_text("<!doctype html>Out")
        with stand.port() as port:
            url = f"http://localhost:{port}"
            paste = stand.register(self.name, url, "--post-logout-redirect-uri", f"{url}/out.html")["paste"]
            own = _OWN.format(
                modules="\n".join(f'LoadModule {name}_module "{MODULES}/mod_{name}.so"' for name in _LOADED),
                user=f"User #{pwd.getpwnam('nobody').pw_uid}" if os.geteuid() == 0 else "",
                folder=folder,
                port=port,
            )
            (folder / "httpd.conf").write_text(own + paste + "\n" + block_of(self.name, "apache"))
            command: list[str | Path] = [program, "-f", folder / "httpd.conf", "-D", "FOREGROUND"]
            with stand.process(command, ready=f"{url}/out.html"):
                yield _Apache(url)


APPS: list[Application] = [ModAuthOpenidc()]
