"""What only the admin token opens: an attribute of the resource, whatever its responders do."""

from __future__ import annotations

import re

import pytest
from falcon import HTTP_METHODS

from service.app import routes
from service.events import UNHEARD
from service.keys.signing import Keys
from service.keys.starting import load_keyring
from service.resources.parts import parts_of
from service.startup import open_store
from tests.http.driver import House, refused

#: Everything below these is for the app's backend.
BACKENDS = ("/api/oidc/", "/api/auth/users/")


def test_whatever_stands_below_the_backends_paths_opens_to_the_admin_token_alone(
    house: House, subtests: pytest.Subtests
) -> None:
    """Each method that there is is 403 `FORBIDDEN` without it, before anything is looked at; one that is not there, 405."""
    store = open_store(house.settings)
    keys = Keys(load_keyring(house.settings, make_key_file=False))
    table = routes(parts_of(house.settings, store, keys, house.clock, UNHEARD))
    found = [path for path in table if path.startswith(BACKENDS)]
    assert len(found) >= 11
    for path in found:
        resource = table[path].resource
        assert resource.admin_only is True, path
        for method in HTTP_METHODS:
            answer = house.ask(method, re.sub("{[a-z_]+}", "a", path), body=b"{")
            with subtests.test(f"{method} {path}"):
                if method != "OPTIONS" and hasattr(resource, f"on_{method.lower()}"):
                    assert answer.status == 403
                    if method != "HEAD":
                        refused(answer, 403, "FORBIDDEN")
                else:
                    assert answer.status == (200 if method == "OPTIONS" else 405)


def test_of_a_resource_some_methods_may_be_open(house: House) -> None:
    """The app begins a session by the admin token, its user ends it without."""
    begun = house.sign_in("ada")
    refused(
        house.ask("POST", "/api/auth/session", token=begun["token"], json={"user_id": "ada"}),
        403,
        "FORBIDDEN",
    )
    assert house.ask("DELETE", "/api/auth/session", token=begun["token"]).status == 200
