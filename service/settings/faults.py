"""How a fault of the configuration is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: `NAME: what is wrong; what to write instead`. Never a secret's value.

    `name` is the setting's, or `NAME_FILE` where that file is at fault; `line` is one of the file that the setting names.
    """

    name: str
    text: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"

    @property
    def setting(self) -> str:
        """The setting that is at fault, given in the one form or the other."""
        return self.name.removesuffix("_FILE")


class ConfigurationError(Exception):
    """The configuration is wrong; `faults` says every fault of it."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults
