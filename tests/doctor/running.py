"""Deployments brought to life: real proxies before real gunicorns, on ports that the system picks.

What an operator writes is put into this machine's words when a program is started, and nowhere else.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self
from urllib.parse import urlsplit

from tests.doctor.certificates import write_certificates
from tests.doctor.deployment import (
    APACHE,
    CADDY,
    FIRST,
    HAPROXY,
    SETTINGS,
    VARNISH,
    Deployment,
    Files,
    settings_of,
)
from tests.doctor.relay import Relay
from tests.support.apache import MODULES
from tests.support.faketime import clock_environment
from tests.support.gunicorn import ADMIN, SECRET, DidNotStart, Gunicorn, clean_environment, hold_port, rsa_pem
from tests.support.nginx import NginxSite, Reply, StubUpstream

NAME = "id.example.com"
CLIENT, REDIRECT_URI = "relying-party", "https://rp.example.net/callback"
#: A client whose users are asked for their consent.
OTHER_CLIENT = "third-party"
CLIENT_SECRET = "the-secret-of-the-relying-party-of-the-deployments"
_APACHE_MODULES = (
    "mpm_event authn_core authn_file auth_basic authz_core authz_host authz_user alias headers http2 proxy"
    " proxy_http rewrite socache_shmcb ssl"
)
_START_S = 90.0
_STOP_S = 30.0
_POLL_S = 0.01
_KEPT = 4


@dataclass(frozen=True)
class Disk:
    """What an operator's paths are here.

    Attributes:
        folder: Where all of it is.
    """

    folder: Path

    @staticmethod
    def write(folder: Path) -> Disk:
        """Write what every deployment has: certificates, secrets, clients, a single-page app."""
        for name in ("tls", "secrets", "www/app", "state"):
            (folder / name).mkdir(parents=True)
        write_certificates(folder / "tls", NAME)
        client = {"client_id": CLIENT, "client_secret": CLIENT_SECRET, "redirect_uris": [REDIRECT_URI]}
        secrets = {
            "admin-token": ADMIN,
            "jwt-secret": SECRET,
            "jwt-secret-of-before": SECRET[::-1],
            "key-encryption-key": base64.b64encode(bytes(range(32))).decode(),
            "client-secret": CLIENT_SECRET,
            "another-client-secret": f"not-{CLIENT_SECRET}",
            "clients.json": json.dumps(
                [client | {"first_party": True}, client | {"client_id": OTHER_CLIENT, "require_pkce": True}]
            ),
            "clients-of-before.json": json.dumps(
                [client | {"first_party": True, "client_secret": f"not-{CLIENT_SECRET}"}]
            ),
            "no-clients.json": json.dumps([{**client, "client_id": "somebody-else"}]),
            "htpasswd": "operator:{SHA}" + base64.b64encode(hashlib.sha1(b"operator").digest()).decode(),
            "signing-key.pem": rsa_pem(),
            "signing-key-of-last-year.pem": rsa_pem(number=1),
        }
        for name, text in secrets.items():
            (folder / "secrets" / name).write_text(text)
        (folder / "www/app/index.html").write_text("<!doctype html><title>App</title><div id=app></div>")
        folder.chmod(0o755)
        return Disk(folder)

    @property
    def ca(self) -> Path:
        """Whom a client trusts."""
        return self.folder / "tls/ca.pem"

    def here(self, text: str) -> str:
        """Put paths of the operator's into this machine's words."""
        for theirs, ours in {
            "/etc/ssl/pylon-oidc/": "tls",
            "/etc/pylon-oidc/": "secrets",
            "/var/lib/pylon-oidc/": "state",
            "/var/www/": "www",
        }.items():
            text = text.replace(theirs, f"{self.folder / ours}/")
        return text


class Apps:
    """Gunicorns, one for each set of settings; the last few are kept, since most deployments have the usual one."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._running: dict[tuple[object, ...], Gunicorn] = {}

    def get(self, text: str, offset_s: int) -> Gunicorn:
        """The gunicorn with these settings and this clock, started where there is none.

        Raises:
            DidNotStart: When the settings are refused.
        """
        settings = settings_of(self._disk.here(text)) | clock_environment(offset_s)
        key = tuple(sorted(settings.items()))
        if key in self._running:
            self._running[key] = self._running.pop(key)
            return self._running[key]
        while len(self._running) >= _KEPT:
            self._running.pop(next(iter(self._running))).kill()
        self._running[key] = Gunicorn(**{"WEB_CONCURRENCY": "1"} | settings)
        return self._running[key]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._running:
            self._running.popitem()[1].kill()


