"""docs/cli.md: `pylon-oidc clients`: who may sign users in; a secret is shown once."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from service.clients import Clients
from service.presets import presets, recognise
from service.storage.interface import Contended
from service.storage.sql import SqlStore
from service.storage.sqlite import SqliteDatabase
from tests.settings.conftest import Run
from tests.settings.reading import STRONG
from tests.support.cases import each_of

CALLBACK = "https://rp.example/cb"
ADD = ("clients", "add", "--redirect-uri", CALLBACK)
FIXED = json.dumps([{"client_id": "fixed", "redirect_uris": [CALLBACK], "client_secret": STRONG}])
IN_DEV = {"PYLON_OIDC_CLIENTS": FIXED, "PYLON_DEV_MODE": "1"}

LACKS = ("PYLON_OIDC_ISSUER", "PYLON_OIDC_KEYS", "PYLON_LOGIN_URL")


@pytest.fixture
def run(run: Run) -> Run:
    """Runs commands on a migrated store."""
    run.have_database()
    return run


def _json(run: Run, *arguments: str, **environ: str) -> Any:
    result = run(*arguments, **environ)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def _is_good(folder: Path, client_id: str, secret: str, *, later_s: int = 0) -> bool:
    """Whether the service takes the secret of that client."""
    store = SqlStore(SqliteDatabase(folder / "data" / "pylon.db"))
    now = int(time.time())
    client = Clients([], store, minted_audience=None).find(client_id, now=now)
    store.close()
    return client is not None and client.has_secret(secret, now=now + later_s)


def test_add_shows_id_and_secret(tmp_path: Path, run: Run) -> None:
    """`clients add`: an id and a secret are made, printed now, and good."""
    lines = dict(line.split() for line in run(*ADD).output.splitlines())
    assert set(lines) == {"client_id", "client_secret"}
    assert len(lines["client_secret"]) >= 43  # 256 bits in base64url
    assert _is_good(tmp_path, lines["client_id"], lines["client_secret"])
    assert not _is_good(tmp_path, lines["client_id"], lines["client_secret"] + "x")


def test_add_takes_every_member(run: Run) -> None:
    """The members have options, and `--metadata` takes any other; `--json` prints them all."""
    shown = _json(
        run,
        *ADD,
        *(
            "--redirect-uri",
            "http://localhost:3000/cb",
            "--client-id",
            "https://rp.example/",
            "--name",
            "Zoë",
        ),
        *("--first-party", "--scope", "openid email", "--post-logout-redirect-uri", "https://rp.example/out"),
        *(
            "--metadata",
            '{"resource_ids": ["api"], "token_endpoint_auth_method": "client_secret_post"}',
            "--json",
        ),
    )
    secret = shown.pop("client_secret")
    assert len(secret) >= 43
    assert shown == _json(run, "clients", "show", "https://rp.example/")
    assert shown["redirect_uris"] == [CALLBACK, "http://localhost:3000/cb"]
    assert shown["post_logout_redirect_uris"] == ["https://rp.example/out"]
    assert (shown["client_id"], shown["client_name"]) == ("https://rp.example/", "Zoë")
    assert (shown["first_party"], shown["scope"], shown["source"]) == (True, "openid email", "database")
    assert (shown["resource_ids"], shown["token_endpoint_auth_method"]) == (["api"], "client_secret_post")


def test_a_public_client_has_no_secret(run: Run) -> None:
    """`--public`: it cannot keep one, so none is made."""
    assert "client_secret" not in run(*ADD, "--public").output
    shown = _json(run, *ADD, "--public", "--json")
    assert "client_secret" not in shown
    assert shown["token_endpoint_auth_method"] == "none"


def test_a_client_with_keys_has_no_secret(run: Run) -> None:
    """`clients add` makes none and shows none; `clients update` changes to keys and back."""
    uri = "https://rp.example/jwks"
    with_keys = {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": uri}
    lines = run(*ADD, "--metadata", json.dumps(with_keys)).output.splitlines()
    assert [line.split()[0] for line in lines] == ["client_id"]
    assert run("clients", "rotate-secret", lines[0].split()[1]).exit_code == 1
    client_id = _json(run, *ADD, "--json")["client_id"]
    changed = _json(
        run, "clients", "update", client_id, "--set", "token_endpoint_auth_method=private_key_jwt",
        "--set", f"jwks_uri={uri}", "--set", "token_endpoint_auth_signing_alg=PS256", "--json",
    )  # fmt: skip
    assert (changed["jwks_uri"], changed["token_endpoint_auth_signing_alg"]) == (uri, "PS256")
    back = ("clients", "update", client_id, "--set", "token_endpoint_auth_method=", "--set", "jwks_uri=", "--set", "token_endpoint_auth_signing_alg=")  # fmt: skip
    assert "client_secret: is missing" in run(*back).output
    assert "cannot become public" in run(*back, "--set", "token_endpoint_auth_method=none").output
    assert run(*back, "--set", f"client_secret={STRONG}").exit_code == 0


def test_a_secret_of_ones_own_is_not_shown(tmp_path: Path, run: Run) -> None:
    """An option that was given does not have to be given again."""
    metadata = json.dumps({"client_secret": STRONG})
    result = run(*ADD, "--client-id", "a", "--metadata", metadata)
    assert (result.exit_code, STRONG in result.output) == (0, False)
    assert _is_good(tmp_path, "a", STRONG)


def test_no_command_shows_a_secret_again(run: Run) -> None:
    """A secret is printed once; neither it nor its hash is shown later."""
    made = _json(run, *ADD, "--json")
    rotated = run("clients", "rotate-secret", made["client_id"]).output.split()[-1]
    outputs = [
        run("clients", "list").output,
        run("clients", "list", "--json").output,
        run("clients", "show", made["client_id"]).output,
        run(*ADD, "--client-id", made["client_id"]).output,
        run("clients", "show", "fixed", **IN_DEV).output,
        run("clients", "list", "--json", **IN_DEV).output,
        run("clients", "remove", made["client_id"]).output,
    ]
    for output in outputs:
        assert not any(secret in output for secret in (made["client_secret"], rotated, STRONG))
        assert '"secrets"' not in output and '"client_secret"' not in output


def test_list_shows_the_clients_of_both_places(run: Run) -> None:
    """`clients list`, a table or JSON: those of the environment and of the database, by id."""
    assert _json(run, "clients", "list", "--json") == {"clients": []}
    for name in ("b", "a", "z"):
        assert run(*ADD, "--client-id", name).exit_code == 0
    rows = _json(run, "clients", "list", "--json", **IN_DEV)["clients"]
    assert [(row["client_id"], row["source"]) for row in rows] == [
        ("a", "database"),
        ("b", "database"),
        ("fixed", "environment"),
        ("z", "database"),
    ]
    head, *lines = run("clients", "list", **IN_DEV).output.splitlines()
    assert head.startswith("client id")
    assert [line.split()[0] for line in lines] == ["a", "b", "fixed", "z"]


def test_show_of_an_unknown_client_is_a_failure(run: Run) -> None:
    """Exit 1 a failed operation, in one line."""
    for command in (
        ("show", "nobody"),
        ("rotate-secret", "nobody"),
        ("remove", "nobody"),
        ("show", "\udcff"),
    ):
        result = run("clients", *command)
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
        assert result.stdout == ""


def test_rotation_leaves_the_old_secret_an_hour(tmp_path: Path, run: Run) -> None:
    """`clients rotate-secret`: the new secret is good at once, the old one for an hour more."""
    made = _json(run, *ADD, "--json")
    client_id, old = made["client_id"], made["client_secret"]
    result = run("clients", "rotate-secret", client_id)
    assert result.exit_code == 0
    new = result.output.split()[-1]
    assert _is_good(tmp_path, client_id, new) and _is_good(tmp_path, client_id, old)
    assert not _is_good(tmp_path, client_id, old, later_s=3601)
    assert _is_good(tmp_path, client_id, new, later_s=3601)


def test_what_shows_a_client_or_a_secret_has_json(run: Run) -> None:
    """`--json` on every command that prints a table: a script reads the new secret as the admin API tells it."""
    client_id = _json(run, *ADD, "--json")["client_id"]
    rotated = _json(run, "clients", "rotate-secret", client_id, "--json")
    assert set(rotated) == {"client_id", "client_secret"} and rotated["client_id"] == client_id
    assert _json(run, "clients", "show", client_id, "--json")["client_id"] == client_id


def test_a_public_client_has_nothing_to_rotate(run: Run) -> None:
    """Exit 1 a failed operation."""
    assert run(*ADD, "--public", "--client-id", "p").exit_code == 0
    assert run("clients", "rotate-secret", "p").exit_code == 1


def test_a_removed_client_is_gone(tmp_path: Path, run: Run) -> None:
    """`clients remove`: gone at once; a second time there is nothing to remove. Its id is free again."""
    made = _json(run, *ADD, "--client-id", "a", "--json")
    assert run("clients", "remove", "a").exit_code == 0
    assert not _is_good(tmp_path, "a", made["client_secret"])
    assert run("clients", "show", "a").exit_code == 1
    assert run("clients", "remove", "a").exit_code == 1
    assert run(*ADD, "--client-id", "a").exit_code == 0


@each_of("command", [("rotate-secret", "fixed"), ("remove", "fixed")], ids=lambda row: row[0])
def test_a_client_of_the_environment_is_changed_there(run: Run, command: tuple[str, ...]) -> None:
    """Exit 1; it is where the environment is that it must be changed."""
    result = run("clients", *command, **IN_DEV)
    assert (result.exit_code, "PYLON_OIDC_CLIENTS" in result.stderr) == (1, True)


def test_an_id_is_taken_once(run: Run) -> None:
    """Exit 1 for an id that is there, in the database or in the environment; what is there stays."""
    assert run(*ADD, "--client-id", "a", "--name", "first").exit_code == 0
    assert run(*ADD, "--client-id", "a", "--name", "second").exit_code == 1
    assert run(*ADD, "--client-id", "fixed", **IN_DEV).exit_code == 1
    assert _json(run, "clients", "show", "a")["client_name"] == "first"


def test_no_client_is_called_as_the_minted_audience(run: Run) -> None:
    """Exit 2: an ID token for it would be forged by a minted one."""
    result = run(*ADD, "--client-id", "api", PYLON_JWT_AUDIENCE="api")
    assert (result.exit_code, "audience" in result.stderr) == (2, True)


WRONG = [
    ("clients",),
    ("clients", "unknown"),
    ("clients", "add"),
    ("clients", "add", "--redirect-uri"),
    ("clients", "add", "--redirect-uri", "http://rp.example/cb"),
    ("clients", "add", "--redirect-uri", "*"),
    (*ADD, "--client-id", "a b"),
    (*ADD, "--scope", "admin"),
    (*ADD, "--name", "x" * 256),
    (*ADD, "--post-logout-redirect-uri", "/out"),
    (*ADD, "--metadata", "[]"),
    (*ADD, "--metadata", "{"),
    (*ADD, "--metadata", "[" * 100_000),
    (*ADD, "--metadata", '{"redirect_uri": "x"}'),
    (*ADD, "--metadata", '{"client_secret": "canary7f3a"}'),
    (*ADD, "--public", "--metadata", f'{{"client_secret": "canary7f3a{STRONG}"}}'),
    ("clients", "show"),
    ("clients", "show", "a", "b"),
    ("clients", "remove"),
    ("clients", "rotate-secret"),
    ("clients", "list", "extra"),
]


@each_of("arguments", WRONG, ids=lambda row: " ".join(row)[:60])
def test_wrong_usage_is_exit_2(run: Run, arguments: tuple[str, ...]) -> None:
    """2 wrong usage, of a member too; nothing is registered, and no secret repeated."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output and result.exception.__class__ is SystemExit
    assert "canary7f3a" not in result.output
    assert _json(run, "clients", "list", "--json") == {"clients": []}


