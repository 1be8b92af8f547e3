"""An upgrade keeps what a released version has stored: sessions, codes, tokens and consents, on both databases."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import LargeBinary, MetaData, create_engine, insert

import service.storage
from tests.http.driver import Clock
from tests.provider.driver import CALLBACK
from tests.storage.make_released import DATA
from tests.storage.stores import open_url
from tests.storage.worlds import world_on

RELEASED = sorted(DATA.glob("released-*.json"))


def _stored(url: str, revision: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Make the schema of that revision, and put the rows there."""
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    config = Config()
    config.set_main_option("script_location", str(Path(service.storage.__file__).with_name("migrations")))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        there = MetaData()
        there.reflect(connection)
        for name, each in rows.items():
            if not each:
                continue
            table = there.tables[name]
            binary = {column.name for column in table.columns if isinstance(column.type, LargeBinary)}
            flags = {column.name for column in table.columns if column.type.python_type is bool}
            for row in each:
                values = {key: bytes.fromhex(value) if key in binary else value for key, value in row.items()}
                values |= {key: bool(values[key]) for key in flags}
                connection.execute(insert(table).values(values))
    engine.dispose()


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_an_upgrade_keeps_what_was_given_out(path: Path, empty_database_url: str) -> None:
    """docs/upgrade.md: from 0.2.0 on every session, code and token is as good after an upgrade as before."""
    released = json.loads(path.read_text())
    tokens = released["tokens"]
    if empty_database_url.startswith("sqlite:"):
        Path(empty_database_url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    _stored(empty_database_url, path.stem.removeprefix("released-"), released["rows"])
    with closing(open_url(empty_database_url)) as store:
        store.migrate()
        assert store.schema_state() == "current"
        world = world_on(store, empty_database_url, Clock(tokens["now"]))
        rp = world.provider.rp(tokens["client_id"], secret=tokens["secret"], redirect_uri=CALLBACK)
        assert (
            world.provider.ask("GET", "/api/auth/me", token=tokens["session"]).json()["sid"] == tokens["sid"]
        )
        assert [grant["id"] for grant in world.app.grants(tokens["user"])].count(tokens["grant_id"]) == 1
        assert rp.userinfo(tokens["access_token"]).status == 200
        refreshed = rp.refresh(tokens["refresh_token"])
        assert refreshed.status == 200, refreshed
        assert (
            rp.refresh(tokens["refresh_token"]).json()["refresh_token"] == refreshed.json()["refresh_token"]
        )
        form = {
            "grant_type": "authorization_code",
            "code": tokens["code"],
            "redirect_uri": CALLBACK,
            "code_verifier": tokens["code_verifier"],
        }
        assert rp.post("/oidc/token", form).status == 200
        assert rp.post("/oidc/token", form).json()["error"] == "invalid_grant"  # a code that comes twice


def test_there_is_something_to_keep() -> None:
    """The rows of 0.2.0 are there: they are never written again."""
    assert "released-0005" in [path.stem for path in RELEASED]
