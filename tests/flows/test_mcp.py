"""Agents and tools by the MCP SDKs, unmodified: from a 401 to the call of a tool, as docs/mcp.md has it."""

from __future__ import annotations

import contextlib
import html
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urljoin, urlsplit

import jwt
import pytest
import requests

from apps.installing import node
from apps.installing import python as interpreter_with
from tests.docs.markdown import PROJECT
from tests.docs.recipes import JS, RECIPES, direct_environment, recipe_command
from tests.doctor.asking import ask_doctor
from tests.flows.polling import wait_until
from tests.outbound.attacking import Answering, Attacker, Authority, ok
from tests.support.app import direct
from tests.support.gunicorn import Gunicorn, hold_port, rsa_pem
from tests.support.stopping import end_process

#: Of docs/mcp.md.
_ADDRESS: Final = "https://tools.example.com/mcp"
_SCRIPTS: Final = {"python": PROJECT / "tests/flows/mcp_client.py", "node": JS / "mcp_client.mjs"}
_BEGIN: Final = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "a test", "version": "1"},
    },
}


def _command(name: str, folder: Path) -> list[str]:
    """What runs a recipe: the SDK of Python has an environment of its own."""
    command = recipe_command(name, folder)
    return [str(interpreter_with("mcp")) if name.endswith(".py") else command[0], *command[1:]]


class Tools:
    """An MCP server of docs/mcp.md, with the metadata that the command of the page prints.

    Attributes:
        address: where it answers.
    """

    def __init__(self, recipe: str) -> None:
        self._recipe, self._holder = recipe, hold_port()
        self.port: int = self._holder.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/mcp"
        self.metadata: dict[str, Any] = {}

    @property
    def scope(self) -> str:
        """Its scopes, as its metadata has them; empty if it has none."""
        return " ".join(self.metadata.get("scopes_supported", ()))

    @contextlib.contextmanager
    def served(self, settings: dict[str, str]) -> Iterator[None]:
        """Serve it, for a service with these settings."""
        with tempfile.TemporaryDirectory(prefix="pylon-mcp-") as name:
            folder, environment = Path(name), direct_environment()
            program = Path(sys.executable).with_name("pylon-oidc")
            shell = RECIPES["mcp-metadata.sh"].code.replace(_ADDRESS, self.address)
            subprocess.run(
                ["/bin/sh", "-ec", shell.replace("pylon-oidc", str(program))],
                cwd=folder,
                env=environment | settings,
                check=True,
                capture_output=True,
            )
            self.metadata = json.loads((folder / "resource-metadata.json").read_text())
            with (folder / "log").open("w") as log:
                server = subprocess.Popen(
                    _command(self._recipe, folder),
                    cwd=folder,
                    env=environment | {"PORT": str(self.port)},
                    stdout=log,
                    stderr=log,
                )
                try:
                    wait_until(lambda: self.is_up() or server.poll() is not None, timeout_s=60)
                    assert server.poll() is None, (folder / "log").read_text()
                    yield
                finally:
                    end_process(server, 10)
                    self._holder.close()

    def is_up(self) -> bool:
        """Whether it answers."""
        with contextlib.suppress(requests.ConnectionError):
            return self.ask(None) == 401
        return False

    def ask(self, token: str | None) -> int:
        """The status of a request with this token."""
        headers = {"Accept": "application/json, text/event-stream"}
        headers |= {} if token is None else {"Authorization": f"Bearer {token}"}
        return direct().post(self.address, headers=headers, json=_BEGIN, timeout=20).status_code


@dataclass
class Town:
    """A service that strangers may use, two MCP servers, and an agent's client document.

    Attributes:
        issuer: of the service.
        tools: the servers, by the language of their SDK.
        document: the address of the client document.
    """

    issuer: str
    tools: dict[str, Tools]
    document: str


def _policies(tools: Mapping[str, Tools]) -> str:
    """The table of the page for one server, and one without scopes for the other."""
    table = RECIPES["mcp.toml"].code
    bare = table.partition("\n\n")[0].replace('scopes = ["tools:call"]', "")
    return (
        table.replace(_ADDRESS, tools["python"].address)
        + "\n"
        + bare.replace(_ADDRESS, tools["node"].address)
    )


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """All of it, with the table and the settings of docs/mcp.md."""
    folder = tmp_path_factory.mktemp("mcp")
    tools = {"python": Tools("mcp-server.py"), "node": Tools("mcp-server.mjs")}
    (folder / "policies.toml").write_text(_policies(tools))
    authority = Authority(folder)
    with contextlib.ExitStack() as stack:
        host = Attacker(
            lambda wire: Answering(_client_document(address))(wire), authority.server("127.0.0.1")
        )
        address = f"https://127.0.0.1:{stack.enter_context(host).port}/agent.json"
        port = stack.enter_context(hold_port()).getsockname()[1]
        settings = dict(line.split("=", 1) for line in RECIPES["mcp.env"].code.splitlines())
        settings |= {
            "PYLON_POLICIES": str(folder / "policies.toml"),
            "PYLON_OIDC_ISSUER": f"http://localhost:{port}",
            "PYLON_OIDC_PRIVATE_KEY": rsa_pem(),
            "PYLON_DEV_MODE": "1",
            "PYLON_OUTBOUND_ALLOW": "127.0.0.1",
            "PYLON_OUTBOUND_CA_FILE": str(authority.file),
        }
        stack.enter_context(Gunicorn(port=port, **settings))
        for each in tools.values():
            stack.enter_context(each.served(settings))
        yield Town(settings["PYLON_OIDC_ISSUER"], tools, address)


