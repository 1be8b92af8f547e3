"""Write `released/released-<revision>.json`: rows as a released version stores them, and the tokens that they are of.

Run once a release, by `python -m tests.storage.make_released`; what it wrote before is never written again.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from sqlalchemy import create_engine, text

from service.storage.schema import HEAD, TABLES
from tests.storage.stores import migrate, open_url
from tests.storage.worlds import new_scene, world_on

DATA: Final = Path(__file__).with_name("released")
#: Their rows hold keys, which are sealed for one database.
LEFT_OUT: Final = {"key_ring"}


def main() -> None:
    """Use the service, and write what it has stored."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/pylon.sqlite3"
        migrate(url)
        with closing(open_url(url)) as store:
            world = world_on(store, url)
            scene = new_scene(world, first_party=False)
        engine = create_engine(url)
        with engine.connect() as connection:
            rows: dict[str, list[dict[str, Any]]] = {
                table.name: [
                    _plain(row) for row in connection.execute(text(f"SELECT * FROM {table}")).mappings()
                ]
                for table in TABLES.values()
                if table.name not in LEFT_OUT
            }
    tokens = {name: getattr(scene, name) for name in _TOKENS} | {"now": world.now}
    path = DATA / f"released-{HEAD}.json"
    with path.open("x") as file:
        json.dump({"tokens": tokens, "rows": rows}, file, indent=1, sort_keys=True)


_TOKENS: Final = (
    "user", "client_id", "secret", "session", "sid", "code", "code_verifier", "access_token", "refresh_token", "grant_id",
)  # fmt: skip


def _plain(row: Any) -> dict[str, Any]:
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in row.items()}


if __name__ == "__main__":
    main()
