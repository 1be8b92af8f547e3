"""`pylon-oidc policy`, and what the settings and the policy file must agree on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final

import pytest

from service.policies import schema
from service.records.sessions import SignIn
from service.sessions import LocalSessions
from service.settings import Settings, read_settings
from tests.docs.markdown import blocks, page
from tests.settings.conftest import Run
from tests.support.cases import each_of
from tests.support.gunicorn import SECRET, rsa_pem

API: Final = "https://api.example.com"
WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
RSA: Final = {"PYLON_OIDC_PRIVATE_KEY": rsa_pem(), "PYLON_OIDC_ISSUER": "https://id.example.com"}
NIGHTLY: Final = {
    "client_id": "nightly",
    "client_secret": SECRET[::-1],
    "grant_types": ["client_credentials"],
}


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The file of docs/policies.md, with the secret that it names."""
    file = tmp_path / "policies.toml"
    file.write_text(blocks(page("policies.md"))["policies"].code)
    (tmp_path / "legacy.secret").write_text(f"{SECRET}\n")
    return file


def written(tmp_path: Path, text: str) -> str:
    """The path of a file with that text."""
    file = tmp_path / "p.toml"
    file.write_text(text)
    return str(file)


# --- settings and file ---

#: A file, settings next to it, and the one fault: of which setting, and words of it.
DISAGREEING: Final[list[tuple[str, str, dict[str, str], str, str]]] = [
    ("no such file", "", {"PYLON_POLICIES": "/nowhere.toml"}, "PYLON_POLICIES", "cannot be read (No such file or directory)"),
    ("a secret's file", "[audience.a]\nsecret_file = 'no'\n", {}, "PYLON_POLICIES", 'line 2: [audience."a"], secret_file: the file cannot be read'),
    ("a secret's variable", "[audience.a]\nsecret_env = 'API_SECRET'\n", {}, "PYLON_POLICIES", "line 2: [audience.\"a\"], secret_env: is empty; write at least 32"),
    ("a weak secret", "[audience.a]\nsecret_env = 'API_SECRET'\n", {"API_SECRET": "short"}, "PYLON_POLICIES", "secret_env: "),
    ("a quoted secret", "[audience.a]\nsecret_env = 'API_SECRET'\n", {"API_SECRET": f'"{SECRET}"'}, "PYLON_POLICIES", "has double quotes"),
    ("a secret of another use", "[audience.a]\nsecret_env = 'API_SECRET'\n", {"API_SECRET": SECRET, "PYLON_ADMIN_TOKEN": SECRET}, "PYLON_POLICIES", "the same as PYLON_ADMIN_TOKEN"),
    ("no private key", "[audience.a]\nalg = 'RS256'\n", {}, "PYLON_POLICIES", "line 2: [audience.\"a\"], alg: RS256 needs a private key"),
    ("a key that RSA is not", "[audience.a]\nalg = 'ES256'\n", RSA, "PYLON_POLICIES", "alg: ES256 cannot be signed with the RSA key"),
    ("by default", "[default]\nalg = 'ES256'\n[audience.a]\n", RSA, "PYLON_POLICIES", "line 2: [audience.\"a\"], alg: "),
    ("a key that is not kept", "[audience.a]\nalg = 'ES256'\n", {"PYLON_OIDC_KEYS": "managed", "PYLON_KEY_ENCRYPTION_KEY": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}, "PYLON_POLICIES", "write PYLON_OIDC_ALGS=RS256,ES256"),
    ("no key to move to", "[audience.a]\nmigrate = {to = 'ES256', percent = 0}\n", RSA, "PYLON_POLICIES", "line 2: [audience.\"a\"], migrate.to: ES256 cannot be signed with the RSA key"),
    ("a key to move to that is not kept", "[audience.a]\n[audience.a.migrate]\npercent = 0\nto = 'ES256'\n", {"PYLON_OIDC_KEYS": "managed", "PYLON_KEY_ENCRYPTION_KEY": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}, "PYLON_POLICIES", "line 4: [audience.\"a\"], migrate.to: ES256 is not among"),
    ("a default that is no table", "[audience.a]\n", {"PYLON_JWT_AUDIENCE": "b"}, "PYLON_JWT_AUDIENCE", "write a, add its table, or unset it"),
    ("a default that is not minted", f"[audience.'{API}']\ngrants = ['client_credentials']\n", {"PYLON_JWT_AUDIENCE": API}, "PYLON_JWT_AUDIENCE", "unset it"),
    ("a client", "[audience.nightly]\n", RSA | {"PYLON_OIDC_CLIENTS": json.dumps([NIGHTLY]), "PYLON_LOGIN_URL": "https://a.example"}, "PYLON_POLICIES", "line 1: [audience.\"nightly\"]: is the id of a client"),
    ("the issuer", "[audience.'https://id.example.com']\n", RSA, "PYLON_POLICIES", "is the issuer"),
    ("a scope of the operator's", f"[audience.'{API}']\nscopes = ['hr']\n", {"PYLON_OIDC_SCOPES": '{"hr": {"claims": ["x"], "description": "y"}}'}, "PYLON_POLICIES", "scopes: hr is a scope of PYLON_OIDC_SCOPES"),
    ("a public machine", "[audience.a]\n", RSA | {"PYLON_LOGIN_URL": "https://a.example", "PYLON_OIDC_CLIENTS": '[{"client_id": "x", "grant_types": ["client_credentials"]}]'}, "PYLON_OIDC_CLIENTS", "client 1 (x), grant_types: client_credentials is for clients with a secret"),
]  # fmt: skip


