"""docs/cli.md: a wrong configuration tells every fault at once, each with its remedy, and no secret."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.settings import NAMES, read_settings
from tests.settings.reading import STRONG, modulus, named, read
from tests.support.cases import each_of
from tests.support.gunicorn import rsa_pem

PUBLIC = "https://id.example.com"
NEW_KEY = "<missing key file>"
PEM, OTHER_MODULUS, MODULUS = "<pem>", "<other modulus>", "<modulus>"
PG = "postgresql://u:p@db/pylon"
LOGIN = "https://app.example.com/sign-in"
CLIENTS = '[{"client_id": "c-1", "redirect_uris": ["https://rp.example/cb"]}]'
PROVIDER = {
    "PYLON_OIDC_CLIENTS": CLIENTS,
    "PYLON_OIDC_ISSUER": PUBLIC,
    "PYLON_LOGIN_URL": LOGIN,
    "PYLON_OIDC_PRIVATE_KEY": PEM,
}


#: 32 bytes that no one uses.
SEALING = base64.b64encode(bytes(range(32))).decode()
MANAGED = {"PYLON_OIDC_KEYS": "managed", "PYLON_KEY_ENCRYPTION_KEY": SEALING}


def _provider_without(name: str) -> dict[str, str]:
    return {each: value for each, value in PROVIDER.items() if each != name}


# What is set, and the names of the faults, one a fault, in the order of the settings.
WRONG: dict[str, tuple[dict[str, str], list[str]]] = {
    "a port of a word, no workers, and a short secret": (
        {"PORT": "http", "WEB_CONCURRENCY": "0", "PYLON_JWT_SECRET": "short"},
        ["PORT", "WEB_CONCURRENCY", "PYLON_JWT_SECRET"],
    ),
    "a port too high, workers in other digits": (
        {"PORT": "65536", "WEB_CONCURRENCY": "٣"},
        ["PORT", "WEB_CONCURRENCY"],
    ),
    "RS256 without a key": ({"PYLON_JWT_ALG": "RS256"}, ["PYLON_JWT_ALG"]),
    "RS256 with only a published key": (
        {"PYLON_JWT_ALG": "RS256", "PYLON_OIDC_JWKS_RSA_N": MODULUS},
        ["PYLON_JWT_ALG"],
    ),
    "RS256 with only a secret": ({"PYLON_JWT_ALG": "RS256", "PYLON_JWT_SECRET": STRONG}, ["PYLON_JWT_ALG"]),
    "a key twice": ({"PYLON_OIDC_PRIVATE_KEY": PEM, "PYLON_OIDC_KEY_PATH": NEW_KEY}, ["PYLON_OIDC_KEY_PATH"]),
    "two different keys": (
        {"PYLON_OIDC_PRIVATE_KEY": PEM, "PYLON_OIDC_JWKS_RSA_N": OTHER_MODULUS},
        ["PYLON_OIDC_JWKS_RSA_N"],
    ),
    "two different exponents": (
        {"PYLON_OIDC_PRIVATE_KEY": PEM, "PYLON_OIDC_JWKS_RSA_N": MODULUS, "PYLON_OIDC_JWKS_RSA_E": "Aw"},
        ["PYLON_OIDC_JWKS_RSA_N"],
    ),
    "a published key next to one still to be made": (
        {"PYLON_OIDC_KEY_PATH": NEW_KEY, "PYLON_OIDC_JWKS_RSA_N": MODULUS},
        ["PYLON_OIDC_JWKS_RSA_N"],
    ),
    "each replica a key of its own": (
        {"PYLON_OIDC_KEY_PATH": NEW_KEY, "DATABASE_URL": PG},
        ["PYLON_OIDC_KEY_PATH"],
    ),
    "managed keys that nothing seals": ({"PYLON_OIDC_KEYS": "managed"}, ["PYLON_KEY_ENCRYPTION_KEY"]),
    "managed keys and a kid of the settings": (
        MANAGED | {"PYLON_OIDC_JWKS_KID": "mine"},
        ["PYLON_OIDC_JWKS_KID"],
    ),
    "minting by an algorithm that is not kept": (MANAGED | {"PYLON_JWT_ALG": "ES256"}, ["PYLON_JWT_ALG"]),
    "minting by another than is kept": (
        MANAGED | {"PYLON_JWT_ALG": "RS256", "PYLON_OIDC_ALGS": "ES256,PS256"},
        ["PYLON_JWT_ALG"],
    ),
    "ES256 by the key of the environment": (
        {"PYLON_JWT_ALG": "ES256", "PYLON_OIDC_PRIVATE_KEY": PEM},
        ["PYLON_JWT_ALG"],
    ),
    "Ed25519 without any key": ({"PYLON_JWT_ALG": "Ed25519"}, ["PYLON_JWT_ALG"]),
    "PS256 without a key": ({"PYLON_JWT_ALG": "PS256"}, ["PYLON_JWT_ALG"]),
    "a client whose algorithm is not kept": (
        MANAGED
        | _provider_without("PYLON_OIDC_PRIVATE_KEY")
        | {"PYLON_OIDC_CLIENTS": CLIENTS.replace("{", '{"id_token_signed_response_alg": "ES256", ')},
        ["PYLON_OIDC_CLIENTS"],
    ),
    "a client whose algorithm the key of the environment has not": (
        PROVIDER | {"PYLON_OIDC_CLIENTS": CLIENTS.replace("{", '{"id_token_signed_response_alg": "PS256", ')},
        ["PYLON_OIDC_CLIENTS"],
    ),
    "dev mode in public": ({"PYLON_DEV_MODE": "1", "PYLON_OIDC_ISSUER": PUBLIC}, ["PYLON_DEV_MODE"]),
    "dev mode at a public address": (
        {"PYLON_DEV_MODE": "1", "PYLON_OIDC_ISSUER": "https://192.0.2.1"},
        ["PYLON_DEV_MODE"],
    ),
    "same-site none over http": (
        {"PYLON_COOKIE_SAME_SITE": "none", "PYLON_OIDC_ISSUER": "http://localhost:4321"},
        ["PYLON_COOKIE_SAME_SITE"],
    ),
    "same-site none in dev mode": (
        {"PYLON_COOKIE_SAME_SITE": "none", "PYLON_DEV_MODE": "1"},
        ["PYLON_COOKIE_SAME_SITE"],
    ),
    "a cookie for another domain": (
        {"PYLON_COOKIE_DOMAIN": "example.org", "PYLON_OIDC_ISSUER": PUBLIC},
        ["PYLON_COOKIE_DOMAIN"],
    ),
    "a cookie for a subdomain": (
        {"PYLON_COOKIE_DOMAIN": "a.id.example.com", "PYLON_OIDC_ISSUER": PUBLIC},
        ["PYLON_COOKIE_DOMAIN"],
    ),
    "a host cookie with a domain": (
        {"PYLON_COOKIE_NAME": "__Host-sid", "PYLON_COOKIE_DOMAIN": "example.com"},
        ["PYLON_COOKIE_NAME"],
    ),
    "a host cookie under a path": (
        {"PYLON_COOKIE_NAME": "__Host-sid", "PYLON_OIDC_ISSUER": PUBLIC + "/t"},
        ["PYLON_COOKIE_NAME"],
    ),
    "a prefixed cookie over http": (
        {"PYLON_COOKIE_NAME": "__Secure-sid", "PYLON_OIDC_ISSUER": "http://localhost:4321"},
        ["PYLON_COOKIE_NAME"],
    ),
    "a wrong key file does not hide two different keys": (
        {
            "PYLON_OIDC_KEY_PATH": "<folder>",
            "PYLON_OIDC_PRIVATE_KEY": PEM,
            "PYLON_OIDC_JWKS_RSA_N": OTHER_MODULUS,
        },
        ["PYLON_OIDC_JWKS_RSA_N", "PYLON_OIDC_KEY_PATH"],
    ),
    "a wrong data folder does not hide a wrong database": (
        {"PYLON_DATA_DIR": "\x00", "DATABASE_URL": "sqlite:////dev/null/x.db"},
        ["DATABASE_URL", "PYLON_DATA_DIR"],
    ),
    "a value and its file": (
        {"PYLON_JWT_SECRET": STRONG, "PYLON_JWT_SECRET_FILE": "/nowhere"},
        ["PYLON_JWT_SECRET"],
    ),
    "a file that is not there": ({"PYLON_ADMIN_TOKEN_FILE": "/nowhere"}, ["PYLON_ADMIN_TOKEN_FILE"]),
    "two simple ones": (
        {"PYLON_JWT_SECRET": "short", "PYLON_LOG_LEVEL": "loud"},
        ["PYLON_JWT_SECRET", "PYLON_LOG_LEVEL"],
    ),
    "a simple one and a crossed one": (
        {"PYLON_LOG_LEVEL": "loud", "PYLON_JWT_ALG": "RS256"},
        ["PYLON_JWT_ALG", "PYLON_LOG_LEVEL"],
    ),
    "two crossed ones": (
        {"PYLON_DEV_MODE": "1", "PYLON_OIDC_ISSUER": PUBLIC, "PYLON_JWT_ALG": "RS256"},
        ["PYLON_DEV_MODE", "PYLON_JWT_ALG"],
    ),
    "a faulty setting that a crossed check also names": (
        {"PYLON_OIDC_KEY_PATH": "<folder>", "PYLON_DEV_MODE": "1", "PYLON_OIDC_ISSUER": PUBLIC},
        ["PYLON_DEV_MODE", "PYLON_OIDC_KEY_PATH"],
    ),
    "a wrong admin token does not hide two keys": (
        {"PYLON_ADMIN_TOKEN": "x", "PYLON_OIDC_PRIVATE_KEY": PEM, "PYLON_OIDC_KEY_PATH": NEW_KEY},
        ["PYLON_OIDC_KEY_PATH", "PYLON_ADMIN_TOKEN"],
    ),
    "a wrong database does not hide two keys": (
        {"DATABASE_URL": "mysql://x", "PYLON_OIDC_PRIVATE_KEY": PEM, "PYLON_OIDC_KEY_PATH": NEW_KEY},
        ["PYLON_OIDC_KEY_PATH", "DATABASE_URL"],
    ),
    "an unreadable file does not hide what else is wrong": (
        {
            "PYLON_JWT_SECRET_FILE": "/nowhere",
            "PYLON_DEV_MODE": "1",
            "PYLON_OIDC_ISSUER": PUBLIC,
            "PYLON_LOG_FORMAT": "x",
        },
        ["PYLON_DEV_MODE", "PYLON_JWT_SECRET_FILE", "PYLON_LOG_FORMAT"],
    ),
    "one setting in two crossed checks": (
        {"PYLON_OIDC_KEY_PATH": NEW_KEY, "DATABASE_URL": PG, "PYLON_OIDC_PRIVATE_KEY": PEM},
        ["PYLON_OIDC_KEY_PATH", "PYLON_OIDC_KEY_PATH"],
    ),
    "clients without an issuer": (_provider_without("PYLON_OIDC_ISSUER"), ["PYLON_OIDC_ISSUER"]),
    "clients without a sign-in page": (_provider_without("PYLON_LOGIN_URL"), ["PYLON_LOGIN_URL"]),
    "clients without a key": (_provider_without("PYLON_OIDC_PRIVATE_KEY"), ["PYLON_OIDC_CLIENTS"]),
    "clients with only a published key": (
        _provider_without("PYLON_OIDC_PRIVATE_KEY") | {"PYLON_OIDC_JWKS_RSA_N": MODULUS},
        ["PYLON_OIDC_CLIENTS"],
    ),
    "clients with only a secret": (
        _provider_without("PYLON_OIDC_PRIVATE_KEY") | {"PYLON_JWT_SECRET": STRONG},
        ["PYLON_OIDC_CLIENTS"],
    ),
    "only clients": (
        {"PYLON_OIDC_CLIENTS": CLIENTS},
        ["PYLON_OIDC_ISSUER", "PYLON_OIDC_CLIENTS", "PYLON_LOGIN_URL"],
    ),
    "clients and strict cookies": (
        PROVIDER | {"PYLON_COOKIE_SAME_SITE": "strict"},
        ["PYLON_COOKIE_SAME_SITE"],
    ),
    "strict cookies in dev mode": (
        {"PYLON_DEV_MODE": "1", "PYLON_OIDC_CLIENTS": CLIENTS, "PYLON_COOKIE_SAME_SITE": "strict"},
        ["PYLON_COOKIE_SAME_SITE"],
    ),
    "a client called as the minted audience": (
        PROVIDER | {"PYLON_JWT_AUDIENCE": "c-1"},
        ["PYLON_JWT_AUDIENCE"],
    ),
    "the minted audience in dev mode": (
        {"PYLON_DEV_MODE": "1", "PYLON_OIDC_CLIENTS": CLIENTS, "PYLON_JWT_AUDIENCE": "c-1"},
        ["PYLON_JWT_AUDIENCE"],
    ),
    "seven at once": (
        {
            "PYLON_OIDC_ISSUER": "https://id.example.com/",
            "PYLON_ALLOWED_HOSTS": "*",
            "PYLON_JWT_ALG": "RS256",
            "PYLON_JWT_LIFETIME_SECS": "0",
            "PYLON_TRUSTED_ORIGINS": "null",
            "PYLON_COOKIE_NAME": "a b",
            "FORWARDED_ALLOW_IPS": "proxy",
        },
        [
            "PYLON_OIDC_ISSUER",
            "PYLON_ALLOWED_HOSTS",
            "PYLON_JWT_ALG",
            "PYLON_JWT_LIFETIME_SECS",
            "PYLON_TRUSTED_ORIGINS",
            "PYLON_COOKIE_NAME",
            "FORWARDED_ALLOW_IPS",
        ],
    ),
}


def _written(folder: Path, environ: dict[str, str]) -> dict[str, str]:
    meant = {
        NEW_KEY: str(folder / "new.pem"),
        PEM: rsa_pem(),
        MODULUS: modulus(),
        OTHER_MODULUS: modulus(rsa_pem(number=1)),
        "<folder>": str(folder),
    }
    return {name: meant.get(value, value) for name, value in environ.items()}


@each_of(("environ", "names"), WRONG.values(), ids=WRONG.keys())
def test_every_fault_is_told_with_its_remedy(
    tmp_path: Path, environ: dict[str, str], names: list[str]
) -> None:
    """Every fault at once, one line each, `NAME: what is wrong; what to write instead`."""
    reading = read(tmp_path, **_written(tmp_path, environ))
    assert named(reading) == names
    for fault in reading.faults:
        wrong, separator, remedy = fault.text.partition("; ")
        assert wrong and separator and remedy
        assert "\n" not in str(fault)


@each_of("issuer", [None, PUBLIC, "http://localhost:4321"])
@each_of("path", ["key.pem"])
def test_what_agrees_is_no_fault(tmp_path: Path, issuer: str | None, path: str) -> None:
    """docs/settings.md: a private key and an equal published one; RS256 with either form of key; dev mode on loopback."""
    base = {} if issuer is None else {"PYLON_OIDC_ISSUER": issuer}
    good: list[dict[str, str]] = [
        {"PYLON_OIDC_PRIVATE_KEY": rsa_pem(), "PYLON_OIDC_JWKS_RSA_N": modulus(), "PYLON_JWT_ALG": "RS256"},
        {"PYLON_OIDC_KEY_PATH": str(tmp_path / path), "PYLON_JWT_ALG": "RS256"},
        {"PYLON_OIDC_PRIVATE_KEY": rsa_pem(), "DATABASE_URL": PG},
        {"PYLON_OIDC_PRIVATE_KEY": rsa_pem(), "PYLON_JWT_ALG": "PS256"},
        MANAGED | {"PYLON_OIDC_ALGS": "RS256,Ed25519", "PYLON_JWT_ALG": "Ed25519", "DATABASE_URL": PG},
        MANAGED | {"PYLON_OIDC_PRIVATE_KEY": rsa_pem(), "PYLON_OIDC_JWKS_RSA_N": modulus()},
        MANAGED | {"PYLON_OIDC_KEY_PATH": str(tmp_path / path), "DATABASE_URL": PG},
    ]
    good += [{"PYLON_COOKIE_SAME_SITE": "strict", "PYLON_OIDC_CLIENTS": "[]"}, {"PYLON_LOGIN_URL": LOGIN}]
    if issuer is not None:
        good += [PROVIDER | base, PROVIDER | base | {"PYLON_JWT_AUDIENCE": "c-2"}]
        good += [_provider_without("PYLON_OIDC_PRIVATE_KEY") | base | {"PYLON_OIDC_KEY_PATH": NEW_KEY}]
    if issuer == PUBLIC:
        good += [{"PYLON_COOKIE_DOMAIN": domain} for domain in ("id.example.com", "example.com")]
        good += [{"PYLON_COOKIE_SAME_SITE": "none"}, {"PYLON_COOKIE_NAME": "__Host-sid"}]
    else:
        good += [{"PYLON_DEV_MODE": "1"}, {"PYLON_DEV_MODE": "1", "PYLON_OIDC_CLIENTS": CLIENTS}]
    for environ in good:
        assert named(read(tmp_path, **_written(tmp_path, base | environ))) == []


def test_rs256_without_a_key_names_the_ways_to_give_one(tmp_path: Path) -> None:
    """docs/settings.md: `PYLON_JWT_ALG=RS256` without a private key is a start-up fault that names the ways to give one."""
    (fault,) = read(tmp_path, PYLON_JWT_ALG="RS256").faults
    for way in ("PYLON_OIDC_PRIVATE_KEY", "PYLON_OIDC_PRIVATE_KEY_FILE", "PYLON_OIDC_KEY_PATH"):
        assert way in fault.text
    (fault,) = read(tmp_path, **_provider_without("PYLON_OIDC_PRIVATE_KEY")).faults
    for way in ("PYLON_OIDC_PRIVATE_KEY", "PYLON_OIDC_KEY_PATH"):
        assert way in fault.text


FAULTY: dict[str, str] = {
    "PYLON_OIDC_ISSUER": "x",
    "PYLON_ALLOWED_HOSTS": "*",
    "PYLON_DEV_MODE": "maybe",
    "PYLON_JWT_SECRET": "short",
    "PYLON_JWT_SECRET_PREVIOUS": "short",
    "PYLON_JWT_ALG": "none",
    "PYLON_JWT_ISSUER": "\x00",
    "PYLON_JWT_AUDIENCE": "\x00",
    "PYLON_JWT_LIFETIME_SECS": "0",
    "PYLON_POLICIES": "/nowhere/policies.toml",
    "PYLON_OIDC_JWKS_RSA_N": "x",
    "PYLON_OIDC_JWKS_RSA_E": "x",
    "PYLON_OIDC_JWKS_KID": " ",
    "PYLON_OIDC_PRIVATE_KEY": "x",
    "PYLON_OIDC_KEY_PATH": "/dev/null/x",
    "DATABASE_URL": "x",
    "PYLON_STATUS_LIST": "maybe",
    "PYLON_PREPARED_STATEMENTS": "maybe",
    "PYLON_DATA_DIR": "/dev/null/x",
    "PYLON_ADMIN_TOKEN": "x",
    "PYLON_ADMIN_TOKEN_PREVIOUS": "x",
    "PYLON_TRUSTED_SECRET": "x",
    "PYLON_TRUSTED_SECRET_PREVIOUS": "x",
    "PYLON_TRUSTED_ORIGINS": "x",
    "PYLON_SESSION_LIFETIME_SECS": "0",
    "PYLON_COOKIE_NAME": " ",
    "PYLON_COOKIE_DOMAIN": " ",
    "PYLON_COOKIE_SAME_SITE": "x",
    "PYLON_OIDC_SCOPES": "x",
    "PYLON_OIDC_CLIENTS": "x",
    "PYLON_LOGIN_URL": "x",
    "PYLON_CONSENT_URL": "x",
    "PYLON_LOGOUT_URL": "x",
    "PYLON_BRAND_NAME": "x" * 65,
    "PYLON_DELIVERIES": "nobody",
    "PYLON_OIDC_CODE_LIFETIME_SECS": "61",
    "PYLON_OIDC_ID_TOKEN_LIFETIME_SECS": "0",
    "PYLON_OIDC_ACCESS_TOKEN_LIFETIME_SECS": "0",
    "PYLON_OIDC_REFRESH_IDLE_LIFETIME_SECS": "0",
    "PYLON_OIDC_REFRESH_MAX_LIFETIME_SECS": "0",
    "PYLON_OIDC_INTERACTION_LIFETIME_SECS": "0",
    "PYLON_OIDC_KEYS": "yes",
    "PYLON_KEY_ENCRYPTION_KEY": "c2hvcnQ=",
    "PYLON_OIDC_ALGS": "HS256",
    "PYLON_OIDC_KEY_ROTATION_DAYS": "-1",
    "PYLON_OIDC_REFRESH_GRACE_SECS": "-1",
    "PYLON_OIDC_REGISTRATION": "on",
    "PYLON_OIDC_REGISTRATION_SCOPES": " ",
    "PYLON_OIDC_REGISTRATION_IDLE_DAYS": "0",
    "PYLON_OIDC_CLIENT_DOCUMENTS": "https://x",
    "PYLON_OIDC_STRANGER_DEVICES": "x",
    "PYLON_OUTBOUND_ALLOW": "a b",
    "PYLON_OUTBOUND_CA_FILE": "/nowhere/ca.pem",
    "PYLON_OUTBOUND_PROXY": "x",
    "PYLON_LOG_LEVEL": "x",
    "PYLON_LOG_FORMAT": "x",
    "FORWARDED_ALLOW_IPS": "x",
}


def test_all_settings_wrong_at_once_are_all_told() -> None:
    """Every fault at once; one of the database's settings stands for both."""
    assert set(FAULTY) == set(NAMES)
    told = set(named(read_settings(FAULTY)))
    assert told >= set(FAULTY) - {"PYLON_DATA_DIR"}


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.sets(st.sampled_from(sorted(set(NAMES) - {"PYLON_DATA_DIR", "DATABASE_URL"}))))
def test_one_fault_never_hides_another(tmp_path: Path, chosen: set[str]) -> None:
    """A fault of one setting never hides another: any set of wrong settings is reported as that set."""
    reading = read(tmp_path, **{name: FAULTY[name] for name in chosen})
    assert named(reading) == [name for name in NAMES if name in chosen]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    other=st.sampled_from(sorted(set(NAMES) - {"PYLON_DATA_DIR", "DATABASE_URL"})),
    crossed=st.sampled_from(sorted(name for name in WRONG if "file" not in name and "hide" not in name)),
)
def test_no_fault_hides_a_disagreement_of_two_others(tmp_path: Path, other: str, crossed: str) -> None:
    """A fault of one setting never hides a fault between two others."""
    environ, names = WRONG[crossed]
    if other in environ:
        return
    key_sources = {"PYLON_OIDC_PRIVATE_KEY", "PYLON_OIDC_KEY_PATH", "PYLON_OIDC_KEYS"}
    if other in key_sources and "PYLON_JWT_ALG" in environ:
        return  # a key is there, and wrong: that there is none would be untrue
    if other == "PYLON_OIDC_ISSUER" and crossed == "same-site none in dev mode":
        return  # an issuer is there, and wrong: whether it is https is not known
    if "PYLON_OIDC_CLIENTS" in environ and (other == "PYLON_DEV_MODE" or other in names):
        return  # whether it is dev mode is not known; and what is there, and wrong, is not missing
    if "PYLON_OIDC_CLIENTS" in names and other in key_sources | {"PYLON_OIDC_ALGS"}:
        return  # a key is there, and wrong
    if "PYLON_OIDC_KEYS" in environ and other in {"PYLON_DEV_MODE", "PYLON_OIDC_ALGS", *names}:
        return  # whether keys must be sealed, and which are kept, is not known
    told = named(read(tmp_path, **_written(tmp_path, environ), **{other: FAULTY[other]}))
    assert sorted(told) == sorted([*names, other])


CANARY = "canary7f3a"
WITH_CANARY: dict[str, str] = {
    "PYLON_JWT_SECRET": CANARY,
    "PYLON_JWT_SECRET_PREVIOUS": CANARY,
    "PYLON_ADMIN_TOKEN": f"{CANARY} with a space {STRONG}",
    "PYLON_ADMIN_TOKEN_PREVIOUS": f"{CANARY} with a space {STRONG}",
    "PYLON_TRUSTED_SECRET": CANARY,
    "PYLON_TRUSTED_SECRET_PREVIOUS": CANARY,
    "PYLON_OIDC_PRIVATE_KEY": f"-----BEGIN PRIVATE KEY-----\n{CANARY}\n-----END PRIVATE KEY-----",
    "DATABASE_URL": f"mysql://user:{CANARY}@db/{CANARY}",
    "PYLON_OIDC_ISSUER": f"https://user:{CANARY}@id.example.com",
    "PYLON_TRUSTED_ORIGINS": f"https://user:{CANARY}@app.example.com",
    "PYLON_OIDC_JWKS_RSA_N": CANARY + "!",
    "PYLON_COOKIE_NAME": CANARY + " ",
    "PYLON_LOG_LEVEL": CANARY,
    "PYLON_JWT_LIFETIME_SECS": CANARY,
    "PYLON_ALLOWED_HOSTS": CANARY + "_",
    "PYLON_OIDC_CLIENTS": f'[{{"client_id": "a", "client_secret": "{CANARY}"}}]',
    "PYLON_LOGIN_URL": f"https://user:{CANARY}@app.example.com/",
    "PYLON_KEY_ENCRYPTION_KEY": f"{SEALING},{CANARY}",
}


