"""Applications of Node: Auth.js, express-openid-connect, passport-openidconnect; and oidc-client-ts in a browser."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from apps.application import Application, Person, Running, SignOut, block_of
from apps.browser import Browser
from apps.installing import node, npm, npm_version
from apps.stand import NAME, USER, Stand

_AUTHJS = """
import { ExpressAuth, getSession } from "@auth/express";
import express from "express";

const config = {
  trustHost: true,
  secret: "of your own",
  PASTE
};
const app = express();
app.use("/auth", ExpressAuth(config));
app.get("/who", async (req, res) => res.json((await getSession(req, config))?.user ?? {}));
app.listen(PORT, "127.0.0.1");
"""
_EXPRESS = """
import express from "express";
import pkg from "express-openid-connect";

const { auth } = pkg;
process.env.SECRET = "of your own, and long enough to be one";
const app = express();
app.use(
  PASTE
);
app.get("/", (req, res) => res.json(req.oidc.user));
app.get("/refreshed", async (req, res) => {
  const before = req.oidc.accessToken.access_token;
  res.json({ fresh: (await req.oidc.accessToken.refresh()).access_token !== before });
});
app.listen(PORT, "127.0.0.1");
"""
_PASSPORT = """
import express from "express";
import session from "express-session";
import passport from "passport";
import OpenIDConnectStrategy from "passport-openidconnect";

passport.use(
  PASTE
);
passport.serializeUser((user, done) => done(null, user));
passport.deserializeUser((user, done) => done(null, user));
const app = express();
app.use(session({ secret: "of your own", resave: false, saveUninitialized: false }));
app.use(passport.session());
app.get("/login", passport.authenticate("openidconnect"));
app.get("/signed-in", passport.authenticate("openidconnect", { failWithError: true }), (req, res) => res.redirect("/who"));
app.get("/who", (req, res) => res.json(req.user ?? {}));
app.get("/out", (req, res) => req.logout(() => res.redirect("/who")));
app.listen(PORT, "127.0.0.1");
"""


class _NodeApp(Application):
    """A program of a few lines, with what the page says in it."""

    light = True
    package: ClassVar[str]
    program: ClassVar[str]
    running: ClassVar[type[Running]]

    def version(self) -> str:
        return npm_version(self.package)

    def pasted(self, paste: str) -> str:
        """What its preset prints, with what the page adds to it."""
        return paste

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        modules = npm() / "node_modules"
        with stand.port() as port:
            url = f"http://localhost:{port}"
            paste = self.pasted(stand.register(self.name, url)["paste"])
            file = stand.folder / "app.mjs"
            file.write_text(self.program.replace("PASTE", paste).replace("PORT", str(port)))
            (stand.folder / "node_modules").symlink_to(modules)
            with stand.process([node(), file], ready=f"{url}/who"):
                yield self.running(url)  # type: ignore[call-arg]


class _AuthJs(Running):
    signs_out = SignOut.THERE

    def __init__(self, url: str) -> None:
        self._url = url

    def sign_in(self, browser: Browser) -> Person:
        form = browser.open(f"{self._url}/auth/signin").form("csrfToken")
        browser.submit(form)
        who: dict[str, Any] = browser.open(f"{self._url}/who").json()
        return Person(who.get("name"), who.get("email"), who.get("groups"))

    def sign_out(self, browser: Browser) -> None:
        browser.submit(browser.open(f"{self._url}/auth/signout").form("csrfToken"))
        assert browser.open(f"{self._url}/who").json() == {}


class AuthJs(_NodeApp):
    """https://www.npmjs.com/package/@auth/express"""

    name, package, program, running = "authjs", "@auth/express", _AUTHJS, _AuthJs


class _Express(Running):
    refreshes, signs_out = True, SignOut.EVERYWHERE

    def __init__(self, url: str) -> None:
        self._url = url

    def sign_in(self, browser: Browser) -> Person:
        who = browser.open(f"{self._url}/").json()
        return Person(who.get("name"), who.get("email"), who.get("groups"))

    def refresh(self, browser: Browser) -> None:
        assert browser.open(f"{self._url}/refreshed").json() == {"fresh": True}
        assert browser.open(f"{self._url}/").json()["name"] == NAME

    def sign_out(self, browser: Browser) -> None:
        browser.open(f"{self._url}/logout")
        assert any(url.startswith(f"{browser.issuer}/oidc/logout?") for url in browser.trail)
        assert browser.open(f"{self._url}/").url.startswith(browser.issuer)  # asked to sign in