def _client_document(address: str) -> bytes:
    document = {
        "client_id": address,
        "client_name": "An agent",
        "redirect_uris": ["http://127.0.0.1/callback", "http://localhost/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "none",
    }
    return ok(json.dumps(document).encode(), b"Content-Type: application/json")


def sign_in_and_allow(url: str) -> list[str]:
    """A user's browser: it signs in as ada, allows what is asked, and brings the answer to the agent. The pages' texts."""
    http, pages = direct(), []
    form: dict[str, str] | None = None
    for _ in range(20):
        answer = http.request(
            "GET" if form is None else "POST", url, data=form, allow_redirects=False, timeout=20
        )
        if answer.is_redirect:
            url, form = urljoin(url, answer.headers["Location"]), None
        elif answer.status_code == 200 and (found := re.search(r'<form[^>]* action="([^"]*)"', answer.text)):
            pages.append(" ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split()))
            hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', answer.text)
            form = {name: html.unescape(value) for name, value in hidden}
            form |= {"decision": "allow"} if "decision" in answer.text else {"user_id": "ada"}
            url = urljoin(url, html.unescape(found[1]))
        else:
            assert answer.status_code == 200, answer.text
            return pages
    raise AssertionError(f"redirects without an end, at {url}")


def run_agent(language: str, tools: Tools, *more: str) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Run an agent, and be its user: what it got, its authorization request, and the pages that the user saw."""
    program = interpreter_with("mcp") if language == "python" else node()
    agent = subprocess.Popen(
        [str(program), str(_SCRIPTS[language]), tools.address, *more],
        env=direct_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert agent.stdout is not None
        line = agent.stdout.readline()
        if not line:
            raise AssertionError(agent.communicate(timeout=90)[1])
        url = json.loads(line)["open"]
        pages = sign_in_and_allow(url)
        printed, errors = agent.communicate(timeout=60)
        assert agent.returncode == 0, errors
    finally:
        end_process(agent, 10)
    return json.loads(printed), dict(parse_qsl(urlsplit(url).query)), pages


WALKS: Final = [
    # the agent's SDK, the server's, whether by document, the host of its redirect URI
    ("python", "python", True, "127.0.0.1"),
    ("python", "node", False, "localhost"),
    ("node", "node", True, "localhost"),
    ("node", "python", False, "127.0.0.1"),
]


def test_an_agent_that_nobody_registered_calls_a_tool(town: Town, subtests: pytest.Subtests) -> None:
    """docs/mcp.md, RFC 9728, RFC 8707: a token for this server, with the user's consent; the other server refuses it."""
    for agent, server, by_document, host in WALKS:
        with subtests.test(agent=agent, server=server, by_document=by_document):
            _walk(town, agent, town.tools[server], by_document=by_document, host=host)


def _walk(town: Town, agent: str, tools: Tools, *, by_document: bool, host: str) -> None:
    (other,) = (each for each in town.tools.values() if each is not tools)
    got, request, pages = run_agent(agent, tools, host, *([town.document] if by_document else []))
    assert got["tool"] == "ada"
    assert (got["client_id"] == town.document) == by_document
    claims = jwt.decode(got["token"], options={"verify_signature": False})
    assert (claims["aud"], claims["iss"], claims["sub"]) == (tools.address, town.issuer, "ada")
    assert (claims.get("scope", ""), claims["client_id"]) == (tools.scope, got["client_id"])
    assert (tools.ask(got["token"]), other.ask(got["token"])) == (200, 401)
    assert (request["resource"], request["code_challenge_method"]) == (tools.address, "S256")
    assert request["redirect_uri"].startswith(f"http://{host}:")
    consent = pages[-1]
    assert ("use the tools for you" if tools.scope else "act for you") in consent and tools.address in consent
    assert "a program on this computer" in consent
    who = urlsplit(town.document).hostname if by_document else "an unknown service"
    assert f"Allow {who} to use your account?" in consent
    elsewhere = [line for line in got["asked"] if not line.endswith(tools.address)]
    discovered = f"GET {town.issuer}/.well-known/oauth-authorization-server"
    assert discovered in elsewhere and f"POST {town.issuer}/oidc/token" in elsewhere
    assert (f"POST {town.issuer}/oidc/register" in elsewhere) == (not by_document)


def test_a_server_publishes_what_the_command_prints(town: Town) -> None:
    """docs/mcp.md, RFC 9728 §2, §3.1: both servers answer with the metadata, and name its address in their 401."""
    for tools in town.tools.values():
        address = f"http://127.0.0.1:{tools.port}/.well-known/oauth-protected-resource/mcp"
        assert direct().get(address, timeout=20).json() == tools.metadata
        refused = direct().post(tools.address, json=_BEGIN, timeout=20)
        assert f'resource_metadata="{address}"' in refused.headers["WWW-Authenticate"]
        assert tools.metadata["authorization_servers"] == [town.issuer]


def test_doctor_names_what_is_open(town: Town) -> None:
    """docs/doctor/registration-open.md, audience-open.md: notes, because it is meant; its question registers nobody."""
    report = ask_doctor(town.issuer, [])
    found = {each["id"]: each["seen"] for each in report.findings}
    assert report.faults == []
    assert found["registration-open"] == "400 invalid_redirect_uri without an invitation"
    assert found["audience-open"] == ", ".join(tools.address for tools in town.tools.values())