def test_what_file_and_settings_must_agree_on_is_told(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """A start tells it before a port is open, in one line each, and it makes no other fault."""
    for name, text, environ, setting, words in DISAGREEING:
        with subtests.test(name):
            reading = read_settings({"PYLON_POLICIES": written(tmp_path, text)} | environ)
            (fault,) = reading.faults
            assert fault.name == setting
            assert words in fault.text
            assert "; " in fault.text
            assert SECRET not in str(fault)


def test_faults_of_file_and_settings_are_told_together(tmp_path: Path) -> None:
    """A fault of the file hides none of another setting, and makes no client's scope unknown."""
    client = NIGHTLY | {"scope": "reports:read"}
    file = written(tmp_path, "[audience.a]\nalg = 'X'\n\n[audience.b]\nlifetime_s = 0\n")
    environ = {
        "PYLON_JWT_LIFETIME_SECS": "x",
        "PYLON_OIDC_CLIENTS": json.dumps([client]),
        **RSA,
        "PYLON_LOGIN_URL": "https://a.example",
    }
    faults = read_settings({"PYLON_POLICIES": file} | environ).faults
    assert [(fault.name, fault.line) for fault in faults] == [
        ("PYLON_JWT_LIFETIME_SECS", None),
        ("PYLON_POLICIES", 2),
        ("PYLON_POLICIES", 5),
    ]


def test_what_is_allowed_and_odd_is_a_warning(tmp_path: Path, subtests: pytest.Subtests) -> None:
    """A start continues, and says it."""
    cases = {
        "a shared secret": ("[audience.a]\n[audience.b]\n", '[audience."a"], [audience."b"] share PYLON_JWT_SECRET'),
        "one of their own": ("[default]\n[audience.a]\nsecret_env = 'API_SECRET'\n[audience.b]\nsecret_env = 'API_SECRET'\n", "share one secret"),
        "that of the others, named again": ("[audience.a]\nsecret_env = 'THE_SAME'\n[audience.b]\n", '[audience."a"], [audience."b"] share PYLON_JWT_SECRET'),
    }  # fmt: skip
    for name, (text, words) in cases.items():
        with subtests.test(name):
            environ = {
                "PYLON_POLICIES": written(tmp_path, text),
                "PYLON_JWT_SECRET": SECRET,
                "API_SECRET": SECRET[::-1],
                "THE_SAME": SECRET,
                **RSA,
            }
            reading = read_settings(environ)
            assert reading.faults == []
            (warning,) = reading.warnings
            assert words in warning
    with subtests.test("no secret"):
        (warning,) = read_settings({"PYLON_POLICIES": written(tmp_path, "[audience.a]\n"), **RSA}).warnings
        assert "HS256 has no secret" in warning
    with subtests.test("no secret to move to"):
        text = "[audience.a]\nalg = 'RS256'\nmigrate = {to = 'HS256', percent = 1}\n"
        (warning,) = read_settings({"PYLON_POLICIES": written(tmp_path, text), **RSA}).warnings
        assert "HS256 has no secret" in warning
    with subtests.test("a move with a key says nothing"):
        text = "[audience.a]\nmigrate = {to = 'RS256', percent = 10}\n"
        environ = {"PYLON_POLICIES": written(tmp_path, text), "PYLON_JWT_SECRET": SECRET, **RSA}
        assert read_settings(environ).warnings == []
    with subtests.test("no issuer is no audience"):
        file = written(tmp_path, "[audience.'None/']\n")
        assert read_settings({"PYLON_POLICIES": file, "PYLON_JWT_SECRET": SECRET}).faults == []
    with subtests.test("a variable that a table names is no unknown setting"):
        text = "[audience.a]\nsecret_env = 'PYLON_API_SECRET'\n"
        environ = {"PYLON_POLICIES": written(tmp_path, text), "PYLON_API_SECRET": SECRET, **RSA}
        assert read_settings(environ).warnings == []


def test_every_alg_of_a_policy_has_a_key_and_a_rotation_waits_for_the_longest_token(tmp_path: Path) -> None:
    """What is published is published for every algorithm that signs, and as long as the longest token lives."""
    text = "[audience.a]\nalg = 'RS256'\n[audience.b]\nmigrate = {to = 'PS256', percent = 0}\nlifetime_s = 86400\n"
    settings: Settings = read_settings({"PYLON_POLICIES": written(tmp_path, text), **RSA}).settings
    assert settings.mint_algs == {"HS256", "RS256", "PS256"}
    assert settings.margins.longest_token_s == 86_400
    assert not settings.lacks_minted_audience  # each token has an audience


# --- the commands ---


def test_check_says_every_fault_or_none(
    run: Run, tmp_path: Path, example: Path, subtests: pytest.Subtests
) -> None:
    """Exit 2 with each fault, in words or as JSON; 0 with the warnings."""
    with subtests.test("sound"):
        result = run("policy", "check", "--file", str(example), **RSA)
        assert (result.exit_code, result.stdout) == (0, "The policies are sound: 3 audiences.\n")
    with subtests.test("of the setting"):
        result = run("policy", "check", "--json", PYLON_POLICIES=str(example), **RSA)
        told = json.loads(result.stdout)
        assert (told["file"], told["faults"], told["warnings"]) == (str(example), [], [])
        assert told["audiences"] == ["legacy", "https://reports.example.com", "https://payments.example.com"]
    bad = written(tmp_path, "[audience.a]\nlifetime_s = 0\n\n[audience.b]\nclams = []\n")
    with subtests.test("faults"):
        result = run("policy", "check", PYLON_POLICIES=bad)
        assert (result.exit_code, result.stdout) == (2, "")
        first, second = result.stderr.splitlines()
        assert first.startswith(f'PYLON_POLICIES: {bad}, line 2: [audience."a"], lifetime_s: ')
        assert second.startswith(f'PYLON_POLICIES: {bad}, line 5: [audience."b"], clams: ')
    with subtests.test("faults as JSON"):
        result = run("policy", "check", "--json", "--file", bad)
        assert result.exit_code == 2
        assert [(fault["name"], fault["line"]) for fault in json.loads(result.stdout)["faults"]] == [
            ("PYLON_POLICIES", 2),
            ("PYLON_POLICIES", 5),
        ]
    with subtests.test("the same as a start"):
        assert [
            line for line in run("check", PYLON_POLICIES=bad).stderr.splitlines() if "PYLON_POLICIES" in line
        ] == [first, second]
    with subtests.test("no file"):
        result = run("policy", "check")
        assert result.exit_code == 2
        assert result.stderr.startswith("PYLON_POLICIES: is unset; write ")
    with subtests.test("the schema"):
        assert json.loads(run("policy", "schema").stdout) == schema.json_schema()


def test_a_token_is_seen_before_it_exists(
    run: Run,
    tmp_path: Path,
    example: Path,
    sessions: LocalSessions,
    subtests: pytest.Subtests,
) -> None:
    """Each claim with where it comes from, in 80 columns or as JSON; or the rule that refuses, with what would help."""
    environ = {"PYLON_POLICIES": str(example), "PYLON_LOGIN_URL": "https://a.example", **RSA}
    environ["PYLON_OIDC_CLIENTS"] = json.dumps([NIGHTLY])
    reports, payments = "https://reports.example.com", "https://payments.example.com"

    def explain(*arguments: str) -> dict[str, Any]:
        result = run("policy", "explain", *arguments, "--json", **environ)
        assert result.exit_code == 0, result.output
        value: dict[str, Any] = json.loads(result.stdout)
        return value

    body = tmp_path / "ada.json"
    body.write_text(
        json.dumps({"user_id": "ada", "roles": ["admin"], "claims": {"email": "ada@example.com"}})
    )
    now = int(time.time())
    with subtests.test("a session file"):
        told = explain("--audience", reports, "--session-file", str(body))
        assert told["header"] == {"alg": "RS256", "typ": "JWT"}
        claims = told["claims"]
        assert now <= claims.pop("iat") == claims.pop("exp") - 600 <= now + 60
        assert claims == {
            "iss": "https://id.example.com",
            "sub": "ada",
            "aud": reports,
            "groups": ["admin"],
            "email": "ada@example.com",
            "env": "production",
        }
        assert told["random"] == ["jti", "sid"]
        assert told["sources"]["groups"] == "roles of the user, by rename"
        assert told["sources"]["env"] == "static"
    with subtests.test("with status lists"):
        environ["PYLON_STATUS_LIST"] = "1"
        told = explain("--audience", reports, "--session-file", str(body))
        assert told["random"] == ["jti", "sid", "status"]
        assert told["sources"]["status"] == "its place in a status list"
        told = explain("--audience", reports, "--client", "nightly")
        assert told["random"] == ["jti"] and "status" not in told["sources"]
        del environ["PYLON_STATUS_LIST"]
    with subtests.test("as a table"):
        result = run("policy", "explain", "--audience", reports, "--session-file", str(body), **environ)
        assert result.stdout.startswith(
            f"A token for {reports} by mint.\nIt is signed by RS256, has typ JWT, and is valid for 600 s.\n"
        )
        assert 'groups  ["admin"]' in result.stdout
        assert all(len(line) <= 80 for line in result.stdout.splitlines())
    with subtests.test("no value is cut, and each name of an audience is whole"):
        long = f"https://{'reports.' * 9}example.com"
        text = f"[default]\nalg = 'RS256'\ngrants = ['mint', 'authorization_code']\n[audience.'{long}']\n[audience.'{long}/b']\n"
        file = written(tmp_path, text)
        for command in (["list"], ["explain", "--audience", f"{long}/b", "--session-file", str(body)]):
            shown = run("policy", *command, "--file", file, **environ).stdout
            assert all(len(line) <= 80 for line in shown.splitlines()[1:]), shown  # only a name may be longer
            assert "…" not in shown
    with subtests.test("a refusal says what the rule is"):
        for who, words in {
            ("--client", "nightly"): "the grants of its table do not have client_credentials",
            ("--client", "nightly", "--audience", reports, "--scope", "x"): "a scope is asked for that",
        }.items():
            result = run("policy", "explain", "--audience", payments, *who, **environ)
            assert words in result.stdout
    with subtests.test("the newest session of a user"):
        begun = sessions.create(
            SignIn("bob", roles=("dev",), acr="mfa", auth_time=now - 7200, given=frozenset({"roles"})),
            now=now,
        )
        told = explain("--audience", reports, "--user", "bob")
        assert (told["claims"]["sid"], told["claims"]["groups"]) == (begun.session.sid, ["dev"])
        told = explain("--audience", payments, "--user", "bob")
        assert told == {
            "audience": payments,
            "grant": "mint",
            "refused": "require.max_session_age_s",
            "step_up": {"acr_values": ["mfa"], "max_age": 3600},
        }
    with subtests.test("what is known of one who is not signed in"):
        sessions.lock_out("bob", now=now)
        assert explain("--audience", reports, "--user", "bob")["claims"]["groups"] == ["dev"]
        result = run("policy", "explain", "--audience", payments, "--user", "nobody", **environ)
        assert "require.acr refuses it: the acr of the sign-in is not one of these" in result.stdout
        assert '"max_age": 3600' in result.stdout
    with subtests.test("a client"):
        told = explain("--audience", reports, "--client", "nightly", "--scope", "reports:read")
        assert (told["grant"], told["claims"]["sub"], told["claims"]["scope"]) == (
            "client_credentials",
            "nightly",
            "reports:read",
        )
        assert explain("--audience", reports, "--client", "nightly", "--scope", "x")["refused"] == "scopes"
        assert explain("--audience", payments, "--client", "nightly")["refused"] == "grants"
    with subtests.test("a client, where no audience is the default one"):
        environ["PYLON_JWT_ALG"] = "RS256"
        assert explain("--audience", reports, "--client", "nightly")["claims"]["sub"] == "nightly"
        del environ["PYLON_JWT_ALG"]
    with subtests.test("another audience"):
        assert explain("--audience", "other", "--user", "bob")["refused"] == "audience"
    for wrong in (["--user", "a", "--session-file", "b"], [], ["--client", "nobody"]):
        with subtests.test("wrong usage", wrong=wrong):
            assert run("policy", "explain", "--audience", reports, *wrong, **environ).exit_code == 2
    with subtests.test("without a file"):
        told = json.loads(
            run(
                "policy",
                "explain",
                "--audience",
                "api",
                "--session-file",
                str(body),
                "--json",
                PYLON_JWT_AUDIENCE="api",
            ).stdout
        )
        assert told["claims"]["roles"] == ["admin"]
    with subtests.test("the list"):
        rows = json.loads(run("policy", "list", "--json", **environ).stdout)["audiences"]
        assert [row["audience"] for row in rows] == ["legacy", reports, payments]
        assert rows[1]["claims"] == ["groups", "email"]
        assert all(len(line) <= 80 for line in run("policy", "list", **environ).stdout.splitlines())


def test_what_must_come_of_it_is_held(
    run: Run, tmp_path: Path, example: Path, subtests: pytest.Subtests
) -> None:
    """The example's own cases come out as they say; one that does not is exit 1, and names how."""
    with subtests.test("as expected"):
        result = run("policy", "test", "--file", str(example), **RSA)
        assert result.exit_code == 0, result.output
        assert result.stdout.endswith("2 cases, 0 differ.\n")
    table = f"[audience.'{API}']\ngrants = ['mint', 'client_credentials']\nscopes = ['r']\nclients = ['nightly']\n"
    cases = {
        "another value": (
            "user = {user_id = 'a', roles = ['x']}\nexpect = {roles = ['y']}",
            'roles is ["x"], not ["y"]',
        ),
        "true is not 1": ("user = {user_id = 'a', roles = ['x']}\nexpect = {iat = true}", "iat is "),
        "not there": ("user = {user_id = 'a'}\nexpect = {email = 'x'}", "has no email"),
        "given": ("user = {user_id = 'a'}\nrefuse = 'require.acr'", "issued, and not refused by require.acr"),
        "refused": ("client = 'other'\nexpect = {}", "refused by clients, and not issued"),
        "by another rule": (
            "client = 'nightly'\nscope = 'w'\nrefuse = 'clients'",
            "refused by scopes, not by clients",
        ),
    }
    for name, (case, words) in cases.items():
        with subtests.test(name):
            file = written(tmp_path, f"{table}\n[[case]]\naudience = '{API}'\n{case}\n")
            result = run("policy", "test", "--file", file, "--json")
            assert result.exit_code == 1
            (row,) = json.loads(result.stdout)["cases"]
            assert row["differs"].startswith(words)
            assert row["line"] == 6
    with subtests.test("a client's, as expected"):
        case = "client = 'nightly'\nscope = ['r']\nexpect = {scope = 'r', sub = 'nightly', client_id = 'nightly'}"
        assert (
            run(
                "policy",
                "test",
                "--file",
                written(tmp_path, f"{table}\n[[case]]\naudience = '{API}'\n{case}\n"),
            ).exit_code
            == 0
        )
    with subtests.test("exchanged"):
        table = (
            f"[audience.'{API}']\ngrants = ['token_exchange']\nscopes = ['r', 'w']\nexchange_scopes = ['r']\n"
        )
        who = f"[[case]]\naudience = '{API}'\ngrant = 'token_exchange'\nclient = 'gateway'\nuser = {{user_id = 'a'}}\n"
        expected = "expect = {sub = 'a', client_id = 'gateway', scope = 'r', act = {sub = 'gateway'}}"
        file = written(tmp_path, f"{table}\n{who}{expected}\n{who}scope = 'w'\nrefuse = 'scopes'\n")
        result = run("policy", "test", "--file", file)
        assert result.exit_code == 0, result.output
        body = tmp_path / "a.json"
        body.write_text('{"user_id": "a"}')
        options = (
            "--audience",
            API,
            "--session-file",
            str(body),
            "--grant",
            "token_exchange",
            "--file",
            file,
        )
        result = run("policy", "explain", *options)
        assert result.exit_code == 2
        assert "--client and --user or --session-file are both needed" in result.stderr
    with subtests.test("no session"):
        file = written(
            tmp_path, f"{table}\n[[case]]\naudience = '{API}'\nuser = {{user = 'x'}}\nexpect = {{}}\n"
        )
        result = run("policy", "test", "--file", file)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"PYLON_POLICIES: {file}, line 6: [[case]] 1, user: ")


