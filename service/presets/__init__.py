"""What well-known applications need: a data file each, read by `pylon-oidc clients add --preset`.

A file has the application's `title`, the `metadata` of its client, and what to `paste` at the other side. In its texts
`{url}`, `{issuer}`, `{client_id}` and `{client_secret}` stand for themselves.
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
        name: what it is called on the command line.
        title: what people call it.
        metadata: of its client, with `{url}` in it.
        paste: what to write there.
        recognised: whether its redirect URIs are its own, so that one tells the application.
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
        """What to paste there; `url`, `issuer`, `client_id` and `client_secret` are known."""
        text = self.paste
        for name, value in known.items():
            text = text.replace("{" + name + "}", value)
        return text

    def url_of(self, redirect_uri: str) -> str | None:
        """Where the application is whose redirect URI this is; None where it is not this one's."""
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
    """Every application that has a file, by name."""
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
    """The application whose redirect URI this is, and where it is; None for an unknown one."""
    for preset in presets().values():
        if url := preset.url_of(redirect_uri):
            return preset, url
    return None


def plain_url(text: str) -> str:
    """The address of an application, without a slash at its end.

    Raises:
        ValueError: with what to write instead.
    """
    parts = urlsplit(text)
    if parts.scheme not in {"https", "http"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("is not an address; write https://app.example.com")
    return text.rstrip("/")
