"""Applications of Python: Flask-AppBuilder, JupyterHub, Synapse."""

from __future__ import annotations

import contextlib
import json
import re
import textwrap
import time
from collections.abc import Iterator
from typing import Any

from apps.application import Application, Person, Running, SignOut, block_of
from apps.browser import Browser
from apps.installing import node, npm, python, python_version, run
from apps.stand import GROUPS, RECORD, USER, Stand, answers

ACCESS_TOKEN_S = 3


class _AppBuilder(Running):
    signs_out = SignOut.THERE

    def __init__(self, url: str) -> None:
        self._url = url

    def sign_in(self, browser: Browser) -> Person:
        browser.open(f"{self._url}/login/pylon")
        who: dict[str, Any] = browser.open(f"{self._url}/who").json()
        # It keeps no groups: what comes of them are its own roles.
        return Person(who["name"], who["email"], GROUPS if "Admin" in who["roles"] else [])

    def sign_out(self, browser: Browser) -> None:
        browser.open(f"{self._url}/logout/")
        assert browser.open(f"{self._url}/who").json() == {}


class FlaskAppBuilder(Application):
    """The package Flask-AppBuilder of PyPI, which Superset and Airflow sign in by."""

    name = "flask-appbuilder"

    def version(self) -> str:
        return python_version("flask-appbuilder", "flask-appbuilder")

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        with stand.port() as port:
            url = f"http://localhost:{port}"
            paste = stand.register(self.name, url)["paste"]
            (stand.folder / "config.py").write_text(
                f'SECRET_KEY = "of your own"\nSQLALCHEMY_DATABASE_URI = "sqlite:///{stand.folder}/fab.db"\n{paste}\n'
            )
            (stand.folder / "site_app.py").write_text(_FAB.replace("PORT", str(port)))
            serve = [python("flask-appbuilder"), "site_app.py"]
            with stand.process(serve, ready=f"{url}/who"):
                yield _AppBuilder(url)


_FAB = """
import config
from flask import Flask, jsonify
from flask_appbuilder import AppBuilder
from flask_appbuilder.utils.legacy import get_sqla_class
from flask_login import current_user

app = Flask(__name__)
app.config.from_object(config)
db = get_sqla_class()()
db.init_app(app)
with app.app_context():
    appbuilder = AppBuilder(app, db.session)


@app.route("/who")
def who():
    if not current_user.is_authenticated:
        return jsonify({})
    user = current_user
    name = user.first_name + " " + user.last_name
    return jsonify({"name": name, "email": user.email, "roles": [role.name for role in user.roles]})


app.run("127.0.0.1", PORT)
"""


class _Hub(Running):
    refreshes, signs_out = True, SignOut.THERE

    def __init__(self, url: str, stand: Stand) -> None:
        self._url, self._stand = url, stand

    def sign_in(self, browser: Browser) -> Person:
        page = browser.open(f"{self._url}/hub/oauth_login?next=%2Fhub%2Fhome")
        assert page.status == 200 and f"{USER}" in page.text, page.text[:2000]
        return Person(groups=self._groups(browser))

    def _groups(self, browser: Browser) -> list[str]:
        known = browser.http.get(
            f"{self._url}/hub/api/users/{USER}", timeout=20
        ).json()  # the user's own cookie
        return sorted(known["groups"])

    def refresh(self, browser: Browser) -> None:
        time.sleep(ACCESS_TOKEN_S + 1)
        self._stand.admin("PUT", f"/api/auth/users/{USER}", RECORD | {"roles": ["ops"]})
        before = len(browser.trail)
        page = browser.open(f"{self._url}/hub/home")
        assert page.status == 200 and browser.trail[before:] == [f"{self._url}/hub/home"], browser.trail[
            before:
        ]
        assert self._groups(browser) == ["ops"]
        self._stand.admin("PUT", f"/api/auth/users/{USER}", RECORD)

    def sign_out(self, browser: Browser) -> None:
        browser.open(f"{self._url}/hub/logout")
        assert browser.open(f"{self._url}/hub/home").url.startswith(f"{self._url}/hub/login")


