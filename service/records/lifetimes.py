"""Lifetimes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Lifetimes in s, from the settings, except that of the verifier."""

    code_s: int
    id_token_s: int
    access_token_s: int
    refresh_idle_s: int
    refresh_max_s: int
    refresh_grace_s: int
    interaction_s: int
    verifier_s: int = 60
