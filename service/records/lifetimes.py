"""How long things live."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long things live, in s; the settings say it, but for the verifier."""

    code_s: int
    id_token_s: int
    access_token_s: int
    refresh_idle_s: int
    refresh_max_s: int
    refresh_grace_s: int
    interaction_s: int
    verifier_s: int = 60
