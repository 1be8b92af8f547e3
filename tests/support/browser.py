"""Chromium without a window, driven over the W3C WebDriver protocol by its own chromedriver.

Spec: W3C WebDriver §6 (endpoints); the Chrome DevTools protocol for what WebDriver has no word for
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import requests
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.support.gunicorn import clean_environment
from tests.support.stopping import Stoppable, end_process

TAB, ENTER, SPACE = "\ue004", "\ue007", " "
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_WAIT_S = 60.0
_POLL_S = 0.02
_READY = re.compile(r"started successfully on port (\d+)")


class BrowserError(AssertionError):
    """What the driver said went wrong."""


class Browser(Stoppable):
    """One Chromium with a profile of its own, from its start to its end."""

    def __init__(self, *flags: str) -> None:
        """Start it.

        Args:
            flags: More flags of Chromium.

        Raises:
            FileNotFoundError: When Chromium or its driver is not installed.
            BrowserError: When it does not start.
        """
        driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
        if driver is None or chromium is None:
            raise FileNotFoundError("no Chromium here: install `chromium` and `chromium-driver`")
        self.folder = Path(tempfile.mkdtemp(prefix="pylon-b-"))
        self._http = requests.Session()
        self._http.trust_env = False
        self._session = ""
        log_path = self.folder / "driver.txt"
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [driver, "--port=0"],
                env=clean_environment(HOME=str(self.folder)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._base = f"http://127.0.0.1:{self._port(log_path)}"
            own = ["--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
            own += ["--disable-background-networking", "--no-proxy-server", "--hide-scrollbars"]
            own.append(f"--user-data-dir={self.folder / 'profile'}")
            if os.geteuid() == 0:  # its sandbox refuses root
                own.append("--no-sandbox")
            options = {"binary": chromium, "args": [*own, *flags]}
            wanted = {
                "browserName": "chrome",
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL"},
            }
            made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._session = f"/session/{made['sessionId']}"
        except BaseException:
            self.stop()
            raise

    def _port(self, log_path: Path) -> int:
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end and self._process.poll() is None:
            if found := _READY.search(log_path.read_text(errors="replace")):
                return int(found[1])
            time.sleep(_POLL_S)
        raise BrowserError(f"chromedriver did not start:\n{log_path.read_text(errors='replace')}")

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        """Give the driver a command; its value."""
        data = None if method != "POST" else (body or {})
        answer = self._http.request(method, self._base + self._session + path, json=data, timeout=60)
        value = answer.json()["value"]
        if answer.status_code != 200:
            raise BrowserError(f"{method} {path}: {value['error']}: {value['message'].splitlines()[0]}")
        return value

    def stop(self) -> None:
        """End it and its driver, and remove its profile."""
        family = psutil.Process(self._process.pid).children(recursive=True) if self._alive() else []
        if self._session:
            with contextlib.suppress(requests.RequestException, BrowserError):
                self._call("DELETE", "")
        end_process(self._process, 10)
        for process in family:  # its helpers take seconds to notice
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=5)
        self._http.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _alive(self) -> bool:
        return self._process.poll() is None

    # Where it is

    def open(self, url: str) -> None:
        """Go there, and wait until the page at the end of all redirects has loaded."""
        self._call("POST", "/url", {"url": url})

    @property
    def url(self) -> str:
        """Where it is."""
        return str(self._call("GET", "/url"))

    @property
    def title(self) -> str:
        """Of the page."""
        return str(self._call("GET", "/title"))

    @property
    def text(self) -> str:
        """What the page says."""
        return str(self.run("return document.body.innerText"))

    def wait_for(self, url_start: str) -> str:
        """Wait until it is at an address that begins so, with the page loaded; the address."""
        self._wait(
            lambda: self.url.startswith(url_start) and self.run("return document.readyState") == "complete",
            url_start,
        )
        return self.url

    def wait_for_title(self, start: str) -> None:
        """Wait until the page's title begins so."""
        self._wait(lambda: self.title.startswith(start), start)

    def wait_for_text(self, part: str) -> None:
        """Wait until the page says this, among other things."""
        self._wait(lambda: part in self.text, part)

    def _wait(self, ask: Callable[[], bool], what: str) -> None:
        """Ask until the answer is yes.

        Raises:
            BrowserError: When it is still no after 20 s.
        """
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end:
            with contextlib.suppress(BrowserError):  # between two pages there is none to be asked about
                if ask():
                    return
            time.sleep(_POLL_S)
        raise BrowserError(f"waited for {what!r}, but it is at {self.url}, {self.title!r}:\n{self.text}")

    # What its user does

    def find(self, css: str) -> str:
        """The element's name in the protocol.

        Raises:
            BrowserError: When there is none.
        """
        return str(self._call("POST", "/element", {"using": "css selector", "value": css})[_ELEMENT])

    def click(self, css: str) -> None:
        """Click an element, once it takes clicks; a page that comes of it has loaded afterwards."""
        takes = "return getComputedStyle(document.querySelector(arguments[0])).pointerEvents !== 'none'"
        element = self.find(css)
        self._wait(lambda: bool(self.run(takes, css)), f"{css} to take clicks")
        self._call("POST", f"/element/{element}/click")

    def click_at_once(self, css: str, times: int = 2) -> None:
        """Press the mouse where an element is, as somebody does who was clicking there already."""
        box = self.run(
            "const b = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return [b.x + b.width / 2, b.y + b.height / 2]",
            css,
        )
        for count in range(1, times + 1):
            for kind in ("mousePressed", "mouseReleased"):
                self.devtools(
                    "Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=count
                )

    def write(self, css: str, text: str) -> None:
        """Write into a field, and replace its text."""
        element = self.find(css)
        self._call("POST", f"/element/{element}/clear")
        self._call("POST", f"/element/{element}/value", {"text": text})

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, whatever has the focus."""
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

    def tab_to(self, css: str, most: int = 20) -> None:
        """Press Tab until the element has the focus.

        Raises:
            BrowserError: When it never has.
        """
        for _ in range(most):
            self.press(TAB)
            if self.run("return document.activeElement.matches(arguments[0])", css):
                return
        raise BrowserError(f"{css} cannot be reached by Tab")

    # What a test asks of it

    def run(self, script: str, *arguments: object) -> Any:
        """Run a function body in the page; its value, or that of the promise that it returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def devtools(self, command: str, **parameters: object) -> Any:
        """Give a command of the DevTools protocol."""
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def forget(self) -> None:
        """Leave the page, and drop every cookie and what the console said."""
        self.open("about:blank")
        self.devtools("Network.clearBrowserCookies")
        self.console()

    def cookies(self) -> dict[str, dict[str, Any]]:
        """Every cookie of every site, by name."""
        return {cookie["name"]: cookie for cookie in self.devtools("Storage.getCookies")["cookies"]}

    def console(self) -> list[str]:
        """What the console has said since it was asked last, warnings and violations included.

        That a host has no `/favicon.ico` is left out: no page asks for it, Chromium does.
        """
        entries = self._call("POST", "/se/log", {"type": "browser"})
        said = [f"{entry['level']} {entry['source']}: {entry['message']}" for entry in entries]
        return [line for line in said if "/favicon.ico" not in line]

    def view(self, width: int, height: int, *, dark: bool) -> None:
        """Give the window a size, in CSS pixels, and its user a taste."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        taste = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[taste])

    def allow_scripts(self, allowed: bool) -> None:
        """Let pages run scripts, or not."""
        self.devtools("Emulation.setScriptExecutionDisabled", value=not allowed)

    def screenshot(self, path: Path) -> None:
        """Keep what the whole page looks like."""
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


def trust_flags(certificate: Path, *names: str) -> list[str]:
    """Flags by which Chromium finds names on this machine, and believes a certificate by its key.

    Args:
        certificate: A PEM file.
        names: Host names.
    """
    public = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    info = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    pin = base64.b64encode(hashlib.sha256(info).digest()).decode()
    rules = ",".join(f"MAP {name} 127.0.0.1" for name in names)
    return [f"--ignore-certificate-errors-spki-list={pin}", f"--host-resolver-rules={rules}"]
