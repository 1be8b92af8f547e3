"""Keycloak as an identity broker, in development mode."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import requests

from apps.application import Application, Person, Running, SignOut
from apps.browser import Browser
from apps.installing import maven_zip
from apps.stand import Stand

VERSION = "26.5.6"
REALM = "example"


class _Broker(Running):
    signs_out = SignOut.EVERYWHERE

    def __init__(self, realm: str) -> None:
        self._realm = realm
        self._oidc = f"{realm}/protocol/openid-connect"
        self._id_token = ""

    def sign_in(self, browser: Browser) -> Person:
        asked = {
            "client_id": "test", "redirect_uri": self._realm, "response_type": "code", "scope": "openid",
            "kc_idp_hint": "pylon", "state": secrets.token_hex(8),
        }  # fmt: skip
        page = browser.open(f"{self._oidc}/auth?{urlencode(asked)}")
        code = parse_qs(urlsplit(page.url).query).get("code")
        assert code, f"{page.url}: {page.text[:3000]}"
        form = {
            "grant_type": "authorization_code",
            "client_id": "test",
            "code": code[0],
            "redirect_uri": self._realm,
        }
        tokens = requests.post(f"{self._oidc}/token", data=form, timeout=30).json()
        self._id_token = tokens["id_token"]
        bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
        who = requests.get(f"{self._oidc}/userinfo", headers=bearer, timeout=30).json()
        return Person(who.get("name"), who.get("email"), sorted(who.get("groups", [])))

    def sign_out(self, browser: Browser) -> None:
        asked = {"id_token_hint": self._id_token, "post_logout_redirect_uri": self._realm}
        page = browser.open(f"{self._oidc}/logout?{urlencode(asked)}")
        assert page.url.partition("?")[0] == self._realm, f"{page.url}: {page.text[:2000]}"


class Keycloak(Application):
    """https://www.keycloak.org, of Maven's org.keycloak:keycloak-quarkus-dist"""

    name = "keycloak"

    def version(self) -> str:
        maven_zip("keycloak", f"org.keycloak:keycloak-quarkus-dist:{VERSION}")
        return VERSION

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        folder = (
            maven_zip("keycloak", f"org.keycloak:keycloak-quarkus-dist:{VERSION}") / f"keycloak-{VERSION}"
        )
        with stand.port() as port, stand.port() as management:
            url = f"http://localhost:{port}"
            environ = {"KC_BOOTSTRAP_ADMIN_USERNAME": "admin", "KC_BOOTSTRAP_ADMIN_PASSWORD": "admin"}
            start = [
                "sh", folder / "bin/kc.sh", "start-dev", "--http-host=127.0.0.1", f"--http-port={port}",
                f"--http-management-port={management}", "--db=dev-mem",
            ]  # fmt: skip
            with stand.process(start, ready=f"{url}/realms/master", environ=environ, start_s=400):
                self._set_up(stand, url)
                yield _Broker(f"{url}/realms/{REALM}")

    @staticmethod
    def _set_up(stand: Stand, url: str) -> None:
        """A realm, a client of its own, and the provider as the page says; what the console does, by its API."""
        form = {"grant_type": "password", "client_id": "admin-cli", "username": "admin", "password": "admin"}
        token = requests.post(
            f"{url}/realms/master/protocol/openid-connect/token", data=form, timeout=60
        ).json()
        admin = {"Authorization": f"Bearer {token['access_token']}"}

        def post(path: str, body: Any) -> requests.Response:
            answer = requests.post(f"{url}/admin/realms{path}", json=body, headers=admin, timeout=60)
            assert answer.ok, answer.text
            return answer

        post("", {"realm": REALM, "enabled": True})
        realm = f"{url}/realms/{REALM}"
        post(
            f"/{REALM}/clients",
            {
                "clientId": "test", "publicClient": True, "redirectUris": [realm],
                "attributes": {"post.logout.redirect.uris": realm},
                "protocolMappers": [
                    {
                        "name": "groups", "protocol": "openid-connect",
                        "protocolMapper": "oidc-usermodel-attribute-mapper",
                        "config": {
                            "user.attribute": "groups", "claim.name": "groups", "multivalued": "true",
                            "userinfo.token.claim": "true",
                        },
                    }
                ],
            },
        )  # fmt: skip
        made = stand.register("keycloak", realm)
        discovery = next(
            line.split()[-1] for line in made["paste"].splitlines() if "Discovery endpoint" in line
        )
        config = post(
            f"/{REALM}/identity-provider/import-config", {"providerId": "oidc", "fromUrl": discovery}
        ).json()
        config |= {"clientId": made["client_id"], "clientSecret": made["client_secret"]}
        config["clientAuthMethod"] = "client_secret_basic"
        post(
            f"/{REALM}/identity-provider/instances",
            {"alias": "pylon", "providerId": "oidc", "enabled": True, "config": config},
        )
        # Groups, as the page says: an attribute of the realm's users, and a mapper that fills it.
        profile = requests.get(f"{url}/admin/realms/{REALM}/users/profile", headers=admin, timeout=60).json()
        profile["attributes"].append(
            {"name": "groups", "multivalued": True, "permissions": {"view": ["admin"], "edit": ["admin"]}}
        )
        answer = requests.put(
            f"{url}/admin/realms/{REALM}/users/profile", json=profile, headers=admin, timeout=60
        )
        assert answer.ok, answer.text
        post(
            f"/{REALM}/identity-provider/instances/pylon/mappers",
            {
                "name": "groups", "identityProviderAlias": "pylon",
                "identityProviderMapper": "oidc-user-attribute-idp-mapper",
                "config": {"claim": "groups", "user.attribute": "groups", "syncMode": "FORCE"},
            },
        )  # fmt: skip


APPS = [Keycloak()]