# --- what an API publishes ---

_OPEN: Final = f"""
[default]
alg = "RS256"
[audience."{API}/mcp"]
grants = ["authorization_code"]
strangers = true
scopes = ["tools:call", "tools:list"]
[audience."{API}"]
grants = ["client_credentials"]
[audience."{API}/v1?x=1"]
grants = ["authorization_code"]
[audience."legacy"]
[audience."urn:x:y"]
"""


@each_of(
    ("audience", "more", "address"),
    [
        (f"{API}/mcp", {"scopes_supported": ["tools:call", "tools:list"]}, f"{API}{WELL_KNOWN}/mcp"),
        (API, {}, f"{API}{WELL_KNOWN}"),
        (f"{API}/", {"resource": API}, f"{API}{WELL_KNOWN}"),
        (f"{API}/v1?x=1", {}, f"{API}{WELL_KNOWN}/v1?x=1"),
    ],
)
def test_the_metadata_of_an_api_is_printed(
    audience: str, more: dict[str, Any], address: str, tmp_path: Path, run: Run
) -> None:
    """RFC 9728 §2, §3.1, §3.2: resource, our issuer, its scopes if it has some; and where it is published."""
    result = run("policy", "resource-metadata", audience, PYLON_POLICIES=written(tmp_path, _OPEN), **RSA)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "resource": audience,
        "authorization_servers": ["https://id.example.com"],
        "bearer_methods_supported": ["header"],
        **more,
    }
    assert result.stderr.split() == f"The API answers with this at {address}".split()


