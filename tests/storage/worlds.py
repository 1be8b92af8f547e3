"""What administrators and users do to one user and one client at the same moment, and what must hold afterwards.

What is done (`ACTS`) knows the provider from outside, except the rotation of keys, which is a command's. A scene is
only text, so that it can be sent to another process.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

from service.app import create_app
from service.handles import hash_handle
from service.keys.ring import Margins, role, signer
from service.keys.rotation import revoked
from service.keys.starting import load_managed_keys, ring_store
from service.keys.store import RingStore
from service.settings import read_settings
from service.storage.interface import Kind
from service.storage.sql import SqlStore
from tests.http.driver import Clock, House
from tests.provider.browser import FORM, Landing, query_of
from tests.provider.driver import CALLBACK, ISSUER, LOGIN_URL, Provider, Request
from tests.support.gunicorn import ADMIN, TRUSTED, Answer

M: Final = Margins()
ALG: Final = "ES256"
SCOPE: Final = "openid offline_access"
ENVIRON: Final = {
    "PYLON_OIDC_ISSUER": ISSUER,
    "PYLON_LOGIN_URL": LOGIN_URL,
    "PYLON_ADMIN_TOKEN": ADMIN,
    "PYLON_TRUSTED_SECRET": TRUSTED,
    "PYLON_JWT_ALG": ALG,
    "PYLON_JWT_AUDIENCE": "api",
    "PYLON_OIDC_KEYS": "managed",
    "PYLON_KEY_ENCRYPTION_KEY": base64.b64encode(bytes(range(32))).decode(),
    "PYLON_OIDC_ALGS": f"{ALG},RS256",
}
_numbers = itertools.count()


@dataclass(frozen=True)
class World:
    """A provider on a store, as one process has it."""

    provider: Provider
    store: SqlStore
    rings: RingStore

    @property
    def now(self) -> int:
        """Unix s."""
        return int(self.provider.clock())

    @property
    def app(self) -> Any:
        """The app's backend, with the admin token."""
        return self.provider.app


def world_on(store: SqlStore, url: str, clock: Clock | None = None) -> World:
    """A provider, with managed keys, on a store that is open already."""
    settings = read_settings(ENVIRON | {"DATABASE_URL": url}).settings
    clock = clock or Clock()
    keys, _ = load_managed_keys(settings, store, M, clock)
    app = create_app(settings, store, keys, clock)
    provider = Provider(House(app, settings, clock, io.StringIO()), [])
    return World(provider, store, ring_store(settings, store))


@dataclass(frozen=True)
class Scene:
    """One user who is signed in, and one client that may have offline access.

    Attributes:
        session, sid: the user's session.
        code, code_verifier: of a code that nobody has redeemed yet.
        access_token, refresh_token, grant_id: what an earlier code has given.
        interaction: one that waits for a sign-in, and its browser's cookies.
        proof: the body of a sign-in by trusted mint.
        now: when all of it happens, Unix s.
    """

    user: str
    client_id: str
    secret: str
    first_party: bool
    session: str
    sid: str
    code: str
    code_verifier: str
    access_token: str
    refresh_token: str
    grant_id: str
    interaction: str
    cookies: tuple[tuple[str, str, str], ...]
    proof: bytes
    now: int

    def rp(self, world: World, secret: str | None = None) -> Any:
        """The client, with its secret unless another is given."""
        return world.provider.rp(self.client_id, secret=secret or self.secret, redirect_uri=CALLBACK)


def new_scene(world: World, *, first_party: bool) -> Scene:
    """A user and a client of their own; the user has agreed to the client where anybody is asked."""
    # By then every worker has looked which keys there are.
    world.provider.clock.advance(M.learn_s + M.slack_s + 1)
    number = f"{os.getpid()}-{next(_numbers)}"
    user, client_id = f"user-{number}", f"client-{number}"
    made = world.app.call("POST", "/api/oidc/clients", _metadata(client_id, first_party=first_party))
    assert made.status == 201, made
    begun = world.app.session(user, claims={"name": "Old"}, roles=["old"], tenant_id="old")
    partial = Scene(
        user, client_id, made.json()["client_secret"], first_party, begun["token"], begun["sid"],
        *[""] * 6, (), f'{{"user_id": "{user}", "nonce": "{number}", "device": "trusted"}}'.encode(),
        world.now,
    )  # fmt: skip
    redeemed, tokens = _authorized(world, partial)
    tokens = _exchange(world, partial, redeemed).json()
    (grant,) = world.app.grants(user)
    code, _ = _authorized(world, partial)
    browser = world.provider.browser()
    landing = browser.go(partial.rp(world).request(scope=SCOPE).url)
    assert landing.is_at(LOGIN_URL), landing
    return Scene(
        *(
            getattr(partial, name)
            for name in ("user", "client_id", "secret", "first_party", "session", "sid")
        ),
        code["code"],
        code["verifier"],
        tokens["access_token"],
        tokens["refresh_token"],
        grant["id"],
        query_of(landing.url)["interaction"],
        tuple((cookie.name, cookie.value, cookie.path) for cookie in browser.cookies.values()),
        partial.proof,
        partial.now,
    )


def _metadata(client_id: str, *, first_party: bool, **more: Any) -> dict[str, Any]:
    return {
        "client_id": client_id,
        "redirect_uris": [CALLBACK],
        "first_party": first_party,
        "id_token_signed_response_alg": ALG,
    } | more


def _authorized(world: World, scene: Scene) -> tuple[dict[str, str], Landing]:
    """A code for the user's browser, and where it came to rest; none where it is sent to sign in."""
    browser = world.provider.browser()
    browser.set_cookie(world.provider.house.settings.cookie_name, scene.session)
    request: Request = scene.rp(world).request(scope=SCOPE)
    landing = browser.go(request.url)
    for _ in range(4):
        if landing.is_page() and "decision" in landing.text:
            landing = browser.submit(landing, decision="allow")
    return _code_of(request.code_verifier, landing), landing


def _code_of(verifier: str | None, landing: Landing) -> dict[str, str]:
    if not landing.is_at(CALLBACK) or "code" not in query_of(landing.url):
        return {}
    return {"code": query_of(landing.url)["code"], "verifier": verifier or ""}


def _exchange(world: World, scene: Scene, code: Mapping[str, str], secret: str | None = None) -> Answer:
    form = {
        "grant_type": "authorization_code",
        "code": code["code"],
        "redirect_uri": CALLBACK,
        "code_verifier": code["verifier"],
    }
    answer: Answer = scene.rp(world, secret).post("/oidc/token", form)
    return answer


# --- what is done ---


@dataclass(frozen=True)
class Done:
    """What came of it: the answer's status, and what is known by it."""

    status: int
    known: Mapping[str, Any]

    @staticmethod
    def by(answer: Answer) -> Done:
        """As an answer says."""
        return Done(answer.status, answer.json() if answer.body.startswith(b"{") else {})


Act = Callable[[World, Scene], Done]


def _authorize(world: World, scene: Scene) -> Done:
    code, landing = _authorized(world, scene)
    return Done(landing.answer.status, code)


def _report_login(world: World, scene: Scene) -> Done:
    """By the app's backend: a session of its own, and a change of what is known of the user."""
    path = f"/api/oidc/interactions/{scene.interaction}/login"
    body = {"user_id": scene.user, "claims": {"name": "Reported"}}
    return Done.by(world.app.call("POST", path, body))


def _bring_report(world: World, scene: Scene) -> Done:
    """The same, and its browser comes back with what it was given."""
    done = _report_login(world, scene)
    if done.status != 200:
        return done
    browser = world.provider.browser()
    for name, value, path in scene.cookies:
        browser.set_cookie(name, value, path=path)
    landing = browser.go(done.known["redirect_to"])
    return Done(landing.answer.status, _code_of(None, landing))


def _redeem(world: World, scene: Scene) -> Done:
    return Done.by(_exchange(world, scene, {"code": scene.code, "verifier": scene.code_verifier}))


def _mint(world: World, scene: Scene) -> Done:
    return Done.by(world.provider.ask("POST", "/api/auth/jwt", token=scene.session))


def _trusted_mint(world: World, scene: Scene) -> Done:
    timestamp = str(scene.now)
    mac = hmac.new(TRUSTED.encode(), timestamp.encode() + b"." + scene.proof, hashlib.sha256).hexdigest()
    headers = {"X-Pylon-Trusted-Timestamp": timestamp, "X-Pylon-Trusted-Signature": mac}
    path = "/api/auth/sessions/trusted-mint"
    return Done.by(world.provider.ask("POST", path, body=scene.proof, headers=headers))


def _revoke_signing_key(world: World, scene: Scene) -> Done:
    taken: list[str] = []

    def step(ring: Any) -> Any:
        signing = signer(ring.keys, ALG, scene.now)
        assert signing is not None
        taken[:] = [signing.kid]
        return revoked(ring.keys, signing.kid, scene.now, M)

    world.rings.ensure(M, now=scene.now, step=step)
    return Done(200, {"kid": taken[0]})


def _call(method: str, path: str, body: Any = None) -> Act:
    def act(world: World, scene: Scene) -> Done:
        return Done.by(world.app.call(method, path.format(scene=scene), body))

    return act


def _rename(world: World, scene: Scene) -> Done:
    body = _metadata(scene.client_id, first_party=scene.first_party, client_name="New")
    return Done.by(world.app.call("PUT", f"/api/oidc/clients/{scene.client_id}", body))


def _of_session(method: str, path: str) -> Act:
    return lambda world, scene: Done.by(world.provider.ask(method, path, token=scene.session))


#: Who uses what there is.
USES: Final[Mapping[str, Act]] = {
    "authorize": _authorize,
    "report a sign-in": _report_login,
    "bring a report": _bring_report,
    "redeem": _redeem,
    "refresh": lambda world, scene: Done.by(scene.rp(world).refresh(scene.refresh_token)),
    "mint": _mint,
    "trusted mint": _trusted_mint,
    "refresh the session": _of_session("POST", "/api/auth/refresh"),
}
#: Who keeps it in order.
ADMINISTRATION: Final[Mapping[str, Act]] = {
    "lock out": _call("DELETE", "/api/auth/users/{scene.user}/sessions"),
    "sign out": _of_session("DELETE", "/api/auth/session"),
    "end the grant": _call("DELETE", "/api/oidc/grants/{scene.grant_id}"),
    "remove the client": _call("DELETE", "/api/oidc/clients/{scene.client_id}"),
    "rotate the secret": _call("POST", "/api/oidc/clients/{scene.client_id}/secret"),
    "rename the client": _rename,
    "set claims": _call("PUT", "/api/auth/users/{scene.user}", {"claims": {"name": "New"}}),
    "set roles": _call("PUT", "/api/auth/users/{scene.user}", {"roles": ["new"]}),
    "set the tenant": _call("PUT", "/api/auth/users/{scene.user}", {"tenant_id": "new"}),
    "take the signing key": _revoke_signing_key,
}
ACTS: Final = USES | ADMINISTRATION


# --- what must hold ---


def check(world: World, scene: Scene, acts: Sequence[str], done: Sequence[Done]) -> None:
    """What must hold after all of it, whatever the order was: no change is lost, and nothing lives after its end."""
    _Check(world, scene, list(zip(acts, done, strict=True))).all()


class _Check:
    def __init__(self, world: World, scene: Scene, happened: list[tuple[str, Done]]) -> None:
        self.world, self.scene, self.happened = world, scene, happened
        self.locked_out = self.did("lock out", 200)
        self.signed_out = bool(self.locked_out or self.of("sign out"))
        self.removed = self.did("remove the client", 204)
        self.grant_ended = bool(self.locked_out or self.removed or self.did("end the grant", 204))

    def of(self, act: str) -> list[Done]:
        return [done for name, done in self.happened if name == act]

    def did(self, act: str, status: int) -> list[Done]:
        return [done for done in self.of(act) if done.status == status]

    def all(self) -> None:
        failed = [(act, done) for act, done in self.happened if done.status >= 500]
        assert failed == [], self.happened
        self.session_lives_until_its_end()
        self.no_change_of_the_user_is_lost()
        self.no_change_of_the_client_is_lost()
        self.keys_that_were_taken_are_gone()
        self.the_earlier_grant_lives_until_its_end()
        self.the_code_lives_until_its_end()
        self.new_codes_stand_on_what_is_there()
        if self.removed:
            self.the_next_client_of_the_id_finds_nothing()

    def session_lives_until_its_end(self) -> None:
        world, scene = self.world, self.scene
        refreshed = self.did("refresh the session", 200)
        assert len(refreshed) <= 1
        tokens = [scene.session, *(done.known["token"] for done in refreshed)]
        alive = [world.provider.ask("GET", "/api/auth/me", token=token).status for token in tokens]
        assert alive == [401] * (len(tokens) - 1) + [401 if self.is_session_over() else 200], self.happened
        taken = {done.known["kid"] for done in self.of("take the signing key")}
        for minted in self.did("mint", 200):
            lives = not self.is_session_over() and _kid_of(minted.known["token"]) not in taken
            assert self.is_active(minted.known["token"], another_replica=True) is lives, self.happened
        assert len(self.did("trusted mint", 201)) == min(1, len(self.of("trusted mint")))

    def is_session_over(self) -> bool:
        # A sign-out by a token that a refresh has replaced finds no session: saying so is no mistake.
        replaced = self.did("refresh the session", 200) and not self.locked_out
        if self.signed_out and not replaced:
            return True
        listed = self.world.app.call("GET", f"/api/auth/users/{self.scene.user}/sessions").json()["sessions"]
        lives = self.scene.sid in {each["sid"] for each in listed}
        assert lives or self.signed_out, self.happened
        return not lives

    def no_change_of_the_user_is_lost(self) -> None:
        record = self.world.store.get(Kind.USER, hash_handle(self.scene.user), now=self.scene.now)
        assert record is not None
        reported = self.did("report a sign-in", 200) or self.of("bring a report")
        expected = {
            "name": {"New"} if self.of("set claims") else {"Old"},
            "roles": {"new"} if self.of("set roles") else {"old"},
            "tenant_id": {"new"} if self.of("set the tenant") else {"old"},
        }
        if reported:
            expected["name"] = (expected["name"] - {"Old"}) | {"Reported"}
        body = record.body
        assert body["claims"]["name"] in expected["name"], self.happened
        assert set(body["roles"]) == expected["roles"], self.happened
        assert body["tenant_id"] in expected["tenant_id"], self.happened

    def no_change_of_the_client_is_lost(self) -> None:
        shown = self.world.app.call("GET", f"/api/oidc/clients/{self.scene.client_id}")
        assert (shown.status == 404) is bool(self.removed), self.happened
        if self.removed:
            return
        assert shown.json().get("client_name") == ("New" if self.of("rename the client") else None)
        secrets = [done.known["client_secret"] for done in self.did("rotate the secret", 200)]
        assert len(secrets) == len(self.of("rotate the secret"))
        for secret in [self.scene.secret, *secrets]:
            assert self.scene.rp(self.world, secret).introspect("x").status == 200, self.happened

    def keys_that_were_taken_are_gone(self) -> None:
        ring = self.world.rings.load(now=self.scene.now)
        assert ring is not None
        taken = [done.known["kid"] for done in self.of("take the signing key")]
        assert len(set(taken)) == len(taken)
        roles = {key.kid: role(key, self.scene.now) for key in ring.keys}
        assert {roles.get(kid) for kid in taken} <= {"gone"}, self.happened
        signing = signer(ring.keys, ALG, self.scene.now)
        assert signing is not None
        assert signing.kid not in taken

    def the_earlier_grant_lives_until_its_end(self) -> None:
        scene, world = self.scene, self.world
        refreshed = self.did("refresh", 200)
        if not self.grant_ended and self.of("refresh"):
            assert len(refreshed) == len(self.of("refresh")), self.happened
        assert len({done.known["refresh_token"] for done in refreshed}) <= 1
        access_tokens = [done.known["access_token"] for done in refreshed]
        # An offline grant stays after a sign-out; what was given before it, the sign-out has ended.
        if self.grant_ended:
            assert not any(map(self.is_active, [scene.access_token, *access_tokens])), self.happened
            assert scene.grant_id not in {each["id"] for each in world.app.grants(scene.user)}
        elif not self.signed_out:
            assert all(map(self.is_active, [scene.access_token, *access_tokens])), self.happened
        newest = refreshed[0].known["refresh_token"] if refreshed else scene.refresh_token
        status = 400 if self.grant_ended else 200
        assert scene.rp(world).refresh(newest).status == (401 if self.removed else status), self.happened

    def the_code_lives_until_its_end(self) -> None:
        """Of the code that was there before; it is redeemed once, and by a second time all of it ends."""
        scene, redeemed = self.scene, self.did("redeem", 200)
        assert len(redeemed) <= 1
        is_over = bool(self.locked_out or self.removed)
        if not redeemed:
            code = {"code": scene.code, "verifier": scene.code_verifier}
            good = not is_over and not self.is_session_over()
            status = 200 if good else 401 if self.removed else 400
            assert _exchange(self.world, scene, code).status == status, self.happened
            assert good is False or not self.of("redeem"), self.happened
            return
        tokens = redeemed[0].known
        is_reused = len(self.of("redeem")) > 1
        active = not (is_over or is_reused or self.is_session_over())
        assert self.is_active(tokens["access_token"]) is active, self.happened
        status = 400 if is_over or is_reused else 200
        refreshed = scene.rp(self.world).refresh(tokens["refresh_token"]).status
        assert refreshed == (401 if self.removed else status), self.happened

    def new_codes_stand_on_what_is_there(self) -> None:
        scene = self.scene
        for done in self.of("authorize"):
            if done.known:
                good = not self.removed and not self.is_session_over()
                status = 200 if good else 401 if self.removed else 400
                assert _exchange(self.world, scene, done.known).status == status, self.happened
            elif not self.removed and not self.did("refresh the session", 200):
                assert self.is_session_over(), self.happened
        listed = self.world.app.call("GET", f"/api/auth/users/{scene.user}/sessions").json()["sessions"]
        if self.removed or not listed:
            kept = [each for each in self.world.app.grants(scene.user) if each["id"] != scene.grant_id]
            assert kept == [] or not (self.removed or self.locked_out), self.happened

    def the_next_client_of_the_id_finds_nothing(self) -> None:
        world, scene = self.world, self.scene
        made = world.app.call(
            "POST", "/api/oidc/clients", _metadata(scene.client_id, first_party=scene.first_party)
        )
        secret = made.json()["client_secret"]
        codes = [{"code": scene.code, "verifier": scene.code_verifier}]
        codes += [dict(done.known) for done in self.of("authorize") if done.known]
        for code in codes:
            assert _exchange(world, scene, code, secret).status == 400, self.happened
        tokens = [
            scene.refresh_token,
            *(done.known["refresh_token"] for done in self.did("refresh", 200) + self.did("redeem", 200)),
        ]
        for token in tokens:
            assert scene.rp(world, secret).refresh(token).status == 400, self.happened
        if not scene.first_party:
            browser = world.provider.browser()
            world.app.sign_in(browser, scene.user)
            silent = browser.go(scene.rp(world, secret).request(prompt="none").url)
            assert query_of(silent.url)["error"] == "consent_required", self.happened

    def is_active(self, token: str, *, another_replica: bool = False) -> bool:
        world = (
            world_on(self.world.store, _url_of(self.world), self.world.provider.clock)
            if another_replica
            else self.world
        )
        form = urlencode({"token": token}).encode()
        answer = world.provider.ask("POST", "/oidc/introspect", body=form, content_type=FORM, admin=True)
        active: bool = answer.json()["active"]
        return active


def _url_of(world: World) -> str:
    database = world.provider.house.settings.database
    return f"sqlite:///{database.path}" if database.is_sqlite else database.url


def _kid_of(token: str) -> str:
    header = token.partition(".")[0]
    kid: str = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"]
    return kid