@each_of("command", [ADD, ("clients", "list"), ("clients", "show", "a")], ids=lambda row: row[1])
def test_wrong_clients_of_the_environment_are_told(run: Run, command: tuple[str, ...]) -> None:
    """Exit 2: who does not know which clients there are can neither list nor change them."""
    result = run(*command, PYLON_OIDC_CLIENTS='[{"client_id": "a", "client_secret": "canary7f3a"}]')
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("PYLON_OIDC_CLIENTS: ")
    assert "canary7f3a" not in result.output


def test_a_name_moves_no_terminal(run: Run) -> None:
    """docs/security.md: a client's name is text of strangers; what is not printable is refused."""
    assert run(*ADD, "--name", "\x1b[31mred").exit_code == 2
    assert run(*ADD, "--name", "a\nb").exit_code == 2


# --- changing one ---


def test_update_changes_what_it_names_and_nothing_else(tmp_path: Path, run: Run) -> None:
    """docs/cli.md: `clients update --set`: lists, flags, names and text; the secret stays."""
    made = _json(run, *ADD, "--name", "Wiki", "--scope", "openid email groups", "--json")
    client_id, secret = made["client_id"], made.pop("client_secret")
    changed = _json(
        run, "clients", "update", client_id, "--set", "redirect_uris=https://a.example/cb, https://b.example/cb",
        "--set", "require_pkce=true", "--set", "claim_names=roles=groups,email=mail", "--set", "client_name=The wiki",
        "--set", 'default_scopes=["email"]', "--json",
    )  # fmt: skip
    assert changed == made | {
        "redirect_uris": ["https://a.example/cb", "https://b.example/cb"], "require_pkce": True,
        "claim_names": {"roles": "groups", "email": "mail"}, "client_name": "The wiki", "default_scopes": ["email"],
    }  # fmt: skip
    assert _is_good(tmp_path, client_id, secret)
    back = _json(
        run, "clients", "update", client_id, "--set", "require_pkce=", "--set", "claim_names=", "--json"
    )
    assert "require_pkce" not in back and back["claim_names"] == {} and back["client_name"] == "The wiki"


