"""What an application is signed in to: the provider, started as anybody would start it, and one user."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import requests

from apps.browser import Browser
from tests.support.gunicorn import ADMIN, PROJECT, Gunicorn, clean_environment, hold_port

USER = "ada"
NAME, EMAIL, GROUPS = "Ada Byron", "ada@example.com", ["admin", "dev"]
RECORD = {
    "claims": {
        "name": NAME, "given_name": "Ada", "family_name": "Byron", "preferred_username": "ada", "email": EMAIL,
        "email_verified": True, "picture": "https://example.com/ada.png",
    },
    "roles": GROUPS,
}  # fmt: skip
_START_S = 120.0
_ROTATION_S = 30.0
#: Longer than a worker takes to learn of a rotation, with the margins of `tests.flows.rotating`.
_LEARNT_S = 2.5


class Stand:
    """The provider and all that is around one application; ends what it started.

    Args:
        https: the issuer is `https://` at `tls_port`, where an application of ours must pass on what comes.
        settings: more of the provider's environment.
    """

    def __init__(self, *, https: bool = False, **settings: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="pylon-apps-"))
        self._stack = contextlib.ExitStack()
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        if https:
            self.tls_port = self._stack.enter_context(self.port())
            settings["PYLON_OIDC_ISSUER"] = f"https://127.0.0.1:{self.tls_port}"
        self.provider = self._stack.enter_context(
            Gunicorn(
                app="tests.flows.rotating:make()",
                PYLON_DEV_MODE="1",
                PYLON_OIDC_KEYS="managed",
                PYLON_ADMIN_TOKEN=ADMIN,
                PYLON_DATA_DIR=str(self.folder / "data"),
                **settings,
            )
        )
        self._settings = settings
        self.issuer = settings.get("PYLON_OIDC_ISSUER", self.provider.origin)
        self.admin("PUT", f"/api/auth/users/{USER}", RECORD)

    def __enter__(self) -> Stand:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def admin(self, method: str, path: str, body: Any) -> Any:
        """What the admin API answers."""
        answer = requests.request(
            method,
            self.provider.origin + path,
            json=body,
            headers={"Authorization": f"Bearer {ADMIN}"},
            timeout=20,
        )
        assert answer.ok, answer.text
        return answer.json()

    def command(self, *arguments: str) -> str:
        """What `pylon-oidc` prints, run by the operator of this provider."""
        environ = clean_environment(
            PYLON_DATA_DIR=str(self.folder / "data"),
            PYLON_DEV_MODE="1",
            PYLON_OIDC_KEYS="managed",
            PORT=str(self.provider.port),
            **self._settings,
        )
        done = subprocess.run(
            [sys.executable, "-m", "service", *arguments],
            env=environ, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def register(self, preset: str, url: str | None, *more: str) -> dict[str, Any]:
        """The one line of the page: the client, with its secret, and in `paste` what to write at the other side."""
        at = () if url is None else ("--url", url)
        made: dict[str, Any] = json.loads(
            self.command("clients", "add", "--preset", preset, *at, *more, "--json")
        )
        return made

    def browser(self) -> Browser:
        """A person's fresh browser."""
        return Browser(self.issuer, USER)

    def rotate(self) -> None:
        """Another key signs from now on, as soon as that is safe."""
        from service.keys.ring import KeyRecords, Ring, UnsafeStep
        from service.keys.rotation import rotated
        from service.keys.sealing import SealingKeys
        from service.keys.store import RingStore
        from tests.flows.rotating import MARGINS
        from tests.storage.stores import open_url

        store = open_url(f"sqlite:///{self.folder}/data/pylon.db")
        rings = RingStore(store, SealingKeys.of_dev_mode(), ("RS256",), has_clients=True)
        end = time.monotonic() + _ROTATION_S

        def step(ring: Ring) -> KeyRecords:
            return rotated(ring.keys, "RS256", now, MARGINS)

        while True:
            now = int(time.time())
            try:
                rings.ensure(MARGINS, now=now, step=step)
                break
            except UnsafeStep:
                assert time.monotonic() < end, "the key cannot be rotated"
                time.sleep(0.3)
        store.close()
        time.sleep(_LEARNT_S)

    @contextlib.contextmanager
    def port(self) -> Iterator[int]:
        """A loopback port that nobody else is given."""
        holder = hold_port()
        try:
            yield holder.getsockname()[1]
        finally:
            holder.close()

    @contextlib.contextmanager
    def process(
        self,
        command: Sequence[str | Path],
        *,
        ready: Callable[[], bool] | str,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        start_s: float = _START_S,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start a program, wait until it is ready (an address that answers, or what is true then), and end it."""
        log = self.folder / f"log-{time.monotonic_ns()}.txt"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                env=direct(environ), cwd=cwd or self.folder, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        is_ready = ready if callable(ready) else lambda: answers(ready)
        try:
            end = time.monotonic() + start_s
            while not is_ready():
                said = log.read_text(errors="replace")[-4000:]
                assert process.poll() is None, f"it ended with {process.returncode}: {said}"
                assert time.monotonic() < end, f"it is not ready: {said}"
                time.sleep(0.2)
            yield process
        except BaseException as failure:
            failure.add_note("its log ends with: " + log.read_text(errors="replace")[-6000:])
            raise
        finally:
            end_tree(process)


def answers(url: str, *, well: bool = False) -> bool:
    """Whether a server answers there, whatever it says; or only well."""
    try:
        with requests.Session() as http:
            http.trust_env = False
            return http.get(url, timeout=5, allow_redirects=False).ok or not well
    except requests.RequestException:
        return False


def direct(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without settings of ours and without proxies, for programs that only ask this machine."""
    kept = {name: value for name, value in clean_environment().items() if not name.lower().endswith("_proxy")}
    return kept | dict(more or {})


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children, each by its id."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        for one in [*children, psutil.Process(process.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(children, timeout=10)
        for one in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(15)


def environment_of(paste: str) -> dict[str, str]:
    """The lines `NAME=value` of what to paste."""
    return dict(line.split("=", 1) for line in paste.splitlines() if "=" in line)


HOME = Path(os.environ.get("PYLON_APPS_DIR") or PROJECT / ".apps")