class Proxy(Protocol):
    """The proxy in front."""

    http_port: int
    https_port: int

    def output(self) -> str:
        """What it said."""

    def stop(self) -> None:
        """End it."""


class _Nginx(NginxSite):
    """nginx with the operator's files instead of the shipped ones."""

    def __init__(self, files: Files, here: Callable[[str], str], environment: Mapping[str, str]) -> None:
        self._files, self._here = files, here
        super().__init__("", environment=environment)

    def _write_site(self, site: Path) -> None:
        for name, text in self._files.items():
            folder, _, path = name.partition("/")
            if folder == "nginx":
                (site / path).parent.mkdir(parents=True, exist_ok=True)
                (site / path).write_text(self._on_this_machine(text))

    def _on_this_machine(self, text: str) -> str:
        text = re.sub(r"\blisten 192\.0\.2\.(\d+):443\b", rf"listen 127.0.0.\1:{self.https_port}", text)
        text = re.sub(r"^ *listen \[::\]:.*\n", "", text, flags=re.MULTILINE)
        text = re.sub(r"\blisten 80\b", f"listen 127.0.0.1:{self.http_port}", text)
        text = re.sub(r"\blisten \d+ ", f"listen 127.0.0.1:{self.https_port} ", text)
        # Tests read the log at once.
        text = text.replace("buffer=64k flush=1s", "").replace("/var/log/nginx/", f"{self.folder}/")
        return self._here(text)