def test_update_reads_a_file(tmp_path: Path, run: Run) -> None:
    """docs/cli.md: `--metadata FILE`: the members in it change; `null` gives one its default again."""
    made = _json(run, *ADD, "--name", "Wiki", "--json")
    file = tmp_path / "new.json"
    file.write_text(json.dumps({"client_name": None, "first_party": True}))
    result = run("clients", "update", made["client_id"], "--metadata", str(file))
    assert (result.exit_code, result.output) == (0, "client_name  null\nfirst_party  true\n")
    shown = _json(run, "clients", "show", made["client_id"])
    assert shown["first_party"] is True and "client_name" not in shown


@each_of(
    ("arguments", "exit_code", "said"),
    [
        (("a",), 2, "--set MEMBER=VALUE, or --metadata FILE"),
        (("a", "--set", "x"), 2, "MEMBER=VALUE"),
        (("a", "--set", "redirect_uri=https://x.example"), 2, "did you mean redirect_uris?"),
        (("a", "--set", "redirect_uris=http://x.example"), 2, "write https"),
        (("a", "--set", "require_pkce=maybe"), 2, "true or false"),
        (("a", "--set", "client_secret=" + STRONG), 2, "is not set here; leave it out"),
        (("a", "--set", "client_id=b"), 2, "cannot be changed"),
        (("none", "--set", "client_name=x"), 1, "no such client"),
        (("fixed", "--set", "client_name=x"), 1, "PYLON_OIDC_CLIENTS"),
    ],
)
def test_update_says_what_is_wrong(run: Run, arguments: tuple[str, ...], exit_code: int, said: str) -> None:
    """docs/cli.md: wrong usage and wrong metadata are 2, a client that is not there or not the database's is 1."""
    run("clients", "remove", "a")  # of the case before
    assert run(*ADD, "--client-id", "a").exit_code == 0
    before = _json(run, "clients", "show", "a")
    result = run("clients", "update", *arguments, **IN_DEV)
    assert (result.exit_code, said in result.output + result.stderr) == (exit_code, True), result.output
    assert _json(run, "clients", "show", "a") == before


