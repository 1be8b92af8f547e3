"""What this host has seen of rings of keys: a small file beside its data, so that a restart does not forget it.

Owns: the file, its form. It holds no key; where it cannot be written nothing is remembered over a restart.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.handles import new_id
from service.keys.ring import Ring

FILE_NAME: Final = "key-ring-seen.json"


@dataclass(frozen=True, slots=True)
class Seen:
    """The highest version of a ring, and the kids that were taken away from it."""

    version: int = 0
    taken_away: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RingMemory:
    """The memory of a host.

    Attributes:
        path: of the file.
    """

    path: Path

    def seen(self, database_id: str) -> Seen:
        """What was seen of the ring of a database; nothing where the file is missing or unreadable."""
        entry = self._read().get(database_id)
        try:
            return Seen(int(entry["version"]), frozenset(map(str, entry["taken_away"])))  # type: ignore[index]
        except (KeyError, TypeError, ValueError):
            return Seen()

    def note(self, database_id: str, seen: Seen) -> None:
        """Remember more; the file appears whole, whoever else writes it."""
        entries, known = self._read(), self.seen(database_id)
        merged = Seen(max(seen.version, known.version), seen.taken_away | known.taken_away)
        if merged == known:
            return
        entries[database_id] = {"version": merged.version, "taken_away": sorted(merged.taken_away)}
        draft = self.path.with_name(f".{self.path.name}.{new_id()}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(entries, file)
                if os.getuid() == 0:  # an operator's command: the service reads it as the folder's owner
                    owner = self.path.parent.stat()
                    os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            draft.replace(self.path)
        except OSError:
            draft.unlink(missing_ok=True)

    def _read(self) -> dict[str, object]:
        try:
            entries = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return entries if isinstance(entries, dict) else {}

    def warning(self, ring: Ring) -> str | None:
        """What an operator should hear where the database holds an older ring than this host has seen."""
        seen = self.seen(ring.database_id)
        if ring.version >= seen.version:
            return None
        return (
            f"the ring of keys in the database is older (version {ring.version}) than this host has seen (version {seen.version}), "
            "as after a backup was restored; keys that were taken away since stay away where this host knew it. Look at "
            "pylon-oidc keys list, take away what must not sign by pylon-oidc keys revoke, and to accept the ring as it is "
            f"remove {self.path} and restart"
        )
