"""A deployment as data: the operator's files, and how they differ from the shipped ones.

Everything is in the operator's words: the public name `id.example.com`, port 443, `/etc/ssl/pylon-oidc/fullchain.pem`,
`unix:/run/pylon-oidc/gunicorn.sock`. Only `running.py` knows what stands for them on this machine.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.doctor.fixing import DoesNotFit, fix_text
from tests.support.gunicorn import PROJECT

HERE = Path(__file__).parent
SETTINGS = "/etc/pylon-oidc/env"
CLOCK = "/etc/systemd/timesyncd.conf"
APACHE = "/etc/apache2/sites-available/pylon-oidc.conf"
HAPROXY = "/etc/haproxy/haproxy.cfg"
CADDY = "/etc/caddy/Caddyfile"
VARNISH = "/etc/varnish/default.vcl"
#: The application that everybody has; the others have names of their own.
FIRST = "gunicorn"

#: The files of a machine, by name.
Files = dict[str, str]


def shipped_files() -> Files:
    """The shipped site with its example unchanged, and what an operator adds to it."""
    nginx = PROJECT / "nginx"
    files = {f"nginx/{path.relative_to(nginx)}": path.read_text() for path in nginx.rglob("*.conf")}
    files["nginx/local.conf"] = (nginx / "local.conf.example").read_text()
    own = {
        SETTINGS: "pylon-oidc.env",
        CLOCK: "timesyncd.conf",
        APACHE: "apache.conf",
        HAPROXY: "haproxy.cfg",
        CADDY: "Caddyfile",
        VARNISH: "varnish.vcl",
    }
    return files | {name: (HERE / "files" / file).read_text() for name, file in own.items()}


def settings_of(text: str) -> dict[str, str]:
    """The settings that a file of them holds."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name.strip(): value for name, _, value in (line.partition("=") for line in lines)}


def with_settings(text: str, settings: Mapping[str, str | bool]) -> str:
    """A file of settings with some others; `False` leaves one out."""
    for name, value in settings.items():
        text = fix_text(SETTINGS, text, "", f"- {name}" if value is False else f"{name}={value}")
    return text


@dataclass(frozen=True)
class Fix:
    """What a finding says is to be changed."""

    file: str
    block: str
    line: str


@dataclass(frozen=True)
class Deployment:
    """One deployment.

    Attributes:
        name: Its file's.
        title: What is wrong with it, in words.
        expect: The id of the first finding; for a good one, of a note that is shown.
        url: What is asked for.
        also: The ids of findings that are shown with it.
        fixable: Whether the first finding names a line that fixes it; from outside not every one can be known.
        accept: Of one that was invented for a measurement, the ids that the first finding may have; none for a good one.
        says: A pattern: what the first finding has to show.
        proxy: `nginx`, `apache`, `haproxy` or `caddy`.
        cache: `varnish` where one stands between proxy and application, on 127.0.0.1:6081.
        addresses: The addresses of the name, each `192.0.2.…`; one of this machine without them.
        options: More options for `doctor`.
        drift_s: How far its clocks are off while nothing corrects them.
        changes: What differs from the shipped files.
        settings: Settings that are others than the usual.
        replicas: More applications, by name: settings that are others than those.
        clocks: How far the clocks of single replicas are off, by name, in s.
        delays: How long what is asked of `slow-NAME.sock` waits before it reaches the application NAME, in s.
        strangers: Programs of others, by name: what they answer to everything.
        earlier: Settings of an earlier time, at which `asked` was asked for.
        asked: Paths.
    """

    name: str
    title: str
    expect: str = ""
    url: str = "https://id.example.com"
    also: tuple[str, ...] = ()
    fixable: bool = True
    accept: tuple[str, ...] = ()
    says: str = ""
    proxy: str = "nginx"
    cache: str = ""
    addresses: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    drift_s: int = 0
    changes: tuple[Mapping[str, str], ...] = ()
    settings: Mapping[str, str | bool] = field(default_factory=dict)
    replicas: Mapping[str, Mapping[str, str | bool]] = field(default_factory=dict)
    clocks: Mapping[str, int] = field(default_factory=dict)
    delays: Mapping[str, float] = field(default_factory=dict)
    strangers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    earlier: Mapping[str, str | bool] = field(default_factory=dict)
    asked: tuple[str, ...] = ()

    @staticmethod
    def read(path: Path) -> Deployment:
        """Read its file."""
        members = tomllib.loads(path.read_text())
        several = ("options", "changes", "asked", "accept", "also", "addresses")
        lists = {name: tuple(members.pop(name)) for name in several if name in members}
        return Deployment(name=path.stem, **members, **lists)

    def files(self) -> Files:
        """The files of all its machines; those of a replica are below its name.

        Raises:
            AssertionError: When a change names text that is not there, or is there more than once.
        """
        files = shipped_files()
        for change in self.changes:
            file, old = change["file"], change["replace"]
            assert files[file].count(old) == 1, f"{self.name}: {file} has not one {old!r}"
            files[file] = files[file].replace(old, change["with"])
        files[SETTINGS] = with_settings(files[SETTINGS], self.settings)
        for name, settings in self.replicas.items():
            files[f"{name}/{SETTINGS}"] = with_settings(files[SETTINGS], settings)
        return files

    def files_of_earlier(self) -> Files:
        """The files as they were before."""
        files = self.files()
        files[SETTINGS] = with_settings(files[SETTINGS], self.earlier)
        return files

    def clock_offset_s(self, files: Files) -> int:
        """How far its clocks are off: a clock that no time server corrects drifts."""
        return 0 if settings_of(files[CLOCK]).get("NTP") else self.drift_s


def fixed(files: Files, fix: Fix) -> Files:
    """The files after a fix; one of the settings is made on every machine that has them.

    Raises:
        DoesNotFit: When the file, or the block in it, is not there, or nothing changes.
    """
    meant = [name for name in files if name == fix.file or name.endswith(f"/{fix.file}")]
    after = dict(files)
    for name in meant:
        try:
            after[name] = fix_text(fix.file, files[name], fix.block, fix.line)
        except DoesNotFit:
            # A replica may be right already.
            if len(meant) == 1:
                raise
    if after == files:
        raise DoesNotFit(f"no file {fix.file!r} is changed by {fix.line!r}")
    return after


def read_deployments(folder: str) -> list[Deployment]:
    """All deployments of a folder next to this file."""
    return [Deployment.read(path) for path in sorted((HERE / folder).glob("*.toml"))]