# --- well-known applications ---


@each_of("name", presets())
def test_a_preset_registers_its_application(tmp_path: Path, run: Run, name: str) -> None:
    """docs/apps: one line registers it, and what is printed for the other side has every value filled in."""
    preset = presets()[name]
    url = ("--url", "https://app.example.com/x/") if preset.needs_url else ()
    made = _json(
        run, "clients", "add", "--preset", name, *url, "--json", PYLON_OIDC_ISSUER="https://id.example.com"
    )
    assert (
        made["client_name"]
        and made["redirect_uris"]
        and set(made["default_scopes"]) <= set(made["scope"].split())
    )
    paste = made["paste"]
    assert "https://id.example.com" in paste and made["client_id"] in paste
    assert ("client_secret" in made) == (made.get("client_secret", "\0") in paste)
    assert not any("{" + part + "}" in paste for part in ("url", "issuer", "client_id", "client_secret"))
    for uri in made["redirect_uris"] if preset.recognised else ():
        assert not uri.startswith("https") or recognise(uri) == (preset, "https://app.example.com/x")
    text = run("clients", "add", "--preset", name, *url).stdout
    assert text.startswith("client_id ") and f"At {preset.title}, write:" in text


def test_options_win_over_a_preset(run: Run) -> None:
    """docs/cli.md: the preset fills in what the line does not say."""
    line = (
        "clients",
        "add",
        "--preset",
        "grafana",
        "--url",
        "https://g.example",
        "--name",
        "Boards",
        "--json",
    )
    made = _json(run, *line, "--client-id", "grafana", "--metadata", '{"first_party": true}')
    assert (made["client_name"], made["client_id"], made["first_party"]) == ("Boards", "grafana", True)
    assert made["redirect_uris"] == ["https://g.example/login/generic_oauth"]
    assert "http://localhost:4321/oidc/authorize" in made["paste"]