class _Program:
    """A proxy with one configuration file, which listens on two ports, and stays in the foreground."""

    def __init__(
        self,
        kind: str,
        configuration: Callable[[Self], str],
        command: list[str],
        environment: Mapping[str, str],
        package: str = "",
        *,
        is_public: bool = True,
    ) -> None:
        """Start it, and wait until it listens.

        Args:
            kind: The name of its program.
            configuration: The text of its file, when its folder and ports are known.
            command: Its arguments before the file; `{folder}` and `{port}` are filled in.
            environment: More of its environment; `{folder}` is filled in.
            package: Debian's, where it has another name.
            is_public: Whether it listens for https too.

        Raises:
            FileNotFoundError: When it is not installed.
            DidNotStart: When it ends, or does not listen within 20 s.
        """
        program = shutil.which(kind, path=os.environ.get("PATH", "") + ":/usr/sbin")
        if program is None:
            raise FileNotFoundError(f"no {kind} here: install the package `{package or kind}`")
        self.folder = Path(tempfile.mkdtemp(prefix="pylon-p-"))
        self.folder.chmod(0o755)
        self._holders = [hold_port(), hold_port()]
        self.http_port, self.https_port = (holder.getsockname()[1] for holder in self._holders)
        self._ports = (self.http_port, self.https_port) if is_public else (self.http_port,)
        file = self.folder / "proxy.conf"
        file.write_text(configuration(self))
        here = {"{folder}": str(self.folder), "{port}": str(self.http_port)}
        with (self.folder / "output.txt").open("wb") as output:
            self._process = subprocess.Popen(
                [program, *(_filled(word, here) for word in command), str(file)],
                env=clean_environment(**{name: _filled(value, here) for name, value in environment.items()}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        end = time.monotonic() + _START_S
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise DidNotStart(f"it exited with {self._process.returncode}:\n{self.output()}")
            with contextlib.suppress(OSError):
                for port in self._ports:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                return
            time.sleep(_POLL_S)
        raise DidNotStart(f"it did not listen within {_START_S:.0f} s:\n{self.output()}")

    def output(self) -> str:
        """What it printed and logged."""
        return "".join(path.read_text(errors="replace") for path in self.folder.glob("*.txt"))

    def stop(self) -> None:
        """End it by its own process id, and remove its folder."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for holder in self._holders:
            holder.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _filled(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def _apache_configuration(site: str, program: _Program) -> str:
    """What Debian's `apache2.conf` and `ports.conf` say, and the operator's site."""
    modules = "".join(
        f'LoadModule {name}_module "{MODULES}/mod_{name}.so"\n' for name in _APACHE_MODULES.split()
    )
    nobody = pwd.getpwnam("nobody")
    user = f"User #{nobody.pw_uid}\nGroup #{nobody.pw_gid}\n" if os.geteuid() == 0 else ""
    folder = program.folder
    for port, ours in ((443, program.https_port), (80, program.http_port)):
        site = re.sub(rf"<VirtualHost (\S+):{port}>", rf"<VirtualHost \1:{ours}>", site)
    return f"""{modules}{user}
ServerRoot "{folder}"
DefaultRuntimeDir "{folder}"
PidFile "{folder}/httpd.pid"
ErrorLog "{folder}/error.txt"
LogLevel warn
ServerName localhost
Listen 127.0.0.1:{program.http_port}
Listen 127.0.0.1:{program.https_port}
StartServers 1
ServerLimit 1
ThreadsPerChild 16
MaxRequestWorkers 16
{site}"""


def _haproxy_configuration(site: str, program: _Program) -> str:
    site = re.sub(r"\bbind :80\b", f"bind 127.0.0.1:{program.http_port}", site)
    return re.sub(r"\bbind :443\b", f"bind 127.0.0.1:{program.https_port}", site)


def _caddy_configuration(site: str, program: _Program) -> str:
    """The operator's file, and what it cannot know: ports that are free, and that nobody is asked for certificates."""
    return f"""{{
    admin off
    auto_https disable_certs
    http_port {program.http_port}
    https_port {program.https_port}
    default_bind 127.0.0.1
    skip_install_trust
    log {{
        output stderr
        level ERROR
    }}
}}
{site}"""


@dataclass(frozen=True)
class Running:
    """A deployment that runs.

    Attributes:
        url: What is asked for.
        proxy: What stands in front.
        inside: The first application, without the proxy.
        disk: Its disk.
        addresses: Of its name.
    """

    url: str
    proxy: Proxy
    inside: Gunicorn
    disk: Disk
    addresses: tuple[str, ...] = ("127.0.0.1",)

    def way(self) -> list[str]:
        """How `doctor` reaches it."""
        port = urlsplit(self.url).port or 443
        ways = [f"{NAME}:{port}:{address}:{self.proxy.https_port}" for address in self.addresses]
        return [
            *(word for way in ways for word in ("--connect-to", way)),
            *("--connect-to", f"{NAME}:80:127.0.0.1:{self.proxy.http_port}"),
            *("--ca", str(self.disk.ca)),
        ]

    def doctor_options(self) -> list[str]:
        """How `doctor` reaches it, and with what."""
        secrets = self.disk.folder / "secrets"
        return [
            *self.way(),
            *("--client-id", CLIENT, "--client-secret-file", str(secrets / "client-secret")),
            *("--redirect-uri", REDIRECT_URI),
            *(
                "--admin-url",
                f"http://127.0.0.1:{self.inside.port}",
                "--admin-token-file",
                str(secrets / "admin-token"),
            ),
        ]

    def ask(self, target: str) -> bytes:
        """Get something as a client of the public address does; all that comes back."""
        context = ssl.create_default_context(cafile=str(self.disk.ca))
        with (
            socket.create_connection(("127.0.0.1", self.proxy.https_port), 10) as wire,
            context.wrap_socket(wire, server_hostname=NAME) as tls,
        ):
            host = urlsplit(self.url).netloc
            tls.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return b"".join(iter(lambda: tls.recv(65536), b""))


@contextlib.contextmanager
def run(deployment: Deployment, files: Files, apps: Apps, disk: Disk, cache: Path) -> Iterator[Running]:
    """Run a deployment.

    Args:
        deployment: Which.
        files: Its files.
        apps: Where its applications come from.
        disk: Its disk.
        cache: The folder of nginx's cache.

    Yields:
        It, running.
    """
    offset_s = deployment.clock_offset_s(files)
    names = {FIRST: SETTINGS} | {name: f"{name}/{SETTINGS}" for name in deployment.replicas}
    first, *_ = gunicorns = [
        apps.get(files[file], deployment.clocks.get(name, offset_s)) for name, file in names.items()
    ]
    addresses = {name: f"127.0.0.1:{each.port}" for name, each in zip(names, gunicorns, strict=True)}
    with contextlib.ExitStack() as stack:
        for name, answer in deployment.strangers.items():
            headers = (("Content-Type", answer["type"]), *answer.get("headers", {}).items())
            reply = Reply(answer["status"], headers, answer["body"].encode())
            stub = stack.enter_context(StubUpstream(lambda _, reply=reply: reply))
            addresses[name] = f"unix:{stub.socket_path}"

        for name, delay_s in deployment.delays.items():
            relay = stack.enter_context(Relay(int(addresses[name].rpartition(":")[2]), delay_s))
            addresses[f"slow-{name}"] = f"127.0.0.1:{relay.port}"

        def here(text: str) -> str:
            text = text.replace("127.0.0.1:6081", f"127.0.0.1:{cached.http_port}" if cached else "nowhere")
            text = text.replace('"4321"', f'"{first.port}"')
            text = re.sub(
                r"unix([:@])/run/pylon-oidc/([a-z0-9-]+)\.sock\b",
                lambda found: addresses.get(found[2], f"unix:{cache}/nobody.sock").replace(
                    "unix:", f"unix{found[1]}"
                ),
                text,
            )
            # Not the beginning of a longer port: those of this machine's own are in the text by now.
            text = re.sub(r"\b127\.0\.0\.1:4321\b", addresses[FIRST], text)
            return disk.here(text.replace("/var/lib/nginx/pylon-oidc", str(cache)))

        environment = clock_environment(offset_s)
        cached: _Program | None = None
        if deployment.cache:
            cached = _Program(
                "varnishd",
                lambda _: here(files[VARNISH]),
                [
                    "-F",
                    "-j",
                    "none",
                    "-n",
                    "{folder}/work",
                    "-a",
                    "127.0.0.1:{port}",
                    "-s",
                    "malloc,16m",
                    "-f",
                ],
                environment,
                "varnish",
                is_public=False,
            )
            stack.callback(cached.stop)
        proxy: Proxy
        if deployment.proxy == "apache":
            proxy = _Program(
                "apache2",
                lambda program: _apache_configuration(here(files[APACHE]), program),
                ["-D", "FOREGROUND", "-f"],
                environment,
            )
        elif deployment.proxy == "haproxy":
            proxy = _Program(
                "haproxy",
                lambda program: _haproxy_configuration(here(files[HAPROXY]), program),
                ["-db", "-f"],
                environment,
            )
        elif deployment.proxy == "caddy":
            proxy = _Program(
                "caddy",
                lambda program: _caddy_configuration(here(files[CADDY]), program),
                ["run", "--adapter", "caddyfile", "--config"],
                {**environment, "XDG_DATA_HOME": "{folder}", "XDG_CONFIG_HOME": "{folder}"},
            )
        else:
            proxy = _Nginx(files, here, environment)
        stack.callback(proxy.stop)
        addressed = tuple(each.replace("192.0.2.", "127.0.0.") for each in deployment.addresses)
        yield Running(deployment.url, proxy, first, disk, addressed or ("127.0.0.1",))
