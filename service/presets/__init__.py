"""The presets for well-known applications: a data file each, read by `pylon-oidc clients add --preset`.

A file has the application's `title`, the `metadata` of its client, and what to `paste` into its configuration. The
texts contain the placeholders `{url}`, `{issuer}`, `{client_id}` and `{client_secret}`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlsplit

_URL: Final = "{url}"


@dataclass(frozen=True, slots=True)
class Preset:
    """One application.

    Attributes:
        name: its name on the command line.
        title: its name for people.
        metadata: the metadata of its client, with `{url}` in it.
        paste: the text for its configuration.
        recognised: whether its redirect URIs identify it.
    """

    name: str
    title: str
    metadata: Mapping[str, Any]
    paste: str
    recognised: bool

    @property
    def needs_url(self) -> bool:
        """Whether it needs the address of the application."""
        return _URL in str(self.metadata)

    def client(self, url: str) -> dict[str, Any]:
        """The metadata of its client, for an application at that address."""
        return {member: _filled(value, url) for member, value in self.metadata.items()}

    def at_other_side(self, **known: str) -> str:
        """The text to paste there, with `url`, `issuer`, `client_id` and `client_secret` filled in."""
        text = self.paste
        for name, value in known.items():
            text = text.replace("{" + name + "}", value)
        return text

    def url_of(self, redirect_uri: str) -> str | None:
        """The address of the application with this redirect URI; None if it is not this application's."""
        for template in self.metadata.get("redirect_uris", ()) if self.recognised else ():
            tail = template.removeprefix(_URL)
            if tail != template and redirect_uri.endswith(tail):
                return redirect_uri.removesuffix(tail)
        return None


def _filled(value: Any, url: str) -> Any:
    if isinstance(value, str):
        return value.replace(_URL, url)
    return [_filled(entry, url) for entry in value] if isinstance(value, list) else value


@cache
def presets() -> Mapping[str, Preset]:
    """All presets, by name."""
    found = sorted(entry.name for entry in files(__name__).iterdir() if entry.name.endswith(".toml"))
    return {name.removesuffix(".toml"): _read(name) for name in found}


def _read(file: str) -> Preset:
    told = tomllib.loads(files(__name__).joinpath(file).read_text("utf-8"))
    return Preset(
        file.removesuffix(".toml"),
        told["title"],
        told["metadata"],
        told["paste"].strip("\n"),
        told.get("recognised", True),
    )


def recognise(redirect_uri: str) -> tuple[Preset, str] | None:
    """The application with this redirect URI, and its address; None if it is not known."""
    for preset in presets().values():
        if url := preset.url_of(redirect_uri):
            return preset, url
    return None


def plain_url(text: str) -> str:
    """The address of an application, without a trailing slash.

    Raises:
        ValueError: says what is wrong, and what to write instead.
    """
    parts = urlsplit(text)
    if parts.scheme not in {"https", "http"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("is not an address; write https://app.example.com")
    return text.rstrip("/")