def test_a_preset_says_what_the_service_lacks(run: Run) -> None:
    """docs/apps: with the settings that the line sees nobody could sign in; on stderr, each with the setting."""
    line = ("clients", "add", "--preset", "synapse", "--url", "https://m.example")
    bare = run(*line).stderr
    assert [name for name in LACKS if name not in bare] == [] and len(bare.splitlines()) == len(LACKS)
    assert run(*line, PYLON_DEV_MODE="1", PYLON_OIDC_KEYS="managed").stderr == ""
    set_up = {
        "PYLON_OIDC_ISSUER": "https://id.example.com",
        "PYLON_LOGIN_URL": "https://app.example.com/sign-in",
        "PYLON_OIDC_KEY_PATH": "key.pem",
    }
    assert run(*line, **set_up).stderr == ""
    assert run(*ADD).stderr == ""


def test_a_well_known_address_is_recognised(run: Run) -> None:
    """docs/cli.md: for the address of a well-known application, stderr names its preset."""
    line = ("clients", "add", "--redirect-uri", "https://p.example/oauth2/callback")
    assert "--preset oauth2-proxy --url https://p.example" in run(*line).stderr
    assert run(*ADD).stderr == ""


@each_of(
    ("arguments", "said"),
    [
        ((), "--redirect-uri, or --preset"),
        (("--preset", "grafana"), "--url https://app.example.com"),
        (("--preset", "grafanna", "--url", "https://g.example"), "grafana"),
        (("--url", "https://g.example", "--redirect-uri", CALLBACK), "--url is given without --preset"),
        (("--preset", "grafana", "--url", "g.example"), "write https://app.example.com"),
        (("--preset", "grafana", "--url", "https://g.example/?x=1"), "write https://app.example.com"),
        (("--preset", "grafana", "--url", "http://g.example"), "write https"),
    ],
)
def test_a_preset_says_what_it_lacks(run: Run, arguments: tuple[str, ...], said: str) -> None:
    """docs/cli.md: wrong usage is 2, with what to write."""
    result = run("clients", "add", *arguments)
    assert (result.exit_code, said in result.output + result.stderr) == (2, True), result.output


def test_who_lost_each_time_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where others change the same client each time, the command says so, changes nothing and exits 1."""

    def lose(*_: Any, **__: Any) -> Any:
        raise Contended

    client_id = _json(run, *ADD, "--json")["client_id"]
    monkeypatch.setattr(SqlStore, "change", lose)
    for command in (("rotate-secret", client_id), ("update", client_id, "--set", "client_name=New")):
        result = run("clients", *command)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "Nothing was changed; run the command again." in result.stderr
