"""pgAdmin 4 in server mode."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from apps.application import Application, Person, Running, SignOut, block_of
from apps.browser import Browser
from apps.installing import python, python_version, run
from apps.stand import GROUPS, Stand, answers


class _PgAdmin(Running):
    signs_out = SignOut.EVERYWHERE

    def __init__(self, url: str) -> None:
        self._url = url

    def sign_in(self, browser: Browser) -> Person:
        page = browser.open(f"{self._url}/login")
        token = re.search(r'"?csrfToken"?: "([^"]+)"', page.text)
        assert token, page.text[:3000]
        # Its page is drawn by a script, so the button is pressed as the form says.
        form = {"csrf_token": token[1], "oauth2_button": "pylon"}
        browser.open(f"{self._url}/authenticate/login", form)
        who = browser.open(f"{self._url}/user_management/current_user.js").text
        email = re.search(r"'email': '([^']*)'", who)
        assert email, who[:3000]
        return Person(
            email=email[1], groups=GROUPS
        )  # or the provider's OAUTH2_ADDITIONAL_CLAIMS would refuse

    def sign_out(self, browser: Browser) -> None:
        page = browser.open(f"{self._url}/oauth2/logout")
        assert page.url.startswith(f"{self._url}/"), page.url
        assert browser.open(f"{self._url}/user_management/current_user.js").url.startswith(
            f"{self._url}/login"
        )


class PgAdmin(Application):
    """https://pypi.org/project/pgadmin4"""

    name = "pgadmin"

    def version(self) -> str:
        return python_version(self.name, "pgadmin4")

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        interpreter = python(self.name)
        code = "import importlib.util as u; print(u.find_spec('pgadmin4').submodule_search_locations[0])"
        home = run(interpreter, "-c", code).strip()
        with stand.port() as port:
            url = f"http://localhost:{port}"
            paste = stand.register(self.name, url)["paste"]
            members = block_of(self.name, "python").replace('"admin"', f'"{GROUPS[0]}"')
            paste = paste.replace(
                '        "OAUTH2_LOGOUT_URL"', f'        {members}        "OAUTH2_LOGOUT_URL"'
            )
            (stand.folder / "config_local.py").write_text(
                f'SERVER_MODE = True\nDATA_DIR = "{stand.folder}/pgadmin"\nLOG_FILE = DATA_DIR + "/log"\n'
                'SQLITE_PATH = DATA_DIR + "/pgadmin4.db"\nSESSION_DB_PATH = DATA_DIR + "/sessions"\n'
                'STORAGE_DIR = DATA_DIR + "/storage"\nAZURE_CREDENTIAL_CACHE_DIR = DATA_DIR + "/azure"\n'
                'KERBEROS_CCACHE_DIR = DATA_DIR + "/kerberos"\nDEFAULT_SERVER = "127.0.0.1"\n'
                f"DEFAULT_SERVER_PORT = {port}\nUPGRADE_CHECK_ENABLED = False\n{paste}\n"
            )
            environ = {
                "PYTHONPATH": str(stand.folder),
                "PGADMIN_SETUP_EMAIL": "operator@example.com",
                "PGADMIN_SETUP_PASSWORD": "a password of this test only",
            }
            serve: list[str | Path] = [interpreter, f"{home}/pgAdmin4.py"]
            with stand.process(
                serve, ready=lambda: answers(f"{url}/misc/ping", well=True), environ=environ, start_s=240
            ):
                yield _PgAdmin(url)


APPS: list[Application] = [PgAdmin()]
