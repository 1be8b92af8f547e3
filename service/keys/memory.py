"""Remembers across restarts which key rings this host has seen, in a small file next to its data.

Owns: the file and its format. It contains no keys. If it cannot be written, a restart forgets what was seen.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.handles import new_id
from service.keys.ring import KeyRecords, Margins, Ring, role, taken_away
from service.keys.rotation import revoked
from service.keys.telling import log

FILE_NAME: Final = "key-ring-seen.json"


@dataclass(frozen=True, slots=True)
class Seen:
    """The highest version of a ring, and the kids that were removed from it."""

    version: int = 0
    taken_away: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RingMemory:
    """The memory of a host.

    Attributes:
        path: path of the file.
    """

    path: Path

    def seen(self, database_id: str) -> Seen:
        """What was seen of the ring of a database; empty if the file is missing or unreadable."""
        entry = self._read().get(database_id)
        try:
            return Seen(int(entry["version"]), frozenset(map(str, entry["taken_away"])))  # type: ignore[index]
        except (KeyError, TypeError, ValueError):
            return Seen()

    def note(self, database_id: str, seen: Seen) -> None:
        """Add to what was seen. The file is replaced atomically, even if others write it too."""
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
                # Run by an operator: give the file to the folder's owner, so that the service can read it.
                if os.getuid() == 0:
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
        """The warning if the database has an older ring than this host has seen, or None."""
        seen = self.seen(ring.database_id)
        if ring.version >= seen.version:
            return None
        return (
            f"the ring of keys in the database is older (version {ring.version}) than this host has seen (version {seen.version}), "
            "for example because a backup was restored; keys that this host knows to be revoked stay revoked. Look at "
            "pylon-oidc keys list, and run pylon-oidc keys revoke for each key that must not sign; to accept the ring "
            f"as it is, remove {self.path} and restart"
        )


class Recollection:
    """What this process and its host have seen of rings. A restored older ring causes a warning, and brings no key back.

    Args:
        memory: the host's memory; None: only the process remembers.
    """

    def __init__(self, memory: RingMemory | None) -> None:
        self._memory = memory
        #: The warning of the start, if the database has an older ring than this host has seen.
        self.older: str | None = None
        self._seen: dict[str, int] = {}  # the highest version of the ring, for each database
        self._noted: tuple[str, Seen] | None = None
        self._taken_away: frozenset[str] = frozenset()
        self._told_older: tuple[str, int] | None = None

    def begin(self, ring: Ring) -> None:
        """Check the ring at a start."""
        self._recall(ring)
        self.older = None if self._memory is None else self._memory.warning(ring)

    def newer(self, ring: Ring) -> int | None:
        """The version that was seen, if it is newer than this ring's."""
        seen = self._seen.get(ring.database_id, 0)
        return seen if ring.version < seen else None

    def remember(self, ring: Ring, before: Ring | None) -> None:
        """Remember a ring. `before` is the one that it replaces."""
        if before is not None and before.database_id != ring.database_id:
            log.error("keys_ring_replaced", version=ring.version)
        self._recall(ring)
        seen = self._seen[ring.database_id] = max(ring.version, self._seen.get(ring.database_id, 0))
        self._taken_away |= taken_away(ring.keys)
        known = (ring.database_id, Seen(seen, self._taken_away))
        if self._memory is not None and self._noted != known:
            self._noted = known
            self._memory.note(*known)

    def without_taken_away(self, keys: KeyRecords, now: int, margins: Margins) -> KeyRecords:
        """The keys, without those that were removed before: an older document may have been restored."""
        for key in keys:
            if key.kid in self._taken_away and role(key, now) != "gone":
                keys = revoked(keys, key.kid, now, margins)
        return keys

    def _recall(self, ring: Ring) -> None:
        """Load what this host knows of the ring. Warns if an older ring was restored."""
        if self._memory is not None and ring.database_id not in self._seen:
            known = self._memory.seen(ring.database_id)
            self._seen[ring.database_id] = known.version
            self._taken_away |= known.taken_away
        this = (ring.database_id, ring.version)
        if (seen := self.newer(ring)) is not None and self._told_older != this:
            self._told_older = this
            log.error("keys_ring_older", version=ring.version, seen=seen)
