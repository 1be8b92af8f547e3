"""Keycloak on PostgreSQL, of the distribution on Maven Central."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import html
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from apps.installing import Missing, maven_zip, run
from apps.keycloak import VERSION
from bench import clients
from bench.clients import Place
from bench.providers.base import Absent, Provider, call, documents, for_itself, port, server
from bench.wire import browse
from tests.support.postgres import PostgresCluster

NAME = "Keycloak PG"
_ADMIN = {"KC_BOOTSTRAP_ADMIN_USERNAME": "admin", "KC_BOOTSTRAP_ADMIN_PASSWORD": "admin"}
_REALM = "bench"
_START_S = 240.0


def install() -> Path:
    """Its folder, built for PostgreSQL.

    Raises:
        Absent: When it is not available.
    """
    try:
        folder = maven_zip("keycloak-bench", f"org.keycloak:keycloak-quarkus-dist:{VERSION}")
        home = folder / f"keycloak-{VERSION}"
        if not (folder / "built").exists():
            run("sh", home / "bin/kc.sh", "build", "--db=postgres", "--metrics-enabled=false")
            (folder / "built").touch()
        return home
    except (Missing, AssertionError) as error:
        raise Absent(str(error)) from None


@contextlib.contextmanager
def keycloak(folder: Path, database: PostgresCluster) -> Iterator[Provider]:
    """Start it twice: the first start makes its tables, the second one counts.

    Args:
        folder: For its log.
        database: Where it has a database of its own.

    Raises:
        Absent: When it is not available or does not start.
    """
    home = install()
    where = urlsplit(database.create_database())
    with port() as at, port() as management:
        command = [
            "sh", home / "bin/kc.sh", "start", "--optimized", "--http-enabled=true", "--http-host=127.0.0.1",
            f"--http-port={at}", f"--http-management-port={management}", f"--hostname=http://localhost:{at}",
            f"--db-url=jdbc:postgresql://{where.hostname}:{where.port}{where.path}", "--cache=local",
            f"--db-username={where.username}", f"--db-password={where.password}", "--log-level=warn",
        ]  # fmt: skip
        ready = "/realms/master/.well-known/openid-configuration"
        with server(command, at, ready, folder, environ=_ADMIN, limit_s=_START_S):
            _set_up(at)
        discovery = f"/realms/{_REALM}/.well-known/openid-configuration"
        with server(command, at, discovery, folder, limit_s=_START_S) as up:
            base = f"/realms/{_REALM}/protocol/openid-connect"
            place = Place(at, f"{base}/auth", f"{base}/token")
            cookie = _sign_in(place)
            own = for_itself(at, place.token)
            yield Provider(
                name=NAME,
                what=f"{VERSION}, one JVM, caches local, log level warn",
                durable="sessions on disk; codes in memory",
                place=dataclasses.replace(place, cookie=cookie),
                pid=up.process.pid,
                cold_start_s=up.start_s,
                targets=documents(at, discovery, f"{base}/certs")
                | {
                    "client_credentials, RS256": own,
                    "client_credentials, ES256": dataclasses.replace(
                        own, authorization=_basic("bench-es256")
                    ),
                },
                userinfo=f"{base}/userinfo",
                introspection=f"{base}/token/introspect",
                warm_s=3.0,
                database=database,
            )


def _basic(client_id: str) -> str:
    return "Basic " + base64.b64encode(f"{client_id}:{clients.CLIENT_SECRET}".encode()).decode()


def _set_up(at: int) -> None:
    """A realm with a user and two clients, by its API."""
    form = {"grant_type": "password", "client_id": "admin-cli", "username": "admin", "password": "admin"}
    token = call(at, "POST", "/realms/master/protocol/openid-connect/token", urlencode(form)).json()
    admin = {"Authorization": f"Bearer {token['access_token']}"}
    realm = {
        "realm": _REALM, "enabled": True, "sslRequired": "none", "revokeRefreshToken": True,
        "accessTokenLifespan": 3600, "eventsEnabled": False,
        "users": [
            {
                "username": "ada", "enabled": True, "email": "ada@example.com", "emailVerified": True,
                "firstName": "Ada", "lastName": "Byron", "realmRoles": [f"default-roles-{_REALM}"],
                "credentials": [{"type": "password", "value": "ada", "temporary": False}],
            }
        ],
    }  # fmt: skip
    both = {"secret": clients.CLIENT_SECRET, "publicClient": False, "serviceAccountsEnabled": True}
    for_users = {
        "clientId": clients.CLIENT_ID, "redirectUris": [clients.REDIRECT_URI], "standardFlowEnabled": True,
        "defaultClientScopes": ["basic", "acr", "profile", "email"], "optionalClientScopes": ["offline_access"],
        "fullScopeAllowed": True,
    }  # fmt: skip
    es256 = {
        "clientId": "bench-es256", "standardFlowEnabled": False, "fullScopeAllowed": False,
        "attributes": {"access.token.signed.response.alg": "ES256"},
    }  # fmt: skip
    asked = [("", realm), (f"/{_REALM}/clients", both | for_users), (f"/{_REALM}/clients", both | es256)]
    for path, body in asked:
        reply = call(at, "POST", f"/admin/realms{path}", body, admin)
        if reply.status != 201:
            raise Absent(f"it could not be set up: {path} {reply.status} {reply.body[:500]!r}")


def _sign_in(place: Place) -> str:
    """Fill in its form; the cookies of the browser that did."""
    page = call(place.port, "GET", place.authorize_uri)
    action = re.search(r'action="([^"]+)"', page.body.decode())
    if action is None:
        raise Absent(f"its sign-in page has no form: {page.status} {page.location} {page.body[:300]!r}")
    uri = urlsplit(html.unescape(action[1]))
    form = urlencode({"username": "ada", "password": "ada"})
    done = call(place.port, "POST", f"{uri.path}?{uri.query}", form, {"Cookie": page.cookies})
    signed_in = dataclasses.replace(place, cookie=f"{page.cookies}; {done.cookies}")
    return browse(signed_in, place.authorize_uri, clients.REDIRECT_URI, str)[0]