class ExpressOpenidConnect(_NodeApp):
    """https://www.npmjs.com/package/express-openid-connect"""

    name, package, program, running = "express-openid-connect", "express-openid-connect", _EXPRESS, _Express

    def pasted(self, paste: str) -> str:
        line, more = 'authorizationParams: { response_type: "code" },', block_of(self.name, "js").strip()
        assert line in paste
        return paste.replace(line, more)


class _Passport(Running):
    signs_out = SignOut.THERE

    def __init__(self, url: str) -> None:
        self._url = url

    def sign_in(self, browser: Browser) -> Person:
        who = browser.open(f"{self._url}/login").json()
        return Person(who["displayName"], who["emails"][0]["value"], who.get("groups"))

    def sign_out(self, browser: Browser) -> None:
        assert browser.open(f"{self._url}/out").json() == {}


class PassportOpenidconnect(_NodeApp):
    """https://www.npmjs.com/package/passport-openidconnect"""

    name, package, program, running = "passport-openidconnect", "passport-openidconnect", _PASSPORT, _Passport


_PAGE = """<!doctype html><meta charset="utf-8"><title>A page</title><script src="/oidc-client-ts.min.js"></script>
<script>
const { UserManager } = oidc;
const manager = PASTE;
window.shown = null;
(async () => {
  if (location.search.includes("code=")) {
    await manager.signinCallback();
    history.replaceState(null, "", "/");
  }
  window.shown = (await manager.getUser())?.profile ?? {};
})().catch((error) => { window.shown = { error: String(error) }; });
</script>"""


class _Page(Running):
    refreshes, signs_out = True, SignOut.EVERYWHERE

    def __init__(self, url: str, issuer: str) -> None:
        self._url, self._issuer = url, issuer
        self._browsers = contextlib.ExitStack()
        self._chromium: Any = None

    def stop(self) -> None:
        """End the browsers."""
        self._browsers.close()

    def sign_in(self, browser: Browser) -> Person:
        from tests.support.browser import Browser as Chromium

        self._browsers.close()
        self._chromium = chromium = self._browsers.enter_context(Chromium())
        chromium.open(f"{self._url}/")
        _until(lambda: chromium.run("return window.shown !== null"))
        chromium.run("manager.signinRedirect()")
        _until(lambda: "/dev/sign-in" in chromium.url)
        chromium.run(f"document.querySelector('[name=user_id]').value = '{USER}'; document.forms[0].submit()")
        _until(lambda: chromium.url.startswith((f"{self._issuer}/oidc/interaction/", self._url)))
        if not chromium.url.startswith(self._url):  # a yes is remembered
            chromium.run("document.querySelector('[value=allow]').click()")
        who = self._shown()
        return Person(who.get("name"), who.get("email"), who.get("groups"))

    def _shown(self) -> dict[str, Any]:
        _until(
            lambda: (
                self._chromium.url == f"{self._url}/" and self._chromium.run("return window.shown !== null")
            )
        )
        return dict(self._chromium.run("return window.shown"))

    def refresh(self, browser: Browser) -> None:
        chromium = self._chromium
        chromium.run(
            "window.fresh = null; manager.getUser().then((before) => manager.signinSilent().then((after) => "
            "{ window.fresh = [before.access_token, after.access_token]; }))"
            ".catch((error) => { window.fresh = [String(error)]; })"
        )
        _until(lambda: chromium.run("return window.fresh"))
        fresh = chromium.run("return window.fresh")
        assert len(fresh) == 2 and fresh[0] != fresh[1], fresh

    def is_signed_in(self, browser: Browser) -> bool:
        return "pylon_session" in self._chromium.cookies()

    def sign_out(self, browser: Browser) -> None:
        self._chromium.run("manager.signoutRedirect()")
        assert "error" not in self._shown() and not self._shown()
        _until(lambda: self._chromium.url == f"{self._url}/")


class OidcClientTs(Application):
    """https://www.npmjs.com/package/oidc-client-ts, in Chromium."""

    name, light = "oidc-client-ts", True

    def version(self) -> str:
        return npm_version("oidc-client-ts")

    @contextlib.contextmanager
    def run(self, stand: Stand) -> Iterator[Running]:
        bundle = npm() / "node_modules/oidc-client-ts/dist/browser/oidc-client-ts.min.js"
        folder = stand.folder / "page"
        folder.mkdir()
        shutil.copy(bundle, folder)
        with _served(folder) as port:
            url = f"http://localhost:{port}"
            paste = stand.register(self.name, url)["paste"]
            (folder / "index.html").write_text(_PAGE.replace("PASTE", paste))
            page = _Page(url, stand.issuer)
            try:
                yield page
            finally:
                page.stop()


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[int]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _until(is_true: Any, timeout_s: float = 30) -> None:
    end = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)


APPS = [AuthJs(), ExpressOpenidConnect(), PassportOpenidconnect(), OidcClientTs()]