@each_of(
    ("audience", "environ", "said"),
    [
        ("https://other.example", RSA, "There is no audience https://other.example."),
        (f"{API}/mcp/", RSA, "There is no audience"),
        ("legacy", RSA, "legacy is not the address of an API."),
        ("urn:x:y", RSA, "urn:x:y is not the address of an API."),
        (API, {"PYLON_OIDC_KEYS": "managed"}, "PYLON_OIDC_ISSUER: is unset; write the public address"),
        (API, {**RSA, "PYLON_OIDC_ISSUER": "https://id.example.com/"}, "PYLON_OIDC_ISSUER: "),
    ],
)
def test_metadata_that_would_be_wrong_is_not_printed(
    audience: str, environ: dict[str, str], said: str, tmp_path: Path, run: Run
) -> None:
    """An unknown audience, one without an address, and a service that does not know its own."""
    result = run("policy", "resource-metadata", audience, PYLON_POLICIES=written(tmp_path, _OPEN), **environ)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in " ".join(result.stderr.split())


def test_the_list_says_which_audiences_are_open_to_strangers(tmp_path: Path, run: Run) -> None:
    """docs/doctor/audience-open.md: its last command shows them; an audience without the code flow is open to none."""
    text = """
[default]
alg = "RS256"
strangers = true
[audience."https://open.example.com"]
grants = ["authorization_code"]
[audience."https://listed.example.com"]
grants = ["authorization_code"]
clients = ["wiki"]
[audience."https://shut.example.com"]
grants = ["client_credentials"]
[audience."https://closed.example.com"]
grants = ["authorization_code"]
strangers = false
"""
    environ = {"PYLON_POLICIES": written(tmp_path, text), **RSA}
    listed = run("policy", "list", "--wide", **environ).stdout.splitlines()
    clients = {line.split()[0]: line.partition("authorization_code")[2].strip() for line in listed[1:]}
    assert clients["https://open.example.com"].startswith("all and strangers")
    assert clients["https://listed.example.com"].startswith("wiki and strangers")
    assert not any("strangers" in line for line in listed if "shut" in line or "closed" in line)
    as_json = json.loads(run("policy", "list", "--json", **environ).stdout)["audiences"]
    assert [each["strangers"] for each in as_json] == [True, True, True, False]