class JupyterHub(Application):
    """The package jupyterhub of PyPI with oauthenticator's GenericOAuthenticator."""

    name = "jupyterhub"
    settings = {"PYLON_OIDC_ACCESS_TOKEN_LIFETIME_SECS": str(ACCESS_TOKEN_S)}

    def version(self) -> str:
        hub = python_version("jupyterhub", "jupyterhub")
        return f"{hub}, oauthenticator {python_version('jupyterhub', 'oauthenticator')}"

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        interpreter, proxy = (
            python("jupyterhub"),
            npm() / "node_modules/configurable-http-proxy/bin/configurable-http-proxy",
        )
        with stand.port() as port, stand.port() as api, stand.port() as hub:
            url = f"http://localhost:{port}"
            paste = stand.register(self.name, url)["paste"]
            (stand.folder / "jupyterhub_config.py").write_text(
                textwrap.dedent(f"""
                c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
                c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub}"
                c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api}"
                c.ConfigurableHTTPProxy.command = ["{node()}", "{proxy}"]
                c.JupyterHub.spawner_class = "simple"
                c.Authenticator.auth_refresh_age = 1
                """)
                + paste
                + "\n"
                + block_of(self.name, "python")
            )
            environ = {"PATH": f"{interpreter.parent}:/usr/bin:/bin", "JUPYTERHUB_CRYPT_KEY": "0" * 64}
            serve = [interpreter, "-m", "jupyterhub", "--config", "jupyterhub_config.py"]
            with stand.process(serve, ready=lambda: answers(f"{url}/hub/health", well=True), environ=environ):
                yield _Hub(url, stand)


class _Synapse(Running):
    signs_out = SignOut.THERE

    def __init__(self, url: str) -> None:
        self._url = url

    def sign_in(self, browser: Browser) -> Person:
        client = f"{self._url}/_matrix/client/v3"
        page = browser.open(
            f"{client}/login/sso/redirect/oidc-pylon?redirectUrl={self._url}/_matrix/client/versions"
        )
        found = re.search(r"loginToken=([^&\"]+)", page.text)
        assert found, page.text[:3000]
        body = {"type": "m.login.token", "token": found[1]}
        signed = browser.http.post(f"{client}/login", json=body, timeout=20).json()
        assert signed["user_id"] == f"@{USER}:localhost", signed
        self._headers = headers = {"Authorization": f"Bearer {signed['access_token']}"}
        profile = browser.http.get(
            f"{client}/profile/{signed['user_id']}", timeout=20, headers=headers
        ).json()
        mail = browser.http.get(f"{client}/account/3pid", timeout=20, headers=headers).json()
        return Person(profile["displayname"], mail["threepids"][0]["address"])

    def sign_out(self, browser: Browser) -> None:
        client = f"{self._url}/_matrix/client/v3"
        assert browser.http.post(f"{client}/logout", headers=self._headers, timeout=20).ok
        who = browser.http.get(f"{client}/account/whoami", headers=self._headers, timeout=20)
        assert who.status_code == 401, who.text


class Synapse(Application):
    """The package matrix-synapse of PyPI"""

    name = "synapse"

    def version(self) -> str:
        return python_version("synapse", "matrix-synapse")

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        interpreter = python("synapse")
        with stand.port() as port:
            url = f"http://localhost:{port}"
            paste = stand.register(self.name, url)["paste"]
            config = stand.folder / "homeserver.yaml"
            run(
                interpreter, "-m", "synapse.app.homeserver", "--server-name", "localhost", "--config-path", config,
                "--generate-config", "--report-stats=no", "--data-directory", stand.folder, cwd=stand.folder,
            )  # fmt: skip
            own = json.dumps(
                [
                    {
                        "port": port,
                        "bind_addresses": ["127.0.0.1"],
                        "type": "http",
                        "resources": [{"names": ["client"]}],
                    }
                ]
            )
            (stand.folder / "own.yaml").write_text(
                f"public_baseurl: {url}/\nlisteners: {own}\ntrusted_key_servers: []\n{paste}\n"
            )
            serve = [
                interpreter,
                "-m",
                "synapse.app.homeserver",
                "-c",
                config,
                "-c",
                stand.folder / "own.yaml",
            ]
            with stand.process(serve, ready=f"{url}/health"):
                yield _Synapse(url)


APPS: list[Application] = [FlaskAppBuilder(), JupyterHub(), Synapse()]