@each_of("name", [*WITH_CANARY, "all"])
def test_no_value_of_a_secret_is_in_the_text(tmp_path: Path, name: str) -> None:
    """With no secret's value in it."""
    environ = WITH_CANARY if name == "all" else {name: WITH_CANARY[name]}
    reading = read(tmp_path, **environ)
    assert set(environ) <= set(named(reading))
    text = "\n".join(map(str, reading.faults)) + "\n".join(reading.warnings) + repr(reading)
    assert CANARY not in text


@each_of(
    ("rest", "told"),
    [
        ("u:a/b@h/n", ["password", "%2F for /"]),
        ("u:a@b@h/n", ["password", "%40 for @"]),
        ("u:a%b@h/n", ["password", "%25"]),
        ("u:a#b/c@h/n", ["password", "%23 for #", "%2F for /"]),
        ("u:a?b/c@h:5432/n", ["password", "%3F for ?", "%2F for /"]),
        ("u:[a/b@h/n", ["password", "%5B for [", "%2F for /"]),
        ("u:a b@h/n", ["space", "%20"]),
        ("u:p@h:port/n", ["port"]),
        ("u:p@h1:5432,h2:port/n", ["port"]),
        ("u:p@h1,h2/n?port=1,2,3", ["ports as hosts"]),
        ("u:p@[::1/n", ["host", "brackets"]),
        ("u:p@h/n?shoe_size=1", ["parameter"]),
        ("u:p@h/n?sslmode=on", ["sslmode", "verify-full"]),
        ("u:p@h/n?target_session_attrs=master", ["target_session_attrs", "read-write"]),
        ("u:p@h/n?connect_timeout=soon", ["connect_timeout"]),
    ],
)
def test_a_wrong_database_url_is_told_by_its_part(tmp_path: Path, rest: str, told: list[str]) -> None:
    """What is wrong, and what to write instead: the part that is at fault, and no other."""
    (fault,) = read(tmp_path, DATABASE_URL=f"postgresql://{rest}").faults
    for words in told:
        assert words in fault.text
    for part in ("password", "host is", "port is"):
        assert part.split()[0] in " ".join(told) or part not in fault.text.partition(";")[0]


@each_of(
    "url",
    [
        f"postgresql://u:{CANARY}@h:port/n",
        f"postgres://{CANARY}@[::1/n",
        f"{CANARY}://h/n",
        f"postgresql://u:{CANARY}%zz@h/n",
        f"postgresql://u:p@h/n?{CANARY}=1",
    ],
)
def test_a_database_url_is_never_repeated(tmp_path: Path, url: str) -> None:
    """No secret's value: a database URL has a password in it."""
    (fault,) = read(tmp_path, DATABASE_URL=url).faults
    assert CANARY not in str(fault)


@settings(max_examples=200)
@given(
    environ=st.dictionaries(
        st.sampled_from(
            [name for name in NAMES if name not in {"PYLON_DATA_DIR", "DATABASE_URL", "PYLON_OIDC_KEY_PATH"}]
        ),
        st.text(st.characters(blacklist_characters="\0"), max_size=80),
        max_size=6,
    )
)
def test_no_environment_makes_a_traceback(environ: dict[str, Any]) -> None:
    """Every wrong configuration is a fault, and every fault has its remedy."""
    reading = read_settings(environ)
    for fault in reading.faults:
        assert fault.name in environ or fault.name in NAMES
        assert "; " in fault.text
