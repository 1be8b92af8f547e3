"""Faults of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Settings whose own name ends with `_FILE`.
_ENDS_SO: Final = frozenset({"PYLON_OUTBOUND_CA_FILE"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `NAME: what is wrong; what to write instead`. It never contains the value of a secret.

    `name` is the setting, or `NAME_FILE` if that file is wrong. `line` is a line of the file that the setting names.
    """

    name: str
    text: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"

    @property
    def setting(self) -> str:
        """The setting that is wrong, without `_FILE`."""
        return self.name if self.name in _ENDS_SO else self.name.removesuffix("_FILE")


class ConfigurationError(Exception):
    """The configuration is wrong; `faults` lists every fault."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults
