"""Every page, as Chromium shows it: on a phone and on a desk, by day and by night, without a complaint.

The pictures are kept in pytest's temporary folder, or in the folder that `--basetemp=DIR` names.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.flows.polling import wait_until
from tests.flows.provider_setup import OTHER, OWN, client_metadata, usual_clients
from tests.support.app import RelyingParty, direct, with_query
from tests.support.browser import ENTER, TAB, Browser
from tests.support.documents import Publisher
from tests.support.gunicorn import ADMIN, Gunicorn, rsa_pem

SIZES = ((320, 640), (1280, 800))
LONG, DEVICE = "long", "device"
LONG_NAME = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft"
ALL_SCOPES = "openid profile email address phone roles offline_access"
#: Contrast that text must have to what is behind it: WCAG 2.2 §1.4.3, level AA.
CONTRAST = 4.5


@dataclass
class House:
    """A provider in dev mode, a client, and a browser.

    Attributes:
        issuer: Of the provider.
        party: The client.
        browser: Chromium.
        pictures: Where they go.
        host: Of the documents of clients.
    """

    issuer: str
    party: RelyingParty
    browser: Browser
    pictures: Path
    host: Publisher

    def sign_in(self, name: str = "Ada Byron") -> None:
        """Sign in by the dev page."""
        self.browser.open(f"{self.issuer}/dev/sign-in")
        self.browser.write("[name=user_id]", "ada")
        self.browser.write("[name=name]", name)
        self.browser.click("main form button")
        self.browser.wait_for_title("pylon-oidc")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The house."""
    with RelyingParty({OWN: None, OTHER: None, LONG: None, DEVICE: None}) as party:
        addresses = {
            "client_uri": "https://www.example.com/" + "a-long-path/" * 9,
            "policy_uri": "https://www.example.com/privacy",
            "tos_uri": "https://www.example.com/terms",
            "logo_uri": f"{party.origin}/logo.svg",
        }
        long = client_metadata(LONG, None, party.origin, first_party=False)
        device = {
            "client_id": DEVICE,
            "client_name": "The screen in the hall",
            "grant_types": ["urn:ietf:params:oauth:grant-type:device_code"],
            "token_endpoint_auth_method": "none",
        }
        clients = [*usual_clients(party.origin), long | addresses | {"client_name": LONG_NAME}, device]
        settings: dict[str, Any] = {
            "PYLON_DEV_MODE": "1",
            "PYLON_ADMIN_TOKEN": ADMIN,
            "PYLON_OIDC_PRIVATE_KEY": rsa_pem(),
            "PYLON_OIDC_CLIENTS": json.dumps(clients),
        }
        with Publisher(tmp_path_factory.mktemp("documents")) as host:
            settings |= host.environ | {"PYLON_OIDC_REGISTRATION": "open"}
            with Gunicorn(**settings) as server, Browser() as browser:
                party.issuer = server.origin
                yield House(server.origin, party, browser, tmp_path_factory.mktemp("pictures"), host)


def home(house: House) -> None:
    """The page at `/`."""
    house.browser.open(f"{house.issuer}/")


def home_signed_in(house: House) -> None:
    """The same for somebody."""
    house.sign_in()


def dev_sign_in(house: House) -> None:
    """The sign-in page of dev mode."""
    house.browser.open(f"{house.issuer}/dev/sign-in")


def dev_sign_in_refused(house: House) -> None:
    """The same, with an id that does not exist."""
    house.browser.open(f"{house.issuer}/dev/sign-in")
    house.browser.write("[name=user_id]", "Ada Byron")
    house.browser.click("main form button")


def consent(house: House) -> None:
    """The consent page for a client with little to say."""
    house.sign_in()
    house.browser.open(house.party.begin(OTHER, scope="openid email")[1])


def consent_to_everything(house: House) -> None:
    """The consent page with all scopes, long names and addresses."""
    house.sign_in(LONG_NAME)
    house.browser.open(house.party.begin(LONG, scope=ALL_SCOPES)[1])


def _open_document(house: House, path: str, redirect_uri: str) -> None:
    asked = {
        "response_type": "code", "client_id": house.host.origin + path, "redirect_uri": redirect_uri,
        "scope": "openid email offline_access", "code_challenge": "x" * 43, "code_challenge_method": "S256",
    }  # fmt: skip
    house.browser.open(with_query(f"{house.issuer}/oidc/authorize", asked))


def consent_to_a_document(house: House) -> None:
    """The consent page for a client that is known by its document, on another host."""
    house.sign_in()
    house.host.publish("/web.json", client_name="Example agent", policy_uri="https://www.example.com/privacy")
    _open_document(house, "/web.json", "https://rp.example.org/callback")


def consent_to_a_program(house: House) -> None:
    """The same for a program on the same computer, with a long name."""
    house.sign_in()
    house.host.publish("/program.json", client_name=LONG_NAME, redirect_uris=["http://127.0.0.1/callback"])
    _open_document(house, "/program.json", "http://127.0.0.1:49152/callback")


def consent_to_a_registration(house: House) -> None:
    """The same for an app that registered itself."""
    house.sign_in()
    asked = {
        "redirect_uris": ["com.example.app:/cb"],
        "token_endpoint_auth_method": "none",
        "client_name": "An app",
    }
    made = direct().post(f"{house.issuer}/oidc/register", json=asked, timeout=20).json()
    asked_for = {
        "response_type": "code", "client_id": made["client_id"], "redirect_uri": "com.example.app:/cb",
        "scope": "openid", "code_challenge": "x" * 43, "code_challenge_method": "S256",
    }  # fmt: skip
    house.browser.open(with_query(f"{house.issuer}/oidc/authorize", asked_for))


def no_document(house: House) -> None:
    """The page for a document that does not exist."""
    _open_document(house, "/nothing.json", "https://rp.example.org/callback")


def document_busy(house: House) -> None:
    """The page while another document of the same host is being fetched."""
    over = threading.Event()
    house.host.at["/slow.json"] = lambda _wire: over.wait(20) and None
    url = with_query(f"{house.issuer}/oidc/authorize", {"client_id": f"{house.host.origin}/slow.json"})
    asking = threading.Thread(target=direct().get, args=(url,), kwargs={"timeout": 20})
    asking.start()
    wait_until(lambda: "/slow.json" in house.host.asked)
    _open_document(house, "/other.json", "https://rp.example.org/callback")
    over.set()
    asking.join()
    house.host.asked.clear()


def error(house: House) -> None:
    """The error page: an address to go back to that nobody registered."""
    house.browser.open(house.party.begin(OWN, redirect_uri="https://www.example.com/")[1])


def logout_confirm(house: House) -> None:
    """The page that asks whether to sign out."""
    house.sign_in()
    house.browser.open(with_query(f"{house.issuer}/oidc/logout", {"client_id": OTHER}))


def logged_out(house: House) -> None:
    """The page after it."""
    logout_confirm(house)
    house.browser.wait_for_title("Sign out?")
    house.browser.click("button[value=allow]")


def still_signed_in(house: House) -> None:
    """The page after the other button."""
    logout_confirm(house)
    house.browser.wait_for_title("Sign out?")
    house.browser.click("button[value=deny]")


def quickstart(house: House) -> None:
    """The page of commands of dev mode."""
    house.browser.open(f"{house.issuer}/dev/quickstart")


def form_post(house: House) -> None:
    """The page that posts the answer to the client, where no script runs."""
    house.sign_in()
    house.browser.allow_scripts(False)
    house.browser.open(house.party.begin(OWN, response_mode="form_post")[1])


def device_code(house: House) -> None:
    """The page where a user enters the code of a device."""
    house.sign_in()
    house.browser.open(f"{house.issuer}/oidc/device")


def device_code_wrong(house: House) -> None:
    """The same, after a code that no device shows."""
    house.sign_in()
    house.browser.open(f"{house.issuer}/oidc/device?user_code=AAAA-AAAA")


def device_confirm(house: House) -> None:
    """The page that asks about a device."""
    house.sign_in()
    codes = house.party.post(DEVICE, "/oidc/device_authorization", scope="openid email").json()
    house.browser.open(codes["verification_uri_complete"])


def device_done(house: House) -> None:
    """The page after it."""
    device_confirm(house)
    house.browser.wait_for_title("Connect a device?")
    house.browser.click("button[value=allow]")


#: How to come to each page, and its title.
PAGES: dict[Callable[[House], None], str] = {
    home: "pylon-oidc",
    home_signed_in: "pylon-oidc",
    dev_sign_in: "Development sign-in",
    dev_sign_in_refused: "Error: Development sign-in",
    consent: "Allow access?",
    consent_to_everything: "Allow access?",
    consent_to_a_document: "Allow access?",
    consent_to_a_program: "Allow access?",
    consent_to_a_registration: "Allow access?",
    no_document: "This did not work",
    document_busy: "This did not work",
    error: "This did not work",
    logout_confirm: "Sign out?",
    logged_out: "You are signed out",
    still_signed_in: "You are still signed in",
    quickstart: "Quickstart, development mode",
    form_post: "Taking you back",
    device_code: "Connect a device",
    device_code_wrong: "Error: Connect a device",
    device_confirm: "Connect a device?",
    device_done: "Your device is connected",
}

_WIDER_THAN_THE_WINDOW = "return document.scrollingElement.scrollWidth - innerWidth"
_OUTSIDE = """
    return [...document.querySelectorAll("body *")]
        .filter(element => element.getBoundingClientRect().right > innerWidth + 0.5)
        .map(element => element.outerHTML.slice(0, 80))"""
_FOCUSED = """
    const style = getComputedStyle(document.activeElement);
    const index = [...document.querySelectorAll(arguments[0])].indexOf(document.activeElement);
    return [index, style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1];"""
# The text of each element that has some of its own, against the nearest background that is not transparent.
_CONTRASTS = """
    const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
    const pixel = (color, under) => {
        canvas.clearRect(0, 0, 1, 1);
        for (const each of [under, color]) { canvas.fillStyle = each; canvas.fillRect(0, 0, 1, 1); }
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const luminance = rgb => {
        const [r, g, b] = rgb.map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const css = rgb => `rgb(${rgb.join(",")})`;
    const behind = element => {
        const chain = [];
        for (let e = element; e; e = e.parentElement) chain.unshift(getComputedStyle(e).backgroundColor);
        const dark = matchMedia("(prefers-color-scheme: dark)").matches;
        return chain.reduce((under, color) => css(pixel(color, under)), dark ? "rgb(18,18,18)" : "rgb(255,255,255)");
    };
    const own = element => [...element.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    return [...document.querySelectorAll("body, body *")].filter(own).filter(e => e.checkVisibility())
        .filter(e => !["SCRIPT", "OPTION"].includes(e.tagName)).map(element => {
            const back = behind(element);
            const [a, b] = [luminance(pixel(getComputedStyle(element).color, back)), luminance(pixel(back, back))];
            const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
            return [element.tagName + " " + element.textContent.trim().slice(0, 30), ratio];
        })"""


@pytest.fixture(scope="module", params=PAGES, ids=lambda page: page.__name__)
def shown(request: pytest.FixtureRequest, house: House) -> Iterator[House]:
    """The house with one page open, which no test leaves."""
    house.browser.forget()
    house.browser.view(1280, 800, dark=False)
    request.param(house)
    house.browser.wait_for_title(PAGES[request.param])
    yield house
    house.browser.allow_scripts(True)


def test_a_page_fits_its_window_by_day_and_by_night(shown: House, request: pytest.FixtureRequest) -> None:
    """At 320 and at 1280 pixels, light and dark, nothing sticks out sideways; each is kept as a picture."""
    name = request.node.callspec.id
    for (width, height), dark in ((size, dark) for size in SIZES for dark in (False, True)):
        shown.browser.view(width, height, dark=dark)
        shown.browser.screenshot(shown.pictures / f"{name}-{width}-{'dark' if dark else 'light'}.png")
        assert shown.browser.run(_WIDER_THAN_THE_WINDOW) <= 0
        assert shown.browser.run(_OUTSIDE) == []


@pytest.mark.parametrize("shown", [consent_to_everything], indirect=True, ids=["consent"])
def test_the_clients_logo_is_shown(shown: House) -> None:
    """The policy of the consent page lets the logo through, from another origin."""
    assert shown.browser.run("return document.querySelector('img').naturalWidth") > 0


@pytest.mark.parametrize("shown", [consent_to_a_registration], indirect=True, ids=["registration"])
def test_what_a_stranger_calls_itself_covers_nothing_else(shown: House) -> None:
    """A name with many accents on a letter is cut off at its own line, so that it hides no warning."""
    cut = "return [...document.querySelectorAll('dd')].map(each => getComputedStyle(each).overflow)"
    assert shown.browser.run(cut) == ["hidden", "hidden"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(shown: House, dark: bool) -> None:
    """Every piece of text has a contrast of 4.5 at least (WCAG 2.2 §1.4.3)."""
    shown.browser.view(1280, 800, dark=dark)
    contrasts = shown.browser.run(_CONTRASTS)
    assert contrasts
    assert [(text, ratio) for text, ratio in contrasts if ratio < CONTRAST] == []


def test_a_page_has_no_complaint(shown: House) -> None:
    """The console has no error and no violation of the page's own policy, except the status of a refusal."""
    lines = [
        line
        for line in shown.browser.console()
        if not re.search("the server responded with a status of (400|503)", line)
    ]
    assert lines == []


def test_a_page_is_laid_out_for_a_screen_reader(shown: House) -> None:
    """A language, one `h1` in one `main`, and a label for every field and button."""
    run = shown.browser.run
    assert run("return document.documentElement.lang") == "en"
    assert run("return document.querySelectorAll('main h1').length") == 1
    unnamed = """
        return [...document.querySelectorAll("input:not([type=hidden]), button, a")]
            .filter(e => !(e.labels?.length || e.textContent.trim())).map(e => e.outerHTML)"""
    assert run(unnamed) == []


#: Begins the animation of a button again, for a machine may be slow, and holds it where it is after so many ms.
_HOLD = """
    const button = document.querySelector(arguments[0])
    button.style.animation = "none"
    button.offsetWidth
    button.style.animation = ""
    const [animation] = button.getAnimations()
    animation.pause()
    animation.currentTime = arguments[1]"""
_TAKES_CLICKS = "return getComputedStyle(document.querySelector(arguments[0])).pointerEvents !== 'none'"


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
@pytest.mark.parametrize("button", ["button[value=allow]", "button[value=deny]"])
def test_a_consent_button_is_dead_for_half_a_second(house: House, button: str, motion: str) -> None:
    """A click that was meant for the page before answers nothing; the keyboard does, and so does the mouse afterwards."""
    browser = house.browser

    def ask() -> None:
        browser.open(house.party.begin(OTHER, scope="openid email", prompt="consent")[1])

    browser.forget()
    preference = {"name": "prefers-reduced-motion", "value": motion}
    browser.devtools("Emulation.setEmulatedMedia", features=[preference])
    house.sign_in()
    ask()
    page = browser.url
    for ms in (0, 250, 499):
        browser.run(_HOLD, button, ms)
        assert browser.run(_TAKES_CLICKS, button) is False
        browser.click_at_once(button)
        assert browser.url == page
    browser.tab_to(button)
    browser.press(ENTER)
    browser.wait_for(house.party.origin)
    ask()
    browser.run("document.querySelector(arguments[0]).getAnimations().forEach(a => a.finish())", button)
    assert browser.run(_TAKES_CLICKS, button) is True
    browser.click_at_once(button, times=1)
    browser.wait_for(house.party.origin)


def test_every_control_is_reached_by_tab_and_shows_it(shown: House) -> None:
    """Tab goes through all links, fields and buttons, and each one that has the focus is outlined."""
    controls = "main :is(a, button, input:not([type=hidden]))"
    count = shown.browser.run("return document.querySelectorAll(arguments[0]).length", controls)
    reached = set()
    for _ in range(count + 1):  # one more than there are: the round passes the window itself
        shown.browser.press(TAB)
        index, outline = shown.browser.run(_FOCUSED, controls)
        if index >= 0:
            reached.add(index)
            assert outline
    assert reached == set(range(count))
